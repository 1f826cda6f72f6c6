"""`restore models export`: a method's network as an ONNX file, for other programs.

Settings live here and not in `restore.config`, beside the one command that has them. Importing
this module loads no torch.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import restore
from restore.config import EngineConfig, flag
from restore.errors import OptionError, OutputError, RestoreError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from restore.engine import Restorer
    from restore.method import MethodSpec

CHECKED_SIZES = ((37, 50), (96, 64))
"""Heights and widths of the pictures that a new file is tried on; 37 is no multiple of anything."""
LARGEST_DIFFERENCE = 1 / 255
"""Of a float32 graph from PyTorch, anywhere."""
LARGEST_INT8_DIFFERENCE = 2 / 255
"""Of an int8 graph from PyTorch, in the mean."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportConfig:
    """`restore models export`: which network, and into which file."""

    output: str | None = flag(
        None,
        "-o",
        "--output",
        metavar="FILE",
        help="File for the graph; default: the model's name and .onnx, in the current folder.",
    )
    scale: int | None = flag(
        None, "-s", "--scale", help="Take the variant of the model for this scale."
    )
    weights: str | None = flag(
        None, "--weights", metavar="FILE", help="Weight file instead of the model's own."
    )
    fidelity: float | None = flag(
        None, "--fidelity", metavar="0..1", help="As for 'restore image'; fixed in the file."
    )
    denoise: float | None = flag(
        None, "--denoise", metavar="0..1", help="As for 'restore image'; fixed in the file."
    )
    temporal: bool = flag(
        False, "--temporal", help="For clips: with the inputs 'previous' and 'trust'."
    )
    int8: bool = flag(
        False, "--int8", help="Convolutions in 8 bits: faster on CPUs, a quarter of the size."
    )
    overwrite: bool = flag(False, "--overwrite", help="Replace a file that is already there.")

    def __post_init__(self) -> None:
        if self.output is not None and not self.output.endswith(".onnx"):
            raise OptionError(f"the name '{self.output}' is another format's; end it .onnx")


@dataclass(frozen=True, kw_only=True, slots=True)
class Exported:
    """A file that was written."""

    path: Path
    """Where it is."""
    model: str
    """Method that it holds."""
    scale: int
    """Output pixels per input pixel along each side."""
    bytes: int
    """Size of the file."""
    largest: float
    """Largest difference of ONNX Runtime from PyTorch, on pictures in [0, 1]."""
    mean: float
    """Mean difference, likewise."""


def export_onnx(
    model: str, output: str | os.PathLike[str] | None = None, **settings: Any
) -> Exported:
    """Write a method's network as an ONNX file.

    Its input `frames` and its output `result` are RGB `(batch, 3, height, width)`, float32 in
    [0, 1], of any size. A file for clips also takes `previous`, the result of the frame before,
    moved to this one, `(batch, 3, scale * height, scale * width)`, and `trust`, how far that can
    be relied on, `(batch, 1, height, width)` in [0, 1].

    Args:
        model: name in the registry.
        output: file to write; default: the model's name and `.onnx` in the current folder.
        settings: fields of `ExportConfig`, such as `fidelity=0.5`, `temporal=True`.

    Raises:
        OptionError: a setting is not possible, or the method's network cannot be exported.
        OutputError: the file is already there, or cannot be written.
        MissingExtraError: the extra `onnx` is not installed.
        WeightsError: the weights are missing, damaged, unsafe, or of another model.
        RestoreError: ONNX Runtime computes something else than PyTorch; nothing is written.
    """
    unknown = sorted(set(settings) - set(ExportConfig.__dataclass_fields__))
    if unknown:
        allowed = ", ".join(sorted(ExportConfig.__dataclass_fields__))
        raise OptionError(f"unknown setting '{unknown[0]}'; allowed: {allowed}")
    if output is not None:
        settings["output"] = os.fspath(output)
    return export_method(model, ExportConfig(**settings))


def export_method(model: str, config: ExportConfig) -> Exported:
    """As `export_onnx`, with the settings in one piece."""
    from restore.runtimes.onnx_runtime import check_exportable, graph_of

    engine = engine_config(model, config)
    path = Path(f"{engine.model}.onnx" if config.output is None else config.output)
    if path.exists() and not config.overwrite:
        raise OutputError(f"{path} is already there; add --overwrite, or give another name with -o")
    restorer = load_method(engine, config)
    check_exportable(restorer.spec)
    if config.temporal and not restorer.spec.recurrent:
        raise OptionError(
            f"model '{restorer.spec.name}' carries nothing between frames; leave --temporal out"
        )
    net: nn.Module = restorer.method.net  # type: ignore[attr-defined]  # it is exportable
    graph = graph_of(
        net,
        restorer.spec,
        precision="int8" if config.int8 else "fp32",
        temporal=config.temporal,
    )
    content = described(graph, restorer, config)
    largest, mean = compare(content, net, restorer.spec, temporal=config.temporal)
    limit = LARGEST_INT8_DIFFERENCE if config.int8 else LARGEST_DIFFERENCE
    if (mean if config.int8 else largest) > limit:
        raise RestoreError(
            f"ONNX Runtime computes something else than PyTorch (up to {255 * largest:.1f} of 255, "
            f"{255 * mean:.2f} in the mean), so nothing was written; please report it, with the "
            "versions that 'restore doctor' and 'pip list' show"
        )
    write_file(path, content)
    return Exported(
        path=path,
        model=restorer.spec.name,
        scale=restorer.spec.scale,
        bytes=len(content),
        largest=largest,
        mean=mean,
    )


def engine_config(model: str, config: ExportConfig) -> EngineConfig:
    """Settings that load the method, or its variant for the scale, in PyTorch on the CPU."""
    from restore.engine import fitting

    engine = EngineConfig(
        model=model,
        weights=config.weights,
        fidelity=config.fidelity,
        denoise=config.denoise,
        device="cpu",
        dtype="fp32",
    )
    return engine if config.scale is None else fitting(engine, config.scale)


def load_method(engine: EngineConfig, config: ExportConfig) -> Restorer:
    """The method behind an engine, when it has the scale that was asked for."""
    from restore.engine import Restorer

    restorer = Restorer(engine)
    if config.scale not in (None, restorer.spec.scale):
        raise OptionError(
            f"model '{engine.model}' has no variant for x{config.scale}, the nearest is "
            f"x{restorer.spec.scale}; run 'restore models list' to see which there are"
        )
    return restorer


def described(content: bytes, restorer: Restorer, config: ExportConfig) -> bytes:
    """A graph with text in it that says what it is."""
    import onnx

    graph, spec = onnx.load_from_string(content), restorer.spec
    graph.producer_name, graph.producer_version = "restore", restore.__version__
    graph.doc_string = (
        f"{spec.summary}. frames and result: RGB, NCHW, float32, 0 to 1; the result is "
        f"{spec.scale} times as wide and high, for any size."
    )
    about = {
        "model": spec.name,
        "scale": spec.scale,
        "range": "0 to 1",
        "channels": "RGB",
        "precision": "int8" if config.int8 else "fp32",
        "licence": spec.licence,
        "source": spec.source,
        "restore_version": restore.__version__,
        "weights_sha256": restorer.weights_hash,
        "fidelity": "default" if config.fidelity is None else f"{config.fidelity:g}",
        "denoise": "default" if config.denoise is None else f"{config.denoise:g}",
    }
    onnx.helper.set_model_props(graph, {key: str(value) for key, value in about.items()})
    return graph.SerializeToString()


def compare(
    content: bytes, net: nn.Module, spec: MethodSpec, *, temporal: bool
) -> tuple[float, float]:
    """Largest and mean difference of ONNX Runtime from PyTorch, on pictures in [0, 1]."""
    import torch

    from restore.runtimes.graph import FRAMES, PREVIOUS, TRUST, Graph
    from restore.runtimes.onnx_runtime import open_session

    session = open_session(content)
    whole = Graph(net, scale=spec.scale, multiple=spec.size_multiple)
    differences: list[Tensor] = []
    for frames in sample_pictures():
        inputs = [frames]
        if temporal:  # the mirrored result stands for one that does not fit
            inputs += [whole(frames).flip(-1), frames.mean(1, keepdim=True)]
        names = (FRAMES, PREVIOUS, TRUST)
        given = {name: x.numpy() for name, x in zip(names, inputs, strict=False)}
        result = torch.from_numpy(session.run(None, given)[0])
        differences.append((result - whole(*inputs)).abs().flatten())
    everything = torch.cat(differences)
    return float(everything.max()), float(everything.mean())


def sample_pictures() -> Iterator[Tensor]:
    """Pictures of the sizes that a file is tried on, `(1, 3, H, W)` in [0, 1]."""
    import torch

    from restore.runtimes.calibration import make_picture

    generator = torch.Generator().manual_seed(1)  # not those of the calibration
    with torch.inference_mode():
        for height, width in CHECKED_SIZES:
            picture = make_picture(generator, side=max(height, width))
            yield picture[..., :height, :width].contiguous()


def write_file(path: Path, content: bytes) -> None:
    """Write a file in one step; folders on the way are made.

    Raises:
        OutputError: it cannot be written.
    """
    from restore.runtimes.cache import write_whole

    try:
        write_whole(path, content)
    except OSError as error:
        raise OutputError(
            f"{path} cannot be written ({error.strerror}); give another name with -o"
        ) from error
