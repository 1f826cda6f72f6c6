"""Networks and input for which the authors' code of DLoRAL was asked for its numbers."""

from __future__ import annotations

import math

import torch
from published import fill
from torch import Tensor, nn

FLOW_SIZES = ((64, 64), (67, 81), (33, 200), (1, 1))
"""Frames `(height, width)` that SPyNet is given; the first divides by 32."""
LATENT_SIZES = ((16, 16), (23, 31), (1, 1))
"""Latents that the retrieval is given."""
CHAIN = (64, 66)
"""Latents of the whole way, from two frames 8 times as large."""


def weighted(net: nn.Module, seed: int, *, gain: float = 1.0) -> nn.Module:
    """`net` with random parameters; its buffers stay."""
    with torch.no_grad():
        fill(dict(net.named_parameters()), seed, gain=gain)
    return net.eval()


def spynet(net: nn.Module) -> nn.Module:
    """SPyNet whose flows are of some pixels."""
    return weighted(net, 11, gain=1.1)


def retrieval(net: nn.Module) -> nn.Module:
    """A retrieval of whose pairs some are above the threshold."""
    return weighted(net, 12, gain=3.0)


def frames(height: int, width: int, *, shift: float = 0.0) -> Tensor:
    """Waves and noise, `(2, 3, height, width)` in [-1, 1], moved by `shift` pixels."""
    y = torch.arange(height, dtype=torch.float64)[:, None] + shift / 2
    x = torch.arange(width, dtype=torch.float64) - shift
    waves = [
        torch.sin(x * f / 9 + y * f / 14 + f) * torch.cos(y * f / 11 + math.sqrt(f))
        for f in range(1, 7)
    ]
    noise = torch.randn(6, height, width, generator=torch.Generator().manual_seed(3))
    return (0.7 * torch.stack(waves).float() + 0.1 * noise).clamp(-1, 1).view(2, 3, height, width)


def latents(height: int, width: int) -> tuple[Tensor, Tensor]:
    """Current and previous, `(2, 4, height, width)` each, not alike."""
    generator = torch.Generator().manual_seed(4)
    both = torch.randn(2, 2, 4, height, width, generator=generator)
    return both[0], 0.6 * both[0] + 0.8 * both[1]
