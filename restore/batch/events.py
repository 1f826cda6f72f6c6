"""What a batch tells while it goes on, and its report."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerStarted:
    """A worker is ready to be given work."""

    worker: int
    """Its number."""
    pid: int
    """Its process, on its machine."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerLost:
    """A worker died; another one takes its place and its work."""

    worker: int
    """Its number."""
    reason: str
    """What is known about it, one line."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Given:
    """A worker begins with a task."""

    source: str
    """Path below SRC."""
    task: str
    """picture, clip, piece or join."""
    piece: int | None
    """Number of the piece of a split clip."""
    worker: int
    """Number of the worker."""
    attempt: int
    """How often it was tried, this time included."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Split:
    """A clip was split into pieces for several workers."""

    source: str
    """Path below SRC."""
    pieces: int
    """How many."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ItemPlanned:
    """Dry run: this item would be restored."""

    source: str
    """Path below SRC."""
    destination: str
    """Path of the result below DST; of a clip with .* for its suffix, which its sound decides."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ItemDone:
    """A result is in its place."""

    source: str
    """Path below SRC."""
    destination: str
    """Path of the result below DST."""
    seconds: float
    """Working time, of all workers together."""
    frames: int
    """Frames of a clip; 1 for a picture."""
    worker: int
    """Number of the worker that finished it."""
    notes: tuple[str, ...]
    """What the user should know, one line each."""
    damaged: str
    """Where a clip broke off; empty = it is whole."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ItemRetried:
    """An attempt failed, and another one will follow."""

    source: str
    """Path below SRC."""
    message: str
    """Why, one line."""
    attempt: int
    """The attempt that failed, from 1."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ItemFailed:
    """An item has no result."""

    source: str
    """Path below SRC."""
    message: str
    """What was wrong and what to do, one line."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchProgress:
    """How far the batch is."""

    done: int
    """Items with a result, those of earlier runs included."""
    failed: int
    """Items without one."""
    left: int
    """Items to come, and in work."""
    rate: float
    """Items finished per second of late; 0 before the first."""
    eta_seconds: float | None
    """Seconds to go; None = unknown."""


BatchEvent = (
    WorkerStarted
    | WorkerLost
    | Given
    | Split
    | ItemPlanned
    | ItemDone
    | ItemRetried
    | ItemFailed
    | BatchProgress
)


@dataclass(kw_only=True, slots=True)
class BatchReport:
    """What became of a batch."""

    planned: int = 0
    """Items that a dry run would restore."""
    done: int = 0
    """Results made in this run."""
    skipped: int = 0
    """Results that an earlier run had made."""
    failed: list[tuple[str, str]] = field(default_factory=list)
    """Items without a result, and clips that broke off: (path below SRC, message)."""
    frames: int = 0
    """Pictures, and frames of clips, restored in this run."""
    workers_lost: int = 0
    """Workers that died."""
    seconds: float = 0.0
    """Time of this run."""
