"""Workers that are Ray actors, on this machine or on the machines of a cluster.

Only tasks and answers travel through Ray, a few hundred bytes each, and an actor has one task at a
time: pictures go from store to worker to store, and Ray's own memory stays empty.

Without an address Ray is started for this run alone, reachable from this machine only, with its
statistics switched off, and ended with it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from restore.allocator import keep_large_blocks
from restore.batch.events import BatchEvent, WorkerLost, WorkerStarted
from restore.batch.pool import STARTS
from restore.batch.tasks import Answer, Finished, Setup, Task
from restore.errors import MissingExtraError, OptionError, RestoreError, install_command

log = logging.getLogger("restore.batch")

_OBJECT_STORE = 80 << 20  # bytes; about the least that Ray takes
_LONGEST_PLACE = 16  # letters: of the 107 that the path of a socket may have, Ray takes the rest
_PATIENCE = 60.0  # seconds after which it is said that a cluster has no room


class Actor:
    """Body of an actor: a `Worker` that is made when the driver asks for it."""

    def __init__(self, setup: Setup, number: int, threads: int | None) -> None:
        if threads is not None:  # torch is not loaded yet
            os.environ["OMP_NUM_THREADS"] = str(threads)
        self._setup, self._number = setup, number
        self._worker: Any = None

    def start(self) -> int | RestoreError:
        """Load the model; the number of this process, or what went wrong."""
        from restore.batch.work import Worker

        keep_large_blocks()
        try:
            self._worker = Worker(self._setup, number=self._number)
        except RestoreError as error:
            return error
        return os.getpid()

    def run(self, task: Task) -> Answer:
        """Do a task."""
        answer: Answer = self._worker.run(task)
        return answer


@dataclass(kw_only=True, slots=True)
class _Slot:
    """An actor and what it does."""

    actor: Any
    call: Any
    """What it was asked last; None = it is free."""
    ready: bool = False
    task: Task | None = None


class RayPool:
    """Actors, each with the model loaded."""

    def __init__(
        self,
        setup: Setup,
        *,
        cluster: Cluster,
        tell: Callable[[BatchEvent], None],
    ) -> None:
        """Start the actors.

        Args:
            setup: what each is told.
            cluster: Ray, connected.
            tell: called when a worker is ready, and when one died.
        """
        self._ray, self._setup, self._tell = cluster.ray, setup, tell
        self._cluster = cluster
        self._deaths = 0
        self._begin = time.monotonic()
        self._said = False
        self._kind = self._ray.remote(
            num_cpus=cluster.cpus_each, num_gpus=cluster.gpus_each, max_restarts=0
        )(Actor)
        self._slots = [self._start(number) for number in range(setup.workers)]

    def free(self) -> list[int]:
        return [n for n, slot in enumerate(self._slots) if slot.ready and slot.call is None]

    def give(self, task: Task, worker: int) -> None:
        slot = self._slots[worker]
        slot.task, slot.call = task, slot.actor.run.remote(task)

    def wait(self, seconds: float) -> list[Finished]:
        calls = {slot.call: n for n, slot in enumerate(self._slots) if slot.call is not None}
        if not calls:
            time.sleep(seconds)
            return []
        ended, _ = self._ray.wait(list(calls), timeout=seconds)
        self._complain()
        return [item for call in ended for item in self._take(calls[call])]

    def close(self) -> None:
        with contextlib.suppress(Exception):  # the cluster may be gone
            for slot in self._slots:
                self._ray.kill(slot.actor)
        self._cluster.close()

    def _take(self, number: int) -> list[Finished]:
        """What the actor gave back."""
        slot = self._slots[number]
        call, slot.call = slot.call, None
        try:
            given = self._ray.get(call)
        except self._ray.exceptions.RayActorError as error:
            return self._bury(number, error)
        if isinstance(given, RestoreError):
            raise given
        if not slot.ready:
            slot.ready, self._deaths = True, 0
            self._tell(WorkerStarted(worker=number, pid=given))
            return []
        task, slot.task = slot.task, None
        assert task is not None
        return [Finished(task=task, answer=given, worker=number)]

    def _bury(self, number: int, error: Exception) -> list[Finished]:
        """Replace an actor that died; its task comes back as lost."""
        slot = self._slots[number]
        reason = _reason(error)
        if not slot.ready:
            self._deaths += 1
            if self._deaths >= STARTS:
                raise RestoreError(
                    f"workers die as they start ({reason}); look into the logs of Ray, and "
                    "whether restore is installed on its machines"
                )
        self._tell(WorkerLost(worker=number, reason=reason))
        self._slots[number] = self._start(number)
        if slot.task is None:
            return []
        answer = Answer(verdict="lost", error=f"its worker died: {reason}", again=True)
        return [Finished(task=slot.task, answer=answer, worker=number)]

    def _start(self, number: int) -> _Slot:
        actor = self._kind.remote(self._setup, number, self._cluster.threads)
        return _Slot(actor=actor, call=actor.start.remote())

    def _complain(self) -> None:
        late = time.monotonic() - self._begin > _PATIENCE
        if late and not self._said and not any(slot.ready for slot in self._slots):
            self._said = True
            log.warning("no worker is ready yet: the cluster is starting, or has no room for one")


def _reason(error: Exception) -> str:
    """The telling part of Ray's many lines."""
    text = " ".join(str(error).split())
    for begin in ("Worker exit detail: ", "Worker exit type: ", "The actor is dead because "):
        if begin in text:
            text = text.partition(begin)[2]
            break
    return text.partition(". Some common causes")[0][:200] or type(error).__name__


class Cluster:
    """A connection to Ray."""

    def __init__(self, address: str | None, *, workers: int, on_gpu: bool) -> None:
        """Connect, or start Ray on this machine.

        Args:
            address: `auto`, `HOST:PORT` or `ray://...`; None = Ray is started for this run alone.
            workers: how many are wanted; 0 = as many as there are GPUs, else by the cores.
            on_gpu: workers may take GPUs.

        Raises:
            MissingExtraError: Ray is not installed.
            OptionError: there is no cluster at the address.
        """
        self._folder: str | None = None
        if address is None:
            # Read as Ray is imported; it then listens on the loopback address alone.
            os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            import ray
        except ImportError as error:
            raise MissingExtraError(
                f"--engine ray needs Ray; run: {install_command('cluster')}"
            ) from error
        self.ray: Any = ray
        self._talks(False)
        with _own_signals():
            self._connect(address)
        have = self.ray.cluster_resources()
        gpus = int(have.get("GPU", 0)) if on_gpu else 0
        cpus = max(1, int(have.get("CPU", 1)))
        self.workers = workers or gpus or max(1, cpus // 4)
        self.gpus_each = min(1.0, gpus / self.workers)
        self.cpus_each = 1 if gpus else min(1.0, cpus / self.workers)
        self.threads = None if gpus else max(1, cpus // self.workers)

    def _connect(self, address: str | None) -> None:
        logging.getLogger("ray").setLevel(logging.ERROR)
        shared: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        if address is not None:
            try:
                self.ray.init(address=address, **shared)
            except (ConnectionError, ValueError, RuntimeError) as error:
                raise OptionError(
                    f"there is no Ray cluster at '{address}' ({' '.join(str(error).split())}); "
                    "start one with 'ray start --head', or leave --address out"
                ) from error
            return
        self._folder = _short_folder()
        self.ray.init(
            include_dashboard=False,
            object_store_memory=_OBJECT_STORE,
            num_cpus=_cores(),
            _node_ip_address="127.0.0.1",
            _temp_dir=self._folder,
            **shared,
        )

    def _talks(self, allowed: bool) -> None:
        """Whether Ray may print on stdout, where it tells of dead workers, and `--json` wants to be
        alone. It has no setting for that; this switch is the one that its debugger turns."""
        with contextlib.suppress(AttributeError):
            self.ray._private.worker._worker_logs_enabled = allowed

    def close(self) -> None:
        """Leave the cluster; what was started here ends."""
        self.ray.shutdown()
        self._talks(True)
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


def _short_folder() -> str:
    """A new temporary folder whose path is short enough for the sockets that Ray puts below it."""
    place = tempfile.gettempdir()
    if len(place) > _LONGEST_PLACE and os.access("/tmp", os.W_OK):
        place = "/tmp"
    return tempfile.mkdtemp(prefix="restore-ray-", dir=place)


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """Keep our way of leaving at SIGTERM: Ray puts its own in the place."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
