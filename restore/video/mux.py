"""The join: finished segments and the source's other streams become one file.

Nothing is encoded again but sound that the container cannot hold. Every frame keeps the time stamp
of the input's frame.

    segments --> new decode times ------\\
                                         merge by time --> muxer --> temporary file
    source ----> select, cut, shift ----/
"""

from __future__ import annotations

import contextlib
import heapq
import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.stream import Stream

from restore.video.containers import ContainerPlan
from restore.video.encode import EncoderSpec, add_encoder_stream
from restore.video.journal import Segment
from restore.video.passage import (
    Outlet,
    Passage,
    add_copied_stream,
    copied_packets,
    shifted_chapters,
    stream_tags,
)
from restore.video.probe import open_clip
from restore.video.segments import retimed_packets

log = logging.getLogger("restore.video")

_INTERLEAVE = 200_000  # microseconds that the muxer may hold packets back; ours come in order
_FOREIGN_TAGS = ("major_brand", "minor_version", "compatible_brands", "encoder", "duration")
_STAMP_TAGS = ("comment", "description", "synopsis")
_LARGEST_TIMESCALE = 2**31 - 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Join:
    """What to join, and how."""

    source: Path
    """The input file, for all streams but the restored one."""
    video: int
    """Number of its stream that was restored."""
    parts: tuple[tuple[Path, Segment], ...]
    """Finished segments in order, one or more."""
    spec: EncoderSpec
    """How they were encoded; its time base is that of all their time stamps."""
    container: ContainerPlan
    """Container of the result and the way of each stream into it."""
    passage: Passage
    """Part of the source that the result covers, and how its time moves."""
    stamp: str
    """Line about this run for the file's tags."""


def join(task: Join, target: Path) -> int:
    """Write `target`.

    Returns:
        The number of restored frames in it.

    Raises:
        OSError: it cannot be written.
    """
    shift = round(task.passage.shift / task.spec.time_base)
    form, written = task.container.format, 0
    with open_clip(task.source) as source, _opened(task, source, target) as result:
        video, outlets = _add_streams(task, source, result)
        _copy_file_tags(task, source, result)
        # In MP4 what lies before 0 is only there for the decoder to warm up; MKV has no such
        # notion, and players would show it.
        negative = form != "matroska" or "matroska" in source.format.name
        copied = copied_packets(source, outlets, task.passage, negative=negative)
        restored = retimed_packets(task.parts, video, task.spec, shift=shift)
        for packet in heapq.merge(restored, copied, key=_seconds):
            written += packet.stream_index == video.index
            result.mux(packet)
    return written


@contextlib.contextmanager
def _opened(task: Join, source: InputContainer, target: Path) -> Iterator[OutputContainer]:
    """The result, open for writing; closing it writes the index."""
    options = _muxer_options(task, source)
    form = task.container.format
    result = av.open(f"file:{target}", "w", format=form, container_options=options)
    try:
        yield result
    except BaseException:
        # An index for what is incomplete may fail too, and must not hide what went wrong.
        with contextlib.suppress(av.FFmpegError):
            result.close()
        raise
    result.close()


def _add_streams(
    task: Join, source: InputContainer, result: OutputContainer
) -> tuple[Stream, list[Outlet]]:
    """Streams of the result in the source's order, with their tags."""
    routes = {route.index: route for route in task.container.routes}
    video: Stream | None = None
    outlets = []
    for stream in source.streams:
        if stream.index == task.video:
            video = add_encoder_stream(result, task.spec)
            video.disposition = stream.disposition
            stale = {"encoder"} if task.passage.begin is None else {"encoder", "timecode"}
            tags = stream_tags(stream)
            video.metadata.update({k: v for k, v in tags.items() if k.lower() not in stale})
        elif stream.index in routes:
            form = task.container.format
            outlet = add_copied_stream(routes[stream.index], stream, result, form)
            outlets += [outlet] if outlet is not None else []
    assert video is not None
    return video, outlets


def _copy_file_tags(task: Join, source: InputContainer, result: OutputContainer) -> None:
    """Title, chapters and the like, and a line about this run under the first name still free."""
    tags = {k: v for k, v in source.metadata.items() if k.lower() not in _FOREIGN_TAGS}
    taken = {key.lower() for key in tags}
    free = next((name for name in _STAMP_TAGS if name not in taken), "restore")
    result.metadata.update({**tags, free: task.stamp})
    result.set_chapters(shifted_chapters(source, task.passage))


def _muxer_options(task: Join, source: InputContainer) -> dict[str, str]:
    options = {"max_interleave_delta": str(_INTERLEAVE)}
    if task.container.format == "matroska":
        # Otherwise the muxer moves all streams so that the earliest packet starts at 0.
        return {**options, "avoid_negative_ts": "disabled"}
    options["movflags"] = "faststart"
    timescale = _timescale(task, source)
    return options if timescale is None else {**options, "movie_timescale": str(timescale)}


def _timescale(task: Join, source: InputContainer) -> int | None:
    """Unit in which MP4 says when its streams begin; None = milliseconds do, as all begin at 0."""
    if not task.passage.shift and not any(stream.start_time for stream in source.streams):
        return None
    units = [task.spec.time_base.denominator]
    units += [stream.rate for stream in source.streams if isinstance(stream, AudioStream)]
    exact = math.lcm(*units)
    return next((unit for unit in (exact, units[0]) if unit <= _LARGEST_TIMESCALE), None)


def _seconds(packet: Packet[Stream]) -> float:
    time = packet.dts if packet.dts is not None else packet.pts
    return float((time or 0) * Fraction(packet.time_base))
