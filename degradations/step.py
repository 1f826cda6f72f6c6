"""What all kinds of degradation have in common: what is drawn, how it drifts, what is told.

A kind is a frozen dataclass: its fields are the ranges, its methods draw from them and apply what
was drawn. Drawing and applying are apart, so that a clip is drawn once and applied frame by frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from restore.errors import OptionError

Draws = dict[str, Tensor]
"""Drawn numbers by name: `(B,)` for a batch, `(B T,)` for the frames of its clips."""


class Drift(NamedTuple):
    """How a number moves from frame to frame of a clip."""

    step: float
    """Largest change; 0 = it stays."""
    low: float
    """Lower end of its room."""
    high: float
    """Upper end of it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scene:
    """What a step has to know beside the pictures."""

    good: tuple[int, int]
    """Height and width of the good pictures."""
    bad: tuple[int, int]
    """Height and width that the recipe brings them to."""
    frames: int = 1
    """Frames of each clip in a batch; consecutive pictures of a batch belong together."""
    is_clip: bool = False
    """The pictures are frames of a clip."""


class Kind(Protocol):
    """One kind of degradation with its ranges."""

    @property
    def prob(self) -> float:
        """Probability that it happens."""
        ...

    @property
    def shared(self) -> bool:
        """One draw holds for the whole batch, as its size changes."""
        ...

    def draw(self, count: int, generator: torch.Generator) -> Draws:
        """Draw for `count` pictures or clips."""
        ...

    def drifts(self) -> dict[str, Drift]:
        """Which of the draws move through a clip."""
        ...

    def apply(
        self, pictures: Tensor, draws: Draws, generator: torch.Generator, scene: Scene
    ) -> Tensor:
        """Degrade RGB `(N, 3, H, W)` with draws `(N,)`; noise itself comes from the generator."""
        ...

    def told(self, draws: dict[str, Any]) -> dict[str, Any]:
        """What a record says of one picture, as plain values."""
        ...


def check_range(
    what: str, ends: tuple[float, float], *, low: float = 0.0, high: float = float("inf")
) -> None:
    """Raise OptionError unless low <= ends[0] <= ends[1] <= high."""
    if not low <= ends[0] <= ends[1] <= high:
        room = f"{low:g} or more" if high == float("inf") else f"{low:g} to {high:g}"
        raise OptionError(
            f"{what} {list(ends)} is not possible; give two numbers, the smaller first, of {room}"
        )


def check_prob(what: str, value: float) -> None:
    """Raise OptionError unless `value` is a probability."""
    if not 0 <= value <= 1:
        raise OptionError(f"{what} {value:g} is not possible; give 0 to 1")


def check_kinds(
    what: str, kinds: Sequence[str], weights: Sequence[float], allowed: Sequence[str]
) -> None:
    """Raise OptionError unless there is one weight for each kind, and each kind is known."""
    for kind in kinds:
        if kind not in allowed:
            raise OptionError(f"{what} kind '{kind}' is unknown; allowed: {', '.join(allowed)}")
    if len(kinds) != len(weights) or not kinds:
        raise OptionError(
            f"{what} has {len(kinds)} kinds and {len(weights)} weights; give one weight for each"
        )
    if min(weights) < 0 or sum(weights) <= 0:
        raise OptionError(f"{what} weights {list(weights)} are not possible; give 0 or more")


def rows_of(draws: Draws, rows: Tensor) -> Draws:
    """The draws of some pictures; `rows` are their numbers."""
    return {name: values[rows] for name, values in draws.items()}
