"""Workers that are processes of this machine, each talking to the driver through a pipe of its own.

A worker that is killed shows as a closed pipe. One whose driver is killed ends itself within
moments, so that a new driver finds nobody else at work.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import connection
from typing import Any

from restore.allocator import keep_large_blocks
from restore.batch.events import BatchEvent, WorkerLost, WorkerStarted
from restore.batch.pool import STARTS
from restore.batch.tasks import Answer, Finished, Setup, Task
from restore.errors import RestoreError

log = logging.getLogger("restore.batch")

_GRACE = 5.0  # seconds for a process to end


@dataclass(frozen=True, kw_only=True, slots=True)
class Room:
    """What a worker may use of the machine."""

    threads: int | None = None
    """Threads of the network on a CPU; None = as PyTorch does."""
    gpu: str | None = None
    """The one GPU that it sees; None = all."""


@dataclass(kw_only=True, slots=True)
class _Slot:
    """A worker and what it does."""

    process: Any
    pipe: connection.Connection[Any, Any]
    ready: bool = False
    task: Task | None = None


class LocalPool:
    """Processes, each with the model loaded."""

    def __init__(
        self, setup: Setup, *, rooms: list[Room], tell: Callable[[BatchEvent], None]
    ) -> None:
        """Start the processes; they load the model while the driver goes on.

        Args:
            setup: what each is told.
            rooms: one for each worker.
            tell: called when a worker is ready, and when one died.
        """
        self._setup, self._rooms, self._tell = setup, rooms, tell
        self._context = multiprocessing.get_context("spawn")
        self._deaths = 0  # in a row, before a worker was ready
        self._slots = [self._start(number) for number in range(len(rooms))]

    def free(self) -> list[int]:
        return [n for n, slot in enumerate(self._slots) if slot.ready and slot.task is None]

    def give(self, task: Task, worker: int) -> None:
        slot = self._slots[worker]
        slot.task = task
        try:
            slot.pipe.send(task)
        except OSError as error:  # it died just now, which `wait` finds out
            log.debug("worker %d cannot be reached: %s", worker, error)

    def wait(self, seconds: float) -> list[Finished]:
        pipes = {slot.pipe: number for number, slot in enumerate(self._slots)}
        finished = []
        for pipe in connection.wait(list(pipes), seconds):
            number = pipes[pipe]  # type: ignore[index]
            slot = self._slots[number]
            try:
                message = slot.pipe.recv()
            except (EOFError, OSError):
                finished += self._bury(number)
                continue
            if isinstance(message, RestoreError):
                raise message
            if isinstance(message, Answer):
                assert slot.task is not None
                finished.append(Finished(task=slot.task, answer=message, worker=number))
                slot.task = None
            else:
                slot.ready, self._deaths = True, 0
                self._tell(WorkerStarted(worker=number, pid=message))
        return finished

    def close(self) -> None:
        for slot in self._slots:
            slot.process.terminate()
        end = time.monotonic() + _GRACE
        for slot in self._slots:
            slot.process.join(max(0.0, end - time.monotonic()))
            if slot.process.is_alive():
                slot.process.kill()
                slot.process.join()
            slot.pipe.close()

    def _start(self, number: int) -> _Slot:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(
            target=_main,
            args=(theirs, self._setup, number, self._rooms[number]),
            name=f"restore-worker-{number}",
            daemon=True,
        )
        process.start()
        theirs.close()  # or the pipe would not close with the process
        return _Slot(process=process, pipe=ours)

    def _bury(self, number: int) -> list[Finished]:
        """Replace a worker that died; its task comes back as lost."""
        slot = self._slots[number]
        slot.process.join(_GRACE)
        reason = _reason(slot.process.exitcode)
        slot.pipe.close()
        if not slot.ready:
            self._deaths += 1
            if self._deaths >= STARTS:
                raise RestoreError(
                    f"workers die as they start (the last one {reason}); give fewer --workers, "
                    "or add --debug and try 'restore image' on one picture"
                )
        self._tell(WorkerLost(worker=number, reason=reason))
        self._slots[number] = self._start(number)
        if slot.task is None:
            return []
        answer = Answer(verdict="lost", error=f"its worker {reason}", again=True)
        return [Finished(task=slot.task, answer=answer, worker=number)]


def _reason(status: int | None) -> str:
    if status is None:
        return "cannot be reached"
    if status >= 0:
        return f"ended with status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    memory = ", as the system does when memory runs out" if name == "SIGKILL" else ""
    return f"was killed by {name}{memory}"


def _main(pipe: connection.Connection[Any, Any], setup: Setup, number: int, room: Room) -> None:
    """Body of a worker's process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the driver ends the workers
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _follow_parent()
    if room.gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = room.gpu
    if room.threads is not None:
        os.environ.setdefault("OMP_NUM_THREADS", str(room.threads))
    keep_large_blocks()
    from restore.batch.work import Worker  # loads torch, which looks at the environment

    try:
        try:
            worker = Worker(setup, number=number)
        except RestoreError as error:
            pipe.send(error)
            return
        pipe.send(os.getpid())
        while True:
            pipe.send(worker.run(pipe.recv()))
    except (EOFError, BrokenPipeError):
        return  # the driver is gone


def _follow_parent() -> None:
    """End this process as soon as the driver has ended, whatever it is doing."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, name="restore-parent", daemon=True).start()
