"""The input four times as large, as FlashVSR's networks take it, and their result in its frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from restore.method import Tiling

SCALE = 4
MULTIPLE = 128
"""Pixels of the enlarged picture along each side of a block of attention."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Frame:
    """Which part of the enlarged picture the networks see."""

    height: int
    """Of the input."""
    width: int
    """Of the input."""
    tiling: Tiling
    """`published` = the middle, cut to multiples of 128, of an enlargement rounded to 8 bits by
    Pillow; else the whole, which then has to have such a size."""

    def __post_init__(self) -> None:
        fits = (SCALE * self.height % MULTIPLE, SCALE * self.width % MULTIPLE) == (0, 0)
        if 0 in self.size or not (fits or self.tiling == "published"):
            raise ValueError(f"frames of {self.height}x{self.width} are no multiple of 32")

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of that part."""
        height, width = (SCALE * side // MULTIPLE * MULTIPLE for side in (self.height, self.width))
        return height, width

    def enlarge(self, frame: Tensor) -> Tensor:
        """`(3, H, W)` in [0, 1] to `(3, 4 H, 4 W)` in [0, 1]."""
        if self.tiling == "published":
            return _with_pillow(frame)
        size = (SCALE * self.height, SCALE * self.width)
        # Antialiasing changes nothing here but the kernel, to Keys' with a = -0.5 as in Pillow.
        large = F.interpolate(frame[None], size, mode="bicubic", antialias=True)
        return large[0].clamp_(0, 1)

    def middle(self, large: Tensor) -> Tensor:
        """A view of the part, of `(..., 4 H, 4 W)`."""
        top, left = (
            (SCALE * whole - part) // 2
            for whole, part in zip((self.height, self.width), self.size, strict=True)
        )
        return large[..., top : top + self.size[0], left : left + self.size[1]]

    def put_back(self, results: Tensor, large: Tensor) -> Tensor:
        """Results `(n, 3, h, w)` of the part, with what is round it in `large (n, 3, 4 H, 4 W)`."""
        if results.shape == large.shape:
            return results
        whole = large.to(results.dtype)
        self.middle(whole).copy_(results)
        return whole


def _with_pillow(frame: Tensor) -> Tensor:
    pixels = (frame * 255).round().byte().permute(1, 2, 0).cpu().numpy()
    image = Image.fromarray(np.ascontiguousarray(pixels))
    size = (SCALE * image.width, SCALE * image.height)
    image = image.resize(size, Image.Resampling.BICUBIC)
    large = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    return large.to(frame.device, torch.float32) / 255
