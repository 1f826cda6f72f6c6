"""Block-sparse attention on a CPU: how much faster than PyTorch's dense attention it is.

Blocks of 128 tokens, with even counts (the best blocks of every row) and with FlashVSR's uneven
ones (the best pairs of a head). `f` is the speed-up times the density: 1 would be dense speed for
what is left. Dense and sparse are measured in turns, and the shortest time of each counts. `with
selection` adds block means, choice and lists. The exit status is 1 when a speed-up is below
3 at 81 % or 5 at 90 % sparsity.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from common import machine, parser, table
from torch import Tensor

from restore.attention import BlockLists, block_sparse_attention, flat_topk, from_mask, pooled
from restore.attention.selection import row_topk

EXAMPLES = (
    "python benchmarks/attention_cpu.py --threads 2",
    "python benchmarks/attention_cpu.py --tokens 8192 --heads 4 --rounds 3",
    "taskset -c 0 python benchmarks/attention_cpu.py --threads 1 --clock process",
)
BLOCK = 128
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
AIMS = {0.81: 3.0, 0.90: 5.0}
"""Speed-up over dense attention that is asked for, by sparsity."""
SPREAD = 1.25
"""Size of the block means: the more, the less even the counts (1 to 12 of 32 at 81 % here)."""
HEADER = ("D", "dtype", "counts", "sparsity", "blocks", "dense", "sparse", "speed-up", "f",
          "with selection")  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Inputs:
    """One attention: `(1, H, N, D)` each."""

    q: Tensor
    k: Tensor
    v: Tensor

    def select(self, sparsity: float, *, even: bool) -> BlockLists:
        """Block means, choice, lists."""
        q, k = pooled(self.q.float(), BLOCK), pooled(self.k.float(), BLOCK)
        density, blocks = 1 - sparsity, k.shape[2]
        if even:
            topk = round(blocks * density)
            return from_mask(row_topk(q, k, topk=topk), capacity=topk)
        return from_mask(flat_topk(q, k, local=None, topk=round(q.shape[2] * blocks * density)))


def make_inputs(dim: int, dtype: torch.dtype, options: argparse.Namespace) -> Inputs:
    """Random tokens round random block means."""
    draw = torch.Generator().manual_seed(options.seed)
    shape = (1, options.heads, options.tokens // BLOCK, 1, dim)
    tokens = []
    for spread in (SPREAD, SPREAD, 0.0):
        means = spread * torch.randn(shape, generator=draw)
        noise = torch.randn((1, options.heads, options.tokens, dim), generator=draw)
        tokens.append((noise.view(*shape[:3], BLOCK, dim) + means).flatten(2, 3).to(dtype))
    return Inputs(q=tokens[0], k=tokens[1], v=tokens[2])


def shortest(calls: list[Callable[[], object]], *, rounds: int, clock: str) -> list[float]:
    """Shortest seconds of each call, measured in turns after a warm-up."""
    now = time.perf_counter if clock == "wall" else time.process_time
    best = [float("inf")] * len(calls)
    for turn in range(rounds + 1):
        for i, call in enumerate(calls):
            start = now()
            call()
            if turn:
                best[i] = min(best[i], now() - start)
    return best


def measure(
    inputs: Inputs, name: str, options: argparse.Namespace
) -> Iterator[tuple[list[object], bool]]:
    """Rows of the table, and whether the speed-up is as asked for."""
    q, k, v = inputs.q, inputs.k, inputs.v
    for even in (True, False):
        for sparsity, aim in AIMS.items():
            lists = inputs.select(sparsity, even=even)
            density = lists.count.double().mean().item() / (k.shape[2] // BLOCK)
            dense, sparse, choice = shortest(
                [
                    lambda: F.scaled_dot_product_attention(q, k, v),
                    lambda lists=lists: block_sparse_attention(q, k, v, lists.count, lists.index),  # type: ignore[misc]
                    lambda s=sparsity, e=even: inputs.select(s, even=e),  # type: ignore[misc]
                ],
                rounds=options.rounds,
                clock=options.clock,
            )
            gain = dense / sparse
            low, high = (int(x) for x in lists.count.aminmax())
            yield (
                [
                    q.shape[-1],
                    name,
                    "even" if even else "uneven",
                    f"{1 - density:.1%}",
                    f"{low}-{high}",
                    f"{dense * 1e3:.0f} ms",
                    f"{sparse * 1e3:.0f} ms",
                    f"{gain:.2f}x",
                    f"{gain * density:.2f}",
                    f"{dense / (sparse + choice):.2f}x",
                ],
                gain >= aim,
            )


def main() -> int:
    """Print the table."""
    cli = parser(__doc__, examples=EXAMPLES)
    cli.add_argument("--tokens", type=int, default=4096, help="queries and keys, whole blocks")
    cli.add_argument("--heads", type=int, default=12)
    cli.add_argument("--dim", type=int, nargs="+", default=[64, 128])
    cli.add_argument("--dtype", nargs="+", choices=DTYPES, default=["fp32", "bf16"])
    cli.add_argument("--rounds", type=int, default=5)
    cli.add_argument("--threads", type=int, help="threads of PyTorch")
    cli.add_argument("--clock", choices=["wall", "process"], default="wall",
                     help="process: processor time, for a machine with other work")  # fmt: skip
    cli.add_argument("--seed", type=int, default=0)
    options = cli.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    print(machine())
    print(f"{options.tokens} tokens, {options.heads} heads, {torch.get_num_threads()} threads, "
          f"{options.clock} clock, shortest of {options.rounds}\n")  # fmt: skip
    rows, reached = [], True
    with torch.inference_mode():
        for name in options.dtype:
            for dim in options.dim:
                for row, good in measure(make_inputs(dim, DTYPES[name], options), name, options):
                    print(f"measured: {row}", file=sys.stderr)
                    rows.append(row)
                    reached = reached and good
    print(table(HEADER, rows))
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
