"""The output of a live run: each frame is written before the next one is looked at.

Encoded video goes through libavformat with the encoder set so that a packet comes out for each
frame that goes in. NUT and MPEG-TS hand it on at once. Matroska writes a cluster when the next one
begins, so that there a frame goes out when the one after it is ready.
"""

from __future__ import annotations

import contextlib
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Protocol, cast

import av
import torch
from av.packet import Packet

from restore.live_config import StreamFormatChoice
from restore.video.encode import EncoderSpec, add_encoder_stream
from restore.video.live_input import Arrival
from restore.video.live_pipe import OutputPipe
from restore.video.live_plan import PlainSpec
from restore.video.live_sound import Sound
from restore.video.pixel_formats import format_layout
from restore.video.pixels import rgb_to_frame

log = logging.getLogger("restore.video")

_MUXER_OPTIONS: dict[StreamFormatChoice, dict[str, str]] = {
    # One cluster for each frame; no index at the end, which would grow.
    "matroska": {"cluster_time_limit": "0", "live": "1"},
    "nut": {},
    # Time stamps as they are; the length of a packet is said, so that a reader need not wait for
    # the next one to know it.
    "mpegts": {"mpegts_copyts": "1", "omit_video_pes_length": "0"},
}
_HELD_BACK: dict[StreamFormatChoice, int] = {"matroska": 1, "nut": 0, "mpegts": 0}
"""Frames that the muxer keeps until the next one; sound behind a frame brings it out as well."""
_INTERLEAVE = 1  # microseconds: the muxer shall not wait for sound that is late
_SOUND_AHEAD = 2
"""Packets of sound written behind a frame although they are later: the muxer gives out a packet
when it has a later one, and Matroska a cluster when the next one begins."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ready:
    """A restored frame on its way out."""

    pts: int
    """Time stamp of the input's frame."""
    duration: int
    """How long it is shown."""
    arrival: Arrival
    """When the input's frame came."""
    taken: float
    """Time of `time.perf_counter` when the network got it."""
    rgb: torch.Tensor
    """RGB `(3, h, w)` in [0, 1]."""


class Output(Protocol):
    """Takes restored frames and writes them."""

    def write(self, frame: Ready) -> None:
        """Write the next frame.

        Raises:
            BrokenPipeError: the reader is gone.
        """
        ...

    def finish(self) -> None:
        """Write what is still held; there will be no further frame."""
        ...

    def abort(self) -> None:
        """Let go of everything; nothing can be written any more."""
        ...


class EncodedOutput:
    """A container with coded video, and sound in time with it."""

    def __init__(
        self,
        pipe: OutputPipe,
        spec: EncoderSpec,
        form: StreamFormatChoice,
        *,
        sound: Sequence[Sound] = (),
        on_out: Callable[[Ready], None] = lambda frame: None,
    ) -> None:
        """Open encoder and container; nothing is written yet.

        Args:
            pipe: where to write.
            spec: how to encode.
            form: the container.
            sound: streams that are copied.
            on_out: called with each frame whose bytes have been written; its picture is empty.
        """
        self._pipe, self._spec, self._sound, self._on_out = pipe, spec, tuple(sound), on_out
        self._held_back = 0 if self._sound else _HELD_BACK[form]
        self._pending: deque[tuple[Ready, int]] = deque()  # with the size of its packet
        self._waiting: dict[int, Ready] = {}  # for their packet
        self._container = av.open(
            pipe,
            "w",
            format=form,
            container_options={
                "flush_packets": "1",
                "max_interleave_delta": str(_INTERLEAVE),
                "avoid_negative_ts": "make_non_negative",
                **_MUXER_OPTIONS[form],
            },
        )
        self._stream = add_encoder_stream(self._container, spec)
        for one in self._sound:
            one.add_to(self._container, form)

    def write(self, frame: Ready) -> None:
        """As `Output.write`."""
        picture = rgb_to_frame(frame.rgb, self._spec.pix_fmt, coding=self._spec.coding)
        picture.pts, picture.time_base = frame.pts, self._spec.time_base
        color = self._spec.color
        picture.colorspace, picture.color_range = color.matrix, color.range
        picture.color_primaries, picture.color_trc = color.primaries, color.trc
        self._waiting[frame.pts] = without_picture(frame)
        time = frame.pts * self._spec.time_base
        self._mux_sound(time)
        self._mux_video(self._stream.encode(picture))
        self._mux_sound(time, beyond=_SOUND_AHEAD)

    def finish(self) -> None:
        """As `Output.finish`."""
        self._mux_video(self._stream.encode(None))
        self._mux_sound(None)
        self._container.close()
        while self._pending:
            self._on_out(self._pending.popleft()[0])

    def abort(self) -> None:
        """As `Output.abort`."""
        with contextlib.suppress(OSError, av.FFmpegError):
            self._container.close()

    def _mux_video(self, packets: list[Packet[Any]]) -> None:
        for packet in packets:
            frame = self._waiting.pop(cast(int, packet.pts))
            packet.duration = frame.duration
            self._pending.append((frame, packet.size))
            self._mux(packet)

    def _mux_sound(self, until: Fraction | None, *, beyond: int = 0) -> None:
        for one in self._sound:
            for packet in one.take(until, beyond=beyond):
                self._mux(packet)

    def _mux(self, packet: Packet[Any]) -> None:
        """Hand a packet to the muxer, and tell of the frames that can have come out by that."""
        before = self._pipe.total
        self._container.mux(packet)
        written = self._pipe.total - before
        while len(self._pending) > self._held_back and self._pending[0][1] <= written:
            frame, size = self._pending.popleft()
            written -= size
            self._on_out(frame)


class PlainOutput:
    """YUV4MPEG2, or bare RGB frames."""

    def __init__(
        self,
        pipe: OutputPipe,
        spec: PlainSpec,
        *,
        on_out: Callable[[Ready], None] = lambda frame: None,
    ) -> None:
        """Nothing is written yet.

        Args:
            pipe: where to write.
            spec: how.
            on_out: as for `EncodedOutput`.
        """
        self._pipe, self._spec, self._on_out = pipe, spec, on_out
        self._last: int | None = None
        self._uneven = False

    def write(self, frame: Ready) -> None:
        """As `Output.write`."""
        self._check_time(frame.pts)
        if self._spec.header is None:
            codes = frame.rgb.clamp(0, 1).mul(255).add(0.5).to(torch.uint8)
            self._pipe.write(codes.permute(1, 2, 0).contiguous().numpy().tobytes())
        else:
            head = b"FRAME\n" if self._last is not None else self._spec.header + b"FRAME\n"
            self._pipe.write(head + self._planes(frame.rgb))
        self._last = frame.pts
        self._on_out(without_picture(frame))

    def finish(self) -> None:
        """As `Output.finish`: nothing is held."""

    def abort(self) -> None:
        """As `Output.abort`."""

    def _planes(self, rgb: torch.Tensor) -> bytes:
        """Samples of all planes, without the padding of their lines."""
        picture = rgb_to_frame(rgb, self._spec.pix_fmt, coding=self._spec.coding)
        width = 1 if format_layout(self._spec.pix_fmt).bits == 8 else 2
        parts = []
        for plane in picture.planes:
            lines = memoryview(plane)
            used, step = plane.width * width, plane.line_size
            if used == step:
                parts.append(bytes(lines[: used * plane.height]))
                continue
            starts = range(0, step * plane.height, step)
            parts += [bytes(lines[start : start + used]) for start in starts]
        return b"".join(parts)

    def _check_time(self, pts: int) -> None:
        """Say once that frames come at uneven times, which this format cannot hold."""
        if self._last is None or self._uneven or self._spec.uneven_known:
            return
        step = (pts - self._last) * self._spec.time_base * self._spec.frame_rate
        if not Fraction(1, 2) <= step <= Fraction(3, 2):
            self._uneven = True
            log.warning(
                "frames come at uneven times, which %s cannot hold: they will run at %s frames a "
                "second; --stream-format nut or matroska keeps their times",
                *(self._spec.form, f"{float(self._spec.frame_rate):g}"),
            )


def without_picture(frame: Ready) -> Ready:
    """The times of a frame, which are kept longer than its pixels."""
    return Ready(
        pts=frame.pts,
        duration=frame.duration,
        arrival=frame.arrival,
        taken=frame.taken,
        rgb=torch.empty(0),
    )
