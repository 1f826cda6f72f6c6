"""The container: every field comes back, and every damage is one line."""

from __future__ import annotations

import struct
import zlib
from dataclasses import replace

import numpy as np
import pytest

from restore.bitstream import (
    ALPHA,
    CICP,
    EXIF,
    ICC,
    MAGIC,
    XMP,
    Container,
    read_container,
    varint,
    write_container,
)
from restore.codec.indices import Grid, read_indices
from restore.errors import InputError, OptionError

PLAIN = Container(
    codec="compact-codec",
    weights=bytes(range(8)),
    rate=2,
    width=512,
    height=300,
    body=b"\x01\x02body",
)
FULL = replace(
    PLAIN,
    codec="my-codec",
    rate=255,
    width=1,
    height=2**28 - 1,
    coding=3,
    orientation=8,
    gray=True,
    chunks={ICC: b"icc" * 99, ALPHA: b"png", CICP: b"\1\2\3\4", EXIF: b"II*\0", XMP: b"<x>"},
)


def signed(content: bytes) -> bytes:
    """A file with this content and a right check sum."""
    return content + struct.pack("<I", zlib.crc32(content))


def changed(offset: int, *values: int) -> bytes:
    """The plain file with other bytes at an offset, and a right check sum."""
    content = bytearray(write_container(PLAIN)[:-4])
    content[offset : offset + len(values)] = bytes(values)
    return signed(bytes(content))


@pytest.mark.parametrize("container", [PLAIN, FULL, replace(PLAIN, body=b"")])
def test_every_field_comes_back(container: Container) -> None:
    assert read_container(write_container(container)) == container


def test_the_bytes_are_those_of_the_page() -> None:
    """The worked example of docs/bitstream.md: 100x128 pixels of `oscar` at its lowest rate."""
    data = bytes.fromhex(
        "8f 52 53 43 01 00 02 00 00 11 22 33 44 55 66 77"
        "64 80 01 00 3e 00 b4 40 56 66 2e 11 c8 03 ff 88 dc 1c 07"
    )
    file = read_container(data)
    assert (file.codec, file.rate, file.width, file.height) == ("oscar", 0, 100, 128)
    assert file.weights.hex() == "0011223344556677"
    assert np.frombuffer(file.body[:8], "<f2").tolist() == [1.5, -0.25, 100, np.float16(0.1)]
    grid = Grid(planes=1, height=2, width=2, codebook=256)
    assert read_indices(file.body[8:], grid, file.coding).tolist() == [[[17, 200], [3, 255]]]
    assert write_container(file) == data


def test_the_overhead_is_at_most_24_bytes() -> None:
    largest = replace(PLAIN, width=16383, height=16383)
    assert len(write_container(largest)) - len(PLAIN.body) == 24


@pytest.mark.parametrize("value", [0, 1, 127, 128, 16383, 16384, 2**28 - 1])
def test_numbers_take_seven_bits_a_byte(value: int) -> None:
    assert len(varint(value)) == max(1, -(-value.bit_length() // 7))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty"),
        (MAGIC[:2], "ends after 2 bytes"),
        (b"\x89PNG" + bytes(40), "not a picture of 'restore compress'"),
        (MAGIC + b"\1\0", "ends after 6 bytes, in its header"),
        (write_container(PLAIN)[:-1], "check sum"),
        (write_container(PLAIN) + b"\0", "check sum"),
        (changed(4, 7), "version 7 of the format, and version 1 can be read"),
        (changed(5, 0x80), "flag 0x80"),
        (changed(5, 0x10), "icc cannot be inflated"),
        (changed(6, 9), "codec has number 9; known numbers: 1, 2"),
        (changed(6, 0), "name of its codec is no name"),
        (changed(16, 0x00), "0x"),
        (changed(16, 0x80, 0x00), "too many bytes"),
        (changed(16, 0xFF, 0xFF, 0xFF, 0xFF), "too many bytes"),
    ],
)
def test_damage_is_one_line(data: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        read_container(data)
    assert "\n" not in str(error.value)


def test_every_cut_and_every_flipped_bit_is_seen() -> None:
    data = write_container(FULL)
    for length in range(len(data)):
        with pytest.raises(InputError):
            read_container(data[:length])
    for bit in range(8 * len(data)):
        broken = bytearray(data)
        broken[bit // 8] ^= 1 << bit % 8
        with pytest.raises(InputError):
            read_container(bytes(broken))


def with_chunk(kind: int, data: bytes, *, end: bytes = b"\0") -> bytes:
    """A file whose only chunk is this one, byte by byte."""
    content = bytearray(write_container(PLAIN)[:-4])
    content[5] |= 0x10
    return signed(bytes(content[:20]) + bytes([kind]) + varint(len(data)) + data + end + b"body")


def test_chunks_of_later_versions_are_passed_over_or_refused() -> None:
    assert read_container(with_chunk(0x99, b"later")).body == b"body"
    with pytest.raises(InputError, match="chunk of type 25"):
        read_container(with_chunk(0x19, b"later"))


def test_chunks_that_lie_are_refused() -> None:
    bomb = zlib.compress(bytes((1 << 24) + 1), 9)
    packed = zlib.compress(b"icc")
    for data, message in (
        (with_chunk(ICC, bomb), "above 16 MiB"),
        (with_chunk(ICC, packed[:-3]), "cut off"),
        (with_chunk(ICC, b"no zlib"), "cannot be inflated"),
        (with_chunk(ALPHA, b"a", end=bytes([ALPHA, 1, 0, 0])), "two chunks"),
        (with_chunk(ALPHA, b"a", end=bytes([CICP, 0xFF, 0xFF, 0x7F])), "are left"),
    ):
        with pytest.raises(InputError, match=message):
            read_container(data)


@pytest.mark.parametrize(
    "wrong",
    [
        *[{"width": 0}, {"height": 2**28}, {"rate": 256}, {"orientation": 9}, {"weights": b""}],
        *[{"codec": ""}, {"codec": "x" * 33}],
    ],
)
def test_what_the_format_cannot_hold_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(OptionError):
        write_container(replace(PLAIN, **wrong))  # type: ignore[arg-type]
