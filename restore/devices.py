"""Where a network runs, and in which number format."""

from __future__ import annotations

import torch

from restore.codec.contract import CodecSpec
from restore.config import EngineConfig, RuntimeChoice
from restore.errors import OptionError
from restore.method import MethodSpec

DTYPES = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "int8": torch.float32,  # of what goes in and comes out
}
"""Number formats by name, as tensors of a method have them."""

_NATIVE_BF16 = ("avx512_bf16", "amx_bf16")
_NATIVE_BF16_CHECKS = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")


def choose_device(name: str, *, runtime: RuntimeChoice = "torch") -> torch.device:
    """The device called `name`; `auto` is the first GPU, or the CPU where there is none.

    Raises:
        OptionError: there is no such device here, or the runtime does not work on it.
    """
    if runtime == "onnx":
        if name not in ("auto", "cpu"):
            raise OptionError(
                f"the runtime onnx works on the CPU, and the device is '{name}'; leave --runtime "
                "or --device out"
            )
        return torch.device("cpu")
    have = available_devices()
    if name == "auto":
        return torch.device(have[0])
    asked = (
        "cuda:0" if name == "cuda" or name == "0" else f"cuda:{name}" if name.isdigit() else name
    )
    if asked not in have:
        raise OptionError(
            f"device '{name}' is not here; devices of this machine: {', '.join(have)}; "
            "run 'restore doctor' to see why a GPU is missing"
        )
    return torch.device(asked)


def available_devices() -> list[str]:
    """Names of the devices of this machine, the best first, the CPU last."""
    devices = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        devices.append("mps")
    return [*devices, "cpu"]


def choose_dtype(config: EngineConfig, spec: MethodSpec | CodecSpec, device: torch.device) -> str:
    """Name of the number format: the user's, or the best for the method on this device.

    Raises:
        OptionError: the method does not give correct results in it, or the runtime lacks it.
    """
    allowed: tuple[str, ...] = ("int8", "fp32") if config.runtime == "onnx" else spec.dtypes
    if config.dtype != "auto":
        if config.dtype not in allowed:
            what = f"model '{spec.name}'" if config.runtime == "torch" else "the runtime onnx"
            hint = "; for int8 add --runtime onnx" if config.dtype == "int8" else ""
            raise OptionError(
                f"{what} does not run in {config.dtype}; allowed: {', '.join(allowed)}{hint}"
            )
        return config.dtype
    if config.runtime == "onnx" or device.type != "cpu":
        return allowed[0]
    if spec.cpu_dtype == "bf16" and computes_bf16():
        return "bf16"
    return "fp32" if "fp32" in allowed else allowed[0]


def computes_bf16() -> bool:
    """Whether convolutions in bf16 are faster on this CPU than in fp32, and not just possible.

    x86 with AVX512-BF16 or AMX, through oneDNN. Other processors round back and forth.
    """
    if not getattr(torch._C, "_has_mkldnn", False):
        return False
    tell = getattr(torch.cpu, "get_capabilities", None)
    if tell is not None:
        known = tell()
        return any(bool(known.get(name, False)) for name in _NATIVE_BF16)
    # Earlier versions of PyTorch answer these alone, under private names.
    checks = (getattr(torch.cpu, name, None) for name in _NATIVE_BF16_CHECKS)
    return any(bool(check()) for check in checks if check is not None)
