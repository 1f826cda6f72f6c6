"""What it brings that clips keep their large blocks of memory from frame to frame, and its price.

`restore video` runs with them kept, as it does by itself, and with the C library's own ways, which
it leaves alone when the environment holds a `MALLOC_...` setting. In turns, the smallest of each
number counts. Linux with glibc only.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from common import (
    Finished,
    exit_status,
    last_line,
    machine,
    parser,
    restore_command,
    run_measured,
    table,
)

from restore.errors import RestoreError

EXAMPLES = (
    "python benchmarks/heap.py ../shared/data/video/bottle-detection.mp4 --option --end 1",
    "python benchmarks/heap.py in.mp4 --rounds 1 --option -n flashvsr --weights FOLDER --end 0.5",
)
WAYS = {"given back each time": {"MALLOC_CHECK_": "0"}, "kept": {}}
"""Settings of the environment for each row."""


def restore_clip(clip: Path, extra: list[str], *, settings: dict[str, str]) -> Finished:
    """Run `restore video`; a failure ends the script."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    own.pop("GLIBC_TUNABLES", None)
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / f"result{clip.suffix}"
        command = restore_command("video", clip, "-o", target, *extra)
        finished = run_measured(command, environment=own | settings)
    if finished.status != 0:
        raise RestoreError(f"'restore video' failed: {last_line(finished)}")
    return finished


def run(options: argparse.Namespace) -> None:
    """Measure in turns and print."""
    runs: dict[str, list[Finished]] = {name: [] for name in WAYS}
    for _ in range(options.rounds):
        for name, settings in WAYS.items():
            runs[name].append(restore_clip(options.clip, options.option, settings=settings))
    rows = [
        [
            name,
            f"{min(run.cpu_seconds for run in done):.1f} s",
            f"{min(run.seconds for run in done):.1f} s",
            f"{min(run.peak_mib for run in done):.0f} MiB",
        ]
        for name, done in runs.items()
    ]
    print(machine())
    print(f"restore video {options.clip.name} {' '.join(options.option)}\n")
    print(table(("large blocks", "processor", "time", "peak memory"), rows))


def arguments() -> argparse.Namespace:
    """The command line."""
    take = parser(__doc__, examples=EXAMPLES)
    take.add_argument("clip", type=Path, help="clip to restore")
    take.add_argument("--rounds", type=int, default=3, help="runs of each (default 3)")
    take.add_argument(
        "--option", nargs=argparse.REMAINDER, default=[], help="the rest goes to `restore video`"
    )
    options = take.parse_args()
    if options.rounds < 1:
        take.error("--rounds is 1 or more")
    return options


if __name__ == "__main__":
    OPTIONS = arguments()
    sys.exit(exit_status(lambda: run(OPTIONS)))
