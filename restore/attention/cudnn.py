"""Block-sparse attention of nvidia-cudnn-frontend (extra `cudnn`): a native kernel for sm_90.

It takes the same counts and indices, so nothing is converted. Its interface is experimental; this
was written for version 1.32. The first call of each kind compiles a kernel, which takes seconds.
"""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util

import torch
from torch import Tensor

from restore.attention.flex import cleared
from restore.errors import install_command

OLDEST = (1, 32)
FAMILIES = (9, 10, 12)  # compute capability: Hopper, Blackwell, Blackwell of consumers


@functools.cache
def _missing() -> str | None:
    """The part of the installation that is not there, said once: looking costs a millisecond."""
    try:
        found = importlib.metadata.version("nvidia-cudnn-frontend")
    except importlib.metadata.PackageNotFoundError:
        return f"nvidia-cudnn-frontend is not installed: {install_command('cudnn')}"
    if tuple(int(part) for part in found.split(".")[:2] if part.isdigit()) < OLDEST:
        return f"nvidia-cudnn-frontend {found} has no block-sparse attention, 1.32 has: " + (
            install_command("cudnn")
        )
    for module in ("cutlass", "tvm_ffi", "cuda"):
        if importlib.util.find_spec(module) is None:
            return f"nvidia-cudnn-frontend lacks its module '{module}': {install_command('cudnn')}"
    return None


def why_not(q: Tensor) -> str | None:
    """Why cuDNN's kernel cannot compute for tensors like `q`; None when it can."""
    if not q.is_cuda or torch.version.hip is not None:
        return f"cudnn needs a tensor on an NVIDIA GPU, got one on {q.device}"
    major, minor = torch.cuda.get_device_capability(q.device)
    if major not in FAMILIES:
        return f"cudnn needs compute capability 9.x, 10.x or 12.x, this GPU has {major}.{minor}"
    sizes = (128,) if major == 12 else (64, 128)
    if q.shape[-1] not in sizes:
        return f"cudnn takes heads of {sizes} channels on this GPU, got {q.shape[-1]}"
    if q.dtype not in (torch.float16, torch.bfloat16):
        return f"cudnn takes float16 and bfloat16, got {q.dtype}"
    return _missing()


def aligned(tensor: Tensor) -> Tensor:
    """The tensor, with rows that begin at multiples of 16 bytes, as the kernel's loads want."""
    steps = zip(tensor.shape[:-1], tensor.stride()[:-1], strict=True)
    ready = tensor.stride(-1) == 1 and tensor.data_ptr() % 16 == 0
    if ready and all(size == 1 or step % 8 == 0 for size, step in steps):
        return tensor
    return tensor.contiguous()


def forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    count: Tensor,
    index: Tensor,
    *,
    block: int,
    kv_valid: Tensor | None,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """Output `(B, H, NQ*block, D)` in q's dtype and lse `(B, H, NQ*block)` in float32.

    `block` is 64 or 128.
    """
    from cudnn.block_sparse_attention import block_sparse_attention_forward

    if kv_valid is not None:
        k, v = cleared(k, kv_valid, block), cleared(v, kv_valid, block)
    found = block_sparse_attention_forward(
        aligned(q),
        aligned(k),
        aligned(v),
        index.contiguous(),
        block_sizes=kv_valid,
        q2k_block_nums=count.contiguous(),
        sparse_block_size=block,
        allow_empty_block_nums=True,
        softmax_scale=scale,
    )
    return found["o_tensor"], found["lse_tensor"]
