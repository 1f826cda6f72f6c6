"""The hyper-encoder of one rate: latents to a grid of indices, and back to latents.

    z (4, h, w) -> backbone -> (M, h / 2^n, w / 2^n) -> quantiser -> indices
    indices -> quantiser -> (M, h / 2^n, w / 2^n) -> projection -> z^ (4, h, w)

n = 0 to 3 is the number of halvings: n of the three places where the channels change have a
convolution of 5x5 with stride 2, the last of them first; the others have one of 1x1. Networks and
names are those of the authors' code since 2025-10-19, after PerCo (Careil et al., ICLR 2024,
section 3.2), with the attention of Cheng et al. (CVPR 2020), which is made of convolutions.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import torch
from torch import Tensor, nn

from restore.models.parts.oscar.quantizer import CosineQuantizer
from restore.models.parts.oscar.rates import RatePoint

LATENT_CHANNELS = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class HyperConfig:
    """Widths that all rates share."""

    inner: int = 192
    """N: channels of the backbone."""
    outer: int = 320
    """M: channels of what is quantised, and of the projection."""
    code: int = 32
    """Numbers of an entry of the code book."""


class Bottleneck(nn.Module):
    """x + f(x), f being 1x1 to half the channels, 3x3, 1x1 back."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = _bottleneck(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Same shape."""
        result: Tensor = x + self.layers(x)
        return result


class _Unit(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = _bottleneck(channels)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.conv(x) + x)


class Attention(nn.Module):
    """x + a(x) sigmoid(b(x)), a and b being convolutions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv_a = nn.Sequential(*(_Unit(channels) for _ in range(3)))
        units = (_Unit(channels) for _ in range(3))
        self.conv_b = nn.Sequential(*units, nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Same shape."""
        result: Tensor = self.conv_a(x) * torch.sigmoid(self.conv_b(x)) + x
        return result


class HyperEncoder(nn.Module):
    """The networks of one rate."""

    def __init__(self, config: HyperConfig, rate: RatePoint) -> None:
        super().__init__()
        n, m = config.inner, config.outer
        halve = [rate.halvings > 2, rate.halvings > 1, rate.halvings > 0]
        self.backbone = nn.Sequential(
            _down(LATENT_CHANNELS, n, halve=halve[0]),
            *(Bottleneck(n) for _ in range(3)),
            _down(n, n, halve=halve[1]),
            *(Bottleneck(n) for _ in range(3)),
            Attention(n),
            _down(n, n, halve=halve[2]),
            *(Bottleneck(n) for _ in range(3)),
            nn.Conv2d(n, m, 1),
            Attention(m),
        )
        self.proj = nn.Sequential(
            _up(m, double=halve[0]),
            *(Bottleneck(m) for _ in range(3)),
            _up(m, double=halve[1]),
            *(Bottleneck(m) for _ in range(3)),
            _up(m, double=halve[2]),
            *(Bottleneck(m) for _ in range(3)),
            nn.Conv2d(m, LATENT_CHANNELS, 1),
        )
        self.quantizer = CosineQuantizer(m, config.code, rate.codebook)
        self.factor = 2**rate.halvings

    def forward(self, z: Tensor) -> Tensor:
        """z^ `(B, 4, h, w)` of z, with a gradient; h and w multiples of `factor`."""
        decoded: Tensor = self.proj(self.quantizer(self.backbone(z)))
        return decoded

    def encode(self, z: Tensor, *, tile: int) -> Tensor:
        """Indices `(B, h / factor, w / factor)` of latents `(B, 4, h, w)`.

        Larger latents than `tile` are taken in tiles whose borders are as wide as the convolutions
        reach, so that the result is that of the whole.
        """
        border = reach(self.backbone)
        return self.quantizer.encode(
            run_exactly(self.backbone, z, tile=tile, border=border, multiple=self.factor)
        )

    def decode(self, indices: Tensor, *, tile: int) -> Tensor:
        """z^ `(B, 4, h, w)` of such indices; `tile` counts places of z^, as in `encode`."""
        features = self.quantizer.decode(indices)
        side = max(1, tile // self.factor)
        return run_exactly(self.proj, features, tile=side, border=reach(self.proj), multiple=1)


def reach(network: nn.Sequential) -> int:
    """How many places of its input beside a place change what the network makes of it."""
    far, step = 0.0, 1.0  # step: places of the input per place of the features
    for layer in network:
        if isinstance(layer, nn.ConvTranspose2d):
            far += step
            step /= 2
        elif isinstance(layer, nn.Conv2d):
            far += step * (layer.kernel_size[0] // 2)
            step *= layer.stride[0]
        else:
            far += step * (3 if isinstance(layer, Attention) else 1)
    return ceil(far)


def run_exactly(
    network: nn.Sequential, x: Tensor, *, tile: int, border: int, multiple: int
) -> Tensor:
    """`network(x)`, made of tiles where `x` is larger than one.

    Args:
        network: convolutions with zeros around the picture.
        x: `(B, C, h, w)`.
        tile: side of a tile without its border.
        border: what `reach` says of the network.
        multiple: places of `x` that become one; tiles begin at a multiple of it.
    """
    height, width = x.shape[-2:]
    if max(height, width) <= tile:
        return _call(network, x)
    side, around = (-(-n // multiple) * multiple for n in (tile, border))
    rows = []
    for top in range(0, height, side):
        row = []
        for left in range(0, width, side):
            first = (max(0, top - around), max(0, left - around))
            window = x[..., first[0] : top + side + around, first[1] : left + side + around]
            done = _call(network, window)
            scale = done.shape[-1] / window.shape[-1]
            y, above = round((top - first[0]) * scale), round(min(side, height - top) * scale)
            z, beside = round((left - first[1]) * scale), round(min(side, width - left) * scale)
            row.append(done[..., y : y + above, z : z + beside])
        rows.append(torch.cat(row, dim=-1))
    return torch.cat(rows, dim=-2)


def _call(network: nn.Sequential, x: Tensor) -> Tensor:
    result: Tensor = network(x)
    return result


def _bottleneck(channels: int) -> nn.Sequential:
    half = channels // 2
    return nn.Sequential(
        nn.Conv2d(channels, half, 1),
        nn.ReLU(inplace=True),
        nn.Conv2d(half, half, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(half, channels, 1),
    )


def _down(before: int, after: int, *, halve: bool) -> nn.Module:
    return nn.Conv2d(before, after, 5 if halve else 1, 2 if halve else 1, 2 if halve else 0)


def _up(channels: int, *, double: bool) -> nn.Module:
    if not double:
        return nn.Conv2d(channels, channels, 1)
    return nn.ConvTranspose2d(channels, channels, 5, 2, 2, output_padding=1)
