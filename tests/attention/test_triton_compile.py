"""The kernels as an H100 gets them: compiled here for sm_90, without a GPU, and disassembled."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sm90
from sm90 import Code

from restore.attention import triton_backward, triton_forward
from restore.attention.triton_launch import Tiles

triton = pytest.importorskip("triton")
if sm90.tool() is None:
    pytest.skip("this triton brings no cuobjdump to read its code with", allow_module_level=True)

SHARED = 227 * 1024  # bytes of shared memory that a program may have on an H100
REGISTERS = 65536  # of a multiprocessor


@pytest.fixture(autouse=True, scope="module")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Compile for real: nothing from an earlier run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_CACHE_DIR", str(tmp_path_factory.mktemp("triton")))
        yield


def kernel(name: str) -> Any:
    """One of the three kernels that hold matrix products."""
    from restore.attention import triton_backward_kernels, triton_kernels

    if name == "forward":
        return triton_kernels.forward_kernel
    return getattr(triton_backward_kernels, f"{name}_kernel")


TILES: dict[str, dict[int, Tiles]] = {
    "forward": triton_forward.HOPPER,
    "dq": triton_backward.DQ,
    "dkv": triton_backward.DKV,
}


def check(code: Code, tiles: Tiles) -> None:
    """Tensor cores fed from shared memory, nothing in local memory, and it fits."""
    assert code.number("HGMMA") > 0, "not on Hopper's tensor cores"
    assert code.number("HMMA") == 0, "on the older tensor cores"
    assert (code.number("LDL"), code.number("STL"), code.stack) == (0, 0, 0), "spills"
    assert code.registers * tiles.warps * 32 <= REGISTERS
    assert code.shared <= SHARED
    # ptxas may serialise: a wait after each product, which the other checks do not see.
    assert code.longest_burst() >= 4


@pytest.mark.parametrize("channels", [64, 128])
@pytest.mark.parametrize(
    ("name", "dtype"), [("forward", "bf16"), ("forward", "fp16"), ("dq", "bf16"), ("dkv", "bf16")]
)
def test_the_kernels_use_what_hopper_has(name: str, channels: int, dtype: str) -> None:
    tiles = TILES[name][channels]
    code = sm90.compiled(kernel(name), dtype, channels, tiles, bulk=True)
    check(code, tiles)
    assert code.number("UTMALDG") > 0, "tiles do not come through the copy engine"
    if tiles.ahead:
        # Of 64 exponentials a thread and tile: most of them while the next product runs.
        assert code.overlapped() >= 32


def test_tensors_that_the_copy_engine_cannot_read_lose_only_it() -> None:
    tiles = TILES["forward"][128]
    code = sm90.compiled(kernel("forward"), "bf16", 128, tiles, bulk=False)
    check(code, tiles)
    assert code.number("UTMALDG") == 0


def test_blocks_with_a_valid_length_do_not_spill() -> None:
    tiles = TILES["forward"][128]
    code = sm90.compiled(kernel("forward"), "bf16", 128, tiles, bulk=True, valid=True)
    check(code, tiles)
    assert (code.number("STL"), code.number("LDL")) == (0, 0)


def test_the_check_sees_a_serialised_kernel() -> None:
    # The reason why no kernel here has a limit of 128 registers, though two would then fit.
    tiles = replace(TILES["forward"][64], ahead=False, registers=128)
    code = sm90.compiled(kernel("forward"), "bf16", 64, tiles, bulk=True)
    assert code.longest_burst() == 1


def test_the_reader_counts_what_is_there() -> None:
    lines = ["HGMMA.64x128", "MUFU.EX2 R1", "HGMMA.64x128", "WARPGROUP.DEPBAR.LE", "MUFU.EX2 R2"]
    code = Code(registers=1, stack=0, shared=0, instructions=[*lines, "STL [R1]", "HGMMA"])
    assert (code.number("HGMMA"), code.number("STL")) == (3, 1)
    assert (code.longest_burst(), code.overlapped()) == (2, 1)


def test_importing_the_backends_loads_no_triton(tmp_path: Path) -> None:
    """Machines without it still import the room."""
    code = (
        "import sys, restore.attention.triton_forward, restore.attention.triton_backward, "
        "restore.attention.flex, restore.attention.cudnn, restore.attention.fa4; "
        "sys.exit('triton' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path).returncode == 0
