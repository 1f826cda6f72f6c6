"""Blur kernels of lenses, sensors, resamplers and shaking hands: formulas, one kernel a picture.

Every function takes its parameters as tensors `(B,)` and gives `(B, size, size)`, each kernel
summing to 1. Rows are y, downwards; angles turn from x towards y. They are computed in float64,
since exponentials of large powers cancel badly, and given as float32.

The Gaussian, generalised and plateau families and the sinc are those of BasicSR 1.4.2, which the
published recipes are made of; the tests compare with its numbers.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_PATH_POINTS = 64
"""Points of a path; a path is at most 64 pixels long, so neighbours are within a pixel."""


def gaussian_kernels(
    sigma_x: Tensor,
    sigma_y: Tensor,
    angle: Tensor,
    *,
    size: int,
    side: Tensor | None = None,
    offset: float = 0.0,
) -> Tensor:
    """Bivariate Gaussian kernels, rotated; isotropic where the two deviations are equal.

    k(u) ~ exp(-q(u) / 2), q(u) = u^T S^-1 u, S = R(angle) diag(sigma_x^2, sigma_y^2) R(angle)^T:
    equation 3 of Real-ESRGAN (Wang et al., ICCVW 2021).

    Args:
        sigma_x, sigma_y: standard deviations in pixels, `(B,)`, above 0.
        angle: rotation in radians, `(B,)`.
        size: side of the kernel in pixels, odd.
        side: the kernel is 0 outside its own odd side `(B,)`, up to `size`; None = `size`.
        offset: pixels by which the centre is moved to the right and down.
    """
    q = _mahalanobis(sigma_x, sigma_y, angle, size=size, offset=offset)
    # Without the smallest q a narrow kernel between pixels would underflow to 0 everywhere.
    return _normalised(torch.exp(-0.5 * (q - q.amin((1, 2), keepdim=True))), side)


def generalized_kernels(
    sigma_x: Tensor,
    sigma_y: Tensor,
    angle: Tensor,
    shape: Tensor,
    *,
    size: int,
    side: Tensor | None = None,
) -> Tensor:
    """Generalised Gaussians: k(u) ~ exp(-q(u)^shape / 2), equation 4 of Real-ESRGAN.

    Args:
        sigma_x, sigma_y, angle, size, side: as in `gaussian_kernels`.
        shape: exponent `(B,)`, above 0; 1 = Gaussian, less = heavy tails, more = flat top.
    """
    q = _mahalanobis(sigma_x, sigma_y, angle, size=size)
    return _normalised(torch.exp(-0.5 * q ** shape.double()[:, None, None]), side)


def plateau_kernels(
    sigma_x: Tensor,
    sigma_y: Tensor,
    angle: Tensor,
    shape: Tensor,
    *,
    size: int,
    side: Tensor | None = None,
) -> Tensor:
    """Plateaus: k(u) ~ 1 / (1 + q(u)^shape), equation 5 of Real-ESRGAN.

    Args:
        sigma_x, sigma_y, angle, size, side: as in `gaussian_kernels`.
        shape: exponent `(B,)`, above 0; larger = steeper sides.
    """
    q = _mahalanobis(sigma_x, sigma_y, angle, size=size)
    return _normalised(1 / (1 + q ** shape.double()[:, None, None]), side)


def sinc_kernels(cutoff: Tensor, *, size: int, side: Tensor | None = None) -> Tensor:
    """Circular low-pass filters, which ring: k(r) = w J1(w r) / (2 pi r), as Real-ESRGAN has them.

    Args:
        cutoff: frequency w in radians a pixel, `(B,)`, above 0 up to pi.
        size, side: as in `gaussian_kernels`.
    """
    x, y = _grid(size, device=cutoff.device)
    radius = torch.hypot(x, y)
    w = cutoff.double()[:, None, None]
    away = radius.clamp_min(0.5)  # the centre has its limit value below
    kernel = w * torch.special.bessel_j1(w * away) / (2 * math.pi * away)
    return _normalised(torch.where(radius == 0, w**2 / (4 * math.pi), kernel), side)


def defocus_kernels(radius: Tensor, *, size: int) -> Tensor:
    """Disks of a lens out of focus; pixels on the rim count by how far they lie inside.

    Args:
        radius: pixels, `(B,)`, 0 or more; the rim is cut off beyond size / 2.
        size: side of the kernel in pixels, odd.
    """
    x, y = _grid(size, device=radius.device)
    inside = radius.double()[:, None, None] + 0.5 - torch.hypot(x, y)
    return _normalised(inside.clamp(0, 1), None)


def motion_kernels(length: Tensor, angle: Tensor, *, size: int) -> Tensor:
    """Straight motion during the exposure.

    Args:
        length: way in pixels, `(B,)`, 0 or more, at most `size` - 2.
        angle: direction in radians, `(B,)`.
        size: side of the kernel in pixels, odd.
    """
    along = torch.linspace(-0.5, 0.5, _PATH_POINTS, dtype=torch.float64, device=length.device)
    way = length.double()[:, None] * along
    direction = torch.stack((angle.double().cos(), angle.double().sin()), dim=1)
    return path_kernels(way[:, :, None] * direction[:, None], size=size)


def shake_kernels(length: Tensor, angle: Tensor, turns: Tensor, *, size: int) -> Tensor:
    """The curved way of a hand-held camera: a path whose direction wanders.

    Args:
        length: way along the curve in pixels, `(B,)`, 0 or more, at most `size` - 2.
        angle: direction of its beginning in radians, `(B,)`.
        turns: changes of direction on the way in radians, `(B, n)`.
        size: side of the kernel in pixels, odd.
    """
    rising = turns.double().cumsum(1)[:, None]
    heading = torch.nn.functional.interpolate(
        rising, _PATH_POINTS - 1, mode="linear", align_corners=True
    )[:, 0]
    heading = heading + angle.double()[:, None]
    stride = (length.double() / (_PATH_POINTS - 1))[:, None]
    steps = torch.stack((heading.cos() * stride, heading.sin() * stride), dim=2)  # (B, n, 2)
    points = torch.cat((torch.zeros_like(steps[:, :1]), steps.cumsum(1)), dim=1)
    return path_kernels(points, size=size)


def path_kernels(points: Tensor, *, size: int) -> Tensor:
    """Kernels of a point that stays equally long at each of `points`.

    Args:
        points: x and y in pixels, `(B, n, 2)`; the path is moved so that its mean is the centre,
            and so the picture stays where it is.
        size: side of the kernel in pixels, odd; points outside are moved to its rim.
    """
    batch = len(points)
    place = points.double() - points.double().mean(1, keepdim=True) + _half(size)
    place = place.clamp(0, size - 1)
    first = place.floor().clamp(max=size - 2)
    rest = place - first  # each point is shared by the four pixels round it
    kernel = torch.zeros(batch, size * size, dtype=torch.float64, device=points.device)
    for right in (0, 1):
        for down in (0, 1):
            share_x = rest[..., 0] if right else 1 - rest[..., 0]
            share_y = rest[..., 1] if down else 1 - rest[..., 1]
            index = ((first[..., 1] + down) * size + first[..., 0] + right).long()
            kernel.scatter_add_(1, index, share_x * share_y)
    return _normalised(kernel.view(batch, size, size), None)


def _half(size: int) -> int:
    if size % 2 == 0 or size < 3:
        raise ValueError(f"kernel size {size} is not possible; give an odd number from 3 on")
    return size // 2


def _grid(size: int, *, device: torch.device, offset: float = 0.0) -> tuple[Tensor, Tensor]:
    """x and y of each pixel from the centre, `(size, size)`."""
    half = _half(size)
    axis = torch.arange(-half, half + 1, dtype=torch.float64, device=device) - offset
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return x, y


def _mahalanobis(
    sigma_x: Tensor, sigma_y: Tensor, angle: Tensor, *, size: int, offset: float = 0.0
) -> Tensor:
    """q(u) = u^T S^-1 u of each pixel, `(B, size, size)`."""
    x, y = _grid(size, device=sigma_x.device, offset=offset)
    turn = angle.double()[:, None, None]
    cos, sin = turn.cos(), turn.sin()
    along = (cos * x + sin * y) / sigma_x.double()[:, None, None]
    across = (cos * y - sin * x) / sigma_y.double()[:, None, None]
    return along**2 + across**2


def _normalised(kernel: Tensor, side: Tensor | None) -> Tensor:
    """float32 kernels that sum to 1, with nothing outside their own side."""
    if side is not None:
        size = kernel.shape[-1]
        axis = (torch.arange(size, device=kernel.device) - size // 2).abs()
        reach = torch.maximum(axis[:, None], axis)
        kernel = kernel * (reach <= (side.to(kernel.device) // 2)[:, None, None])
    return (kernel / kernel.sum((1, 2), keepdim=True)).float()
