"""`restore batch status`: what the manifest says, also while a batch is at work."""

from __future__ import annotations

import json
import sqlite3
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from restore.batch.manifest import NAME
from restore.batch.places import find_manifest
from restore.batch.store import WORK, open_store
from restore.errors import InputError

_RECENT = 600.0  # seconds whose items make the rate


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchStatus:
    """How a batch stands."""

    target: str
    """DST."""
    items: int
    """Pictures and clips that are known."""
    done: int
    """Items with a result."""
    running: int
    """Items in work; when no batch is at work, what it had in hand as it was killed."""
    left: int
    """Items nobody has begun with."""
    failed: int
    """Items without a result."""
    pieces_done: int
    """Pieces of split clips that are finished, of clips in work."""
    pieces: int
    """Pieces of those clips."""
    frames: int
    """Pictures, and frames of clips, that were restored."""
    per_minute: float
    """Items finished per minute, over the latest ten minutes of work."""
    eta_seconds: float | None
    """Seconds to go at that pace; None = unknown, or nothing was finished lately."""
    failures: tuple[tuple[str, str], ...]
    """Source and reason of what failed, clips that broke off included."""


def read_status(target: str | Path) -> BatchStatus:
    """How the batch into `target` stands.

    Args:
        target: DST, as it was given to `restore_batch`.

    Raises:
        InputError: there was none, or its manifest cannot be read.
    """
    store = open_store(str(target))
    with tempfile.TemporaryDirectory() as scratch:
        path = find_manifest(store, Path(scratch))
        try:
            with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as file:
                return _read(file, store.url)
        except sqlite3.Error as error:
            raise InputError(
                f"the manifest of {store.url} cannot be read ({error}); move "
                f"{WORK}/{NAME} away, and run the batch again with --overwrite"
            ) from error


def _read(file: sqlite3.Connection, target: str) -> BatchStatus:
    states = dict(file.execute("SELECT state, count(*) FROM items GROUP BY state"))
    running = states.get("running", 0) + states.get("split", 0)
    left = states.get("pending", 0) + states.get("waiting", 0)
    pieces = dict(file.execute("SELECT state, count(*) FROM pieces GROUP BY state"))
    frames = file.execute("SELECT coalesce(sum(frames), 0) FROM items WHERE state = 'done'")
    failures = file.execute(
        "SELECT key, error FROM items WHERE state = 'failed' OR (state = 'done' AND error != '') "
        "ORDER BY key"
    )
    pace = _pace(file)
    return BatchStatus(
        target=target,
        items=sum(states.values()),
        done=states.get("done", 0),
        running=running,
        left=left,
        failed=states.get("failed", 0),
        pieces_done=pieces.get("done", 0),
        pieces=sum(pieces.values()),
        frames=frames.fetchone()[0],
        per_minute=60 * pace,
        eta_seconds=(running + left) / pace if pace else None if running + left else 0.0,
        failures=tuple(failures.fetchall()),
    )


def _pace(file: sqlite3.Connection) -> float:
    """Items per second, up to the latest one that was finished."""
    row = file.execute("SELECT value FROM meta WHERE name = 'started'").fetchone()
    started = float(json.loads(row[0])) if row else time.time()
    latest = file.execute("SELECT max(finished) FROM items WHERE state = 'done'").fetchone()[0]
    if latest is None or latest <= started:
        return 0.0
    since = max(started, latest - _RECENT)
    count = file.execute(
        "SELECT count(*) FROM items WHERE state = 'done' AND finished >= ?", (since,)
    ).fetchone()[0]
    return float(count / max(latest - since, 1e-3))
