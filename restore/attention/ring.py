"""Keys and values of a stream, kept where they were written: the lists follow, the tensors stay.

    slots    [ group 4 | group 1 | group 2 | group 3 ]     group 4 was written over group 0
    logical    group 1   group 2   group 3   group 4       oldest first; `table` maps to slots

A cache that joins and drops with `cat` copies everything for each new group.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from restore.attention.selection import pooled


class RingCache:
    """The last `groups` groups of keys and values, in buffers that are made once.

    Args:
        batch: B.
        heads: H.
        tokens: tokens of one group, whole blocks.
        dim: D.
        groups: how many are kept; the oldest gives way.
        block: tokens of a block.

    Raises:
        ValueError: a group is not whole blocks.
    """

    def __init__(
        self,
        *,
        batch: int,
        heads: int,
        tokens: int,
        dim: int,
        groups: int = 4,
        block: int = 128,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        if tokens % block:
            raise ValueError(f"a group of {tokens} tokens is not whole blocks of {block}")
        self.tokens, self.groups, self.block = tokens, groups, block
        self.written = 0
        """Groups written since the start."""
        room = (batch, heads, groups * tokens, dim)
        self.k = torch.zeros(room, dtype=dtype, device=device)
        """`(B, H, groups * tokens, D)`, by slots."""
        self.v = torch.zeros_like(self.k)
        """Values beside the keys."""
        self._means = self.k.new_zeros((batch, heads, groups * self.blocks, dim))
        # On the device from the start, so that going on never waits for a copy to it.
        first = torch.arange(groups, device=device)
        slots = (first[:, None] + first) % groups  # row s: order of the slots when s is the oldest
        self._tables = _spread(slots, self.blocks).to(torch.int32)
        self._places = _spread(first[:, None], tokens)
        self._table = self._tables[0].clone()
        self._place = self._places[0].clone()

    @property
    def blocks(self) -> int:
        """Blocks of one group."""
        return self.tokens // self.block

    @property
    def filled(self) -> int:
        """Groups that are there."""
        return min(self.written, self.groups)

    @property
    def table(self) -> Tensor:
        """`(filled * blocks,)` int32: the physical block of each logical one, oldest first.

        A view of one tensor that is rewritten in place, so a captured graph sees the next order.
        """
        return self._table[: self.filled * self.blocks]

    @property
    def k_pooled(self) -> Tensor:
        """`(B, H, filled * blocks, D)`: means of the key blocks in logical order."""
        return self._means.index_select(2, self.table)

    def advance(self) -> None:
        """Turn the ring by one group: the next `store` goes over the oldest. Host work only."""
        self._place.copy_(self._places[self.written % self.groups])
        self.written += 1
        if self.written > self.groups:
            self._table.copy_(self._tables[self.written % self.groups])

    def store(self, k: Tensor, v: Tensor) -> None:
        """Put the newest group, `(B, H, tokens, D)`, in its slot; may be part of a CUDA graph."""
        self.k.index_copy_(2, self._place, k)
        self.v.index_copy_(2, self._place, v)
        rows = self._place[:: self.block] // self.block
        self._means.index_copy_(2, rows, pooled(k, self.block))

    def write(self, k: Tensor, v: Tensor) -> None:
        """Take in whole groups, `(B, H, n * tokens, D)`, oldest first.

        Raises:
            ValueError: k is not whole groups.
        """
        if k.shape[2] % self.tokens:
            raise ValueError(f"{k.shape[2]} tokens are not whole groups of {self.tokens}")
        for group in range(k.shape[2] // self.tokens):
            part = self._slot(group)
            self.advance()
            self.store(k[:, :, part], v[:, :, part])

    def change_keys(self, change: Callable[[Tensor], Tensor]) -> None:
        """Put `change(k)` in place of all keys, `(B, H, groups * tokens, D)` as they lie."""
        self.k.copy_(change(self.k))
        self._means.copy_(pooled(self.k, self.block))

    def reset(self) -> None:
        """Forget everything, as new."""
        self.written = 0
        self._table.copy_(self._tables[0])
        for buffer in (self.k, self.v, self._means):
            buffer.zero_()

    def state(self) -> dict[str, Tensor]:
        """What the next group will still see, in logical order, copied to the CPU.

        The oldest group of a full ring is left out: the next one goes over it.

        Returns:
            `k` and `v`, each `(B, H, up to (groups - 1) * tokens, D)`.
        """
        kept = range(max(0, self.written - self.groups + 1), self.written)
        parts = [self._slot(group % self.groups) for group in kept] or [slice(0, 0)]
        return {
            name: torch.cat([buffer[:, :, part] for part in parts], 2).cpu()
            for name, buffer in (("k", self.k), ("v", self.v))
        }

    def restore_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a `state()`, also one from another device.

        What comes next is the same to the bit; slots may differ, their order in `table` does not.

        Raises:
            ValueError: it is of a cache with other sizes.
        """
        k, v = state["k"], state["v"]
        sizes = (*self.k.shape[:2], self.k.shape[3])
        too_long = k.shape[2] > (self.groups - 1) * self.tokens
        if (*k.shape[:2], k.shape[3]) != sizes or k.shape != v.shape or too_long:
            raise ValueError(
                f"this cache keeps {self.groups} groups of {self.tokens} tokens, (B, H, D) "
                f"{sizes}; the state has keys {tuple(k.shape)}"
            )
        self.reset()
        self.write(k.to(self.k), v.to(self.v))

    def _slot(self, slot: int) -> slice:
        return slice(slot * self.tokens, (slot + 1) * self.tokens)


def _spread(slots: Tensor, size: int) -> Tensor:
    """`(r, s)` slots to `(r, s * size)`: the members of each slot, `size` to a slot."""
    members = torch.arange(size, device=slots.device)
    return (slots[..., None] * size + members).flatten(-2)
