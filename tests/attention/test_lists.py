"""Block lists: masks there and back, transposed, moved to slots, without reading on the host."""

from __future__ import annotations

import pytest
import torch
from sparse_cases import sparse_case

from restore.attention import BlockLists, from_mask, tile_pattern, to_mask, to_slots, transposed
from restore.attention.lists import frame_blocks


def random_mask(*shape: int, density: float = 0.4) -> torch.Tensor:
    """Rows of all kinds, an empty and a full one among them."""
    mask = torch.rand(shape) < density
    mask[..., 0, :], mask[..., -1, :] = False, True
    return mask


def test_lists_hold_the_blocks_of_the_mask_in_ascending_order() -> None:
    mask = random_mask(2, 3, 5, 7)
    lists = from_mask(mask)
    assert lists.count.dtype == lists.index.dtype == torch.int32
    for b, h, row in torch.cartesian_prod(*(torch.arange(n) for n in (2, 3, 5))).tolist():
        count = int(lists.count[b, h, row])
        wanted = torch.nonzero(mask[b, h, row]).flatten().tolist()
        assert lists.index[b, h, row, :count].tolist() == wanted
    assert lists.index.min() >= 0
    assert lists.index.max() < 7


def test_there_and_back() -> None:
    case = sparse_case()  # lists in no order, numbers that mean nothing behind the count
    assert torch.equal(to_mask(case.lists, case.mask.shape[-1]), case.mask)


def test_room_for_fewer_blocks_drops_the_last_ones() -> None:
    mask = random_mask(1, 2, 6, 9)
    lists = from_mask(mask, capacity=3)
    assert lists.index.shape == (1, 2, 6, 3)
    kept = mask & (mask.cumsum(-1) <= 3)
    assert torch.equal(to_mask(lists, 9), kept)
    lists.check(9)


def test_transposed_lists_are_those_of_the_transposed_mask() -> None:
    case = sparse_case()
    turned = transposed(case.lists, case.mask.shape[-1])
    assert torch.equal(to_mask(turned, case.mask.shape[2]), case.mask.transpose(-1, -2))
    turned.check(case.mask.shape[2])


def test_slots_move_every_number() -> None:
    table = torch.tensor([4, 5, 0, 1, 2, 3], dtype=torch.int32)
    lists = from_mask(random_mask(1, 1, 4, 6))
    moved = to_slots(lists, table)
    assert moved.index.dtype == torch.int32
    assert torch.equal(to_mask(moved, 6)[..., table.long()], to_mask(lists, 6))


def test_nothing_is_read_on_the_host() -> None:
    """On the meta device there is nothing to read: .item(), nonzero or a bool index would raise."""
    mask = torch.empty((2, 3, 4, 8), dtype=torch.bool, device="meta")
    lists = from_mask(mask, capacity=6)
    turned = transposed(lists, 8)
    moved = to_slots(lists, torch.empty(8, dtype=torch.int32, device="meta"))
    assert lists.index.shape == moved.index.shape == (2, 3, 4, 6)
    assert turned.index.shape == (2, 3, 8, 4)


def test_wrong_lists_are_found_when_asked() -> None:
    good = from_mask(random_mask(1, 1, 3, 4))
    good.check(4)
    twice = BlockLists(count=good.count, index=torch.ones_like(good.index))
    with pytest.raises(ValueError, match="stands twice"):
        twice.check(4)
    with pytest.raises(ValueError, match=r"between 0 and 2, got 0 to 3"):
        good.check(3)
    with pytest.raises(ValueError, match="between 0 and Kmax 4, got 0 to 9"):
        BlockLists(count=good.count.clone().fill_(9).scatter_(-1, torch.zeros(
            (1, 1, 1), dtype=torch.int64), 0), index=good.index).check(4)  # fmt: skip


@pytest.mark.parametrize("references", [(0,), (0, 4), (1, 3, 6), (0, 2, 4, 6)])
def test_tiles_on_the_diagonal_and_round_the_reference_frames(references: tuple[int, ...]) -> None:
    frames, per_frame = 8, 3
    lists = tile_pattern(frames, per_frame, reference_frames=references, batch=2, heads=2)
    mask = to_mask(lists, frames * per_frame)
    frame = torch.arange(frames * per_frame) // per_frame
    named = torch.isin(frame, torch.tensor(references))
    wanted = (frame[:, None] == frame) | named[:, None] | named
    assert torch.equal(mask, wanted.expand(2, 2, -1, -1))
    kept = frames + len(references) * (2 * frames - len(references) - 1)
    assert int(mask[0, 0].sum()) == kept * per_frame**2
    lists.check(frames * per_frame)


def test_a_reference_frame_has_to_exist() -> None:
    with pytest.raises(ValueError, match=r"between 0 and 7, got \[8\]"):
        tile_pattern(8, 3, reference_frames=(0, 8))


def test_frames_are_padded_to_whole_blocks() -> None:
    assert frame_blocks(2, 300).tolist() == [128, 128, 44, 128, 128, 44]
    assert frame_blocks(3, 128).tolist() == [128, 128, 128]
