"""The container of coded pictures: bytes to fields and back. `docs/bitstream.md` is its definition.

Nothing here knows a codec, or decodes anything: the header names the codec, its weights and the
size; the chunks hold what belongs to the picture beside its pixels; the body is the codec's.
Every length is compared with the file before anything is allocated.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field
from typing import Final

from restore.errors import InputError, OptionError

MAGIC: Final = b"\x8fRSC"
VERSION: Final = 1

CODEC_NUMBERS: Final = {1: "compact-codec", 2: "oscar"}
"""Codecs that take one byte in a file; others are written by name."""

PACKED, STATIC, ADAPTIVE, OWN = 0, 1, 2, 3
"""How the indices are written: see `restore.codec.indices`; `OWN` = as the codec defines."""

ICC, ALPHA, CICP, EXIF, XMP = 1, 2, 3, 0x81, 0x82
"""Types of chunks. From 0x80 on a reader may pass over a type that it does not know."""

CHUNK_NAMES: Final = {ICC: "icc", ALPHA: "alpha", CICP: "cicp", EXIF: "exif", XMP: "xmp"}
_DEFLATED = (ICC, EXIF, XMP)
_OPTIONAL = 0x80
_LARGEST_METADATA = 1 << 24  # bytes after inflating
_LARGEST_VARINT = (1 << 28) - 1  # four bytes of seven bits
_HASH_BYTES = 8
_CRC_BYTES = 4
_HEAD = struct.Struct("<4sBBBB")  # magic, version, flags, codec, rate
_SMALLEST = _HEAD.size + _HASH_BYTES + 2 + _CRC_BYTES

_GRAY, _CHUNKS, _RESERVED = 0x08, 0x10, 0x80

DAMAGED: Final = "it is damaged; get a whole copy"


@dataclass(frozen=True, kw_only=True, slots=True)
class Container:
    """All that a file holds."""

    codec: str
    """Name of the codec."""
    weights: bytes
    """The first 8 bytes of the SHA-256 of its weights."""
    rate: int
    """Number of the codec's rate, 0 to 255."""
    width: int
    """Columns of the coded picture, before it is turned; 1 to 2^28 - 1."""
    height: int
    """Rows, likewise."""
    body: bytes
    """Side values and indices."""
    coding: int = PACKED
    """How the indices are written: `PACKED`, `STATIC`, `ADAPTIVE` or `OWN`."""
    orientation: int = 1
    """How the decoded pixels are to be turned, 1 to 8 as in EXIF."""
    gray: bool = False
    """The picture was gray, and so is the decoded one."""
    chunks: dict[int, bytes] = field(default_factory=dict)
    """What belongs to the picture beside its pixels, by type, inflated."""

    @property
    def pixels(self) -> int:
        """Pixels of the picture."""
        return self.width * self.height


def write_container(container: Container) -> bytes:
    """The bytes of a file.

    Raises:
        OptionError: a field is outside what the format can hold.
    """
    number = {name: number for number, name in CODEC_NUMBERS.items()}.get(container.codec, 0)
    name = b"" if number else container.codec.encode("ascii", "replace")
    if not number and not 1 <= len(name) <= 32:
        raise OptionError(f"the codec's name '{container.codec}' does not fit; give 1 to 32 bytes")
    for what, value, low, high in (
        ("width", container.width, 1, _LARGEST_VARINT),
        ("height", container.height, 1, _LARGEST_VARINT),
        ("rate", container.rate, 0, 255),
        ("orientation", container.orientation, 1, 8),
        ("coding", container.coding, PACKED, OWN),
        ("hash", len(container.weights), _HASH_BYTES, _HASH_BYTES),
    ):
        if not low <= value <= high:
            raise OptionError(f"{what} {value} cannot be written; allowed: {low} to {high}")
    flags = container.orientation - 1 | container.coding << 5
    flags |= (_GRAY if container.gray else 0) | (_CHUNKS if container.chunks else 0)
    parts = [_HEAD.pack(MAGIC, VERSION, flags, number, container.rate)]
    parts.append(b"" if number else bytes([len(name)]) + name)
    parts.append(container.weights)
    parts.append(varint(container.width) + varint(container.height))
    for kind, data in sorted(container.chunks.items()):
        stored = zlib.compress(data, 9) if kind in _DEFLATED else data
        parts.append(bytes([kind]) + varint(len(stored)) + stored)
    if container.chunks:
        parts.append(b"\0")
    content = b"".join([*parts, container.body])
    return content + struct.pack("<I", zlib.crc32(content))


def is_container(head: bytes) -> bool:
    """Whether a file that begins like this is such a container."""
    return head.startswith(MAGIC)


def read_container(data: bytes) -> Container:
    """The fields of a file, all checked.

    Raises:
        InputError: it is empty, of another kind or version, cut off, or damaged.
    """
    version_of(data)
    content, crc = data[:-_CRC_BYTES], data[-_CRC_BYTES:]
    if struct.pack("<I", zlib.crc32(content)) != crc:
        raise InputError(
            f"its check sum is wrong: it is cut off or {DAMAGED.removeprefix('it is ')}"
        )
    _, _, flags, number, rate = _HEAD.unpack_from(content)
    if flags & _RESERVED:
        raise InputError(f"flag 0x80 is set, which version {VERSION} does not have; {DAMAGED}")
    reader = Reader(content, _HEAD.size)
    codec = _codec_name(number, reader)
    weights = reader.take(_HASH_BYTES, "hash of the weights")
    width, height = reader.varint("width"), reader.varint("height")
    if not width or not height:
        raise InputError(f"it says it is {width}x{height} pixels; {DAMAGED}")
    chunks = _read_chunks(reader) if flags & _CHUNKS else {}
    return Container(
        codec=codec,
        weights=weights,
        rate=rate,
        width=width,
        height=height,
        body=reader.rest(),
        coding=flags >> 5 & 3,
        orientation=1 + (flags & 7),
        gray=bool(flags & _GRAY),
        chunks=chunks,
    )


def version_of(data: bytes) -> int:
    """The version of a file that begins with `data`.

    Raises:
        InputError: it is empty, of another kind, of another version, or too short.
    """
    if not data:
        raise InputError("it is empty (0 bytes); get a whole copy")
    if not is_container(data):
        if MAGIC.startswith(data[:4]) and len(data) < 4:
            raise InputError(f"it ends after {len(data)} bytes; get a whole copy")
        raise InputError("it is not a picture of 'restore compress'; check the name")
    if len(data) < _SMALLEST:
        raise InputError(f"it ends after {len(data)} bytes, in its header; get a whole copy")
    if data[4] != VERSION:
        raise InputError(
            f"it has version {data[4]} of the format, and version {VERSION} can be read; install a "
            "newer restore, or get a whole copy"
        )
    return data[4]


def _codec_name(number: int, reader: Reader) -> str:
    if number:
        if number not in CODEC_NUMBERS:
            raise InputError(
                f"its codec has number {number}; known numbers: "
                f"{', '.join(map(str, CODEC_NUMBERS))}; install a newer restore"
            )
        return CODEC_NUMBERS[number]
    length = reader.take(1, "name of the codec")[0]
    name = reader.take(length, "name of the codec") if 1 <= length <= 32 else b""
    if not name or any(not 0x21 <= byte <= 0x7E for byte in name):
        raise InputError(f"the name of its codec is no name; {DAMAGED}")
    return name.decode("ascii")


def _read_chunks(reader: Reader) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    while kind := reader.take(1, "list of chunks")[0]:
        data = reader.take(reader.varint("length of a chunk"), f"chunk of type {kind}")
        if kind not in CHUNK_NAMES:
            if kind < _OPTIONAL:
                raise InputError(
                    f"it has a chunk of type {kind}, which version {VERSION} does not have; "
                    "install a newer restore"
                )
            continue
        if kind in found:
            raise InputError(f"it has two chunks of type {kind}; {DAMAGED}")
        found[kind] = _inflate(data, kind) if kind in _DEFLATED else data
    return found


def _inflate(data: bytes, kind: int) -> bytes:
    unpacker, name = zlib.decompressobj(), CHUNK_NAMES[kind]
    try:
        plain = unpacker.decompress(data, _LARGEST_METADATA)
    except zlib.error as error:
        raise InputError(f"its {name} cannot be inflated ({error}); {DAMAGED}") from error
    if unpacker.unconsumed_tail or not unpacker.eof:
        raise InputError(f"its {name} is cut off or above {_LARGEST_METADATA >> 20} MiB; {DAMAGED}")
    return plain


class Reader:
    """Takes bytes from the front, and never more than there are."""

    def __init__(self, data: bytes, position: int = 0) -> None:
        self._data, self._position = data, position

    def take(self, count: int, what: str) -> bytes:
        """The next `count` bytes.

        Raises:
            InputError: so many are not there.
        """
        end = self._position + count
        if end > len(self._data):
            left = len(self._data) - self._position
            raise InputError(f"its {what} takes {count} bytes and {left} are left; {DAMAGED}")
        part = self._data[self._position : end]
        self._position = end
        return part

    def varint(self, what: str) -> int:
        """The next number, of up to four bytes in its shortest form.

        Raises:
            InputError: it is longer, or cut off.
        """
        value = 0
        for shift in (0, 7, 14, 21):
            byte = self.take(1, what)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if byte or not shift:
                    return value
                break
        raise InputError(f"its {what} is a number of too many bytes; {DAMAGED}")

    def rest(self) -> bytes:
        """All that is left."""
        return self.take(len(self._data) - self._position, "rest")


def varint(value: int) -> bytes:
    """A number below 2^28 in seven bits a byte, the low ones first; the high bit says: go on."""
    if not 0 <= value <= _LARGEST_VARINT:
        raise OptionError(f"{value} cannot be written; allowed: 0 to {_LARGEST_VARINT}")
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])
