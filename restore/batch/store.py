"""Where files lie: a folder of this machine, or a place that fsspec knows (`s3://`, `memory://`).

Programs read and write local files, so what lies elsewhere is staged: fetched into a temporary
folder before the work, and put to its place after it. A result appears whole or not at all: a
local one is moved to its name, an object is put in one request, and other stores get it under a
hidden name first.
"""

from __future__ import annotations

import contextlib
import os
import posixpath
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from restore.errors import InputError, MissingExtraError, OptionError, OutputError, install_command

WORK = ".restore-batch"
"""Folder in DST for the manifest and for work in progress; never listed."""

_OBJECTS = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "oss", "memory"})
"""Stores in which an object appears when all of it has come."""
_STAMPS = (
    *("ETag", "etag", "md5Hash", "crc32c", "mtime", "LastModified", "last_modified"),
    *("updated", "modified", "created"),
)
_EXTRAS = {"s3": "s3", "s3a": "s3"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One file."""

    key: str
    """Its path below the store's root, with slashes."""
    size: int
    """Bytes."""
    stamp: str
    """What changes when it is written again: time of the last change, or the store's own mark."""


class Store(Protocol):
    """A folder somewhere."""

    url: str
    """Its name, as it is shown and as `open_store` takes it."""
    local: Path | None
    """The folder, when it is one of this machine."""

    def entries(self, *, without: str | None = None) -> Iterator[Entry]:
        """All files that are not hidden, folder by folder, names sorted.

        Args:
            without: address of a store whose folder may lie in this one, and is left out.
        """
        ...

    def fetch(self, key: str, folder: Path) -> Path:
        """A local file with the content of `key`: itself, or a copy in `folder`."""
        ...

    def deliver(self, file: Path, key: str) -> None:
        """Put a finished local file at `key`, whole or not at all; the local one may be gone."""
        ...

    def exists(self, key: str) -> bool:
        """Whether there is a file at `key`."""
        ...

    def remove(self, key: str) -> None:
        """Delete a file, or a folder with all that is in it; nothing happens where none is."""
        ...


def open_store(name: str) -> Store:
    """The store called `name`: a folder, or an address such as `s3://bucket/photos`.

    Raises:
        OptionError: nothing knows such an address.
        MissingExtraError: the library for it is not installed.
    """
    protocol, mark, rest = name.partition("://")
    if not mark:
        return LocalStore(Path(name))
    if protocol in ("file", "local"):
        return LocalStore(Path(rest))
    return RemoteStore(name)


class LocalStore:
    """A folder of this machine, or one that all machines of a cluster mount."""

    def __init__(self, folder: Path) -> None:
        self.local: Path | None = folder
        self.url = str(folder.absolute())
        self._folder = folder.absolute()

    def entries(self, *, without: str | None = None) -> Iterator[Entry]:
        avoid = None if without is None else os.path.realpath(without)

        def fail(error: OSError) -> None:
            # Going on would look as if the files in there had been deleted.
            raise InputError(
                f"the folder '{error.filename}' cannot be read ({error.strerror}); "
                "check its owner and mode, or leave it out with --exclude"
            ) from error

        for here, folders, files in os.walk(self._folder, onerror=fail):
            folders[:] = sorted(
                name
                for name in folders
                if not name.startswith(".")
                and (avoid is None or os.path.realpath(Path(here, name)) != avoid)
            )
            for name in sorted(files):
                if name.startswith("."):
                    continue
                path = Path(here, name)
                with contextlib.suppress(OSError):  # gone since it was listed
                    facts = path.stat()
                    key = path.relative_to(self._folder).as_posix()
                    yield Entry(key=key, size=facts.st_size, stamp=str(facts.st_mtime_ns))

    def fetch(self, key: str, folder: Path) -> Path:
        return self._folder / key

    def deliver(self, file: Path, key: str) -> None:
        target = self._folder / key
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.is_dir():
                shutil.rmtree(target)
            file.replace(target)
        except OSError as error:
            raise OutputError(
                f"'{target}' cannot be written ({error.strerror or error}); "
                "free some space, or choose another DST"
            ) from error

    def exists(self, key: str) -> bool:
        return os.path.lexists(self._folder / key)

    def remove(self, key: str) -> None:
        path = self._folder / key
        with contextlib.suppress(FileNotFoundError):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink()


class RemoteStore:
    """A place that fsspec knows."""

    def __init__(self, url: str) -> None:
        self.local: Path | None = None
        self.url = url.rstrip("/")
        protocol = url.partition("://")[0]
        self._is_objects = protocol in _OBJECTS
        import fsspec

        try:
            self._files: Any = fsspec.filesystem(protocol, use_listings_cache=False)
        except ImportError as error:
            extra = _EXTRAS.get(protocol)
            how = f"run: {install_command(extra)}" if extra else str(error)
            raise MissingExtraError(f"'{protocol}://' needs another library; {how}") from error
        except ValueError as error:
            raise OptionError(
                f"'{protocol}://' is unknown; give a folder, or an address such as s3://bucket/name"
            ) from error
        self._root = str(self._files._strip_protocol(url)).rstrip("/")

    def entries(self, *, without: str | None = None) -> Iterator[Entry]:
        avoid = None if without is None else str(self._files._strip_protocol(without)).strip("/")
        with self._teaching("read"):
            for here, folders, files in self._files.walk(self._root, detail=True):
                for name in list(folders):
                    below = f"{here}/{name}".strip("/")
                    if name.startswith(".") or below == avoid:
                        del folders[name]
                inside = str(here).removeprefix(self._root).strip("/")
                for name in sorted(files):
                    if name and not name.startswith("."):
                        facts = files[name]
                        stamp = next((facts[key] for key in _STAMPS if facts.get(key)), "")
                        key = posixpath.join(inside, name)
                        yield Entry(key=key, size=int(facts.get("size") or 0), stamp=str(stamp))

    def fetch(self, key: str, folder: Path) -> Path:
        target = folder / posixpath.basename(key)
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with self._teaching("read"):
                self._files.get_file(self._path(key), str(target))
        except FileNotFoundError as error:
            raise InputError(f"'{self.url}/{key}' is gone; list it again") from error
        return target

    def deliver(self, file: Path, key: str) -> None:
        target = self._path(key)
        with self._teaching("written"):
            if self._is_objects:
                self._files.put_file(str(file), target)
                return
            folder = posixpath.dirname(target)
            partial = posixpath.join(folder, f".restore-{secrets.token_hex(6)}.tmp")
            self._files.makedirs(folder, exist_ok=True)
            try:
                self._files.put_file(str(file), partial)
                self._files.mv(partial, target)
            except BaseException:
                with contextlib.suppress(Exception):
                    self._files.rm_file(partial)
                raise

    def exists(self, key: str) -> bool:
        with self._teaching("read"):
            return bool(self._files.exists(self._path(key)))

    def remove(self, key: str) -> None:
        with contextlib.suppress(FileNotFoundError), self._teaching("written"):
            self._files.rm(self._path(key), recursive=True)

    def _path(self, key: str) -> str:
        return f"{self._root}/{key}"

    @contextlib.contextmanager
    def _teaching(self, what: str) -> Iterator[None]:
        """Turn what a store's library raises into one line."""
        try:
            yield
        except FileNotFoundError:
            raise
        except Exception as error:  # each library has errors of its own
            reason = " ".join(str(error).split()) or type(error).__name__
            raise OutputError(
                f"{self.url} cannot be {what} ({reason}); check the address and your credentials"
            ) from error
