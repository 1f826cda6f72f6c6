"""Which blocks to attend to, from block means; nothing here waits for the device.

    q, k -> pooled -> scores -> softmax + local window -> top-k -> mask -> lists.from_mask

FlashVSR's rule (Zhuang et al., arXiv 2510.12747; `generate_draft_block_mask` of its code) is
`flat_topk`: one budget for all rows of a head, so rows get unequal counts and may get none.
`row_topk` gives every row the same count, which kernels like better.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def local_window(
    rows: int, columns: int, reach: int, device: torch.device | str | None = None
) -> Tensor:
    """Blocks near each block of a grid: FlashVSR's window that slides without stopping at edges.

    A block at row r sees the rows r - floor(reach / 2) to r - floor(reach / 2) + reach - 1, and
    columns likewise; what lies outside the grid is lost, not shifted back in.

    Args:
        rows: of the grid of blocks.
        columns: of the grid.
        reach: width of the window in blocks (FlashVSR's `local_range`, 9 or 11).

    Returns:
        `(rows * columns, rows * columns)` bool, queries by keys.
    """
    block = torch.arange(rows * columns, device=device)
    near = torch.ones((), dtype=torch.bool, device=device)
    for place in (block // columns, block % columns):
        distance = place[None, :] - place[:, None] + reach // 2
        near = near & (distance >= 0) & (distance < reach)
    return near


def pooled(x: Tensor, block: int = 128) -> Tensor:
    """Mean of each block: `(B, H, N, D)` to `(B, H, N / block, D)`, in x's dtype."""
    return torch.unflatten(x, 2, (-1, block)).mean(3)


def probabilities(q_pooled: Tensor, k_pooled: Tensor, *, local: Tensor | None = None) -> Tensor:
    """softmax(q k^T / sqrt(D)) over the blocks that `local` allows, in float32.

    The scores are made in the dtype of the means, as FlashVSR does (bfloat16 rounds them, and
    makes ties); give float32 means for float32 scores. Matching it to the bit needs its order:
    product, division, then float32.

    Args:
        q_pooled: `(B, H, NQ, D)`.
        k_pooled: `(B, H, NK, D)`.
        local: `(n, n)` bool, repeated over the groups of n queries and of n keys.

    Returns:
        `(B, H, NQ, NK)` float32; zero outside `local`, also in a row that `local` leaves empty.
    """
    scores = (q_pooled @ k_pooled.transpose(-1, -2)) / math.sqrt(q_pooled.shape[-1])
    scores = scores.float()
    if local is None:
        return scores.softmax(-1)
    n = local.shape[0]
    _whole(scores.shape[-2], n, "queries")
    _whole(scores.shape[-1], n, "keys")
    tiled = local.repeat(scores.shape[-2] // n, scores.shape[-1] // n)
    shares = scores.masked_fill(~tiled, -math.inf).softmax(-1)
    return shares.masked_fill(~tiled, 0)


def flat_topk(
    q_pooled: Tensor, k_pooled: Tensor, *, local: Tensor | None, topk: int, groups: int = 1
) -> Tensor:
    """FlashVSR's choice: the best (query block, key block) pairs of a head and query group.

    A pair is kept when its probability is strictly greater than the (topk + 1)-th largest among
    all pairs of its head and group: ties with that value are dropped, rows get unequal counts,
    and a row may get none. With topk beyond the pairs there are, all but the smallest are kept.

    Args:
        q_pooled: `(B, H, NQ, D)` means of the queries, group after group.
        k_pooled: `(B, H, NK, D)` means of the keys, group after group.
        local: `(n, n)` bool, see `probabilities`.
        topk: pairs to keep; FlashVSR: int(n^2 * sparse_ratio * 768 * 1280 / (H * W)) - 1 with
            n = NQ / groups.
        groups: query groups (pairs of latent frames) in NQ; each has a budget of its own.

    Returns:
        `(B, H, NQ, NK)` bool.
    """
    _whole(q_pooled.shape[2], groups, "queries")
    shares = probabilities(q_pooled, k_pooled, local=local)
    flat = torch.unflatten(shares, 2, (groups, -1)).flatten(3)  # (B, H, groups, pairs)
    rank = min(flat.shape[-1] - 1, topk) + 1
    bar = flat.topk(rank, dim=-1, sorted=False).values.amin(-1, keepdim=True)
    return (flat > bar).view(shares.shape)


def row_topk(
    q_pooled: Tensor, k_pooled: Tensor, *, local: Tensor | None = None, topk: int
) -> Tensor:
    """The `topk` best key blocks of every query block, or all that `local` leaves it.

    Args:
        q_pooled: `(B, H, NQ, D)`.
        k_pooled: `(B, H, NK, D)`.
        local: `(n, n)` bool, see `probabilities`.
        topk: key blocks for each row.

    Returns:
        `(B, H, NQ, NK)` bool; equal counts, unless `local` allows fewer.
    """
    shares = probabilities(q_pooled, k_pooled, local=local)
    best = shares.topk(min(topk, shares.shape[-1]), dim=-1, sorted=False).indices
    chosen = torch.zeros(shares.shape, dtype=torch.bool, device=shares.device)
    chosen = chosen.scatter(-1, best, True)
    if local is None:
        return chosen
    n = local.shape[0]
    return chosen & local.repeat(shares.shape[-2] // n, shares.shape[-1] // n)


def _whole(size: int, part: int, what: str) -> None:
    if size % part:
        raise ValueError(f"{size} blocks of {what} are not whole groups of {part}")
