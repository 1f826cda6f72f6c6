"""Large blocks stay with the process, and what lies idle of them counts as free."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="glibc is Linux's")

FAULTS = """
import resource
from restore.allocator import idle_bytes, keep_large_blocks
print(keep_large_blocks())
import numpy as np
for _ in range(3):
    np.ones(1 << 23)  # 64 MiB
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    np.ones(1 << 23)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(idle_bytes())
"""


def run(**environment: str) -> list[str]:
    own = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_"))}
    done = subprocess.run(
        [sys.executable, "-c", FAULTS],
        capture_output=True,
        text=True,
        check=True,
        env=own | environment,
        timeout=60,
    )
    return done.stdout.split()


def test_a_large_block_is_taken_from_the_system_once() -> None:
    kept, faults, idle = run()
    if kept != "True":
        pytest.skip("the C library is not glibc 2.33 or later")
    assert int(faults) < 1000  # of 4 KiB each, or fewer large ones; 20 blocks are 327,680
    assert int(idle) >= 64 << 20


@pytest.mark.parametrize(
    "chosen", [{"MALLOC_ARENA_MAX": "2"}, {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=0"}]
)
def test_who_has_set_the_allocator_keeps_that(chosen: dict[str, str]) -> None:
    assert run(**chosen)[0] == "False"
