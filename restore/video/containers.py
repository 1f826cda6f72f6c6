"""Which container a result goes into, and how each stream of the source gets there.

Sound, subtitles, fonts and covers are copied as they are wherever the container can hold them.
What libavformat would write but common players do not read counts as not fitting.
"""

from __future__ import annotations

import contextlib
import io
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import av
from av.stream import Disposition, Stream

from restore.config import CodecChoice
from restore.errors import OptionError
from restore.video.probe import open_clip

log = logging.getLogger("restore.video")

Format = Literal["mp4", "mov", "matroska"]
How = Literal["copy", "text", "recode", "cover", "drop"]

FORMATS: dict[str, Format] = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}
"""Container of each suffix that a result may have."""

SUFFIXES: dict[Format, str] = {"mp4": ".mp4", "mov": ".mov", "matroska": ".mkv"}

_PREFERRED: dict[CodecChoice, Format] = {
    "h264": "mp4",
    "hevc": "mp4",
    "av1": "mp4",
    "ffv1": "matroska",
    "prores": "mov",
}
_VIDEO: dict[Format, tuple[CodecChoice, ...]] = {
    "mp4": ("h264", "hevc", "av1"),
    "mov": ("h264", "hevc", "prores"),
    "matroska": ("h264", "hevc", "av1", "ffv1", "prores"),
}
_UNREAD: dict[Format, tuple[str, ...]] = {"mp4": ("pcm_", "vorbis"), "mov": (), "matroska": ()}
"""Beginnings of codec names that libavformat writes into a container, and few players read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Route:
    """How one stream of the source gets into the result."""

    index: int
    """Number of the stream in the source."""
    how: How
    """copy: packet by packet; text: subtitles without their styles; recode: sound encoded anew,
    as FLAC or ALAC; cover: a picture as an attachment; drop: not at all."""
    kind: str
    """cover, video, audio, subtitle, attachment, data or unknown."""
    label: str
    """Words for messages, such as `stream 3 (subtitle, ass)`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ContainerPlan:
    """Container of the result, and the way of every copied stream into it."""

    format: Format
    """Container in libavformat's words."""
    suffix: str
    """End of the file's name."""
    routes: tuple[Route, ...]
    """Every stream of the source but the restored one, in order."""
    warnings: tuple[str, ...]
    """What the user did not ask for and should know."""


def plan_container(
    source: Path, *, video: int, codec: CodecChoice, name: Path | None, audio: bool = True
) -> ContainerPlan:
    """Choose the container.

    Args:
        source: the input file.
        video: number of its stream that is restored.
        codec: codec of the result.
        name: file that the user asked for; None = a name is made up, MKV where MP4 does not do.
        audio: whether sound is copied.

    Raises:
        OptionError: the name's suffix is unknown, or its container cannot hold the codec or one of
            the streams.
    """
    preferred = _PREFERRED[codec] if name is None else _asked_format(name, codec)
    with open_clip(source) as container:
        streams = [
            stream
            for stream in container.streams
            if stream.index != video and (audio or stream.type != "audio")
        ]
        chapters = bool(container.chapters())
        streams = [s for s in streams if not _is_made_by_muxer(s, chapters=chapters)]
        routes = [_route(stream, preferred) for stream in streams]
        misfits = [
            route
            for route, stream in zip(routes, streams, strict=True)
            if route.how not in ("copy", "cover") and _route(stream, "matroska").how == "copy"
        ]
        if not misfits:
            return _plan(preferred, routes, name)
        misfit = misfits[0]
        if name is not None:
            raise OptionError(
                f"{misfit.label} of {source.name} does not fit {name.suffix}; "
                f"name the result {name.stem}.mkv"
                + (", or leave the sound out with --no-audio" * (misfit.kind == "audio"))
            )
        reason = f"the result is an MKV file, as {misfit.label} does not fit {preferred.upper()}"
        return _plan("matroska", [_route(stream, "matroska") for stream in streams], name, reason)


def describe(stream: Stream) -> str:
    """Words for a stream: `stream 3 (subtitle, ass)`."""
    details = [stream.type, codec_name(stream) or "unknown codec"]
    if stream.type == "attachment":
        details[1] = stream.name or "no name"
    if language := stream.metadata.get("language"):
        details.append(language)
    return f"stream {stream.index} ({', '.join(details)})"


def codec_name(stream: Stream) -> str | None:
    """Name of the codec, whichever library decodes it; None when it is not known."""
    if stream.codec_context is None:
        return stream.name
    return stream.codec_context.codec.canonical_name


def is_cover(stream: Stream) -> bool:
    """Whether a stream is a single picture that belongs to the file as a whole."""
    return stream.type == "video" and bool(stream.disposition & Disposition.attached_pic)


def _asked_format(name: Path, codec: CodecChoice) -> Format:
    form = FORMATS.get(name.suffix.lower())
    if form is None:
        raise OptionError(
            f"'{name.name}' does not end in a known suffix; allowed: {', '.join(FORMATS)}"
        )
    if codec not in _VIDEO[form]:
        raise OptionError(
            f"{codec} video does not fit {name.suffix}; "
            f"name the result {name.stem}{SUFFIXES[_PREFERRED[codec]]}, "
            f"or choose --codec {' or '.join(_VIDEO[form])}"
        )
    return form


def _plan(
    form: Format, routes: list[Route], name: Path | None, reason: str | None = None
) -> ContainerPlan:
    warnings = [] if reason is None else [reason]
    notes: dict[How, str] = {
        "text": "copied as plain text, as their styles do not fit MKV: {}",
        "recode": f"encoded anew without loss, as the codec does not fit {form.upper()}: {{}}",
        "drop": "left out, as no container that restore writes can hold it: {}",
    }
    films = [route.label for route in routes if route.kind == "video"]
    if films:
        warnings.append(f"left out, as one film is restored at a time: {', '.join(films)}")
    for how, note in notes.items():
        labels = [r.label for r in routes if r.how == how and r.kind != "video"]
        if labels:
            warnings.append(note.format(", ".join(labels)))
    suffix = SUFFIXES[form] if name is None else name.suffix
    return ContainerPlan(format=form, suffix=suffix, routes=tuple(routes), warnings=tuple(warnings))


def _route(stream: Stream, form: Format) -> Route:
    kind = "cover" if is_cover(stream) else stream.type
    return Route(index=stream.index, how=_way(stream, form), kind=kind, label=describe(stream))


def _way(stream: Stream, form: Format) -> How:
    if stream.type == "video" and not is_cover(stream):
        return "drop"  # a second film: restored it is not, and copied it would not fit the first
    if form == "matroska" and is_cover(stream):
        return "cover"
    if _fits(stream, form):
        return "copy"
    if stream.type == "audio" and stream.codec_context is not None:
        return "recode"
    if form == "matroska" and codec_name(stream) == "mov_text":
        return "text"
    return "drop"


def _fits(stream: Stream, form: Format) -> bool:
    """Whether the container can hold the stream: found out by writing a header."""
    name = codec_name(stream) or ""
    if not name or any(name.startswith(unread) for unread in _UNREAD[form]):
        return False
    with contextlib.suppress(ValueError, av.FFmpegError):
        trial = av.open(io.BytesIO(), "w", format=form)
        trial.add_stream_from_template(stream, opaque=True)
        trial.start_encoding()
        trial.close()
        return True
    return False


def _is_made_by_muxer(stream: Stream, *, chapters: bool) -> bool:
    """MP4 shows chapter titles and timecode as data streams too; muxers make them from the tags."""
    if stream.type != "data":
        return False
    return "timecode" in stream.metadata or (chapters and stream.name == "bin_data")
