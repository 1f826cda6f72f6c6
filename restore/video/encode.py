"""Restored frames to coded video: the choice of an encoder, and the writing of segments.

A segment is a file of its own, a NUT file (MOV for ProRes). These two keep the packets byte for
byte as the encoder made them, start codes included, and any time base exactly. All segments of a
clip are made by encoders with the same settings, so the header data that `add_encoder_stream` gives
the joined file fits every one of them.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, cast

import av
import torch
from av.container import OutputContainer
from av.packet import Packet

from restore.config import VideoConfig
from restore.errors import OptionError, OutputError
from restore.video.encoders import HARDWARE, SOFTWARE, Encoder, encoder_options
from restore.video.output_format import choose_pixel_format, output_colors
from restore.video.pixel_formats import format_layout
from restore.video.pixels import BT601, PixelCoding, rgb_to_frame
from restore.video.probe import ClipInfo, ColorTags

log = logging.getLogger("restore.video")

_EXAMPLES = {"libx264": "tune=film", "libx265": "tune=grain", "prores_ks": "profile=1"}
_SHIFT_TAG = "restore-shift"
"""Tag of a segment with ticks added to its time stamps, as NUT holds no negative ones."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EncoderSpec:
    """Everything that decides the coded bits, apart from the pictures."""

    encoder: str
    """FFmpeg's name of the encoder."""
    options: tuple[tuple[str, str], ...]
    """Its options."""
    pix_fmt: str
    """FFmpeg's name of the pixel format."""
    width: int
    """Width of the frames; with subsampled chroma it may be one less than asked."""
    height: int
    """Height of them, likewise."""
    time_base: Fraction
    """Unit of all time stamps, in seconds."""
    frame_rate: Fraction | None
    """Nominal frames per second, which encoders use to weigh frames; None = unknown."""
    color: ColorTags
    """What the result says about its colours."""
    coding: PixelCoding
    """How RGB becomes its codes; never in contradiction to `color`."""
    sample_aspect_ratio: Fraction
    """Width of a pixel over its height."""
    container_tag: str | None
    """Codec tag that MP4 and MOV need, None = FFmpeg's own choice."""
    segment_format: str
    """Container of segments, in FFmpeg's words."""


def choose_encoder(config: VideoConfig, info: ClipInfo, *, width: int, height: int) -> EncoderSpec:
    """Choose encoder, pixel format and colour tags for a clip, and prove that the encoder opens.

    Args:
        config: the user's wishes.
        info: the clip; its bit depth, chroma subsampling and colours are kept where possible.
        width: wanted width in pixels; made even where the pixel format needs it.
        height: wanted height likewise.

    Raises:
        OptionError: a wish is impossible; the message says what is allowed.
    """
    if config.encoder == "software":
        spec = _make_spec(SOFTWARE[config.codec], config, info, width, height)
        _try_out(spec)
        return spec
    refusals: list[OptionError] = []
    candidates = [encoder for encoder in HARDWARE if encoder.codec == config.codec]
    for encoder in candidates:
        try:
            spec = _make_spec(encoder, config, info, width, height)
        except OptionError as error:
            refusals.append(error)
            continue
        if _opens(spec):
            _try_out(spec)
            return spec
    if candidates and len(refusals) == len(candidates):
        raise refusals[0]
    raise OptionError(
        f"no hardware encoder for {config.codec} works here (tried: "
        f"{', '.join(encoder.name for encoder in candidates) or 'there is none'}); "
        "leave --encoder out to encode in software"
    )


def available_hardware_encoders() -> tuple[str, ...]:
    """Names of the hardware encoders that open on this machine, by trying each."""
    return tuple(encoder.name for encoder in HARDWARE if _opens(_sample_spec(encoder)))


def add_encoder_stream(container: OutputContainer, spec: EncoderSpec) -> av.VideoStream:
    """Add a stream with the open encoder of `spec`: tags, header data, time base.

    Packets of finished segments go into it as they are. The encoder itself stays idle then; it is
    there because only encoders make header data in FFmpeg.

    Raises:
        OptionError: the encoder does not open.
    """
    stream = cast(av.VideoStream, container.add_stream(spec.encoder, rate=_rate(spec)))
    stream.time_base = spec.time_base
    _configure(stream.codec_context, spec)
    in_stream = spec.encoder.startswith(("libx26", "h264_", "hevc_"))
    if spec.sample_aspect_ratio != 1 and not in_stream and container.format.name == "matroska":
        log.warning(
            "MKV as PyAV writes it loses the pixel aspect %s of %s video; use --codec h264 or hevc",
            *(spec.sample_aspect_ratio, spec.encoder),
        )
    if spec.container_tag is not None and container.format.name in ("mp4", "mov"):
        stream.codec_context.codec_tag = spec.container_tag
    _open(stream.codec_context, spec)
    return stream


def read_segment(path: Path, spec: EncoderSpec) -> Iterator[Packet[Any]]:
    """Packets of a finished segment in decoding order, for a stream of `add_encoder_stream`.

    Their pts is exact, in units of `spec.time_base`, which is also their `time_base`. Their dts
    holds within the segment at best; the joined file needs new ones.

    Raises:
        OutputError: the file is not a segment, or damaged.
    """
    try:
        with av.open(f"file:{path}", format=spec.segment_format) as container:
            stream = container.streams.video[0]
            shift = int(container.metadata.get(_SHIFT_TAG, 0))
            unit = Fraction(stream.time_base or 1) / spec.time_base
            for packet in container.demux(stream):
                if packet.size == 0 or packet.pts is None:
                    continue
                packet.pts = round(packet.pts * unit) - shift
                packet.dts = None if packet.dts is None else round(packet.dts * unit) - shift
                packet.duration = round((packet.duration or 0) * unit)
                packet.time_base = spec.time_base
                yield packet
    except (av.FFmpegError, IndexError, ValueError) as error:
        raise OutputError(
            f"the finished part {path.name} is damaged ({error}); "
            "delete it, and go on with --resume"
        ) from error


class SegmentWriter:
    """Encodes frames into one segment file, which begins with a key frame.

    with SegmentWriter(path, spec) as writer:
        writer.write(rgb, pts=0, duration=40)
    """

    def __init__(self, path: Path, spec: EncoderSpec) -> None:
        """Open the file and the encoder.

        Raises:
            OSError: the file cannot be made.
            OptionError: the encoder does not open.
        """
        self._path, self._spec = path, spec
        options = {"avoid_negative_ts": "disabled"}  # decode times before 0 would move all others
        if spec.segment_format == "mov":
            unit = str(spec.time_base.denominator)
            options |= {"video_track_timescale": unit, "movie_timescale": unit}
            options["movflags"] = "use_metadata_tags"
        self._container = av.open(
            f"file:{path}", "w", format=spec.segment_format, container_options=options
        )
        self._stream = add_encoder_stream(self._container, spec)
        self._durations: dict[int, int] = {}
        self._packets = 0
        self._shift: int | None = None

    def __enter__(self) -> SegmentWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
            return
        with contextlib.suppress(OSError, av.FFmpegError):  # the first error counts
            self._container.close()

    def write(self, rgb: torch.Tensor, *, pts: int, duration: int) -> None:
        """Encode one frame.

        Args:
            rgb: (3, H, W) in [0, 1] of the spec's size.
            pts: time stamp in units of the spec's time base, greater than that of the last frame.
            duration: time until the next frame, in the same units.

        Raises:
            OSError: no space is left, or the file cannot be written for another reason.
        """
        spec = self._spec
        if tuple(rgb.shape) != (3, spec.height, spec.width):
            raise AssertionError(f"frame {tuple(rgb.shape)}, spec {spec.width}x{spec.height}")
        if self._shift is None:
            self._shift = max(0, -pts)
            if self._shift:
                self._container.metadata[_SHIFT_TAG] = str(self._shift)
        frame = rgb_to_frame(rgb, spec.pix_fmt, coding=spec.coding)
        frame.pts, frame.time_base = pts + self._shift, spec.time_base
        _tag(frame, spec.color)
        self._durations[pts + self._shift] = duration
        self._mux(self._stream.encode(frame))

    def close(self) -> int:
        """Finish the file; on return it has reached the disk.

        Returns:
            Number of packets in it: one for each frame.

        Raises:
            OSError: as `write`.
        """
        try:
            self._mux(self._stream.encode(None))
        finally:
            self._container.close()
        with self._path.open("rb+") as file:
            os.fsync(file.fileno())
        return self._packets

    def _mux(self, packets: list[Packet[Any]]) -> None:
        for packet in packets:
            packet.duration = self._durations.pop(cast(int, packet.pts), 1)
            self._container.mux(packet)
            self._packets += 1


def _make_spec(
    encoder: Encoder, config: VideoConfig, info: ClipInfo, width: int, height: int
) -> EncoderSpec:
    """The spec for one encoder, not yet tried."""
    pix_fmt = choose_pixel_format(encoder, config, info)
    layout = format_layout(pix_fmt)
    across, down = (1, 1) if encoder.odd_sizes else layout.ratios
    even = max(across, width - width % across), max(down, height - height % down)
    if even != (width, height):
        log.info(
            "the result is %dx%d instead of %dx%d: %s video in %s has even sides",
            *(*even, width, height, encoder.codec, pix_fmt),
        )
    wants_full = (config.pix_fmt or "").startswith("yuvj")
    color, coding = output_colors(encoder, info, layout, *even, wants_full=wants_full)
    options = encoder_options(encoder, config)
    if encoder.codec == "prores":
        options.setdefault("profile", "4" if layout.chroma == "444" else "3")
    return EncoderSpec(
        encoder=encoder.name,
        options=tuple(options.items()),
        pix_fmt=pix_fmt,
        width=even[0],
        height=even[1],
        time_base=info.time_base,
        frame_rate=info.frame_rate,
        color=color,
        coding=coding,
        sample_aspect_ratio=info.sample_aspect_ratio,
        container_tag=encoder.tag,
        segment_format=encoder.container,
    )


def _sample_spec(encoder: Encoder) -> EncoderSpec:
    """A small clip for `encoder`, to see whether it opens at all."""
    return EncoderSpec(
        encoder=encoder.name,
        options=tuple(encoder_options(encoder, VideoConfig()).items()),
        pix_fmt=encoder.formats[0],
        width=640,
        height=480,
        time_base=Fraction(1, 25),
        frame_rate=Fraction(25),
        color=ColorTags(),
        coding=PixelCoding(matrix=BT601, full_range=False),
        sample_aspect_ratio=Fraction(1),
        container_tag=None,
        segment_format=encoder.container,
    )


def _opens(spec: EncoderSpec) -> bool:
    try:
        _open(_context(spec), spec)
    except OptionError as error:
        log.debug("%s", error)
        return False
    return True


def _try_out(spec: EncoderSpec) -> None:
    """Open the encoder once, so that what it refuses is known before hours of work.

    Raises:
        OptionError: it does not open, or has no option of a name that the user gave.
    """
    context = _context(spec)
    _open(context, spec)
    if unknown := sorted(context.options):  # FFmpeg leaves there what it did not take
        raise OptionError(
            f"{spec.encoder} has no option '{unknown[0]}'; give -e with a name from "
            f"'ffmpeg -h encoder={spec.encoder}', such as -e {_EXAMPLES.get(spec.encoder, 'g=48')}"
        )


def _context(spec: EncoderSpec) -> av.VideoCodecContext:
    """A configured encoder outside any file."""
    try:
        context = cast(av.VideoCodecContext, av.CodecContext.create(spec.encoder, "w"))
    except ValueError as error:  # an unknown name
        raise OptionError(
            f"this build of FFmpeg lacks the encoder {spec.encoder}; choose another --codec, "
            "or install PyAV's own wheels: pip install --force-reinstall av"
        ) from error
    _configure(context, spec)
    return context


def _configure(context: av.VideoCodecContext, spec: EncoderSpec) -> None:
    """Set everything that must stand before the encoder opens."""
    context.width, context.height, context.pix_fmt = spec.width, spec.height, spec.pix_fmt
    context.time_base = spec.time_base
    context.framerate = _rate(spec)
    context.sample_aspect_ratio = spec.sample_aspect_ratio
    context.color_primaries, context.color_trc = spec.color.primaries, spec.color.trc
    context.colorspace, context.color_range = spec.color.matrix, spec.color.range
    options = dict(spec.options)
    if spec.color.chroma_location:
        options["chroma_sample_location"] = str(spec.color.chroma_location)
    context.options = options


def _open(context: av.VideoCodecContext, spec: EncoderSpec) -> None:
    if spec.encoder == "libsvtav1":
        os.environ.setdefault("SVT_LOG", "1")  # it writes to the terminal by itself: errors only
    try:
        context.open()
    except (av.FFmpegError, OSError, ValueError) as error:
        options = " ".join(f"{key}={value}" for key, value in spec.options)
        raise OptionError(
            f"the encoder {spec.encoder} does not take {spec.width}x{spec.height} {spec.pix_fmt} "
            f"with {options or 'no options'}; change --scale, --codec or what was given with -e"
        ) from error


def _rate(spec: EncoderSpec) -> Fraction:
    return spec.frame_rate or Fraction(25)


def _tag(frame: av.VideoFrame, color: ColorTags) -> None:
    """Write the colours on the frame as well: ProRes takes them from there."""
    frame.colorspace, frame.color_range = color.matrix, color.range
    if hasattr(frame, "color_primaries"):  # PyAV 16 and later
        frame.color_primaries, frame.color_trc = color.primaries, color.trc
