"""Pools without processes, for what the driver does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from restore.batch.events import BatchEvent, BatchReport
from restore.batch.run import restore_items
from restore.batch.store import open_store
from restore.batch.tasks import Answer, Finished, Setup, Task
from restore.batch.work import Worker
from restore.batch_config import BatchConfig

Act = Callable[[Task], Answer]


class FakePool:
    """Workers that are a function; each task is done when it is waited for."""

    def __init__(self, act: Act, workers: int = 2) -> None:
        self.act = act
        self.held: dict[int, Task] = {}
        self.workers = workers
        self.most = 0
        self.closed = False
        self.on_wait: Callable[[], None] = lambda: None

    def free(self) -> list[int]:
        return [n for n in range(self.workers) if n not in self.held]

    def give(self, task: Task, worker: int) -> None:
        assert worker not in self.held
        self.held[worker] = task
        self.most = max(self.most, len(self.held))

    def wait(self, seconds: float) -> list[Finished]:
        self.on_wait()
        finished = [
            Finished(task=task, answer=self.act(task), worker=n) for n, task in self.held.items()
        ]
        self.held.clear()
        return finished

    def close(self) -> None:
        self.closed = True


def drive(
    source: str | Path,
    target: str | Path,
    act: Act | None = None,
    *,
    pool: FakePool | None = None,
    **settings: Any,
) -> tuple[BatchReport, list[BatchEvent]]:
    """`restore_batch` with such a pool; without `act` a real worker in this process."""
    config = BatchConfig(model="compact-fast", **settings)
    stores = open_store(str(source)), open_store(str(target))
    events: list[BatchEvent] = []

    def pool_of(*_: Any, **__: Any) -> tuple[FakePool, int]:
        made = pool or FakePool(act or real_worker(source, target, config))
        return made, made.workers

    report = restore_items(*stores, config, events.append, pool_of=pool_of)
    return report, events


def real_worker(
    source: str | Path, target: str | Path, config: BatchConfig, *, workers: int = 2
) -> Act:
    """What one of some workers does, in this process."""
    setup = Setup(config=config, source=str(source), target=str(target), workers=workers)
    return Worker(setup, number=0).run


def named(events: list[BatchEvent], kind: type[Any]) -> list[Any]:
    """Events of one kind."""
    return [event for event in events if isinstance(event, kind)]
