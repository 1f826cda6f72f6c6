"""Gradients of the CPU backend: the same gathered rows, put back by adding."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from restore.attention.cpu import Pieces, hidden_tokens, slabs
from restore.attention.cpu import why_not as why_not


@torch.no_grad()
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
    """dQ, dK, dV in the dtypes of q, k, v; the formulas stand at `reference.backward`.

    One thread adds at a time, so the transposed lists are not needed.
    """
    inner = torch.float64 if q.dtype == torch.float64 else torch.float32
    dq, dk, dv = (torch.empty(x.shape, dtype=x.dtype) for x in (q, k, v))
    delta = (dout.to(inner) * out.to(inner)).sum(-1)  # (B, H, N)
    for item, heads in slabs(k, inner):
        done = _slab(
            tuple(x[item, heads].to(inner) for x in (dout, q, k, v)),
            lse[item, heads].to(inner),
            delta[item, heads],
            Pieces.of(count[item, heads], index[item, heads], k=k, block=block),
            kv_valid=kv_valid,
            scale=scale,
            block=block,
        )
        dq[item, heads], dk[item, heads], dv[item, heads] = done
    return dq, dk, dv


def _slab(
    tensors: tuple[Tensor, ...],
    lse: Tensor,
    delta: Tensor,
    pieces: Pieces,
    *,
    kv_valid: Tensor | None,
    scale: float,
    block: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of a slab: dout, q, k, v `(heads, N, D)`; lse and delta `(heads, N)`."""
    dim = tensors[0].shape[-1]
    douts, queries, keys, values = (x.reshape(-1, block, dim) for x in tensors)
    bars, deltas = lse.reshape(-1, block, 1), delta.reshape(-1, block, 1)
    bars = bars.masked_fill(bars == -math.inf, 0)
    dq, dk, dv = (torch.zeros_like(x) for x in (queries, keys, values))
    hidden = None if kv_valid is None else hidden_tokens(kv_valid, block)
    for rows, blocks, _ in pieces.batches():
        some = (len(rows), blocks.shape[1] * block, dim)
        flat = blocks.flatten()
        kept, seen = keys[flat].view(some), values[flat].view(some)
        query, dout = queries[rows], douts[rows]
        weights = torch.bmm(query, kept.transpose(1, 2)).mul_(scale).sub_(bars[rows]).exp_()
        if hidden is not None:
            mask = hidden[blocks % len(hidden)].flatten(1)  # (n, c * block)
            weights.masked_fill_(mask[:, None], 0)
            kept.masked_fill_(mask[..., None], 0)
            seen.masked_fill_(mask[..., None], 0)
        ds = torch.bmm(dout, seen.transpose(1, 2)).sub_(deltas[rows]).mul_(weights).mul_(scale)
        dq.index_add_(0, rows, torch.bmm(ds, kept))
        dk.index_add_(0, flat, torch.bmm(ds.transpose(1, 2), query).view(-1, block, dim))
        dv.index_add_(0, flat, torch.bmm(weights.transpose(1, 2), dout).view(-1, block, dim))
    shape = tensors[1].shape
    return dq.view(shape), dk.view(tensors[2].shape), dv.view(tensors[3].shape)
