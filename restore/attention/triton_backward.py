"""Gradients of block-sparse attention in Triton: dQ over the lists, dK and dV over transposed ones.

Every result has one writer: no atomics, and two runs give the same bits.
"""

from __future__ import annotations

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

__all__ = ["DKV", "DKV_WIDE", "DQ", "DQ_WIDE", "backward", "launch", "why_not"]

DQ = {
    64: Tiles(m=128, n=64, warps=8, stages=3),
    128: Tiles(m=128, n=64, warps=8, stages=2),
}
DKV = {
    64: Tiles(m=64, n=128, warps=8, stages=1),
    128: Tiles(m=64, n=128, warps=8, stages=2),
}
"""16-bit tensors, by channels. With 4 warps the two sums of dK and dV spill; with more stages at
D = 64, Triton 3.9 and its ptxas wait after every product."""

DQ_WIDE = {
    64: Tiles(m=64, n=32, warps=4, stages=1),
    128: Tiles(m=16, n=32, warps=4, stages=1),
}
DKV_WIDE = {
    64: Tiles(m=32, n=64, warps=4, stages=1),
    128: Tiles(m=32, n=32, warps=4, stages=1),
}
"""float32."""

CONSUMER = {64: Tiles(m=64, n=64, warps=4, stages=1), 128: Tiles(m=64, n=64, warps=8, stages=1)}
"""Both passes in 16 bits off sm_90: within 99 KiB of shared memory."""


def tiles_for(q: Tensor) -> tuple[Tiles, Tiles]:
    """Tiles of the dQ and of the dK, dV kernel for tensors like `q`."""
    channels = q.shape[-1]
    if q.dtype == torch.float32:
        return DQ_WIDE[channels], DKV_WIDE[channels]
    if not hopper(q):
        return CONSUMER[channels], CONSUMER[channels]
    return DQ[channels], DKV[channels]


def backward(
    dout: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    count: Tensor,
    index: Tensor,
    t_count: Tensor,
    t_index: Tensor,
    *,
    block: int,
    kv_valid: Tensor | None,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """dq, dk, dv of one forward, in the shapes and dtypes of q, k, v.

    Args:
        dout: gradient of the output.
        q, k, v, out, lse: what the forward took and gave.
        count, index: its lists.
        t_count, t_index: their transposition, `(B, H, NK)` and `(B, H, NK, capacity)`.
        block, kv_valid, scale: as in the forward. Tokens behind `kv_valid` get a gradient of 0.
    """
    return launch(
        dout, q, k, v, out, lse, count, index, t_count, t_index,
        block=block, kv_valid=kv_valid, scale=scale, tiles=tiles_for(q),
    )  # fmt: skip


def launch(
    dout: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    count: Tensor,
    index: Tensor,
    t_count: Tensor,
    t_index: Tensor,
    *,
    block: int,
    kv_valid: Tensor | None,
    scale: float,
    tiles: tuple[Tiles, Tiles],
    bulk: bool | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The same with given tiles of both kernels; `bulk` forces the copy engine or pointers."""
    from restore.attention.triton_backward_kernels import dkv_kernel, dq_kernel, rows_kernel

    q, k, v, out = with_rows(q), with_rows(k), with_rows(v), with_rows(out)
    dout = with_rows(dout.to(q.dtype))
    lse, count, index = lse.contiguous(), count.contiguous(), index.contiguous()
    t_count, t_index = t_count.contiguous(), t_index.contiguous()
    batch, heads, tokens, channels = q.shape
    rows, columns = tokens // block, k.shape[2] // block
    delta, shift = torch.empty_like(lse), torch.empty_like(lse)
    dq = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    dk = torch.empty(k.shape, dtype=k.dtype, device=k.device)
    dv = torch.empty(v.shape, dtype=v.dtype, device=v.device)
    if bulk is None:
        sixteen_bits = q.element_size() == 2
        bulk = (hopper(q) or interpreted()) and sixteen_bits and bulk_ready(q, k, v, dout)
    steps = (*strides(q), *strides(k), *strides(v), *strides(dout))
    constants = {
        "D": channels, "BLOCK": block, "TMA": bulk, "HAS_VALID": kv_valid is not None,
        **precision(q),
    }  # fmt: skip
    valid = count if kv_valid is None else kv_valid  # any pointer: it is not read then

    def sources(m: int, n: int) -> tuple[object, ...]:
        if not bulk:
            return q, k, v, dout
        return descriptor(q, m), descriptor(k, n), descriptor(v, n), descriptor(dout, m)

    with on(q):
        own = min(64, block)
        rows_kernel[(tokens // own, batch * heads)](
            dout, out, lse, delta, shift, *strides(dout), *strides(out), heads, tokens,
            D=channels, ROWS=own, num_warps=4,
        )  # fmt: skip
        m, n = min(tiles[0].m, block), min(tiles[0].n, block)
        dq_kernel[(rows * (block // m), batch * heads)](
            *sources(m, n), delta, shift, count, index, longest_first(count), valid, dq, *steps,
            heads, rows, index.shape[-1], scale,
            BLOCK_M=m, BLOCK_N=n, **constants, **tiles[0].options(),
        )  # fmt: skip
        m, n = min(tiles[1].m, block), min(tiles[1].n, block)
        dkv_kernel[(columns * (block // n), batch * heads)](
            *sources(m, n), delta, shift, t_count, t_index, longest_first(t_count), valid, dk, dv,
            *steps, heads, rows, columns, t_index.shape[-1], scale,
            BLOCK_M=m, BLOCK_N=n, **constants, **tiles[1].options(),
        )  # fmt: skip
    return dq, dk, dv
