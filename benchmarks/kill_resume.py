"""Kills `restore video` at random moments, resumes it, and compares with an undisturbed run.

Compared are every decoded frame with its time stamp, and all other streams byte for byte. The
exit status is 1 when anything differs, or when a kill came too late to disturb.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
from clip_facts import Track, frame_time, read_facts
from common import machine, parser, restore_command, table
from odd_clips import RATE, Clip, write

EXAMPLES = (
    "python benchmarks/kill_resume.py --join",
    "python benchmarks/kill_resume.py ../shared/data/video/onepiece_demo.mp4 --end 2",
    "python benchmarks/kill_resume.py in.mp4 --kills 5 --seed 7 --segment 10",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Content:
    """What a clip holds, for comparison."""

    frames: tuple[tuple[Fraction, str], ...]
    """Time stamp and hash of each decoded frame."""
    tracks: tuple[Track, ...]
    """All other streams."""


def content(path: Path) -> Content:
    """Decode a clip."""
    frames = []
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            frames.append((frame_time(frame), hashlib.sha256(pixels(frame)).hexdigest()))
    return Content(frames=tuple(frames), tracks=read_facts(path, limit=1).tracks)


def pixels(frame: av.VideoFrame) -> bytes:
    """All samples of a frame, without what pads its rows in memory."""
    try:
        return frame.to_ndarray().tobytes()
    except ValueError:  # a rare pixel format: 16 bits hold all there are
        return frame.reformat(format="yuv444p16le").to_ndarray().tobytes()


def run_to_end(command: list[str]) -> float:
    """Seconds that a command takes; its messages are shown when it fails."""
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode != 0:
        raise RuntimeError(f"status {done.returncode}: {done.stderr.strip()[-400:]}")
    return time.perf_counter() - start


def run_and_kill(command: list[str], *, frames: int, delay: float, at_join: bool) -> bool:
    """Start a command and kill it soon after so many frames, or when it begins to join segments.

    Returns:
        False if it had ended by itself.
    """
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert child.stdout is not None
    for text in child.stdout:
        event = json.loads(text)
        joining = event.get("stage") == "join"
        if joining if at_join else event.get("frames_done", 0) >= frames:
            break
    try:
        child.wait(timeout=delay)
    except subprocess.TimeoutExpired:
        child.kill()  # SIGKILL: the child gets no chance to tidy up
        child.wait()
    child.stdout.close()
    return child.returncode == -signal.SIGKILL


def compare(quiet: Content, resumed: Content) -> list[tuple[str, object, object, bool]]:
    """What, in the undisturbed run, in the resumed run, equal?"""
    pairs = list(zip(quiet.frames, resumed.frames, strict=False))
    moved = [i for i, (a, b) in enumerate(pairs) if a[0] != b[0]]
    other = [i for i, (a, b) in enumerate(pairs) if a[1] != b[1]]
    tracks = [" ".join(f"{t.kind} {t.payload}" for t in c.tracks) for c in (quiet, resumed)]
    return [
        (
            "frames",
            len(quiet.frames),
            len(resumed.frames),
            len(quiet.frames) == len(resumed.frames),
        ),
        ("time stamps", "", f"first other: {moved[0]}" if moved else "", not moved),
        (
            "pictures",
            "",
            f"first other: {other[0]}, {len(other)} in all" if other else "",
            not other,
        ),
        ("other streams", tracks[0], tracks[1], quiet.tracks == resumed.tracks),
    ]


def disturb(command: list[str], options: argparse.Namespace, frames: int) -> int:
    """Kill the command again and again, resuming each time; returns how often that hit."""
    draw = random.Random(options.seed)
    hits = 0
    for turn in range(options.kills + options.join):
        at_join = turn == options.kills
        # A later moment each time, with a tenth of the frames left for the last run.
        mark = int(0.9 * frames * (turn + draw.random()) / options.kills)
        delay = draw.uniform(0, 0.02 if at_join else 0.4)
        if not run_and_kill(command, frames=mark, delay=delay, at_join=at_join):
            print("not killed: it had ended by itself; a longer clip helps", file=sys.stderr)
            break
        what = "when joining" if at_join else f"after frame {mark}"
        print(f"killed {delay:.2f} s {what}", file=sys.stderr)
        hits += 1
    return hits


def arguments() -> argparse.Namespace:
    """The command line; what it does not know goes to `restore video`."""
    take = parser(__doc__, examples=EXAMPLES)
    take.add_argument(
        "clip", type=Path, nargs="?", metavar="IN", help="clip to restore (default: one is made)"
    )
    take.add_argument("--kills", type=int, default=3, help="how often to kill (default 3)")
    take.add_argument("--seed", type=int, default=0, help="of the moments (default 0)")
    take.add_argument("--segment", type=int, default=12, help="frames between points of resuming")
    take.add_argument(
        "--join", action="store_true", help="one more kill, while the segments are joined"
    )
    take.add_argument("--work", type=Path, metavar="DIR", help="keep the results here")
    options, rest = take.parse_known_args()
    options.rest = rest
    if options.kills < 1:
        take.error("--kills is 1 or more")
    return options


def run(options: argparse.Namespace, folder: Path) -> bool:
    """All runs and the table; True when nothing differs."""
    if options.clip is None:
        options.clip = folder / "made.mp4"
        write(options.clip, Clip(times=tuple(Fraction(i, RATE) for i in range(6 * RATE))))
    shared = ["--segment", str(options.segment), *options.rest]
    quiet, resumed = (folder / f"{name}{options.clip.suffix}" for name in ("quiet", "resumed"))
    total = run_to_end(restore_command("video", options.clip, "-o", quiet, *shared))
    wanted = content(quiet)
    command = restore_command("video", options.clip, "-o", resumed, "--resume", "--json", *shared)
    hits = disturb(command, options, len(wanted.frames))
    early = resumed.exists()
    if not early:
        run_to_end(command)
    left = sorted(p.name for p in folder.iterdir() if p not in (quiet, resumed, options.clip))
    rows = [
        ("kills that hit", "", f"{hits} of {options.kills + options.join}", hits >= options.kills),
        ("result before the last run", "no", "yes" if early else "no", not early),
        *compare(wanted, content(resumed)),
        ("files left behind", "", ", ".join(left), not left),
    ]
    print(machine())
    print(f"{options.clip.name}, undisturbed in {total:.1f} s, seed {options.seed}\n")
    shown = [(item, a, b, "same" if equal else "DIFFERENT") for item, a, b, equal in rows]
    print(table(("", "undisturbed", "killed and resumed", ""), shown))
    return all(equal for *_, equal in rows)


def main() -> int:
    """0 = equal, 1 = different, 2 = a run failed."""
    options = arguments()
    try:
        if options.work is not None:
            options.work.mkdir(parents=True, exist_ok=True)
            return 0 if run(options, options.work) else 1
        with tempfile.TemporaryDirectory() as folder:
            return 0 if run(options, Path(folder)) else 1
    except (RuntimeError, OSError, av.FFmpegError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
