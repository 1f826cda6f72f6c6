"""What the forward and the backward need to start a Triton kernel: tiles, descriptors, an order.

Nothing here reads a value from the device, so CUDA graphs can capture a launch. Triton itself is
imported when the first kernel starts.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
HEAD_SIZES = (64, 128)
BULK = 16  # bytes: what the copy engine wants addresses and strides to be multiples of


@dataclass(frozen=True, kw_only=True, slots=True)
class Tiles:
    """How one kernel cuts its work; every set used on sm_90 is compiled and read by the tests."""

    m: int
    """Queries in a tile; the block size where that is smaller."""
    n: int
    """Keys in a tile; the block size where that is smaller."""
    warps: int
    """Warps of one program; 8 are two warpgroups."""
    stages: int
    """Depth of the software pipeline."""
    ahead: bool = False
    """Forward only: take the next product before this softmax. Not used with `kv_valid`."""
    registers: int | None = None
    """Limit for a thread. Below what the products need, ptxas waits after each of them."""

    def options(self) -> dict[str, int]:
        """What the compiler is told."""
        found = {"num_warps": self.warps, "num_stages": self.stages}
        return found if self.registers is None else found | {"maxnreg": self.registers}


def interpreted() -> bool:
    """Whether kernels run in Triton's interpreter, on CPU tensors."""
    return os.environ.get("TRITON_INTERPRET", "0") == "1"


def why_not(q: Tensor) -> str | None:
    """Why the Triton kernels cannot compute for tensors like `q`; None when they can."""
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed: pip install triton, or choose backend='cpu' on the CPU"
    if not q.is_cuda and not interpreted():
        return f"triton needs a CUDA tensor, got one on {q.device}; choose backend='cpu'"
    if q.is_cuda and torch.version.hip is None:
        major, minor = torch.cuda.get_device_capability(q.device)
        if major < 8:
            return f"triton needs compute capability 8.0, this GPU has {major}.{minor}"
    if q.shape[-1] not in HEAD_SIZES:
        return f"triton takes heads of 64 or 128 channels, got {q.shape[-1]}"
    if q.dtype not in DTYPES:
        return f"triton takes float32, float16 and bfloat16, got {q.dtype}"
    return None


def hopper(tensor: Tensor) -> bool:
    """Whether the tensor is on an sm_90, whose copy engine the kernels are tuned for."""
    if not tensor.is_cuda or torch.version.hip is not None:
        return False
    return torch.cuda.get_device_capability(tensor.device)[0] == 9


def with_rows(tensor: Tensor) -> Tensor:
    """The tensor, with channels that lie side by side."""
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()


def strides(tensor: Tensor) -> tuple[int, int, int]:
    """Steps over batch, head and token of `(B, H, N, D)`, in elements."""
    return tensor.stride(0), tensor.stride(1), tensor.stride(2)


def bulk_ready(*tensors: Tensor) -> bool:
    """Whether the copy engine can read them all: 16-byte steps that are not zero."""
    return all(
        t.data_ptr() % BULK == 0
        and all(s > 0 and s * t.element_size() % BULK == 0 for s in _bulk_strides(t)[:3])
        for t in tensors
    )


def _bulk_strides(tensor: Tensor) -> list[int]:
    # The step over a dimension of size 1 is never taken, and may be anything: here a valid one.
    steps = [
        step if size > 1 else tensor.shape[-1]
        for size, step in zip(tensor.shape[:3], tensor.stride()[:3], strict=True)
    ]
    return [*steps, 1]


def descriptor(tensor: Tensor, rows: int) -> Any:
    """What the copy engine reads tiles of `rows` tokens through, made on the host per launch."""
    from triton.tools.tensor_descriptor import TensorDescriptor

    return TensorDescriptor(
        tensor, list(tensor.shape), _bulk_strides(tensor), [1, 1, rows, tensor.shape[-1]]
    )


def precision(tensor: Tensor) -> dict[str, Any]:
    """Constants of the products: three tf32 products for one in fp32 (rel. error 1e-6)."""
    return {
        "UPCAST": interpreted() and tensor.dtype == torch.bfloat16,
        "PRECISION": "tf32x3" if tensor.dtype == torch.float32 else "ieee",
    }


def on(tensor: Tensor) -> contextlib.AbstractContextManager[Any]:
    """Triton starts kernels on the current device, which need not be the tensor's."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else contextlib.nullcontext()


def longest_first(count: Tensor) -> Tensor:
    """The rows of each head by falling count, `(B, H, rows)` int32.

    A long row that starts last keeps the whole GPU waiting; started first it hides behind others.
    """
    from restore.attention.triton_kernels import order_kernel

    rows = count.shape[-1]
    order = torch.empty_like(count)
    own = 64
    grid = (-(-rows // own), count.shape[0] * count.shape[1])
    order_kernel[grid](count, order, rows, ROWS=own, STEP=64, num_warps=4)
    return order
