"""Peak memory and time of DLoRAL's Cross-Frame Retrieval, beside the matrix of all pairs.

Each run is a process of its own: on a CPU its largest resident memory counts, less that of a
process that only makes the latents; on a GPU what PyTorch allocated at most. The matrix is computed
where its copies fit into free memory; elsewhere the table says what they need. Weights and latents
are random: neither memory nor the number of steps depends on them. The exit status is 1 when the
memory of the blocks passes the limit.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any

import psutil
from common import last_line, machine, parser, run_measured, table

EXAMPLES = (
    "python benchmarks/cfr_memory.py",
    "python benchmarks/cfr_memory.py --sides 96 256 --threads 1 --clock process",
    "python benchmarks/cfr_memory.py --device cuda --dtype fp16",
)
HEADS = 9
LIVE = 3
"""Copies of the matrix that the plain form has at a time, as measured."""
NUMBER = {"fp32": 4, "fp16": 2}
"""Bytes of a number."""


def child(options: argparse.Namespace) -> dict[str, float]:
    """One call in this process: the seconds it took and, on a GPU, its peak memory in MiB."""
    import torch

    from restore.models.parts.dloral.cfr import CrossFrameRetrieval

    if options.threads:
        torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    net = CrossFrameRetrieval().to(options.device)
    latents = torch.randn(2, 1, 4, options.side, options.side).to(options.device)
    if options.dtype == "fp16":
        net, latents = net.half(), latents.half()
    forward = {"blocks": net.forward, "matrix": net.forward_full, "nothing": max}[options.form]
    clock = time.process_time if options.clock == "process" else time.perf_counter
    wait: Any = torch.cuda.synchronize if options.device.startswith("cuda") else lambda: None
    with torch.inference_mode():
        if options.form == "nothing":
            return {"seconds": 0.0, "peak": 0.0}
        forward(*latents[..., :8, :8])  # loads the libraries
        wait()
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        start = clock()
        forward(*latents)
        wait()
    peak = torch.cuda.max_memory_allocated() if options.device.startswith("cuda") else 0
    return {"seconds": clock() - start, "peak": peak / 2**20}


def measure(form: str, side: int, options: argparse.Namespace) -> tuple[float, float]:
    """Peak memory in MiB and seconds of one form, in a process of its own."""
    print(f"running: {form}, {side}x{side}", file=sys.stderr)
    command = [sys.executable, __file__, "--form", form, "--side", str(side)]
    for name in ("device", "dtype", "clock", "threads"):
        command += [f"--{name}", str(getattr(options, name))]
    finished = run_measured(command)
    if finished.status != 0:
        raise RuntimeError(f"{form}, {side}x{side}: {last_line(finished)}")
    said = json.loads(finished.stdout.splitlines()[-1])
    return said["peak"] or finished.peak_mib, said["seconds"]


def free_bytes(device: str) -> int:
    """Memory that can be allocated."""
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.mem_get_info(torch.device(device))[0])
    return psutil.virtual_memory().available


def rows_of(side: int, options: argparse.Namespace) -> tuple[list[list[str]], float]:
    """Both forms at one size, and what the blocks took in MiB."""
    latents = f"{side}x{side}"
    start = 0.0 if options.device.startswith("cuda") else measure("nothing", side, options)[0]
    blocks, seconds = measure("blocks", side, options)
    rows = [[latents, "blocks", f"{blocks - start:,.0f} MiB", f"{seconds:.2f} s", "measured"]]
    needed = LIVE * HEADS * side**4 * NUMBER[options.dtype]
    if needed < 0.7 * free_bytes(options.device):
        matrix, seconds = measure("matrix", side, options)
        more = [f"{matrix - start:,.0f} MiB", f"{seconds:.2f} s", "measured"]
    else:
        more = [f"{needed / 2**20:,.0f} MiB", "-", f"computed: {LIVE} copies of 9 (h w)^2 numbers"]
    return [*rows, [latents, "matrix", *more]], blocks - start


def arguments() -> argparse.Namespace:
    """The command line."""
    take = parser(__doc__, examples=EXAMPLES)
    take.add_argument(
        "--sides", type=int, nargs="+", default=[96, 256, 512], help="of latents (96 256 512)"
    )
    take.add_argument("--device", default="cpu", help="cpu or cuda (cpu)")
    take.add_argument("--dtype", choices=list(NUMBER), default="fp32", help="of latents (fp32)")
    take.add_argument("--threads", type=int, default=0, help="PyTorch's (default: its own choice)")
    take.add_argument(
        "--clock", choices=("wall", "process"), default="wall", help="process = processor time"
    )
    take.add_argument("--most-mib", type=float, default=256.0, help="limit for the blocks (256)")
    take.add_argument("--form", choices=("blocks", "matrix", "nothing"), help=argparse.SUPPRESS)
    take.add_argument("--side", type=int, help=argparse.SUPPRESS)
    return take.parse_args()


def main() -> int:
    """0 = within the limit, 1 = not, 2 = a run failed."""
    options = arguments()
    if options.form:
        print(json.dumps(child(options)))
        return 0
    rows: list[list[str]] = []
    most = 0.0
    try:
        for side in options.sides:
            more, blocks = rows_of(side, options)
            rows += more
            most = max(most, blocks)
    except RuntimeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    fits = most <= options.most_mib
    print(f"{machine()}; {options.device}, {options.dtype}, {options.clock} clock\n")
    print(table(("latents", "form", "peak memory", "time", ""), rows))
    print(f"\n{'within' if fits else 'BEYOND'} the limit: {options.most_mib:g} MiB for the blocks")
    return 0 if fits else 1


if __name__ == "__main__":
    sys.exit(main())
