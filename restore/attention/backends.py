"""The programs that compute block-sparse attention, by name, and which one `auto` means."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from restore.attention import reference
from restore.errors import OptionError

BackendName = Literal["auto", "reference", "cpu", "triton", "flex", "cudnn", "fa4"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Backend:
    """One program that computes the forward, and the one that computes its gradients."""

    name: str
    """What `backend=` takes."""
    module: str
    """Module with `forward(q, k, v, count, index, *, block, kv_valid, scale) -> (out, lse)`, the
    output in q's dtype and the log-sum-exp in float32, and with `why_not(q)`: why it cannot
    compute for such tensors, or None."""
    gradients: str
    """Module with `backward(dout, q, k, v, out, lse, count, index, t_count, t_index, *, block,
    kv_valid, scale) -> (dq, dk, dv)` and `why_not(q)`; the reference steps in where it cannot."""

    def why_not(self, q: Tensor) -> str | None:
        """Why this backend cannot be used for tensors like `q`; None when it can."""
        return importlib.import_module(self.module).why_not(q)

    def available(self, device: torch.device | str) -> bool:
        """Whether it can compute on a device, for a common shape (float16, D 128)."""
        if torch.device(device).type == "cuda" and not torch.cuda.is_available():
            return False
        return self.why_not(torch.empty((1, 1, 1, 128), dtype=torch.float16, device=device)) is None

    def forward(self, *tensors: Tensor, **settings: Any) -> tuple[Tensor, Tensor]:
        """Call the program's `forward`."""
        return importlib.import_module(self.module).forward(*tensors, **settings)

    def backward(self, *tensors: Tensor, **settings: Any) -> tuple[Tensor, Tensor, Tensor]:
        """Call the `backward` that fits tensors like q, the second of `tensors`."""
        module = importlib.import_module(self.gradients)
        if module.why_not(tensors[1]) is not None:
            module = reference
        return module.backward(*tensors, **settings)


def _backend(name: str, gradients: str) -> Backend:
    module = {"triton": "triton_forward"}.get(name, name)
    return Backend(
        name=name,
        module=f"restore.attention.{module}",
        gradients=f"restore.attention.{gradients}",
    )


BACKENDS: dict[str, Backend] = {
    backend.name: backend
    for backend in (
        _backend("reference", "reference"),
        _backend("cpu", "cpu_backward"),
        _backend("triton", "triton_backward"),
        _backend("flex", "triton_backward"),
        _backend("cudnn", "triton_backward"),
        _backend("fa4", "triton_backward"),
    )
}
"""Every backend by name; a new one is a module and a line here."""

AUTOMATIC = {"cuda": ("triton", "flex", "reference"), "cpu": ("cpu",)}
"""What `auto` tries, by kind of device; elsewhere the reference computes."""

_RESOLVED: dict[tuple[str, torch.device, torch.dtype, int], Backend] = {}


def resolve(backend: str, q: Tensor) -> Backend:
    """The program that computes for tensors like `q` (device, dtype, D).

    Raises:
        OptionError: the one that was asked for cannot.
    """
    key = (backend, q.device, q.dtype, q.shape[-1])
    if key not in _RESOLVED:
        _RESOLVED[key] = _automatic(q) if backend == "auto" else _named(backend, q)
    return _RESOLVED[key]


def _automatic(q: Tensor) -> Backend:
    for name in AUTOMATIC.get(q.device.type, ()):
        if BACKENDS[name].why_not(q) is None:
            return BACKENDS[name]
    return BACKENDS["reference"]


def _named(name: str, q: Tensor) -> Backend:
    reason = BACKENDS[name].why_not(q)
    if reason is not None:
        raise OptionError(
            f"attention backend {name!r} cannot be used: {reason}; 'auto' takes one that can"
        )
    return BACKENDS[name]
