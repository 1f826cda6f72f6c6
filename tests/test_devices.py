"""Where networks run, in which number format: what is chosen, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

import restore.devices
from restore.config import EngineConfig
from restore.devices import choose_device, choose_dtype, computes_bf16
from restore.errors import OptionError
from restore.method import MethodSpec

CPU, GPU = torch.device("cpu"), torch.device("cuda:0")
SPEC = MethodSpec(
    name="m", summary="", scale=2, overlap=1, dtypes=("fp16", "bf16", "fp32"), cpu_dtype="bf16"
)


def dtype(spec: MethodSpec = SPEC, device: torch.device = CPU, **settings: Any) -> str:
    return choose_dtype(EngineConfig(**settings), spec, device)


def test_bf16_is_taken_on_cpus_that_compute_in_it_for_methods_that_want_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(restore.devices, "computes_bf16", lambda: True)
    assert dtype() == "bf16"
    assert dtype(dtype="fp32") == "fp32"
    assert dtype(replace(SPEC, cpu_dtype="fp32")) == "fp32"
    monkeypatch.setattr(restore.devices, "computes_bf16", lambda: False)
    assert dtype() == "fp32"
    assert dtype(dtype="bf16") == "bf16"
    assert dtype(replace(SPEC, dtypes=("bf16",))) == "bf16"  # it has no other


def test_a_gpu_gets_the_first_format_of_the_method() -> None:
    assert dtype(device=GPU) == "fp16"


def test_onnx_runtime_computes_in_int8_unless_told_otherwise() -> None:
    assert dtype(runtime="onnx") == "int8"
    assert dtype(runtime="onnx", dtype="fp32") == "fp32"
    with pytest.raises(OptionError, match=r"the runtime onnx does not run in bf16; .*int8, fp32"):
        dtype(runtime="onnx", dtype="bf16")
    with pytest.raises(OptionError, match=r"'m' does not run in int8; .*add --runtime onnx"):
        dtype(dtype="int8")


def test_onnx_runtime_works_on_the_cpu() -> None:
    assert choose_device("auto", runtime="onnx") == choose_device("cpu", runtime="onnx") == CPU
    with pytest.raises(OptionError, match=r"works on the CPU, and the device is 'cuda'"):
        choose_device("cuda", runtime="onnx")


@pytest.mark.parametrize(
    ("known", "native"),
    [
        ({"architecture": "x86_64", "avx512_bf16": True}, True),
        ({"architecture": "x86_64", "amx_bf16": True, "avx512_bf16": False}, True),
        ({"architecture": "x86_64", "avx2": True, "avx512_f": True}, False),
        ({"architecture": "arm64", "bf16": True}, False),
    ],
)
def test_native_bf16_is_what_the_processor_says(
    known: dict[str, Any], native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: known, raising=False)
    assert computes_bf16() is native


@pytest.mark.parametrize("native", [False, True])
def test_an_older_pytorch_is_asked_in_its_own_way(
    native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: native, raising=False)
    assert computes_bf16() is native
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.delattr(torch.cpu, name, raising=False)
    assert computes_bf16() is False
