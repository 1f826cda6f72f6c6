"""The order of a degradation: steps with names, choices between branches, shuffled steps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import cast

import torch

from restore.degradations.blur import Blur, Sharpen
from restore.degradations.camera import Camera
from restore.degradations.codec import Codec
from restore.degradations.compression import Jpeg, WebP
from restore.degradations.draw import pick_each, shuffled
from restore.degradations.noise import Noise
from restore.degradations.resize import Decimate, Resize
from restore.degradations.step import Kind
from restore.errors import OptionError


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One step of a recipe: a name, and exactly one of the kinds.

    One field for each kind, so that a recipe reads in YAML as `- blur: {sigma: [0.2, 3]}`.
    """

    name: str = ""
    """What records and changes call it; empty = the kind."""
    blur: Blur | None = None
    """A random kernel."""
    sharpen: Sharpen | None = None
    """Unsharp mask."""
    resize: Resize | None = None
    """Resampling."""
    decimate: Decimate | None = None
    """Gaussian and every n-th pixel."""
    noise: Noise | None = None
    """Gaussian, photon or correlated noise."""
    camera: Camera | None = None
    """Noise before demosaicing."""
    jpeg: Jpeg | None = None
    """JPEG."""
    webp: WebP | None = None
    """WebP."""
    codec: Codec | None = None
    """Video compression."""
    either: Either | None = None
    """One of several branches."""
    shuffle: Shuffle | None = None
    """Steps in a random order."""

    def __post_init__(self) -> None:
        given = [kind for kind in KINDS if getattr(self, kind) is not None]
        if len(given) != 1:
            got = " and ".join(given) or "nothing"
            raise OptionError(f"a step holds {got}; give exactly one of {', '.join(KINDS)}")

    @property
    def what(self) -> str:
        """The kind: the name of the field that is set."""
        return next(kind for kind in KINDS if getattr(self, kind) is not None)

    @property
    def label(self) -> str:
        """The name, or the kind where there is none."""
        return self.name or self.what


KINDS: tuple[str, ...] = tuple(f.name for f in fields(Step) if f.name != "name")
"""What a step can be."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Branch:
    """Steps that are taken together, or not at all."""

    weight: float = 1.0
    """How often, relative to the other branches."""
    steps: tuple[Step, ...] = ()
    """The steps in order; none = nothing happens."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Either:
    """One of several branches, the same one for the whole batch."""

    branches: tuple[Branch, ...]
    """To draw from."""

    def __post_init__(self) -> None:
        weights = [branch.weight for branch in self.branches]
        if not weights or min(weights) < 0 or sum(weights) <= 0:
            raise OptionError(f"branch weights {weights} are not possible; give 0 or more")


@dataclass(frozen=True, kw_only=True, slots=True)
class Shuffle:
    """Steps in an order that is drawn for the whole batch."""

    steps: tuple[Step, ...]
    """The steps."""
    in_order: tuple[str, ...] = ()
    """Names of those among them that stay in this order, wherever they come to stand."""

    def __post_init__(self) -> None:
        labels = [step.label for step in self.steps]
        for name in self.in_order:
            if name not in labels:
                raise OptionError(f"no step '{name}' to keep in order; there are {labels}")


def all_steps(steps: Sequence[Step]) -> Iterator[Step]:
    """Every step, those inside choices and shuffles too."""
    for step in steps:
        yield step
        if step.either is not None:
            for branch in step.either.branches:
                yield from all_steps(branch.steps)
        if step.shuffle is not None:
            yield from all_steps(step.shuffle.steps)


def drawn_order(steps: Sequence[Step], generator: torch.Generator) -> list[tuple[str, Kind]]:
    """Names and kinds in the order in which they are done, after all choices."""
    found: list[tuple[str, Kind]] = []
    for step in steps:
        if step.either is not None:
            branches = step.either.branches
            weights = [branch.weight for branch in branches]
            chosen = branches[int(pick_each(1, weights, generator=generator))]
            found += drawn_order(chosen.steps, generator)
        elif step.shuffle is not None:
            found += drawn_order(_shuffled(step.shuffle, generator), generator)
        else:
            found.append((step.label, cast(Kind, getattr(step, step.what))))
    return found


def _shuffled(shuffle: Shuffle, generator: torch.Generator) -> list[Step]:
    steps = [shuffle.steps[place] for place in shuffled(len(shuffle.steps), generator=generator)]
    places = [i for i, step in enumerate(steps) if step.label in shuffle.in_order]
    fixed = sorted((steps[i] for i in places), key=lambda s: shuffle.in_order.index(s.label))
    for place, step in zip(places, fixed, strict=True):
        steps[place] = step
    return steps
