"""Damaged files: a picture or one line, never a crash, a long wait or much memory."""

from __future__ import annotations

import time
import tracemalloc

import numpy as np
import pytest
import torch
from codec.damage import HOSTILE_KINDS, PLAIN_KINDS, damaged
from codec.fake_codec import RATES, coder

from restore.codec.job import read_coded
from restore.codec.pictures import check_alpha, picture_of
from restore.errors import InputError

COUNT = 40
"""Files of each kind; benchmarks/damaged_codes.py tries 10,000."""
SECONDS = 2.0
BYTES = 64 << 20


@pytest.fixture
def files(fake: object) -> list[bytes]:
    """One small file of each rate."""
    x = torch.rand(1, 3, 70, 90, generator=torch.Generator().manual_seed(4))
    return [coder().compress(x, rate=rate.index)["strings"][0][0] for rate in RATES]


@pytest.mark.parametrize("kind", [*PLAIN_KINDS, *HOSTILE_KINDS])
def test_damage_gives_one_line_or_a_picture(kind: str, files: list[bytes]) -> None:
    engine = coder()
    rng = np.random.default_rng(len(kind))
    tracemalloc.start()
    start = time.process_time()
    refused = 0
    for i in range(COUNT):
        data = damaged(files[i % len(files)], kind, rng)
        try:
            file, _ = read_coded(data, max_pixels=4_000_000)
            coded = engine.read(file)
            check_alpha(file)
            rgb = engine.decode(coded, file.width, file.height)[0]
            picture_of(file, rgb)
        except InputError as error:
            refused += 1
            assert str(error) and "\n" not in str(error)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # One file takes at most milliseconds; what NumPy and zlib allocate is counted, PyTorch is not.
    assert time.process_time() - start < SECONDS * COUNT / 10
    assert peak < BYTES
    if kind in PLAIN_KINDS:
        assert refused >= COUNT - 2  # two of the same bytes may be swapped, the version may be 1
