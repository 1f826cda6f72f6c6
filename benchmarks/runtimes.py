"""What each runtime makes of the networks on this processor: time, and difference from PyTorch.

The network alone, without reading, tiles and writing. The differences are from PyTorch in fp32,
on made pictures; the PSNR is that of restored pictures beside their references, minus that of
PyTorch in fp32. Times are medians; processor times say more on a busy machine.
"""

from __future__ import annotations

import argparse
import io
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from common import machine, parser, table
from PIL import Image
from torch import Tensor, nn

import restore
from restore.errors import RestoreError
from restore.metrics import psnr
from restore.runtimes.calibration import make_picture
from restore.runtimes.graph import FRAMES, PREVIOUS, TRUST
from restore.runtimes.onnx_runtime import OnnxNet, Precision, graph_of

EXAMPLES = (
    "python benchmarks/runtimes.py --threads 2",
    "python benchmarks/runtimes.py --model compact-fast-x2 --only torch onnx",
    "python benchmarks/runtimes.py --lr ../data/realsr/lr --reference ../data/realsr/hr",
)
MODELS = ("compact", "compact-x2", "compact-fast", "compact-fast-x2")
SIZES = ((128, 128), (360, 640))
"""Heights and widths that are timed."""

Run = Callable[..., Tensor]
"""`(frames)` or `(frames, previous, trust)` to the result, all float32."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Model:
    """A network and what it needs to be run elsewhere."""

    restorer: restore.Restorer
    """Loaded in fp32 on the CPU."""
    threads: int
    """For every runtime."""

    @property
    def net(self) -> nn.Module:
        """The network in PyTorch."""
        return self.restorer.method.net  # type: ignore[attr-defined, no-any-return]

    def fresh(self, dtype: torch.dtype, layout: torch.memory_format) -> nn.Module:
        """A copy of it, in another format."""
        other = restore.load(
            self.restorer.config.model,
            weights=self.restorer.config.weights,
            device="cpu",
            dtype="fp32",
        )
        net: nn.Module = other.method.net  # type: ignore[attr-defined]
        return net.to(dtype).to(memory_format=layout)


def eager(dtype: torch.dtype, layout: torch.memory_format) -> Callable[[Model], Run]:
    """PyTorch, line by line."""
    return lambda model: model.fresh(dtype, layout)


def compiled(dtype: torch.dtype) -> Callable[[Model], Run]:
    """PyTorch, with `torch.compile`; needs a C++ compiler."""

    def make(model: Model) -> Run:
        torch._dynamo.reset()
        net = torch.compile(model.fresh(dtype, torch.channels_last), dynamic=False)
        with torch.inference_mode():
            for size in SIZES:
                net(*inputs(model, size, temporal=False))
                net(*inputs(model, size, temporal=True))
        return net  # type: ignore[return-value]

    return make


def onnx_runtime(precision: Precision) -> Callable[[Model], Run]:
    """ONNX Runtime, as `--runtime onnx` uses it."""

    def make(model: Model) -> Run:
        net = OnnxNet(model.net, model.restorer.spec, precision=precision)
        net(*inputs(model, (8, 8), temporal=False))
        net(*inputs(model, (8, 8), temporal=True))
        return net

    return make


def openvino(hint: str, precision: Precision = "fp32") -> Callable[[Model], Run]:
    """OpenVINO, with the same graphs."""

    def make(model: Model) -> Run:
        import openvino

        properties = {
            "INFERENCE_PRECISION_HINT": hint,
            "INFERENCE_NUM_THREADS": model.threads,
            "NUM_STREAMS": 1,
        }
        requests = []
        for temporal in (False, True):
            spec = model.restorer.spec
            graph = graph_of(model.net, spec, precision=precision, temporal=temporal)
            core = openvino.Core()
            network = core.compile_model(core.read_model(io.BytesIO(graph)), "CPU", properties)
            requests.append(network.create_infer_request())

        def run(*given: Tensor) -> Tensor:
            arrays = {
                name: x.numpy() for name, x in zip((FRAMES, PREVIOUS, TRUST), given, strict=False)
            }
            results = requests[len(given) > 1].infer(arrays, share_inputs=True, share_outputs=True)
            return torch.from_numpy(results[0])

        return run

    return make


RUNTIMES: dict[str, Callable[[Model], Run]] = {
    "torch fp32": eager(torch.float32, torch.contiguous_format),
    "torch fp32, channels last": eager(torch.float32, torch.channels_last),
    "torch bf16, channels last": eager(torch.bfloat16, torch.channels_last),
    "torch.compile fp32": compiled(torch.float32),
    "torch.compile bf16": compiled(torch.bfloat16),
    "onnx fp32": onnx_runtime("fp32"),
    "onnx int8": onnx_runtime("int8"),
    "openvino fp32": openvino("f32"),
    "openvino bf16": openvino("bf16"),
    "openvino int8": openvino("f32", "int8"),
}


def inputs(model: Model, size: tuple[int, int], *, temporal: bool) -> tuple[Tensor, ...]:
    """What a network is given: a made picture, and for clips something like its result."""
    height, width = size
    scale = model.restorer.spec.scale
    side = max(height, width)
    frames = make_picture(torch.Generator().manual_seed(0), side=side)[..., :height, :width]
    frames = frames.contiguous()
    if not temporal:
        return (frames,)
    before = nn.functional.interpolate(frames, scale_factor=scale, mode="bilinear")
    return frames, before, torch.full((1, 1, height, width), 0.9)


def timed(run: Run, given: tuple[Tensor, ...], repeats: int) -> str:
    """Median wall time, and processor time in brackets, of some runs after two more."""
    wall, processor = [], []
    for _ in range(2 + repeats):
        start, start_processor = time.perf_counter(), time.process_time()
        run(*given)
        wall.append(time.perf_counter() - start)
        processor.append(time.process_time() - start_processor)
    taken, used = (1000 * statistics.median(values[2:]) for values in (wall, processor))
    return f"{taken:.0f} ({used:.0f})"


def difference(run: Run, exact: Run, given: tuple[Tensor, ...]) -> tuple[float, float]:
    """Largest and mean difference of two runtimes, in steps of 255."""
    off = (run(*given).clamp(0, 1) - exact(*given).clamp(0, 1)).abs()
    return 255 * float(off.max()), 255 * float(off.mean())


def quality(run: Run, pairs: list[tuple[Tensor, Any]]) -> float:
    """Mean PSNR on luma of pictures restored to bytes."""
    found = []
    for low, high in pairs:
        result = run(low)[0].clamp(0, 1).permute(1, 2, 0).numpy()
        found.append(psnr(np.round(255 * result).astype(np.uint8), high))
    return statistics.mean(found)


def picture_pairs(options: argparse.Namespace, scale: int) -> Iterator[tuple[Tensor, Any]]:
    """Pictures, of even sizes, with their references shrunk to the size of the result."""
    names = sorted(path for path in options.reference.iterdir() if path.is_file())
    for path in names[:: options.every]:
        low = np.array(Image.open(options.lr / path.name).convert("RGB"))
        low = low[: low.shape[0] // 2 * 2, : low.shape[1] // 2 * 2]
        high = np.array(Image.open(path).convert("RGB"))
        size = (scale * low.shape[1], scale * low.shape[0])
        high = cv2.resize(high, size, interpolation=cv2.INTER_AREA)
        yield torch.from_numpy(low).permute(2, 0, 1)[None].float().div(255).contiguous(), high


def rows(name: str, options: argparse.Namespace) -> Iterator[list[str]]:
    """Measure one network in every runtime that is here."""
    restorer = restore.load(name, weights=options.weights, device="cpu", dtype="fp32")
    model = Model(restorer=restorer, threads=torch.get_num_threads())
    exact = RUNTIMES["torch fp32"](model)
    pairs = list(picture_pairs(options, restorer.spec.scale)) if options.lr else []
    with torch.inference_mode():
        best = quality(exact, pairs) if pairs else 0.0
    for runtime, make in RUNTIMES.items():
        if options.only and not any(runtime.startswith(start) for start in options.only):
            continue
        print(f"{name}: {runtime}", file=sys.stderr)
        try:
            start = time.perf_counter()
            with torch.inference_mode():
                run = make(model)
                ready = time.perf_counter() - start
                yield [name, runtime, f"{ready:.1f}", *measured(model, run, exact, options)] + (
                    [f"{quality(run, pairs) - best:+.3f}"] if pairs else []
                )
        except (ImportError, RuntimeError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:60]
            yield [name, runtime, f"not here: {reason}"] + [""] * (6 if pairs else 5)


def measured(model: Model, run: Run, exact: Run, options: argparse.Namespace) -> list[str]:
    """Times of pictures and of a frame in a clip, and differences."""
    repeats = options.repeats
    times = [timed(run, inputs(model, size, temporal=False), repeats) for size in SIZES]
    clip = inputs(model, SIZES[-1], temporal=True)
    times.append(timed(run, clip, repeats))
    picture = difference(run, exact, inputs(model, SIZES[0], temporal=False))
    return [*times, f"{picture[0]:.2f}", f"{picture[1]:.3f}"]


def arguments() -> argparse.Namespace:
    """The command line."""
    take = parser(__doc__, examples=EXAMPLES)
    take.add_argument("--threads", type=int, help="threads of every runtime (default: PyTorch's)")
    take.add_argument("--model", nargs="+", default=MODELS, help="methods (default: all)")
    take.add_argument("--weights", help="weight file instead of the model's own")
    take.add_argument("--only", nargs="+", help="runtimes that begin with one of these")
    take.add_argument("--repeats", type=int, default=5, help="runs counted (default 5)")
    take.add_argument("--lr", type=Path, help="folder of pictures for the loss in PSNR")
    take.add_argument("--reference", type=Path, help="folder of their references, by name")
    take.add_argument("--every", type=int, default=5, help="take every so many (default 5)")
    options = take.parse_args()
    if (options.lr is None) != (options.reference is None):
        take.error("--lr and --reference belong together")
    if options.repeats < 1 or options.every < 1:
        take.error("--repeats and --every are 1 or more")
    return options


def main() -> int:
    """0 = measured, 1 = could not."""
    options = arguments()
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # as the program does
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    print(f"{machine()}; {torch.get_num_threads()} threads\n")
    header = ["model", "runtime", "ready s"]
    header += [f"{width}x{height} ms" for height, width in SIZES] + ["in a clip ms", "max", "mean"]
    try:
        lines = [row for name in options.model for row in rows(name, options)]
    except RestoreError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(table([*header, *(["PSNR"] if options.lr else [])], lines))
    print("\nms: wall (processor); max, mean: difference from torch fp32 in steps of 255")
    return 0


if __name__ == "__main__":
    sys.exit(main())
