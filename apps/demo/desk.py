"""Whose files are whose, and when they go: one folder of the server's own, emptied behind users.

    root/
      <hash of the content>/photo.jpg     an upload; who uploaded the same file shares it
      <random name>/...                   a job: its results, and what it works with

A browser is known by a cookie, each of its pages by a session. A page's jobs go with the page; an
upload goes when none of the browsers that sent it shows a page any more. What is left over by a
browser that never showed one is swept away after a while.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from restore.errors import WorkStopped
from restore.folder_lock import LOCK

log = logging.getLogger("restore.demo")

_WAIT = 0.1  # seconds between two looks whether a job that waits was stopped


class Job:
    """One run for one page: its folder, and whether it is to stop.

    Attributes:
        folder: for what it writes; removed when the work fails, is stopped, or the page is left.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._working = False
        self._left = False
        self.fraction: float | None = None
        self.text = ""

    def tell(self, fraction: float | None, text: str) -> None:
        """Say how far the work is; called by the work, which ends here when it is to stop.

        Args:
            fraction: 0 to 1; None = unknown.
            text: for people.

        Raises:
            WorkStopped: the user does not want the result any more.
        """
        self.check()
        self.fraction, self.text = fraction, text

    def check(self) -> None:
        """End the work when it is to stop.

        Raises:
            WorkStopped: the user does not want the result any more.
        """
        if self._stopped.is_set():
            raise WorkStopped

    @property
    def stopped(self) -> bool:
        """Whether it was told to stop."""
        return self._stopped.is_set()

    def stop(self) -> None:
        """Let the work end at its next step."""
        self._stopped.set()

    def leave(self) -> None:
        """Nobody needs the folder any more: it goes now, or when the work has ended."""
        self.stop()
        with self._lock:
            self._left = True
            if not self._working:
                _remove(self.folder)

    @contextlib.contextmanager
    def work(self) -> Iterator[None]:
        """While the work goes on, files of it are open; what failed leaves nothing behind."""
        with self._lock:
            self._working = True
        failed = True
        try:
            self.check()
            yield
            failed = False
        finally:
            with self._lock:
                self._working = False
                if failed or self._left or self.stopped:
                    _remove(self.folder)


class Desk:
    """The server's files.

    Args:
        root: an empty folder of its own.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.device = threading.Lock()
        self._lock = threading.Lock()
        self._owners: dict[str, set[str]] = {}
        self._sessions: dict[str, str] = {}
        self._jobs: dict[tuple[str, str], Job] = {}

    def enter(self, session: str, browser: str) -> None:
        """A page of a browser is shown."""
        with self._lock:
            self._sessions[session] = browser

    def leave(self, session: str) -> None:
        """A page was closed, or its connection is gone: its work stops and its files go."""
        with self._lock:
            browser = self._sessions.pop(session, None)
            jobs = [self._retire(key) for key in list(self._jobs) if key[0] == session]
            unused = []
            if browser is not None and browser not in self._sessions.values():
                unused = self._disown(browser)
        for job in jobs:
            job.leave()
        for name in unused:
            _remove(self.root / name)

    def job(self, session: str, browser: str, tab: str) -> Job:
        """A new job of a page; the former one of the same tab stops, and its files go."""
        name = secrets.token_urlsafe(24)
        folder = self.root / name
        folder.mkdir(mode=0o700)
        job = Job(folder)
        with self._lock:
            self._sessions[session] = browser
            self._owners[name] = {browser}
            former = self._retire((session, tab)) if (session, tab) in self._jobs else None
            self._jobs[session, tab] = job
        if former is not None:
            former.leave()
        return job

    def stop(self, session: str, tab: str) -> None:
        """Stop the job of a tab."""
        with self._lock:
            job = self._jobs.get((session, tab))
        if job is not None:
            job.stop()

    def claim(self, name: str, browser: str) -> None:
        """A browser has sent what lies in the folder `name`."""
        with self._lock:
            self._owners.setdefault(name, set()).add(browser)

    def owns(self, path: str, browser: str) -> bool:
        """Whether a browser may have a file; `path` is relative to the root."""
        parts = path.split("/")
        if len(parts) < 2 or any(part in ("", ".", "..") for part in parts) or "\0" in path:
            return False
        with self._lock:
            return browser in self._owners.get(parts[0], ())

    def held_by(self, browser: str) -> int:
        """Bytes that a browser has here."""
        with self._lock:
            names = [name for name, owners in self._owners.items() if browser in owners]
        return sum(_size(self.root / name) for name in names)

    @contextlib.contextmanager
    def turn(self, job: Job) -> Iterator[None]:
        """The device, one job at a time, for as long as the context is open.

        Raises:
            WorkStopped: the job was stopped while it waited.
        """
        while not self.device.acquire(timeout=_WAIT):
            job.check()
        try:
            job.check()
            yield
        finally:
            self.device.release()

    def sweep(self, *, seconds: float) -> None:
        """Remove what is older than that and belongs to no page that is shown."""
        with self._lock:
            shown = set(self._sessions.values())
            kept = {name for name, owners in self._owners.items() if owners & shown} | {LOCK}
            old = [
                path
                for path in self.root.iterdir()
                if path.name not in kept and time.time() - _changed(path) > seconds
            ]
            for path in old:
                self._owners.pop(path.name, None)
        for path in old:
            _remove(path)

    def close(self) -> None:
        """Stop all work, wait for it for a moment, and remove everything."""
        with self._lock:
            jobs = list(self._jobs.values())
            self._jobs.clear()
        for job in jobs:
            job.leave()
        if self.device.acquire(timeout=10):
            self.device.release()
        _remove(self.root)

    def _retire(self, key: tuple[str, str]) -> Job:
        """Forget a job, whose folder goes when its work has ended."""
        job = self._jobs.pop(key)
        self._owners.pop(job.folder.name, None)
        return job

    def _disown(self, browser: str) -> list[str]:
        """Folders that were this browser's alone."""
        unused = []
        for name in list(self._owners):
            self._owners[name].discard(browser)
            if not self._owners[name]:
                del self._owners[name]
                unused.append(name)
        return unused


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
    if path.exists():
        log.warning("%s could not be removed", path)


def _size(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):  # removed meanwhile
            total += path.stat().st_size
    return total


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return time.time()
