"""Block-sparse attention in Triton: the default on CUDA.

On sm_90 the tiles come through the bulk copy engine (TMA); elsewhere, and for tensors whose steps
it cannot take, through pointers.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from restore.attention.triton_launch import (
    Tiles,
    bulk_ready,
    descriptor,
    hopper,
    interpreted,
    longest_first,
    on,
    precision,
    strides,
    why_not,
    with_rows,
)

__all__ = ["HOPPER", "OTHER", "WIDE", "forward", "launch", "tiles_for", "why_not"]

HOPPER = {
    64: Tiles(m=128, n=128, warps=8, stages=2, ahead=True),
    128: Tiles(m=128, n=128, warps=8, stages=2, ahead=True),
}
"""16-bit tensors on sm_90, by channels. With `ahead` ptxas lays the exponentials of one tile
between the products of the next; a limit of 128 registers makes it wait after each product."""

OTHER = {
    64: Tiles(m=128, n=64, warps=4, stages=2),
    128: Tiles(m=128, n=64, warps=8, stages=2),
}
"""16-bit tensors elsewhere: within the 99 KiB of shared memory of consumer GPUs."""

WIDE = {
    64: Tiles(m=64, n=32, warps=4, stages=2),
    128: Tiles(m=32, n=32, warps=4, stages=1),
}
"""float32, on every GPU."""


def tiles_for(q: Tensor) -> Tiles:
    """The tiles for tensors like `q`."""
    if q.dtype == torch.float32:
        return WIDE[q.shape[-1]]
    return (HOPPER if hopper(q) else OTHER)[q.shape[-1]]


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

    Tokens behind `kv_valid` may hold anything, also NaN.
    """
    return launch(
        q, k, v, count, index, block=block, kv_valid=kv_valid, scale=scale, tiles=tiles_for(q)
    )


def launch(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    count: Tensor,
    index: Tensor,
    *,
    block: int,
    kv_valid: Tensor | None,
    scale: float,
    tiles: Tiles,
    bulk: bool | None = None,
) -> tuple[Tensor, Tensor]:
    """The same with given tiles; `bulk` forces the copy engine or pointers (None: what fits)."""
    from restore.attention.triton_kernels import forward_kernel

    q, k, v = with_rows(q), with_rows(k), with_rows(v)
    count, index = count.contiguous(), index.contiguous()
    batch, heads, tokens, channels = q.shape
    rows = tokens // block
    out = torch.empty((batch, heads, tokens, channels), dtype=q.dtype, device=q.device)
    lse = torch.empty((batch, heads, tokens), dtype=torch.float32, device=q.device)
    m, n = min(tiles.m, block), min(tiles.n, block)
    if bulk is None:
        bulk = (hopper(q) or interpreted()) and q.element_size() == 2 and bulk_ready(q, k, v)
    with on(q):
        order = longest_first(count)
        forward_kernel[(rows * (block // m), batch * heads)](
            descriptor(q, m) if bulk else q,
            descriptor(k, n) if bulk else k,
            descriptor(v, n) if bulk else v,
            count,
            index,
            order,
            count if kv_valid is None else kv_valid,  # any pointer: it is not read then
            out,
            lse,
            *strides(q),
            *strides(k),
            *strides(v),
            heads,
            rows,
            index.shape[-1],
            scale * math.log2(math.e),
            D=channels,
            BLOCK=block,
            BLOCK_M=m,
            BLOCK_N=n,
            AHEAD=tiles.ahead and kv_valid is None,
            TMA=bulk,
            HAS_VALID=kv_valid is not None,
            **precision(q),
            **tiles.options(),
        )
    return out, lse
