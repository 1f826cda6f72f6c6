"""ONNX Runtime in the place of PyTorch: the same network, on the CPU, in float32 or in 8 bits."""

from __future__ import annotations

import logging
import time
from functools import partial
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from restore.errors import OptionError
from restore.method import Exportable, Method, MethodSpec
from restore.runtimes.cache import cache_key, remembered
from restore.runtimes.calibration import make_inputs
from restore.runtimes.graph import FRAMES, PREVIOUS, TRUST, make_graph, require_onnx
from restore.runtimes.quantize import quantize

log = logging.getLogger("restore.runtimes")

Precision = Literal["fp32", "int8"]


class OnnxNet(nn.Module):
    """A network that ONNX Runtime computes; its graphs are made at the first use, or found again.

    Args:
        net: the network in PyTorch, see `restore.method.Exportable`, in float32 on the CPU.
        spec: what its method declares.
        precision: number format of the convolutions.
    """

    def __init__(self, net: nn.Module, spec: MethodSpec, *, precision: Precision) -> None:
        super().__init__()
        # The network is held in here and is no part of this module: moving that moves nothing.
        self._graph = partial(graph_of, net, spec, precision=precision)
        self._sessions: dict[bool, Any] = {}

    def forward(
        self, frames: Tensor, previous: Tensor | None = None, trust: Tensor | None = None
    ) -> Tensor:
        """As the network itself: `(B, 3, H, W)` to `(B, 3, s H, s W)`; held to [0, 1].

        Raises:
            MemoryError: it does not suffice.
        """
        given = {FRAMES: frames}
        if previous is not None and trust is not None:
            given |= {PREVIOUS: previous, TRUST: trust}
        session = self._session(temporal=len(given) > 1)
        arrays = {name: value.float().contiguous().numpy() for name, value in given.items()}
        try:
            (result,) = session.run(None, arrays)
        except Exception as error:
            if "allocate memory" in str(error) or "bad_alloc" in str(error):
                raise MemoryError(str(error)) from error
            raise
        return torch.from_numpy(result)

    def _session(self, *, temporal: bool) -> Any:
        if temporal not in self._sessions:
            self._sessions[temporal] = open_session(self._graph(temporal=temporal))
        return self._sessions[temporal]


def graph_of(net: nn.Module, spec: MethodSpec, *, precision: Precision, temporal: bool) -> bytes:
    """The network as an ONNX file, made now or found from an earlier run.

    Args:
        net: the network in PyTorch, see `restore.method.Exportable`, in float32 on the CPU.
        spec: what its method declares.
        precision: int8 = with the convolutions in 8 bits, from pictures of a fixed seed.
        temporal: with the inputs `previous` and `trust` beside `frames`.

    Raises:
        MissingExtraError: the extra `onnx` is not installed.
    """
    require_onnx()

    def make() -> bytes:
        start = time.monotonic()
        if precision == "int8":
            whole = graph_of(net, spec, precision="fp32", temporal=temporal)
            content = in_8_bits(whole, net, temporal=temporal)
        else:
            content = make_graph(net, spec, temporal=temporal).SerializeToString()
        seconds = time.monotonic() - start
        log.info("%s graph of '%s' for ONNX made in %.0f s", precision, spec.name, seconds)
        return content

    return remembered(cache_key(net, spec.scale, spec.size_multiple, precision, temporal), make)


def use_onnx_runtime(method: Method, *, precision: Precision) -> None:
    """Let ONNX Runtime compute the network of `method`, with the weights that it has now.

    Raises:
        OptionError: the method's network cannot be exported.
        MissingExtraError: the extra `onnx` is not installed.
    """
    check_exportable(method.spec)
    require_onnx()
    owner = cast(Exportable, method)
    owner.net = OnnxNet(owner.net, method.spec, precision=precision)


def check_exportable(spec: MethodSpec) -> None:
    """Raise OptionError when a method's network is not one graph of tensors."""
    if not spec.exportable:
        raise OptionError(
            f"model '{spec.name}' is more than one network, and has no ONNX graph; leave --runtime "
            "out, or choose another model"
        )


@torch.inference_mode()
def in_8_bits(graph: bytes, net: nn.Module, *, temporal: bool) -> bytes:
    """`graph`, made of `net`, with its convolutions in 8 bits."""
    names = (FRAMES, PREVIOUS, TRUST)
    inputs = (
        {name: value.numpy() for name, value in zip(names, given, strict=False)}
        for given in make_inputs(net, temporal=temporal)
    )
    return quantize(graph, inputs)


def open_session(model: bytes) -> Any:
    """A session on the CPU with as many threads as PyTorch takes."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    # Threads that wait sleep: the decoder and the encoder of a clip want the cores meanwhile.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
