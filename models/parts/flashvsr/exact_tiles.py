"""Convolutions that enlarge eight times, in tiles whose result is that of the whole.

A tile goes through with as much around it as can change it, which is then cut off; what the
network remembers of the past is cut in the same way, each tensor at its own scale. Where memory
runs out, smaller tiles are made, and kept to from then on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from itertools import pairwise, product
from typing import Any

import torch
from torch import Tensor

from restore.memory import is_out_of_memory

log = logging.getLogger("restore.models.flashvsr")

FACTOR = 8
"""Pixels of a frame along each side of a pixel of the input."""
Tile = tuple[tuple[int, int], tuple[int, int]]
"""First and last row, exclusive, and columns likewise, of a part of the input."""
Step = Callable[[Tensor, list[Any]], tuple[Tensor, list[Any]]]
"""Input `(..., h, w)` and memory to frames `(..., 8 h, 8 w)` and memory. What is remembered is a
tensor `(..., s h, s w)`, or anything else, which concerns no pixel."""


class ExactTiles:
    """How large the parts are."""

    def __init__(self, margin: int, *, max_pixels: int | None = None) -> None:
        """With whole frames, until memory runs out.

        Args:
            margin: pixels of the input around a tile that still change it.
            max_pixels: of a frame that go through the network at once, with the margin; None = any
                number.
        """
        self.margin = margin
        self.max_pixels = max_pixels

    def run(self, step: Step, x: Tensor, memory: Sequence[Any]) -> tuple[Tensor, list[Any]]:
        """What `step` gives for the whole.

        `memory` stays as it is until all is done, so that a step can be begun again.
        """
        height, width = x.shape[-2:]
        while True:
            tiles = self.plan(height, width)
            try:
                return self._joined(step, x, memory, tiles)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                smaller = ExactTiles(self.margin, max_pixels=self.largest(tiles, height, width) - 1)
                planned = smaller.plan(height, width)
                assert smaller.max_pixels is not None
                if self.largest(planned, height, width) > smaller.max_pixels:
                    raise
            self.max_pixels = smaller.max_pixels
            if x.is_cuda:
                torch.cuda.empty_cache()
            log.warning("out of memory: frames are decoded in parts of %d pixels", self.max_pixels)

    def plan(self, height: int, width: int) -> list[Tile]:
        """The tiles of an input: as few as are small enough.

        Where no tile is so small, the smallest are made; none is smaller than its margin.
        """
        whole = [((0, height), (0, width))]
        if self.max_pixels is None or self.largest(whole, height, width) <= self.max_pixels:
            return whole
        most = [range(1, max(1, size // self.margin) + 1) for size in (height, width)]
        plans = [
            list(product(_parts(height, rows), _parts(width, columns)))
            for rows, columns in product(*most)
        ]
        sizes = [self.largest(tiles, height, width) for tiles in plans]
        limit = max(self.max_pixels, min(sizes))
        fits = [tiles for tiles, size in zip(plans, sizes, strict=True) if size <= limit]
        return min(fits, key=len)

    def largest(self, tiles: list[Tile], height: int, width: int) -> int:
        """Pixels of the frame that the largest tile takes, with its margin."""

        def side(part: tuple[int, int], size: int) -> int:
            outer = self._around(part, size)
            return FACTOR * (outer[1] - outer[0])

        return max(side(rows, height) * side(columns, width) for rows, columns in tiles)

    def _joined(
        self, step: Step, x: Tensor, memory: Sequence[Any], tiles: list[Tile]
    ) -> tuple[Tensor, list[Any]]:
        if len(tiles) == 1:
            return step(x, list(memory))
        height, width = x.shape[-2:]
        wholes: list[Any] = []
        for rows, columns in tiles:
            outer = self._around(rows, height), self._around(columns, width)
            frames, kept = step(_cut(x, outer, 1), [_part(m, outer, height) for m in memory])
            made = [frames, *kept]
            tall = outer[0][1] - outer[0][0]
            wholes = wholes or [_room(one, _scale(one, tall), height, width) for one in made]
            for whole, tile in zip(wholes, made, strict=True):
                if scale := _scale(tile, tall):
                    inner = _within(rows, outer[0]), _within(columns, outer[1])
                    _cut(whole, (rows, columns), scale).copy_(_cut(tile, inner, scale))
        return wholes[0], wholes[1:]

    def _around(self, part: tuple[int, int], size: int) -> tuple[int, int]:
        return max(0, part[0] - self.margin), min(size, part[1] + self.margin)


def _scale(one: Any, height: int) -> int:
    """How often a tensor holds the height of the input; 0 = it is no picture."""
    return one.shape[-2] // height if isinstance(one, Tensor) and one.numel() else 0


def _room(one: Any, scale: int, height: int, width: int) -> Any:
    """For the whole of what `one` is a tile of."""
    return one.new_empty(*one.shape[:-2], scale * height, scale * width) if scale else one


def _part(one: Any, tile: Tile, height: int) -> Any:
    scale = _scale(one, height)
    return _cut(one, tile, scale) if scale else one


def _parts(size: int, count: int) -> list[tuple[int, int]]:
    edges = [size * i // count for i in range(count + 1)]
    return list(pairwise(edges))


def _within(part: tuple[int, int], outer: tuple[int, int]) -> tuple[int, int]:
    return part[0] - outer[0], part[1] - outer[0]


def _cut(x: Tensor, window: Tile, scale: int) -> Tensor:
    (top, bottom), (left, right) = window
    return x[..., top * scale : bottom * scale, left * scale : right * scale]
