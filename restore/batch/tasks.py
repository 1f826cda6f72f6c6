"""What the driver hands to a worker, and what comes back; both travel between processes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from restore.batch_config import BatchConfig

TaskKind = Literal["picture", "clip", "piece", "join"]
Verdict = Literal["done", "split", "failed", "lost"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Setup:
    """What every worker of a run is told once."""

    config: BatchConfig
    """The user's settings."""
    source: str
    """Address of SRC, as `open_store` takes it."""
    target: str
    """Address of DST."""
    workers: int
    """How many workers there are: a clip is not split for one alone."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """Frames of a clip that one worker restores: whole segments of `restore video`."""

    number: int
    """Place among the clip's pieces, from 0."""
    first: int
    """Index of the first frame."""
    last: int
    """Index after the last frame."""
    begin: int
    """Where to begin: frames from here to `first` are there for the method's memory alone."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """Work for one worker."""

    item: int
    """Number of the item in the manifest."""
    kind: TaskKind
    """picture, clip: all of it, or only look how it can be split; piece, join: of a split clip."""
    source: str
    """Path below SRC."""
    name: str
    """Path of the result below DST; of a clip without its suffix."""
    attempt: int
    """How often it was tried, this time included."""
    piece: Piece | None = None
    """The piece to restore."""
    pieces: int = 0
    """How many pieces to join."""
    avoid: int | None = None
    """Worker that should not get it, as it failed there; obeyed when another one is free."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What became of a task."""

    verdict: Verdict
    """done; split: `pieces` are to be done first; failed; lost: the worker died."""
    output: str = ""
    """Path of the result below DST."""
    error: str = ""
    """Why it failed, one line; of a result that is done: how its input is damaged."""
    again: bool = False
    """Whether another attempt may succeed: a disk was full, not a file broken."""
    seconds: float = 0.0
    """Time that it took."""
    frames: int = 0
    """Frames restored, 1 for a picture."""
    notes: tuple[str, ...] = ()
    """What the user should know."""
    pieces: tuple[Piece, ...] = ()
    """How the clip is split."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Finished:
    """An answer, and from where it came."""

    task: Task
    """What was to be done."""
    answer: Answer
    """What became of it."""
    worker: int
    """Number of the worker."""


def as_dict(piece: Piece) -> dict[str, Any]:
    """A piece for a row of the manifest."""
    return {name: getattr(piece, name) for name in ("number", "first", "last", "begin")}
