"""FlashVSR's speed and memory at full size, with random weights made on the device.

What comes out is no picture, but every shape and multiplication is the published model's. Frames a
second are those of later chunks, eight frames each, from frames on the device to frames with their
colours fixed on the device; files are read and written elsewhere. The shares are from runs of their
own, plain and with clocks in them.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from common import machine, parser, table
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "models"))

from published_flashvsr import FULL, TINY, FlashSize

from restore.color import adain
from restore.models.parts.flashvsr import dit as dit_module
from restore.models.parts.flashvsr.clip import FlashClip, Networks, Plan
from restore.models.parts.flashvsr.dit import DitShape, FlashDiT
from restore.models.parts.flashvsr.enlarge import SCALE, Frame
from restore.models.parts.flashvsr.lq_projection import LQProjection
from restore.models.parts.flashvsr.tiny_decoder import TinyDecoder
from restore.models.parts.flashvsr.wan_vae import WanDecoder

EXAMPLES = (
    "python benchmarks/flashvsr.py",
    "python benchmarks/flashvsr.py --output 768x1408 --sparse-ratio 1.5 --decoder full",
    "python benchmarks/flashvsr.py --size tiny --device cpu --dtype fp32 --output 128x256",
)
SELECTION = ("pooled", "flat_topk", "from_mask", "to_slots")
PARTS = ("enlarge", "LQ projection", "selection", "attention", "rest of DiT", "decode", "colour")
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
FIRST, LATER = 25, 8  # frames that a chunk takes


class Clock:
    """Sums the times that parts take, on a GPU by its own clock and without waiting for it."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._spans: dict[str, list[tuple[Any, Any]]] = defaultdict(list)

    def now(self) -> Any:
        """A moment."""
        if self._device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def timed(self, part: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """`call`, whose time counts for `part`."""

        def run(*args: Any, **settings: Any) -> Any:
            start = self.now()
            result = call(*args, **settings)
            self._spans[part].append((start, self.now()))
            return result

        return run

    def totals(self) -> dict[str, float]:
        """Milliseconds by part; the counting then starts again."""
        if self._device.type == "cuda":
            torch.cuda.synchronize()
            sums = {
                part: sum(a.elapsed_time(b) for a, b in spans)
                for part, spans in self._spans.items()
            }
        else:
            sums = {
                part: 1000 * sum(b - a for a, b in spans) for part, spans in self._spans.items()
            }
        self._spans.clear()
        return sums


def main() -> int:
    """Measure and print."""
    options = arguments()
    torch.set_num_threads(options.threads or torch.get_num_threads())
    device = torch.device(options.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    size = FULL if options.size == "full" else TINY
    plan = Plan(sparse_ratio=options.sparse_ratio, local_range=options.local_range)
    print(machine())
    if device.type == "cuda":
        print(torch.cuda.get_device_name(device))
    with torch.inference_mode():
        start = time.perf_counter()
        nets = networks(size, options, device)
        seconds = time.perf_counter() - start
        text = ", ".join(f"{name} {value}" for name, value in asdict(plan).items())
        print(f"{options.size} size, version {options.version}, {options.dtype}, {text}")
        print(f"networks made in {seconds:.1f} s\n")
        speeds, shares = [], []
        for text in options.output:
            height, width = (int(side) for side in text.split("x"))
            frame = Frame(height=height // SCALE, width=width // SCALE, tiling="exact")
            for name, way in ways(plan, device, options.compile):
                nets.dit.compile_blocks("compiled" in name)
                row = speed(nets, frame, way, chunks=options.chunks)
                speeds.append([text, name, *row])
            nets.dit.compile_blocks(False)
            shares.append([text, *parts(nets, frame, plan, chunks=options.chunks)])
    print(table(["result", "way", "first chunk", "a chunk", "frames/s", "peak memory"], speeds))
    print()
    print(table(["result", *PARTS, "sum"], shares))
    return 0


def ways(plan: Plan, device: torch.device, compiled: bool) -> Iterator[tuple[str, Plan]]:
    """How the network can be run here."""
    yield "plain", plan
    if device.type == "cuda":
        yield "graph", replace(plan, graphs=True)
        yield "graph, overlap", replace(plan, graphs=True, overlap=True)
    if compiled:
        yield "compiled, graph, overlap", replace(plan, graphs=True, overlap=True)


def networks(size: FlashSize, options: argparse.Namespace, device: torch.device) -> Networks:
    """All networks, with random weights."""
    dtype = DTYPES[options.dtype]
    with torch.device("meta"):
        shape = DitShape(
            dim=size.dim, layers=size.layers, heads=size.heads, ffn=size.ffn, text=size.text
        )
        dit = FlashDiT(shape)
        lq = LQProjection((*size.lq, size.dim), version=options.version)
        decoder: Any = None
        if options.decoder == "tiny":
            decoder = TinyDecoder(channels=size.decoder)
    dit, lq = (filled(net, device, dtype) for net in (dit, lq))
    if device.type == "cuda":
        lq.channels_last()
    if decoder is None:
        decoder = WanDecoder() if size is FULL else WanDecoder(base_channels=16)
    decoder = filled(decoder, device, dtype)
    if options.decoder == "tiny":
        decoder.fuse()
    prompt = torch.randn(1, size.words, size.text, device=device, dtype=dtype)
    return Networks(
        dit=dit,
        lq=lq,
        decoder=decoder,
        condition=dit.condition(prompt),
        device=device,
        dtype=dtype,
    )


def filled(net: Any, device: torch.device, dtype: torch.dtype) -> Any:
    """A network without memory, on the device, with weights of about unit gain."""
    net = net.to(dtype).to_empty(device=device).eval().requires_grad_(False)
    torch.manual_seed(0)
    for name, weight in net.named_parameters():
        if weight.ndim > 1 and not name.endswith(("modulation", "gamma")):
            nn.init.normal_(weight, std=weight[0].numel() ** -0.5)
        elif name.endswith(("weight", "gamma")):
            nn.init.ones_(weight)
        else:
            nn.init.normal_(weight, std=0.1)
    return net


def speed(nets: Networks, frame: Frame, plan: Plan, *, chunks: int) -> list[str]:
    """First chunk and a later one in milliseconds, frames a second, peak memory."""
    cuda = nets.device.type == "cuda"
    if cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    clip = FlashClip(nets, frame, seed=0, plan=plan)
    pictures = random_frames(frame, nets.device)
    first = timed(nets.device, lambda: chunk(clip, frame, pictures, FIRST))
    for _ in range(3):  # kernels are chosen, the graph is recorded
        chunk(clip, frame, pictures, LATER)
    times = [timed(nets.device, lambda: chunk(clip, frame, pictures, LATER)) for _ in range(chunks)]
    memory = f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB" if cuda else "-"
    typical = median(times)
    return [f"{first:.0f} ms", f"{typical:.1f} ms", f"{1000 * LATER / typical:.2f}", memory]


def parts(nets: Networks, frame: Frame, plan: Plan, *, chunks: int) -> list[str]:
    """Milliseconds that each part of a later chunk takes, and its share."""
    clock = Clock(nets.device)
    with clocks(clock, nets):
        clip = FlashClip(nets, frame, seed=0, plan=plan)
        pictures = random_frames(frame, nets.device)
        chunk(clip, frame, pictures, FIRST, clock=clock)
        chunk(clip, frame, pictures, LATER, clock=clock)
        clock.totals()
        for _ in range(chunks):
            chunk(clip, frame, pictures, LATER, clock=clock)
        sums = clock.totals()
    sums["rest of DiT"] = sums.pop("DiT") - sums["selection"] - sums["attention"]
    each = {part: sums[part] / chunks for part in PARTS}
    total = sum(each.values())
    return [f"{ms:.1f} ms ({ms / total:.0%})" for ms in each.values()] + [f"{total:.1f} ms"]


@contextmanager
def clocks(clock: Clock, nets: Networks) -> Iterator[None]:
    """Clocks in the networks, for as long as this lasts."""
    module: Any = dit_module
    originals = {name: getattr(module, name) for name in (*SELECTION, "block_sparse_attention")}
    enlarge = Frame.enlarge
    owners: list[tuple[Any, str, str]] = [
        (nets.lq, "forward", "LQ projection"),
        (nets.dit, "forward", "DiT"),
        (nets.decoder, "decode", "decode"),
    ]
    try:
        for name, call in originals.items():
            part = "selection" if name in SELECTION else "attention"
            setattr(module, name, clock.timed(part, call))
        for owner, name, part in owners:
            setattr(owner, name, clock.timed(part, getattr(owner, name)))
        Frame.enlarge = clock.timed("enlarge", enlarge)  # type: ignore[method-assign]
        yield
    finally:
        Frame.enlarge = enlarge  # type: ignore[method-assign]
        for owner, name, _ in owners:
            delattr(owner, name)
        for name, call in originals.items():
            setattr(module, name, call)


def chunk(
    clip: FlashClip, frame: Frame, pictures: Tensor, count: int, *, clock: Clock | None = None
) -> None:
    """`count` frames into a clip, and colours for those that come out."""
    fix = adain if clock is None else clock.timed("colour", adain)
    for i in range(count):
        results = clip.push(pictures[i % len(pictures)])
        for result in results.split(LATER) if len(results) else ():
            style = frame.enlarge(pictures[0])[None].expand(len(result), -1, -1, -1)
            fix(result, style)


def random_frames(frame: Frame, device: torch.device) -> Tensor:
    """Eight frames of noise, `(8, 3, H, W)` in [0, 1]."""
    return torch.rand(LATER, 3, frame.height, frame.width, device=device)


def timed(device: torch.device, run: Callable[[], None]) -> float:
    """Milliseconds, with everything that was begun finished."""
    synchronize = torch.cuda.synchronize if device.type == "cuda" else (lambda: None)
    synchronize()
    start = time.perf_counter()
    run()
    synchronize()
    return 1000 * (time.perf_counter() - start)


def arguments() -> argparse.Namespace:
    """The command line."""
    command = parser(__doc__, examples=EXAMPLES)
    command.add_argument("--size", choices=("tiny", "full"), default="full", help="of the networks")
    command.add_argument("--version", choices=("1", "1.1"), default="1.1")
    command.add_argument("--decoder", choices=("tiny", "full"), default="tiny")
    command.add_argument(
        "--output", nargs="+", default=["768x1408", "1152x1920"], help="HEIGHTxWIDTH of the result"
    )
    command.add_argument("--sparse-ratio", type=float, default=2.0)
    command.add_argument("--local-range", type=int, default=11)
    command.add_argument("--device", help="default: cuda where there is one")
    command.add_argument("--dtype", choices=DTYPES, default="bf16")
    command.add_argument("--threads", type=int, default=0)
    command.add_argument("--chunks", type=int, default=8, help="timed chunks")
    command.add_argument("--compile", action="store_true", help="also with torch.compile")
    return command.parse_args()


if __name__ == "__main__":
    sys.exit(main())
