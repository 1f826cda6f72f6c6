"""Pictures, profiles and files for tests of pictures, made by other hands than the code tested."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from restore.image.files import Picture

HEIGHT, WIDTH = 21, 34
LIMIT = 100_000


def planes(depth: int = 8, channels: int = 4) -> Tensor:
    """Smooth random colors, so that lossy formats come close; exact at `depth` bits."""
    generator = torch.Generator().manual_seed(3)
    coarse = torch.rand(1, channels, 4, 5, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=(HEIGHT, WIDTH), mode="bilinear")[0]
    peak = float(2**depth - 1)
    return smooth.mul(peak).round().div(peak)


def picture(*, depth: int = 8, gray: bool = False, alpha: bool = False, **more: Any) -> Picture:
    values = planes(depth)
    rgb = values[:1].expand(3, -1, -1) if gray else values[:3]
    last = values[3:] if alpha else None
    return Picture(rgb=rgb, alpha=last, gray=gray, bit_depth=depth, **more)


def pillow(mode: str = "RGB") -> Image.Image:
    array = (planes()[:3] * 255).round().byte().permute(1, 2, 0).numpy()
    image = Image.fromarray(array)
    if mode in ("LA", "RGBA"):
        image.putalpha(Image.fromarray((planes()[3] * 255).round().byte().numpy()))
    return image.convert(mode)


def saved(image: Image.Image, format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def exif_block(orientation: int = 1, *, order: str = "<") -> bytes:
    """EXIF with maker notes, pixel sizes and a thumbnail at its end, laid out by hand."""

    def entry(tag: int, kind: int, count: int, value: int) -> bytes:
        head = struct.pack(order + "HHI", tag, kind, count)
        return head + struct.pack(
            order + ("HH" if kind == 3 else "I"), *((value, 0) if kind == 3 else (value,))
        )

    note = b"maker\0notes\xff"
    first = entry(0x0112, 3, 1, orientation) + entry(0x8769, 4, 1, 50) + entry(0x9999, 4, 1, 7)
    inner = entry(0x927C, 7, len(note), 92) + entry(0xA002, 3, 1, 11) + entry(0xA003, 3, 1, 12)
    second = entry(0x0201, 4, 1, 134) + entry(0x0202, 4, 1, 9)
    data = b"II*\0" if order == "<" else b"MM\0*"
    data += struct.pack(order + "I", 8)
    for entries, following in ((first, 104), (inner, 0)):
        data += struct.pack(order + "H", 3) + entries + struct.pack(order + "I", following)
    data += note + struct.pack(order + "H", 2) + second + struct.pack(order + "I", 0)
    assert len(data) == 134
    return data + b"thumbnail"


def gray_profile() -> bytes:
    """The smallest gray ICC profile: white point and a gamma of 1.0, unlike that of sRGB."""
    white = b"XYZ \0\0\0\0" + struct.pack(">3i", 0xF6D6, 0x10000, 0xD32D)
    curve = b"curv\0\0\0\0" + struct.pack(">IH2x", 1, 0x0100)
    text = b"text\0\0\0\0none\0\0\0\0"
    name = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"gray\0" + bytes(79)
    return _profile(b"mntrGRAYXYZ ", [(b"wtpt", white), (b"kTRC", curve), (b"desc", name),
                                      (b"cprt", text)])  # fmt: skip


def cmyk_profile() -> bytes:
    """CMYK to Lab where every ink makes a mid gray of L = 50 by itself, unlike any real ink."""
    table = [255 if inks == 0 else 128 if inks in (1, 2, 4, 8) else 0 for inks in range(16)]
    cells = bytes(v for lightness in table for v in (lightness, 128, 128))
    ramp = bytes(range(256))
    lut = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0])
    lut += struct.pack(">9i", *(65536 if i % 4 == 0 else 0 for i in range(9)))
    lut += ramp * 4 + cells + ramp * 3
    white = b"XYZ \0\0\0\0" + struct.pack(">3i", 0xF6D6, 0x10000, 0xD32D)
    text = b"text\0\0\0\0none\0\0\0\0"
    name = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"cmyk\0" + bytes(79)
    return _profile(b"prtrCMYKLab ", [(b"wtpt", white), (b"A2B0", lut), (b"desc", name),
                                      (b"cprt", text)])  # fmt: skip


def _profile(kind: bytes, tags: list[tuple[bytes, bytes]]) -> bytes:
    tags = [(name, data + bytes(-len(data) % 4)) for name, data in tags]
    start = 128 + 4 + 12 * len(tags)
    table, body = struct.pack(">I", len(tags)), b""
    for name, data in tags:
        table += name + struct.pack(">II", start + len(body), len(data))
        body += data
    head = b"\0\0\0\0" + struct.pack(">I", 0x02100000) + kind + bytes(12) + b"acsp" + bytes(28)
    head += struct.pack(">3i", 0xF6D6, 0x10000, 0xD32D)
    head = struct.pack(">I", start + len(body)) + head + bytes(128 - 4 - len(head))
    return head + table + body


def cv_encoded(ending: str, exif: bytes = b"") -> bytes:
    """16-bit RGB by OpenCV, whose high and low bytes are equal, with EXIF put in for a PNG."""
    deep = np.asarray(pillow())[:, :, ::-1].astype(np.uint16) * 257
    data = bytes(cv2.imencode(ending, deep)[1])
    if not exif:
        return data
    chunk = b"eXIf" + exif
    chunk = struct.pack(">I", len(exif)) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return data[:33] + chunk + data[33:]


def png_header(width: int, height: int) -> bytes:
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk
    return start + struct.pack(">I", zlib.crc32(chunk)) + b"\0\0\0\0IDAT" + bytes(8)


def turned_tiff(data: bytes, orientation: int) -> bytes:
    """A little-endian TIFF with an orientation in a new directory at its end."""
    (first,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, first)
    entries = [data[first + 2 + 12 * i : first + 14 + 12 * i] for i in range(count)]
    entries.append(struct.pack("<HHIHH", 274, 3, 1, orientation, 0))
    entries.sort(key=lambda entry: struct.unpack_from("<H", entry)[0])
    directory = struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4)
    padded = data + bytes(len(data) % 2)
    return b"II*\0" + struct.pack("<I", len(padded)) + padded[8:] + directory
