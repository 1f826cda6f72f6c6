"""Indices of a codec as bytes: packed, or through a range coder with whole-number frequencies.

`docs/bitstream.md` defines each byte. Frequencies are computed in integers alone, from counts that
both sides have, and the coder (constriction) computes in 64-bit integers: no rounding of any
machine decides what an index is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import constriction
import numpy as np
import numpy.typing as npt

from restore.bitstream import ADAPTIVE, DAMAGED, PACKED, STATIC
from restore.errors import InputError

Indices = npt.NDArray[np.int32]
Counts = npt.NDArray[np.int64]

TOTAL_BITS: Final = 24
"""Frequencies of a model add up to 2^24."""
BLOCK: Final = 64
"""Indices between two looks at the counts."""
LARGEST_CODEBOOK: Final = 1 << 16
COUNTED: Final = 1 << 22
"""Indices of a plane that change the counts; later ones do not."""
PLACES_PER_BYTE: Final = 1024
"""A payload of L bytes that is not packed holds at most 1024 (L + 1) places: what a file promises
is bounded by its own length."""

_PRIOR_BITS = 16
_MOST_TRUST = 16
_UNIT = 1 << 16  # indices unpacked at once; a multiple of 8, so that each unit begins with a byte
_SMALL = 1024  # bytes of a payload whose end is worth a search
_MANY = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Grid:
    """What both sides know of the indices before they see the first one."""

    planes: int
    """Grids of indices."""
    height: int
    """Rows of each."""
    width: int
    """Columns."""
    codebook: int
    """Symbols, 2 to 65536."""
    tables: npt.NDArray[np.uint32] | None = None
    """How often each symbol comes, `(planes, codebook)`; None = the codec does not know."""

    @property
    def count(self) -> int:
        """Indices in all."""
        return self.planes * self.height * self.width

    @property
    def places(self) -> int:
        """Indices of one plane."""
        return self.height * self.width

    @property
    def bits(self) -> int:
        """Bits of one packed index."""
        return (self.codebook - 1).bit_length()

    @property
    def packed_bytes(self) -> int:
        """Length of the packed form."""
        return -(-self.count * self.bits // 8)


def write_indices(indices: Indices, grid: Grid) -> tuple[int, bytes]:
    """The shortest form of the indices.

    Args:
        indices: `(planes, h, w)`, each in [0, codebook).
        grid: their shape.

    Returns:
        The coding, `PACKED`, `STATIC` or `ADAPTIVE`, and the bytes.
    """
    flat = indices.reshape(grid.planes, -1).astype(np.int32)
    tried = sorted({min(max(grid.bits + more, 0), _MOST_TRUST) for more in (-1, 1, 3, 5)})
    ways: list[int | None] = list(tried if grid.count < _MANY else tried[-1:])
    if grid.tables is not None:
        ways.insert(0, None)
    coded = [(_range_encode(flat, grid, way), way) for way in ways]
    data, trust = min(coded, key=lambda form: len(form[0]) + (form[1] is not None))
    if len(data) <= _SMALL:
        data = _shortened(data, flat, grid, trust)
    payload = data if trust is None else bytes([trust]) + data
    if len(payload) >= grid.packed_bytes:
        return PACKED, pack(flat, grid)
    return (STATIC if trust is None else ADAPTIVE), payload


def read_indices(payload: bytes, grid: Grid, coding: int) -> Indices:
    """The indices `(planes, h, w)` that `write_indices` made a payload of.

    Raises:
        InputError: the payload does not fit the grid, or is damaged.
    """
    if coding == PACKED:
        flat = unpack(payload, grid)
    elif coding == STATIC:
        if grid.tables is None:
            raise InputError(f"its indices need tables that its codec does not have; {DAMAGED}")
        flat = _range_decode(payload, grid, None)
    else:
        trust = payload[0] if payload else _MOST_TRUST + 1
        if trust > _MOST_TRUST:
            raise InputError(f"its indices do not begin with a number up to 16; {DAMAGED}")
        flat = _range_decode(payload[1:], grid, trust)
    return flat.reshape(grid.planes, grid.height, grid.width)


def pack(flat: Indices, grid: Grid) -> bytes:
    """Each index in `grid.bits` bits, the highest first; zeros fill the last byte."""
    shifts = np.arange(grid.bits - 1, -1, -1)
    values = flat.reshape(-1)
    parts = []
    for start in range(0, grid.count, _UNIT):
        bits = values[start : start + _UNIT, None] >> shifts & 1
        parts.append(np.packbits(bits.astype(np.uint8)).tobytes())
    return b"".join(parts)


def unpack(payload: bytes, grid: Grid) -> Indices:
    """The reverse of `pack`.

    Raises:
        InputError: the length is another, an index is above the last symbol, or the last byte is
            not filled with zeros.
    """
    if len(payload) != grid.packed_bytes:
        raise InputError(
            f"its {grid.count} indices take {grid.packed_bytes} bytes and {len(payload)} are "
            f"there; {DAMAGED}"
        )
    data = np.frombuffer(payload, np.uint8)
    weights = (1 << np.arange(grid.bits - 1, -1, -1)).astype(np.int32)
    flat = np.empty(grid.count, np.int32)
    for start in range(0, grid.count, _UNIT):
        count = min(_UNIT, grid.count - start)
        first = start * grid.bits // 8
        bits = np.unpackbits(data[first : first + -(-count * grid.bits // 8)])
        flat[start : start + count] = bits[: count * grid.bits].reshape(count, -1) @ weights
        if bits[count * grid.bits :].any():
            raise InputError(f"its last byte is not filled with zeros; {DAMAGED}")
    if int(flat.max()) >= grid.codebook:
        raise InputError(
            f"it has index {int(flat.max())}, and its rate has {grid.codebook} symbols; {DAMAGED}"
        )
    return flat


def frequencies(weights: Counts) -> Counts:
    """Whole numbers of at least 1 that add up to 2^24, after `weights`.

    f_i = 1 + floor(w_i (2^24 - K) / W); what is missing goes to the first of the largest weights.

    Args:
        weights: `(K,)`, 0 and up, with a sum W from 1 to 2^39 - 1.
    """
    total = 1 << TOTAL_BITS
    found = 1 + weights * (total - len(weights)) // int(weights.sum())
    found[int(np.argmax(weights))] += total - int(found.sum())
    return found


def _prior(grid: Grid, plane: int) -> Counts:
    """How often each symbol is expected, in 65536ths; they may add up to a little less."""
    if grid.tables is None:
        counts = np.ones(grid.codebook, np.int64)
    else:
        counts = grid.tables[plane].astype(np.int64)
    return (counts << _PRIOR_BITS) // int(counts.sum())


class _Model:
    """Frequencies of one plane, as they stand at a block."""

    def __init__(self, grid: Grid, plane: int, trust: int | None) -> None:
        self._trust = trust
        self._seen = 0
        if trust is None:
            assert grid.tables is not None
            self._weights = grid.tables[plane].astype(np.int64)
        else:
            self._weights = _prior(grid, plane) << trust
        self._model: Any = None

    def current(self) -> Any:
        """The model for constriction.

        It gives symbol i exactly f_i of 2^24 when it is told f_i - 1 as floats: those add up to
        2^24 - K, which is what it scales them to, so its factor is 1, and each gets 1 more. All
        numbers are whole and below 2^53, so that floats hold them exactly.
        """
        if self._model is None:
            parts = (frequencies(self._weights) - 1).astype(np.float64)
            self._model = constriction.stream.model.Categorical(parts, perfect=False)
        return self._model

    def learn(self, symbols: Indices) -> None:
        """Count a block of symbols."""
        if self._trust is None or self._seen >= COUNTED:
            return
        self._seen += len(symbols)
        np.add.at(self._weights, symbols, 1 << _PRIOR_BITS)
        self._model = None


def _blocks(grid: Grid, trust: int | None) -> Iterator[tuple[int, _Model, slice]]:
    """Plane, model and place of each run of indices that share a model."""
    size = grid.height * grid.width
    step = size if trust is None else BLOCK
    for plane in range(grid.planes):
        model = _Model(grid, plane, trust)
        for start in range(0, size, step):
            yield plane, model, slice(start, min(start + step, size))


def _range_encode(flat: Indices, grid: Grid, trust: int | None) -> bytes:
    encoder = constriction.stream.queue.RangeEncoder()
    for plane, model, place in _blocks(grid, trust):
        symbols = np.ascontiguousarray(flat[plane, place])
        encoder.encode(symbols, model.current())
        model.learn(symbols)
    return padded(encoder.get_compressed().astype(">u4").tobytes().rstrip(b"\0"), grid)


def padded(data: bytes, grid: Grid) -> bytes:
    """With as many zeros behind it as the bound on places asks for; they change nothing."""
    return data.ljust(-(-grid.places // PLACES_PER_BYTE) - 1, b"\0")


def check_places(data: bytes, grid: Grid) -> None:
    """Raise InputError where a payload promises more than its length allows."""
    if grid.places > PLACES_PER_BYTE * (len(data) + 1):
        raise InputError(
            f"it promises {grid.places} places in {len(data)} bytes, more than the "
            f"{PLACES_PER_BYTE} a byte that are allowed; {DAMAGED}"
        )


def _shortened(data: bytes, flat: Indices, grid: Grid, trust: int | None) -> bytes:
    """Fewer bytes that decode to the same: the coder ends with whole words of four."""
    for length in range(max(0, len(data) - 7), len(data)):
        start = int.from_bytes(data[:length], "big")
        for value in (start, start + 1):
            if value >= 1 << 8 * length:
                continue
            tried = value.to_bytes(length, "big")
            try:
                found = _decode_words(tried, grid, trust)
            except InputError:
                continue
            if np.array_equal(found, flat):
                return padded(tried.rstrip(b"\0"), grid)
    return data


def _range_decode(data: bytes, grid: Grid, trust: int | None) -> Indices:
    check_places(data, grid)
    return _decode_words(data, grid, trust)


def _decode_words(data: bytes, grid: Grid, trust: int | None) -> Indices:
    whole = data.ljust(max(8, -(-len(data) // 4) * 4), b"\0")
    decoder = constriction.stream.queue.RangeDecoder(np.frombuffer(whole, ">u4").astype(np.uint32))
    flat = np.empty((grid.planes, grid.height * grid.width), np.int32)
    for plane, model, place in _blocks(grid, trust):
        try:
            symbols = decoder.decode(model.current(), place.stop - place.start)
        except (AssertionError, ValueError, RuntimeError) as error:
            raise InputError(f"its indices cannot be decoded; {DAMAGED}") from error
        flat[plane, place] = symbols
        model.learn(flat[plane, place])
    return flat
