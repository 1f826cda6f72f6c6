"""Small clips of every kind, made with PyAV; frame i is recognised by its level of gray.

Pictures are written as codes, not through the code under test.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

Fill = Callable[[int, av.VideoFrame], None]

CLOCK = Fraction(1, 90_000)
FRAME = 3600  # ticks of a frame at 25 frames a second


def level(index: int) -> int:
    """8-bit luma code of frame `index`; neighbours are far enough apart for lossy codecs."""
    return 24 + 12 * (index % 16)


def fill_gray(index: int, frame: av.VideoFrame) -> None:
    """A flat gray frame of the level of `index`, without colour, in any planar YUV format."""
    bits = frame.format.components[0].bits
    for plane, code in zip(frame.planes, (level(index), 128, 128, 255), strict=False):
        samples(plane, bits)[:] = code << (bits - 8)


def fill_grain(index: int, frame: av.VideoFrame) -> None:
    """As `fill_gray`, with grain in the luma, so that a frame takes some bytes."""
    fill_gray(index, frame)
    luma = samples(frame.planes[0], 8)
    luma += np.random.default_rng(index).integers(0, 9, luma.shape, np.uint8)


def fill_codes(*codes: int) -> Fill:
    """Flat frames with these codes in their planes."""

    def fill(_index: int, frame: av.VideoFrame) -> None:
        bits = frame.format.components[0].bits
        for plane, code in zip(frame.planes, codes, strict=True):
            samples(plane, bits)[:] = code

    return fill


def samples(plane: Any, bits: int) -> np.ndarray[Any, Any]:
    """View of a plane's samples (h, w)."""
    flat = np.frombuffer(memoryview(plane), "u1" if bits == 8 else "<u2")
    return flat.reshape(plane.height, -1)[:, : plane.width]


def write_clip(
    path: Path,
    *,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    size: tuple[int, int] = (64, 48),
    times: Sequence[int] | None = None,
    frames: int = 8,
    time_base: Fraction = CLOCK,
    fill: Fill = fill_gray,
    options: dict[str, str] | None = None,
    container: dict[str, str] | None = None,
    aspect: Fraction | None = None,
    tags: tuple[int, int, int, int] = (2, 2, 2, 0),
    audio: bool = False,
    seconds: int = 1,
) -> Path:
    """Write a clip and return its path; the suffix chooses the container.

    Args:
        path: the file.
        codec: FFmpeg's name of an encoder.
        pix_fmt: pixel format.
        size: width and height.
        times: pts of each frame in units of `time_base`; default 25 frames a second.
        frames: number of frames when there are no times.
        time_base: unit of the times.
        fill: paints frame `index`.
        options: for the encoder.
        container: for the muxer.
        aspect: sample aspect ratio.
        tags: primaries, transfer, matrix, range.
        audio: add silence.
        seconds: length of it.
    """
    if times is None:
        times = [round(i / 25 / time_base) for i in range(frames)]
    with av.open(str(path), "w", container_options=container or {}) as output:
        stream: Any = output.add_stream(codec, rate=25)
        context = stream.codec_context
        context.width, context.height, context.pix_fmt = *size, pix_fmt
        context.time_base = stream.time_base = time_base
        context.color_primaries, context.color_trc, context.colorspace, context.color_range = tags
        if aspect is not None:
            context.sample_aspect_ratio = aspect
        context.options = {"threads": "1", **(options or {})}
        if audio:
            add_silence(output, seconds)
        for index, pts in enumerate(times):
            frame = av.VideoFrame(*size, pix_fmt)
            fill(index, frame)
            frame.colorspace, frame.color_range = tags[2], tags[3]
            frame.pts, frame.time_base = pts, time_base
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


def add_silence(output: Any, seconds: int) -> None:
    """A sound stream, written before the picture's packets are."""
    stream = output.add_stream("pcm_s16le", rate=8000)
    frame = av.AudioFrame(format="s16", layout="mono", samples=8000 * seconds)
    for plane in frame.planes:
        plane.update(bytes(plane.buffer_size))
    frame.sample_rate, frame.pts = 8000, 0
    output.mux(stream.encode(frame))
    output.mux(stream.encode(None))


def turn_mp4(path: Path, matrix: Sequence[int]) -> Path:
    """Write a display matrix (a, b, c, d, each -1, 0 or 1) into the track header of an MP4 file."""
    data = bytearray(path.read_bytes())
    start = data.index(b"tkhd") + 4 + 40
    a, b, c, d = (value << 16 for value in matrix)
    words = (a, b, 0, c, d, 0, 0, 0, 1 << 30)
    data[start : start + 36] = b"".join(word.to_bytes(4, "big", signed=True) for word in words)
    path.write_bytes(data)
    return path


def cut(path: Path, keep: float) -> Path:
    """Keep the first part of a file."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    return path


def damage(path: Path, begin: float, end: float, seed: int = 0) -> Path:
    """Overwrite bytes of a part of a file, given as fractions of its length."""
    data = bytearray(path.read_bytes())
    low, high = int(len(data) * begin), int(len(data) * end)
    data[low:high] = np.random.default_rng(seed).bytes(high - low)
    path.write_bytes(data)
    return path
