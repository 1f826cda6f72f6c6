"""Noise for a stream of any length: each latent's is drawn by itself.

The published code draws the noise of a whole clip at once, so it has to know the length, and where
a clip is cut decides what every later frame looks like. Here the seed and the number of a latent
say what its noise is.
"""

from __future__ import annotations

import torch
from torch import Tensor

_WORD = (1 << 64) - 1


def latent_noise(
    seed: int, first: int, count: int, shape: tuple[int, int, int], device: torch.device
) -> Tensor:
    """Standard normal noise `(1, C, count, h, w)`, float32.

    Args:
        seed: of the stream.
        first: number of the first latent.
        count: of latents.
        shape: C, h and w.
        device: where it is drawn; another kind of device draws other numbers.
    """
    generator = torch.Generator(device)
    draws = [
        torch.randn(shape, generator=generator.manual_seed(_mixed(seed, number)), device=device)
        for number in range(first, first + count)
    ]
    return torch.stack(draws, 1)[None]


def _mixed(seed: int, number: int) -> int:
    """A seed for one latent, spread over all bits: PyTorch's on a CPU uses only the lower 32.

    SplitMix64 (Steele, Lea and Flood, OOPSLA 2014), started from the seed and stepped `number`
    times.
    """
    x = (seed * 0xD1342543DE82EF95 + (number + 1) * 0x9E3779B97F4A7C15) & _WORD
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _WORD
    return (x ^ (x >> 31)) & (_WORD >> 1)
