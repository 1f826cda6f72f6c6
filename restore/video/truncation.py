"""Whether a file is shorter than its own headers say: a download or a recording that broke off.

FFmpeg reads such files silently up to their end. The size fields of the containers tell the
truth, and reading them takes a few bytes.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

_BOXES = {
    *(b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot", b"moof", b"mfra"),
    *(b"styp", b"sidx", b"ssix", b"uuid", b"meta", b"udta", b"prft", b"emsg", b"junk", b"PICT"),
}
_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
_TS_PACKET, _TS_SYNC = 188, 0x47


def truncation(path: Path) -> str | None:
    """How the file is cut short, in words for a message; None = no sign of it."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        start = file.read(3 * _TS_PACKET)
        check = _check_of(start)
        return check(file, size) if check else None


def _check_of(start: bytes) -> Callable[[BinaryIO, int], str | None] | None:
    """The check for the container that begins with `start`."""
    if start[:4] == _EBML:
        return _matroska
    if start[:4] == b"RIFF" and start[8:12] == b"AVI ":
        return _avi
    if start[4:8] in _BOXES:
        return _mp4
    if len(start) == 3 * _TS_PACKET and set(start[::_TS_PACKET]) == {_TS_SYNC}:
        return _transport_stream
    return None


def _missing(announced: int, size: int) -> str | None:
    if announced <= size:
        return None
    return f"{announced - size} of {announced} bytes are missing at the end of the file"


def _mp4(file: BinaryIO, size: int) -> str | None:
    """Top-level boxes: size (4 bytes), name (4), and the real size (8) when size is 1."""
    position, names = 0, set()
    while position < size:
        file.seek(position)
        header = file.read(16)
        length, name = int.from_bytes(header[:4], "big"), header[4:8]
        if length == 1:
            length = int.from_bytes(header[8:16], "big")
        if length == 0:  # to the end of the file
            length = size - position
        if name not in _BOXES or length < 8:
            break  # rubbish behind the last box, or damage: nothing to conclude from
        missing = _missing(position + length, size)
        if missing and (name == b"moov" or b"moov" not in names):
            return f"its index (moov) is missing, as {missing}"
        if missing:
            return missing
        names.add(name)
        position += length
    return None if b"moov" in names else "its index (moov) is missing"


def _matroska(file: BinaryIO, size: int) -> str | None:
    """An EBML header, then one segment that is the rest of the file."""
    file.seek(4)
    header = _ebml_size(file)
    if header is None:
        return None
    file.seek(header, os.SEEK_CUR)
    if file.read(4) != _SEGMENT:
        return None
    length = _ebml_size(file)
    return None if length is None else _missing(file.tell() + length, size)


def _ebml_size(file: BinaryIO) -> int | None:
    """A number whose first byte's leading zeros give its length; all ones = unknown (live)."""
    first = file.read(1)
    if not first or first[0] == 0:
        return None
    length = 9 - first[0].bit_length()
    value = int.from_bytes(first + file.read(length - 1), "big")
    limit = 1 << (7 * length)
    value &= limit - 1
    return None if value == limit - 1 else value


def _avi(file: BinaryIO, size: int) -> str | None:
    file.seek(4)
    length = int.from_bytes(file.read(4), "little")
    if length in (0, 0xFFFFFFFF):  # still being written, or a stream
        return None
    return _missing(length + 8, size)


def _transport_stream(_file: BinaryIO, size: int) -> str | None:
    rest = size % _TS_PACKET
    return f"its last packet has {rest} of {_TS_PACKET} bytes" if rest else None
