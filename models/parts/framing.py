"""A picture of any size to one that a latent network takes, and back.

(H, W) --enlarge--> (s H, s W), in [0, 1] --pad--> multiples of 8 -- network -- crop --> (s H, s W)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from restore.method import Tiling
from restore.resampling import resample

MULTIPLE = 8
"""Pixels per place of the latents."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Framing:
    """How pictures are brought to the size that a network was trained at."""

    scale: int
    """Output pixels per input pixel along each side."""
    smallest: int
    """Shortest side of the enlarged picture that the network gives good results for; smaller
    pictures are enlarged further, and the result is made smaller again."""
    tiling: Tiling = "exact"
    """`published` = as OSEDiff's script does it: with Pillow, rounded to 8 bits at each step, and
    resized, not padded, to a multiple of 8."""

    def enlarge(self, pictures: Tensor) -> Tensor:
        """`(B, 3, H, W)` in [0, 1] to `(B, 3, h, w)` in [0, 1], h and w multiples of 8."""
        if self.tiling == "published":
            return torch.stack([self._with_pillow(picture) for picture in pictures])
        height, width = (self.scale * side for side in pictures.shape[-2:])
        grown = max(1.0, self.smallest / min(height, width))
        size = (round(width * grown), round(height * grown))
        large = resample(pictures, size) if size[0] != pictures.shape[-1] else pictures
        down, right = (-side % MULTIPLE for side in large.shape[-2:])
        return F.pad(large, (0, right, 0, down), mode="replicate")

    def give_back(self, results: Tensor, size: tuple[int, int]) -> Tensor:
        """`(B, 3, h, w)` of the network to `(B, 3, s H, s W)`.

        Args:
            results: what the network made of `enlarge`'s result.
            size: H and W of the input.
        """
        height, width = (self.scale * side for side in size)
        if self.tiling == "published":
            same = results.shape[-2:] == (height, width)
            return results if same else resample(results, (width, height))
        grown = max(1.0, self.smallest / min(height, width))
        large = results[..., : round(height * grown), : round(width * grown)]
        return large if grown == 1 else resample(large, (width, height))

    def _with_pillow(self, picture: Tensor) -> Tensor:
        pixels = (picture * 255).round().byte().permute(1, 2, 0).cpu().numpy()
        image = Image.fromarray(np.ascontiguousarray(pixels))
        least = self.smallest // self.scale
        if min(image.size) < least:
            grown = least / min(image.size)
            image = image.resize((int(grown * image.width), int(grown * image.height)))
        image = image.resize((image.width * self.scale, image.height * self.scale))
        size = (image.width - image.width % MULTIPLE, image.height - image.height % MULTIPLE)
        image = image.resize(size, Image.Resampling.LANCZOS)
        large = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
        return large.to(picture.device)
