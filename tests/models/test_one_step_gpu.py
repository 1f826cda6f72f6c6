"""The one-step methods on a GPU: the CPU's numbers in each format; tiles that wait elsewhere."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from published import picture

import restore
from restore.models.parts import vae_tiles
from restore.models.parts.vae_tiles import EXACT, run_tiled

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def osediff(base: Path, weights: Path, **settings: Any) -> restore.Restorer:
    given = {"base": str(base), "weights": str(weights), "posterior": "mode", "tags": "a dog"}
    restorer = restore.load("osediff", **given, color_fix="none", **settings)
    restorer.method.framing = replace(restorer.method.framing, smallest=128)  # type: ignore[attr-defined]
    return restorer


# Largest difference in [0, 1] from float32 on the CPU. TF32 convolutions keep 10 bits; the sampler
# enlarges the error of the prediction 14.6 times.
@pytest.mark.parametrize(("dtype", "allowed"), [("fp32", 0.02), ("fp16", 0.05), ("bf16", 0.3)])
def test_the_gpu_gives_what_the_cpu_gives(
    tiny_base: Path, osediff_file: Path, dtype: str, allowed: float
) -> None:
    small = picture(40, 56, 1)
    expected = osediff(tiny_base, osediff_file, device="cpu", tile=32).restore(small)
    got = osediff(tiny_base, osediff_file, device="cuda", dtype=dtype, tile=32).restore(small)
    assert (got - expected).abs().max() < allowed


def test_tiles_may_wait_in_the_memory_of_the_machine(
    tiny_base: Path, osediff_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the GPU is too small for all of them; the result is the same."""
    vae: Any = osediff(tiny_base, osediff_file, device="cuda", dtype="fp32").method.vae.vae  # type: ignore[attr-defined]
    z = torch.randn(1, 4, 60, 50, device="cuda")
    plan = EXACT.decoder.with_tile(16)
    with torch.inference_mode():
        here = run_tiled(vae.decoder, z, plan)
        monkeypatch.setattr(vae_tiles, "_store", lambda *_: torch.device("cpu"))
        there = run_tiled(vae.decoder, z, plan)
    torch.testing.assert_close(here, there)


def test_compiled_is_the_same(tiny_base: Path, osediff_file: Path) -> None:
    small = picture(32, 32, 1)
    plain = osediff(tiny_base, osediff_file, device="cuda", dtype="fp32").restore(small)
    fused = osediff(tiny_base, osediff_file, device="cuda", dtype="fp32", compile=True)
    assert (fused.restore(small) - plain).abs().max() < 0.02
