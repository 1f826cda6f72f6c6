"""The ring cache: a stream over it equals a stream that joins and drops its keys, to the bit."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from restore.attention import (
    RingCache,
    block_sparse_attention,
    flat_topk,
    from_mask,
    pooled,
    to_slots,
)

HEADS, BLOCKS, BLOCK, DIM = 2, 3, 16, 8


def make_ring() -> RingCache:
    return RingCache(batch=2, heads=HEADS, tokens=BLOCKS * BLOCK, dim=DIM, groups=4, block=BLOCK)


def draws(count: int) -> list[tuple[Tensor, Tensor, Tensor]]:
    """q, k, v of each group."""
    draw = torch.Generator().manual_seed(3)
    shape = (3, 2, HEADS, BLOCKS * BLOCK, DIM)
    return [tuple(torch.randn(shape, generator=draw)) for _ in range(count)]  # type: ignore[misc]


def over_ring(ring: RingCache, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """One step of a stream."""
    ring.write(k, v)
    mask = flat_topk(pooled(q, BLOCK), ring.k_pooled, local=None, topk=13)
    lists = to_slots(from_mask(mask), ring.table)
    return block_sparse_attention(q, ring.k, ring.v, lists.count, lists.index, block=BLOCK)


def over_joined(q: Tensor, keys: list[Tensor], values: list[Tensor]) -> Tensor:
    """The same step with the last four groups joined."""
    k, v = torch.cat(keys[-4:], 2), torch.cat(values[-4:], 2)
    lists = from_mask(flat_topk(pooled(q, BLOCK), pooled(k, BLOCK), local=None, topk=13))
    return block_sparse_attention(q, k, v, lists.count, lists.index, block=BLOCK)


def test_a_stream_over_the_ring_equals_one_that_copies() -> None:
    ring, keys, values = make_ring(), [], []
    places = ring.k.data_ptr(), ring.v.data_ptr()
    for q, k, v in draws(11):  # the ring wraps twice
        keys.append(k)
        values.append(v)
        assert torch.equal(over_ring(ring, q, k, v), over_joined(q, keys, values))
    assert (ring.k.data_ptr(), ring.v.data_ptr()) == places


def test_the_table_leads_from_age_to_slot() -> None:
    ring = make_ring()
    assert ring.table.numel() == 0
    tables = []
    for _, k, v in draws(6):
        ring.write(k, v)
        tables.append((ring.table[::BLOCKS] // BLOCKS).tolist())
    assert tables == [[0], [0, 1], [0, 1, 2], [0, 1, 2, 3], [1, 2, 3, 0], [2, 3, 0, 1]]
    assert ring.table.dtype == torch.int32
    assert sorted(ring.table.tolist()) == list(range(4 * BLOCKS))


def test_several_groups_at_once_equal_one_by_one() -> None:
    one, together = make_ring(), make_ring()
    groups = draws(3)
    for _, k, v in groups:
        one.write(k, v)
    together.write(*(torch.cat([group[i] for group in groups], 2) for i in (1, 2)))
    assert torch.equal(one.k, together.k)
    assert torch.equal(one.v, together.v)
    assert torch.equal(one.table, together.table)


@pytest.mark.parametrize("before", [1, 3, 4, 6])
def test_a_stream_goes_on_from_its_state(before: int) -> None:
    ring, later = make_ring(), make_ring()
    groups = draws(before + 3)
    for q, k, v in groups[:before]:
        over_ring(ring, q, k, v)
    state = ring.state()
    assert state["k"].shape[2] == min(before, 3) * BLOCKS * BLOCK  # the oldest of four is dropped
    later.write(*groups[-1][1:])  # something else was in it
    later.restore_state(state)
    for q, k, v in groups[before:]:
        assert torch.equal(over_ring(later, q, k, v), over_ring(ring, q, k, v))


def test_an_empty_ring_has_a_state_too() -> None:
    ring = make_ring()
    state = ring.state()
    ring.write(*draws(1)[0][1:])
    ring.restore_state(state)
    assert ring.filled == 0


def test_a_state_is_a_copy() -> None:
    ring = make_ring()
    groups = draws(6)
    for q, k, v in groups[:4]:
        over_ring(ring, q, k, v)
    state = ring.state()
    kept = state["k"].clone()
    for q, k, v in groups[4:]:
        over_ring(ring, q, k, v)
    assert torch.equal(state["k"], kept)


def test_a_reset_ring_is_new() -> None:
    ring = make_ring()
    for q, k, v in draws(5):
        over_ring(ring, q, k, v)
    ring.reset()
    fresh = make_ring()
    for q, k, v in draws(5):
        assert torch.equal(over_ring(ring, q, k, v), over_ring(fresh, q, k, v))


def test_turning_and_storing_reads_nothing_on_the_host() -> None:
    """On the meta device there is nothing to read, so a stream that reads would raise."""
    ring = RingCache(batch=1, heads=2, tokens=32, dim=8, block=16, device="meta")
    k = torch.empty((1, 2, 32, 8), device="meta")
    for _ in range(6):
        ring.write(k, k)
    assert ring.k_pooled.shape == (1, 2, 8, 8)


def test_wrong_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="100 tokens is not whole blocks of 128"):
        RingCache(batch=1, heads=1, tokens=100, dim=8)
    ring = make_ring()
    with pytest.raises(ValueError, match="50 tokens are not whole groups of 48"):
        ring.write(torch.zeros(2, HEADS, 50, DIM), torch.zeros(2, HEADS, 50, DIM))
    with pytest.raises(ValueError, match="the state has keys"):
        ring.restore_state({"k": torch.zeros(2, HEADS, 48, 9), "v": torch.zeros(2, HEADS, 48, 9)})
