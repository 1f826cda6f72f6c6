"""What a clip holds, read with PyAV alone: frames and their times, streams, tags, chapters."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

# Written by a muxer about itself, and different in every file.
OWN_KEYS = {
    "encoder",
    "major_brand",
    "minor_version",
    "compatible_brands",
    "handler_name",
    "vendor_id",
    "duration",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Track:
    """One stream beside the restored one."""

    kind: str
    """audio, subtitle, attachment, video (a second one) or data."""
    codec: str
    """Name of the codec, or the name of an attached file."""
    language: str
    """Language tag; und = none."""
    packets: int
    """Number of packets."""
    payload: str
    """Hash of all packets' bytes, shortened."""
    start: Fraction | None
    """Time stamp of the first packet, in seconds."""
    end: Fraction | None
    """End of the last packet, in seconds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipFacts:
    """Everything that a restored clip has to keep, and its size."""

    times: tuple[Fraction, ...]
    """Time stamp of each decoded frame, in seconds."""
    tick: Fraction
    """Unit of the time stamps: two files cannot agree closer than this."""
    width: int
    """As stored, before rotation."""
    height: int
    """As stored, before rotation."""
    rotation: int
    """Degrees by which a player turns it, counter-clockwise, 0 to 359."""
    sample_aspect: Fraction
    """Width of a sample over its height, as stored."""
    rate: Fraction | None
    """Mean frame rate that the file states."""
    codec: str
    """Of the video."""
    pix_fmt: str
    """Of the decoded frames."""
    bits: int
    """Of the first component."""
    chroma: tuple[int, int]
    """Chroma samples for 16x16 of luma; (0, 0) = gray."""
    color: dict[str, int]
    """primaries, transfer, matrix and range, in FFmpeg's numbers."""
    interlaced: int
    """Frames that are marked as two fields."""
    hdr: tuple[str, ...]
    """Side data that describes high dynamic range."""
    tracks: tuple[Track, ...]
    """All other streams."""
    chapters: tuple[tuple[Fraction, Fraction, str], ...]
    """Start, end and title."""
    metadata: dict[str, str]
    """Of the file, without what a muxer writes by itself."""
    duration: Fraction | None
    """Of the file, in seconds."""


def read_facts(path: Path, *, limit: int | None = None) -> ClipFacts:
    """Decode a clip and list its facts; `limit` stops after so many frames."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        times: list[Fraction] = []
        interlaced = 0
        first: Any = None
        for frame in container.decode(stream):
            first = first or frame
            times.append(frame_time(frame))
            interlaced += frame.interlaced_frame
            if len(times) == limit:
                break
        if first is None:
            raise ValueError(f"{path} holds no frame that can be decoded")
        return ClipFacts(
            times=tuple(times),
            tick=stream.time_base or Fraction(1, av.time_base),
            width=first.width,
            height=first.height,
            rotation=round(first.rotation) % 360,
            sample_aspect=stream.sample_aspect_ratio or Fraction(1),
            rate=stream.average_rate,
            codec=stream.codec_context.name,
            **_format(first),
            color=_color(first),
            interlaced=interlaced,
            hdr=_hdr(first),
            tracks=_tracks(path, stream.index),
            chapters=_chapters(container),
            metadata=_metadata(container),
            duration=_duration(container),
        )


def frame_time(frame: Any) -> Fraction:
    """Time stamp in seconds."""
    if frame.pts is None:
        raise ValueError("a frame has no time stamp")
    return Fraction(frame.pts * frame.time_base)


def _format(frame: Any) -> dict[str, Any]:
    pixel = frame.format
    gray = len(pixel.components) < 3
    chroma = (0, 0) if gray else (pixel.chroma_width(16), pixel.chroma_height(16))
    return {"pix_fmt": pixel.name, "bits": pixel.components[0].bits, "chroma": chroma}


def _color(frame: Any) -> dict[str, int]:
    return {
        "primaries": int(frame.color_primaries),
        "transfer": int(frame.color_trc),
        "matrix": int(frame.colorspace),
        "range": int(frame.color_range),
    }


def _hdr(frame: Any) -> tuple[str, ...]:
    wanted = ("MASTERING", "LIGHT_LEVEL", "HDR", "DOVI", "AMBIENT")
    names = {data.type.name for data in frame.side_data}
    return tuple(sorted(name for name in names if any(word in name for word in wanted)))


def _tracks(path: Path, video: int) -> tuple[Track, ...]:
    """All streams but the video, from their packets."""
    with av.open(str(path)) as container:
        streams: list[Any] = [s for s in container.streams if s.index != video]
        hashes = {s.index: hashlib.sha256() for s in streams}
        counts = dict.fromkeys(hashes, 0)
        spans: dict[int, tuple[Fraction, Fraction]] = {}
        for attached in (s for s in streams if s.type == "attachment"):
            hashes[attached.index].update(bytes(attached.data or b""))
            counts[attached.index] = 1
        readable = [s for s in streams if s.type != "attachment"]
        for packet in container.demux(readable) if readable else ():
            if packet.size == 0:
                continue
            index = packet.stream.index
            hashes[index].update(bytes(packet))
            counts[index] += 1
            if packet.pts is not None and packet.time_base is not None:
                start = packet.pts * packet.time_base
                end = start + (packet.duration or 0) * packet.time_base
                known = spans.get(index, (start, end))
                spans[index] = (min(known[0], start), max(known[1], end))
        return tuple(
            Track(
                kind=s.type,
                codec=_codec_name(s),
                language=s.metadata.get("language", "und"),
                packets=counts[s.index],
                payload=hashes[s.index].hexdigest()[:12],
                start=spans[s.index][0] if s.index in spans else None,
                end=spans[s.index][1] if s.index in spans else None,
            )
            for s in streams
        )


def _codec_name(stream: Any) -> str:
    if stream.type == "attachment":
        return str(stream.metadata.get("filename", "attachment"))
    context = stream.codec_context
    return "unknown" if context is None else str(context.name)


def _chapters(container: Any) -> tuple[tuple[Fraction, Fraction, str], ...]:
    return tuple(
        (c["start"] * c["time_base"], c["end"] * c["time_base"], c["metadata"].get("title", ""))
        for c in container.chapters()
    )


def _metadata(container: Any) -> dict[str, str]:
    return {k: v for k, v in container.metadata.items() if k.lower() not in OWN_KEYS}


def _duration(container: Any) -> Fraction | None:
    length = container.duration
    return None if length is None else Fraction(length, av.time_base)
