"""SPyNet: how one frame moved into another, from coarse to fine.

Ranjan and Black, "Optical Flow Estimation using a Spatial Pyramid Network", CVPR 2017, in the form
that BasicVSR and DLoRAL use: six levels, no batch norm. At each level the flow of the coarser one
is enlarged, the other frame is moved along it, and a small network adds what is still missing:

    reference ------------+
    supporting -> warp ---+-> five convolutions 7x7 -> + -> flow of this level
    flow, enlarged x2 ----+----------------------------+
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from restore.models.parts.dloral.warp import sample

LEVELS = 6
MULTIPLE = 2 ** (LEVELS - 1)
"""Frames are resized to a multiple of this, so that every level halves evenly."""
CHANNELS = (8, 32, 64, 32, 16, 2)
"""Before and after the convolutions of a level."""
SHRINK = 8
"""Frame pixels per latent element."""
_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)


class SPyNet(nn.Module):
    """The network, with the names of `spynet_20210409-c6c1bd09.pth`."""

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.basic_module = nn.ModuleList(Level() for _ in range(LEVELS))
        self.register_buffer("mean", torch.tensor(_MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(_STD).view(1, 3, 1, 1))

    def forward(self, reference: Tensor, supporting: Tensor) -> Tensor:
        """Where each pixel of `reference` is in `supporting`.

        The network knows RGB in [0, 1]; DLoRAL gives it [-1, 1] and was trained so. What is given
        is taken as it is: see `shrunk`.

        Args:
            reference: `(B, 3, h, w)`, any size.
            supporting: the other frame, likewise.

        Returns:
            `(B, 2, h, w)`: to the right and down, in pixels.
        """
        height, width = reference.shape[-2:]
        even = tuple(-(-side // MULTIPLE) * MULTIPLE for side in (height, width))
        pairs = zip(self._pyramid(reference, even), self._pyramid(supporting, even), strict=True)
        flow = reference.new_zeros(len(reference), 2, *(side // MULTIPLE for side in even))
        for level, (ref, other) in zip(self.basic_module, pairs, strict=True):
            if ref.shape[-2:] != flow.shape[-2:]:
                flow = 2 * F.interpolate(flow, ref.shape[-2:], mode="bilinear", align_corners=True)
            flow = level(ref, other, flow)
        flow = F.interpolate(flow, (height, width), mode="bilinear", align_corners=False)
        return flow * flow.new_tensor([width / even[1], height / even[0]]).view(1, 2, 1, 1)

    def _pyramid(self, frame: Tensor, size: tuple[int, ...]) -> list[Tensor]:
        """The frame, resized and normalised, at each level; the smallest first."""
        frame = F.interpolate(frame, size, mode="bilinear", align_corners=False)
        levels = [(frame - self.mean) / self.std]
        for _ in range(LEVELS - 1):
            levels.append(F.avg_pool2d(levels[-1], 2))
        return levels[::-1]


class Level(nn.Module):
    """One level of the pyramid."""

    def __init__(self) -> None:
        super().__init__()
        self.basic_module = nn.ModuleList(Convolution(a, b) for a, b in pairwise(CHANNELS))

    def forward(self, reference: Tensor, supporting: Tensor, flow: Tensor) -> Tensor:
        """The flow, refined; all `(B, n, h, w)` of one size."""
        x = torch.cat([reference, sample(supporting, flow, outside="border"), flow], 1)
        for layer in self.basic_module[:-1]:
            x = F.relu(layer(x))
        return flow + self.basic_module[-1](x)


class Convolution(nn.Module):
    """A convolution that the published files name `conv`."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(before, after, 7, padding=3)

    def forward(self, x: Tensor) -> Tensor:
        """As `nn.Conv2d`."""
        return self.conv(x)


def shrunk(frame: Tensor) -> Tensor:
    """A frame at the size of its latent, as SPyNet gets it in the published code.

    It is shrunk without a filter against aliasing, and SPyNet normalises it as if it were in
    [0, 1]; the weights were trained so. Each element depends on the pixels under it alone, so that
    a tile shrinks to what it is of the shrunk frame.

    Args:
        frame: `(B, 3, 8 h, 8 w)` in [-1, 1].

    Returns:
        `(B, 3, h, w)`.
    """
    return F.interpolate(frame, scale_factor=1 / SHRINK, mode="bicubic")
