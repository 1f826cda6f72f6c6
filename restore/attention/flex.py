"""Block-sparse attention through PyTorch's FlexAttention: a comparator, and a fallback on CUDA.

The lists go in as they are, so no mask of single tokens is ever made. FlexAttention keeps to the
lists only when it is compiled: every call goes through `torch.compile`, and each new shape costs a
compilation; past 8 of them (`torch._dynamo.config.recompile_limit`) it refuses, where without
`fullgraph` it would go on in its eager form, which ignores the lists.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def why_not(q: Tensor) -> str | None:
    """Why FlexAttention cannot compute for tensors like `q`; None when it can."""
    if not q.is_cuda:  # there it compiles to C++, for the output alone
        return f"flex gives no lse off CUDA, got a tensor on {q.device}; choose backend='cpu'"
    if importlib.util.find_spec("triton") is None:
        return "flex compiles to Triton on a GPU: pip install triton"
    size = q.shape[-1]
    if size < 16 or size & (size - 1):
        return f"flex takes heads of 16, 32, 64, ... channels, got {size}"
    if q.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        return f"flex takes float32, float16 and bfloat16, got {q.dtype}"
    return None


@functools.cache
def _compiled() -> Callable[..., Any]:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=False, fullgraph=True)


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
    """Output `(B, H, NQ*block, D)` in q's dtype and lse `(B, H, NQ*block)` in float32."""
    from torch.nn.attention.flex_attention import AuxRequest

    if kv_valid is not None:
        v = cleared(v, kv_valid, block)
    mask = block_mask(count, index, blocks=k.shape[2] // block, block=block, kv_valid=kv_valid)
    out, aux = _compiled()(q, k, v, block_mask=mask, scale=scale, return_aux=AuxRequest(lse=True))
    return out, aux.lse


def cleared(tensor: Tensor, kv_valid: Tensor, block: int) -> Tensor:
    """A copy with zeros behind the valid tokens, where a weight of 0 would let NaN through."""
    token = torch.arange(block, device=tensor.device)
    behind = (token >= kv_valid[:, None]).flatten()  # (NK * block,)
    return tensor.masked_fill(behind[:, None], 0.0)


def block_mask(
    count: Tensor, index: Tensor, *, blocks: int, block: int, kv_valid: Tensor | None
) -> Any:
    """The lists as a BlockMask: whole blocks, or masked ones where some tokens are not valid."""
    from torch.nn.attention.flex_attention import BlockMask

    sizes: dict[str, Any] = {
        "BLOCK_SIZE": block,
        "seq_lengths": (count.shape[-1] * block, blocks * block),
        "compute_q_blocks": False,
    }
    # The generated code walks lists as long as the row of blocks.
    index = torch.nn.functional.pad(index, (0, blocks - index.shape[-1]))
    if kv_valid is None:
        none = torch.zeros_like(count)
        return BlockMask.from_kv_blocks(none, torch.zeros_like(index), count, index, **sizes)

    def inside(b: Tensor, h: Tensor, q_at: Tensor, kv_at: Tensor) -> Tensor:
        return kv_at % block < kv_valid[kv_at // block]

    return BlockMask.from_kv_blocks(count, index, mask_mod=inside, **sizes)
