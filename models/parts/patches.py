"""Square patches of a picture that overlap by half, and how their results become one picture.

    patch A  [..........|==========]               = : both are seen; Gaussians that are highest in
    patch B             [==========|..........]        the patch's middle weigh their results

InvSR restores each patch as a picture of its own; its published pictures are blended like this.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from restore.method import Tiling


def pad(x: Tensor, side: int, *, multiple: int) -> tuple[Tensor, tuple[int, int]]:
    """A picture that patches of `side` fit into, grown by reflection as the published code does it.

    Sides below a patch grow to one, on both ends; then both become multiples, at their ends.

    Args:
        x: `(1, 3, H, W)`.
        side: of a patch, a multiple of `multiple`.
        multiple: of the sides.

    Returns:
        The picture, and how many rows and columns were put before its first.
    """
    top = left = 0
    while min(x.shape[-2:]) < side:  # a reflection at most doubles a side
        y, x_ = (_both_ends(length, side) for length in x.shape[-2:])
        # One row or column has nothing to reflect.
        mode = "reflect" if min(x.shape[-2:]) > 1 else "replicate"
        x = F.pad(x, (*x_, *y), mode=mode)
        top, left = top + y[0], left + x_[0]
    height, width = (-length % multiple for length in x.shape[-2:])
    return F.pad(x, (0, width, 0, height), mode="reflect"), (top, left)


def _both_ends(length: int, side: int) -> tuple[int, int]:
    """Pixels to put before and after `length` on the way to `side`."""
    most = max(1, length - 1)
    before = max(0, min((side - length) // 2, most))
    return before, max(0, min(side - length - before, most))


def starts(length: int, side: int) -> list[int]:
    """First pixels of patches that overlap by half; the last ends with the picture."""
    return sorted({min(at, length - side) for at in range(0, length, side // 2)})


def shares(
    places: list[int], side: int, length: int, *, scale: int, tiling: Tiling
) -> list[Tensor]:
    """What each patch contributes along one axis; at every pixel the patches' parts add up to 1.

    Weights are a Gaussian of OpenCV's default deviation for a kernel of the patch's size. A
    picture's patches form a grid, so its weights are products of those of the rows and those of the
    columns, and need not be summed over the plane.

    Args:
        places: first input pixels of the patches.
        side: of a patch, in input pixels.
        length: of the axis, in input pixels.
        scale: pixels of the result per input pixel.
        tiling: `published` = the middle of the Gaussian is half a pixel off.

    Returns:
        `(scale * side,)` for each patch, float64.
    """
    size = scale * side
    deviation = 0.3 * ((size - 1) * 0.5 - 1) + 0.8
    middle = size / 2 - 1 if tiling == "published" else (size - 1) / 2
    place = torch.arange(size, dtype=torch.float64)
    weights = torch.exp(-((place - middle) ** 2) / (2 * deviation**2))
    total = torch.zeros(scale * length, dtype=torch.float64)
    for start in places:
        total[scale * start : scale * start + size] += weights
    return [weights / total[scale * start : scale * start + size] for start in places]


def cut(x: Tensor, corners: Iterable[tuple[int, int]], side: int) -> Tensor:
    """Squares of `(1, C, H, W)` by their upper left corners, `(n, C, side, side)`."""
    return torch.cat([x[..., y : y + side, x_ : x_ + side] for y, x_ in corners])
