"""Random draws; every one takes the generator, so that a seed repeats a picture exactly."""

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
    index = torch.multinomial(
        torch.tensor(weights, dtype=torch.float32, device=generator.device),
        1,
        generator=generator,
    )
    return choices[int(index)]
