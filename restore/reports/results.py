"""What was measured of each file."""

from __future__ import annotations

from dataclasses import dataclass, field

from restore.reports.pairing import Pair


@dataclass(kw_only=True, slots=True)
class Series:
    """Numbers of each pair of frames of a clip."""

    times: list[float] = field(default_factory=list)
    """Seconds from the clip's beginning."""
    own_times: list[float] = field(default_factory=list)
    """The same moments by the clock of the result, whose container may shift it."""
    values: dict[str, list[float | None]] = field(default_factory=dict)
    """For each metric one value a pair; None = it has none there."""


@dataclass(kw_only=True, slots=True)
class Result:
    """One result and its numbers."""

    pair: Pair
    """What was compared."""
    size: tuple[int, int] | None = None
    """Width and height that was compared, after the crop."""
    bytes: int = 0
    """Size of the result's file."""
    values: dict[str, float | None] = field(default_factory=dict)
    """For each metric its value; None = it cannot be measured of this file."""
    problems: dict[str, str] = field(default_factory=dict)
    """For each metric without a value why, one line."""
    notes: tuple[str, ...] = ()
    """What was done to it, one line each."""
    failed: str | None = None
    """Why nothing was measured, one line; None = something was."""
    series: Series | None = None
    """Of a clip: frame by frame."""
    stray: int = 0
    """Frames of either clip without a counterpart."""
