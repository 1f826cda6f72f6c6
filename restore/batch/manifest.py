"""The manifest: one row an item, in SQLite, written by the driver alone.

    DST/.restore-batch/manifest.sqlite

Every change is one transaction in a write-ahead log, so that a driver killed at any moment leaves a
manifest whose every word is true: what it calls done lies in its place. What was in work then is
done again. Others may read it at any time (`restore batch status`).
"""

from __future__ import annotations

import itertools
import json
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from restore.batch.listing import Found, Kind, claim, claims_of
from restore.batch.schema import FORMAT, LISTING, MERGE, RECOVER, TABLES
from restore.batch.store import Entry
from restore.batch.tasks import Answer, Piece, Task, as_dict
from restore.errors import OutputError
from restore.video.journal import differences

NAME = "manifest.sqlite"
_ROWS = 1000  # inserted at a time
_RECENT = 60.0  # seconds whose items make the rate


class Manifest:
    """The items of a batch and what became of them."""

    def __init__(self, path: Path | str) -> None:
        """Open or make the manifest.

        Args:
            path: the file, or `:memory:` for a dry run.

        Raises:
            OutputError: the file is no manifest, or one of another version.
        """
        try:
            self._db = sqlite3.connect(path, isolation_level=None, timeout=30)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")  # a crash loses nothing
            self._db.executescript(TABLES)
            version = self.meta("format")
        except sqlite3.Error as error:
            raise OutputError(
                f"the manifest {path} cannot be used ({error}); move it away to start again"
            ) from error
        if version not in (None, FORMAT):
            raise OutputError(
                f"the manifest {path} is of another version of restore (format {version}, this one "
                f"has {FORMAT}); give another DST, or move it away to start again"
            )
        self._set("format", FORMAT)

    def close(self) -> None:
        """Put what was in work back, and leave one file."""
        self._db.executescript(RECOVER)
        with suppress(sqlite3.OperationalError):  # somebody reads just now: the log stays
            self._db.execute("PRAGMA busy_timeout = 1000")
            self._db.execute("PRAGMA journal_mode = DELETE")
        self._db.close()

    def read_from(self, path: Path) -> None:
        """Become a copy of the manifest at `path`, which may be in use."""
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as file:
            file.backup(self._db)

    def copy_to(self, path: Path) -> None:
        """Write all of it into a new file."""
        with closing(sqlite3.connect(path)) as file:
            self._db.backup(file)

    def meta(self, name: str) -> Any:
        """A fact about the batch; None = not known."""
        row = self._db.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return None if row is None else json.loads(row[0])

    def _set(self, name: str, value: Any) -> None:
        row = (name, json.dumps(value))
        self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", row)

    def begin(
        self, *, source: str, target: str, settings: Mapping[str, Any], overwrite: bool
    ) -> None:
        """Start, or go on with what an earlier run left; what failed is tried again.

        Raises:
            OutputError: the earlier run had another source or other settings.
        """
        now = json.loads(json.dumps({"SRC": source, **settings}))
        then = self.meta("settings")
        changed = [] if then is None else differences(then, now)
        if changed and not overwrite:
            raise OutputError(
                f"{target} holds results of other settings: "
                f"{', '.join(changed)}; use the same again, give another DST, or start again "
                "with --overwrite"
            )
        with self._transaction():
            self._set("settings", now)
            self._set("started", time.time())
            if overwrite:
                self._db.execute("DELETE FROM items")
                self._db.execute("DELETE FROM pieces")
            for statement in RECOVER.split(";"):
                self._db.execute(statement)
            self._db.execute(
                "UPDATE items SET state = 'pending', attempts = 0, error = '' "
                "WHERE state = 'failed'"
            )

    def merge(
        self,
        found: Iterable[Found],
        present: Iterable[Entry],
        *,
        watching: bool,
        overwrite: bool = False,
    ) -> None:
        """Take in what lies in SRC.

        Args:
            found: the inputs.
            present: the files that lie in DST.
            watching: a file that is new or has changed may still be growing: it waits until the
                next look finds it unchanged.
            overwrite: results may replace files of DST that are not this batch's.
        """
        self._db.executescript(LISTING)
        try:
            rows = (
                (
                    *(i.entry.key, i.kind, i.entry.size, i.entry.stamp),
                    *(i.plain, claim(i.kind, i.plain), i.full, claim(i.kind, i.full)),
                )
                for i in found
            )
            self._insert(f"INSERT OR IGNORE INTO found VALUES ({', '.join('?' * 8)})", rows)
            names = ((one,) for entry in present for one in claims_of(entry.key))
            self._insert("INSERT OR IGNORE INTO present VALUES (?)", names)
            values = {"fresh": "waiting" if watching else "pending", "overwrite": int(overwrite)}
            with self._transaction():
                for statement in MERGE:
                    self._db.execute(statement, values)
        finally:
            for table in ("found", "present", "moved"):
                self._db.execute(f"DROP TABLE temp.{table}")

    def waiting_tasks(self, limit: int) -> list[Task]:
        """Work that can be given out now, at most `limit`: begun clips first, then other clips.

        What failed before comes last, so that what kills its workers holds up nothing else.
        """
        sources = (self._joins(), self._pieces(limit), self._items("= 0", limit))
        tasks = itertools.chain(*sources, self._items("> 0", limit))
        return list(itertools.islice(tasks, limit))

    def _items(self, attempts: str, limit: int) -> Iterator[Task]:
        rows = self._db.execute(
            "SELECT id, kind, key, name, attempts, worker FROM items "
            f"WHERE state = 'pending' AND attempts {attempts} ORDER BY attempts, kind, id LIMIT ?",
            (limit,),
        )
        for item, kind, key, name, tried, worker in rows:
            yield Task(
                item=item,
                kind=kind,
                source=key,
                name=name,
                attempt=tried + 1,
                avoid=worker if tried else None,
            )

    def _joins(self) -> Iterator[Task]:
        rows = self._db.execute(
            "SELECT id, key, name, attempts, (SELECT count(*) FROM pieces WHERE item = id) "
            "FROM items WHERE state = 'split' AND NOT EXISTS "
            "(SELECT 1 FROM pieces WHERE item = id AND pieces.state != 'done')"
        )
        for item, key, name, attempts, count in rows:
            yield Task(
                item=item, kind="join", source=key, name=name, attempt=attempts + 1, pieces=count
            )

    def _pieces(self, limit: int) -> Iterator[Task]:
        rows = self._db.execute(
            'SELECT item, key, name, number, first, last, "begin", p.attempts, p.worker '
            "FROM pieces AS p JOIN items ON items.id = item "
            "WHERE p.state = 'pending' AND items.state = 'split' "
            "ORDER BY min(p.attempts, 1), item, number LIMIT ?",
            (limit,),
        )
        for item, key, name, number, first, last, begin, attempts, worker in rows:
            yield Task(
                item=item,
                kind="piece",
                source=key,
                name=name,
                attempt=attempts + 1,
                piece=Piece(number=number, first=first, last=last, begin=begin),
                avoid=worker if attempts else None,
            )

    def given(self, task: Task, worker: int) -> None:
        """A worker has the task."""
        if task.piece is not None:
            self._db.execute(
                "UPDATE pieces SET state = 'running', attempts = ?, worker = ? "
                "WHERE item = ? AND number = ?",
                (task.attempt, worker, task.item, task.piece.number),
            )
            return
        self._db.execute(
            "UPDATE items SET state = 'running', begun = 1, attempts = ?, worker = ? WHERE id = ?",
            (task.attempt, worker, task.item),
        )

    def done(self, task: Task, answer: Answer, worker: int) -> float:
        """The task is done; returns the working time of the whole item so far."""
        if task.piece is not None:
            self._db.execute(
                "UPDATE pieces SET state = 'done', seconds = ? WHERE item = ? AND number = ?",
                (answer.seconds, task.item, task.piece.number),
            )
            return answer.seconds
        with self._transaction():
            earlier = self._db.execute(
                "SELECT coalesce(sum(seconds), 0) FROM pieces WHERE item = ?", (task.item,)
            ).fetchone()[0]
            self._db.execute(
                "UPDATE items SET state = 'done', output = ?, error = ?, notes = ?, seconds = ?, "
                "frames = ?, worker = ?, finished = ? WHERE id = ?",
                (
                    *(answer.output, answer.error, "\n".join(answer.notes)),
                    *(answer.seconds + earlier, answer.frames, worker, time.time(), task.item),
                ),
            )
            self._db.execute("DELETE FROM pieces WHERE item = ?", (task.item,))
        return float(answer.seconds + earlier)

    def split(self, task: Task, pieces: Iterable[Piece]) -> None:
        """The clip is to be done in pieces."""
        with self._transaction():
            self._db.execute("DELETE FROM pieces WHERE item = ?", (task.item,))
            self._db.executemany(
                'INSERT INTO pieces (item, number, first, last, "begin") '
                "VALUES (:item, :number, :first, :last, :begin)",
                [{"item": task.item, **as_dict(piece)} for piece in pieces],
            )
            self._db.execute(
                "UPDATE items SET state = 'split', attempts = 0 WHERE id = ?", (task.item,)
            )

    def again(self, task: Task) -> None:
        """The task is to be tried once more."""
        if task.piece is not None:
            self._db.execute(
                "UPDATE pieces SET state = 'pending' WHERE item = ? AND number = ?",
                (task.item, task.piece.number),
            )
            return
        state = "split" if task.kind == "join" else "pending"
        self._db.execute("UPDATE items SET state = ? WHERE id = ?", (state, task.item))

    def failed(self, task: Task, error: str) -> None:
        """The item gets no result, whatever became of its other pieces."""
        with self._transaction():
            self._db.execute(
                "UPDATE items SET state = 'failed', error = ?, finished = ? WHERE id = ?",
                (error, time.time(), task.item),
            )
            self._db.execute("DELETE FROM pieces WHERE item = ?", (task.item,))

    def is_split(self, item: int) -> bool:
        """Whether pieces of the item are still wanted."""
        row = self._db.execute("SELECT state FROM items WHERE id = ?", (item,)).fetchone()
        return row is not None and row[0] == "split"

    def begun_clips(self) -> list[int]:
        """Clips of which unfinished work is kept."""
        rows = self._db.execute(
            "SELECT id FROM items WHERE kind = 'clip' AND begun AND state IN ('pending', 'split')"
        )
        return [item for (item,) in rows]

    def count_copies(self) -> None:
        """One more copy is about to be made: the one with the most is the latest."""
        self._set("copies", int(self.meta("copies") or 0) + 1)

    def counts(self) -> dict[str, int]:
        """Items in each state that occurs."""
        return dict(self._db.execute("SELECT state, count(*) FROM items GROUP BY state"))

    def pending(self) -> Iterator[tuple[Kind, str, str]]:
        """Kind, source and name of each item to be done."""
        yield from self._db.execute(
            "SELECT kind, key, name FROM items WHERE state IN ('pending', 'split', 'waiting') "
            "ORDER BY key"
        )

    def failures(self) -> list[tuple[str, str]]:
        """Source and reason of each item that failed, or whose input is damaged."""
        return list(
            self._db.execute(
                "SELECT key, error FROM items WHERE state = 'failed' "
                "OR (state = 'done' AND error != '') ORDER BY key"
            )
        )

    def pace(self) -> tuple[float, float | None]:
        """Items finished per second of late, and working seconds that are left, if known."""
        now, started = time.time(), float(self.meta("started") or 0)
        since = max(started, now - _RECENT)
        count = self._db.execute(
            "SELECT count(*) FROM items WHERE state = 'done' AND finished >= ?", (since,)
        ).fetchone()[0]
        return count / max(now - since, 1e-3), self._work_left()

    def _work_left(self) -> float | None:
        """Mean time of each kind's latest results, times what is left of that kind."""
        left = self._db.execute(
            "SELECT kind, count(*) FROM items "
            "WHERE state IN ('pending', 'running', 'split', 'waiting') GROUP BY kind"
        ).fetchall()
        total = 0.0
        for kind, count in left:
            mean = self._db.execute(
                "SELECT avg(seconds) FROM (SELECT seconds FROM items "
                "WHERE state = 'done' AND kind = ? ORDER BY id DESC LIMIT 200)",
                (kind,),
            ).fetchone()[0]
            if mean is None:
                return None
            total += mean * count
        return total

    def _insert(self, statement: str, rows: Iterable[tuple[Any, ...]]) -> None:
        """Insert rows as they come, some at a time."""
        rows = iter(rows)
        while part := list(itertools.islice(rows, _ROWS)):
            with self._transaction():
                self._db.executemany(statement, part)

    def _transaction(self) -> _Transaction:
        return _Transaction(self._db)


class _Transaction:
    """All of what happens inside, or nothing."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._db = database

    def __enter__(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._db.execute("COMMIT" if kind is None else "ROLLBACK")
