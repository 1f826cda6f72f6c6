"""Bicubic, antialiased resampling of a part of a picture, on the grid of the whole.

A tile of the network's result is resampled by itself: which source pixels an output pixel takes,
and how much of each, depends on the whole picture's sizes only, so tiles meet exactly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

CHUNK = 128
"""Output pixels that one matrix product makes; small, since far from them all weights are 0."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Axis:
    """One side of a picture before and after resampling, in pixels."""

    source: int
    """Length before."""
    target: int
    """Length after."""

    @property
    def ratio(self) -> float:
        """Source pixels per target pixel."""
        return self.source / self.target

    @property
    def support(self) -> int:
        """Source pixels on each side of an output pixel's centre that can count."""
        return math.ceil(2 * max(1.0, self.ratio)) + 1

    def outputs(self, start: float, stop: float) -> tuple[int, int]:
        """First and one-past-last output pixel whose centre is in [start, stop) of the source."""
        first = math.ceil(start / self.ratio - 0.5)
        last = math.ceil(stop / self.ratio - 0.5)
        return max(0, first), min(self.target, last)

    def centres(self, first: int, last: int) -> Tensor:
        """`(last - first,)` places of output pixels along the source, in source pixels."""
        return (torch.arange(first, last, dtype=torch.float64) + 0.5) * self.ratio

    def matrix(self, first: int, last: int, low: int, high: int) -> Tensor:
        """Weights `(last - first, high - low)` of source pixels in output pixels.

        Keys' cubic with a = -0.5 (IEEE ASSP 1981, equation 15), widened by the ratio where the
        picture shrinks, which is what Pillow and PyTorch do under the name of antialiasing.
        """
        places = torch.arange(low, high, dtype=torch.float64) + 0.5
        distance = (places - self.centres(first, last)[:, None]) / max(1.0, self.ratio)
        weights = cubic(distance.abs())
        return (weights / weights.sum(1, keepdim=True)).float()


def cubic(t: Tensor) -> Tensor:
    """Keys' kernel with a = -0.5 at distances t >= 0."""
    near = (1.5 * t - 2.5) * t * t + 1
    far = ((-0.5 * t + 2.5) * t - 4) * t + 2
    return torch.where(t < 1, near, torch.where(t < 2, far, torch.zeros_like(t)))


def resample_part(
    part: Tensor, rows: Axis, columns: Axis, *, origin: tuple[int, int], box: tuple[int, ...]
) -> Tensor:
    """Output pixels of one rectangle, from a part of the source that holds all they need.

    Args:
        part: `(..., h, w)` of the source.
        rows, columns: sizes of the whole picture before and after.
        origin: row and column of the part's first pixel in the source.
        box: first and one-past-last output row, first and one-past-last output column.

    Returns:
        `(..., bottom - top, right - left)`.
    """
    top, bottom, left, right = box
    flat = part.reshape(-1, *part.shape[-2:])
    flat = _along_last(flat.mT, rows, origin[0], top, bottom).mT
    flat = _along_last(flat, columns, origin[1], left, right)
    return flat.reshape(*part.shape[:-2], bottom - top, right - left)


def _along_last(x: Tensor, axis: Axis, offset: int, first: int, last: int) -> Tensor:
    """Resample the last dimension, whose pixel 0 is pixel `offset` of the source."""
    result = x.new_empty(*x.shape[:-1], last - first)
    for start in range(first, last, CHUNK):
        stop = min(last, start + CHUNK)
        low = max(offset, int((start + 0.5) * axis.ratio) - axis.support)
        high = min(offset + x.shape[-1], int((stop - 0.5) * axis.ratio) + axis.support + 1)
        matrix = axis.matrix(start, stop, low, high).to(x.device)
        result[..., start - first : stop - first] = x[..., low - offset : high - offset] @ matrix.mT
    return result


def resample(pictures: Tensor, size: tuple[int, int]) -> Tensor:
    """`(..., H, W)` in [0, 1] to another width and height, clamped."""
    width, height = size
    rows = Axis(source=pictures.shape[-2], target=height)
    columns = Axis(source=pictures.shape[-1], target=width)
    box = (0, height, 0, width)
    return resample_part(pictures, rows, columns, origin=(0, 0), box=box).clamp_(0, 1)
