"""Peak memory of the commands: a clip beside the same clip many times longer, and a large picture.

Each command runs as its own process, whose largest resident memory the system reports. The exit
status is 1 when a limit is passed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from fractions import Fraction
from pathlib import Path

import numpy as np
from common import Finished, last_line, machine, parser, restore_command, run_measured, table
from odd_clips import RATE, Clip, loop, write
from PIL import Image

EXAMPLES = (
    "python benchmarks/memory.py",
    "python benchmarks/memory.py --clip short.mp4 --copies 10 --no-image",
    "python benchmarks/memory.py --no-video --image-size 2000x1500",
)


def own_clip(folder: Path, seconds: float) -> Path:
    """A clip of 160x96 with sound."""
    path = folder / "short.mp4"
    times = tuple(Fraction(i, RATE) for i in range(max(1, round(seconds * RATE))))
    write(path, Clip(width=160, height=96, times=times))
    return path


def own_picture(folder: Path, width: int, height: int) -> Path:
    """A picture with structure everywhere."""
    y, x = np.mgrid[0:height, 0:width]
    planes = [(x * y // 97) % 256, (x * 3 + y) % 256, (y * 5 - x) % 256]
    path = folder / "large.png"
    Image.fromarray(np.stack(planes, axis=-1).astype(np.uint8)).save(path, compress_level=1)
    return path


def measure(name: str, arguments: list[str]) -> Finished:
    """Run one command; a failure ends the script."""
    print(f"running: {name}", file=sys.stderr)
    finished = run_measured(restore_command(*arguments))
    if finished.status != 0:
        raise RuntimeError(f"{name} failed with status {finished.status}: {last_line(finished)}")
    return finished


def row(name: str, finished: Finished, note: str) -> list[str]:
    """One line of the table."""
    return [name, f"{finished.peak_mib:.0f} MiB", f"{finished.seconds:.1f} s", note]


def measure_video(options: argparse.Namespace, folder: Path) -> tuple[list[list[str]], bool]:
    """Rows for both clips, and whether the growth is within the limit."""
    short = options.clip or own_clip(folder, options.seconds)
    long = folder / f"long{short.suffix}"
    loop(short, long, times=options.copies)
    peaks = []
    rows = []
    for name, source in (("clip", short), (f"clip, {options.copies} times longer", long)):
        target = folder / f"{source.stem}_result{source.suffix}"
        done = measure(name, ["video", str(source), "-o", str(target), *options.option])
        peaks.append(done.peak_mib)
        growth = "" if len(peaks) == 1 else f"{100 * (peaks[1] / peaks[0] - 1):+.1f} %"
        rows.append(row(name, done, growth))
    return rows, peaks[1] <= peaks[0] * (1 + options.most_growth / 100)


def measure_image(options: argparse.Namespace, folder: Path) -> tuple[list[list[str]], bool]:
    """The row for the picture, and whether it is within the limit."""
    width, height = (int(side) for side in options.image_size.split("x"))
    source = own_picture(folder, width, height)
    target = folder / "large_result.png"
    done = measure("picture", ["image", str(source), "-o", str(target), *options.option])
    Image.MAX_IMAGE_PIXELS = None
    with Image.open(target) as result:
        size = f"{result.width}x{result.height}"
    rows = [row(f"picture {width}x{height} -> {size}", done, "")]
    return rows, done.peak_mib <= options.most_gib * 1024


def arguments() -> argparse.Namespace:
    """The command line."""
    take = parser(__doc__, examples=EXAMPLES)
    take.add_argument("--clip", type=Path, help="clip to restore (default: one is made)")
    take.add_argument(
        "--seconds", type=float, default=2.0, help="length of the clip that is made (default 2)"
    )
    take.add_argument("--copies", type=int, default=10, help="the long clip (default 10 times)")
    take.add_argument("--image-size", default="2000x1500", help="picture (default 2000x1500)")
    take.add_argument("--no-video", action="store_true", help="leave the clips out")
    take.add_argument("--no-image", action="store_true", help="leave the picture out")
    take.add_argument("--most-growth", type=float, default=5.0, help="limit in percent (5)")
    take.add_argument("--most-gib", type=float, default=3.0, help="limit for the picture (3)")
    take.add_argument(
        "--option", nargs=argparse.REMAINDER, default=[], help="the rest goes to the command"
    )
    return take.parse_args()


def main() -> int:
    """0 = within the limits, 1 = not, 2 = a command failed."""
    options = arguments()
    rows: list[list[str]] = []
    fits = True
    with tempfile.TemporaryDirectory() as name:
        try:
            for wanted, job in (
                (not options.no_video, measure_video),
                (not options.no_image, measure_image),
            ):
                if wanted:
                    more, within = job(options, Path(name))
                    rows += more
                    fits &= within
        except RuntimeError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
    print(machine())
    print()
    print(table(("", "peak memory", "time", "growth"), rows))
    limits = f"growth {options.most_growth:g} %, picture {options.most_gib:g} GiB"
    print(f"\n{'within' if fits else 'BEYOND'} the limits: {limits}")
    return 0 if fits else 1


if __name__ == "__main__":
    sys.exit(main())
