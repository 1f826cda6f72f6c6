"""FlashVSR's choice of blocks against its formulas in plain Python, and the authors' own."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from restore.attention import flat_topk, from_mask, local_window, pooled, row_topk
from restore.attention.selection import probabilities


def plain_window(rows: int, columns: int, reach: int) -> npt.NDArray[np.bool_]:
    """Row r sees rows r - reach // 2 to r - reach // 2 + reach - 1; columns likewise."""
    near = np.zeros((rows * columns, rows * columns), dtype=np.bool_)
    for query in range(rows * columns):
        for key in range(rows * columns):
            down = key // columns - (query // columns - reach // 2)
            right = key % columns - (query % columns - reach // 2)
            near[query, key] = 0 <= down < reach and 0 <= right < reach
    return near


def plain_choice(
    q: npt.NDArray[np.float64], k: npt.NDArray[np.float64], *, near: npt.NDArray[np.bool_],
    topk: int, groups: int,
) -> npt.NDArray[np.bool_]:  # fmt: skip
    """One head, `(NQ, D)` and `(NK, D)` means: the formulas of FlashVSR's selection one by one."""
    n = len(near)
    chosen = np.zeros((len(q), len(k)), dtype=np.bool_)
    for group in range(groups):
        shares = np.zeros((len(q) // groups, len(k)))
        for row in range(len(shares)):
            query = group * len(shares) + row
            scores = np.array([float(q[query] @ key) for key in k]) / np.sqrt(q.shape[1])
            seen = np.array([near[query % n, key % n] for key in range(len(k))])
            powers = np.where(seen, np.exp(scores - scores[seen].max()), 0.0)
            shares[row] = powers / powers.sum()
        ranked = sorted(shares.flatten().tolist(), reverse=True)
        bar = ranked[min(topk, len(ranked) - 1)]
        chosen[group * len(shares) : (group + 1) * len(shares)] = shares > bar
    return chosen


@pytest.mark.parametrize(
    ("rows", "columns", "reach"), [(5, 7, 3), (4, 3, 9), (6, 6, 4), (1, 5, 11)]
)
def test_the_window_slides_without_stopping_at_edges(rows: int, columns: int, reach: int) -> None:
    near = local_window(rows, columns, reach)
    assert np.array_equal(near.numpy(), plain_window(rows, columns, reach))


def test_a_corner_sees_a_quarter_of_the_window() -> None:
    near = local_window(11, 11, 5)
    assert int(near[0].sum()) == 9
    assert int(near[60].sum()) == 25


@pytest.mark.parametrize(
    ("rows", "columns", "groups", "kv", "reach", "topk"),
    [(3, 4, 1, 4, 3, 60), (3, 4, 3, 3, 9, 50), (2, 3, 2, 4, 11, 1), (2, 3, 1, 1, 3, 1000)],
)
def test_choice_equals_the_formulas(
    rows: int, columns: int, groups: int, kv: int, reach: int, topk: int
) -> None:
    n = rows * columns
    q = torch.randn(2, 2, groups * n, 16, dtype=torch.float64)
    k = torch.randn(2, 2, kv * n, 16, dtype=torch.float64)
    near = local_window(rows, columns, reach)
    mask = flat_topk(q, k, local=near, topk=topk, groups=groups)
    for item in range(2):
        for head in range(2):
            wanted = plain_choice(
                q[item, head].numpy(), k[item, head].numpy(),
                near=near.numpy(), topk=topk, groups=groups,
            )  # fmt: skip
            assert np.array_equal(mask[item, head].numpy(), wanted)


def exact_means(blocks: int, heads: int, dim: int, seed: int) -> Tensor:
    """`(1, H, blocks, D)`: multiples of 1/64 in [-2, 2), so every dot product is exact."""
    number = torch.arange(blocks * heads * dim, dtype=torch.int64) + seed * 7919
    mixed = (number * 2654435761) % 2**32
    mixed = (mixed ^ (mixed >> 15)) * 2246822519 % 2**32
    means = ((mixed >> 13) & 255).float() / 64 - 2
    return means.view(blocks, heads, dim).transpose(0, 1)[None]


@pytest.mark.parametrize(
    ("dtype", "grid", "groups", "kv", "dim", "reach", "topk", "kept", "digest"),
    [  # From generate_draft_block_mask of FlashVSR's code (ccac0ac), run on these means.
        (torch.float32, (3, 5), 1, 4, 64, 3, 90, 180, "4a749dacd20a6ab7"),
        (torch.float32, (4, 4), 3, 3, 128, 9, 100, 600, "eea785f90f60c5a8"),
        (torch.bfloat16, (3, 5), 1, 4, 64, 3, 90, 180, "4a749dacd20a6ab7"),
        (torch.bfloat16, (4, 4), 3, 3, 128, 9, 100, 598, "67535a755d44254a"),  # ties are dropped
    ],
)
def test_choice_equals_the_authors_code(
    dtype: torch.dtype, grid: tuple[int, int], groups: int, kv: int, dim: int, reach: int,
    topk: int, kept: int, digest: str,
) -> None:  # fmt: skip
    n = grid[0] * grid[1]
    q = exact_means(groups * n, 2, dim, 1).to(dtype)
    k = exact_means(kv * n, 2, dim, 2).to(dtype)
    mask = flat_topk(q, k, local=local_window(*grid, reach), topk=topk, groups=groups)
    assert int(mask.sum()) == kept
    assert hashlib.sha256(mask.contiguous().numpy().tobytes()).hexdigest()[:16] == digest


def test_ties_with_the_bar_are_dropped() -> None:
    same = torch.ones(1, 1, 4, 8)
    assert not flat_topk(same, same, local=None, topk=5).any()


def test_a_row_that_the_window_leaves_empty_gets_nothing() -> None:
    near = torch.eye(4, dtype=torch.bool)
    near[2] = False
    q, k = torch.randn(1, 2, 4, 8), torch.randn(1, 2, 8, 8)
    assert torch.isfinite(probabilities(q, k, local=near)).all()
    flat = flat_topk(q, k, local=near, topk=5)
    rows = row_topk(q, k, local=near, topk=3)
    assert flat.sum() == 10
    assert not flat[:, :, 2].any()
    assert rows.sum(-1).unique().tolist() == [0, 2]


def test_every_row_gets_its_best() -> None:
    q, k = torch.randn(2, 3, 5, 16), torch.randn(2, 3, 9, 16)
    mask = row_topk(q, k, topk=4)
    shares = probabilities(q, k)
    assert mask.sum(-1).eq(4).all()
    worst_kept = shares.masked_fill(~mask, 2).amin(-1)
    best_left = shares.masked_fill(mask, -1).amax(-1)
    assert (worst_kept >= best_left).all()
    assert row_topk(q, k, topk=50).all()


def test_means_of_blocks() -> None:
    x = torch.randn(2, 3, 4 * 32, 8)
    means = pooled(x.transpose(0, 1), 32)
    assert means.shape == (3, 2, 4, 8)
    torch.testing.assert_close(means[1, 0, 2], x[0, 1, 64:96].mean(0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_nothing_is_read_on_the_host(dtype: torch.dtype) -> None:
    """On the meta device there is nothing to read: .item(), nonzero or a bool index would raise."""
    near = local_window(3, 4, 9, "meta")
    q, k = (torch.empty((2, 3, n * 12 * 128, 64), dtype=dtype, device="meta") for n in (1, 4))
    means = pooled(q), pooled(k)
    flat = from_mask(flat_topk(*means, local=near, topk=40))
    rows = from_mask(row_topk(*means, local=near, topk=5), capacity=5)
    assert flat.index.shape == (2, 3, 12, 48)
    assert rows.index.shape == (2, 3, 12, 5)


def test_groups_have_to_be_whole() -> None:
    q, k = torch.zeros(1, 1, 10, 8), torch.zeros(1, 1, 12, 8)
    with pytest.raises(ValueError, match="10 blocks of queries are not whole groups of 3"):
        flat_topk(q, k, local=None, topk=1, groups=3)
    with pytest.raises(ValueError, match="10 blocks of queries are not whole groups of 4"):
        flat_topk(q, k, local=torch.ones(4, 4, dtype=torch.bool), topk=1)
