"""A network as an ONNX graph, made of the very module that PyTorch runs."""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import logging
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from restore.errors import MissingExtraError, install_command
from restore.method import MethodSpec

if TYPE_CHECKING:
    import onnx

PACKAGES = ("onnx", "onnxscript", "onnxruntime", "platformdirs")
"""What the extra `onnx` brings."""
OPSET = 18
"""Version of the ONNX operators: the oldest that PyTorch's exporter writes without converting."""
FRAMES, PREVIOUS, TRUST, RESULT = "frames", "previous", "trust", "result"
"""Names of the inputs and of the output."""
SIDES = (6, 10)
"""Height and width of the example that is traced, in multiples of the network's."""


class Graph(nn.Module):
    """What goes into the file: the network, for any size, with its result held to [0, 1].

    Args:
        net: the network, see `restore.method.Exportable`.
        scale: output pixels per input pixel along each side.
        multiple: width and height are extended to a multiple of this by repeating the border, and
            the result is cut back, which costs nothing that can be measured.
    """

    def __init__(self, net: nn.Module, *, scale: int, multiple: int) -> None:
        super().__init__()
        self.net, self.scale, self.multiple = net, scale, multiple

    def forward(
        self, frames: Tensor, previous: Tensor | None = None, trust: Tensor | None = None
    ) -> Tensor:
        """`(B, 3, H, W)` in [0, 1] to `(B, 3, s H, s W)` in [0, 1]."""
        height, width = frames.shape[-2:]
        if previous is None or trust is None:
            result = self.net(self._extend(frames, height, width))
        else:
            result = self.net(
                self._extend(frames, height, width),
                self._extend(previous, height, width, step=self.scale),
                self._extend(trust, height, width),
            )
        return result.clamp(0, 1)[..., : self.scale * height, : self.scale * width]

    def _extend(self, x: Tensor, height: int, width: int, *, step: int = 1) -> Tensor:
        """Repeat the border; `step` is the number of pixels of `x` per input pixel."""
        multiple = self.multiple
        if multiple == 1:
            return x
        # Extended by the most that can be needed, then cut: lengths that an exporter can prove.
        more = step * (multiple - 1)
        bottom = step * multiple * ((height + multiple - 1) // multiple)
        right = step * multiple * ((width + multiple - 1) // multiple)
        return F.pad(x, (0, more, 0, more), mode="replicate")[..., :bottom, :right]


def make_graph(net: nn.Module, spec: MethodSpec, *, temporal: bool) -> onnx.ModelProto:
    """The network as an ONNX model in float32, for any batch, height and width.

    Args:
        net: the network, see `restore.method.Exportable`; it is not changed.
        spec: what the method declares: its scale and the multiple of its sizes.
        temporal: with the inputs `previous` and `trust` beside `frames`.

    Raises:
        MissingExtraError: the extra `onnx` is not installed.
    """
    require_onnx()
    scale, multiple = spec.scale, spec.size_multiple
    net = copy.deepcopy(net).to("cpu", torch.float32).eval()
    height, width = (multiple * side for side in SIDES)
    example = [torch.rand(2, 3, height, width)]
    if temporal:
        example.append(torch.rand(2, 3, scale * height, scale * width))
        example.append(torch.rand(2, 1, height, width))
    vary = torch.export.Dim.AUTO
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            Graph(net, scale=scale, multiple=multiple),
            tuple(example),
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=[FRAMES, PREVIOUS, TRUST][: len(example)],
            output_names=[RESULT],
            # How the axes of the inputs depend on each other is found while tracing.
            dynamic_shapes=tuple(dict.fromkeys((0, 2, 3), vary) for _ in example),
        )
    assert program is not None  # it is None for exports by TorchScript alone
    model = program.model_proto
    _name_axes(model, scale)
    return model


def _name_axes(model: onnx.ModelProto, scale: int) -> None:
    """Call the axes batch, height and width: the exporter's own names say how it computes them."""
    for value in [*model.graph.input, *model.graph.output]:
        factor = "" if value.name in (FRAMES, TRUST) else f"{scale}*"
        names = ("batch", "", f"{factor}height", f"{factor}width")
        for dim, name in zip(value.type.tensor_type.shape.dim, names, strict=True):
            if name:
                dim.dim_param = name
            elif not dim.dim_value:
                dim.dim_value = 3
    # Shapes inside the graph are written in the old names, and are found again by every reader.
    del model.graph.value_info[:]


def require_onnx() -> None:
    """Raise MissingExtraError unless the packages of the extra `onnx` are installed."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingExtraError(
            f"ONNX needs {', '.join(PACKAGES)}; not installed: {', '.join(missing)}; "
            f"run: {install_command('onnx')}"
        )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's remarks on packages and names that do not concern a user."""
    logs = [logging.getLogger(name) for name in ("torch.onnx", "torch.fx")]
    before = [log.level for log in logs]
    try:
        for log in logs:
            log.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for log, level in zip(logs, before, strict=True):
            log.setLevel(level)
