"""What the trainer makes small."""

from __future__ import annotations

import torch
from torch import Tensor


def charbonnier(result: Tensor, target: Tensor, *, epsilon: float = 1e-3) -> Tensor:
    """Mean of sqrt(d^2 + epsilon^2), a smooth L1 (Lai et al., CVPR 2017, equation 2)."""
    return ((result - target).square() + epsilon**2).sqrt().mean()


def spectral_l1(result: Tensor, target: Tensor) -> Tensor:
    """Mean distance of the Fourier coefficients, orthonormal, so that its scale is the pixels'."""
    difference = torch.fft.rfft2(result - target, norm="ortho")
    return difference.abs().mean()
