"""What a report's run tells while it works; the command line and the demo show it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """One file was measured, or failed to be."""

    method: str
    """Name that its folder was given."""
    key: str
    """Name of the pair: path in the folder, without suffix."""
    index: int
    """How many files are finished, this one included."""
    total: int
    """How many there are."""
    values: dict[str, float | None]
    """Value of each metric; None = it could not be measured of this file."""
    failed: str | None = None
    """Why nothing was measured, one line."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Advanced:
    """A clip goes on."""

    method: str
    """Name that its folder was given."""
    key: str
    """Name of the pair."""
    frames: int
    """Pairs of frames measured so far."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Left:
    """A metric that is skipped, or a file without a pair."""

    kind: str
    """`metric` or `file`."""
    name: str
    """Which."""
    reason: str
    """Why, one line, with what to do."""


ReportEvent = Measured | Advanced | Left
