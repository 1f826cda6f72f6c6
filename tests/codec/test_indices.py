"""Indices as bytes: every shape comes back, and a decoder written from the page reads them too."""

from __future__ import annotations

import bisect

import numpy as np
import pytest

from restore.bitstream import ADAPTIVE, PACKED, STATIC
from restore.codec.indices import (
    BLOCK,
    PLACES_PER_BYTE,
    Grid,
    Indices,
    frequencies,
    read_indices,
    write_indices,
)
from restore.errors import InputError


def plain_range_decoder(payload: bytes, grid: Grid, coding: int) -> list[int]:
    """The decoder of docs/bitstream.md, in Python's integers: slow, and without any library."""
    total, k = 1 << 24, grid.codebook
    trust = payload[0] if coding == ADAPTIVE else None
    data = payload[1:] if coding == ADAPTIVE else payload

    def word(i: int) -> int:
        return int.from_bytes(data[4 * i : 4 * i + 4].ljust(4, b"\0"), "big")

    point, span, position, out = word(0) << 32 | word(1), 2**64 - 1, 2, []
    for plane in range(grid.planes):
        counts = [1] * k if grid.tables is None else [int(c) for c in grid.tables[plane]]
        prior = [(c << 16) // sum(counts) for c in counts]
        weights = counts if trust is None else [p << trust for p in prior]
        seen: list[int] = []
        for n in range(grid.places):
            if n == 0 or (trust is not None and n % BLOCK == 0):
                for symbol in seen:
                    weights[symbol] += 1 << 16
                seen = []
                f = [1 + w * (total - k) // sum(weights) for w in weights]
                f[weights.index(max(weights))] += total - sum(f)
                starts = [sum(f[:i]) for i in range(k)]
            step = span >> 24
            symbol = bisect.bisect_right(starts, point // step) - 1
            point -= step * starts[symbol]
            span = step * f[symbol]
            if span < 1 << 32:
                point, span = point << 32 | word(position), span << 32
                position += 1
            seen.append(symbol)
            out.append(symbol)
    return out


def grid_of(
    planes: int, height: int, width: int, codebook: int, *, skew: float = 0.0
) -> tuple[Grid, Indices]:
    """A grid with tables where `skew` is not 0, and indices that are skewed like them."""
    rng = np.random.default_rng([planes, height, width, codebook])
    weights = np.exp(-skew * np.arange(codebook) / codebook) + 1e-6
    shape = (planes, height, width)
    indices = rng.choice(codebook, shape, p=weights / weights.sum()).astype(np.int32)
    tables = (1000 * weights + 1).astype(np.uint32)[None].repeat(planes, 0) if skew else None
    return Grid(
        planes=planes, height=height, width=width, codebook=codebook, tables=tables
    ), indices


@pytest.mark.parametrize("codebook", [2, 3, 16, 257, 1000, 65536])
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 3, 5), (3, 8, 8), (2, 17, 40)])
@pytest.mark.parametrize("skew", [0.0, 6.0])
def test_what_is_written_is_read(codebook: int, shape: tuple[int, int, int], skew: float) -> None:
    grid, indices = grid_of(*shape, codebook, skew=skew)
    coding, payload = write_indices(indices, grid)
    found = read_indices(payload, grid, coding)
    np.testing.assert_array_equal(found, indices)
    assert found.dtype == np.int32
    assert len(payload) <= grid.packed_bytes
    assert (coding == PACKED) == (len(payload) == grid.packed_bytes)


def test_packing_is_the_highest_bit_first() -> None:
    grid = Grid(planes=1, height=1, width=3, codebook=8)
    indices = np.array([[[5, 2, 7]]], np.int32)  # 101 010 111
    assert read_indices(bytes([0b10101011, 0b10000000]), grid, PACKED).tolist() == indices.tolist()


def test_a_decoder_written_from_the_page_reads_them() -> None:
    """What the library does is what the page says: the plain twin gives the same indices."""
    grid, indices = grid_of(2, 12, 20, 16, skew=8.0)
    for coding, given in ((STATIC, grid), (ADAPTIVE, grid_of(2, 12, 20, 16)[0])):
        skewed = indices if coding == STATIC else np.minimum(indices, 3)
        found, payload = write_indices(skewed, given)
        assert found == coding
        assert plain_range_decoder(payload, given, coding) == skewed.reshape(-1).tolist()


def test_the_adaptive_example_of_the_page_reads_as_it_says() -> None:
    grid = Grid(planes=1, height=16, width=16, codebook=4)
    indices = np.zeros((1, 16, 16), np.int32)
    indices[0, 3, 5], indices[0, 10] = 2, 1
    text = "03 00 00 00 00 00 00 00 00 00 00 00 00 00 1f f8 00 "
    text += "00 10 af 7c 80 f0 af bf 6e a7 c6 17 d3 8e d8 4d"
    payload = bytes.fromhex(text)
    assert write_indices(indices, grid) == (ADAPTIVE, payload)
    np.testing.assert_array_equal(read_indices(payload, grid, ADAPTIVE), indices)
    assert plain_range_decoder(payload, grid, ADAPTIVE) == indices.reshape(-1).tolist()
    after = 131072 + 65536 * np.array([63, 0, 1, 0])
    assert frequencies(after).tolist() == [15146097, 466034, 699051, 466034]


def test_entropy_coding_comes_near_to_the_entropy() -> None:
    grid, indices = grid_of(1, 64, 64, 256, skew=8.0)
    _, payload = write_indices(indices, grid)
    chance = grid.tables[0] / grid.tables[0].sum()  # type: ignore[index]
    ideal = -np.log2(chance[indices]).sum() / 8
    assert len(payload) < ideal + 5  # one word of the coder, and its last byte
    assert len(payload) < 0.85 * grid.packed_bytes


def test_frequencies_are_whole_and_complete() -> None:
    rng = np.random.default_rng(0)
    for codebook in (2, 5, 65536):
        weights = rng.integers(0, 1 << 30, codebook)
        found = frequencies(weights)
        assert found.sum() == 1 << 24 and found.min() >= 1
        assert np.argmax(found) == np.argmax(weights)


def test_payloads_of_a_wrong_length_or_symbol_are_refused() -> None:
    grid, indices = grid_of(1, 4, 5, 5)
    payload = bytes(grid.packed_bytes)
    with pytest.raises(InputError, match="8 bytes and 7 are there"):
        read_indices(payload[:-1], grid, PACKED)
    with pytest.raises(InputError, match="index 7, and its rate has 5 symbols"):
        read_indices(b"\xff" + payload[1:], grid, PACKED)
    with pytest.raises(InputError, match="not filled with zeros"):
        read_indices(payload[:-1] + b"\x01", grid, PACKED)
    with pytest.raises(InputError, match="need tables"):
        read_indices(payload, grid, STATIC)
    for bad in (b"", b"\x11", b"\xff\0\0"):
        with pytest.raises(InputError, match="number up to 16"):
            read_indices(bad, grid, ADAPTIVE)
    del indices


def test_a_short_payload_cannot_promise_many_places() -> None:
    """What is allocated is bounded by the length of the file, not by what it says."""
    huge = Grid(planes=1, height=1 << 14, width=1 << 14, codebook=256)
    for coding, payload in ((PACKED, b"\0" * 100), (ADAPTIVE, b"\x08" + b"\0" * 100)):
        with pytest.raises(InputError, match="bytes"):
            read_indices(payload, huge, coding)
    grid = Grid(planes=1, height=300, width=300, codebook=4)
    coding, payload = write_indices(np.zeros((1, 300, 300), np.int32), grid)
    assert coding == ADAPTIVE and len(payload) >= 300 * 300 // PLACES_PER_BYTE
    assert not read_indices(payload, grid, coding).any()
