"""Pictures of gray, RGB, and either with alpha, through a network that knows RGB only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from restore.method import MethodSpec
from restore.resampling import resample

TileProgress = Callable[[int, int], None]


class FrameRestorer(Protocol):
    """The part of `restore.engine.Restorer` that is needed here."""

    spec: MethodSpec

    def restore_frames(
        self,
        frames: Tensor,
        *,
        size: tuple[int, int] | None = None,
        index: int = 0,
        progress: TileProgress | None = None,
    ) -> Tensor:
        """`(B, T, 3, H, W)` to `(B, 1, 3, h, w)`."""
        ...


def restore_planes(
    restorer: FrameRestorer,
    frames: Tensor,
    *,
    size: tuple[int, int] | None = None,
    progress: TileProgress | None = None,
) -> Tensor:
    """Restore frames of gray, gray and alpha, RGB, or RGB and alpha.

    Gray is restored as three equal channels and averaged. Alpha is restored as a gray picture of
    its own and kept within its range, so that opaque stays exactly 1; where it is flat it needs
    no network.

    Args:
        restorer: the engine.
        frames: `(B, T, C, H, W)` in [0, 1], C from 1 to 4; each frame sees its neighbours.
        size: width and height of the result; None = the method's scale.
        progress: called with the tiles done and all tiles, those of alpha among them.

    Returns:
        `(B, T, C, h, w)`.
    """
    channels = frames.shape[2]
    report = progress or (lambda done, total: None)
    colors = frames[:, :, : 1 if channels < 3 else 3]
    if channels in (1, 3):
        return _colors(restorer, colors, size=size, progress=report)
    alpha = frames[:, :, -1:]
    if bool((alpha == alpha[:1, :1, :, :1, :1]).all()):
        result = _colors(restorer, colors, size=size, progress=report)
        large = alpha[:1, :1, :, :1, :1].expand(*result.shape[:2], 1, *result.shape[-2:])
        return torch.cat((result, large), dim=2)
    # Alpha first: of its three channels one stays while the colors are made.
    if restorer.spec.enlarges_alpha:
        large = _colors(restorer, alpha, size=size, progress=lambda d, n: report(d, 2 * n))
    else:
        scale = restorer.spec.scale
        large = resample(alpha, size or (scale * alpha.shape[-1], scale * alpha.shape[-2]))
    for enlarged, small in zip(large.flatten(0, 1), alpha.flatten(0, 1), strict=True):
        hold_to_range(enlarged, small)
    pairs = zip(colors.flatten(0, 1), alpha.flatten(0, 1), strict=True)
    seen = torch.stack([bleed_colors(color, small) for color, small in pairs]).view_as(colors)
    result = _colors(restorer, seen, size=size, progress=lambda d, n: report(n + d, 2 * n))
    return torch.cat((result, large), dim=2)


def _colors(
    restorer: FrameRestorer,
    frames: Tensor,
    *,
    size: tuple[int, int] | None,
    progress: TileProgress,
) -> Tensor:
    """`(B, T, 1 or 3, H, W)` to the same channels at the size of the result."""
    gray = frames.shape[2] == 1
    frames = frames.expand(-1, -1, 3, -1, -1)
    last = frames.shape[1] - 1
    before, after = restorer.spec.frames_before, restorer.spec.frames_after
    results = []
    for i in range(last + 1):
        window = [min(max(j, 0), last) for j in range(i - before, i + after + 1)]
        clip = frames if window == [0] and last == 0 else frames[:, window]
        result = restorer.restore_frames(clip, size=size, index=i, progress=progress)
        results.append(result.mean(2, keepdim=True) if gray else result)
    return results[0] if last == 0 else torch.cat(results, dim=1)


def bleed_colors(rgb: Tensor, alpha: Tensor) -> Tensor:
    """Colors with the fully transparent pixels filled from the nearest visible ones.

    What lies under transparency is arbitrary, often black; a network would smear it into the
    visible border. The fill is a pyramid: averages of the visible pixels at half the size fill
    the holes, and what is still empty there is filled from a quarter of the size, and so on.

    Args:
        rgb: `(C, H, W)` in [0, 1].
        alpha: `(1, H, W)` in [0, 1].

    Returns:
        `(C, H, W)`: unchanged where alpha is above 0, and everywhere if nothing is visible.
    """
    seen = (alpha > 0).to(rgb.dtype)
    if bool(seen.all()) or not bool(seen.any()):
        return rgb
    return _fill(rgb * seen, seen)


def _fill(color: Tensor, weight: Tensor) -> Tensor:
    """Fill `color`, which is 0 where `weight` is, from its own averages at half the size."""
    if bool((weight > 0).all()):
        return color
    # ceil_mode: an odd last row or column is averaged by itself, in both alike.
    total = F.avg_pool2d(color[None], 2, ceil_mode=True)[0]
    share = F.avg_pool2d((weight > 0).to(color.dtype)[None], 2, ceil_mode=True)[0]
    coarse = _fill(total.div_(share.clamp_min(1e-6)), share)
    large = F.interpolate(coarse[None], size=color.shape[-2:], mode="nearest")[0]
    return torch.where(weight > 0, color, large)


def hold_to_range(result: Tensor, source: Tensor, *, radius: int = 2) -> Tensor:
    """Keep an enlarged plane between the least and the greatest value near each source pixel.

    It keeps opaque opaque (exactly 1) and empty empty, whatever small error a network makes on
    flat alpha, and stops ringing at the edges.

    Args:
        result: `(1, h, w)`, changed in place.
        source: `(1, H, W)` that it was made from.
        radius: source pixels on each side that count as near.
    """
    window = 2 * radius + 1
    size = (int(result.shape[-2]), int(result.shape[-1]))
    greatest = F.max_pool2d(source[None], window, stride=1, padding=radius)
    least = -F.max_pool2d(-source[None], window, stride=1, padding=radius)
    result.clamp_(max=F.interpolate(greatest, size=size, mode="nearest")[0])
    return result.clamp_(min=F.interpolate(least, size=size, mode="nearest")[0])
