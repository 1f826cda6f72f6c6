"""Coded files, damaged in every way that a disk, a network or an enemy knows."""

from __future__ import annotations

import functools
import struct
import zlib
from dataclasses import replace

import numpy as np

from restore.bitstream import Container, read_container, varint, write_container

PLAIN_KINDS = ("flip", "cut", "swap", "insert", "zeros", "append", "version", "noise")
"""What happens to files by accident."""
HOSTILE_KINDS = ("signed flip", "signed bytes", "size", "field", "varint", "body", "chunk")
"""What an enemy does, who makes the check sum right."""


def damaged(data: bytes, kind: str, rng: np.random.Generator) -> bytes:
    """The file after one accident or attack; it may by chance be as it was."""
    if kind in PLAIN_KINDS:
        return _plain(bytearray(data), kind, rng)
    if kind == "signed flip":
        return signed(_plain(bytearray(data[:-4]), "flip", rng))
    if kind == "signed bytes":
        return signed(_plain(bytearray(data[:-4]), str(rng.choice(PLAIN_KINDS)), rng))
    if kind == "varint":
        head = bytearray(data[:-4])
        place = int(rng.integers(8, 24))
        head[place : place + 2] = rng.integers(0x80, 0x100, int(rng.integers(1, 9))).tolist()
        return signed(bytes(head))
    return _hostile(read_container(data), kind, rng)


def signed(content: bytes) -> bytes:
    """With a right check sum."""
    return content + struct.pack("<I", zlib.crc32(content))


def _plain(data: bytearray, kind: str, rng: np.random.Generator) -> bytes:
    place = int(rng.integers(0, max(1, len(data))))
    if kind == "flip":
        for _ in range(int(rng.integers(1, 9))):
            bit = int(rng.integers(0, 8 * len(data)))
            data[bit // 8] ^= 1 << bit % 8
    elif kind == "cut":
        del data[place:]
    elif kind == "swap":
        other, size = int(rng.integers(0, len(data))), int(rng.integers(1, 16))
        first, second = data[place : place + size], data[other : other + size]
        data[place : place + len(second)] = second
        data[other : other + len(first)] = first
    elif kind == "insert":
        data[place:place] = rng.bytes(int(rng.integers(1, 32)))
    elif kind == "zeros":
        data[place : place + 64] = bytes(len(data[place : place + 64]))
    elif kind == "append":
        data += rng.bytes(int(rng.integers(1, 64)))
    elif kind == "version":
        data[4:5] = rng.bytes(1)
    else:
        data[4:] = rng.bytes(int(rng.integers(0, 200)))
    return bytes(data)


@functools.cache
def _bomb() -> bytes:
    """32 MiB of zeros in 32 kB."""
    return zlib.compress(bytes(1 << 25))


def _hostile(file: Container, kind: str, rng: np.random.Generator) -> bytes:
    if kind == "size":
        sides = [1, 2, 31, 33, 4095, 65_535, 1 << 20, (1 << 28) - 1]
        width, height = (int(side) for side in rng.choice(sides, 2))
        return write_container(replace(file, width=width, height=height))
    if kind == "body":
        size = int(rng.choice([0, 1, 3, 17, len(file.body), 4 * len(file.body)]))
        coding = int(rng.integers(0, 4))
        return write_container(replace(file, body=rng.bytes(size), coding=coding))
    if kind == "chunk":
        chunk = int(rng.choice([1, 2, 3, 4, 77, 0x81, 0x82, 0x99, 0xFF]))
        stored = [rng.bytes(30), zlib.compress(rng.bytes(30)), _bomb()]
        data = stored[int(rng.integers(0, 3))]
        length = varint(int(rng.choice([0, len(data), len(data) + 1, (1 << 28) - 1])))
        plain = bytearray(write_container(replace(file, chunks={}, body=b""))[:-4])
        plain[5] |= 0x10
        return signed(bytes(plain) + bytes([chunk]) + length + data + b"\0" + file.body)
    fields: dict[str, object] = {
        "rate": int(rng.integers(0, 256)),
        "codec": str(rng.choice(["fake", "oscar", "compact-codec", "none", "x" * 32])),
        "coding": int(rng.integers(0, 4)),
        "orientation": int(rng.integers(1, 9)),
        "gray": True,
        "weights": rng.bytes(8),
    }
    name = str(rng.choice(list(fields)))
    return write_container(replace(file, **{name: fields[name]}))  # type: ignore[arg-type]
