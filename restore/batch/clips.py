"""Clips in a batch: all of one, a piece of one, and the join of its pieces.

    DST/.restore-batch/clips/ITEM/            unfinished work on a whole clip, or a join
    DST/.restore-batch/parts/ITEM/scan.npz    what the clip holds
    DST/.restore-batch/parts/ITEM/NUMBER/     a finished piece: journal and segments

A piece is written as a run of `restore video` over its frames alone. The join lays the segments of
all pieces into one work folder, as if one run had made them, and lets `restore video` finish it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import posixpath
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from restore.batch.pieces import (
    OtherFramesError,
    Scan,
    can_be_split,
    frames_from,
    scan_clip,
    split,
)
from restore.batch.store import WORK, Store
from restore.batch.tasks import Answer, Piece
from restore.config import VideoConfig
from restore.engine import Restorer
from restore.errors import InputError, OutputError
from restore.folder_lock import LOCK
from restore.streaming import FrameStream
from restore.video import journal as journals
from restore.video import pipeline
from restore.video.decode import Frame
from restore.video.job import pixel_settings, restore_video, segment_length
from restore.video.journal import Ending, Journal, Segment
from restore.video.plan import VideoPlan, plan_video
from restore.video.scenes import LOOKBACK, mark_cuts
from restore.video.segments import SegmentSink
from restore.video.workfolder import WorkFolder

log = logging.getLogger("restore.batch")

SCAN = "scan.npz"
RESULT = Path("piece.nut")


@dataclass(frozen=True, kw_only=True, slots=True)
class Clip:
    """A clip that is here to be worked on."""

    item: int
    """Its number in the manifest."""
    plan: VideoPlan
    """What it will become; its path is in the folder for unfinished work."""
    notes: tuple[str, ...]
    """What the user should know of the plan."""


def parts_key(item: int, name: str | int = "") -> str:
    """Where the pieces of an item are kept in DST."""
    return posixpath.join(WORK, "parts", str(item), str(name)).rstrip("/")


def open_clip(item: int, source: Path, folder: Path, *, stem: str, config: VideoConfig) -> Clip:
    """Look at a clip and decide what it will become.

    Args:
        item: its number in the manifest.
        source: the file.
        folder: for unfinished work; made if it is not there.
        stem: name of the result without its suffix, which the clip's sound decides.
        config: the user's settings.

    Raises:
        InputError: it cannot be read.
        OptionError: the settings do not fit it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    free = plan_video(source, folder, config=config)
    plan = plan_video(source, folder / f"{stem}{free.container.suffix}", config=free.config)
    notes = dict.fromkeys((*free.warnings, *plan.warnings))
    return Clip(item=item, plan=plan, notes=tuple(notes))


def divide(clip: Clip, store: Store, restorer: Restorer, *, workers: int) -> tuple[Piece, ...]:
    """Pieces for several workers; fewer than two = the clip is better done by one.

    The scan that the pieces need is left in the store.
    """
    config, spec = clip.plan.config, restorer.spec
    frames = clip.plan.frames
    segment = segment_length(config, restorer)
    short = frames is not None and frames < 2 * segment
    if workers < 2 or short or not can_be_split(spec, temporal=config.temporal):
        return ()
    scan = scan_clip(clip.plan.info, threshold=config.scene_threshold, tile=restorer.tile)
    pieces = split(scan, spec, segment=segment, workers=workers, temporal=config.temporal)
    if len(pieces) > 1:
        file = clip.plan.path.parent / SCAN
        scan.save(file)
        store.deliver(file, parts_key(clip.item, SCAN))
    return pieces


def why_whole(clip: Clip, restorer: Restorer, *, workers: int) -> tuple[str, ...]:
    """A note on a long clip that one worker has to do alone."""
    config, frames = clip.plan.config, clip.plan.frames
    if workers < 2 or (frames is not None and frames < 2 * segment_length(config, restorer)):
        return ()
    spec = restorer.spec
    if not can_be_split(spec, temporal=config.temporal):
        reason = f"'{spec.name}' remembers what it saw; --no-temporal restores frame by frame"
    elif config.temporal and spec.recurrent:
        reason = "it has no cuts where work could begin; --no-temporal restores frame by frame"
    else:
        return ()
    return (f"one worker does all of it: {reason}",)


def earlier_tile(clip: Clip) -> int:
    """Side of the tiles of a worker that died over this clip; 0 = there was none."""
    earlier = _earlier(clip)
    return 0 if earlier is None else int(earlier.settings.get("tile", 0))


def _earlier(clip: Clip) -> Journal | None:
    """What a worker that died had finished of a clip."""
    work = WorkFolder(clip.plan.path).path
    # The driver gives a clip to one worker at a time: a lock is that of a worker that died.
    (work / LOCK).unlink(missing_ok=True)
    try:
        return journals.load(work)
    except OutputError as error:
        log.warning("%s; it is started again", error)
        shutil.rmtree(work)
        return None


def restore_whole(clip: Clip, restorer: Restorer) -> Answer:
    """All of a clip, going on with what a worker that died had finished."""
    earlier = _earlier(clip)
    if earlier is not None:
        source = journals.fingerprint(clip.plan.info.path)
        if (earlier.source, earlier.settings) != (source, pixel_settings(clip.plan, restorer)):
            shutil.rmtree(WorkFolder(clip.plan.path).path)
    result = restore_video(
        clip.plan.info.path, clip.plan.path, config=clip.plan.config, restorer=restorer
    )
    return Answer(
        verdict="done", error=result.damaged or "", frames=result.frames, notes=clip.notes
    )


def load_scan(clip: Clip, store: Store, scratch: Path) -> Scan:
    """What `divide` found in the clip."""
    return Scan.load(store.fetch(parts_key(clip.item, SCAN), scratch))


def restore_piece(
    clip: Clip, piece: Piece, scan: Scan, store: Store, restorer: Restorer, scratch: Path
) -> Answer:
    """Some frames of a clip, kept in the store as finished segments."""
    name = clip.plan.info.path.name
    with WorkFolder(scratch / RESULT) as work:
        try:
            _run_piece(clip.plan, piece, scan, work, restorer, seek=True)
        except OtherFramesError as error:
            log.info("%s: %s when sought; it is read from its beginning", name, error)
            _run_piece(clip.plan, piece, scan, work, restorer, seek=False)
        frames = work.journal.frames
        if frames != piece.last - piece.first:
            raise InputError(
                f"{name} gave {frames} of the frames {piece.first} to "
                f"{piece.last - 1}; it has changed while it was worked on: run the batch again"
            )
        _keep(work.path, store, parts_key(clip.item, piece.number))
    return Answer(verdict="done", frames=frames)


def _run_piece(
    plan: VideoPlan,
    piece: Piece,
    scan: Scan,
    work: WorkFolder,
    restorer: Restorer,
    *,
    seek: bool,
) -> None:
    config, spec = plan.config, plan.spec
    work.begin(
        source=journals.fingerprint(plan.info.path),
        settings=pixel_settings(plan, restorer),
        previous=None,
    )
    stream = FrameStream(restorer, size=(spec.width, spec.height), temporal=config.temporal)
    start = max(0, piece.begin - LOOKBACK)
    frames = mark_cuts(
        frames_from(plan.info, scan, start, seek=seek),
        lambda frame: frame.rgb,
        threshold=config.scene_threshold,
    )
    pipeline.run(
        _until(frames, piece.last + restorer.spec.frames_after),
        stream,
        _PieceSink(SegmentSink(work, spec), piece),
        segment=segment_length(plan.config, restorer),
        first=piece.first,
        lead_in=piece.first - piece.begin,
    )


def _until(frames: Iterator[tuple[Frame, bool]], stop: int) -> Iterator[tuple[Frame, bool]]:
    """Frames before number `stop`."""
    for frame, cut in frames:
        if frame.index >= stop:
            return
        yield frame, cut


class _PieceSink:
    """Counts a piece's frames from 0, and drops what only the window needed."""

    def __init__(self, sink: SegmentSink, piece: Piece) -> None:
        self._sink, self._piece = sink, piece

    def write(self, frame: pipeline.Restored) -> None:
        if frame.index < self._piece.last:
            self._sink.write(replace(frame, index=frame.index - self._piece.first))

    def finish(self) -> None:
        self._sink.finish()

    def abort(self) -> None:
        self._sink.abort()


def _keep(folder: Path, store: Store, key: str) -> None:
    """Move a piece into the store; where a folder cannot be moved as one, its journal goes last."""
    store.remove(key)
    if store.local is not None:
        (folder / LOCK).unlink(missing_ok=True)
        store.deliver(folder, key)
        return
    for file in sorted(folder.glob("*.nut")):
        store.deliver(file, f"{key}/{file.name}")
    store.deliver(folder / journals.JOURNAL, f"{key}/{journals.JOURNAL}")


def join_pieces(
    clip: Clip, count: int, scan: Scan, store: Store, restorer: Restorer, scratch: Path
) -> Answer:
    """Make the clip of its pieces, with sound and all else."""
    work = WorkFolder(clip.plan.path).path
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    segments: list[Segment] = []
    whole: Journal | None = None
    for number in range(count):
        own = scratch / str(number)  # names are the same in every piece
        part = _fetched(store, parts_key(clip.item, number), own)
        whole = whole or part
        if (part.source, part.settings) != (whole.source, whole.settings):
            changed = journals.differences(whole.settings, part.settings) or ["it has changed"]
            raise OutputError(
                f"pieces of {clip.plan.info.path.name} were made in different ways "
                f"({', '.join(changed)}); use workers that are alike, or --workers 1"
            )
        segments += _laid_in(part, segments, store, parts_key(clip.item, number), own, work)
    assert whole is not None
    ending = Ending(frames=sum(segment.frames for segment in segments), damaged=scan.damaged)
    whole = replace(whole, segments=tuple(segments), state=None, ending=ending)
    if journals.intact(whole, work) is not whole:  # or this worker would restore it all again
        raise OutputError(
            f"a finished part of {clip.plan.info.path.name} is damaged; run the batch again"
        )
    journals.save(work, whole)
    return restore_whole(clip, restorer)


def _fetched(store: Store, key: str, folder: Path) -> Journal:
    file = store.fetch(f"{key}/{journals.JOURNAL}", folder)
    journal = journals.load(file.parent)
    if journal is None:
        raise OutputError(f"the finished part {key} is gone; run the batch again")
    return journal


def _laid_in(
    part: Journal, before: list[Segment], store: Store, key: str, own: Path, work: Path
) -> list[Segment]:
    """Segments of a piece under their names in the clip's work folder."""
    first = before[-1].first + before[-1].frames if before else 0
    laid: list[Segment] = []
    for segment in part.segments:
        name = f"{len(before) + len(laid):06d}.nut"
        file = store.fetch(f"{key}/{segment.file}", own)
        try:
            os.link(file, work / name)
        except OSError:  # no hard links here, or another disk
            shutil.copyfile(file, work / name)
        laid.append(replace(segment, file=name, first=first + segment.first))
    return laid


def clear_parts(store: Store, keep: set[str]) -> None:
    """Delete what was kept of items that are not in work any more."""
    if store.local is None:
        return  # a listing for each start would cost more than what is left over
    for kind in ("parts", "clips"):
        with contextlib.suppress(OSError):
            for folder in (store.local / WORK / kind).iterdir():
                if folder.name not in keep:
                    shutil.rmtree(folder, ignore_errors=True)
