"""Block-sparse attention beside dense attention: how much of the ideal each backend reaches.

The ideal is the fastest dense attention of this machine with only the listed share of its work:
f = T_dense * density / T_sparse, at FlashVSR's sizes. `f kernel` is the attention alone, `f op`
with the choice of the blocks and the making of the lists. Without a GPU tiny sizes show the path.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch._dynamo
from common import machine, parser, table
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from restore.attention import (
    BACKENDS,
    BlockLists,
    from_mask,
    local_window,
    selection,
    triton_backward,
    triton_forward,
)
from restore.attention.lists import transposed
from restore.attention.reference import forward as reference
from restore.attention.triton_launch import Tiles, why_not

EXAMPLES = (
    "python benchmarks/attention.py                      # every size, every backend there",
    "python benchmarks/attention.py --backend triton cudnn --quick",
    "python benchmarks/attention.py --sweep              # tiles of the Triton forward",
    "python benchmarks/attention.py --device cpu --backend cpu reference",
)
BLOCK = 128
GROUPS = 4  # temporal windows of keys that a chunk of queries sees
HEADS = 12
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
Call = Callable[[int], object]


@dataclass(frozen=True, kw_only=True)
class Size:
    """One chunk of FlashVSR: blocks of one temporal window, and the share of pairs it keeps."""

    name: str
    rows: int
    columns: int
    density: float

    @property
    def blocks(self) -> int:
        """Query blocks; there are four times as many key blocks."""
        return self.rows * self.columns


SIZES = (
    Size(name="768x1280", rows=6, columns=10, density=0.50),
    Size(name="1152x1920", rows=9, columns=15, density=0.22),
    Size(name="1536x2560", rows=12, columns=20, density=0.125),
    Size(name="2176x3840", rows=17, columns=30, density=0.06),
)
TINY = (Size(name="tiny", rows=2, columns=3, density=0.25),)


@dataclass(frozen=True, kw_only=True)
class Clip:
    """Random tensors of one size, in several sets, so that no run finds its input in the cache."""

    size: Size
    sets: list[tuple[Tensor, Tensor, Tensor]]
    lists: dict[str, BlockLists]
    choose: dict[str, Callable[[int], BlockLists]]


def clip(size: Size, channels: int, heads: int, dtype: torch.dtype, device: torch.device) -> Clip:
    """Tensors whose blocks differ in their means, as those of pictures do."""
    generator = torch.Generator(device).manual_seed(0)

    def tokens(blocks: int) -> Tensor:
        shape = (1, heads, blocks, BLOCK, channels)
        noise = torch.randn(shape, generator=generator, device=device, dtype=dtype)
        means = torch.randn(
            (*shape[:3], 1, channels), generator=generator, device=device, dtype=dtype
        )
        return (noise + 0.5 * means).flatten(2, 3)

    bytes_each = heads * size.blocks * BLOCK * channels * dtype.itemsize * (1 + 2 * GROUPS)
    number = max(1, min(3, int(2e9 / bytes_each)))
    sets = [
        (tokens(size.blocks), tokens(size.blocks * GROUPS), tokens(size.blocks * GROUPS))
        for _ in range(number)
    ]
    window = local_window(size.rows, size.columns, 11, device)
    pairs = size.blocks * size.blocks * GROUPS

    def means(i: int) -> tuple[Tensor, Tensor]:
        q, k, _ = sets[i % number]
        return selection.pooled(q), selection.pooled(k)

    def even(i: int) -> BlockLists:
        topk = max(1, round(size.density * size.blocks * GROUPS))
        return from_mask(selection.row_topk(*means(i), topk=topk))

    def uneven(i: int) -> BlockLists:
        topk = max(1, int(size.density * pairs) - 1)
        return from_mask(selection.flat_topk(*means(i), local=window, topk=topk))

    choose = {"even": even, "uneven": uneven}
    return Clip(
        size=size, sets=sets, choose=choose, lists={name: c(0) for name, c in choose.items()}
    )


def seconds(call: Call, device: torch.device, runs: int) -> float:
    """Median time of `call(i)`; on CUDA by events, so that host work hides as it does in use."""
    for i in range(2 if device.type == "cuda" else 1):
        call(i)
    if device.type != "cuda":
        found = []
        for i in range(runs):
            start = time.perf_counter()
            call(i)
            found.append(time.perf_counter() - start)
        return statistics.median(found)
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(runs + 1)]
    torch.cuda.synchronize(device)
    marks[0].record()
    for i in range(runs):
        call(i)
        marks[i + 1].record()
    torch.cuda.synchronize(device)
    return statistics.median(a.elapsed_time(b) for a, b in itertools.pairwise(marks)) / 1e3


def dense_calls(clip: Clip) -> Iterator[tuple[str, Call]]:
    """Every dense attention of this machine, by name."""
    kinds = {
        "cudnn": SDPBackend.CUDNN_ATTENTION,
        "flash": SDPBackend.FLASH_ATTENTION,
        "efficient": SDPBackend.EFFICIENT_ATTENTION,
    }
    for name, kind in kinds.items():

        def sdpa(i: int, kind: SDPBackend = kind) -> Tensor:
            with sdpa_kernel(kind):
                return F.scaled_dot_product_attention(*clip.sets[i % len(clip.sets)])

        yield f"sdpa {name}", sdpa
    for name, module in (("fa3", "flash_attn_interface"), ("fa4", "flash_attn.cute")):
        try:
            program = __import__(module, fromlist=["flash_attn_func"]).flash_attn_func
        except ImportError:
            continue

        def flash(i: int, program: Callable[..., object] = program) -> object:
            return program(*(t.transpose(1, 2) for t in clip.sets[i % len(clip.sets)]))

        yield name, flash


def one_line(error: BaseException) -> str:
    """What went wrong, short enough for a row."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:90]


def fastest_dense(clip: Clip, device: torch.device, runs: int) -> tuple[str, float]:
    """Name and time of the dense attention that the others are held against."""
    found: dict[str, float] = {}
    for name, call in dense_calls(clip):
        try:
            found[name] = seconds(call, device, runs)
        except (RuntimeError, TypeError) as error:
            print(f"  {name}: {one_line(error)}")
    if not found:
        raise SystemExit("no dense attention runs here; nothing to compare with")
    print("  dense:", ", ".join(f"{n} {t * 1e3:.3f} ms" for n, t in sorted(found.items())))
    best = min(found, key=lambda name: found[name])
    return best, found[best]


def work(clip: Clip, lists: BlockLists) -> tuple[float, float, float]:
    """FLOP of the listed blocks, their share of all, and the longest list over the mean."""
    q, k, _ = clip.sets[0]
    counts = lists.count.double()
    share = float(counts.mean()) / (k.shape[2] // BLOCK)
    flop = 4.0 * q.shape[1] * q.shape[2] * k.shape[2] * q.shape[3] * share
    return flop, share, float(counts.max() / counts.mean())


def error_of(out: Tensor, clip: Clip, lists: BlockLists) -> float:
    """Rel. L2 against the reference on a few rows of one head."""
    q, k, v = (t[:, :1].float() for t in clip.sets[0])
    some = min(4, clip.size.blocks)
    want, _ = reference(
        q[:, :, : some * BLOCK], k, v, lists.count[:, :1, :some], lists.index[:, :1, :some],
        block=BLOCK, kv_valid=None, scale=q.shape[-1] ** -0.5,
    )  # fmt: skip
    got = out[:, :1, : some * BLOCK].float()
    return float((got - want).norm() / want.norm())


def measure(
    name: str, clip: Clip, counts: str, dense: float, device: torch.device, runs: int
) -> list[object]:
    """One row of the table."""
    lists = clip.lists[counts]
    flop, share, spread = work(clip, lists)
    scale = clip.sets[0][0].shape[-1] ** -0.5

    def attention(i: int, lists: BlockLists = lists) -> Tensor:
        q, k, v = clip.sets[i % len(clip.sets)]
        return BACKENDS[name].forward(
            q, k, v, lists.count, lists.index, block=BLOCK, kv_valid=None, scale=scale
        )[0]

    error = error_of(attention(0), clip, lists)
    kernel = seconds(attention, device, runs)
    op = seconds(lambda i: attention(i, clip.choose[counts](i)), device, runs)
    return [
        clip.size.name, clip.sets[0][0].shape[-1], counts, f"{share:.3f}", f"{spread:.2f}", name,
        f"{kernel * 1e3:.3f}", f"{flop / kernel / 1e12:.4g}", f"{dense * share / kernel:.3f}",
        f"{dense * share / op:.3f}", f"{error:.1e}",
    ]  # fmt: skip


HEADER = (
    "size", "D", "counts", "density", "max/mean", "backend", "ms", "TFLOP/s", "f kernel", "f op",
    "error",
)  # fmt: skip


def compare(options: argparse.Namespace, device: torch.device) -> None:
    """The table of all sizes and backends."""
    rows: list[list[object]] = []
    for channels, size in itertools.product(options.channels, options.sizes):
        made = clip(size, channels, options.heads, DTYPES[options.dtype], device)
        print(f"{size.name}, D {channels}")
        _, dense = fastest_dense(made, device, options.runs)
        for counts, name in itertools.product(("even", "uneven"), options.backend):
            reason = BACKENDS[name].why_not(made.sets[0][0])
            if reason is not None:
                print(f"  {name}: {reason}")
                continue
            try:
                rows.append(measure(name, made, counts, dense, device, options.runs))
                print("  ", *rows[-1], flush=True)
            except Exception as error:  # a backend that fails must not cost the others' numbers
                print(f"  {name}, {counts}: {one_line(error)}", flush=True)
        if options.backward:
            backward(made, device, options.runs)
        del made
    print()
    print(table(HEADER, rows))


def backward(clip: Clip, device: torch.device, runs: int) -> None:
    """Time of Triton's gradients, which do 2.5 times the forward's work."""
    q, k, v = clip.sets[0]
    if why_not(q) is not None:
        return
    lists = clip.lists["uneven"]
    other = transposed(lists, k.shape[2] // BLOCK)
    options = {"block": BLOCK, "kv_valid": None, "scale": q.shape[-1] ** -0.5}
    out, lse = triton_forward.forward(q, k, v, lists.count, lists.index, **options)
    taken = seconds(
        lambda i: triton_backward.backward(
            out, q, k, v, out, lse, lists.count, lists.index, other.count, other.index, **options
        ),
        device, runs,
    )  # fmt: skip
    flop = 2.5 * work(clip, lists)[0]
    print(f"  triton backward: {taken * 1e3:.3f} ms, {flop / taken / 1e12:.4g} TFLOP/s")


def candidates(channels: int, quick: bool) -> Iterator[Tiles]:
    """Tiles worth a try: what fits an H100, without those that ptxas serialises."""
    for ahead, n, stages in itertools.product((True, False), (64, 128), (2, 3, 4)):
        yield Tiles(m=128, n=n, warps=8, stages=stages, ahead=ahead)
        if quick:
            continue
        yield Tiles(m=64, n=n, warps=4, stages=stages, ahead=ahead)
        if channels == 64:
            yield Tiles(m=128, n=n, warps=4, stages=stages, ahead=ahead)
    if not quick:
        yield Tiles(m=128, n=64, warps=8, stages=3, registers=168)
        yield Tiles(m=128, n=64, warps=8, stages=3, registers=128)


def sweep(options: argparse.Namespace, device: torch.device) -> None:
    """Times of the Triton forward for many tiles, and the best of each head size."""
    for channels, size in itertools.product(options.channels, options.sizes[:1]):
        made = clip(size, channels, options.heads, DTYPES[options.dtype], device)
        reason = why_not(made.sets[0][0])
        if reason is not None:
            raise SystemExit(f"nothing to sweep: {reason}")
        print(f"{size.name}, D {channels}")
        _, dense = fastest_dense(made, device, options.runs)
        lists = made.lists["uneven"]
        flop, share, _ = work(made, lists)
        found: list[tuple[float, Tiles]] = []
        tried = itertools.islice(candidates(channels, options.quick), options.limit)
        for tiles in tried:

            def call(i: int, tiles: Tiles = tiles) -> object:
                return triton_forward.launch(
                    *made.sets[i % len(made.sets)], lists.count, lists.index,  # noqa: B023
                    block=BLOCK, kv_valid=None, scale=channels**-0.5, tiles=tiles,  # noqa: B023
                )  # fmt: skip

            try:
                found.append((seconds(call, device, options.runs), tiles))
            except Exception as error:  # too much shared memory, most of all
                print(f"  {tiles}: {one_line(error)}", flush=True)
                continue
            taken = found[-1][0]
            print(f"  {taken * 1e3:.3f} ms  {flop / taken / 1e12:.4g} TFLOP/s  "
                  f"f {dense * share / taken:.3f}  {tiles}", flush=True)  # fmt: skip
        best, tiles = min(found, key=lambda pair: pair[0])
        print(f"best for D {channels}: {tiles} ({best * 1e3:.3f} ms, f {dense * share / best:.3f})")


def given(arguments: list[str] | None = None) -> argparse.Namespace:
    """The options."""
    found = parser(__doc__, examples=EXAMPLES)
    found.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    found.add_argument("--backend", nargs="+", choices=list(BACKENDS), default=None)
    found.add_argument("--channels", nargs="+", type=int, choices=(64, 128), default=[128, 64])
    found.add_argument("--dtype", choices=list(DTYPES), default=None)
    found.add_argument("--runs", type=int, default=None, help="calls that each time is of")
    found.add_argument("--quick", action="store_true", help="the first two sizes, fewer runs")
    found.add_argument("--backward", action="store_true", help="Triton's gradients as well")
    found.add_argument("--sweep", action="store_true", help="try tiles of the Triton forward")
    found.add_argument("--limit", type=int, default=None, help="tiles that a sweep tries at most")
    options = found.parse_args(arguments)
    gpu = torch.device(options.device).type == "cuda"
    options.dtype = options.dtype or ("bf16" if gpu else "fp32")
    options.runs = options.runs or ((10 if options.quick else 20) if gpu else 1)
    options.sizes = (SIZES[:2] if options.quick else SIZES) if gpu else TINY
    options.heads = HEADS if gpu else 2
    default = ("triton", "flex", "cudnn", "fa4") if gpu else ("cpu", "reference")
    options.backend = options.backend or list(default)
    return options


def main() -> None:
    """Print the machine, then a table or a sweep."""
    options = given()
    device = torch.device(options.device)
    print(machine())
    torch._dynamo.config.recompile_limit = 64  # flex compiles for every size
    if device.type == "cuda":
        print(torch.cuda.get_device_name(device))
    with torch.inference_mode():
        (sweep if options.sweep else compare)(options, device)


if __name__ == "__main__":
    main()
