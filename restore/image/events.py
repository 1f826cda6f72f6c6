"""What a run over pictures tells while it goes on, and its report."""

from __future__ import annotations

from dataclasses import dataclass, field

Size = tuple[int, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Started:
    """Work on a picture begins."""

    source: str
    """Name of the input; `-` for stdin."""
    destination: str
    """Name of the result; `-` for stdout."""
    index: int
    """Number of the input in this run, from 1."""
    total: int
    """Inputs in this run."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Advanced:
    """A part of the picture is done."""

    source: str
    """Name of the input."""
    done: int
    """Tiles done."""
    total: int
    """Tiles of this picture, of its alpha too."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Planned:
    """Dry run: this picture would be restored."""

    source: str
    """Name of the input."""
    destination: str
    """Name of the result."""
    size_in: Size
    """Width and height of the input in pixels."""
    size_out: Size
    """Width and height of the result."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Done:
    """A result is written."""

    source: str
    """Name of the input."""
    destination: str
    """Name of the result."""
    size_in: Size
    """Width and height of the input in pixels."""
    size_out: Size
    """Width and height of the result."""
    seconds: float
    """Time for reading, restoring and writing."""
    notes: tuple[str, ...]
    """What the user should know, one line each; also logged as warnings."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Skipped:
    """An input is passed over on purpose."""

    source: str
    """Name of the input."""
    reason: str
    """Why, one line."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Failed:
    """An input has no result."""

    source: str
    """Name of the input."""
    message: str
    """What was wrong and what to do, one line, without the name of the input."""


Event = Started | Advanced | Planned | Done | Skipped | Failed


@dataclass(kw_only=True, slots=True)
class ImageReport:
    """What became of the inputs of one run."""

    planned: list[Planned] = field(default_factory=list)
    """What a dry run would do."""
    done: list[Done] = field(default_factory=list)
    """Results that were written."""
    skipped: list[Skipped] = field(default_factory=list)
    """Inputs that were passed over."""
    failed: list[tuple[str, str]] = field(default_factory=list)
    """Inputs without a result: (name, message of one line)."""
    seconds: float = 0.0
    """Time of the whole run."""
