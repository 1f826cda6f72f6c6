"""The Triton kernels, run by Triton's interpreter on the CPU, against float64."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("triton")

CASES = (
    "fp32 d64",
    "fp32 d128 batch",
    "fp32 partial blocks",
    "fp32 strided unsorted",
    "fp16 d64 bulk ahead",
    "fp16 d128 bulk ahead",
    "fp16 d64 partial bulk",
    "fp16 d128 strided bulk",
    "bf16 d128",
)

# Rel. L2: what the format leaves of a sum over a hundred keys, three times over. The interpreter
# cuts bf16 off instead of rounding it, which doubles that error; GPUs round (5e-3 there).
OUTPUT = {"fp32": 1e-5, "fp16": 1e-3, "bf16": 1e-2}
GRADIENT = {"fp32": 1e-5, "fp16": 1e-3, "bf16": 1e-2}


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    """What the kernels gave, from one process: the interpreter is chosen before triton loads."""
    script = Path(__file__).with_name("triton_cases.py")
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(script)],
        env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


@pytest.mark.parametrize("case", CASES)
def test_the_forward_is_what_float64_gives(found: dict[str, Any], case: str) -> None:
    assert found[case]["out"] <= OUTPUT[case[:4]]
    assert found[case]["lse"] <= 1e-3


@pytest.mark.parametrize("case", CASES)
def test_the_gradients_are_what_float64_gives(found: dict[str, Any], case: str) -> None:
    for name in ("dq", "dk", "dv"):
        assert found[case][name] <= GRADIENT[case[:4]], name


@pytest.mark.parametrize("case", CASES)
def test_a_row_without_blocks_gives_zeros_and_minus_infinity(
    found: dict[str, Any], case: str
) -> None:
    assert found[case]["has_empty"]
    assert found[case]["empty_kept"]


def test_rows_are_started_longest_first(found: dict[str, Any]) -> None:
    assert found["order"]


def test_the_tiles_that_are_used_by_default_give_the_same(found: dict[str, Any]) -> None:
    assert found["default tiles"] <= 1e-3


def test_the_interpreter_takes_tensors_of_the_cpu(found: dict[str, Any]) -> None:
    assert found["cpu allowed"]


def test_every_case_was_run(found: dict[str, Any]) -> None:
    assert set(found) - {"order", "cpu allowed", "default tiles"} == set(CASES)
