"""A worker: it loads the model once, and then does one task after another."""

from __future__ import annotations

import dataclasses
import logging
import posixpath
import shutil
import tempfile
import time
from pathlib import Path

from restore.batch import clips
from restore.batch.store import WORK, Store, open_store
from restore.batch.tasks import Answer, Setup, Task
from restore.config import EngineConfig
from restore.engine import Restorer, fitting, load
from restore.errors import InputError, MissingExtraError, OptionError, WeightsError
from restore.image.batch import explain, one_line
from restore.image.job import restore_file

log = logging.getLogger("restore.batch")

_FINAL = (InputError, OptionError, MissingExtraError, WeightsError)
"""Errors that another attempt would meet again."""


class Worker:
    """Does tasks, one at a time, in the process that makes it.

    Raises:
        RestoreError: the model cannot be loaded, so that no task can be done.
    """

    def __init__(self, setup: Setup, *, number: int) -> None:
        self._setup, self._number = setup, number
        self._source = open_store(setup.source)
        self._target = open_store(setup.target)
        self._pictures = setup.config.pictures()
        scale = setup.config.scale
        if scale is not None:
            self._pictures = fitting(self._pictures, scale)
        self._restorer: Restorer | None = None
        self._engine(self._pictures)

    def run(self, task: Task) -> Answer:
        """Do a task; whatever goes wrong is in the answer."""
        begin = time.perf_counter()
        scratch: Path | None = None
        try:
            scratch = self._scratch()
            answer = self._run(task, scratch)
        except Exception as error:  # one bad item must not stop the others
            log.debug("%s failed", task.source, exc_info=True)
            hint = "give fewer --workers, or choose a smaller --scale"
            said = one_line(explain(error, memory_hint=hint))
            # Messages begin with the name of the file, which the report has already.
            said = said.partition(f"{posixpath.basename(task.source)}': ")[2] or said
            again = not isinstance(error, _FINAL)
            answer = Answer(verdict="failed", error=said, again=again)
        finally:
            if scratch is not None:
                shutil.rmtree(scratch, ignore_errors=True)
        return dataclasses.replace(answer, seconds=time.perf_counter() - begin)

    def _run(self, task: Task, scratch: Path) -> Answer:
        source = self._source.fetch(task.source, scratch / "source")
        if not source.exists():
            raise InputError("it is gone; run the batch again")
        if task.kind == "picture":
            return self._picture(task, source, scratch)
        return self._clip(task, source, scratch)

    def _picture(self, task: Task, source: Path, scratch: Path) -> Answer:
        result = scratch / posixpath.basename(task.name)
        done = restore_file(
            source, result, config=self._pictures, restorer=self._engine(self._pictures)
        )
        self._target.deliver(result, task.name)
        return Answer(verdict="done", output=task.name, frames=1, notes=done.notes)

    def _clip(self, task: Task, source: Path, scratch: Path) -> Answer:
        workers = self._setup.workers
        folder = self._clip_folder(task.item, scratch)
        clip = clips.open_clip(
            task.item,
            source,
            folder,
            stem=posixpath.basename(task.name),
            config=self._setup.config.clips(),
        )
        config, store = clip.plan.config, self._target
        if task.kind in ("piece", "join"):
            scan = clips.load_scan(clip, store, scratch)
            restorer = self._engine(config, tile=scan.tile)
            if task.piece is not None:
                return clips.restore_piece(clip, task.piece, scan, store, restorer, scratch)
            answer = clips.join_pieces(clip, task.pieces, scan, store, restorer, scratch)
        else:
            restorer = self._engine(config, tile=clips.earlier_tile(clip))
            pieces = clips.divide(clip, store, restorer, workers=workers)
            if len(pieces) > 1:
                return Answer(verdict="split", pieces=pieces)
            answer = clips.restore_whole(clip, restorer)
            notes = clips.why_whole(clip, restorer, workers=workers)
            answer = dataclasses.replace(answer, notes=answer.notes + notes)
        output = task.name + clip.plan.path.suffix
        self._target.deliver(clip.plan.path, output)
        shutil.rmtree(folder, ignore_errors=True)
        return dataclasses.replace(answer, output=output)

    def _clip_folder(self, item: int, scratch: Path) -> Path:
        """Where a clip is worked on: where the next worker finds it, should this one die."""
        if self._target.local is None:
            return scratch / "clip"
        return self._target.local / WORK / "clips" / str(item)

    def _scratch(self) -> Path:
        """A folder for one task, on the disk of DST where results are moved from it."""
        return scratch_folder(self._target)

    def _engine(self, config: EngineConfig, *, tile: int = 0) -> Restorer:
        """The method that the settings name: the one that is loaded, if it is that.

        With a `tile`, one that works in such tiles: pieces of a clip, and what follows on the work
        of another, are made in the same way.
        """
        held = self._restorer
        if held is None or held.config.model != config.model or tile not in (0, held.tile):
            self._restorer = held = None  # its memory first
            names = [field.name for field in dataclasses.fields(EngineConfig)]
            settings = {name: getattr(config, name) for name in names}
            held = self._restorer = load(**{**settings, "tile": tile or config.tile})
        return held


def scratch_folder(target: Store) -> Path:
    """A new folder for unfinished work; `restore_batch` removes those of workers that died."""
    if target.local is None:
        return Path(tempfile.mkdtemp(prefix="restore-batch-"))
    folder = target.local / WORK / "scratch"
    folder.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(dir=folder))
