"""Small source files with sound, subtitles, fonts, chapters and tags, made with PyAV alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.container import OutputContainer
from av.packet import Packet
from av.stream import Stream

FONT = b"\x00\x01\x00\x00 not much of a font"
TITLE = "Ein Film über Käse"


@dataclass(frozen=True, kw_only=True)
class Film:
    """What a source file holds."""

    size: tuple[int, int] = (32, 24)
    pts: Sequence[int] = tuple(range(0, 24 * 512, 512))
    """Time stamps of the frames, in units of `time_base`."""
    time_base: Fraction = Fraction(1, 12800)
    scene: int | None = None
    """Frames after which the picture turns into its negative, and back."""
    flash: int | None = None
    """One frame that is a negative of what it would be."""
    codec: str = "libx264"
    pix_fmt: str = "yuv420p"
    b_frames: int = 2
    audio: Sequence[str] = ("aac",)
    """Encoders of the audio streams."""
    audio_seconds: float = 1.0
    audio_start: float = 0.0
    subtitles: str | None = None
    """Codec of a subtitle stream with two lines, at 0.1-0.4 s and 0.5-0.9 s."""
    chapters: bool = False
    font: bool = False
    cover: bool = False
    tags: Sequence[tuple[str, str]] = ()
    options: Sequence[tuple[str, str]] = ()
    """For the muxer."""


def make_film(path: Path, **fields: Any) -> Path:
    """Write a source file and return its path."""
    film = Film(**fields)
    with av.open(str(path), "w", container_options=dict(film.options)) as out:
        out.metadata.update(dict(film.tags))
        if film.chapters:
            out.set_chapters([chapter(1, 0.0, 0.5, "One"), chapter(2, 0.5, 1.0, "Two")])
        video = _video_stream(out, film)
        sounds = [_audio_stream(out, name, number) for number, name in enumerate(film.audio)]
        text = None if film.subtitles is None else out.add_mux_stream(film.subtitles)
        if film.font:
            out.add_attachment("Käse.ttf", "application/x-truetype-font", FONT)
        picture = _cover_stream(out) if film.cover else None
        packets = [*_video_packets(video, film)]
        for sound in sounds:
            packets += _audio_packets(sound, film)
        if text is not None:
            packets += _subtitle_packets(text, film.subtitles or "")
        packets.sort(key=lambda p: float((p.dts or 0) * p.time_base))
        if picture is not None:
            out.mux(_cover_packet(picture))
        for packet in packets:
            out.mux(packet)
    return path


def chapter(number: int, begin: float, end: float, title: str) -> Any:
    return {
        "id": number,
        "start": round(begin * 1000),
        "end": round(end * 1000),
        "time_base": Fraction(1, 1000),
        "metadata": {"title": title},
    }


def picture(index: int, width: int, height: int) -> np.ndarray[Any, Any]:
    """Frame `index` of every film: a gradient that moves, so that no two frames are equal."""
    y, x = np.mgrid[0:height, 0:width]
    planes = [(4 * x + 6 * index) % 256, (5 * y + 3 * index) % 256, (x + y + 9 * index) % 256]
    return np.stack(planes, axis=-1).astype(np.uint8)


def _video_stream(out: OutputContainer, film: Film) -> Any:
    stream = out.add_stream(film.codec, rate=25)
    stream.width, stream.height = film.size
    stream.pix_fmt = film.pix_fmt
    stream.codec_context.time_base = stream.time_base = film.time_base
    stream.codec_context.max_b_frames = film.b_frames
    if film.codec == "libx264":
        stream.options = {"preset": "ultrafast", "bf": str(film.b_frames), "threads": "1"}
    stream.metadata.update({"title": "Bild", "language": "swe"})
    return stream


def _video_packets(stream: Any, film: Film) -> list[Packet[Any]]:
    packets = []
    for index, pts in enumerate(film.pts):
        shown = picture(index, *film.size)
        turned = film.scene is not None and index // film.scene % 2 == 1
        if turned != (index == film.flash):
            shown = 255 - shown
        frame = av.VideoFrame.from_ndarray(shown, format="rgb24")
        frame = frame.reformat(format=film.pix_fmt)
        frame.pts, frame.time_base = pts, film.time_base
        packets += stream.encode(frame)
    return packets + stream.encode(None)


def _audio_stream(out: OutputContainer, name: str, number: int) -> Any:
    stream = out.add_stream(name, rate=48000, layout="mono")
    stream.metadata.update({"language": ("eng", "deu")[number % 2], "title": f"Ton {number}"})
    stream.disposition = av.stream.Disposition.default if number else 0
    return stream


def _audio_packets(stream: Any, film: Film) -> list[Packet[Any]]:
    count = round(48000 * film.audio_seconds)
    wave = np.sin(np.arange(count) * 2 * math.pi * 440 / 48000)
    packets = []
    for begin in range(0, count, 1024):
        samples = (8000 * wave[None, begin : begin + 1024]).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
        frame.sample_rate, frame.time_base = 48000, Fraction(1, 48000)
        frame.pts = begin + round(48000 * film.audio_start)
        packets += stream.encode(frame)
    return packets + stream.encode(None)


def _subtitle_packets(stream: Stream, codec: str) -> list[Packet[Any]]:
    packets = []
    for begin, end, text in [(100, 400, "Guten Tag"), (500, 900, "Käse?")]:
        data = text.encode()
        if codec == "mov_text":
            data = len(data).to_bytes(2, "big") + data
        packet: Packet[Any] = Packet(data)
        packet.pts = packet.dts = begin
        packet.duration, packet.time_base = end - begin, Fraction(1, 1000)
        packet.stream = stream
        packets.append(packet)
    return packets


def _cover_stream(out: OutputContainer) -> Any:
    stream = out.add_stream("png", rate=1)
    stream.width, stream.height, stream.pix_fmt = 16, 16, "rgb24"
    stream.disposition = av.stream.Disposition.attached_pic
    return stream


def _cover_packet(stream: Any) -> Packet[Any]:
    frame = av.VideoFrame.from_ndarray(picture(0, 16, 16), format="rgb24")
    frame.pts = 0
    return (stream.encode(frame) + stream.encode(None))[0]
