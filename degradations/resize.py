"""Resampling with the filters that cameras, phones and web sites use."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from restore.degradations.draw import pick

ResizeMode = Literal["area", "bilinear", "bicubic"]
MODES: tuple[ResizeMode, ...] = ("area", "bilinear", "bicubic")


def resize(pictures: Tensor, height: int, width: int, mode: ResizeMode) -> Tensor:
    """Resample `(B, C, H, W)` to `(B, C, height, width)`; smaller sizes are antialiased."""
    if pictures.shape[-2:] == (height, width):
        return pictures
    if mode == "area":
        return F.interpolate(pictures, (height, width), mode="area")
    return F.interpolate(pictures, (height, width), mode=mode, align_corners=False, antialias=True)


def random_resize(
    pictures: Tensor, generator: torch.Generator, *, height: int, width: int
) -> Tensor:
    """Resample with a filter drawn at random, the same for the whole batch."""
    mode = pick(MODES, (1, 1, 1), generator=generator)
    return resize(pictures, height, width, mode)  # type: ignore[arg-type]
