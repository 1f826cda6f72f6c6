"""Pictures and generators that the tests of degradations share."""

from __future__ import annotations

import torch
from torch import Tensor

from restore.degradations.filtering import filter_each
from restore.degradations.kernels import gaussian_kernels


def generator(seed: int = 0) -> torch.Generator:
    """A seeded generator of the CPU."""
    return torch.Generator().manual_seed(seed)


def noise_pictures(count: int = 4, height: int = 64, width: int | None = None) -> Tensor:
    """White noise, `(count, 3, H, W)` in [0, 1]: every frequency at once."""
    return torch.rand(count, 3, height, width or height, generator=generator(9))


def blurred(pictures: Tensor, sigma: float, *, size: int) -> Tensor:
    """Pictures `(B, C, H, W)` under one round Gaussian."""
    spread = torch.full((len(pictures),), sigma)
    kernels = gaussian_kernels(spread, spread, torch.zeros_like(spread), size=size)
    return filter_each(pictures, kernels)


def smooth_pictures(count: int = 2, height: int = 64, width: int | None = None) -> Tensor:
    """Soft blotches over the whole range, `(count, 3, H, W)` in [0, 1]: like a photograph."""
    soft = blurred(noise_pictures(count, height, width), 3.0, size=21)
    low, high = soft.amin((2, 3), keepdim=True), soft.amax((2, 3), keepdim=True)
    return (soft - low) / (high - low)
