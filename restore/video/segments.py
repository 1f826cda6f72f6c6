"""Segments: independent files of consecutive frames, written one after another and joined later.

Packets lie in a file in the order in which they are decoded, and each must carry a decode time
(dts) that rises from packet to packet and is never after its frame's time stamp (pts). A segment's
own decode times mean nothing to its neighbours, so they are made anew for the whole film: with
frames reordered by at most `delay` places, packet i gets the time stamp of the frame that is shown
in place i - delay, and the first ones get times before the first frame.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import av
from av.packet import Packet
from av.stream import Stream
from torch import Tensor

from restore.errors import OutputError
from restore.video.encode import EncoderSpec, SegmentWriter, read_segment
from restore.video.journal import Segment
from restore.video.pipeline import Restored
from restore.video.workfolder import WorkFolder, writing

log = logging.getLogger("restore.video")


@dataclass(frozen=True, kw_only=True, slots=True)
class Timing:
    """Times of the packets of one segment."""

    shown: tuple[int, ...]
    """Time stamp of each frame in order of display, in units of the encoder's time base."""
    delay: int
    """Places by which a packet may be stored before its turn in the order of display."""


class SegmentSink:
    """Writes frames into segments and records each finished one."""

    def __init__(self, work: WorkFolder, spec: EncoderSpec) -> None:
        """Go on where the journal of `work` ends.

        Args:
            work: open work folder.
            spec: how to encode.
        """
        self._work = work
        self._spec = spec
        self._writer: SegmentWriter | None = None
        self._times: list[tuple[int, int]] = []
        self._state: Mapping[str, Tensor] = {}
        self._first = work.journal.frames

    def write(self, frame: Restored) -> None:
        """Encode the next frame; when a segment ends with it, finish that."""
        if frame.index != self._first + len(self._times):
            raise AssertionError(f"frame {frame.index} came after {self._first + len(self._times)}")
        part = self._work.part(self._name())
        with self._encoding(part):
            if self._writer is None:
                self._writer = SegmentWriter(part, self._spec)
            self._writer.write(frame.rgb, pts=frame.pts, duration=frame.duration)
        self._times.append((frame.pts, frame.duration))
        self._state = frame.state
        if frame.ends:
            self._finish()

    def finish(self) -> None:
        """Finish the last segment."""
        if self._times:
            self._finish()

    def abort(self) -> None:
        """Drop the segment that is not finished."""
        writer, self._writer = self._writer, None
        if writer is None:
            return
        try:
            writer.close()
        except (OSError, av.FFmpegError) as error:
            log.debug("closing a dropped segment: %s", error)
        self._work.part(self._name()).unlink(missing_ok=True)

    @contextlib.contextmanager
    def _encoding(self, part: Path) -> Iterator[None]:
        """Turn what the disk and the encoder raise into one line."""
        try:
            with writing(part):
                yield
        except av.FFmpegError as error:
            raise OutputError(
                f"the encoder {self._spec.encoder} failed ({error}); "
                "choose another with --codec, or leave --encoder-option out"
            ) from error

    def _name(self) -> str:
        return f"{len(self._work.journal.segments):06d}.nut"

    def _finish(self) -> None:
        name = self._name()
        part = self._work.part(name)
        assert self._writer is not None
        with self._encoding(part):
            self._writer.close()
        self._writer = None
        timing = read_timing(part, self._spec)
        if timing.shown != tuple(pts for pts, _ in self._times):
            raise OutputError(
                f"the encoder {self._spec.encoder} did not keep the frames of {part.name} "
                f"({len(self._times)} given, {len(timing.shown)} written); "
                "choose another with --codec, or leave --encoder-option out"
            )
        segment = Segment(
            file=name,
            size=part.stat().st_size,
            first=self._first,
            frames=len(self._times),
            first_pts=self._times[0][0],
            last_pts=self._times[-1][0],
            last_duration=self._times[-1][1],
            delay=timing.delay,
        )
        self._work.add(segment, self._state)
        self._first += len(self._times)
        self._times = []


def read_timing(path: Path, spec: EncoderSpec) -> Timing:
    """Times of the packets in a segment."""
    return order_of_display([cast(int, packet.pts) for packet in read_segment(path, spec)])


def order_of_display(stored: Sequence[int]) -> Timing:
    """Timing of frames whose packets are stored with these time stamps, in this order."""
    shown = sorted(stored)
    places = {pts: place for place, pts in enumerate(shown)}
    delay = max((i - places[pts] for i, pts in enumerate(stored)), default=0)
    return Timing(shown=tuple(shown), delay=delay)


def retimed_packets(
    parts: Sequence[tuple[Path, Segment]], target: Stream, spec: EncoderSpec, *, shift: int
) -> Iterator[Packet[Stream]]:
    """Packets of all segments in order, with decode times that hold for the whole film.

    Args:
        parts: files of the segments, in order; one or more.
        target: stream of the result that they go to.
        spec: how they were encoded.
        shift: added to every time, in units of its time base.
    """
    delay = max(segment.delay for _, segment in parts)
    ends = [segment.first_pts for _, segment in parts[1:]]
    last = parts[-1][1]
    ends.append(last.last_pts + last.last_duration)
    decode_times: list[int] = []  # for the packets to come
    for (path, _), end in zip(parts, ends, strict=True):
        shown = read_timing(path, spec).shown
        following = dict(zip(shown, (*shown[1:], end), strict=True))
        if not decode_times:
            step = max(1, following[shown[0]] - shown[0])
            decode_times = [shown[0] - place * step for place in range(delay, 0, -1)]
        decode_times += shown
        for packet in read_segment(path, spec):
            pts = cast(int, packet.pts)
            packet.duration = following[pts] - pts
            packet.pts = pts + shift
            packet.dts = decode_times.pop(0) + shift
            packet.stream = target
            yield packet
