"""Noise as a camera makes it: in the raw mosaic, before colours are computed from it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from restore.degradations.draw import normal, uniform
from restore.degradations.step import Draws, Drift, Scene, check_prob, check_range

_READ_SLOPE, _READ_BASE, _READ_SPREAD = 2.18, 1.20, 0.26


@dataclass(frozen=True, kw_only=True, slots=True)
class Camera:
    """The picture goes back to raw light, is measured there with noise, and developed again.

    sRGB tone curve undone -> white balance undone -> Bayer mosaic RGGB -> shot and read noise of
    variance `shot` x + `read` -> bilinear demosaicing -> white balance -> sRGB tone curve.

    The noise model and its ranges are those of Brooks et al. ("Unprocessing Images", CVPR 2019,
    section 3.1): `shot` even in its logarithm, and log `read` normal round 2.18 log `shot` + 1.20.
    Colours are taken to be the sensor's own, without a matrix.
    """

    prob: float = 0.25
    """Probability, for each picture."""
    shot: tuple[float, float] = (1e-4, 1.2e-2)
    """Variance of shot noise at white."""
    red: tuple[float, float] = (1.9, 2.4)
    """White balance: gain of red over green."""
    blue: tuple[float, float] = (1.5, 1.9)
    """Gain of blue over green."""

    def __post_init__(self) -> None:
        check_prob("camera prob", self.prob)
        check_range("camera shot", self.shot, low=1e-12, high=1)
        check_range("camera red", self.red, low=1)
        check_range("camera blue", self.blue, low=1)

    @property
    def shared(self) -> bool:
        """Each picture has draws of its own."""
        return False

    def draw(self, count: int, generator: torch.Generator) -> Draws:
        """Noise levels and gains."""
        low, high = (math.log(end) for end in self.shot)
        shot = uniform(count, low, high, generator=generator)
        device = generator.device
        spread = _READ_SPREAD * torch.randn(count, generator=generator, device=device)
        return {
            "shot": shot.exp(),
            "read": (_READ_SLOPE * shot + _READ_BASE + spread).exp(),
            "red": uniform(count, *self.red, generator=generator),
            "blue": uniform(count, *self.blue, generator=generator),
        }

    def drifts(self) -> dict[str, Drift]:
        """Nothing moves: a camera keeps its gain for a clip."""
        return {}

    def apply(
        self, pictures: Tensor, draws: Draws, generator: torch.Generator, scene: Scene
    ) -> Tensor:
        """Take RGB `(N, 3, H, W)` with this camera; the noise of each frame is its own."""
        shot, read = (draws[name].to(pictures)[:, None, None, None] for name in ("shot", "read"))
        ones = torch.ones_like(draws["red"])
        gains = torch.stack((draws["red"], ones, draws["blue"]), dim=1).to(pictures)[
            :, :, None, None
        ]
        light = to_light(pictures.clamp(0, 1)) / gains
        masks = bayer_masks(light)
        raw = (light * masks).sum(1, keepdim=True)  # (N, 1, H, W)
        raw = raw + normal(raw, generator=generator) * (shot * raw + read).sqrt()
        return from_light((demosaic(raw) * gains).clamp(0, 1))

    def told(self, draws: dict[str, Any]) -> dict[str, Any]:
        """What a record says of one picture."""
        return {name: draws[name] for name in ("shot", "read", "red", "blue")}


def to_light(values: Tensor) -> Tensor:
    """sRGB values in [0, 1] as amounts of light (IEC 61966-2-1)."""
    low, high = values / 12.92, ((values.clamp_min(0) + 0.055) / 1.055) ** 2.4
    return torch.where(values <= 0.04045, low, high)


def from_light(light: Tensor) -> Tensor:
    """Amounts of light in [0, 1] as sRGB values."""
    # The power of exact black would have an infinite slope.
    high = 1.055 * light.clamp_min(1e-6) ** (1 / 2.4) - 0.055
    return torch.where(light <= 0.0031308, 12.92 * light, high)


def bayer_masks(pictures: Tensor) -> Tensor:
    """Which colour each pixel of an RGGB sensor sees: 0 or 1, `(1, 3, H, W)`."""
    height, width = pictures.shape[-2:]
    odd_row = torch.arange(height, device=pictures.device)[:, None] % 2 == 1
    odd_column = torch.arange(width, device=pictures.device) % 2 == 1
    masks = (~odd_row & ~odd_column, odd_row ^ odd_column, odd_row & odd_column)
    return torch.stack(masks).to(pictures)[None]


def demosaic(raw: Tensor) -> Tensor:
    """RGB `(N, 3, H, W)` from an RGGB mosaic `(N, 1, H, W)`: means of the nearest like pixels.

    At the border only pixels inside count. A mosaic of less than 2x2 pixels lacks a colour, which
    is then taken as the mean of the others.
    """
    masks = bayer_masks(raw)
    axis = torch.tensor([0.5, 1.0, 0.5], dtype=raw.dtype, device=raw.device)
    kernel = torch.outer(axis, axis).expand(3, 1, 3, 3)
    sums = F.conv2d(raw * masks, kernel, padding=1, groups=3)
    counts = F.conv2d(masks, kernel, padding=1, groups=3)
    nearest = sums / counts.clamp_min(1e-6)
    return torch.where(counts > 0, torch.where(masks > 0, raw, nearest), raw)
