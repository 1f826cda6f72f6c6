"""How a clip is split so that its pieces, put together, are what one run would have made.

`restore video` writes a clip in segments, each encoded by itself, so a piece is a number of whole
segments. What the method remembers must be right where a piece begins:

- a method that sees a window of frames is given the frames before the piece first;
- a recurrent one starts afresh at each cut, so it is given the frames from the last cut on, and
  pieces begin where that is near. A clip of one shot is not split;
- a streaming one ends its segments where its groups end, which only its own run shows. Its clips
  are not split.

Before a clip is split it is read once, for its cuts and for what every frame looks like: a worker
that sought to the middle of it checks that it got the same frames, and reads from the beginning
where it did not.
"""

from __future__ import annotations

import math
import zlib
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from restore.batch.tasks import Piece
from restore.errors import DamagedTailError
from restore.method import MethodSpec
from restore.video.decode import Frame, decode
from restore.video.probe import ClipInfo
from restore.video.scenes import mark_cuts

SHARES = 3  # pieces for each worker: one that is slow, or dies, holds up little
LONGEST = 10  # segments of a piece: what is lost when its worker dies
LEAD = 4  # of a piece's frames, at most one in this many more are restored twice
_SAMPLES = 1 << 16  # pixels of a frame that its mark is made of


@dataclass(frozen=True, kw_only=True, slots=True)
class Scan:
    """What a whole clip holds."""

    pts: tuple[int, ...]
    """Time stamp of each frame."""
    marks: tuple[int, ...]
    """A hash of each frame's pixels."""
    cuts: tuple[int, ...]
    """Frames that begin a shot, the first one left out."""
    damaged: str | None
    """Where and why the clip breaks off; None = it does not."""
    tile: int = 0
    """Side of the tiles of whoever scanned it: that of all pieces."""

    def save(self, path: Path) -> None:
        """Write it into a file."""
        with path.open("wb") as file:
            np.savez(
                file,
                pts=np.array(self.pts, np.int64),
                marks=np.array(self.marks, np.uint32),
                cuts=np.array(self.cuts, np.int64),
                damaged=np.array(self.damaged or ""),
                tile=np.array(self.tile),
            )

    @classmethod
    def load(cls, path: Path) -> Scan:
        """Read what `save` wrote."""
        with np.load(path) as file:
            return cls(
                pts=tuple(file["pts"].tolist()),
                marks=tuple(file["marks"].tolist()),
                cuts=tuple(file["cuts"].tolist()),
                damaged=str(file["damaged"]) or None,
                tile=int(file["tile"]),
            )


def scan_clip(info: ClipInfo, *, threshold: float, tile: int = 0) -> Scan:
    """Read a clip from its beginning to its end.

    Args:
        info: the clip.
        threshold: change that counts as a cut, as `restore video` takes it.
        tile: side of the tiles that all pieces shall have.

    Raises:
        InputError: it cannot be read.
    """
    pts: list[int] = []
    marks: list[int] = []
    cuts: list[int] = []
    damaged = None
    try:
        for frame, cut in mark_cuts(decode(info), lambda frame: frame.rgb, threshold=threshold):
            pts.append(frame.pts)
            marks.append(mark_of(frame.rgb))
            if cut:
                cuts.append(frame.index)
    except DamagedTailError as error:
        damaged = str(error)
    return Scan(pts=tuple(pts), marks=tuple(marks), cuts=tuple(cuts), damaged=damaged, tile=tile)


def mark_of(rgb: Tensor) -> int:
    """Hash of some pixels of a frame `(3, H, W)`, on a grid over all of it."""
    step = max(1, math.isqrt(rgb.shape[1] * rgb.shape[2] // _SAMPLES))
    return zlib.crc32(rgb[:, ::step, ::step].contiguous().numpy().tobytes())


def can_be_split(spec: MethodSpec, *, temporal: bool) -> bool:
    """Whether pieces of a clip can be made apart from each other."""
    return not (spec.streaming and temporal)


def segment_ends(frames: int, cuts: Sequence[int], *, after: int, segment: int) -> list[int]:
    """Where `restore video` ends its segments: index after the last frame of each.

    Args:
        frames: of the clip.
        cuts: frames that begin a shot.
        after: `MethodSpec.frames_after`: results come that much later, and those that are still
            out come together before a cut.
        segment: frames after which a segment ends.
    """
    ends: list[int] = []
    begun = given = 0  # first frame of the segment at work; results that have come
    starts = set(cuts)
    shot = 0
    for index in range(frames):
        if index in starts:
            given, shot = index, index
            if given - begun >= segment:
                begun = given
                ends.append(given)
        if index - shot >= after:
            given += 1
        if given - begun >= segment:
            begun = given
            ends.append(given)
    if begun < frames:
        ends.append(frames)
    return ends


def split(
    scan: Scan, spec: MethodSpec, *, segment: int, workers: int, temporal: bool
) -> tuple[Piece, ...]:
    """Pieces of a clip in order; one = it is not split.

    Args:
        scan: the clip.
        spec: of the method.
        segment: frames of a segment.
        workers: how many share the clip.
        temporal: whether a recurrent method goes on from its last result.
    """
    frames = len(scan.pts)
    length = min(LONGEST * segment, max(segment, -(-frames // (SHARES * workers))))
    remembers = temporal and spec.recurrent
    pieces: list[Piece] = []
    first = start = 0
    for end in segment_ends(frames, scan.cuts, after=spec.frames_after, segment=segment):
        begin = _begin_at(end, scan.cuts) if remembers else max(0, end - spec.frames_before)
        near = end - begin <= length // LEAD or not remembers
        if end == frames or (end - first >= length and near):
            pieces.append(Piece(number=len(pieces), first=first, last=end, begin=start))
            first, start = end, begin
    return tuple(pieces)


def _begin_at(index: int, cuts: Sequence[int]) -> int:
    """The frame at or before `index` where its shot begins."""
    place = bisect_right(cuts, index)
    return cuts[place - 1] if place else 0


class OtherFramesError(Exception):
    """A piece of a clip does not decode as the whole clip did."""


def frames_from(info: ClipInfo, scan: Scan, index: int, *, seek: bool) -> Iterator[Frame]:
    """Frames of a clip from number `index` on, each compared with the scan.

    Args:
        info: the clip.
        scan: what it holds.
        index: of the first frame.
        seek: begin near it; False = read, but do not give out, all that comes before.

    Raises:
        OtherFramesError: a frame is not what it was.
    """
    if seek:  # half a tick earlier, as seconds are not exact
        start = float((scan.pts[index] - 0.5) * info.time_base) - info.start_time
        frames = decode(info, start=max(0.0, start), first_index=index)
    else:
        frames = decode(info, skip_until_pts=scan.pts[index], first_index=index)
    for frame in frames:
        known = frame.index < len(scan.pts)
        if not known or (frame.pts, mark_of(frame.rgb)) != (
            scan.pts[frame.index],
            scan.marks[frame.index],
        ):
            raise OtherFramesError(f"frame {frame.index} is another one")
        yield frame
