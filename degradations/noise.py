"""Noise of sensors and of film."""

from __future__ import annotations

import torch
from torch import Tensor

from restore.degradations.draw import uniform


def random_gaussian_noise(
    pictures: Tensor, generator: torch.Generator, *, sigma: tuple[float, float], gray: float
) -> Tensor:
    """Add white noise, its strength drawn for each picture.

    Args:
        pictures: `(B, C, H, W)` in [0, 1].
        sigma: range of the standard deviation in steps of 1/255.
        gray: probability in [0, 1] that the channels of a picture share their noise.
    """
    batch = len(pictures)
    strength = uniform(batch, *sigma, generator=generator).to(pictures) / 255
    same = uniform(batch, 0, 1, generator=generator).to(pictures.device) < gray
    noise = torch.randn(pictures.shape, generator=generator, device=generator.device).to(pictures)
    noise = torch.where(same[:, None, None, None], noise[:, :1], noise)
    return pictures + noise * strength[:, None, None, None]


def random_poisson_noise(
    pictures: Tensor, generator: torch.Generator, *, scale: tuple[float, float], gray: float
) -> Tensor:
    """Add photon noise, whose variance grows with the light.

    The variance at value x is scale^2 x / 255, the limit of the Poisson noise of Real-ESRGAN for
    many photons; drawn as a Gaussian, which is indistinguishable at these strengths.

    Args:
        pictures: `(B, C, H, W)` in [0, 1].
        scale: range of the factor; 1 is a sensor that counts 255 photons at white.
        gray: probability in [0, 1] that the channels of a picture share their noise.
    """
    batch = len(pictures)
    strength = uniform(batch, *scale, generator=generator).to(pictures)
    same = uniform(batch, 0, 1, generator=generator).to(pictures.device) < gray
    noise = torch.randn(pictures.shape, generator=generator, device=generator.device).to(pictures)
    noise = torch.where(same[:, None, None, None], noise[:, :1], noise)
    deviation = (pictures.clamp_min(0) / 255).sqrt()
    return pictures + noise * deviation * strength[:, None, None, None]
