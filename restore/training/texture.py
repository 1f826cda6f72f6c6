"""Losses that ask for the texture of the good picture, not for its pixels.

A network that is trained for pixels alone makes the mean of all that could have been, which is
smooth. Here the statistics of small patches near each place are compared, so that texture of the
right kind and strength costs nothing wherever exactly its grains lie. That needs no second network
and is stable from the first step, unlike a discriminator.

All of them work on the luma, for which the eye has its detail.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from restore.errors import OptionError

_LUMA = (0.299, 0.587, 0.114)
_SIDES = (3, 5, 7)
_SPECTRUM = 32
SMALLEST_SPECTRUM = _SPECTRUM + _SPECTRUM // 2 - 1
"""Least side of pictures for `spectrum_distance`: a window, at the last of its random places."""
_FLAT = 0.02  # deviation of patches that count as flat


@dataclass(frozen=True, kw_only=True, slots=True)
class TextureConfig:
    """Weights of these losses beside the pixel loss, and how they look."""

    weight: float = 0.0
    """Weight of the patches' distance (`sliced_distance`); 0 = none of these losses."""
    spectrum_weight: float = 0.0
    """Weight of the spectra's distance (`spectrum_distance`)."""
    lattice_weight: float = 0.0
    """Weight of the unevenness within the squares that one input pixel becomes (`lattice`)."""
    filters: int = 16
    """Random filters of each size."""
    window: int = 40
    """Side in pixels of the neighbourhoods whose patches are compared."""

    def __post_init__(self) -> None:
        for name in ("weight", "spectrum_weight", "lattice_weight"):
            if getattr(self, name) < 0:
                raise OptionError(f"texture.{name} is {getattr(self, name):g}; give 0 or more")
        for name, least in (("filters", 1), ("window", 16)):
            if getattr(self, name) < least:
                raise OptionError(f"texture.{name} is {getattr(self, name)}; give {least} or more")


def texture_loss(
    result: Tensor,
    target: Tensor,
    config: TextureConfig,
    generator: torch.Generator,
    *,
    scale: int,
) -> Tensor:
    """The weighed sum of the three.

    Args:
        result: RGB `(B, 3, H, W)` in [0, 1], H and W `window` at least.
        target: likewise.
        config: the weights.
        generator: draws the filters, on the CPU.
        scale: output pixels per input pixel along each side.
    """
    weights = result.new_tensor(_LUMA).view(1, 3, 1, 1)
    x, y = ((picture * weights).sum(1, keepdim=True) for picture in (result, target))
    loss = config.weight * sliced_distance(x, y, config, generator, scale=scale)
    if config.spectrum_weight:
        loss = loss + config.spectrum_weight * spectrum_distance(x, y, generator)
    if config.lattice_weight:
        loss = loss + config.lattice_weight * lattice(x, generator, scale=scale)
    return loss


def sliced_distance(
    x: Tensor, y: Tensor, config: TextureConfig, generator: torch.Generator, *, scale: int
) -> Tensor:
    """Distance of the distributions of patches near each place.

    The sliced Wasserstein distance (Heitz et al., "A Sliced Wasserstein Loss for Neural Texture
    Synthesis", CVPR 2021, equation 5; of plain patches: Elnekave and Weiss, "Generating Natural
    Images with Direct Patch Distributions Matching", ECCV 2022): responses to random filters are
    sorted and compared, here within windows, at full and at half size, and over the deviation in
    the target. Only one of the `scale` x `scale` places of each square that one input pixel becomes
    is taken at a time: each must be natural by itself, or the squares would show as a grid.

    Args:
        x: luma of the result `(B, 1, H, W)`.
        y: that of the target.
        config: filters and window.
        generator: draws the filters and the places.
        scale: output pixels per input pixel.
    """
    total = x.new_zeros(())
    for level in range(2):
        if level:
            x, y, scale = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2), max(1, scale // 2)
        count = max(1, config.window // 2**level // scale)
        for side in _SIDES:
            filters = random_filters(config.filters, side, generator).to(x)
            top, left = torch.randint(0, scale, (2,), generator=generator).tolist()
            a, b = (
                _sorted(F.conv2d(one, filters)[..., top::scale, left::scale], count)
                for one in (x, y)
            )
            total = total + ((a - b).abs() / (b.std(-1, keepdim=True) + _FLAT)).mean()
    return total / (2 * len(_SIDES))


def spectrum_distance(x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
    """Distance of the magnitudes of windowed spectra, near each place and in the mean of all.

    The mean finds what repeats everywhere with one period, which a single window hardly shows.
    """
    top, left = torch.randint(0, _SPECTRUM // 2, (2,), generator=generator).tolist()
    hann = torch.hann_window(_SPECTRUM, periodic=True, device=x.device)

    def magnitudes(one: Tensor) -> Tensor:  # (B, 1, n, m, 32, 17)
        windows = one[..., top:, left:].unfold(2, _SPECTRUM, _SPECTRUM // 2)
        windows = windows.unfold(3, _SPECTRUM, _SPECTRUM // 2)
        windows = (windows - windows.mean((-1, -2), keepdim=True)) * torch.outer(hann, hann)
        return torch.fft.rfft2(windows, norm="ortho").abs()

    a, b = magnitudes(x), magnitudes(y)
    strength = b.mean((-1, -2), keepdim=True) + _FLAT / 2
    near = ((a - b).abs() / strength).mean()
    mean_a, mean_b = ((one / strength).mean((0, 1, 2, 3)) for one in (a, b))
    return 0.3 * near + ((mean_a - mean_b).abs() / (mean_b + 0.05)).mean()


def lattice(x: Tensor, generator: torch.Generator, *, scale: int) -> Tensor:
    """How unevenly detail lies within the squares that one input pixel becomes.

    The deviation of the mean absolute response to random filters over the `scale` x `scale` places,
    over its mean: 0 where no place has more detail than another.
    """
    total = x.new_zeros(())
    for side in _SIDES[:2]:
        filters = random_filters(8, side, generator).to(x)
        response = F.conv2d(x, filters).abs()
        height, width = (length // scale * scale for length in response.shape[-2:])
        squares = F.pixel_unshuffle(response[..., :height, :width], scale)
        energy = torch.unflatten(squares.mean((0, 2, 3)), 0, (-1, scale**2))  # (filters, places)
        total = total + (energy.std(1, correction=0) / (energy.mean(1) + 1e-6)).mean()
    return total / 2


def random_filters(count: int, side: int, generator: torch.Generator) -> Tensor:
    """`(count, 1, side, side)` of mean 0 and norm 1."""
    filters = torch.randn(count, 1, side, side, generator=generator)
    filters = filters - filters.mean((2, 3), keepdim=True)
    return filters / filters.flatten(1).norm(dim=1).view(-1, 1, 1, 1)


def _sorted(responses: Tensor, side: int) -> Tensor:
    """Responses `(B, C, H, W)` sorted within windows of `side`: `(B, C, n, m, side^2)`."""
    height, width = (length // side * side for length in responses.shape[-2:])
    windows = responses[..., :height, :width].unfold(2, side, side).unfold(3, side, side)
    return windows.flatten(-2).sort(-1).values
