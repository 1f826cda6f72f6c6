"""Makes pictures and clips that are good in unusual ways, and ones that are broken in usual ways.

Everything is small, and made from the same seed each time.
"""

from __future__ import annotations

import io
import os
import random
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
from odd_clips import Clip, write
from PIL import Image

SIDE = 40
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def picture(mode: str = "RGB", *, width: int = SIDE, height: int = SIDE) -> Image.Image:
    """A small picture with structure."""
    y, x = np.mgrid[0:height, 0:width]
    planes = np.stack([(x * 6) % 256, (y * 5) % 256, (x * y) % 256], axis=-1)
    image = Image.fromarray(planes.astype(np.uint8))
    if mode == "I;16":
        return Image.fromarray((x * 1500).astype(np.uint16))
    if mode == "RGBA":
        image.putalpha(Image.fromarray(((x + y) * 3).astype(np.uint8)))
        return image
    return image.convert(mode)


def encoded(kind: str, mode: str = "RGB", **options: object) -> bytes:
    """A whole file in memory."""
    buffer = io.BytesIO()
    picture(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def oriented() -> bytes:
    """A JPEG whose EXIF says that the camera was turned."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded("JPEG", exif=exif)


def good_files() -> dict[str, bytes]:
    """Twenty pictures, each of another kind, all to be restored."""
    tiny = io.BytesIO()
    picture(width=1, height=1).save(tiny, "PNG")
    narrow = io.BytesIO()
    picture(width=200, height=3).save(narrow, "PNG")
    return {
        "rgb.png": encoded("PNG"),
        "gray.png": encoded("PNG", "L"),
        "gray16.png": encoded("PNG", "I;16"),
        "alpha.png": encoded("PNG", "RGBA"),
        "palette.png": encoded("PNG", "P"),
        "bilevel.png": encoded("PNG", "1"),
        "gray-alpha.png": encoded("PNG", "LA"),
        "one-pixel.png": tiny.getvalue(),
        "narrow.png": narrow.getvalue(),
        "photo.jpg": encoded("JPEG"),
        "upper-case.JPG": encoded("JPEG"),
        "progressive.jpeg": encoded("JPEG", progressive=True),
        "gray.jpg": encoded("JPEG", "L"),
        "cmyk.jpg": encoded("JPEG", "CMYK"),
        "turned.jpg": oriented(),
        "photo.webp": encoded("WEBP", lossless=True),
        "alpha.webp": encoded("WEBP", "RGBA"),
        "plain.tif": encoded("TIFF"),
        "packed.tiff": encoded("TIFF", compression="tiff_lzw"),
        "n\u00f6n-\u00e4scii \u5199\u771f.png": encoded("PNG"),
    }


def png_header(width: int, height: int, *, depth: int = 8) -> bytes:
    """A PNG that claims a size and holds next to nothing."""
    header = struct.pack(">IIBBBBB", width, height, depth, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 100)), (b"IEND", b"")]
    parts = [
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    ]
    return PNG_SIGNATURE + b"".join(parts)


def damaged(data: bytes, *, at: float) -> bytes:
    """The same bytes with some overwritten."""
    start = int(len(data) * at)
    return data[:start] + b"\xff\x00\x55" * 12 + data[start + 36 :]


def broken_files() -> dict[str, bytes | None]:
    """Twenty files named like pictures that hold none; None = a link to nothing."""
    noise = random.Random(0).randbytes(3000)
    page = b"<!doctype html><html><body>404 not found</body></html>"
    return {
        "empty.png": b"",
        "empty.jpg": b"",
        "one-byte.webp": b"R",
        "cut.png": encoded("PNG")[:300],
        "cut.jpg": encoded("JPEG")[:400],
        "cut.webp": encoded("WEBP", lossless=True)[:200],
        "cut.tif": encoded("TIFF")[:900],
        "signature-only.png": PNG_SIGNATURE,
        "signature-only.jpg": b"\xff\xd8\xff\xe0",
        "damaged.png": damaged(encoded("PNG"), at=0.5),
        "text.png": b"this is not a picture\n" * 20,
        "page.jpg": page,
        "noise.png": noise,
        "noise.tif": b"II*\0" + noise,
        "bomb.png": png_header(100_000, 100_000),
        "no-size.png": png_header(0, 0),
        "odd-depth.png": png_header(SIDE, SIDE, depth=7),
        "script.webp": b"#!/bin/sh\nexit 0\n",
        "document.jpg": b"%PDF-1.7\n%%EOF\n",
        "dangling.png": None,
    }


def doubtful_files() -> dict[str, bytes]:
    """Files that a program may restore, refuse or pass over, but not stumble on."""
    return {
        "jpeg-inside.png": encoded("JPEG"),
        "png-inside.jpg": encoded("PNG"),
        "no-extension": encoded("PNG"),
        "notes.txt": b"a note beside the pictures\n",
        ".hidden.png": encoded("PNG"),
        "Thumbs.db": b"\xd0\xcf\x11\xe0",
    }


def write_files(folder: Path, files: dict[str, bytes] | dict[str, bytes | None]) -> None:
    """Put files into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        path = folder / name
        if data is None:
            path.unlink(missing_ok=True)
            path.symlink_to("nowhere")
        else:
            path.write_bytes(data)


def write_oddities(folder: Path) -> list[str]:
    """A folder and a pipe that are named like pictures: neither may hang the program."""
    (folder / "folder.png").mkdir(exist_ok=True)
    names = ["folder.png"]
    if hasattr(os, "mkfifo") and not (folder / "pipe.png").exists():
        os.mkfifo(folder / "pipe.png")
    return [*names, "pipe.png"] if (folder / "pipe.png").exists() else names


Maker = Callable[[Path], None]


def good_clips() -> dict[str, Maker]:
    """Clips to be restored whole."""
    return {"good.mp4": lambda path: write(path, Clip())}


def damaged_clips() -> dict[str, Maker]:
    """Clips whose beginning can be restored: that much is to be kept, and the rest reported."""
    return {
        "cut-tail.mp4": lambda path: _cut(path, Clip(muxer={"movflags": "faststart"}), 0.6),
        "cut-tail.mkv": lambda path: _cut(path, Clip(), 0.6),
    }


def broken_clips() -> dict[str, Maker]:
    """Files named like clips that hold none."""
    return {
        "empty.mp4": lambda path: _bytes(path, b""),
        "text.mp4": lambda path: _bytes(path, b"this is not a clip\n" * 50),
        "noise.mkv": lambda path: _bytes(path, random.Random(1).randbytes(4000)),
        "header-only.mp4": lambda path: _bytes(path, b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41"),
        "no-index.mp4": lambda path: _cut(path, Clip(), 0.5),
        "cut-header.mkv": lambda path: _cut(path, Clip(), 0.01),
        "sound-only.mp4": _sound_only,
        "sound-only.mp3": _sound_only,
    }


def _bytes(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def _cut(path: Path, clip: Clip, share: float) -> None:
    write(path, clip)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


def _sound_only(path: Path) -> None:
    codec = "mp3" if path.suffix == ".mp3" else "aac"
    with av.open(str(path), "w") as out:
        sound: Any = out.add_stream(codec, rate=48_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 48_000), np.float32), "fltp", "mono")
        frame.sample_rate, frame.pts = 48_000, 0
        resampler = av.AudioResampler("fltp", "mono", 48_000, frame_size=1024)
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            out.mux(sound.encode(piece))
        out.mux(sound.encode(None))
