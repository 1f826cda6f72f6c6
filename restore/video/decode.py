"""Every frame of a clip, in presentation order, as RGB tensors with their own time stamps.

Damage does not stop the reading: what cannot be decoded is passed over and said. Only an early end
is an error, raised behind the last good frame.

Decoding runs on one thread. It is far cheaper than any network, and so a damaged stream gives the
same frames on each run (frame threads race over what they conceal), which resuming relies on.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import torch
from av.container import InputContainer
from av.packet import Packet

from restore.errors import DamagedTailError
from restore.video.pixels import frame_to_rgb
from restore.video.probe import ClipInfo, coding_of, open_clip
from restore.video.timestamps import Clock, Timed, timed

log = logging.getLogger("restore.video")

_MAX_ERRORS = 1000  # read errors in a row after which the rest of a file counts as lost
_LEAD = Fraction(2)  # seconds sought before the start, for frames that are stored out of order
_REST_SECONDS, _REST_BYTES = 1.0, 4096  # less may be left over at the end of a file, and
_REST_SHARE = 0.05  # a smaller part of it than this
_WARNINGS = 5  # places of damage that are named; later ones are only counted


@dataclass(frozen=True, kw_only=True, slots=True)
class Frame:
    """One decoded picture."""

    index: int
    """Number of the frame, counted from `first_index`."""
    pts: int
    """Time stamp in units of the clip's time base; greater than that of the frame before."""
    duration: int
    """Time until the next frame in the same units, 1 or more."""
    rgb: torch.Tensor
    """RGB (3, H, W), float32, [0, 1], turned upright."""


def decode(
    info: ClipInfo,
    *,
    start: float | None = None,
    end: float | None = None,
    skip_until_pts: int | None = None,
    first_index: int = 0,
) -> Iterator[Frame]:
    """Frames of a clip.

    Args:
        info: the clip.
        start: seconds from the clip's beginning; the first frame is the first one at or after it.
        end: seconds likewise; frames from there on are left out.
        skip_until_pts: frames with an earlier time stamp are decoded, but neither converted nor
            yielded: a resumed run sees the same stream as the first one, without seeking, so that
            its frames are the same ones too.
        first_index: `index` of the first frame that is yielded.

    Yields:
        Frames in presentation order. Two of them are held in memory: the yielded one and the next.

    Raises:
        InputError: the file is gone or cannot be opened any more.
        DamagedTailError: behind the last good frame, when the stream ends before its time.
    """
    begin = None if start is None else _ticks(info, start)
    stop = None if end is None else _ticks(info, end)
    index, warned = first_index, set[str]()
    for item in _timed_from(info, begin):
        if stop is not None and item.pts >= stop:
            return
        if begin is not None and item.pts < begin:
            continue
        if skip_until_pts is not None and item.pts < skip_until_pts:
            continue
        rgb = to_picture(item.frame, info, warned)
        yield Frame(index=index, pts=item.pts, duration=item.duration, rgb=rgb)
        index += 1


def _ticks(info: ClipInfo, seconds: float) -> int:
    """The first time stamp at or after `seconds` from the clip's beginning."""
    time = Fraction(seconds).limit_denominator(10**6) + Fraction(info.start_time).limit_denominator(
        av.time_base
    )
    return math.ceil(time / info.time_base)


def _timed_from(info: ClipInfo, begin: int | None) -> Iterator[Timed]:
    """Frames from shortly before `begin` on, or from the first one."""
    lead = round(_LEAD / info.time_base)
    if begin is not None and begin > _ticks(info, 0) + lead:
        frames = _timed_frames(info, begin - lead)
        try:
            first = next(frames, None)
        except DamagedTailError:  # nothing could be read from there on
            first = None
        if first is not None and first.frame.pts is not None and first.pts <= begin:
            yield first
            yield from frames
            return
        frames.close()
        log.info("%s cannot be sought in; it is read from its beginning", info.path.name)
    yield from _timed_frames(info, None)


def _timed_frames(info: ClipInfo, target: int | None) -> Generator[Timed, None, None]:
    """Frames with their times, from the last key frame at or before `target` on."""
    with open_clip(info.path, damage=info.damage) as container:
        if target is not None:
            try:
                container.seek(target, stream=container.streams[info.stream_index])
            except av.FFmpegError as error:
                log.debug("seeking failed: %s", error)
                return
        reader = _Reader(container, info)
        yield from timed(reader.frames(), Clock(info.time_base, info.frame_rate))


class _Reader:
    """Reads and decodes one stream, and keeps account of what could not be."""

    def __init__(self, container: InputContainer, info: ClipInfo) -> None:
        self._container, self._info = container, info
        stream = container.streams[info.stream_index]
        assert isinstance(stream, av.VideoStream)
        stream.codec_context.thread_count = 1
        self._stream = stream
        self._packets = 0
        self._places = 0  # of damage: runs of packets that could not be decoded
        self._bad_run = 0  # packets since the last one that could be
        self._end: int | None = None  # time stamp at which the last packet ends
        self._reached = 0.0  # seconds that any stream of the file came to
        self._position = 0  # bytes of the file that were seen
        self._failure: str | None = None  # what ended the reading

    def frames(self) -> Iterator[av.VideoFrame]:
        """Decoded frames in presentation order; DamagedTailError behind the last, if it is due."""
        for packet in self._read():
            try:
                frames = packet.decode()
            except (av.FFmpegError, ValueError) as error:
                self._note_damage(packet, error)
                continue
            if packet.is_corrupt:
                self._note_damage(packet, None)
            elif packet.size:
                self._bad_run = 0
            yield from frames
        if cause := self._early_end():
            at = 0.0 if self._end is None else self._seconds(self._end)
            raise DamagedTailError(
                f"{self._info.path.name} ends early, near {at:.2f} s: {cause}; the frames before "
                "that are kept: get a complete copy of the file for the rest"
            )

    def _read(self) -> Iterator[Packet[Any]]:
        """Packets of the stream, then an empty one that flushes the decoder."""
        errors = 0
        while True:
            try:
                for packet in self._container.demux():
                    errors = 0
                    self._count(packet)
                    # Not packet.stream_index: it is 0 in every packet that flushes a decoder.
                    if packet.stream.index == self._stream.index:
                        yield packet
                return
            except av.FFmpegError as error:
                errors += 1
                if not isinstance(error, av.error.InvalidDataError) or errors > _MAX_ERRORS:
                    self._failure = f"the file cannot be read further ({error.strerror})"
                    break
        last: Packet[Any] = Packet()
        last.stream = self._stream
        yield last

    def _count(self, packet: Packet[Any]) -> None:
        """Note how far the file was read; other streams count, as theirs may last longer."""
        if not packet.size:
            return
        self._position = max(self._position, (packet.pos or 0) + packet.size)
        time = packet.dts if packet.pts is None else packet.pts
        end = None if time is None else time + (packet.duration or 0)
        if end is not None and packet.time_base:
            self._reached = max(self._reached, float(end * packet.time_base))
        if packet.stream_index == self._stream.index:
            self._packets += 1
            self._end = end if self._end is None else max(self._end, end or self._end)

    def _note_damage(self, packet: Packet[Any], error: Exception | None) -> None:
        self._bad_run += 1
        if self._bad_run > 1:
            return
        self._places += 1
        time = packet.dts if packet.pts is None else packet.pts
        place = "in an unknown place" if time is None else f"near {self._seconds(time):.2f} s"
        if self._places <= _WARNINGS:
            log.warning(
                "%s is damaged %s: %s; what can be decoded is kept",
                self._info.path.name,
                place,
                "data is missing" if error is None else error.__class__.__name__,
            )
        if self._places == _WARNINGS:
            log.warning("further damage in %s is not reported", self._info.path.name)

    def _early_end(self) -> str | None:
        """Why the stream is taken to end before its time; None = it does not."""
        if self._failure:
            return self._failure
        if self._info.damage and not self._has_all_packets():
            return self._info.damage
        if self._bad_run:
            return f"its last {self._bad_run} packets cannot be decoded"
        return self._unread()

    def _has_all_packets(self) -> bool:
        """Whether all frames that the container announces came, though its file is cut."""
        info, expected = self._info, self._info.frame_count
        if expected is None and info.duration is not None and info.frame_rate is not None:
            expected = round(info.duration * info.frame_rate)
        return expected is not None and self._packets >= expected and not self._bad_run

    def _unread(self) -> str | None:
        """Damage behind which the reader found no way on: much time and much data are left."""
        length = (self._container.duration or 0) / av.time_base
        rest = length - self._reached  # of a late start Matroska counts the time before it as well
        size = self._info.path.stat().st_size
        if rest < max(_REST_SECONDS, _REST_SHARE * length):
            return None
        if size - self._position < max(_REST_BYTES, _REST_SHARE * size):
            return None  # but for an index: the last picture simply stays on the screen
        return f"the {rest:.1f} s behind that cannot be read"

    def _seconds(self, time: int) -> float:
        """Seconds from the clip's beginning."""
        return float(time * self._info.time_base) - self._info.start_time


def to_picture(frame: av.VideoFrame, info: ClipInfo, warned: set[str]) -> torch.Tensor:
    """RGB (3, H, W) of a frame, turned upright and of the clip's size.

    Args:
        frame: as it was decoded.
        info: the clip.
        warned: what was said already about earlier frames; added to.
    """
    name = frame.format.name
    has_alpha = any(part.is_alpha for part in frame.format.components)
    if has_alpha and "alpha" not in warned:
        warned.add("alpha")
        log.warning("%s has a plane of opacity (%s); it is left out", info.path.name, name)
    coding = info.coding
    if name != info.pix_fmt:  # it changes on the way
        coding = coding_of(info.color, name, frame.width, frame.height)
    rgb = frame_to_rgb(frame, coding)
    if info.mirrored:
        rgb = rgb.flip(2)
    if info.rotation:
        rgb = torch.rot90(rgb, -info.rotation // 90, (1, 2))
    if rgb.shape[1:] != (info.height, info.width):
        rgb = _resized(rgb, info, warned)
    return rgb.contiguous()


def _resized(rgb: torch.Tensor, info: ClipInfo, warned: set[str]) -> torch.Tensor:
    """A frame of another size than the first one, stretched to that."""
    if "size" not in warned:
        warned.add("size")
        log.warning(
            "%s changes its size to %dx%d on the way; all frames are made %dx%d",
            info.path.name,
            rgb.shape[2],
            rgb.shape[1],
            info.width,
            info.height,
        )
    scaled = torch.nn.functional.interpolate(
        rgb[None], (info.height, info.width), mode="bicubic", antialias=True
    )
    return scaled[0].clamp_(0, 1)
