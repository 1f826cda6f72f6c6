"""Facts about a picture that are not pixels: what kind of file it is, EXIF, XMP, PNG chunks.

EXIF is changed in place, byte by byte, and never taken apart and built again: a camera's maker
notes hold offsets that a rebuilt block would break.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import Any

from PIL import Image

# Tags that describe the picture, and not how this one file stores it.
_DESCRIPTIVE_TAGS = frozenset(
    {
        0x010E,  # ImageDescription
        0x010F,  # Make
        0x0110,  # Model
        0x0131,  # Software
        0x0132,  # DateTime
        0x013B,  # Artist
        0x4746,  # Rating
        0x4749,  # RatingPercent
        0x8298,  # Copyright
        *range(0x9C9B, 0x9CA0),  # XPTitle, XPComment, XPAuthor, XPKeywords, XPSubject
    }
)
_EXIF_IFD = 0x8769
_GPS_IFD = 0x8825
_INTEROP_IFD = 0xA005
_ORIENTATION = 0x0112
_LONG = 4

# Color information of a PNG beside its ICC profile, and the pixel values mean nothing without it.
PNG_COLOR_CHUNKS = (b"cICP", b"sRGB", b"gAMA", b"cHRM")

# In a scan 0xFF is followed by 0 or by a restart number unless a marker begins.
_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")

_SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"\xff\xd8\xff", "jpg"),
    (b"GIF8", "gif"),
    (b"II*\0", "tiff"),
    (b"MM\0*", "tiff"),
    (b"II+\0", "tiff"),
    (b"MM\0+", "tiff"),
    (b"BM", "bmp"),
    (b"\xff\x0a", "jxl"),
    (b"\0\0\0\x0cJXL ", "jxl"),
    (b"\0\0\0\x0cjP  ", "jp2"),
    (b"8BPS", "psd"),
    (b"%PDF", "pdf"),
    (b"\x1aE\xdf\xa3", "video"),
)


def sniff_format(head: bytes) -> str | None:
    """Kind of a file from its first 64 bytes, whatever its name says; None when not known.

    Returns:
        A picture format (`"png"`, `"jpg"`, `"webp"`, `"tiff"`, `"avif"`, `"gif"`, `"bmp"`,
        `"ppm"`) or something else worth naming in a message (`"heic"`, `"jxl"`, `"video"`, ...).
    """
    for signature, name in _SIGNATURES:
        if head.startswith(signature):
            return name
    if head[:4] == b"RIFF":
        return {b"WEBP": "webp", b"AVI ": "video"}.get(head[8:12])
    if head[4:8] == b"ftyp":
        # The brands that follow say what is inside; `mif1` alone can be either of two.
        brands = head[8 : min(64, int.from_bytes(head[:4], "big"))]
        if b"avif" in brands or b"avis" in brands:
            return "avif"
        heic = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")
        return "heic" if any(brand in brands for brand in heic) else "video"
    if re.match(rb"P[1-6][\s#]", head):
        return "ppm"
    if re.match(rb"\s*<(!doctype html|html)", head, re.IGNORECASE):
        return "html"
    return "svg" if re.match(rb"\s*<(\?xml|svg)", head) else None


def ends_in_zeros(jpeg: bytes) -> bool:
    """Whether the scan of a JPEG runs into zeros instead of its end marker.

    Copies that broke off are often filled up with zeros, and decoders take them for gray. Zeros
    behind the end marker are harmless, and so is a missing end marker by itself.
    """
    if jpeg[-16:] != bytes(16):
        return False
    position = 2
    while position + 4 <= len(jpeg):  # segment by segment to the end of the last scan
        marker, length = struct.unpack_from(">HH", jpeg, position)
        if marker == 0xFFD9:
            return False
        if marker & 0xFF00 != 0xFF00:
            break
        position += 2 + length
        if marker == 0xFFDA and (found := _MARKER.search(jpeg, position)):
            position = found.start()
    return True


def exif_orientation(exif: bytes) -> int:
    """Orientation 1 to 8 that an EXIF block asks for; 1 when it does not say.

    Raises:
        ValueError: the block is damaged.
    """
    order, first = _exif_header(exif)
    for tag, kind, position in _entries(exif, order, first):
        if tag == _ORIENTATION and kind in (1, 3, 4):
            value = _value(exif, order, kind, position)
            return value if 1 <= value <= 8 else 1
    return 1


def clean_exif(exif: bytes, *, width: int, height: int) -> bytes:
    """EXIF for pixels that stand upright: orientation 1, this size, no thumbnail; else unchanged.

    Args:
        exif: the block from its byte order mark on (`II` or `MM`), without `Exif\\0\\0`.
        width: of the picture in pixels.
        height: likewise.

    Raises:
        ValueError: the block is damaged.
    """
    order, first = _exif_header(exif)
    data = bytearray(exif)
    sizes = {0x0100: width, 0x0101: height, 0xA002: width, 0xA003: height}
    directories = [first]
    for tag, kind, position in _entries(exif, order, first):
        if tag == _EXIF_IFD:
            directories.append(_value(exif, order, kind, position))
    for directory in directories:
        for tag, _, position in _entries(exif, order, directory):
            if tag == _ORIENTATION:
                struct.pack_into(order + "HI", data, position - 6, 3, 1)
                struct.pack_into(order + "HH", data, position, 1, 0)
            elif tag in sizes:
                struct.pack_into(order + "HII", data, position - 6, _LONG, 1, sizes[tag])
    return _without_thumbnail(data, order, first)


def _without_thumbnail(data: bytearray, order: str, first: int) -> bytes:
    """Unlink the second directory, which describes the thumbnail, and blank the picture itself."""
    link = first + 2 + 12 * int(struct.unpack_from(order + "H", data, first)[0])
    if link + 4 > len(data):
        return bytes(data)
    second = int(struct.unpack_from(order + "I", data, link)[0])
    struct.pack_into(order + "I", data, link, 0)
    start = length = 0
    if 8 <= second < len(data) - 2:
        for tag, kind, position in _entries(bytes(data), order, second):
            if tag == 0x0201:
                start = _value(data, order, kind, position)
            elif tag == 0x0202:
                length = _value(data, order, kind, position)
    end = start + length
    if 8 <= start < end <= len(data):
        data[start:end] = b"" if end == len(data) else bytes(length)
    return bytes(data)


def _exif_header(exif: bytes) -> tuple[str, int]:
    """Byte order for `struct`, and the offset of the first directory."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None or len(exif) < 8:
        raise ValueError("it does not start like EXIF")
    return order, int(struct.unpack_from(order + "I", exif, 4)[0])


def _entries(exif: bytes, order: str, directory: int) -> Iterator[tuple[int, int, int]]:
    """(tag, type, position of the value field) of each entry of a directory."""
    if not 8 <= directory <= len(exif) - 2:
        raise ValueError(f"a directory lies at byte {directory} of {len(exif)}")
    count = int(struct.unpack_from(order + "H", exif, directory)[0])
    if directory + 2 + 12 * count > len(exif):
        raise ValueError(f"a directory of {count} entries does not fit into {len(exif)} bytes")
    for index in range(count):
        position = directory + 2 + 12 * index
        tag, kind = struct.unpack_from(order + "HH", exif, position)
        yield tag, kind, position + 8


def _value(exif: bytes | bytearray, order: str, kind: int, position: int) -> int:
    """The whole number in a value field of type BYTE, SHORT or LONG."""
    return int(struct.unpack_from(order + {1: "B", 3: "H"}.get(kind, "I"), exif, position)[0])


def descriptive_tags(exif: Image.Exif) -> dict[int, Any]:
    """Tags of `exif` that say something about the picture, with its EXIF and GPS parts as dicts."""
    tags = {tag: value for tag, value in exif.items() if tag in _DESCRIPTIVE_TAGS}
    for part in (_EXIF_IFD, _GPS_IFD):
        if part in exif and (inner := dict(exif.get_ifd(part))):
            inner.pop(_INTEROP_IFD, None)  # an offset into the old file
            tags[part] = inner
    return tags


def exif_of_tiff(exif: Image.Exif) -> bytes | None:
    """EXIF block made of the tags of a TIFF file, which holds them among its own; None if none."""
    tags = descriptive_tags(exif)
    if not tags:
        return None
    block = Image.Exif()
    for tag, value in tags.items():
        block[tag] = value
    return block.tobytes().removeprefix(b"Exif\0\0")


def upright_xmp(xmp: bytes) -> bytes:
    """XMP whose own copy of the orientation says 1, for pixels that have been turned."""
    return re.sub(rb"(tiff:Orientation(?:=[\"']|>))[2-8]", rb"\g<1>1", xmp)


def xmp_to_keep(xmp: bytes | None) -> bytes | None:
    """XMP, unless it promises parts of the input file that a result does not have.

    Motion photos and HDR gain maps are stored behind the picture and announced in its XMP.
    """
    if not xmp or any(mark in xmp for mark in (b"GCamera:", b"Container:Directory", b"hdrgm:")):
        return None
    return xmp


def png_color_chunks(data: bytes) -> tuple[tuple[bytes, bytes], ...]:
    """Chunks of a PNG that say what its color values mean, in order, without the ICC profile."""
    found = []
    position = 8
    while position + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, position)
        if name == b"IDAT":
            break
        if name in PNG_COLOR_CHUNKS:
            found.append((name, data[position + 8 : position + 8 + length]))
        position += 12 + length
    return tuple(found)
