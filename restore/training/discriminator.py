"""The U-Net discriminator with spectral norm, and the losses that it plays with.

Real-ESRGAN (Wang et al., ICCVW 2021, section 3.3): a verdict for every pixel, from features of
four sizes; spectral norm (Miyato et al., ICLR 2018) keeps its slope bounded.

    x -> c0 ----------------------------------(+)-> c -> c -> verdicts
          \\-> /2 -------------------(+)-> x2 --/
                \\-> /2 -------(+)-> x2 --/
                      \\-> /2 -> x2 --/
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

AdversarialKind = Literal["bce", "relativistic"]


def _conv(before: int, after: int, *, size: int = 3, stride: int = 1) -> nn.Module:
    conv = nn.Conv2d(before, after, size, stride=stride, padding=1, bias=False)
    return spectral_norm(conv)


class UNetDiscriminator(nn.Module):
    """`(B, 3, H, W)` to verdicts `(B, 1, H, W)` before the sigmoid; H and W multiples of 8."""

    def __init__(self, width: int) -> None:
        super().__init__()
        widths = [width, 2 * width, 4 * width, 8 * width]
        self.head = nn.Conv2d(3, width, 3, padding=1)
        self.down = nn.ModuleList(_conv(a, b, size=4, stride=2) for a, b in pairwise(widths))
        self.up = nn.ModuleList(
            _conv(b, a) for a, b in zip(widths[2::-1], widths[:0:-1], strict=True)
        )
        self.tail = nn.Sequential(
            _conv(width, width),
            nn.LeakyReLU(0.2),
            _conv(width, width),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, 1, 3, padding=1),
        )

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Verdicts, and the features on the way down, the largest first."""
        features = [F.leaky_relu(self.head(x), 0.2)]
        for conv in self.down:
            features.append(F.leaky_relu(conv(features[-1]), 0.2))
        x = features[-1]
        for conv, skip in zip(self.up, features[-2::-1], strict=True):
            x = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
            x = F.leaky_relu(conv(x), 0.2) + skip
        return self.tail(x), features


def _bce(verdicts: Tensor, *, real: bool) -> Tensor:
    return F.softplus(-verdicts if real else verdicts).mean()


def generator_loss(fake: Tensor, real: Tensor, *, kind: AdversarialKind) -> Tensor:
    """What a generator pays for verdicts on its results and on real pictures.

    bce: -log D(fake), the non-saturating loss (Goodfellow et al., 2014). relativistic: it must
    look more real than the real ones on average, and they less (Jolicoeur-Martineau, ICLR 2019).
    """
    if kind == "bce":
        return _bce(fake, real=True)
    return (_bce(fake - real.mean(), real=True) + _bce(real - fake.mean(), real=False)) / 2


def discriminator_loss(fake: Tensor, real: Tensor, *, kind: AdversarialKind) -> Tensor:
    """What a discriminator pays for the same verdicts."""
    if kind == "bce":
        return (_bce(real, real=True) + _bce(fake, real=False)) / 2
    return (_bce(real - fake.mean(), real=True) + _bce(fake - real.mean(), real=False)) / 2


def feature_distance(first: list[Tensor], second: list[Tensor]) -> Tensor:
    """Mean absolute distance of two lists of features, as of one picture and another."""
    distances = [F.l1_loss(a.float(), b.float()) for a, b in zip(first, second, strict=True)]
    return torch.stack(distances).mean()
