"""Runs the commands on broken files and wrong options, and checks what they say and leave behind.

In DIR a folder with 20 good and 20 broken pictures is made, with some doubtful ones beside them,
and clips likewise. Wanted: every good one restored, every broken one named in one line, exit
status 1 and never a trace. The exit status of this script is 1 when any of it is not so.
"""

from __future__ import annotations

import argparse
import pickle
import resource
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import av
from broken_files import (
    broken_clips,
    broken_files,
    damaged_clips,
    doubtful_files,
    good_clips,
    good_files,
    write_files,
    write_oddities,
)
from common import machine, parser, restore_command, table
from PIL import Image

EXAMPLES = (
    "python benchmarks/broken_inputs.py broken",
    "python benchmarks/broken_inputs.py broken --only options",
)
SECTIONS = ("pictures", "clips", "options")
LIMIT = 300.0
"""Seconds after which a command counts as hanging."""

FULL = 4000
"""Bytes after which a file cannot grow, in the trials with a full disk."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """One row: what was tried, what was said, whether that is right."""

    name: str
    """File or option."""
    said: str
    """The line of the program."""
    problem: str
    """What is wrong; empty = nothing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ran:
    """A command that has ended, or was ended."""

    status: int | None
    """Exit status; None = it hung and was stopped."""
    lines: tuple[str, ...]
    """All that it wrote."""

    def about(self, name: str) -> str:
        """The last line with a name in it."""
        return next((line for line in reversed(self.lines) if name in line), "")

    def problems(self) -> Iterator[str]:
        """What no input may ever cause."""
        if self.status is None:
            yield f"no end after {LIMIT:g} s"
        elif self.status < 0:
            yield f"ended by signal {-self.status}"
        if any("Traceback" in line for line in self.lines):
            yield "a trace was shown"
        if any("error: unexpected" in line for line in self.lines):
            yield "an error that nobody thought of"


def run(*arguments: str | Path, disk: int | None = None) -> Ran:
    """Run `restore ARGUMENTS`; no file may grow beyond `disk` bytes, as on a full disk."""

    def limit() -> None:
        if disk is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (disk, disk))

    child = subprocess.Popen(
        restore_command(*arguments),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        preexec_fn=limit,
    )
    try:
        output, _ = child.communicate(timeout=LIMIT)
    except subprocess.TimeoutExpired:
        child.kill()
        output, _ = child.communicate()
        return Ran(status=None, lines=tuple(output.splitlines()))
    return Ran(status=child.returncode, lines=tuple(output.splitlines()))


def wanted_status(ran: Ran, allowed: Iterable[int]) -> str:
    """Empty, or what is wrong with the exit status."""
    allowed = tuple(allowed)
    return "" if ran.status in allowed else f"exit status {ran.status}, wanted {allowed}"


def check_pictures(folder: Path, options: list[str]) -> list[Check]:
    """A folder of good, broken and doubtful pictures in one run."""
    source, target = folder / "pictures", folder / "restored"
    write_files(source, good_files())
    write_files(source, broken_files())
    write_files(source, doubtful_files())
    oddities = write_oddities(source)
    ran = run("image", source, "-o", target, *options)
    problems = [*ran.problems(), wanted_status(ran, (1,))]
    checks = [Check(name="the whole folder", said=ran.lines[-1], problem=join(problems))]
    left = {path.name for path in target.iterdir()} if target.is_dir() else set()
    for name in good_files():
        left -= {name}
        checks.append(check_good(source / name, target / name, ran))
    for name in broken_files():
        problem = "a result was written" if name in left else ""
        said = ran.about(name)
        checks.append(Check(name=name, said=said, problem=problem or ("" if said else "not named")))
    for name in (*doubtful_files(), *oddities):
        # A result is named after what the file holds: jpeg-inside.png gives jpeg-inside.jpg.
        results = {result for result in left if Path(result).stem == Path(name).stem}
        left -= results
        said = ", ".join(results) or ran.about(name) or "passed over"
        checks.append(Check(name=name, said=said, problem=""))
    if left:
        checks.append(Check(name=join(sorted(left)), said="", problem="left in the result folder"))
    return checks


def check_good(before: Path, after: Path, ran: Ran) -> Check:
    """The result of a good picture is there, can be read, and has four times its size."""
    if not after.is_file():
        return Check(name=before.name, said=ran.about(before.name), problem="no result")
    try:
        with Image.open(before) as small, Image.open(after) as large:
            large.load()
            turned = small.getexif().get(0x0112, 1) in (5, 6, 7, 8)
            size = small.size[::-1] if turned else small.size
            wanted = (size[0] * 4, size[1] * 4)
            problem = "" if large.size == wanted else f"{large.size} instead of {wanted}"
    except OSError as error:
        problem = f"the result cannot be read: {error}"
    return Check(name=before.name, said="restored", problem=problem)


def check_clips(folder: Path, options: list[str]) -> list[Check]:
    """Each clip in a run of its own."""
    source = folder / "clips"
    source.mkdir(parents=True, exist_ok=True)
    checks = []
    groups = ((good_clips(), (0,), 24), (damaged_clips(), (1,), 1), (broken_clips(), (1,), 0))
    for makers, status, fewest in groups:
        for name, make in makers.items():
            path, target = source / name, folder / f"restored-{name}"
            make(path)
            ran = run("video", path, "-o", target, *options)
            frames = count_frames(target)
            problems = [*ran.problems(), wanted_status(ran, status)]
            if frames < fewest or (fewest == 0 and target.exists()):
                problems.append(f"{frames} frames in the result")
            said = ran.about(name) or (ran.lines[-1] if ran.lines else "")
            if status != (0,) and not said:
                problems.append("nothing was said")
            kept = f"({frames} frames kept) " if fewest else ""
            checks.append(Check(name=name, said=kept + said, problem=join(problems)))
    return checks


def count_frames(path: Path) -> int:
    """Frames that can be decoded; 0 for no file."""
    if not path.exists():
        return 0
    try:
        with av.open(str(path)) as container:
            return sum(1 for _ in container.decode(video=0))
    except (av.FFmpegError, IndexError):
        return 0


class _Trap:
    """Unpickling it would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (str(self.path), "w")


def check_options(folder: Path, options: list[str]) -> list[Check]:
    """Wrong settings and places, each in a run of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    image, sprung = folder / "photo.png", folder / "trap-sprung"
    image.write_bytes(good_files()["rgb.png"])
    file, trap, junk = folder / "a-file", folder / "trap.pth", folder / "junk.safetensors"
    file.write_text("not a folder")
    trap.write_bytes(pickle.dumps({"params": _Trap(sprung)}))
    junk.write_bytes(b"\x10\0\0\0\0\0\0\0not safetensors!")
    other = Path(__file__).parent
    trials: list[tuple[str | Path, ...]] = [
        ("image", folder / "missing.png"),
        ("image", image, "--scale", "0"),
        ("image", image, "--scale", "-2"),
        ("image", image, "--tile", "3"),
        ("image", image, "--model", "compactt"),
        ("image", image, "--weights", folder / "missing.safetensors"),
        ("image", image, "--weights", trap),
        ("image", image, "--weights", junk),
        ("image", image, "-o", file / "below"),
        ("image", image, "-o", image),
        ("image", image, "--target", "0x5"),
        ("image", image, "--device", "warp"),
        ("image", other, "-o", folder / "out"),
        ("video", folder / "missing.mp4"),
        ("video", image, "--start", "soon"),
        ("video", image, "--codec", "theora"),
    ]
    clip = folder / "clip.mp4"
    good_clips()["good.mp4"](clip)
    full: list[tuple[str | Path, ...]] = [
        ("image", image, "-o", folder / "full.png"),
        ("video", clip, "-o", folder / "full.mp4"),
    ]
    checks = []
    for trial in (*trials, *full):
        ran = run(*trial, *options, disk=FULL if trial in full else None)
        problems = [*ran.problems(), wanted_status(ran, (1, 2))]
        if not ran.lines:
            problems.append("nothing was said")
        if sprung.exists():
            problems.append("CODE OF THE PICKLE WAS RUN")
            sprung.unlink()
        if trial[-1] in (folder / "full.png", folder / "full.mp4") and Path(trial[-1]).exists():
            problems.append("half a result was left")
        name = " ".join(part.name if isinstance(part, Path) else part for part in trial)
        checks.append(
            Check(name=name, said=ran.lines[-1] if ran.lines else "", problem=join(problems))
        )
    if image.read_bytes() != good_files()["rgb.png"]:
        checks.append(Check(name="photo.png", said="", problem="THE ORIGINAL WAS CHANGED"))
    return checks


def join(problems: Iterable[str]) -> str:
    """All that is not empty, in one line."""
    return "; ".join(text for text in problems if text)


def arguments() -> argparse.Namespace:
    """The command line; what it does not know goes to the commands."""
    take = parser(__doc__, examples=EXAMPLES)
    take.add_argument("folder", type=Path, metavar="DIR", help="where to make everything")
    take.add_argument("--only", choices=SECTIONS, help="one section alone")
    options, rest = take.parse_known_args()
    options.rest = rest
    options.folder = options.folder.resolve()
    if options.folder.exists() and any(options.folder.iterdir()):
        take.error(f"{options.folder} is not empty; name a new folder")
    return options


def main() -> int:
    """0 = all as wanted, 1 = not."""
    options = arguments()
    jobs = {"pictures": check_pictures, "clips": check_clips, "options": check_options}
    print(machine())
    failed = 0
    for section in SECTIONS if options.only is None else (options.only,):
        checks = jobs[section](options.folder / section, options.rest)
        failed += sum(bool(check.problem) for check in checks)
        print(f"\n### {section}\n")
        here = f"{(options.folder / section).resolve()}/"
        rows = [(c.name, c.said.replace(here, "")[:140], c.problem or "as wanted") for c in checks]
        print(table(("tried", "said", ""), rows), flush=True)
    print(f"\n{failed} not as wanted" if failed else "\nall as wanted")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
