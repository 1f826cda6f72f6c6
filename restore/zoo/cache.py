"""The folder on this machine in which pulled weights lie, and what is known of each file.

CACHE/models/NAME/...          whole files only, as a method or diffusers reads them
CACHE/models/NAME.json         where each came from, its size and hash, when
CACHE/models/NAME.lock         held while one process pulls
CACHE/models/.part/NAME/...    what has arrived so far
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from restore.errors import OutputError, WeightsError
from restore.zoo.entry import Entry, Variant, ZooFile

log = logging.getLogger("restore.zoo")

PICKLES = (".pkl", ".pth", ".pt", ".ckpt")
"""Ends of names of files that can hold code; they are converted."""

Trust = Literal["published", "host", "first", "converted"]
"""What a recorded hash was compared with: the one in the zoo, the one that the host stated, nothing
(it is that of the first download), or nothing (the file was made here)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """What is known of one file in the cache."""

    url: str
    """Address it came from; empty for a file that was made here."""
    size: int
    """Bytes."""
    sha256: str
    """Hash of the content."""
    trust: Trust
    """What the hash was compared with."""
    time: str
    """When it was written, UTC."""
    made_from: str = ""
    """SHA-256 of the file that it was converted from."""


def cache_folder() -> Path:
    """Where this program keeps what it can fetch or make again; it may not exist.

    `RESTORE_CACHE` in the environment names another folder than the system's.
    """
    chosen = os.environ.get("RESTORE_CACHE")
    if chosen:
        return Path(chosen).expanduser().absolute()
    import platformdirs

    return Path(platformdirs.user_cache_dir("restore", appauthor=False))


class Shelf:
    """The place of one entry in the cache.

    Args:
        entry: what lies there.
        root: the cache; default: `cache_folder()`.
    """

    def __init__(self, entry: Entry, root: Path | None = None) -> None:
        models = (root or cache_folder()) / "models"
        self.entry = entry
        self.folder = models / entry.name
        self.records_path = models / f"{entry.name}.json"
        self.lock_path = models / f"{entry.name}.lock"
        self._parts = models / ".part" / entry.name

    def place(self, file: ZooFile) -> Path:
        """Where the file lies when it is whole, as it was published."""
        return self.folder / file.path

    def part(self, file: ZooFile) -> Path:
        """Where what has arrived of the file lies."""
        return self._parts / f"{file.path}.part"

    def converted(self, file: ZooFile) -> Path:
        """Where the safetensors file that is made of a pickle lies."""
        return self.place(file).with_suffix(".safetensors")

    def path(self, file: ZooFile) -> Path | None:
        """The file to load: converted, or as published; None when it is not here."""
        records = self.records()
        if is_pickle(file):
            made = self.converted(file)
            record = records.get(made.name)
            if record is not None and _size(made) == record.size:
                return made
        whole = self.place(file)
        size = _size(whole)
        known = records[file.path].size if file.path in records else file.size
        return whole if size and known in (None, size) else None

    def missing(self, variant: Variant | None = None) -> tuple[ZooFile, ...]:
        """Files that are not here; of the variant that lacks least where none is named."""
        variants: tuple[Variant, ...] = (variant,) if variant else self.entry.variants or ("fp32",)
        lacking = [
            tuple(f for f in self.entry.choose(chosen) if self.path(f) is None)
            for chosen in variants
        ]
        return min(lacking, key=len)

    def records(self) -> dict[str, Record]:
        """What is known of the files, by their path in the folder."""
        try:
            content = json.loads(self.records_path.read_text(encoding="utf-8"))
            return {path: _record(values) for path, values in content["files"].items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            log.warning("%s cannot be read (%s) and is left aside", self.records_path, error)
            return {}

    def remember(self, path: str, record: Record) -> None:
        """Keep `record` for the file at `path` in the folder.

        Raises:
            OutputError: it cannot be written.
        """
        records = {**self.records(), path: record}
        content = {
            "name": self.entry.name,
            "licence": self.entry.licence,
            "files": {key: dataclasses.asdict(value) for key, value in sorted(records.items())},
        }
        with writing(self.records_path):
            write_text(self.records_path, json.dumps(content, indent=1) + "\n")


def is_pickle(file: ZooFile) -> bool:
    """Whether the file is of a kind that is converted."""
    return bool(file.converter) and file.path.endswith(PICKLES)


@contextlib.contextmanager
def alone(shelf: Shelf) -> Iterator[None]:
    """No other process pulls the same entry meanwhile; one that does is waited for.

    The system gives the lock back when a process ends, however it ends.

    Raises:
        OutputError: the cache cannot be written.
    """
    from filelock import FileLock, Timeout

    with writing(shelf.lock_path):
        shelf.lock_path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(shelf.lock_path)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            log.warning("another process is fetching '%s'; waiting for it", shelf.entry.name)
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn the system's errors about `path` into one line.

    Raises:
        OutputError: it cannot be written.
    """
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"cannot write {path} ({error.strerror or error}); free some space or check its "
            "permissions, or choose another folder with RESTORE_CACHE"
        ) from error


def write_text(path: Path, text: str) -> None:
    """Write a small file in one step, so that another process sees all of it or nothing.

    Raises:
        OSError: it cannot be written; nothing is left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _record(values: dict[str, Any]) -> Record:
    record = Record(**values)
    if not isinstance(record.size, int) or record.trust not in get_args(Trust):
        raise ValueError(f"not a record: {values}")
    return record


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size if path.is_file() else None
    except OSError as error:
        raise WeightsError(
            f"{path} cannot be looked at ({error.strerror}); check its permissions"
        ) from error
