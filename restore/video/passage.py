"""The way of sound, subtitles and covers from the source into the result, packet by packet."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, cast

import av
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.stream import AttachmentStream, Stream

from restore.video.containers import Format, Route, codec_name
from restore.video.probe import open_clip

if TYPE_CHECKING:
    from av.container.core import Chapter

log = logging.getLogger("restore.video")

_RECODERS: dict[Format, str] = {"mp4": "flac", "matroska": "flac", "mov": "alac"}
_LEAD = 30  # seconds read before a cut, so that a subtitle shown across it is found
_TAIL = 10  # seconds read after it, as the streams of a file lie some distance from each other
_STALE_TAGS = ("duration", "bps", "number_of_", "_statistics", "vendor_id")


@dataclass(frozen=True, kw_only=True, slots=True)
class Passage:
    """Which part of the source's time gets through, and how it moves."""

    begin: Fraction | None = None
    """Seconds in the source from which on packets are copied; None = all."""
    end: Fraction | None = None
    """Seconds in the source from which on they are not; None = all."""
    shift: Fraction = Fraction(0)
    """Seconds added to each time stamp, of the restored frames too."""


@dataclass(kw_only=True, slots=True)
class Outlet:
    """One stream on its way, and what came through it so far."""

    source: Stream
    """Where packets come from."""
    target: Stream
    """Where they go."""
    route: Route
    """How they get there."""
    earliest: int | None = None
    """Lowest decode time that the next packet may have, in the source stream's unit."""


def add_copied_stream(
    route: Route, stream: Stream, result: OutputContainer, form: Format
) -> Outlet | None:
    """Add a stream of the source to the result; None when no packets are to be sent to it."""
    if route.how == "drop":
        return None
    if route.how == "cover":
        _attach_cover(stream, result)
        return None
    if route.how == "recode":
        target: Stream = _add_recoder(cast(AudioStream, stream), result, form)
    elif route.how == "text":
        target = result.add_mux_stream("subrip")
    else:
        target = result.add_stream_from_template(stream, opaque=True)
    if isinstance(stream, AttachmentStream):
        return None  # it came along with the header
    target.disposition = stream.disposition
    target.metadata.update(stream_tags(stream))
    return Outlet(source=stream, target=target, route=route)


def stream_tags(stream: Stream) -> dict[str, str]:
    """Language, title and the like, without what describes the old file."""
    return {
        key: value
        for key, value in stream.metadata.items()
        if not key.lower().startswith(_STALE_TAGS)
    }


def copied_packets(
    container: InputContainer, outlets: list[Outlet], passage: Passage, *, negative: bool
) -> Iterator[Packet[Stream]]:
    """Packets of the source's streams, ready for the muxer, in the order of the file.

    Args:
        container: the source.
        outlets: the streams to read.
        passage: which part gets through.
        negative: whether the result may hold packets that end before time 0.
    """
    if not outlets:
        return
    _seek(container, passage)
    by_index = {outlet.source.index: outlet for outlet in outlets}
    for packet in _demuxed(container, outlets):
        outlet = by_index[packet.stream.index]
        if _is_over(packet, outlet, passage):
            break
        if _place(packet, outlet, passage) and (negative or _seconds_left(packet) > 0):
            yield from _convert(packet, outlet)
    for outlet in outlets:
        if outlet.route.how == "recode":
            yield from cast(AudioStream, outlet.target).encode(None)


def shifted_chapters(container: InputContainer, passage: Passage) -> list[Chapter]:
    """Chapters of the source, cut and moved as its packets are."""
    chapters = []
    for chapter in container.chapters():
        unit = Fraction(chapter["time_base"] or 1)
        begin, end = chapter["start"] * unit, chapter["end"] * unit
        if passage.begin is not None:
            begin = max(begin, passage.begin)
        if passage.end is not None:
            end = min(end, passage.end)
        if begin < end:
            start, stop = (max(0, round((time + passage.shift) / unit)) for time in (begin, end))
            chapters.append(cast("Chapter", {**chapter, "start": start, "end": stop}))
    return chapters


def plain_text(packet: bytes) -> str:
    """Text of an MP4 subtitle: two bytes of length, the text, and styles that are left out."""
    text = packet[2 : 2 + int.from_bytes(packet[:2], "big")]
    encoding = "utf-16" if text[:2] in (b"\xfe\xff", b"\xff\xfe") else "utf-8"
    return text.decode(encoding, errors="replace")


def _add_recoder(stream: AudioStream, result: OutputContainer, form: Format) -> AudioStream:
    layout = stream.layout.name
    if layout.endswith(" channels"):  # old formats say how many, but not which is which
        layout = f"{stream.layout.nb_channels}c"
    return cast(AudioStream, result.add_stream(_RECODERS[form], rate=stream.rate, layout=layout))


def _demuxed(container: InputContainer, outlets: list[Outlet]) -> Iterator[Packet[Stream]]:
    """Packets until the end of the source, or until it cannot be read further."""
    packets = container.demux([outlet.source for outlet in outlets])
    while True:
        try:
            packet = next(packets, None)
        except av.FFmpegError as error:
            log.warning("sound and subtitles of the input break off early: %s", error)
            return
        if packet is None:
            return
        if packet.size:  # none: the demuxer's sign of the end
            yield packet


def _attach_cover(stream: Stream, result: OutputContainer) -> None:
    """A picture that is a stream of one packet in MP4 is an attached file in MKV."""
    name = codec_name(stream)
    suffix, kind = ("jpg", "jpeg") if name == "mjpeg" else (name, name)
    with open_clip(Path(stream.container.name.removeprefix("file:"))) as again:
        for packet in again.demux(again.streams[stream.index]):
            if packet.size:
                file = stream.metadata.get("filename", f"cover.{suffix}")
                result.add_attachment(file, f"image/{kind}", bytes(packet))
                return


def _seek(container: InputContainer, passage: Passage) -> None:
    """Skip most of what lies before the passage; where a format cannot, all of it is read."""
    if passage.begin is None or passage.begin <= _LEAD:
        return
    try:
        container.seek(int((passage.begin - _LEAD) * av.time_base))
    except av.FFmpegError as error:
        log.info("the input cannot be sought in (%s); it is read from its beginning", error)


def _is_over(packet: Packet[Stream], outlet: Outlet, passage: Passage) -> bool:
    time = packet.dts if packet.dts is not None else packet.pts
    if passage.end is None or time is None:
        return False
    return time * _unit(outlet) > passage.end + _TAIL


def _place(packet: Packet[Stream], outlet: Outlet, passage: Passage) -> bool:
    """Give the packet its time in the result; False when it lies outside the passage."""
    if outlet.route.kind == "cover":  # it belongs to the whole file
        packet.pts = packet.dts = 0
        return True
    unit, duration = _unit(outlet), packet.duration or 0
    pts = next((t for t in (packet.pts, packet.dts, outlet.earliest) if t is not None), 0)
    if passage.end is not None and pts * unit >= passage.end:
        return False
    if passage.begin is not None and pts * unit < passage.begin:
        begin = math.ceil(passage.begin / unit)
        if outlet.route.kind != "subtitle" or pts + duration <= begin:
            return False
        pts, duration = begin, pts + duration - begin  # shown across the cut: its rest
    shift = round(passage.shift / unit)
    dts = pts if packet.dts is None else packet.dts
    dts = min(dts, pts) if outlet.earliest is None else max(min(dts, pts), outlet.earliest)
    # Damaged clocks step back; muxers refuse that. Subtitles may share a time.
    outlet.earliest = dts + (outlet.route.kind != "subtitle")
    packet.pts, packet.dts, packet.duration = max(pts, dts) + shift, dts + shift, duration
    return True


def _convert(packet: Packet[Stream], outlet: Outlet) -> Iterator[Packet[Stream]]:
    """What is written for one packet of the source."""
    if outlet.route.how == "recode":
        sound = cast(AudioStream, outlet.target)
        try:
            frames = cast(AudioStream, outlet.source).decode(packet)
        except av.FFmpegError as error:
            log.warning("a damaged packet of %s is left out: %s", outlet.route.label, error)
            return
        for frame in frames:
            yield from sound.encode(frame)
        return
    if outlet.route.how == "text":
        text = plain_text(bytes(packet))
        if not text.strip():  # MP4 fills the time between subtitles with empty ones
            return
        times = packet.pts, packet.dts, packet.duration, packet.time_base
        packet = Packet(text.encode())
        packet.pts, packet.dts, packet.duration, packet.time_base = times
    packet.stream = outlet.target
    yield packet


def _unit(outlet: Outlet) -> Fraction:
    return Fraction(outlet.source.time_base or 1)


def _seconds_left(packet: Packet[Stream]) -> float:
    """When the packet's content ends in the result."""
    return float(((packet.pts or 0) + (packet.duration or 0)) * Fraction(packet.time_base))
