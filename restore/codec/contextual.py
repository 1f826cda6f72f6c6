"""Indices through a range coder, each with a table that depends on those before it.

A codec that knows its indices well says, step by step, which of them come next and with which of
its tables of whole-number frequencies; what it says depends on the indices of earlier steps and on
integer arithmetic alone. Within a step the indices are coded table by table, in the order of the
tables and, with one table, in the order the codec names them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import constriction
import numpy as np
import numpy.typing as npt

from restore.bitstream import DAMAGED
from restore.errors import InputError

Indices = npt.NDArray[np.int32]
Integers = npt.NDArray[np.int64]

_SMALL = 4096  # bytes whose end is worth a search
_REFUSED = (AssertionError, ValueError, RuntimeError)  # what the coder says of damaged bytes


class IndexModel(Protocol):
    """What a codec knows of the indices of one picture."""

    steps: int
    """Steps in which they are coded."""
    tables: npt.NDArray[np.int32]
    """Frequencies `(n, symbols)`, each at least 1; the sum of each table is 2^24."""

    def plan(self, step: int, indices: Indices) -> tuple[Integers, Integers, Integers]:
        """What is coded in a step.

        Args:
            step: 0 to `steps` - 1.
            indices: `(planes, h, w)`; those of later steps must not count.

        Returns:
            Places in the flattened indices, the table of each, and what is subtracted from an
            index to make a symbol of the table; all `(n,)`.
        """


class _Tables:
    """Models of constriction for the tables that are used."""

    def __init__(self, tables: npt.NDArray[np.int32]) -> None:
        self._tables = tables
        self._made: dict[int, Any] = {}

    def __getitem__(self, number: int) -> Any:
        """The model of a table.

        It gives symbol i exactly f_i of 2^24 when it is told f_i - 1 as floats, see
        `restore.codec.indices`.
        """
        if number not in self._made:
            parts = (self._tables[number].astype(np.int64) - 1).astype(np.float64)
            self._made[number] = constriction.stream.model.Categorical(parts, perfect=False)
        return self._made[number]


def _runs(table: Integers) -> Iterator[tuple[int, Integers]]:
    """Each table that is used, and which indices use it."""
    order = np.argsort(table, kind="stable")
    edges = np.flatnonzero(np.diff(table[order])) + 1
    for run in np.split(order, edges):
        if len(run):
            yield int(table[run[0]]), run


def write_contextual(indices: Indices, model: IndexModel) -> bytes:
    """The bytes of `(planes, h, w)` indices; zeros behind them change nothing."""
    tables, flat = _Tables(model.tables), indices.reshape(-1)
    runs: list[tuple[Any, Indices]] = []
    for step in range(model.steps):
        places, table, shift = model.plan(step, indices)
        symbols = (flat[places] - shift).astype(np.int32)
        runs += [(tables[number], symbols[run]) for number, run in _runs(table)]
    encoder = constriction.stream.queue.RangeEncoder()
    for one, symbols in runs:
        encoder.encode(symbols, one)
    data = encoder.get_compressed().astype(">u4").tobytes().rstrip(b"\0")
    return _shortened(data, runs) if len(data) <= _SMALL else data


def _shortened(data: bytes, runs: Sequence[tuple[Any, Indices]]) -> bytes:
    """Fewer bytes that decode to the same: the coder ends with whole words of four."""
    for length in range(max(0, len(data) - 7), len(data)):
        start = int.from_bytes(data[:length], "big")
        for value in (start, start + 1):
            if value < 1 << 8 * length:
                tried = value.to_bytes(length, "big")
                if _holds(tried, runs):
                    return tried.rstrip(b"\0")
    return data


def _holds(data: bytes, runs: Sequence[tuple[Any, Indices]]) -> bool:
    decoder = _decoder(data)
    try:
        return all(np.array_equal(decoder.decode(one, len(run)), run) for one, run in runs)
    except _REFUSED:
        return False


def _decoder(data: bytes) -> Any:
    padded = data.ljust(max(8, -(-len(data) // 4) * 4), b"\0")
    words = np.frombuffer(padded, ">u4").astype(np.uint32)
    return constriction.stream.queue.RangeDecoder(words)


def read_contextual(
    data: bytes, model: IndexModel, *, shape: tuple[int, int, int], codebook: int
) -> Indices:
    """The indices that `write_contextual` made bytes of.

    Args:
        data: the bytes, with or without zeros behind them.
        model: the model they were written with.
        shape: planes, rows, columns.
        codebook: an index is from 0 to this, without it.

    Raises:
        InputError: the bytes are damaged.
    """
    decoder = _decoder(data)
    indices = np.zeros(shape, np.int32)
    tables, flat = _Tables(model.tables), indices.reshape(-1)
    for step in range(model.steps):
        places, table, shift = model.plan(step, indices)
        symbols = np.empty(len(places), np.int64)
        for number, run in _runs(table):
            try:
                symbols[run] = decoder.decode(tables[number], len(run))
            except _REFUSED as error:
                raise InputError(f"its indices cannot be decoded; {DAMAGED}") from error
        found = symbols + shift
        if len(found) and not 0 <= int(found.min()) <= int(found.max()) < codebook:
            raise InputError(f"it has an index that its rate does not have; {DAMAGED}")
        flat[places] = found
    return indices
