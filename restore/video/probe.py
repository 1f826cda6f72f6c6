"""What a clip is: size, turn, clock, pixel format and colours of its video stream.

The first frames are decoded, as containers are often silent or wrong about colours, scan and turn,
and as a file whose first frame cannot be decoded is of no use.
"""

from __future__ import annotations

import logging
import math
import re
import struct
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any, cast

import av
import av.logging
from av.container import InputContainer
from av.sidedata.sidedata import Type as SideDataType
from av.stream import Disposition

from restore.errors import InputError
from restore.video.pixel_formats import Chroma, PixelLayout, format_layout
from restore.video.pixels import (
    FULL_RANGE,
    LIMITED_RANGE,
    RGB_MATRIX,
    UNSPECIFIED,
    PixelCoding,
    guess_matrix,
    known_matrix,
)
from restore.video.truncation import truncation

log = logging.getLogger("restore.video")

MAX_PIXELS = 100_000_000
"""Largest frame that is read; an 8K frame has 33 million pixels."""

_FRAMES_LOOKED_AT = 4
_PICTURES = ("image2", "_pipe", "tty")
"""Parts of names of FFmpeg's readers of pictures and text, which take almost any file."""
_CHROMA_LOCATIONS = ("left", "center", "topleft", "top", "bottomleft", "bottom")
_describing = threading.Lock()


@dataclass(frozen=True, kw_only=True, slots=True)
class ColorTags:
    """How the numbers of a picture become colours, in the numbers of ITU-T H.273 and FFmpeg."""

    primaries: int = UNSPECIFIED
    """AVColorPrimaries; 2 = unspecified."""
    trc: int = UNSPECIFIED
    """AVColorTransferCharacteristic; 2 = unspecified."""
    matrix: int = UNSPECIFIED
    """AVColorSpace; 2 = unspecified."""
    range: int = 0
    """AVColorRange: 0 = unspecified, 1 = limited, 2 = full."""
    chroma_location: int = 0
    """AVChromaLocation; 0 = unspecified."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipInfo:
    """One video stream of a file."""

    path: Path
    """The file."""
    stream_index: int
    """Number of the stream in it."""
    width: int
    """Width of the frames that `decode` yields, after the turn, in pixels."""
    height: int
    """Height of them."""
    rotation: int
    """Degrees clockwise (0, 90, 180, 270) by which `decode` turns the coded picture."""
    mirrored: bool
    """Whether `decode` swaps left and right before it turns the picture."""
    time_base: Fraction
    """Unit of all time stamps, in seconds."""
    frame_rate: Fraction | None
    """Frames per second, nominal or mean; None = unknown."""
    pix_fmt: str
    """FFmpeg's name of the pixel format."""
    bit_depth: int
    """Bits of one sample."""
    chroma: Chroma
    """Chroma subsampling; 400 = gray, 444 also for RGB."""
    color: ColorTags
    """What the stream says about its colours."""
    coding: PixelCoding
    """What is used to read them: `color` with every gap filled."""
    sample_aspect_ratio: Fraction
    """Width of a pixel over its height, after the turn."""
    interlaced: bool
    """Whether frames consist of two fields."""
    frame_count: int | None
    """Number of frames, only where the container says it."""
    duration: float | None
    """Length of the stream in seconds, None = unknown."""
    start_time: float
    """Time stamp of the file's beginning in seconds; `--start` and `--end` count from it."""
    codec: str
    """FFmpeg's name of the codec."""
    container: str
    """FFmpeg's name of the container format, such as `mov,mp4,m4a,3gp,3g2,mj2`."""
    damage: str | None
    """How the file is cut short, by its own headers; None = it is not, as far as they tell."""


def probe(path: Path) -> ClipInfo:
    """Look at the video stream of a file.

    Raises:
        InputError: the file is missing, empty, not a video, without a picture stream that can be
            decoded, cut off before its index, or has frames larger than `MAX_PIXELS`.
    """
    path = Path(path)
    damage = _check_file(path)
    with open_clip(path, damage=damage) as container:
        stream = choose_stream(container, path, damage)
        frames = list(islice(_first_frames(container, stream), _FRAMES_LOOKED_AT))
        if not frames:
            cause = damage or "the file is damaged"
            raise InputError(
                f"no frame of {path.name} can be decoded ({stream.codec_context.name}): {cause}; "
                "get a complete copy of the file"
            )
        return clip_info(container, stream, frames, path=path, damage=damage)


def clip_info(
    container: InputContainer,
    stream: av.VideoStream,
    frames: Sequence[av.VideoFrame],
    *,
    path: Path,
    damage: str | None = None,
) -> ClipInfo:
    """What the headers and the first frames, one or more, say about a stream."""
    frame = frames[0]
    described = _describe(container, stream.index)
    layout = format_layout(frame.format.name)
    color = _color_tags(stream, frame, layout, described)
    rotation, mirrored = _turn(frame)
    aspect = _aspect(stream)
    width, height, sideways = frame.width, frame.height, rotation in (90, 270)
    return ClipInfo(
        path=path,
        stream_index=stream.index,
        width=height if sideways else width,
        height=width if sideways else height,
        rotation=rotation,
        mirrored=mirrored,
        time_base=Fraction(stream.time_base or Fraction(1, av.time_base)),
        frame_rate=_frame_rate(stream),
        pix_fmt=frame.format.name,
        bit_depth=layout.bits,
        chroma=layout.chroma,
        color=color,
        coding=coding_of(color, frame.format.name, width, height),
        sample_aspect_ratio=1 / aspect if sideways else aspect,
        interlaced=any(f.interlaced_frame for f in frames) or _says_fields(described),
        frame_count=_frame_count(stream),
        duration=_duration(container, stream),
        start_time=(container.start_time or 0) / av.time_base,
        codec=stream.codec_context.codec.canonical_name,
        container=container.format.name,
        damage=damage,
    )


def open_clip(path: Path, *, damage: str | None = None) -> InputContainer:
    """Open a local file for reading.

    Args:
        path: the file. FFmpeg takes some names for addresses or patterns, and playlists lead it
            to other files: the prefix and the whitelist keep it at this one.
        damage: what is known about the file, for the message.

    Raises:
        InputError: it is not a video.
    """
    try:
        container = av.open(
            f"file:{path}",
            container_options={"protocol_whitelist": "file"},
            metadata_errors="replace",
        )
    except (av.FFmpegError, OSError, ValueError) as error:
        cause = damage or "it is not a video, or damaged from its beginning"
        raise InputError(
            f"{path.name} cannot be opened: {cause}; give a complete video file "
            f"(MP4, MOV, MKV, WebM, AVI, TS and more) [{_reason(error)}]"
        ) from error
    if is_picture(container):
        name = container.format.name
        container.close()
        raise InputError(
            f"{path.name} is not a video ({name}); "
            "give a video file, and use 'restore image' for a picture"
        )
    return container


def is_picture(container: InputContainer) -> bool:
    """Whether FFmpeg took the input for a picture or a text."""
    return any(part in container.format.name for part in _PICTURES)


def _check_file(path: Path) -> str | None:
    """Raise InputError for what is no file to read; say how the file is cut short, if it is."""
    if path.is_dir():
        raise InputError(f"{path} is a folder; give one video file")
    try:
        if path.stat().st_size == 0:
            raise InputError(f"{path.name} is empty (0 bytes); give a complete video file")
        return truncation(path)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; check the name and the folder") from None
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror}); check its permissions"
        ) from error


def choose_stream(
    container: InputContainer, path: Path, damage: str | None = None
) -> av.VideoStream:
    """The stream that players show.

    Raises:
        InputError: there is none that can be decoded, or its frames are larger than `MAX_PIXELS`.
    """
    videos = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    usable = [s for s in videos if s.codec_context is not None and s.codec_context.is_decoder]
    if usable:
        best = container.streams.best("video")
        stream = next((s for s in usable if best is not None and s.index == best.index), usable[0])
        if stream.width * stream.height > MAX_PIXELS:
            raise InputError(
                f"{path.name} has frames of {stream.width}x{stream.height}; "
                f"up to {MAX_PIXELS // 10**6} million pixels are allowed: scale the clip down first"
            )
        return stream
    kinds = sorted({stream.type for stream in container.streams})
    if damage:
        found = f"the file is cut short, {damage}"
    elif videos:
        found = "its video has a codec that this build of FFmpeg cannot decode"
    elif container.streams.video:
        found = "its only picture is a cover"
    else:
        found = f"it holds only {' and '.join(kinds)}" if kinds else "it holds no streams"
    raise InputError(f"{path.name} has no video to restore: {found}; give a video file")


def _first_frames(container: InputContainer, stream: av.VideoStream) -> Iterator[av.VideoFrame]:
    """Frames from the beginning; what cannot be decoded is passed over."""
    stream.codec_context.thread_count = 1
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
            if packet is None:
                return
            yield from packet.decode()
        except (av.FFmpegError, ValueError) as error:
            log.debug("while looking for the first frame: %s", error)
            if not isinstance(error, av.error.InvalidDataError):
                return


def _describe(container: InputContainer, index: int) -> str:
    """FFmpeg's line about a stream; only there does PyAV show the chroma location.

    FFmpeg prints that word at its verbose level only, and both PyAV's and its own level count.
    """
    with _describing:
        level = av.logging.get_level()
        av.logging.set_level(av.logging.VERBOSE)
        av.logging.set_libav_level(av.logging.VERBOSE)
        try:
            text: str = cast(Any, container).dumps_format()  # its type stubs lack it
        finally:
            av.logging.set_libav_level(av.logging.INFO)
            av.logging.set_level(level)
    match = re.search(rf"^\s*Stream #0:{index}\D.*$", text, re.MULTILINE)
    return match.group(0) if match else ""


def _says_fields(described: str) -> bool:
    return re.search(r"\b(top|bottom) (coded )?first\b", described) is not None


def _color_tags(
    stream: av.VideoStream, frame: av.VideoFrame, layout: PixelLayout, described: str
) -> ColorTags:
    """What frame and stream say; the decoder's word counts more than the container's."""
    context = stream.codec_context
    matrix = _known(frame.colorspace) if _known(frame.colorspace) != UNSPECIFIED else None
    matrix = _known(context.colorspace) if matrix is None else matrix
    if matrix == RGB_MATRIX and layout.model == "yuv":
        matrix = UNSPECIFIED  # the two contradict each other; the samples are as they are
    full = layout.jpeg or frame.color_range == FULL_RANGE
    named = re.search(rf"[(,] ?({'|'.join(_CHROMA_LOCATIONS)})[,)]", described)
    return ColorTags(
        primaries=_known(context.color_primaries),
        trc=_known(context.color_trc),
        matrix=matrix,
        range=FULL_RANGE if full else int(frame.color_range or context.color_range),
        chroma_location=_CHROMA_LOCATIONS.index(named.group(1)) + 1 if named else 0,
    )


def _known(tag: int) -> int:
    """A tag of primaries, transfer or matrix, with the reserved number 3 as unspecified."""
    return UNSPECIFIED if int(tag) == 3 else int(tag)


def coding_of(color: ColorTags, pix_fmt: str, width: int, height: int) -> PixelCoding:
    """`color` with its gaps filled, for a coded picture of `width` x `height` in `pix_fmt`."""
    layout = format_layout(pix_fmt)
    if layout.model == "rgb":
        matrix = RGB_MATRIX
    elif color.matrix in (UNSPECIFIED, RGB_MATRIX):
        matrix = guess_matrix(width, height)
    else:
        matrix = known_matrix(color.matrix)
    # Nameless YUV is limited. RGB and gray are full, as FFmpeg's own conversions take them.
    full = color.range == FULL_RANGE or (layout.model != "yuv" and color.range != LIMITED_RANGE)
    return PixelCoding(matrix=matrix, full_range=full, chroma_location=color.chroma_location)


def _turn(frame: av.VideoFrame) -> tuple[int, bool]:
    """(degrees clockwise, mirrored before that) from the frame's display matrix.

    The matrix is [[a, b, u], [c, d, v], [x, y, w]] in 16.16 numbers: a point goes to
    (a x + c y, b x + d y), y downwards. A clockwise turn by t is a = d = cos t, b = -c = sin t;
    swapping left and right first negates a and b.
    """
    # The type stubs call it a mapping from strings.
    entry: Any = cast(Any, frame.side_data).get(SideDataType.DISPLAYMATRIX)
    if entry is None:
        return 0, False
    a, b, _, c, d, *_ = struct.unpack("=9i", bytes(entry)[:36])
    if a * d == b * c:  # nothing that a picture could be turned by
        return 0, False
    angle = math.degrees(math.atan2(-c, d))
    nearest = round(angle / 90) * 90
    if abs(angle - nearest) > 1:
        log.warning("the clip asks for a turn by %.0f degrees; it gets %d", angle, nearest)
    return nearest % 360, a * d < b * c


def _aspect(stream: av.VideoStream) -> Fraction:
    """Sample aspect ratio before the turn; 1 where it is missing or absurd."""
    ratio = stream.sample_aspect_ratio
    return Fraction(ratio) if ratio and Fraction(1, 20) <= ratio <= 20 else Fraction(1)


def _frame_rate(stream: av.VideoStream) -> Fraction | None:
    for rate in (stream.guessed_rate, stream.average_rate, stream.base_rate):
        if rate and 0 < rate <= 1000:
            return Fraction(rate)
    return None


def _frame_count(stream: av.VideoStream) -> int | None:
    if stream.frames > 0:
        return int(stream.frames)
    for key, value in stream.metadata.items():  # mkvmerge: NUMBER_OF_FRAMES, ..._FRAMES-eng
        if key.upper().startswith("NUMBER_OF_FRAMES") and value.isdecimal() and int(value) > 0:
            return int(value)
    return None


def _duration(container: InputContainer, stream: av.VideoStream) -> float | None:
    """Length of the stream in seconds, from its own entries first."""
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    for key, value in stream.metadata.items():  # Matroska: DURATION = 00:00:09.600000000
        match = re.fullmatch(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)", value)
        if match and key.upper().startswith("DURATION"):
            hours, minutes, seconds = match.groups()
            return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    return None if container.duration is None else container.duration / av.time_base


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)
