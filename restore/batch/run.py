"""`restore_batch`: the driver, which lists, gives out, records and tells.

It holds a few tasks at a time, whatever the number of items: all others are rows of the manifest.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections import deque
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from restore.batch.clips import clear_parts, parts_key
from restore.batch.events import (
    BatchEvent,
    BatchProgress,
    BatchReport,
    Given,
    ItemDone,
    ItemFailed,
    ItemPlanned,
    ItemRetried,
    Split,
    WorkerLost,
)
from restore.batch.listing import check_places, claim, find_items
from restore.batch.manifest import NAME, Manifest
from restore.batch.places import Home, home_folder
from restore.batch.pool import Pool
from restore.batch.store import WORK, Store, open_store
from restore.batch.tasks import Finished, Task
from restore.batch.workers import make_pool, model_stamp
from restore.batch_config import BatchConfig
from restore.errors import RestoreError

log = logging.getLogger("restore.batch")

PREPARED = 64
"""Tasks read from the manifest at a time."""

_TICK = 0.5  # seconds between two reports of progress
_COPY = 30.0  # seconds between two copies of the manifest to a store elsewhere

Tell = Callable[[BatchEvent], None]
MakePool = Callable[..., tuple[Pool, int]]


def restore_batch(
    src: str | Path,
    dst: str | Path,
    *,
    config: BatchConfig | None = None,
    on_event: Tell | None = None,
    **settings: Any,
) -> BatchReport:
    """Restore all pictures and clips of a folder into another one, sharing the work out.

    The same call goes on where an earlier one was ended, by whatever: finished items are left
    alone unless their source has changed. One that cannot be restored never stops the others.

    Args:
        src: folder, or an address such as `s3://bucket/photos`.
        dst: likewise; the tree is mirrored into it.
        config: what to do; default: `BatchConfig()`.
        on_event: called as the work goes on, in this thread.
        settings: fields of `BatchConfig` that replace those of `config`, such as `workers=2`.

    Returns:
        The report; look at `failed`.

    Raises:
        OptionError: the settings do not go together, or with the folders.
        InputError: the source is no folder, or cannot be listed.
        OutputError: the target cannot be written, holds results of other settings, or another run
            is at work on it.
        WeightsError: the model cannot be loaded.
        MissingExtraError: Ray, or the library of a store, is not installed.
    """
    begin = time.perf_counter()
    config = BatchConfig(**settings) if config is None else replace(config, **settings)
    stores = open_store(str(src)), open_store(str(dst))
    check_places(*stores)
    tell = on_event or (lambda event: None)
    run = preview if config.dry_run else restore_items
    report = run(*stores, config, tell)
    report.seconds = time.perf_counter() - begin
    return report


def preview(source: Store, target: Store, config: BatchConfig, tell: Tell) -> BatchReport:
    """What a run would do, found out in a copy of the manifest."""
    report = BatchReport()
    with closing(Manifest(":memory:")) as manifest:
        path = home_folder(target) / NAME
        if path.is_file():
            manifest.read_from(path)
        _begin(manifest, source, target, config)
        for kind, key, name in manifest.pending():
            report.planned += 1
            tell(ItemPlanned(source=key, destination=claim(kind, name)))
        for key, message in manifest.failures():
            tell(ItemFailed(source=key, message=message))
        report.failed = manifest.failures()
        report.skipped = manifest.counts().get("done", 0)
    return report


def restore_items(
    source: Store,
    target: Store,
    config: BatchConfig,
    tell: Tell,
    *,
    pool_of: MakePool = make_pool,
) -> BatchReport:
    """Do all work there is; see `restore_batch`."""
    home = Home(target)
    with home as opened, closing(opened) as manifest:
        _begin(manifest, source, target, config)
        _clear(target, manifest)
        report = BatchReport(skipped=manifest.counts().get("done", 0))
        driver = _Driver(source, target, config, manifest, home, report, tell)
        for key, message in manifest.failures():  # names that are taken, and the like
            tell(ItemFailed(source=key, message=message))
        try:
            if manifest.counts().keys() & {"pending", "split", "waiting"} or config.watch:
                pool, workers = pool_of(
                    config, source=source.url, target=target.url, tell=driver.hear
                )
                with closing(pool):
                    driver.work(pool, workers)
        finally:
            report.failed = manifest.failures()
            _clear_scratch(target)
            home.keep(manifest)
    return report


def _begin(manifest: Manifest, source: Store, target: Store, config: BatchConfig) -> None:
    settings = {**config.stamp(), **model_stamp(config)}
    manifest.begin(
        source=source.url, target=target.url, settings=settings, overwrite=config.overwrite
    )
    _look(manifest, source, target, config, overwrite=config.overwrite)


def _look(
    manifest: Manifest, source: Store, target: Store, config: BatchConfig, *, overwrite: bool
) -> None:
    manifest.merge(
        find_items(source, target, config),
        target.entries() if target.local is None or target.local.is_dir() else (),
        watching=config.watch,
        overwrite=overwrite,
    )


def _clear(target: Store, manifest: Manifest) -> None:
    """Remove what workers of a killed run left, but for what is gone on with."""
    _clear_scratch(target)
    clear_parts(target, {str(item) for item in manifest.begun_clips()})


def _clear_scratch(target: Store) -> None:
    if target.local is not None:
        shutil.rmtree(target.local / WORK / "scratch", ignore_errors=True)


class _Driver:
    """Gives tasks to free workers until there is nothing more to do."""

    def __init__(
        self,
        source: Store,
        target: Store,
        config: BatchConfig,
        manifest: Manifest,
        home: Home,
        report: BatchReport,
        tell: Tell,
    ) -> None:
        self._source, self._target, self._config = source, target, config
        self._manifest, self._home, self._report, self._tell = manifest, home, report, tell
        self._prepared: deque[Task] = deque()
        self._held = 0  # tasks at workers
        self._workers = 1
        self._told = self._copied = self._looked = time.monotonic()

    def hear(self, event: BatchEvent) -> None:
        """Pass on what a pool tells."""
        if isinstance(event, WorkerLost):
            self._report.workers_lost += 1
        self._tell(event)

    def work(self, pool: Pool, workers: int) -> None:
        """Until all is done, or for ever."""
        self._workers = workers
        while True:
            self._refill()
            self._hand_out(pool)
            if not self._held and not self._prepared:
                if not self._config.watch:
                    break
                self._rest(pool)
            else:
                for finished in pool.wait(_TICK):
                    self._held -= 1
                    self._settle(finished)
            self._regularly()
        self._say_progress()

    def _hand_out(self, pool: Pool) -> None:
        """Give every free worker a task, as far as there are any."""
        for worker in pool.free():
            task = self._next(worker, alone=self._workers == 1)
            if task is None:
                continue
            self._manifest.given(task, worker)
            self._held += 1
            self._tell(
                Given(
                    source=task.source,
                    task=task.kind,
                    piece=None if task.piece is None else task.piece.number,
                    worker=worker,
                    attempt=task.attempt,
                )
            )
            pool.give(task, worker)

    def _next(self, worker: int, *, alone: bool) -> Task | None:
        """A task for a worker: not one that it failed at, if another one can have that."""
        self._refill()
        for _ in range(len(self._prepared)):
            task = self._prepared.popleft()
            if alone or task.avoid != worker:
                return task
            self._prepared.append(task)
        return None

    def _refill(self) -> None:
        if not self._prepared:
            self._prepared.extend(self._manifest.waiting_tasks(PREPARED))

    def _settle(self, finished: Finished) -> None:
        task, answer = finished.task, finished.answer
        if task.piece is not None and not self._manifest.is_split(task.item):
            return  # another piece failed for good, and the clip with it
        if answer.verdict == "done":
            self._done(finished)
        elif answer.verdict == "split":
            self._manifest.split(task, answer.pieces)
            self._prepared.clear()  # the pieces come first
            self._tell(Split(source=task.source, pieces=len(answer.pieces)))
        elif answer.again and task.attempt < self._config.attempts:
            self._manifest.again(task)
            self._tell(ItemRetried(source=task.source, message=answer.error, attempt=task.attempt))
        else:
            tries = f" (tried {task.attempt} times)" if task.attempt > 1 else ""
            self._manifest.failed(task, answer.error + tries)
            self._drop_parts(task)
            self._tell(ItemFailed(source=task.source, message=answer.error + tries))

    def _done(self, finished: Finished) -> None:
        task, answer = finished.task, finished.answer
        seconds = self._manifest.done(task, answer, finished.worker)
        if task.piece is not None:
            self._prepared.clear()  # the join may be due, and comes first
            return
        if task.kind == "join":
            self._drop_parts(task)
        self._report.done += 1
        self._report.frames += answer.frames
        for note in answer.notes:
            log.warning("%s: %s", task.source, note)
        self._tell(
            ItemDone(
                source=task.source,
                destination=answer.output,
                seconds=seconds,
                frames=answer.frames,
                worker=finished.worker,
                notes=answer.notes,
                damaged=answer.error,
            )
        )

    def _drop_parts(self, task: Task) -> None:
        if task.kind in ("piece", "join"):
            self._target.remove(parts_key(task.item))

    def _rest(self, pool: Pool) -> None:
        """Nothing to do: let the workers say what they have to say until the next look."""
        until = self._looked + self._config.poll
        pool.wait(max(0.0, min(_TICK, until - time.monotonic())))

    def _regularly(self) -> None:
        now = time.monotonic()
        if now - self._told >= _TICK:
            self._told = now
            self._say_progress()
        if now - self._copied >= _COPY:
            self._copied = now
            self._home.keep(self._manifest)
        if self._config.watch and now - self._looked >= self._config.poll:
            self._look_again()

    def _look_again(self) -> None:
        """Take in what is new; a store that cannot be reached now may be, later."""
        begin = time.monotonic()
        try:
            _look(self._manifest, self._source, self._target, self._config, overwrite=False)
        except RestoreError as error:
            log.warning("%s", error)
        self._prepared.clear()  # some of it may be gone
        took = time.monotonic() - begin
        self._looked = time.monotonic() + 10 * took  # large trees are not looked at all the time

    def _say_progress(self) -> None:
        counts = self._manifest.counts()
        rate, work = self._manifest.pace()
        done, failed = counts.get("done", 0), counts.get("failed", 0)
        self._tell(
            BatchProgress(
                done=done,
                failed=failed,
                left=sum(counts.values()) - done - failed,
                rate=rate,
                eta_seconds=None if work is None else work / self._workers,
            )
        )
