"""Gaussian blur kernels and their application, one kernel a picture."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from restore.degradations.draw import uniform


def gaussian_kernels(sigma_x: Tensor, sigma_y: Tensor, angle: Tensor, *, size: int) -> Tensor:
    """Bivariate Gaussian kernels, rotated.

    k(u) ~ exp(-u^T S^-1 u / 2), S = R(angle) diag(sigma_x^2, sigma_y^2) R(angle)^T: equation 3
    of Real-ESRGAN (Wang et al., ICCVW 2021).

    Args:
        sigma_x, sigma_y: standard deviations in pixels, `(B,)`, above 0.
        angle: rotation in radians, `(B,)`.
        size: side of the kernel in pixels, odd.

    Returns:
        `(B, size, size)`, each summing to 1.
    """
    if size % 2 == 0:
        raise ValueError(f"kernel size {size} is even; give an odd number")
    axis = torch.arange(size, dtype=torch.float32, device=sigma_x.device) - size // 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    cos, sin = angle.cos()[:, None, None], angle.sin()[:, None, None]
    along = (cos * x + sin * y) / sigma_x[:, None, None]  # (B, size, size)
    across = (cos * y - sin * x) / sigma_y[:, None, None]
    kernel = torch.exp(-0.5 * (along**2 + across**2))
    return kernel / kernel.sum((1, 2), keepdim=True)


def filter_each(pictures: Tensor, kernels: Tensor) -> Tensor:
    """Convolve picture i with kernel i, reflecting at the border.

    Args:
        pictures: `(B, C, H, W)`; sides larger than half of the kernel.
        kernels: `(B, k, k)`, k odd.
    """
    batch, channels, height, width = pictures.shape
    half = kernels.shape[-1] // 2
    padded = F.pad(pictures, (half,) * 4, mode="reflect")
    weight = kernels[:, None].repeat_interleave(channels, dim=0)  # (B C, 1, k, k)
    flat = padded.reshape(1, batch * channels, height + 2 * half, width + 2 * half)
    return F.conv2d(flat, weight, groups=batch * channels).reshape(pictures.shape)


def random_blur(
    pictures: Tensor,
    generator: torch.Generator,
    *,
    sigma: tuple[float, float],
    anisotropic: float,
    size: int,
) -> Tensor:
    """Blur each picture with its own Gaussian.

    Args:
        pictures: `(B, C, H, W)` in [0, 1].
        sigma: range of the standard deviations in pixels.
        anisotropic: probability in [0, 1] of two different deviations at a random angle.
        size: side of the kernels in pixels, odd.
    """
    batch = len(pictures)
    sigma_x = uniform(batch, *sigma, generator=generator)
    sigma_y = uniform(batch, *sigma, generator=generator)
    angle = uniform(batch, -math.pi, math.pi, generator=generator)
    round_one = uniform(batch, 0, 1, generator=generator) >= anisotropic
    sigma_y = torch.where(round_one, sigma_x, sigma_y)
    kernels = gaussian_kernels(sigma_x, sigma_y, angle, size=size)
    return filter_each(pictures, kernels.to(pictures))
