"""Which part of a picture each call of the network makes, and how the parts become one picture.

A `Span` is an interval of one axis that a tile writes. Where two spans meet they share a few
pixels, in which one fades out as the other fades in; the weights of all spans add up to 1 at
every pixel, so tiles are simply added into the result and nothing has to be divided at the end.

    span A  1 1 1 1 1 1 .8 .6 .4 .2
    span B              .2 .4 .6 .8  1 1 1 1 1 1

Beyond what it writes, a tile sees `overlap` more pixels on each side. With an overlap of at least
the radius of the network's receptive field, every pixel that is written is exact.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from restore.resampling import Axis, resample_part

FADE = 8
"""Input pixels that two neighbouring spans share for blending."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    """An interval of one axis in input pixels, with the lengths of its fades."""

    start: int
    """First pixel that is written."""
    stop: int
    """Pixel after the last that is written."""
    fade_in: int = 0
    """Pixels from `start` over which the weight rises to 1."""
    fade_out: int = 0
    """Pixels before `stop` over which the weight falls to 0."""

    @property
    def length(self) -> int:
        """Pixels that are written."""
        return self.stop - self.start

    @property
    def fades(self) -> bool:
        """Whether another span shares pixels with this one."""
        return self.fade_in > 0 or self.fade_out > 0

    def window(self, overlap: int, size: int, *, multiple: int = 1) -> tuple[int, int]:
        """Interval that the network must see: `overlap` more on each side, within the picture.

        Args:
            overlap: pixels of context on each side.
            size: length of the axis in pixels, divisible by `multiple`.
            multiple: both ends are moved outwards to a multiple of this.
        """
        start = max(0, self.start - overlap) // multiple * multiple
        stop = -(-min(size, self.stop + overlap) // multiple) * multiple
        return start, stop

    def halves(self) -> tuple[Span, Span]:
        """Two spans that together weigh what this one does."""
        fade = min(FADE, self.length - self.fade_in - self.fade_out) // 2 * 2
        middle = (self.start + self.fade_in + self.stop - self.fade_out) // 2
        first = Span(start=self.start, stop=middle + fade // 2, fade_in=self.fade_in, fade_out=fade)
        second = Span(
            start=middle - fade // 2, stop=self.stop, fade_in=fade, fade_out=self.fade_out
        )
        return first, second

    def weights(self, places: Tensor) -> Tensor:
        """Weights in [0, 1] at `places` along the axis, in input pixels; the same shape.

        Straight lines over the fades, so that the two spans of a seam add up to 1 everywhere.
        """
        weights = torch.ones_like(places)
        if self.fade_in:
            weights = weights * ((places - self.start) / self.fade_in).clamp(0, 1)
        if self.fade_out:
            weights = weights * ((self.stop - places) / self.fade_out).clamp(0, 1)
        return weights.float()


def plan_spans(size: int, tile: int) -> list[Span]:
    """Spans of nearly equal length, at most `tile` before their fades, that cover `size` pixels.

    Args:
        size: length of the axis in pixels, 1 or more.
        tile: longest span in pixels.
    """
    count = max(1, math.ceil(size / tile))
    edges = [round(i * size / count) for i in range(count + 1)]
    half = min(FADE, size // count) // 2
    return [
        Span(
            start=edges[i] - (half if i > 0 else 0),
            stop=edges[i + 1] + (half if i < count - 1 else 0),
            fade_in=2 * half if i > 0 else 0,
            fade_out=2 * half if i < count - 1 else 0,
        )
        for i in range(count)
    ]


@dataclass(frozen=True, kw_only=True, slots=True)
class Tile:
    """A rectangle of the picture: what one call of the network writes."""

    rows: Span
    """Along the height."""
    columns: Span
    """Along the width."""

    def halves(self) -> tuple[Tile, Tile]:
        """Two tiles in its place, cut across the longer side."""
        if self.rows.length >= self.columns.length:
            top, bottom = self.rows.halves()
            return Tile(rows=top, columns=self.columns), Tile(rows=bottom, columns=self.columns)
        left, right = self.columns.halves()
        return Tile(rows=self.rows, columns=left), Tile(rows=self.rows, columns=right)

    @property
    def longest(self) -> int:
        """Longer side in input pixels."""
        return max(self.rows.length, self.columns.length)


def plan_tiles(height: int, width: int, tile: int) -> list[Tile]:
    """Tiles of a picture, row by row."""
    columns = plan_spans(width, tile)
    return [Tile(rows=r, columns=c) for r in plan_spans(height, tile) for c in columns]


def add_tile(
    canvas: Tensor,
    result: Tensor,
    tile: Tile,
    *,
    origin: tuple[int, int],
    scale: int,
    rows: Axis,
    columns: Axis,
) -> None:
    """Add the weighted result of one tile to the picture, in place.

    Args:
        canvas: `(..., h, w)` of the final size, zeros before the first tile.
        result: the network's result for the tile's window.
        tile: what the tile writes, in input pixels.
        origin: row and column of the window's first pixel in the network's result of the whole.
        scale: pixels of the network's result per input pixel.
        rows, columns: sizes of the network's result of the whole, and of the final picture.
    """
    top, bottom = rows.outputs(tile.rows.start * scale, tile.rows.stop * scale)
    left, right = columns.outputs(tile.columns.start * scale, tile.columns.stop * scale)
    if rows.source == rows.target and columns.source == columns.target:
        inner = result[
            ..., top - origin[0] : bottom - origin[0], left - origin[1] : right - origin[1]
        ]
    else:
        box = (top, bottom, left, right)
        inner = resample_part(result, rows, columns, origin=origin, box=box)
    if tile.rows.fades:
        inner = inner * tile.rows.weights(rows.centres(top, bottom) / scale)[:, None]
    if tile.columns.fades:
        inner = inner * tile.columns.weights(columns.centres(left, right) / scale)
    canvas[..., top:bottom, left:right] += inner
