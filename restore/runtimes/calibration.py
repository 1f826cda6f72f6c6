"""Pictures that show a network the range of its own values, made of nothing but a seed.

Opaque discs of all sizes over each other, with radii r of density r^-3, have the edges, the flat
grounds and the spectrum of photographs (Lee, Mumford and Huang, "Occlusion Models for Natural
Images", IJCV 2001). Some of them are blurred, and most are noisy, as pictures to be restored are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

PICTURES = 16
SIDE = 96
DISCS = 400
SMALLEST = 2.0
"""Radius of the smallest disc, drawn at twice the size."""
BLUR = 1.2
"""Largest standard deviation of the blur in pixels; below a quarter of it there is none."""
NOISE = 0.08
"""Largest standard deviation of the noise."""


def make_picture(generator: torch.Generator, *, side: int = SIDE) -> Tensor:
    """One picture, RGB `(1, 3, side, side)` in [0, 1]; every draw comes from `generator`."""

    def draw(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    large = 2 * side  # drawn at twice the size, for soft edges
    low, high = SMALLEST**-2, float(side) ** -2
    radii = (high + (low - high) * draw(DISCS)).rsqrt().sort(descending=True).values
    centers = (large * draw(DISCS, 2)).int().tolist()
    canvas = np.zeros((large, large, 3), np.float32)
    for center, radius, color in zip(centers, radii.int().tolist(), draw(DISCS, 3), strict=True):
        cv2.circle(canvas, center, radius, color.tolist(), thickness=cv2.FILLED)
    picture = cv2.resize(canvas, (side, side), interpolation=cv2.INTER_AREA)
    blur = BLUR * float(draw(1))
    if blur > BLUR / 4:
        picture = cv2.GaussianBlur(picture, (0, 0), blur)
    frames = torch.from_numpy(picture).permute(2, 0, 1)[None]
    return add_noise(frames, NOISE * float(draw(1)) ** 2, generator)


def add_noise(frames: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
    """`frames` with Gaussian noise, held to [0, 1]."""
    noise = torch.randn(frames.shape, generator=generator)
    return (frames + sigma * noise).clamp(0, 1).contiguous()


def make_inputs(
    restore: Callable[[Tensor], Tensor], *, temporal: bool, seed: int = 0
) -> Iterator[tuple[Tensor, ...]]:
    """What a network is given: pictures, and for clips what came before them.

    Args:
        restore: the network for pictures, `(B, 3, H, W)` to `(B, 3, s H, s W)`.
        temporal: give `(frames, previous, trust)`, else `(frames,)`.
        seed: of every draw.
    """
    generator = torch.Generator().manual_seed(seed)
    for _ in range(PICTURES):
        frames = make_picture(generator)
        if not temporal:
            yield (frames,)
            continue
        before = restore(add_noise(frames, NOISE / 2, generator)).clamp(0, 1)
        coarse = torch.rand(1, 1, 4, 4, generator=generator)
        trust = F.interpolate(2 * coarse, frames.shape[-2:], mode="bilinear").clamp(0, 1)
        yield frames, before, trust
