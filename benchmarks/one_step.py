"""The one-step diffusion methods: time and its shares, peak memory, and whether tiles show.

Takes real weights, or those of `random_weights.py`, whose arithmetic is the same.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from common import machine, parser, table

import restore
from restore.engine import Restorer

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "models"))

from published import picture

EXAMPLES = (
    "python benchmarks/one_step.py -n osediff --weights W --base B --output 512x512 2048x2048",
    "python benchmarks/one_step.py -n osediff --weights W --base B --output 2048x2048 --seams",
)
PARTS = ("encode", "text", "network", "decode")


class Clock:
    """Seconds by the name of what took them."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, float] = defaultdict(float)

    def now(self) -> float:
        """Time, when all that was started on the device is done."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def wrap(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """`call`, timed."""

        def timed(*given: Any, **named: Any) -> Any:
            start = self.now()
            result = call(*given, **named)
            self.seconds[name] += self.now() - start
            return result

        return timed


@contextmanager
def watched(restorer: Restorer) -> Iterator[Clock]:
    """Time the parts of a method while the block runs."""
    clock = Clock(restorer.device)
    method: Any = restorer.method
    places = [
        (getattr(method, "vae", None), "encode", "encode"),
        (getattr(method, "vae", None), "decode", "decode"),
        (getattr(method, "prompts", None), "embed", "text"),
        (getattr(method, "unet", None), "forward", "network"),
    ]
    found = [place for place in places if place[0] is not None and hasattr(place[0], place[1])]
    for owner, name, part in found:
        setattr(owner, name, clock.wrap(part, getattr(owner, name)))
    try:
        yield clock
    finally:
        for owner, name, _ in found:
            delattr(owner, name)


def measure(restorer: Restorer, size: tuple[int, int], *, runs: int) -> list[object]:
    """A row of the table: the fastest of several runs, after one to warm up."""
    width, height = (side // restorer.spec.scale for side in size)
    small = picture(height, width, 1)
    if runs > 1:
        restorer.restore(small)
    if restorer.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    best: tuple[float, dict[str, float]] | None = None
    for _ in range(runs):
        with watched(restorer) as clock:
            start = clock.now()
            restorer.restore(small)
            seconds = clock.now() - start
        if best is None or seconds < best[0]:
            best = seconds, dict(clock.seconds)
    assert best is not None
    shares = [f"{100 * best[1].get(part, 0) / best[0]:.0f} %" for part in PARTS]
    return [f"{size[0]}x{size[1]}", f"{best[0]:.3f} s", *shares, f"{peak(restorer):.1f} GiB"]


def peak(restorer: Restorer) -> float:
    """Largest memory so far, in GiB: of the GPU, else of this process."""
    if restorer.device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def seams(restorer: Restorer, size: tuple[int, int]) -> list[object]:
    """A row: how far tiles are from the whole, and how much a line of pixels stands out.

    The last column compares the largest mean step between two neighbouring rows or columns in the
    difference of the two results with the median of all: a seam would be a line many times that.
    """
    width, height = (side // restorer.spec.scale for side in size)
    small = picture(height, width, 1)
    method: Any = restorer.method
    tiled = restorer.restore(small)
    method.use_tiles(4 * max(width, height))
    whole = restorer.restore(small)
    method.use_tiles(restorer.tile)
    difference = tiled - whole
    steps = torch.cat(
        [
            difference.diff(dim=-1).abs().mean((0, 1, 2)),
            difference.diff(dim=-2).abs().mean((0, 1, 3)),
        ]
    )
    largest, mean = float(difference.abs().max()), float(difference.abs().mean())
    stands_out = float(steps.max() / steps.median().clamp_min(1e-12))
    return [
        f"{size[0]}x{size[1]}",
        f"{255 * mean:.4f}",
        f"{255 * largest:.3f}",
        f"{10 * torch.log10(1 / difference.square().mean().clamp_min(1e-20)):.1f} dB",
        f"{stands_out:.2f}",
    ]


def main() -> int:
    """Measure and print."""
    options = arguments()
    torch.set_num_threads(options.threads or torch.get_num_threads())
    settings = {
        name: value
        for name in ("weights", "base", "tiling", "tags", "posterior")
        if (value := getattr(options, name)) is not None
    }
    start = time.perf_counter()
    restorer = restore.load(
        options.model,
        device=options.device,
        dtype=options.dtype,
        tile=options.tile,
        color_fix="none" if options.seams else "auto",
        **settings,
    )
    print(machine())
    if restorer.device.type == "cuda":
        print(torch.cuda.get_device_name(restorer.device))
    setting = restorer.settings()
    loaded = time.perf_counter() - start
    print(f"{options.model}, {setting['dtype']}, loaded in {loaded:.1f} s; tiles {restorer.tile}\n")
    sizes = [tuple(int(side) for side in text.split("x")) for text in options.output]
    if options.seams:
        header = ["result", "mean |d| of 255", "largest", "PSNR", "line over median"]
        print(table(header, [seams(restorer, (w, h)) for w, h in sizes]))
    else:
        header = ["result", "time", *PARTS, "peak memory"]
        print(table(header, [measure(restorer, (w, h), runs=options.runs) for w, h in sizes]))
    return 0


def arguments() -> argparse.Namespace:
    """The command line."""
    command = parser(__doc__, examples=EXAMPLES)
    command.add_argument("-n", "--model", default="osediff")
    command.add_argument("--weights")
    command.add_argument("--base")
    command.add_argument("--tags", default="a house, grass, sky")
    command.add_argument("--tiling", choices=("exact", "published"))
    command.add_argument("--posterior", choices=("mode", "sample"))
    command.add_argument("--output", nargs="+", default=["512x512"], help="sizes of the result")
    command.add_argument("--device", default="auto")
    command.add_argument("--dtype", default="auto")
    command.add_argument("--tile", type=int, default=0)
    command.add_argument("--threads", type=int, default=0)
    command.add_argument("--runs", type=int, default=1, help="timed runs; above 1, one warms up")
    command.add_argument("--seams", action="store_true", help="compare tiles with the whole")
    return command.parse_args()


if __name__ == "__main__":
    sys.exit(main())
