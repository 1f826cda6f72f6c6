"""What the trainer makes small."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

log = logging.getLogger("restore.training")

LpipsNet = Literal["alex", "vgg"]
LPIPS_FILES: dict[LpipsNet, str] = {
    "alex": "alexnet-owt-7be5be79.pth",
    "vgg": "vgg16-397923af.pth",
}
"""Weights of torchvision that LPIPS stands on, as torch.hub names them."""


def charbonnier(result: Tensor, target: Tensor, *, epsilon: float = 1e-3) -> Tensor:
    """Mean of sqrt(d^2 + epsilon^2), a smooth L1 (Lai et al., CVPR 2017, equation 2)."""
    return ((result - target).square() + epsilon**2).sqrt().mean()


def spectral_l1(result: Tensor, target: Tensor) -> Tensor:
    """Mean distance of the Fourier coefficients, orthonormal, so that its scale is the pixels'."""
    difference = torch.fft.rfft2(result - target, norm="ortho")
    return difference.abs().mean()


def dissimilarity(result: Tensor, target: Tensor) -> Tensor:
    """1 - SSIM of the luma (Wang et al., IEEE TIP 2004), in squares of 8 pixels every 3 pixels.

    The squares of equal weight, some of them left out, take a tenth of the time of the Gaussian
    windows of the metric; as a loss beside the pixels' see Zhao et al., IEEE TCI 2017.

    Args:
        result: RGB `(B, 3, H, W)` in [0, 1], 8 pixels large at least.
        target: likewise.
    """
    return dissimilarities(result, target).mean()


def dissimilarities(result: Tensor, target: Tensor) -> Tensor:
    """`dissimilarity` of each picture, `(B,)`."""
    weights = result.new_tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    x, y = ((picture * weights).sum(1, keepdim=True) for picture in (result, target))
    means = F.avg_pool2d(torch.cat([x, y, x * x, y * y, x * y], dim=1), 8, 3)
    mean_x, mean_y, square_x, square_y, product = means.unbind(1)
    spread = square_x - mean_x**2 + square_y - mean_y**2
    light = (2 * mean_x * mean_y + 0.01**2) / (mean_x**2 + mean_y**2 + 0.01**2)
    structure = (2 * (product - mean_x * mean_y) + 0.03**2) / (spread + 0.03**2)
    return 1 - (light * structure).mean((1, 2))


def temporal_change(
    result: Tensor, before: Tensor, *, target: Tensor, target_before: Tensor, seen: Tensor
) -> Tensor:
    """How far results change from frame to frame otherwise than the good frames do.

    mean of m |(y_t - W y_{t-1}) - (x_t - W x_{t-1})|, W the motion, m the pixels that both frames
    show: the temporal loss of Lai et al. (ECCV 2018, equation 3), less what the resampling by W
    and changes of light bring by themselves.

    Args:
        result: y_t `(B, 3, H, W)`.
        before: y_{t-1}, moved to this frame.
        target: x_t.
        target_before: x_{t-1}, moved likewise.
        seen: m `(B, 1, H, W)` in [0, 1].
    """
    difference = ((result - before) - (target - target_before)).abs() * seen
    return difference.mean() / seen.mean().clamp_min(1e-3)


def perceptual(net: LpipsNet, *, device: torch.device) -> Callable[[Tensor, Tensor], Tensor] | None:
    """LPIPS (Zhang et al., CVPR 2018) on pictures in [0, 1], or None where it cannot be had.

    Nothing is downloaded: the weights it stands on must be in torch.hub's folder.
    """
    file = Path(torch.hub.get_dir()) / "checkpoints" / LPIPS_FILES[net]
    try:
        import lpips
    except ImportError:
        log.warning(
            "training goes on without LPIPS: it is not installed; run 'pip install lpips', or set "
            "perceptual_weight: 0"
        )
        return None
    if not file.is_file():
        log.warning(
            "training goes on without LPIPS: %s is missing; put it there, or set "
            "perceptual_weight: 0",
            file,
        )
        return None
    network = lpips.LPIPS(net=net, verbose=False).to(device).eval().requires_grad_(False)

    def distance(result: Tensor, target: Tensor) -> Tensor:
        value: Tensor = network(result, target, normalize=True).mean()
        return value

    return distance
