"""Sparse attention on a CPU: the chosen blocks are gathered, the rest is matrix products.

    rows by count -> a few rows at a time -> gather K, V -> bmm -> softmax -> bmm -> put in place

Rows with the same count go through together, so that no padding is computed; a row with more
blocks than fit into the cache is taken in pieces, joined by their log-sum-exp.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

GATHERED_BYTES = 2**19
"""Keys that are gathered together: they, their values and the scores share a core's cache."""
SLAB_BYTES = 2**23
"""Heads go through together as long as their keys fit into this: keys and values that are gathered
several times should stay in the cache, and so should what is made float32 of bfloat16."""
_SMALLEST = 1e-30
"""Weight that float32 still holds with all its digits."""


def why_not(q: Tensor) -> str | None:
    """Why it cannot compute for such tensors; None when it can."""
    return None if q.device.type == "cpu" else f"it computes on a CPU, and q is on {q.device}"


@torch.no_grad()
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
    """See `restore.attention.operator.block_sparse_attention`; float32 inside, also for bfloat16.

    Returns:
        Output `(B, H, N, D)` in q's dtype and log-sum-exp `(B, H, N)` in float32.
    """
    inner = torch.float64 if q.dtype == torch.float64 else torch.float32
    out = torch.zeros(q.shape, dtype=q.dtype)
    lse = torch.full(q.shape[:3], -math.inf, dtype=inner)
    for item, heads in slabs(k, inner):
        whole = out[item, heads]
        part = whole if whole.dtype == inner else torch.zeros(whole.shape, dtype=inner)
        _attend(
            part,
            lse[item, heads],
            q[item, heads].to(inner),
            k[item, heads].to(inner),
            v[item, heads].to(inner),
            Pieces.of(count[item, heads], index[item, heads], k=k, block=block),
            kv_valid=kv_valid,
            scale=scale,
            block=block,
        )
        if part is not whole:
            whole.copy_(part)
    return out, lse


def slabs(k: Tensor, dtype: torch.dtype) -> Iterator[tuple[int, slice]]:
    """Batch item and heads to go through together, so that memory stays bounded."""
    per_head = k.shape[2] * k.shape[3] * dtype.itemsize
    step = max(1, SLAB_BYTES // max(1, per_head))
    for item in range(k.shape[0]):
        for head in range(0, k.shape[1], step):
            yield item, slice(head, head + step)


@dataclass(frozen=True, kw_only=True, slots=True)
class Pieces:
    """Lists of the heads of a slab, cut into pieces of at most `at_once` blocks."""

    count: Tensor
    """`(rows,)`, rows of all heads in a line."""
    index: Tensor
    """`(rows, Kmax)` int64, blocks numbered through all heads."""
    at_once: int
    """Blocks that are gathered together."""

    @classmethod
    def of(cls, count: Tensor, index: Tensor, *, k: Tensor, block: int) -> Pieces:
        """From `count (heads, NQ)` and `index (heads, NQ, Kmax)` over the keys k."""
        first = torch.arange(count.shape[0]).mul_(k.shape[2] // block)[:, None, None]
        return cls(
            count=count.flatten(),
            index=(index.long() + first).flatten(0, 1),
            at_once=max(1, GATHERED_BYTES // (block * k.shape[3] * 4)),
        )

    def batches(self) -> Iterator[tuple[Tensor, Tensor, bool]]:
        """Rows `(n,)`, their blocks `(n, c)`, and whether the rows have had a piece before."""
        most = int(self.count.max()) if self.count.numel() else 0
        for start in range(0, most, self.at_once):
            left = (self.count - start).clamp_(0, self.at_once)
            order = left.argsort(stable=True)
            sizes, members = torch.unique_consecutive(left[order], return_counts=True)
            for size, rows in zip(
                sizes.tolist(), torch.split(order, members.tolist()), strict=True
            ):
                if size:
                    for few in torch.split(rows, max(1, self.at_once // size)):
                        yield few, self.index[few, start : start + size], start > 0


def _attend(
    out: Tensor,
    lse: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    pieces: Pieces,
    *,
    kv_valid: Tensor | None,
    scale: float,
    block: int,
) -> None:
    """Attention of a slab `(heads, N, D)`, into `out` (zeros) and `lse` (-inf)."""
    dim = q.shape[-1]
    keys, values = k.reshape(-1, block * dim), v.reshape(-1, block * dim)
    queries, outs, sums = q.reshape(-1, block, dim), out.view(-1, block, dim), lse.view(-1, block)
    hidden = None if kv_valid is None else hidden_tokens(kv_valid, block)
    for rows, blocks, again in pieces.batches():
        some = (len(rows), blocks.shape[1] * block, dim)
        kept = keys.index_select(0, blocks.flatten()).view(some)
        seen = values.index_select(0, blocks.flatten()).view(some)
        scores = torch.bmm(queries.index_select(0, rows).mul_(scale), kept.transpose(1, 2))
        if hidden is not None:
            mask = hidden[blocks % len(hidden)].flatten(1)  # (n, c * block)
            scores.masked_fill_(mask[:, None], -math.inf)
            seen.masked_fill_(mask[..., None], 0)
        weights = scores.softmax(-1)
        total = _log_sum_exp(scores, weights)
        part = torch.bmm(weights, seen)
        if again:
            part, total = _joined(part, total, outs[rows], sums[rows])
        outs.index_copy_(0, rows, part)
        sums.index_copy_(0, rows, total)


def _log_sum_exp(scores: Tensor, weights: Tensor) -> Tensor:
    """What the softmax `weights` of `scores` divided by, as a logarithm, without its last axis.

    The fused softmax keeps it to itself. Any weight tells it, as log w_i = s_i - lse; so the first
    one is asked, and only where that is too small to be exact, the largest.
    """
    first = weights[..., 0]
    if bool((first > _SMALLEST).all()):
        return scores[..., 0] - first.log()
    top = scores.amax(-1)
    total = top - weights.amax(-1).log_()  # at least 1 / tokens, so its logarithm is safe
    dead = top == -math.inf  # a row may have blocks, and no valid token in them
    total.masked_fill_(dead, -math.inf)
    weights.masked_fill_(dead[..., None], 0)
    return total


def hidden_tokens(kv_valid: Tensor, block: int) -> Tensor | None:
    """`(NK, block)` true where a key is padding; None when none is."""
    mask = torch.arange(block) >= kv_valid[:, None]
    return mask if bool(mask.any()) else None


def _joined(a: Tensor, lse_a: Tensor, b: Tensor, lse_b: Tensor) -> tuple[Tensor, Tensor]:
    """Attention over two sets of keys from the attention over each."""
    total = torch.logaddexp(lse_a, lse_b)
    safe = total.masked_fill(total == -math.inf, 0)
    share_a, share_b = (lse_a - safe).exp_(), (lse_b - safe).exp_()
    return a * share_a[..., None] + b * share_b[..., None], total
