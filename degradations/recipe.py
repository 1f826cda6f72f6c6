"""How a low-quality picture is made from a good one: the order of steps, with ranges as data."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from restore.degradations.blur import random_blur
from restore.degradations.compression import random_jpeg
from restore.degradations.draw import chance, number
from restore.degradations.noise import random_gaussian_noise, random_poisson_noise
from restore.degradations.resize import random_resize


@dataclass(frozen=True, kw_only=True, slots=True)
class DegradationRecipe:
    """Two rounds of blur, resampling, noise and JPEG, after Real-ESRGAN (ICCVW 2021, section 3).

    Probabilities are of the whole batch unless a field says otherwise; strengths are drawn for
    each picture.
    """

    blur_prob: float = 0.9
    """Probability of the first blur."""
    blur_sigma: tuple[float, float] = (0.2, 3.0)
    """Standard deviation of the first blur in pixels of the good picture."""
    anisotropic_prob: float = 0.4
    """Probability, for each picture, of a blur with a direction."""
    kernel_size: int = 15
    """Side of the blur kernels in pixels, odd."""
    detour_prob: float = 0.4
    """Probability of a resampling to a size between, and a second round of noise and JPEG."""
    detour_range: tuple[float, float] = (0.3, 1.2)
    """Size of that detour over the size of the good picture."""
    noise_prob: float = 0.5
    """Probability of each round of noise."""
    noise_sigma: tuple[float, float] = (0.5, 14.0)
    """Standard deviation of white noise in steps of 1/255."""
    poisson_scale: tuple[float, float] = (0.05, 2.0)
    """Strength of photon noise."""
    gray_prob: float = 0.4
    """Probability, for each picture, of noise without colour."""
    jpeg_prob: float = 0.6
    """Probability of each JPEG."""
    jpeg_quality: tuple[float, float] = (40, 95)
    """Quality of each JPEG."""


def degrade(
    pictures: Tensor, generator: torch.Generator, recipe: DegradationRecipe, *, scale: int
) -> Tensor:
    """Low-quality versions of good pictures, `scale` times smaller.

    Args:
        pictures: RGB `(B, 3, H, W)` in [0, 1], H and W multiples of `scale`.
        generator: source of every draw; the same state gives the same result.
        recipe: what to do and how strongly.
        scale: factor between the good and the bad picture.

    Returns:
        `(B, 3, H / scale, W / scale)` in [0, 1], in steps of 1/255 as from a file.
    """
    height, width = pictures.shape[-2:]
    if height % scale or width % scale:
        raise ValueError(f"{width}x{height} pictures do not divide by the scale {scale}")
    x = pictures
    if chance(recipe.blur_prob, generator=generator):
        x = random_blur(
            x,
            generator,
            sigma=recipe.blur_sigma,
            anisotropic=recipe.anisotropic_prob,
            size=recipe.kernel_size,
        )
    if chance(recipe.detour_prob, generator=generator):
        factor = number(*recipe.detour_range, generator=generator)
        x = random_resize(
            x, generator, height=max(1, round(height * factor)), width=max(1, round(width * factor))
        )
        x = _noise_and_jpeg(x, generator, recipe)
    x = random_resize(x, generator, height=height // scale, width=width // scale)
    x = _noise_and_jpeg(x, generator, recipe)
    return x.clamp(0, 1).mul(255).round().div(255)


def _noise_and_jpeg(x: Tensor, generator: torch.Generator, recipe: DegradationRecipe) -> Tensor:
    if chance(recipe.noise_prob, generator=generator):
        if chance(0.5, generator=generator):
            x = random_gaussian_noise(x, generator, sigma=recipe.noise_sigma, gray=recipe.gray_prob)
        else:
            x = random_poisson_noise(
                x, generator, scale=recipe.poisson_scale, gray=recipe.gray_prob
            )
    if chance(recipe.jpeg_prob, generator=generator):
        x = random_jpeg(x, generator, quality=recipe.jpeg_quality)
    return x
