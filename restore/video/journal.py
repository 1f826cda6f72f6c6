"""The journal of a clip's work: what is finished, and with which settings it was made.

A work folder lies beside the result and holds finished segments, the journal and a lock:

    .clip_x4.mp4.restore-parts/
        journal.json    what this module writes; replaced as a whole, never edited
        lock            the process at work, see `restore.folder_lock`
        000000.nut      finished segments, each playable by itself
        000000.state    what a recurrent method goes on from after the last finished segment
        *.part          work in progress: worthless after a crash

A segment and its state are on the disk before the journal names them, and the journal is replaced
in one step, so that a process killed at any moment leaves a journal whose every word is true.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from restore.errors import OutputError

FORMAT = 1
"""Version of the journal's layout; a journal of another version is refused."""

JOURNAL = "journal.json"
_SAMPLE = 1 << 20  # bytes hashed at either end of the input


@dataclass(frozen=True, kw_only=True, slots=True)
class Segment:
    """One finished file of consecutive frames."""

    file: str
    """Name inside the work folder."""
    size: int
    """Bytes of the file."""
    first: int
    """Index of its first frame in the clip."""
    frames: int
    """Frames in it, 1 or more."""
    first_pts: int
    """Time stamp of its first frame, in units of the encoder's time base."""
    last_pts: int
    """Time stamp of its last frame."""
    last_duration: int
    """How long its last frame is shown, in the same units."""
    delay: int
    """Frames by which a packet may be stored before its place in the order of display."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StateFile:
    """What a recurrent method kept after the last finished segment."""

    file: str
    """Name inside the work folder."""
    size: int
    """Bytes of the file."""
    sha256: str
    """Hash of the file, as hex."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ending:
    """How the clip's frames came to an end."""

    frames: int
    """Frames of the whole result."""
    damaged: str | None = None
    """Where and why the input's data broke off; None = it did not."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """The joined file, just before it was moved to its name."""

    size: int
    """Bytes of the file."""
    mtime_ns: int
    """When it was written last; moving a file keeps this."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Journal:
    """Everything that a later run must know to go on."""

    source: dict[str, Any]
    """What identifies the input: size and a hash, see `fingerprint`."""
    settings: dict[str, Any]
    """Every setting that changes a pixel or a time stamp, by name."""
    segments: tuple[Segment, ...] = ()
    """Finished segments, in order and without a gap."""
    state: StateFile | None = None
    """What goes on after the last of them; None = the method carries nothing over."""
    ending: Ending | None = None
    """Present as soon as the last frame is in a finished segment."""
    result: Result | None = None
    """Present as soon as the joined file is complete."""

    @property
    def frames(self) -> int:
        """Frames in finished segments."""
        return sum(segment.frames for segment in self.segments)


def fingerprint(path: Path) -> dict[str, Any]:
    """What identifies an input file: its size and a hash of its first and last MiB.

    The time of its last change is left out: copying a file to another disk changes it.
    """
    size = path.stat().st_size
    digest = hashlib.sha256()
    with path.open("rb") as file:
        digest.update(file.read(_SAMPLE))
        file.seek(max(0, size - _SAMPLE))
        digest.update(file.read(_SAMPLE))
    return {"size": size, "sha256_ends": digest.hexdigest()}


def differences(then: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """`"scale was 4, is 2"` for each setting that differs."""
    shown = "not set"
    return [
        f"{name.replace('_', ' ')} was {then.get(name, shown)}, is {now.get(name, shown)}"
        for name in sorted(then.keys() | now.keys())
        if then.get(name) != now.get(name)
    ]


def load(folder: Path) -> Journal | None:
    """The journal in `folder`, or None when there is none.

    Raises:
        OutputError: it is damaged, or of another version of this program.
    """
    path = folder / JOURNAL
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise _damaged(path, error) from error
    try:
        entry = json.loads(text)
        version = entry.pop("format")
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise _damaged(path, error) from error
    if version != FORMAT:
        raise OutputError(
            f"the unfinished work in {folder} was made by another version of restore "
            f"(journal format {version}, this one writes {FORMAT}); "
            "give --overwrite to start again"
        )
    try:
        return _parse(entry)
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(path, error) from error


def save(folder: Path, journal: Journal) -> None:
    """Replace the journal in `folder` in one step; on return it has reached the disk."""
    text = json.dumps({"format": FORMAT, **asdict(journal)}, ensure_ascii=False, indent=1)
    partial = folder / (JOURNAL + ".part")
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(folder / JOURNAL)
    sync_folder(folder)


def intact(journal: Journal, folder: Path) -> Journal:
    """The journal without the first segment that is missing or has another size, and all later.

    Only the state after the last segment is kept. Without it nothing can be gone on from, and the
    journal comes back empty; when all frames are finished it is not needed.
    """
    kept: list[Segment] = []
    for segment in journal.segments:
        with contextlib.suppress(OSError):
            if (folder / segment.file).stat().st_size == segment.size:
                kept.append(segment)
                continue
        if journal.state is not None:
            kept = []  # what came before the lost segment is gone
        return replace(journal, segments=tuple(kept), state=None, ending=None, result=None)
    if journal.state is None or journal.ending is not None:
        return journal
    with contextlib.suppress(OSError):
        if describe_state(folder / journal.state.file) == journal.state:
            return journal
    return replace(journal, segments=(), state=None, result=None)


def describe_state(path: Path, *, name: str | None = None) -> StateFile:
    """Size and hash of a state.

    Args:
        path: the file.
        name: what it will be called; default: what it is called.
    """
    data = path.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    return StateFile(file=name or path.name, size=len(data), sha256=digest)


def sync_file(path: Path) -> None:
    """Wait until the file's bytes have reached the disk."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Wait until the names in the folder have reached the disk."""
    if os.name == "nt":  # Windows cannot open a folder, and writes names through by itself
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _parse(entry: dict[str, Any]) -> Journal:
    """A journal from its JSON object; ValueError, KeyError or TypeError when it is not one."""
    segments = tuple(Segment(**segment) for segment in entry["segments"])
    first = 0
    for segment in segments:
        if segment.first != first or segment.frames < 1 or Path(segment.file).name != segment.file:
            raise ValueError(f"segment {segment.file} does not follow the one before it")
        first += segment.frames
    state = StateFile(**entry["state"]) if entry.get("state") else None
    if state is not None and (not segments or Path(state.file).name != state.file):
        raise ValueError(f"state {state.file} does not belong to a segment")
    ending = Ending(**entry["ending"]) if entry["ending"] else None
    if ending is not None and ending.frames != first:
        raise ValueError(f"it counts {ending.frames} frames, its segments {first}")
    result = Result(**entry["result"]) if entry["result"] else None
    if not isinstance(entry["source"], dict) or not isinstance(entry["settings"], dict):
        raise TypeError("source and settings are not objects")
    return Journal(
        source=entry["source"],
        settings=entry["settings"],
        segments=segments,
        state=state,
        ending=ending,
        result=result,
    )


def _damaged(path: Path, error: Exception) -> OutputError:
    return OutputError(
        f"the journal {path} of an unfinished run is damaged ({error}); "
        "give --overwrite to start again"
    )
