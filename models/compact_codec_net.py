"""The two networks of `compact-codec`, and the gains between them.

       +------------------------- one matrix for squares of 16 -----------------+
       |                                                                        v
    picture -> [shuffle /4, conv] -> blocks -> /2 -> blocks -> /2 -> blocks -> (+) -> y
                                                                                      | x gain
                                                                                    round
                                                                                      | / gain
    picture <- [shuffle x4, conv] <- blocks <- x2 <- blocks <- x2 <- blocks <---------+
       ^                                                                        |
       +------------------------- one matrix for squares of 16 -----------------+

The matrices begin as a cosine transform and its inverse, so that training starts from what JPEG
does and the networks learn the rest.

A scalar quantiser whose steps differ by channel and by rate: the gains of Cui et al., "Asymmetric
Gained Deep Image Compression With Continuous Rate Adaptation", CVPR 2021, section 3.2. One pair of
networks serves all rates. What is smooth costs next to nothing once the integers are entropy coded
(`compact_codec_context.py`), which a vector quantiser with indices of fixed length cannot do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from restore.errors import OptionError

STRIDE = 16
"""Pixels per latent along each side."""
REACH = 63
"""Quantised latents are integers from -REACH to REACH."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CodecConfig:
    """Shape of the networks; written into the weight file, so that a file builds its own."""

    rates: int = 8
    """Rates that the networks serve."""
    latent: int = 96
    """Channels of the latents, a multiple of 6."""
    outer: int = 64
    """Channels at a quarter of the picture's size."""
    middle: int = 128
    """Channels at an eighth."""
    deep: int = 160
    """Channels at a sixteenth."""
    down: int = 2
    """Blocks of the encoder at an eighth and at a sixteenth each; one is at a quarter."""
    up: int = 3
    """Blocks of the decoder likewise; two are at a quarter."""
    hidden: int = 48
    """Hidden values of the context model."""

    def __post_init__(self) -> None:
        limits = {"rates": (1, 64), "latent": (6, 384), "outer": (1, 512), "middle": (1, 512)}
        limits |= {"deep": (1, 1024), "down": (0, 16), "up": (0, 16), "hidden": (1, 64)}
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise OptionError(f"network.{name} is {value}; give {low} to {high}")
        if self.latent % 6:
            raise OptionError(f"network.latent is {self.latent}; give a multiple of 6")


class Bounded(torch.autograd.Function):
    """Values held to a range. Beyond it only a gradient that leads back passes: one that leads away
    would find that nothing gets better, and lead on for ever."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, low: float, high: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.low, ctx.high = low, high
        return x.clamp(low, high)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (x,) = ctx.saved_tensors
        (grad,) = grads
        passed = ((x >= ctx.low) | (grad < 0)) & ((x <= ctx.high) | (grad > 0))
        return grad * passed, None, None


class Block(nn.Module):
    """x + conv1x1(relu(conv3x3(x))); nothing is normalised."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.wide = nn.Conv2d(width, width, 3, padding=1)
        self.mix = nn.Conv2d(width, width, 1)
        with torch.no_grad():  # each block begins as nearly nothing
            self.mix.weight *= 0.2

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C, H, W)` to the same."""
        result: Tensor = x + self.mix(F.relu(self.wide(x)))
        return result


class Stage(nn.Module):
    """Blocks at one size, after a scale and a shift of every channel that the rate chooses."""

    def __init__(self, width: int, blocks: int, rates: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(rates, width))
        self.shift = nn.Parameter(torch.zeros(rates, width))
        self.blocks = nn.Sequential(*(Block(width) for _ in range(blocks)))

    def forward(self, x: Tensor, rate: Tensor) -> Tensor:
        """`(B, C, H, W)` and the rate of each picture `(B,)`."""
        scale, shift = (p[rate, :, None, None].to(x.dtype) for p in (self.scale, self.shift))
        result: Tensor = self.blocks(x * (1 + scale) + shift)
        return result


class CodecNet(nn.Module):
    """Encoder, quantiser and decoder."""

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        widths = (config.outer, config.middle, config.deep)
        rates, latent = config.rates, config.latent
        self.analysis = nn.ModuleDict(
            {
                "head": nn.Conv2d(48, widths[0], 3, padding=1),
                "stage4": Stage(widths[0], min(1, config.down), rates),
                "down8": nn.Conv2d(4 * widths[0], widths[1], 1),
                "stage8": Stage(widths[1], config.down, rates),
                "down16": nn.Conv2d(4 * widths[1], widths[2], 1),
                "stage16": Stage(widths[2], config.down, rates),
                "tail": nn.Conv2d(widths[2], latent, 1),
                "plain": nn.Conv2d(3 * STRIDE**2, latent, 1, bias=False),
            }
        )
        self.synthesis = nn.ModuleDict(
            {
                "head": nn.Conv2d(latent, widths[2], 3, padding=1),
                "stage16": Stage(widths[2], config.up, rates),
                "up8": nn.Conv2d(widths[2], 4 * widths[1], 1),
                "stage8": Stage(widths[1], config.up, rates),
                "up4": nn.Conv2d(widths[1], 4 * widths[0], 1),
                "stage4": Stage(widths[0], min(2, config.up), rates),
                "tail": nn.Conv2d(widths[0], 48, 3, padding=1),
                "plain": nn.Conv2d(latent, 3 * STRIDE**2, 1, bias=False),
            }
        )
        self._begin_as_cosines()
        # The step of the best quantiser falls with the root of the distortion's weight.
        ladder = torch.linspace(0.2, 2.2, rates) if rates > 1 else torch.ones(1)
        self.gain = nn.Parameter(ladder[:, None].repeat(1, latent))  # natural logarithms
        self.ungain = nn.Parameter(-ladder[:, None].repeat(1, latent))

    @torch.no_grad()
    def _begin_as_cosines(self) -> None:
        matrix = cosines(len(self.analysis["tail"].bias))  # type: ignore[arg-type]
        size = torch.ones(len(matrix), 1)
        size[0] = 3.0  # the mean of a square reaches far, and would leave the range of integers
        self.analysis["plain"].weight.copy_((matrix / size)[..., None, None])  # type: ignore[operator]
        self.synthesis["plain"].weight.copy_((matrix * size).T[..., None, None])  # type: ignore[operator]
        for part in (self.analysis, self.synthesis):
            part["tail"].weight.mul_(0.1)  # type: ignore[operator]

    def _dtype(self) -> torch.dtype:
        return next(self.analysis.parameters()).dtype

    def analyse(self, pixels: Tensor, rate: Tensor) -> Tensor:
        """Latents in steps of the quantiser, not rounded.

        Args:
            pixels: RGB `(B, 3, H, W)` in [0, 1], H and W multiples of `STRIDE`.
            rate: `(B,)`, whole numbers.

        Returns:
            `(B, latent, H / 16, W / 16)`, float32.
        """
        net = self.analysis
        centred = (pixels - 0.5).to(self._dtype())
        x = net["head"](F.pixel_unshuffle(centred, 4))
        x = net["stage4"](x, rate)
        x = net["stage8"](net["down8"](F.pixel_unshuffle(x, 2)), rate)
        x = net["stage16"](net["down16"](F.pixel_unshuffle(x, 2)), rate)
        y = net["tail"](x).float() + net["plain"](F.pixel_unshuffle(centred, STRIDE)).float()
        return y * self.gain[rate].float().exp()[:, :, None, None]

    def synthesise(self, quantised: Tensor, rate: Tensor) -> Tensor:
        """Pixels out of quantised latents.

        Args:
            quantised: whole numbers `(B, latent, h, w)`.
            rate: `(B,)`.

        Returns:
            RGB `(B, 3, 16 h, 16 w)` in about [0, 1].
        """
        net = self.synthesis
        y = quantised.float() * self.ungain[rate].float().exp()[:, :, None, None]
        y = y.to(self._dtype())
        x = net["stage16"](net["head"](y), rate)
        x = net["stage8"](F.pixel_shuffle(net["up8"](x), 2), rate)
        x = net["stage4"](F.pixel_shuffle(net["up4"](x), 2), rate)
        plain = F.pixel_shuffle(net["plain"](y), STRIDE)
        return F.pixel_shuffle(net["tail"](x), 4).float() + plain.float() + 0.5


def held(y: Tensor) -> Tensor:
    """Latents within the range of the integers."""
    result: Tensor = Bounded.apply(y, -float(REACH), float(REACH))
    return result


def rounded(y: Tensor) -> Tensor:
    """The nearest quantised latents; gradients pass as if nothing had been rounded."""
    y = held(y)
    return y + (y.detach().round() - y.detach())


def cosines(count: int) -> Tensor:
    """The first functions of the two-dimensional cosine transform of a square, over three colours.

    Coarse ones come first, and those of the luma before those of the two colour differences.

    Returns:
        `(count, 3 * STRIDE^2)`, orthonormal rows; columns by colour, row and column.
    """
    place = (torch.arange(STRIDE) + 0.5) * math.pi / STRIDE
    waves = torch.cos(torch.arange(STRIDE)[:, None] * place) * math.sqrt(2 / STRIDE)
    waves[0] /= math.sqrt(2)
    colours = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, -1.0], [1.0, -2.0, 1.0]])
    colours = colours / colours.norm(dim=1, keepdim=True)
    ranked = sorted(
        ((u * u + v * v) * (1 if c == 0 else 6) + c, c, u, v)
        for c in range(3)
        for u in range(STRIDE)
        for v in range(STRIDE)
    )
    rows = [torch.einsum("c,y,x->cyx", colours[c], waves[u], waves[v]) for _, c, u, v in ranked]
    return torch.stack(rows[:count]).flatten(1)
