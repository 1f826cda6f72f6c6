"""Picture formats that can be written: their names and limits, and one encoder for each.

JPEG, WebP, AVIF and 8-bit PNG go through Pillow. 16-bit PNG and every TIFF are written here, a
band of rows at a time, because neither Pillow nor OpenCV writes 16-bit color (with alpha, or gray
with alpha) together with its ICC profile and EXIF.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, PngImagePlugin, TiffImagePlugin, features
from torch import Tensor

from restore.errors import OutputError
from restore.image.color import gray_to_srgb, icc_space
from restore.image.metadata import descriptive_tags

WritableFormat = Literal["png", "jpg", "webp", "tiff", "avif"]

SUFFIXES: dict[str, WritableFormat] = {
    ".png": "png",
    ".jpg": "jpg",
    ".jpeg": "jpg",
    ".jpe": "jpg",
    ".jfif": "jpg",
    ".webp": "webp",
    ".tif": "tiff",
    ".tiff": "tiff",
    ".avif": "avif",
}
"""Suffixes of formats that can be written, in small letters."""

WITH_ALPHA = frozenset({"png", "webp", "tiff", "avif"})
WITH_SIXTEEN_BITS = frozenset({"png", "tiff"})

# Longest side in pixels: of libjpeg, of WebP's header, of what AVIF decoders take by default.
_LONGEST = {"jpg": 65500, "webp": 16383, "avif": 32768, "png": 2**31 - 1, "tiff": 2**31 - 1}
_JPEG_SEGMENT = 65533 - 64
_ROWS = 256
_PNG16_LEVEL = 4  # the noisy low bytes of 16 bits hardly shrink at higher levels, only slowly
_TIFF_LEVEL = 6
_FULL_COLOR_QUALITY = 90
_AVIF_SPEED = 8  # ten times faster than Pillow's 6, for files that are a tenth larger


@dataclass(frozen=True, kw_only=True, slots=True)
class Sheet:
    """A picture made ready for one format: pixels to write, and what to write with them."""

    format: WritableFormat
    """Format that it is for."""
    size: tuple[int, int]
    """Width and height in pixels."""
    pixels: Image.Image | tuple[Tensor, ...]
    """For Pillow's encoders an 8-bit picture. For ours planes: gray, or R, G and B, then alpha if
    any, float `(H, W)` each, in [0, 1]."""
    sixteen: bool
    """16 bits a channel instead of 8."""
    quality: int
    """1 to 100, for lossy formats."""
    icc: bytes | None
    """ICC profile of the values."""
    exif: bytes | None
    """EXIF block from its byte order mark on."""
    xmp: bytes | None
    """XMP packet."""
    dpi: tuple[float, float] | None
    """Pixels per inch."""
    text: tuple[tuple[str, str], ...]
    """PNG texts: keyword and value."""
    comment: bytes | None
    """JPEG comment."""
    color_chunks: tuple[tuple[bytes, bytes], ...]
    """PNG chunks beside the ICC profile that say what the values mean."""
    notes: tuple[str, ...]
    """What this format cannot hold of the picture, one line each."""


def pack_pixels(
    planes: tuple[Tensor, ...], *, name: WritableFormat, sixteen: bool
) -> Image.Image | tuple[Tensor, ...]:
    """Planes as the encoder of format `name` wants them, see `Sheet.pixels`."""
    if name == "tiff" or sixteen:
        return planes
    mode = ("L", "LA", "RGB", "RGBA")[len(planes) - 1]
    height, width = planes[0].shape
    image = Image.new(mode, (width, height))
    # Pasted together from bands, so that nothing is held twice.
    for index, band in enumerate(_bands(planes, np.uint8, _ROWS)):
        image.paste(Image.fromarray(band[:, :, 0] if mode == "L" else band), (0, index * _ROWS))
    return image


def _bands(
    planes: tuple[Tensor, ...], kind: type[np.unsignedinteger[Any]], rows: int
) -> Iterator[npt.NDArray[Any]]:
    """Consecutive bands `(rows, W, C)` of uint8 or uint16, top to bottom."""
    for top in range(0, planes[0].shape[0], rows):
        band = np.stack([plane[top : top + rows].numpy() for plane in planes], axis=-1)
        np.clip(band, 0, 1, out=band)
        band *= np.iinfo(kind).max
        yield np.rint(band, out=band).astype(kind)


def check_writable(name: str, width: int, height: int) -> None:
    """Raise OutputError if the format `name` cannot hold a picture of this size, or is not here."""
    longest = _LONGEST[name]
    if max(width, height) > longest:
        raise OutputError(
            f"{name} holds at most {longest} pixels a side, the result has {width}x{height}; "
            "choose --ext png or a smaller --scale"
        )
    if name in ("avif", "webp") and not features.check(name):
        raise OutputError(
            f"this installation of Pillow writes no {name}; "
            "run pip install -U pillow, or choose --ext png"
        )


def encode(sheet: Sheet, stream: BinaryIO) -> tuple[str, ...]:
    """Write `sheet` to `stream`.

    Returns:
        What could not be written along, one line each.
    """
    if isinstance(sheet.pixels, tuple):
        return (_write_tiff if sheet.format == "tiff" else _write_png16)(
            sheet, sheet.pixels, stream
        )
    return (_write_png8 if sheet.format == "png" else _write_lossy)(sheet, sheet.pixels, stream)


def _write_png8(sheet: Sheet, image: Image.Image, stream: BinaryIO) -> tuple[str, ...]:
    info = PngImagePlugin.PngInfo()
    for name, data in _png_text(sheet) + list(sheet.color_chunks):
        info.add(name, data)
    options = {"pnginfo": info, "dpi": sheet.dpi, "icc_profile": sheet.icc, "exif": sheet.exif}
    image.save(stream, "PNG", **_given(options))
    return ()


def _given(options: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in options.items() if value is not None}


def _write_lossy(sheet: Sheet, image: Image.Image, stream: BinaryIO) -> tuple[str, ...]:
    name, icc = sheet.format, sheet.icc
    if icc and name != "jpg" and icc_space(icc) == "GRAY":
        # Readers get RGB from WebP and AVIF, where a gray profile would be wrong.
        image, icc = gray_to_srgb(image, icc), None
    fine = sheet.quality >= _FULL_COLOR_QUALITY
    exif = b"Exif\0\0" + sheet.exif if sheet.exif else None
    options: dict[str, Any] = {"exif": exif, "xmp": sheet.xmp}
    notes: list[str] = []
    if name == "jpg":
        options |= {"comment": sheet.comment, "dpi": sheet.dpi, "subsampling": 0 if fine else 2}
        for part in ("exif", "xmp", "comment"):
            if len(options[part] or b"") > _JPEG_SEGMENT:
                options[part] = None
                notes.append(f"its {part} is too long for a JPEG and left out")
    elif name == "webp":
        options["lossless"] = sheet.quality == 100
    else:
        options["speed"] = _AVIF_SPEED
        if len(image.getbands()) > 2:
            options["subsampling"] = "4:4:4" if fine else "4:2:0"
    options |= {"quality": sheet.quality, "icc_profile": icc}
    image.save(stream, "JPEG" if name == "jpg" else name.upper(), **_given(options))
    return tuple(notes)


def _png_text(sheet: Sheet) -> list[tuple[bytes, bytes]]:
    """Text chunks, and XMP as the text that it is in a PNG."""
    chunks = []
    for keyword, value in sheet.text:
        key = keyword.encode("latin-1", "replace")[:79]
        value = value.replace("\0", " ")  # it would end the text
        try:
            chunks.append((b"tEXt", key + b"\0" + value.encode("latin-1")))
        except UnicodeEncodeError:
            text = value.encode("utf-8", "replace")
            chunks.append((b"iTXt", key + b"\0\0\0\0\0" + text))
    if sheet.xmp:
        chunks.append((b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + sheet.xmp))
    return chunks


def _write_png16(sheet: Sheet, planes: tuple[Tensor, ...], stream: BinaryIO) -> tuple[str, ...]:
    """PNG with 16 bits a channel (PNG specification, third edition, sections 5, 9 and 11)."""

    def chunk(name: bytes, data: bytes) -> None:
        stream.write(struct.pack(">I", len(data)) + name + data)
        stream.write(struct.pack(">I", zlib.crc32(data, zlib.crc32(name))))

    channels = len(planes)
    color_type = (0, 4, 2, 6)[channels - 1]
    stream.write(b"\x89PNG\r\n\x1a\n")
    chunk(b"IHDR", struct.pack(">IIBBBBB", *sheet.size, 16, color_type, 0, 0, 0))
    if sheet.icc:
        chunk(b"iCCP", b"ICC Profile\0\0" + zlib.compress(sheet.icc))
    for name, data in sheet.color_chunks:
        if not (sheet.icc and name == b"sRGB"):  # the two exclude each other
            chunk(name, data)
    for name, data in _png_text(sheet):
        chunk(name, data)
    if sheet.dpi:
        meters = (round(min(value / 0.0254, 2**31 - 1)) for value in sheet.dpi)
        chunk(b"pHYs", struct.pack(">IIB", *meters, 1))
    if sheet.exif:
        chunk(b"eXIf", sheet.exif)
    packer = zlib.compressobj(_PNG16_LEVEL)
    above = np.zeros(sheet.size[0] * channels * 2, np.uint8)
    for band in _bands(planes, np.uint16, 64):
        rows = band.astype(">u2").view(np.uint8).reshape(len(band), -1)
        if data := packer.compress(_filter_rows(rows, above, 2 * channels)):
            chunk(b"IDAT", data)
        above = rows[-1]
    chunk(b"IDAT", packer.flush())
    chunk(b"IEND", b"")
    return ()


def _filter_rows(rows: npt.NDArray[Any], above: npt.NDArray[Any], step: int) -> bytes:
    """PNG rows with the filter Sub or Up, whichever leaves less (sections 9.2 and 12.7).

    Args:
        rows: uint8 `(N, bytes in a row)`.
        above: the row before the first.
        step: bytes of a pixel.
    """
    left = rows.copy()
    left[:, step:] -= rows[:, :-step]
    up = rows.copy()
    up[0] -= above
    up[1:] -= rows[:-1]
    cost_left = np.abs(left.view(np.int8).astype(np.int16)).sum(1)
    cost_up = np.abs(up.view(np.int8).astype(np.int16)).sum(1)
    take_up = (cost_up < cost_left)[:, None]
    return np.hstack(
        [np.where(take_up, 2, 1).astype(np.uint8), np.where(take_up, up, left)]
    ).tobytes()


def _write_tiff(sheet: Sheet, planes: tuple[Tensor, ...], stream: BinaryIO) -> tuple[str, ...]:
    """Little-endian TIFF of deflated strips with horizontal differencing (TIFF 6.0, section 14).

    Pillow's directory class lays out the tags, EXIF and GPS among them; the strips follow it.
    """
    strips = []
    rows = max(1, min(_ROWS, (4 << 20) // (sheet.size[0] * 8)))
    for band in _bands(planes, np.uint16 if sheet.sixteen else np.uint8, rows):
        band[:, 1:] -= band[:, :-1].copy()
        strips.append(
            zlib.compress(band.astype(band.dtype.newbyteorder("<")).tobytes(), _TIFF_LEVEL)
        )
    if sum(map(len, strips)) > 2**32 - 2**24:
        raise OutputError("the result is too large for a TIFF (4 GiB); choose --ext png")
    notes: tuple[str, ...] = ()
    try:
        directory = _tiff_directory(sheet, len(planes), strips, rows, exif=sheet.exif).tobytes(8)
    except Exception:  # Pillow's packing of odd EXIF values raises anything
        directory = _tiff_directory(sheet, len(planes), strips, rows, exif=None).tobytes(8)
        notes = ("its EXIF cannot be stored in a TIFF and is left out",)
    stream.write(b"II*\0\x08\0\0\0")
    stream.write(directory)
    for strip in strips:
        stream.write(strip)
    return notes


def _tiff_directory(
    sheet: Sheet, channels: int, strips: list[bytes], rows: int, *, exif: bytes | None
) -> TiffImagePlugin.ImageFileDirectory_v2:
    directory = TiffImagePlugin.ImageFileDirectory_v2(b"II*\0\0\0\0\0")
    if exif:
        block = Image.Exif()
        block.load(b"Exif\0\0" + exif)
        for tag, value in descriptive_tags(block).items():
            directory[tag] = value
    directory[256], directory[257] = sheet.size
    directory[258] = (16 if sheet.sixteen else 8,) * channels
    directory[259] = 8  # Adobe Deflate
    directory[262] = 2 if channels > 2 else 1  # RGB, or black is zero
    directory[274] = 1
    directory[277] = channels
    directory[278] = rows
    directory[282], directory[283] = sheet.dpi or (72, 72)
    directory[284] = 1  # channels interleaved
    directory[296] = 2 if sheet.dpi else 1  # inch, or no unit
    directory[317] = 2  # horizontal differencing
    if channels in (2, 4):
        directory[338] = 2  # alpha that colors are not multiplied by
    # Pillow adds the end of the directory to these, so they count from the first strip.
    starts = np.cumsum([0, *map(len, strips)])[:-1]
    for tag, values in ((273, starts.tolist()), (279, [len(strip) for strip in strips])):
        directory.tagtype[tag] = 4  # LONG
        directory[tag] = tuple(values)
    if sheet.xmp:
        directory.tagtype[700] = 1  # BYTE
        directory[700] = sheet.xmp
    if sheet.icc:
        directory.tagtype[34675] = 7  # UNDEFINED
        directory[34675] = sheet.icc
    return directory
