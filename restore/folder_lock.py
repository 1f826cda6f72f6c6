"""One process at a time in a folder: a clip's work, a batch, a training run.

The lock is a file that only its creator could create; it names the process, so that the lock of a
killed process is recognised and taken over.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from pathlib import Path
from typing import Any

from restore.errors import OutputError

LOCK = "lock"
_WRITING = 2.0  # seconds within which a lock without content counts as being written


class FolderLock:
    """Exclusive use of a work folder, from `acquire` to `release`."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / LOCK

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            OutputError: another process that is still alive holds it.
        """
        while not self._create():
            found = _read(self.path)
            if found is None:
                continue
            owner, stale = found
            if not stale:
                raise OutputError(
                    f"another run (process {owner.get('pid', '?')} on {owner.get('host', '?')}) "
                    f"is at work on this result; wait for it, or delete {self.path} "
                    "if that process has ended"
                )
            self._discard(owner)

    def release(self) -> None:
        """Give the lock back; harmless when it is not held."""
        self.path.unlink(missing_ok=True)

    def _create(self) -> bool:
        try:
            descriptor = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        except FileExistsError:
            return False
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(_identity(), file)
        return True

    def _discard(self, owner: dict[str, Any]) -> None:
        """Remove the lock of `owner`, and no other: someone else may have replaced it by now."""
        aside = self.path.with_name(f"{LOCK}.{os.getpid()}.part")
        try:
            self.path.replace(aside)
        except FileNotFoundError:
            return
        found = _read(aside)
        if found is not None and found[0] != owner:
            aside.replace(self.path)
        else:
            aside.unlink(missing_ok=True)


def _identity() -> dict[str, Any]:
    status = _status(os.getpid())
    born = None if status is None else status[1]
    return {"pid": os.getpid(), "host": socket.gethostname(), "born": born}


def _read(path: Path) -> tuple[dict[str, Any], bool] | None:
    """Who holds the lock at `path`, and whether it is stale; None when it is gone."""
    try:
        age = time.time() - path.stat().st_mtime
        owner = json.loads(path.read_text(encoding="utf-8"))
        pid, host = int(owner["pid"]), str(owner["host"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        return {}, age > _WRITING
    here = host == socket.gethostname()  # a process elsewhere cannot be asked: it counts as alive
    return owner, here and not _is_running(pid, owner.get("born"))


def _is_running(pid: int, born: int | None) -> bool:
    """Whether the process that wrote the lock still runs: a number alone may have been reused."""
    if not _pid_exists(pid):
        return False
    status = _status(pid)
    if status is None:
        return True
    state, started = status
    return state not in "ZX" and born in (None, started)  # Z, X: killed, but not yet buried


def _status(pid: int) -> tuple[str, int] | None:
    """State of a process and its start in ticks since boot; None where the system does not say."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()  # from field 3 on; the name before may hold spaces
    return fields[0], int(fields[19])


def _pid_exists(pid: int) -> bool:
    if sys.platform == "win32":  # there os.kill(pid, 0) would send Ctrl-C
        import ctypes

        kernel = ctypes.windll.kernel32
        query, still_active = 0x1000, 259
        handle = kernel.OpenProcess(query, False, pid)
        if not handle:
            return False
        code = ctypes.c_ulong()
        kernel.GetExitCodeProcess(handle, ctypes.byref(code))
        kernel.CloseHandle(handle)
        return code.value == still_active
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
