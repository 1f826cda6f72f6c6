"""The kernel of the retrieval of DLoRAL: its sums, its code for sm_90, and both on a GPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import sm90
import torch
from dloral_cases import latents, retrieval

from restore.models.parts.dloral import sums
from restore.models.parts.dloral.cfr import CrossFrameRetrieval

pytest.importorskip("triton")

CASES = ((1, 1), (128, 16), (129, 90))
"""Queries and keys: less than a tile, one tile, more and no multiple of it."""
SCRIPT = """
import json, sys, torch
from restore.models.parts.dloral.triton_sums import relu_sums

def apart(n, m):
    queries, keys = torch.randn(5, n), torch.randn(m, 5)
    want = keys.double().t() @ (keys.double() @ queries.double()).relu()
    return float((relu_sums(queries, keys) - want).abs().max() / want.abs().max().clamp(min=1))

torch.manual_seed(0)
found = {"apart": [apart(n, m) for n, m in json.loads(sys.argv[1])]}
queries, keys = torch.randn(5, 20), torch.randn(30, 5)
queries[2, 7] = torch.nan
found["query"] = relu_sums(queries, keys).isnan().all(0).nonzero()[:, 0].tolist()
keys[11, 3] = torch.nan
found["key"] = bool(relu_sums(torch.randn(5, 20), keys).isnan().all())
print(json.dumps(found))
"""


def test_its_sums_are_those_of_float64_and_nan_is_not_hidden() -> None:
    """In a process of its own: the interpreter is chosen before triton loads."""
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCRIPT, json.dumps(CASES)],
        env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert max(found["apart"]) <= 2e-6  # a hundred float32 roundings; seen: 2e-7
    assert found["query"] == [7]
    assert found["key"]


def test_its_code_for_hopper_keeps_scores_in_registers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compiled here, without a GPU: nothing spills, no sums between threads, few other steps."""
    if sm90.tool() is None:
        pytest.skip("this triton brings no cuobjdump to read its code with")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from restore.models.parts.dloral.triton_sums import KEYS, QUERIES, WARPS, sums_kernel

    kinds = dict.fromkeys(("queries", "keys", "sums"), "*fp32") | dict.fromkeys(
        ("count", "length"), "i32"
    )
    constants = {"QUERIES": QUERIES, "KEYS": KEYS}
    source = ASTSource(
        sums_kernel,
        signature=kinds | dict.fromkeys(constants, "constexpr"),
        constexprs=constants,
        attrs={(place,): [["tt.divisibility", 16]] for place in range(len(kinds))},
    )
    options = {"num_warps": WARPS, "enable_fp_fusion": True}
    made = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
    code = sm90._read(made.asm["cubin"], made.metadata.shared)
    pairs = QUERIES * KEYS // (32 * WARPS)  # of a thread and step
    assert (code.number("LDL"), code.number("STL"), code.stack) == (0, 0, 0)
    assert code.number("SHFL") == 0
    assert code.number("FMNMX") == pairs  # one step of the loop, not unrolled
    # 10 multiply-adds and a maximum are the least; a sum of 16 as a tree takes a little more.
    steps = sum(code.number(name) for name in ("FFMA", "FMUL", "FADD", "FMNMX"))
    assert steps <= 14 * pairs
    assert code.registers <= 128  # 16 warps of a multiprocessor at a time


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("fused", [True, False])
def test_on_a_gpu_it_equals_the_cpu(fused: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the kernel, and by blocks of products where it does not run."""
    if not fused:
        monkeypatch.setattr(sums, "fused_here", lambda queries: False)
    net = retrieval(CrossFrameRetrieval())
    current, warped = latents(60, 70)
    with torch.inference_mode():
        want = net(current, warped) - current
        got = net.cuda()(current.cuda(), warped.cuda()).cpu() - current
    assert (got - want).abs().max() <= 1e-5 * want.abs().max()
