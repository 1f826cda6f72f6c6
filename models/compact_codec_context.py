"""How likely each quantised latent of `compact-codec` is, given those that came before.

The latents are coded in passes: groups of channels (1/6, 1/6, 1/3, 1/3 of them), and for each group
three phases of the places (the usual interleaved order, coarse to fine):

    0 2 0 2      0: every second row and column; it sees the groups before alone
    2 1 2 1      1: the places amid four of phase 0
    0 2 0 2      2: the rest, which sees four neighbours

For each latent a scale and a mean come out of what is known within one place around it:

    scale = 8 (w2 relu(w1 |known| + b1[rate]) + b2[rate])      mean = v known + c[rate]

(|known|: magnitudes in all groups so far; known: values in its own group), and these choose the
table it is coded with: a logistic distribution (as the mixtures of Salimans et al., "PixelCNN++",
ICLR 2017, section 2.1) of one of `SCALES` scales, with its mean at an eighth of a step.

`ContextNet` is what is trained. `IntegerContext` is the same in whole numbers, for files: its sums
are exact in int32 whatever the machine, the threads or the order (Balle et al., "Integer Networks
for Data Compression with Latent-Variable Models", ICLR 2019, with one hidden layer).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from restore.models.compact_codec_net import REACH, Bounded, CodecConfig

SCALES = 48
"""Scales of the distributions."""
FIRST_SCALE = 0.04
"""The smallest of them, in steps of the quantiser."""
SCALE_RATIO = math.exp(0.125)
"""Each over the one before."""
EIGHTHS = 8
"""Places of a mean between two whole numbers."""
SEEN = 15
"""Larger values in the context count as this."""
HIDDEN_LIMIT = 63.9
"""Larger hidden values count as this."""
PHASES = 3


@dataclass(frozen=True, slots=True)
class Pass:
    """What is coded at one time."""

    number: int
    """From 0."""
    phase: int
    """Which places."""
    first: int
    """First channel."""
    last: int
    """Channel after the last one."""

    @property
    def known(self) -> int:
        """Channels of the context, its own group included unless nothing of it is known yet."""
        return self.last if self.phase else self.first


def passes(latent: int) -> tuple[Pass, ...]:
    """All passes, in order."""
    edges = [0, latent // 6, latent // 3, latent * 2 // 3, latent]
    return tuple(
        Pass(group * PHASES + phase, phase, first, last)
        for group, (first, last) in enumerate(pairwise(edges))
        for phase in range(PHASES)
    )


def phase_map(height: int, width: int) -> Tensor:
    """The phase of each place, `(height, width)`."""
    odd_row = torch.arange(height)[:, None] % 2
    odd_column = torch.arange(width)[None] % 2
    return torch.where(odd_row == odd_column, odd_row, 2)


class ContextNet(nn.Module):
    """The context model in floating point, all passes at once, for training."""

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        self.passes = passes(config.latent)
        hidden, rates = config.hidden, config.rates
        self.typical: Tensor
        self.register_buffer("typical", torch.zeros(rates))  # bits per pixel, see `count`
        self.w1, self.w2 = nn.ParameterList(), nn.ParameterList()
        self.b1, self.b2 = nn.ParameterList(), nn.ParameterList()
        self.v, self.c = nn.ParameterList(), nn.ParameterList()
        for one in self.passes:
            own = one.last - one.first
            spread = 1 / math.sqrt(9 * max(1, one.known))
            self.w1.append(nn.Parameter(torch.randn(hidden, one.known, 3, 3) * spread))
            self.w2.append(nn.Parameter(torch.randn(own, hidden, 1, 1) * 0.1 / math.sqrt(hidden)))
            self.b1.append(nn.Parameter(torch.zeros(rates, hidden)))
            self.b2.append(nn.Parameter(torch.full((rates, own), 2.0)))  # a scale of 0.3
            self.v.append(nn.Parameter(torch.zeros(own, own if one.phase else 0, 3, 3)))
            self.c.append(nn.Parameter(torch.zeros(rates, own)))

    def forward(self, quantised: Tensor, rate: Tensor) -> tuple[Tensor, Tensor]:
        """Numbers of the scales, not rounded, and means of all latents.

        Args:
            quantised: whole numbers `(B, latent, h, w)`.
            rate: `(B,)`.

        Returns:
            Both `(B, latent, h, w)`.
        """
        phases = phase_map(*quantised.shape[-2:]).to(quantised.device)
        seen = quantised.clamp(-SEEN, SEEN)
        scales: list[Any] = []
        means: list[Any] = []
        for first in range(0, len(self.passes), PHASES):
            found = [
                self._one(one, seen, phases, rate) for one in self.passes[first : first + PHASES]
            ]
            here = [(phases == phase).to(quantised.dtype) for phase in range(PHASES)]
            scales.append(sum(scale * m for (scale, _), m in zip(found, here, strict=True)))
            means.append(sum(mean * m for (_, mean), m in zip(found, here, strict=True)))
        index: Tensor = Bounded.apply(torch.cat(scales, 1), 0.0, SCALES - 1.0)
        return index, torch.cat(means, 1).clamp(-REACH, REACH)

    @torch.no_grad()
    def count(self, bpp: Tensor, rate: Tensor) -> None:
        """Move the typical bits per pixel of each rate towards those of a batch, `(B,)`."""
        for number in sorted(set(rate.tolist())):
            found = bpp[rate == number].mean()
            before = self.typical[number]
            self.typical[number] = torch.where(before == 0, found, torch.lerp(before, found, 0.005))

    def _one(self, one: Pass, seen: Tensor, phases: Tensor, rate: Tensor) -> tuple[Tensor, Tensor]:
        i = one.number
        own = seen[:, one.first : one.last] * (phases < one.phase)
        known = torch.cat([seen[:, : one.first], own], 1)[:, : one.known]
        hidden = self.b1[i][rate, :, None, None]
        if one.known:
            hidden = hidden + F.conv2d(known.abs(), self.w1[i], padding=1)
        hidden = hidden.clamp(0, HIDDEN_LIMIT)
        scale = 8 * (F.conv2d(hidden, self.w2[i]) + self.b2[i][rate, :, None, None])
        mean = self.c[i][rate, :, None, None]
        if one.phase:
            mean = mean + F.conv2d(own, self.v[i], padding=1)
        return scale, mean


def bits(value: Tensor, index: Tensor, mean: Tensor) -> Tensor:
    """Cost of each latent in bits.

    Args:
        value: latents, whole numbers or, as Balle et al. (ICLR 2017, section 3) train, with noise
            in their place.
        index: numbers of the scales, of any shape that fits.
        mean: means.
    """
    scale = FIRST_SCALE * torch.exp(index * math.log(SCALE_RATIO))
    distance = (value - mean).abs()
    chance = torch.sigmoid((0.5 - distance) / scale) - torch.sigmoid((-0.5 - distance) / scale)
    return -chance.clamp_min(1e-9).log2()
