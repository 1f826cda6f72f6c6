"""Sums over all pairs of queries and keys that never keep the pairs: the kernels of the retrieval.

    relu_sums   s_i = sum over all j of ReLU(a_i . y_j) y_j
    top_sums    the same over the k largest a_i . y_j only

Both go in blocks. A query is the normal of a plane; a block of keys wholly on one side of it is
summed as one, so that only blocks that are cut need scores. In `near_order` fewer are: of the
latents of a photograph of 4,096 pixels a third, of independent noise in four dimensions two thirds.
The sum is the same either way, up to rounding.

Queries come and sums go as columns, `(5, n)`: so the long side of every product is its last, which
a CPU's products of depth 5 need to be fast.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

BLOCK_BYTES = 2**26
"""Scores that are in memory at a time."""
CACHE_SIDE = 256
"""Queries per core and keys whose scores, 256 KiB in float32, stay in the cache of a CPU's core."""


def relu_sums(queries: Tensor, keys: Tensor) -> Tensor:
    """Sum of the keys on the positive side of each query, weighted by how far they are in.

    Args:
        queries: a, `(d, n)`.
        keys: y, `(m, d)`.

    Returns:
        `(d, n)`. Gradients reach both: the scores of a block are computed again for them. A key
        that is NaN makes all of it NaN.
    """
    if torch.is_grad_enabled() and (queries.requires_grad or keys.requires_grad):
        return _row_by_row(_relu_block, queries, keys)
    with torch.no_grad():
        if fused_here(queries):
            from restore.models.parts.dloral import triton_sums

            return triton_sums.relu_sums(queries, keys)
        return _in_blocks(queries, keys)


def fused_here(queries: Tensor) -> bool:
    """Whether one kernel does it all: on an NVIDIA GPU of compute capability 8.0 or more, with
    triton, in float32."""
    return (
        queries.is_cuda
        and queries.dtype == torch.float32
        and torch.version.hip is None
        and torch.cuda.get_device_capability(queries.device) >= (8, 0)
        and importlib.util.find_spec("triton") is not None
    )


def top_sums(queries: Tensor, keys: Tensor, *, count: int) -> Tensor:
    """As `relu_sums`, over the `count` keys of the highest scores, or all where there are fewer."""
    count = min(count, len(keys))

    def block(queries: Tensor, keys: Tensor) -> Tensor:
        with torch.no_grad():
            best = (queries.t() @ keys.t()).topk(count, sorted=False).indices
        chosen = keys[best]  # (queries, count, d)
        scores = F.relu(chosen @ queries.t()[..., None])
        return (scores * chosen).sum(1).t()

    return _row_by_row(block, queries, keys)


@torch.no_grad()
def near_order(points: Tensor) -> Tensor:
    """An order in which points that are near each other are near each other in the list.

    A k-d tree: halved along the widest side, again and again, down to boxes of `CACHE_SIDE`.

    Args:
        points: `(n, d)`.

    Returns:
        Places of the points, `(n,)`; the k-th `CACHE_SIDE` of them are the k-th box.
    """
    count = len(points)
    boxes = 2 ** max(0, math.ceil(math.log2(count / CACHE_SIDE)))
    points = F.pad(points, (0, 0, 0, boxes * CACHE_SIDE - count), value=math.inf)  # stay last
    order = torch.arange(len(points), device=points.device)[None]
    while order.shape[1] > CACHE_SIDE:
        inside = points[order]  # (boxes so far, points in each, d)
        widest = (inside.amax(1) - inside.amin(1)).argmax(1)
        along = inside.gather(2, widest[:, None, None].expand(-1, order.shape[1], 1))
        order = order.gather(1, along[..., 0].argsort(dim=1, stable=True)).view(
            -1, order.shape[1] // 2
        )
    order = order.flatten()
    return order[order < count]


def _in_blocks(queries: Tensor, keys: Tensor) -> Tensor:
    wide, deep = _block_sides(queries)
    blocks = _Blocks(keys, deep)
    scores = queries.new_empty(min(wide, queries.shape[1]) * min(deep, len(keys)))
    sums = torch.zeros_like(queries)
    for some, total in zip(torch.split(queries, wide, 1), torch.split(sums, wide, 1), strict=True):
        some = some.contiguous()
        whole, cut = blocks.sides(some)
        total += whole @ some
        for part, turned in cut:
            block = scores[: len(part) * some.shape[1]].view(len(part), -1)
            torch.mm(part, some, out=block)
            total.addmm_(turned, block.relu_())
    return sums


class _Blocks:
    """Keys in blocks, and what is known of each block as a whole.

    A block whose keys all lie on the positive side of some queries needs no scores for them: its
    part of s is (sum over j of y_j y_j^T) a. One on the other side adds nothing.
    """

    def __init__(self, keys: Tensor, size: int) -> None:
        parts = torch.split(keys, size)
        self._parts = list(zip(parts, torch.split(keys.t(), size, 1), strict=True))
        low, high = (
            torch.stack([extreme(part, 0) for part in parts])
            for extreme in (torch.amin, torch.amax)
        )
        self._centre, self._reach = (high + low) / 2, (high - low) / 2  # (blocks, d)
        self._moments = torch.stack([part.t() @ part for part in parts])

    def sides(self, queries: Tensor) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """For queries `(d, n)`: the sum of y y^T over the blocks on their positive side, `(d, d)`,
        and the blocks that some query cuts, as rows and as columns. NaN is cut."""
        middle, reach = self._centre @ queries, self._reach @ queries.abs()
        positive = (middle - reach).amin(1) >= 0
        negative = (middle + reach).amax(1) <= 0
        cut = (~(positive | negative)).nonzero()[:, 0].tolist()
        return self._moments[positive].sum(0), [self._parts[i] for i in cut]


def _block_sides(queries: Tensor) -> tuple[int, int]:
    """Queries and keys of a block."""
    if queries.device.type == "cpu":
        return CACHE_SIDE * torch.get_num_threads(), CACHE_SIDE
    side = int((BLOCK_BYTES / queries.element_size()) ** 0.5)
    return side, side


def _row_by_row(block: Callable[[Tensor, Tensor], Tensor], queries: Tensor, keys: Tensor) -> Tensor:
    """`block(queries, keys)` of as many queries at a time as fit, with all keys; kept for gradients
    are the queries alone."""
    rows = max(1, BLOCK_BYTES // (queries.element_size() * len(keys)))
    run = block
    if torch.is_grad_enabled():
        run = partial(checkpoint, block, use_reentrant=False, preserve_rng_state=False)
    return torch.cat([run(some, keys) for some in torch.split(queries, rows, 1)], 1)


def _relu_block(queries: Tensor, keys: Tensor) -> Tensor:
    return keys.t() @ F.relu(keys @ queries)
