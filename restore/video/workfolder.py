"""The folder beside a result in which its segments wait for the join."""

from __future__ import annotations

import contextlib
import errno
import logging
import shutil
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from safetensors.torch import load, save
from torch import Tensor

from restore.errors import OutputError
from restore.folder_lock import LOCK, FolderLock
from restore.video import journal as journals
from restore.video.journal import Ending, Journal, Result, Segment, StateFile

log = logging.getLogger("restore.video")


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn the system's write errors into one line about `path`."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OutputError(
                f"no space left for {path}; free some, then run the same command with --resume: "
                "finished segments are kept"
            ) from error
        raise OutputError(
            f"cannot write {path} ({error.strerror or error}); "
            "check that the folder exists and may be written, or choose another with --output"
        ) from error


class WorkFolder:
    """Finished segments of one result, locked against other processes while open.

    Use it as a context: on leaving, the lock is given back, and a folder without a single finished
    segment is removed.
    """

    def __init__(self, result: Path) -> None:
        self.result = result
        self.path = result.with_name(f".{result.name}.restore-parts")
        self.journal = Journal(source={}, settings={})
        self._lock = FolderLock(self.path)

    def __enter__(self) -> WorkFolder:
        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if all(".part" in path.name for path in self.path.glob("[0-9]*")):
            with contextlib.suppress(OSError):
                self._clear()
        with contextlib.suppress(OSError):
            self._lock.release()
            self.path.rmdir()  # fails, as it should, while there is something in it

    def previous(self, *, resume: bool, overwrite: bool) -> Journal | None:
        """What an earlier run left, if this run is to go on with it.

        Raises:
            OutputError: there is unfinished work, and the user did not say what to do with it; or
                the journal is damaged.
        """
        if overwrite and not resume:
            return None
        found = journals.load(self.path)
        if found is None or not found.segments:
            return None
        if not resume:
            raise OutputError(
                f"{self.path} holds unfinished work of an earlier run ({found.frames} frames); "
                "add --resume to go on with it, or --overwrite to start again"
            )
        return found

    def begin(
        self, *, source: dict[str, Any], settings: dict[str, Any], previous: Journal | None
    ) -> None:
        """Start with what `previous` holds, or with nothing.

        Raises:
            OutputError: the earlier run had another input or other settings.
        """
        if previous is None:
            self._clear()
            self.journal = Journal(source=source, settings=settings)
            self._save()
            return
        self._compare(previous, source, settings)
        self.journal = journals.intact(previous, self.path)
        if self.journal is not previous:
            frames = self.journal.frames
            log.warning(
                "segments of the earlier run, or the state after them, are missing: "
                "going on after frame %d",
                frames,
            )
        self._save()
        keep = {journals.JOURNAL, *(segment.file for segment in self.journal.segments)}
        if self.journal.state is not None:
            keep.add(self.journal.state.file)
        self._clear(keep=keep)

    def part(self, name: str) -> Path:
        """Where work in progress on `name` is written; worthless after a crash."""
        stem, dot, suffix = name.rpartition(".")
        return self.path / f"{stem}.part{dot}{suffix}"

    def add(self, segment: Segment, state: Mapping[str, Tensor] | None = None) -> None:
        """Make a written part a finished segment: on the disk first, in the journal then.

        Args:
            segment: the part.
            state: what the method goes on from after it; None or empty = nothing. That of the
                segment before is deleted.
        """
        part = self.part(segment.file)
        before = self.journal.state
        after = self._write_state(Path(segment.file).stem, state) if state else None
        with writing(part):
            journals.sync_file(part)
            part.replace(self.path / segment.file)
            if after is not None:
                self.part(after.file).replace(self.path / after.file)
            journals.sync_folder(self.path)
        segments = (*self.journal.segments, segment)
        self.journal = replace(self.journal, segments=segments, state=after)
        self._save()
        if before is not None:
            (self.path / before.file).unlink(missing_ok=True)

    def state(self) -> dict[str, Tensor]:
        """What the method kept after the last finished segment; empty = nothing."""
        if self.journal.state is None:
            return {}
        # Not mapped into memory: some systems cannot delete a file that is.
        return load((self.path / self.journal.state.file).read_bytes())

    def _write_state(self, stem: str, state: Mapping[str, Tensor]) -> StateFile:
        name = f"{stem}.state"
        part = self.part(name)
        with writing(part):
            part.write_bytes(save({key: value.contiguous() for key, value in state.items()}))
            journals.sync_file(part)
            return journals.describe_state(part, name=name)

    def end(self, ending: Ending) -> None:
        """Record that all frames are in finished segments."""
        self.journal = replace(self.journal, ending=ending)
        self._save()

    def deliver(self, part: Path) -> None:
        """Move the joined file to the result's name and remove everything else."""
        with writing(self.result):
            journals.sync_file(part)
            self.journal = replace(self.journal, result=_stamp(part))
            self._save()
            part.replace(self.result)
            journals.sync_folder(self.result.parent)
        self.remove()

    def remove(self) -> None:
        """Remove segments and journal: the result is in its place."""
        with writing(self.path):
            self._clear()

    def delivered(self, journal: Journal) -> bool:
        """Whether the file at the result's name is the one that `journal` describes.

        It is when a run was killed between moving the file and removing the work folder.
        """
        with contextlib.suppress(OSError):
            return journal.result is not None and _stamp(self.result) == journal.result
        return False

    def _compare(self, then: Journal, source: dict[str, Any], settings: dict[str, Any]) -> None:
        what = (
            f"the unfinished work in {self.path} cannot be gone on with: "
            "{}; use the same again, or give --overwrite without --resume to start again"
        )
        if then.source != source:
            raise OutputError(what.format("it was made from another input file"))
        changed = journals.differences(then.settings, settings)
        if changed:
            raise OutputError(what.format(", ".join(changed)))

    def _clear(self, keep: Collection[str] = ()) -> None:
        """Delete all but the lock and the files in `keep`; the journal goes first."""
        paths = [self.path / journals.JOURNAL, *self.path.iterdir()]
        for path in paths:
            if path.name == LOCK or path.name in keep:
                continue
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def _save(self) -> None:
        with writing(self.path / journals.JOURNAL):
            journals.save(self.path, self.journal)


def _stamp(path: Path) -> Result:
    status = path.stat()
    return Result(size=status.st_size, mtime_ns=status.st_mtime_ns)
