"""Random draws; every one takes the generator, so that a seed repeats a picture exactly.

Numbers are drawn on the generator's device. A generator of the CPU may so be used for pictures on
a GPU, and gives the same numbers there.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def uniform(count: int, low: float, high: float, *, generator: torch.Generator) -> Tensor:
    """`(count,)` numbers in [low, high), drawn on the generator's device."""
    return low + (high - low) * torch.rand(count, generator=generator, device=generator.device)


def number(low: float, high: float, *, generator: torch.Generator) -> float:
    """One number in [low, high)."""
    return float(uniform(1, low, high, generator=generator))


def chance(probability: float, *, generator: torch.Generator) -> bool:
    """True with the given probability; one number is drawn whatever it is."""
    return number(0, 1, generator=generator) < probability


def pick(choices: Sequence[str], weights: Sequence[float], *, generator: torch.Generator) -> str:
    """One of `choices`, drawn in proportion to `weights`."""
    return choices[int(pick_each(1, weights, generator=generator))]


def pick_each(count: int, weights: Sequence[float], *, generator: torch.Generator) -> Tensor:
    """`(count,)` numbers of choices, each drawn in proportion to `weights`."""
    shares = torch.tensor(weights, dtype=torch.float32, device=generator.device)
    return torch.multinomial(shares, count, replacement=True, generator=generator)


def shuffled(count: int, *, generator: torch.Generator) -> list[int]:
    """The numbers from 0 to `count` - 1 in a random order."""
    order = torch.randperm(count, generator=generator, device=generator.device)
    return [int(place) for place in order]


def normal(like: Tensor, *, generator: torch.Generator, channels: int | None = None) -> Tensor:
    """Standard normal numbers `(B, C, H, W)` of the shape, device and type of `like`.

    Args:
        like: pictures `(B, C, H, W)`.
        generator: source of the numbers.
        channels: C of the result; None = that of `like`.
    """
    batch, own, height, width = like.shape
    shape = (batch, own if channels is None else channels, height, width)
    return torch.randn(shape, generator=generator, device=generator.device).to(like)


def wander(
    start: Tensor,
    frames: int,
    *,
    step: float,
    low: float,
    high: float,
    generator: torch.Generator,
    first: bool = True,
) -> Tensor:
    """A random walk of each number through the frames of a clip.

    Args:
        start: where it begins, `(B,)`.
        frames: length T.
        step: largest change from one frame to the next; 0 = none, and nothing is drawn.
        low, high: ends of the room that it stays in.
        generator: source of the changes.
        first: the first frame has the value `start`; False = it is one step away, as `start`
            belongs to the frame before.

    Returns:
        `(B, T)`.
    """
    if step == 0:
        return start[:, None].expand(-1, frames)
    moves = uniform(len(start) * frames, -step, step, generator=generator).to(start)
    moves = moves.view(len(start), frames)
    if first:
        moves[:, 0] = 0
    now, values = start, []
    for move in moves.unbind(1):
        now = (now + move).clamp(low, high)
        values.append(now)
    return torch.stack(values, dim=1)
