"""Tile size from memory."""

from pathlib import Path

import pytest
import torch

from restore.memory import automatic_tile, container_memory, free_memory, is_out_of_memory


def test_more_memory_gives_larger_tiles_up_to_the_bound() -> None:
    sides = [
        automatic_tile(free, bytes_per_pixel=1000, overlap=16, largest=512)
        for free in (0, 10**7, 10**8, 10**9, 10**12)
    ]
    assert sides == sorted(sides)
    assert sides[0] == 32
    assert sides[-1] == 512
    # What was chosen fits into half of the memory.
    assert (sides[2] + 32) ** 2 * 1000 <= 10**8 / 2


def test_the_limit_of_a_container_counts(tmp_path: Path) -> None:
    assert container_memory(tmp_path) is None
    (tmp_path / "memory.current").write_text("600\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert container_memory(tmp_path) is None
    (tmp_path / "memory.max").write_text("1000\n")
    assert container_memory(tmp_path) == 400


def test_the_cpu_has_free_memory() -> None:
    assert free_memory(torch.device("cpu")) > 1 << 20


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_lack_of_memory_is_recognised(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) is expected
