"""Where a batch keeps its manifest: in DST, or beside this user's state when DST lies elsewhere.

SQLite needs a file of this machine. For a DST such as `s3://bucket/out` it is kept here, and a copy
goes to DST/.restore-batch now and then, from which another machine can go on.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
import tempfile
from contextlib import closing, suppress
from pathlib import Path
from types import TracebackType

import platformdirs

from restore.batch.manifest import NAME, Manifest
from restore.batch.store import WORK, Store
from restore.errors import InputError, OutputError
from restore.folder_lock import FolderLock

_KEY = f"{WORK}/{NAME}"


class Home:
    """The folder of a batch's manifest, for one driver at a time while open."""

    def __init__(self, target: Store) -> None:
        self._target = target
        self.folder = home_folder(target)
        self._lock = FolderLock(self.folder)

    def __enter__(self) -> Manifest:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
        except OSError as error:
            raise OutputError(
                f"'{self.folder}' cannot be written ({error.strerror or error}); "
                "check its owner and mode, or give another DST"
            ) from error
        try:
            if self._target.local is None:
                _fetch_newer(self._target, self.folder)
            return Manifest(self.folder / NAME)
        except BaseException:
            self._lock.release()
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with suppress(OSError):
            self._lock.release()

    def keep(self, manifest: Manifest) -> None:
        """Put a copy of the manifest into a DST that lies elsewhere."""
        if self._target.local is not None:
            return
        manifest.count_copies()
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / NAME
            manifest.copy_to(copy)
            self._target.deliver(copy, _KEY)


def home_folder(target: Store) -> Path:
    """The folder of the manifest of the batch that goes to `target`."""
    if target.local is not None:
        return target.local / WORK
    name = hashlib.sha256(target.url.encode()).hexdigest()[:16]
    return Path(platformdirs.user_state_dir("restore")) / "batch" / name


def find_manifest(target: Store, scratch: Path) -> Path:
    """A manifest to read, which may be in use.

    Raises:
        InputError: there was no batch to `target`.
    """
    path = home_folder(target) / NAME
    if path.is_file():
        return path
    if target.local is None and target.exists(_KEY):
        return target.fetch(_KEY, scratch)
    raise InputError(
        f"there is no batch in {target.url}; start one with: restore batch SRC {target.url}"
    )


def _fetch_newer(target: Store, folder: Path) -> None:
    """Take the copy in DST when another machine went on with the batch."""
    if not target.exists(_KEY):
        return
    with tempfile.TemporaryDirectory() as scratch:
        copy = target.fetch(_KEY, Path(scratch))
        if _copies(copy) > _copies(folder / NAME):
            for old in folder.glob(NAME + "*"):
                old.unlink()
            shutil.move(copy, folder / NAME)


def _copies(path: Path) -> int:
    """How often a manifest was copied; 0 where there is none."""
    if not path.is_file():
        return 0
    with suppress(sqlite3.Error, ValueError), closing(sqlite3.connect(path)) as file:
        row = file.execute("SELECT value FROM meta WHERE name = 'copies'").fetchone()
        return 0 if row is None else int(json.loads(row[0]))
    return 0
