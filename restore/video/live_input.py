"""The input of a live run: frames and sound as they arrive, each with its time of arrival.

Everything is read once and in order, from a pipe, a file, a device or an address. The first frame
is decoded to learn what the clip is, and is then the first one that comes out.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet

from restore.errors import DamagedTailError, InputError
from restore.live_config import STANDARD, LiveConfig
from restore.video.decode import Frame, to_picture
from restore.video.live_pipe import InputPipe, Readable
from restore.video.live_sound import Sound
from restore.video.probe import choose_stream, clip_info, is_picture
from restore.video.timestamps import Clock

log = logging.getLogger("restore.video")

_BUFFER = 1 << 16  # bytes of a read at most: what a pipe holds
_FPS_FRAMES = "2"  # frames that FFmpeg looks at for the frame rate; by default it waits for 20
_OPEN_SECONDS = 30.0  # until an address must have answered
_MAX_ERRORS = 1000  # read errors in a row after which the rest counts as lost
_IN_FLIGHT = 1024  # packets whose arrival is remembered
_BAD_SHOWN = 5  # places of damage that are named


@dataclass(frozen=True, kw_only=True, slots=True)
class Arrival:
    """When a frame came in."""

    seconds: float
    """Time of `time.perf_counter` when its packet was complete."""
    number: int
    """Packets of pictures that had come by then, itself included."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LiveFrame:
    """A frame of the input."""

    frame: Frame
    """The picture and its time stamp."""
    arrival: Arrival
    """When it came."""


class LiveInput:
    """An open input.

    Attributes:
        info: what the clip is.
        audio: its streams of sound.
        sound: those to pass on, chosen by the caller before `frames`.
        arrived: packets of pictures that came so far.
    """

    def __init__(self, container: InputContainer, name: str, pipe: InputPipe | None) -> None:
        """Read up to the first frame.

        Raises:
            InputError: there is none.
        """
        self._container, self._pipe, self._name = container, pipe, name
        self._stream = choose_stream(container, Path(name))
        self._stream.codec_context.thread_count = 1  # more would hold back a frame for each
        self.audio = tuple(container.streams.audio)
        self.sound: list[Sound] = []
        self.arrived = 0
        self._opening = True
        self._early: list[Packet[Any]] = []  # sound that came until then
        self._arrivals: OrderedDict[int, Arrival] = OrderedDict()
        self._latest = Arrival(seconds=time.perf_counter(), number=0)
        self._end: int | None = None  # position behind the last whole packet
        self._bad_run = self._places = 0
        self._broken: str | None = None
        self._decoded = self._decode()
        first = next(self._decoded, None)
        if first is None:
            raise _no_frame(name, pipe, self._broken or self._stream.codec_context.name)
        self._first = first
        self.info = clip_info(container, self._stream, [first[0]], path=Path(name))

    def frames(self) -> Iterator[LiveFrame]:
        """Frames in order of their time stamps, as soon as they are decoded.

        Raises:
            DamagedTailError: behind the last good frame, when the input breaks off.
        """
        self._opening = False
        for packet in self._early:
            self._pass_on(packet)
        self._early.clear()
        info, warned = self.info, set[str]()
        clock = Clock(info.time_base, info.frame_rate)
        index = 0
        item: tuple[av.VideoFrame, Arrival] | None = self._first
        while item is not None:
            frame, arrival = item
            pts = clock.stamp(frame.pts, frame.dts)
            duration = int(getattr(frame, "duration", 0) or 0) or clock.step
            rgb = to_picture(frame, info, warned)
            yield LiveFrame(
                frame=Frame(index=index, pts=pts, duration=duration, rgb=rgb), arrival=arrival
            )
            index += 1
            item = next(self._decoded, None)
        if cause := self._cut():
            raise DamagedTailError(f"it breaks off after {index} frames: {cause}")

    def head_of(self, stream: AudioStream) -> bytes:
        """Beginning of the stream's first packet; empty when none came before the first frame."""
        index = stream.index
        return next((bytes(p)[:16] for p in self._early if p.stream.index == index), b"")

    def close(self) -> None:
        """Close it; only on the thread that reads."""
        self._container.close()

    def _decode(self) -> Iterator[tuple[av.VideoFrame, Arrival]]:
        for packet in self._packets():
            if packet.stream.index != self._stream.index:
                self._pass_on(packet)
                continue
            if packet.size:
                self._note_arrival(packet)
            try:
                frames = packet.decode()
            except (av.FFmpegError, ValueError) as error:
                log.debug("packet %d: %s", self.arrived, error)
                self._bad_run += 1
                continue
            if packet.is_corrupt:
                self._bad_run += 1
            elif packet.size:
                self._note_good()
            for frame in frames:
                arrival = None if frame.pts is None else self._arrivals.pop(frame.pts, None)
                yield frame, arrival or self._latest

    def _packets(self) -> Iterator[Packet[Any]]:
        """Packets of pictures and sound, then an empty one that flushes the decoder."""
        streams = [self._stream, *self.audio]
        errors = 0
        while True:
            try:
                for packet in self._container.demux(streams):
                    errors = 0
                    yield packet
                return
            except av.error.BlockingIOError:  # a device that has nothing yet
                time.sleep(0.002)
            except av.FFmpegError as error:
                errors += 1
                if not isinstance(error, av.error.InvalidDataError) or errors > _MAX_ERRORS:
                    self._broken = f"it cannot be read further ({error.strerror})"
                    break
        last: Packet[Any] = Packet()
        last.stream = self._stream
        yield last

    def _note_arrival(self, packet: Packet[Any]) -> None:
        self.arrived += 1
        self._latest = Arrival(seconds=time.perf_counter(), number=self.arrived)
        if packet.pts is not None:
            self._arrivals[packet.pts] = self._latest
        while len(self._arrivals) > _IN_FLIGHT:  # of frames that never came out
            self._arrivals.popitem(last=False)
        if packet.pos is not None and not packet.is_corrupt:
            self._end = packet.pos + packet.size

    def _pass_on(self, packet: Packet[Any]) -> None:
        """Hand a packet of sound to its stream."""
        if not packet.size:
            return
        if self._opening:
            self._early.append(packet)
            return
        for sound in self.sound:
            if sound.source.index == packet.stream.index:
                sound.put(packet)

    def _note_good(self) -> None:
        """Say where packets before this one could not be decoded; at the end `_cut` says it."""
        if self._bad_run:
            self._places += 1
            if self._places <= _BAD_SHOWN:
                log.warning(
                    "%s is damaged: %d packets before number %d could not be decoded",
                    *(self._name, self._bad_run, self.arrived),
                )
        self._bad_run = 0

    def _cut(self) -> str | None:
        """Why the input is taken to break off; None = it does not."""
        if self._broken:
            return self._broken
        if self._pipe and (cut := self._pipe.cut(self._container.format.name, self._end)):
            return cut
        return f"its last {self._bad_run} packets cannot be decoded" if self._bad_run else None


def open_input(
    source: str | Path | Readable, config: LiveConfig, stop: threading.Event
) -> LiveInput:
    """Open an input and read up to its first frame; waits until that has come.

    Args:
        source: `-` for stdin, a file, a device or an address that FFmpeg reads, or an object with
            `read`.
        config: what the input is, where it does not say so itself.
        stop: once set, the input ends.

    Raises:
        InputError: it is empty, not a video, or cannot be opened.
    """
    name = source_name(source)
    pipe: InputPipe | None = None
    where: Any = str(source)
    if not isinstance(source, str | Path):
        where = pipe = InputPipe(source, stop)
    elif where == STANDARD:
        # Unbuffered: a read gives what is there, and does not wait until its buffer is full.
        where = pipe = InputPipe(open(0, "rb", buffering=0, closefd=False), stop)  # noqa: SIM115
    elif config.input_format is None and "://" not in where:
        path = Path(where)
        if not path.exists():
            raise InputError(
                f"{path} does not exist; give - for stdin, a file, an address such as "
                "rtsp://host/name, or a device with --input-format"
            )
        where = f"file:{path}"
    try:
        container = _open(where, config, is_pipe=pipe is not None)
    except (av.FFmpegError, OSError, ValueError) as error:
        raise _not_opened(name, pipe, config, error) from error
    try:
        if is_picture(container) and config.input_format is None:
            raise InputError(
                f"{name} is not a video ({container.format.name}); give a video, or its format "
                "with --input-format"
            )
        return LiveInput(container, name, pipe)
    except BaseException:
        container.close()
        raise


def source_name(source: str | Path | Readable) -> str:
    """What an input is called in messages."""
    if isinstance(source, str | Path):
        return "stdin" if str(source) == STANDARD else str(source)
    return "the input"


def _open(where: Any, config: LiveConfig, *, is_pipe: bool) -> InputContainer:
    options: dict[str, str] = {}
    form = config.input_format
    if config.raw_input is not None:
        assert config.raw_size is not None and config.raw_fps is not None
        form = "rawvideo"
        options = {
            "video_size": config.raw_size.lower(),
            "pixel_format": config.raw_input,
            "framerate": config.raw_fps,
        }
    settings = {"fpsprobesize": "0" if config.raw_input else _FPS_FRAMES}
    if is_pipe:  # playlists would lead elsewhere
        settings["protocol_whitelist"] = "data"
    return av.open(
        where,
        format=form,
        options=options,
        container_options=settings,
        buffer_size=_BUFFER,
        metadata_errors="replace",
        timeout=None if is_pipe else (_OPEN_SECONDS, None),
    )


def _not_opened(
    name: str, pipe: InputPipe | None, config: LiveConfig, error: Exception
) -> InputError:
    if pipe is not None and pipe.total == 0:
        return _no_frame(name, pipe, "")
    reason = str(getattr(error, "strerror", None) or error)
    if config.input_format is not None:
        return InputError(
            f"{name} cannot be opened as '{config.input_format}' ({reason}); "
            "check --input-format, or leave it out"
        )
    return InputError(
        f"{name} is not a video that can be read from its beginning to its end ({reason}); pipe "
        "mkv, nut, mpegts or y4m, or give bare frames with --raw-input"
    )


def _no_frame(name: str, pipe: InputPipe | None, cause: str) -> InputError:
    if pipe is not None and pipe.total == 0:
        return InputError(f"{name} is empty (0 bytes); pipe a video into it")
    return InputError(f"no frame of {name} can be decoded ({cause}); check what is piped into it")
