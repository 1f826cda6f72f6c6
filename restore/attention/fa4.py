"""Block-sparse attention of flash-attn-4 (extra `fa4`), FlashAttention's kernels in CuTe.

The lists go in as blocks without a mask of tokens. This was written for 4.0.0b36; its interface may
still change. Tensors are `(B, N, H, D)` there: views of ours, which it copies only where rows are
not aligned. The first call of each kind compiles a kernel, which takes seconds.
"""

from __future__ import annotations

import functools
import importlib.util

import torch
from torch import Tensor

from restore.errors import OptionError, install_command


@functools.cache
def _missing() -> str | None:
    """The part of the installation that is not there, said once: looking costs a millisecond."""
    for module in ("flash_attn", "flash_attn.cute", "cutlass", "quack"):
        if importlib.util.find_spec(module) is None:
            return f"flash-attn-4 is not installed (no '{module}'): {install_command('fa4')}"
    return None


def why_not(q: Tensor) -> str | None:
    """Why FlashAttention-4 cannot compute for tensors like `q`; None when it can."""
    if not q.is_cuda or torch.version.hip is not None:
        return f"fa4 needs a tensor on an NVIDIA GPU, got one on {q.device}"
    major, minor = torch.cuda.get_device_capability(q.device)
    if major not in (9, 10):
        return f"fa4 needs compute capability 9.x or 10.x, this GPU has {major}.{minor}"
    if q.shape[-1] not in (64, 128):
        return f"fa4 takes heads of 64 or 128 channels, got {q.shape[-1]}"
    if q.dtype not in (torch.float16, torch.bfloat16):
        return f"fa4 takes float16 and bfloat16, got {q.dtype}"
    return _missing()


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

    Raises:
        OptionError: `kv_valid` is given, or `block` is not 128: its kernel knows whole blocks only.
    """
    if kv_valid is not None or block != 128:
        got = f"block={block}" if kv_valid is None else "kv_valid"
        raise OptionError(f"fa4 takes whole blocks of 128, got {got}; choose backend='triton'")
    from flash_attn.cute import flash_attn_func
    from flash_attn.cute.block_sparsity import BlockSparseTensorsTorch

    none = torch.zeros_like(count)
    lists = BlockSparseTensorsTorch(
        mask_block_cnt=none,
        mask_block_idx=none[..., None],
        full_block_cnt=count.contiguous(),
        full_block_idx=index.contiguous(),
        block_size=(block, block),
    )
    found = flash_attn_func(
        q.transpose(1, 2),  # (B, N, H, D)
        k.transpose(1, 2),
        v.transpose(1, 2),
        softmax_scale=scale,
        block_sparse_tensors=lists,
        return_lse=True,
    )
    return found[0].transpose(1, 2).contiguous(), found[1]
