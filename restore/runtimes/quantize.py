"""Convolutions of an ONNX graph in whole numbers of 8 bits.

Weights have a scale for each output channel, values between the layers one scale and an offset
for each layer, from the range that they take on sample inputs (Jacob et al., "Quantization and
Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference", CVPR 2018, equation
1). Convolutions that read few channels see the picture itself: they stay in float32, cost little,
and keep smooth grounds smooth.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import onnx

FEW_CHANNELS = 16
"""Convolutions that read fewer channels than this stay in float32."""


def quantize(graph: bytes, inputs: Iterable[Mapping[str, np.ndarray[Any, Any]]]) -> bytes:
    """The same ONNX file with its convolutions in 8 bits.

    Args:
        graph: in float32.
        inputs: samples of what it is given, arrays by input name.
    """
    import onnx
    from onnxruntime import quantization

    model = onnx.load_from_string(graph)
    # Nothing is left to prepare: it has no layers that could be merged. This says so.
    onnx.helper.set_model_props(model, {"onnx.quant.pre_process": "onnxruntime.quant"})
    with tempfile.TemporaryDirectory(prefix="restore-") as folder:
        source, target = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        onnx.save(model, str(source))
        quantization.quantize_static(
            str(source),
            str(target),
            _reader(inputs),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=["Conv"],
            nodes_to_exclude=_left_in_float(model),
            per_channel=True,
            # 7 bits: processors without VNNI add pairs of products in 16 bits, which overflow
            # with more, and the result is as good.
            reduce_range=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
        )
        return target.read_bytes()


def _left_in_float(model: onnx.ModelProto) -> list[str]:
    """Names of the convolutions that read few channels."""
    weights = {tensor.name: tensor.dims for tensor in model.graph.initializer}
    return [
        node.name
        for node in model.graph.node
        if node.op_type == "Conv" and weights[node.input[1]][1] < FEW_CHANNELS
    ]


def _reader(inputs: Iterable[Mapping[str, np.ndarray[Any, Any]]]) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    waiting = iter(inputs)

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> Any:
            return next(waiting, None)

    return Reader()
