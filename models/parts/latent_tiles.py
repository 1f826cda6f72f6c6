"""A prediction over large latents, made of overlapping tiles that are blended with Gaussians.

    tile A  [......|====]                 = : both write; the mean, weighed by the distance to
    tile B         [====|......]              the tile's middle, is taken

What is blended is the network's prediction, not the picture: the sampler's formula is linear in it.
"""

from __future__ import annotations

from collections.abc import Callable
from math import pi, sqrt

import torch
from torch import Tensor

from restore.method import Tiling

VARIANCE = 0.01
"""Of the Gaussian, as a share of the squared side."""


def predict_tiled(
    latents: Tensor,
    predict: Callable[[Tensor], Tensor],
    *,
    tile: int = 96,
    overlap: int = 32,
    tiling: Tiling = "exact",
    batch: int = 1,
    channels: int | None = None,
) -> Tensor:
    """Run `predict` over tiles of `latents` where they are larger than one.

    Args:
        latents: `(B, C, h, w)`.
        predict: takes `(n, C, t, t)` with n a multiple of B and gives the same size.
        tile: side of a tile; latents of at most tile^2 places are predicted whole.
        overlap: places that neighbours share; a third of the tile where that is no larger.
        tiling: `published` = with weights that are half a place off along the height, as OSEDiff,
            S3Diff and their relatives have them.
        batch: tiles that one call gets.
        channels: of the prediction; None = those of `latents`.

    Returns:
        `(B, channels, h, w)`; float32 where tiles were blended.
    """
    count, _, height, width = latents.shape
    if height * width <= tile * tile:
        return predict(latents)
    side = min(tile, height, width)
    if side <= overlap:  # a narrow picture; the published code never ends there
        overlap = side // 3
    corners = [(y, x) for y in starts(height, side, overlap) for x in starts(width, side, overlap)]
    weights = gaussian(side, tiling=tiling).to(latents.device)
    shape = (count, channels or latents.shape[1], height, width)
    total = torch.zeros(shape, dtype=torch.float32, device=latents.device)
    share = torch.zeros(height, width, dtype=torch.float32, device=latents.device)
    for first in range(0, len(corners), batch):
        group = corners[first : first + batch]
        tiles = torch.cat([latents[..., y : y + side, x : x + side] for y, x in group])
        for (y, x), result in zip(group, torch.split(predict(tiles), count), strict=True):
            total[..., y : y + side, x : x + side] += (result * weights).float()
            share[y : y + side, x : x + side] += weights.float()
    return total / share


def starts(length: int, side: int, overlap: int) -> list[int]:
    """First places of the tiles along one axis; the last tile ends with the axis.

    Raises:
        ValueError: tiles no larger than their overlap never reach the end.
    """
    if length <= side:
        return [0]
    if side <= overlap:
        raise ValueError(f"tiles of {side} cannot overlap by {overlap}")
    step = side - overlap
    count = -(-(length - side) // step) + 1
    return [min(i * step, length - side) for i in range(count)]


def gaussian(side: int, *, tiling: Tiling) -> Tensor:
    """Weights of a tile, `(side, side)`, float64, highest in its middle."""
    place = torch.arange(side, dtype=torch.float64)

    def along(middle: float) -> Tensor:
        distance = (place - middle) / side
        return torch.exp(-(distance**2) / (2 * VARIANCE)) / sqrt(2 * pi * VARIANCE)

    middle = (side - 1) / 2
    down = along(side / 2 if tiling == "published" else middle)
    return torch.outer(down, along(middle))
