"""How fast pictures and clips are restored, on the processor of this machine.

A picture: median time of `restorer.restore` after warm-up. A clip: wall time of
`restore.restore_video`, beside the time inside the network while decoder and encoder work on the
same cores, and beside what as many frames of that size take when nothing else runs; in both, the
motion from frame to frame is counted to the network. Each method is run in each of `--run`.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import machine, parser, table
from odd_clips import RATE, Clip, write

import restore
from restore.errors import RestoreError
from restore.runtimes.calibration import make_picture
from restore.streaming import FrameStream

EXAMPLES = (
    "python benchmarks/speed.py --threads 2",
    "python benchmarks/speed.py --model compact compact-fast --run torch:fp32 torch:bf16 onnx",
    "python benchmarks/speed.py --clip ../shared/data/video/bottle-detection.mp4 --seconds 1",
    "python benchmarks/speed.py --size 256 --repeats 20 --no-clip",
)


def time_picture(
    restorer: Any, *, size: int, warm_up: int, repeats: int
) -> tuple[list[float], list[float]]:
    """Wall and processor seconds of each restoration of a square picture, after a warm-up."""
    picture = np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)
    wall, processor = [], []
    for _ in range(warm_up + repeats):
        start, start_processor = time.perf_counter(), time.process_time()
        restorer.restore(picture)
        wall.append(time.perf_counter() - start)
        processor.append(time.process_time() - start_processor)
    return wall[warm_up:], processor[warm_up:]


def picture_row(restorer: Any, options: argparse.Namespace) -> list[str]:
    """Measure a picture."""
    taken, processor = time_picture(
        restorer, size=options.size, warm_up=options.warm_up, repeats=options.repeats
    )
    large = options.size * restorer.spec.scale
    return [
        *named(restorer),
        f"{options.size}x{options.size} -> {large}x{large}",
        str(len(taken)),
        f"{statistics.median(taken):.3f} s",
        f"{min(taken):.3f} s",
        f"{max(taken):.3f} s",
        f"{statistics.median(processor):.3f} s",
    ]


def named(restorer: Any) -> list[str]:
    """What was measured: the method, and how it was run."""
    settings = restorer.settings()
    return [str(settings["model"]), f"{settings['runtime']} {settings['dtype']}"]


def clip_row(restorer: Any, source: Path, options: argparse.Namespace) -> list[str]:
    """Measure a clip."""
    time_frame(restorer, width=32, height=32)  # graphs that are made once are made now
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / f"result{source.suffix}"
        start = time.perf_counter()
        end = None if options.seconds is None else str(options.seconds)
        result = restore.restore_video(source, target, restorer=restorer, end=end)
        total = time.perf_counter() - start
    scale = restorer.spec.scale
    alone = result.frames * time_frame(
        restorer, width=result.width // scale, height=result.height // scale
    )
    return [
        *named(restorer),
        source.name,
        str(result.frames),
        f"{total:.2f} s",
        f"{result.network_seconds:.2f} s",
        f"{alone:.2f} s",
        f"{total / result.network_seconds:.3f}",
        f"{total / alone:.3f}",
        f"{result.frames / total:.2f}",
    ]


def time_frame(restorer: Any, *, width: int, height: int, repeats: int = 5) -> float:
    """Median seconds of one frame of a moving clip, the first two not counted."""
    side = max(width, height)
    scene = make_picture(torch.Generator().manual_seed(0), side=side)[0, :, :height, :width]
    stream = FrameStream(restorer)
    taken = []
    for index in range(2 + repeats):
        start = time.perf_counter()
        stream.push(scene.roll(index, -1), index)
        taken.append(time.perf_counter() - start)
    return statistics.median(taken[2:])


def load() -> str:
    """How busy the machine is: with other work on it, wall times say little."""
    if not hasattr(os, "getloadavg"):
        return "load unknown"
    return f"load of the last minute {os.getloadavg()[0]:.1f}"


def own_clip(folder: Path) -> Path:
    """Three seconds of 160x96 with sound, for a machine without footage."""
    path = folder / "made-160x96.mp4"
    times = tuple(Fraction(i, RATE) for i in range(3 * RATE))
    write(path, Clip(width=160, height=96, times=times))
    return path


def arguments() -> argparse.Namespace:
    """The command line."""
    take = parser(__doc__, examples=EXAMPLES)
    take.add_argument("--threads", type=int, help="threads of PyTorch (default: its own choice)")
    take.add_argument("--model", nargs="+", default=["compact"], help="methods (default compact)")
    take.add_argument(
        "--run",
        nargs="+",
        default=["torch"],
        metavar="RUNTIME[:DTYPE]",
        help="such as torch, torch:fp32, onnx:int8 (default torch)",
    )
    take.add_argument("--weights", help="weight file instead of the model's own")
    take.add_argument("--device", default="cpu", help="cpu, cuda, mps (default cpu)")
    take.add_argument("--size", type=int, default=128, help="side of the picture (default 128)")
    take.add_argument("--warm-up", type=int, default=3, help="runs not counted (default 3)")
    take.add_argument("--repeats", type=int, default=10, help="runs counted (default 10)")
    take.add_argument(
        "--clip", type=Path, nargs="*", help="clips to restore (default: one is made)"
    )
    take.add_argument("--seconds", type=float, help="only the first seconds of each clip")
    take.add_argument("--no-clip", action="store_true", help="measure the picture alone")
    options = take.parse_args()
    if options.repeats < 1 or options.warm_up < 0 or options.size < 1:
        take.error("--repeats and --size are 1 or more, --warm-up 0 or more")
    return options


def run(options: argparse.Namespace) -> None:
    """Measure and print."""
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # as the program does
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    print(machine())
    print(f"{options.device}, {torch.get_num_threads()} threads; {load()}\n")
    restorers = [
        restore.load(
            model,
            weights=options.weights,
            device=options.device,
            runtime=name.partition(":")[0],
            dtype=name.partition(":")[2] or "auto",
        )
        for model in options.model
        for name in options.run
    ]
    header = ("model", "run", "picture", "runs", "median", "fastest", "slowest", "processor time")
    print(table(header, [picture_row(restorer, options) for restorer in restorers]))
    if options.no_clip:
        return
    with tempfile.TemporaryDirectory() as folder:
        clips = options.clip or [own_clip(Path(folder))]
        rows = [clip_row(restorer, clip, options) for clip in clips for restorer in restorers]
    print()
    names = ("model", "run", "clip", "frames", "total", "network", "alone")
    print(table((*names, "total / network", "total / alone", "fps"), rows))


def main() -> int:
    """0 = measured, 1 = could not."""
    try:
        run(arguments())
    except RestoreError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
