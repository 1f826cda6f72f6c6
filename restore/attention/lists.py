"""Which key blocks each query block sees, as counts and padded indices, made on the device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class BlockLists:
    """The sparse pattern that every kernel takes: row q of a head sees `index[..., q, :count]`."""

    count: Tensor
    """`(B, H, NQ)` int32: key blocks of each row; 0 is allowed."""
    index: Tensor
    """`(B, H, NQ, Kmax)` int32: block numbers, each at most once in a row, in any order; what
    stands behind `count` means nothing, but lies in the range of the blocks."""

    def check(self, blocks: int) -> None:
        """Look for wrong numbers; reads the lists on the host, so only for debugging.

        Args:
            blocks: NK, the number of key blocks.

        Raises:
            ValueError: a count is beyond the room, a block does not exist or stands twice.
        """
        room = self.index.shape[-1]
        if bool(((self.count < 0) | (self.count > room)).any()):
            raise ValueError(f"counts lie between 0 and Kmax {room}, got {_range(self.count)}")
        if self.index.numel() and bool(((self.index < 0) | (self.index >= blocks)).any()):
            raise ValueError(f"blocks lie between 0 and {blocks - 1}, got {_range(self.index)}")
        if not torch.equal(to_mask(self, blocks).sum(-1, dtype=torch.int32), self.count):
            raise ValueError("a block stands twice in a row; each may stand once")


def _range(numbers: Tensor) -> str:
    low, high = numbers.aminmax()
    return f"{int(low)} to {int(high)}"


def from_mask(mask: Tensor, *, capacity: int | None = None) -> BlockLists:
    """Compact a mask into lists, in ascending order, without reading anything on the host.

    Args:
        mask: `(B, H, NQ, NK)` bool, true where a block is seen.
        capacity: Kmax, the room for each row, by default NK; a row that needs more loses its
            last blocks.
    """
    blocks = mask.shape[-1]
    room = blocks if capacity is None else min(capacity, blocks)
    place = mask.cumsum(-1, dtype=torch.int32) - 1  # (B, H, NQ, NK)
    place = torch.where(mask & (place < room), place, room)  # column `room` takes the rest
    numbers = torch.arange(blocks, dtype=torch.int32, device=mask.device).expand(mask.shape)
    index = numbers.new_zeros((*mask.shape[:-1], room + 1))
    index.scatter_(-1, place.long(), numbers)
    count = mask.sum(-1, dtype=torch.int32).clamp_(max=room)
    return BlockLists(count=count, index=index[..., :room].contiguous())


def to_mask(lists: BlockLists, blocks: int) -> Tensor:
    """The mask `(B, H, NQ, blocks)` that the lists stand for; the inverse of `from_mask`."""
    index = lists.index
    place = torch.arange(index.shape[-1], dtype=torch.int32, device=index.device)
    target = torch.where(place < lists.count[..., None], index, blocks)
    mask = torch.zeros((*index.shape[:-1], blocks + 1), dtype=torch.bool, device=index.device)
    return mask.scatter_(-1, target.long(), True)[..., :blocks]


def transposed(lists: BlockLists, blocks: int, *, capacity: int | None = None) -> BlockLists:
    """Lists of the query blocks that see each key block, for dK and dV without atomics.

    Args:
        lists: over NQ rows.
        blocks: NK, the number of key blocks.
        capacity: room for each key block, by default NQ.

    Returns:
        Lists with `count (B, H, NK)` and `index (B, H, NK, capacity)`.
    """
    return from_mask(to_mask(lists, blocks).transpose(-1, -2), capacity=capacity)


def to_slots(lists: BlockLists, table: Tensor) -> BlockLists:
    """The same lists with every block number replaced by its place in memory.

    Args:
        lists: over logical blocks (oldest group first, see `restore.attention.ring`).
        table: `(NK,)` int32, the physical block of each logical one.
    """
    return BlockLists(count=lists.count, index=table[lists.index.long()])


def frame_blocks(
    frames: int, tokens: int, *, block: int = 128, device: torch.device | str | None = None
) -> Tensor:
    """Valid tokens of each block when every frame is padded to whole blocks.

    Args:
        frames: latent frames.
        tokens: tokens of each.

    Returns:
        `(frames * ceil(tokens / block),)` int32, what `kv_valid` takes.
    """
    per_frame = -(-tokens // block)
    valid = torch.full((per_frame,), block, dtype=torch.int32, device=device)
    valid[-1] = tokens - (per_frame - 1) * block
    return valid.repeat(frames)


def tile_pattern(
    frames: int,
    blocks_per_frame: int,
    *,
    reference_frames: Sequence[int],
    batch: int = 1,
    heads: int = 1,
    device: torch.device | str | None = None,
) -> BlockLists:
    """The tile pattern of Efficient-vDiT: a tile is what one latent frame sees of another.

    Tiles on the diagonal are kept, and those in the rows and columns of a few reference frames:
    a frame sees itself and the references, a reference sees everything, so the cost is linear in
    the number of frames (Ding et al., "Efficient-vDiT", arXiv 2502.06155). Of F frames
    with k references F + k (2 F - k - 1) of the F^2 tiles remain.

    Args:
        frames: latent frames.
        blocks_per_frame: blocks of each, whole ones (see `frame_blocks`).
        reference_frames: numbers of the reference frames; the paper's mask "2:6" has 2 of 8.
        batch: B of the lists.
        heads: H of the lists.
        device: where the lists are made.

    Returns:
        Lists for `frames * blocks_per_frame` rows and as many key blocks.

    Raises:
        ValueError: a reference frame does not exist.
    """
    wrong = [frame for frame in reference_frames if not 0 <= frame < frames]
    if wrong:
        raise ValueError(f"reference frames lie between 0 and {frames - 1}, got {wrong}")
    tiles = torch.eye(frames, dtype=torch.bool)
    for frame in reference_frames:
        tiles[frame, :] = True
        tiles[:, frame] = True
    mask = tiles.repeat_interleave(blocks_per_frame, 0).repeat_interleave(blocks_per_frame, 1)
    lists = from_mask(mask[None, None].to(device), capacity=_widest(mask))
    return BlockLists(
        count=lists.count.repeat(batch, heads, 1), index=lists.index.repeat(batch, heads, 1, 1)
    )


def _widest(mask: Tensor) -> int:
    """The most blocks that a row of a host's mask has; the room that the lists need."""
    return max(1, int(mask.sum(-1).max())) if mask.numel() else 1
