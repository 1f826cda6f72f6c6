"""The plain twin: dense attention with the blocks masked out, in float32 or float64.

Every other backend is held against it. `forward` is differentiable by itself; `backward` spells
the gradients out, for where autograd cannot go (inside an operator).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from restore.attention.lists import BlockLists, to_mask


def why_not(q: Tensor) -> str | None:
    """It computes everything, everywhere."""
    return None


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
    """softmax(scale Q K^T + M) V, with M = 0 where a token is seen and -inf elsewhere.

    Returns:
        Output `(B, H, N, D)` in q's dtype and log-sum-exp `(B, H, N)` in float32 (float64 for
        float64). Blocks that nobody sees may hold anything, NaN too.
    """
    seen = visible(q, k, BlockLists(count=count, index=index), block=block, kv_valid=kv_valid)
    q_, k_, v_ = _readable(q, k, v, seen, block=block)
    lse = _scores(q_, k_, seen, scale=scale).logsumexp(-1)  # (B, H, NQ, block)
    weights = _weights(q_, k_, seen, lse, scale=scale)
    out = torch.einsum("bhqij,bhjd->bhqid", weights, v_)
    return out.reshape(q.shape).to(q.dtype), lse.reshape(q.shape[:3])


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
    """dQ, dK, dV: with P the weights and d = rowsum(dO * O), dS = P * (dO V^T - d).

    dQ = scale dS K, dK = scale dS^T Q, dV = P^T dO (FlashAttention-2, Dao 2023, algorithm 2).
    The transposed lists are not needed here.
    """
    seen = visible(q, k, BlockLists(count=count, index=index), block=block, kv_valid=kv_valid)
    q_, k_, v_ = _readable(q, k, v, seen, block=block)
    dout_ = dout.to(q_.dtype).reshape(q_.shape)
    weights = _weights(q_, k_, seen, lse.to(q_.dtype).reshape(q_.shape[:-1]), scale=scale)
    delta = (dout_ * out.to(q_.dtype).reshape(q_.shape)).sum(-1, keepdim=True)
    ds = weights * (torch.einsum("bhqid,bhjd->bhqij", dout_, v_) - delta) * scale
    dq = torch.einsum("bhqij,bhjd->bhqid", ds, k_).reshape(q.shape)
    dk = torch.einsum("bhqij,bhqid->bhjd", ds, q_)
    dv = torch.einsum("bhqij,bhqid->bhjd", weights, dout_)
    return dq.to(q.dtype), dk.to(k.dtype), dv.to(v.dtype)


def visible(
    q: Tensor, k: Tensor, lists: BlockLists, *, block: int, kv_valid: Tensor | None
) -> Tensor:
    """`(B, H, NQ, 1, NK * block)`: which tokens each row of queries sees."""
    blocks = k.shape[2] // block
    seen = to_mask(lists, blocks)[..., None].expand(-1, -1, -1, -1, block)
    if kv_valid is not None:
        seen = seen & (torch.arange(block, device=k.device) < kv_valid[:, None])
    return seen.flatten(3).unsqueeze(3)


def _readable(
    q: Tensor, k: Tensor, v: Tensor, seen: Tensor, *, block: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs in the inner dtype, q by rows of blocks; tokens that nobody sees are zero."""
    inner = torch.float64 if q.dtype == torch.float64 else torch.float32
    nobody = ~seen.any(dim=2).squeeze(2).unsqueeze(-1)  # (B, H, NK * block, 1)
    rows = q.to(inner).reshape(*q.shape[:2], -1, block, q.shape[-1])
    return rows, k.to(inner).masked_fill(nobody, 0), v.to(inner).masked_fill(nobody, 0)


def _scores(q: Tensor, k: Tensor, seen: Tensor, *, scale: float) -> Tensor:
    scores = torch.einsum("bhqid,bhjd->bhqij", q * scale, k)
    return scores.masked_fill(~seen, -math.inf)


def _weights(q: Tensor, k: Tensor, seen: Tensor, lse: Tensor, *, scale: float) -> Tensor:
    """exp(S - LSE); a row that sees nothing has weights of zero."""
    lse = lse.masked_fill(lse == -math.inf, 0)
    return (_scores(q, k, seen, scale=scale) - lse[..., None]).exp()
