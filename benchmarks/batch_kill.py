"""Kills workers and drivers of `restore batch`, starts it again, and looks at what came out.

Small pictures and clips of several shots are made from real footage (or drawn). A worker and then
the driver get SIGKILL while clips are in pieces, and again in the middle of the pictures. At the
end every item must be there exactly once, in the manifest and as a file, each picture byte for byte
what `restore image` makes, each clip frame for frame what `restore video` makes. Undisturbed runs
of both engines say how fast it goes. The exit status is 1 when anything is not so.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import psutil
from common import machine, parser, restore_command, table
from kill_resume import compare, content
from PIL import Image

EXAMPLES = (
    "python benchmarks/batch_kill.py",
    "python benchmarks/batch_kill.py --data ../shared/data --engine ray --workers 2",
    "python benchmarks/batch_kill.py --pictures 20 --clips 2 --engine local --seed 7",
)
SIDE, SHOTS, SHOT = 40, 4, 18
"""Pixels of a picture along each side; shots of a clip, and frames of each."""
SEGMENT = "6"
"""Frames of a segment, so that a short clip has many."""

Event = dict[str, Any]
Row = tuple[str, object, object, bool]
"""What, wanted, got, right?"""


@dataclass(kw_only=True, slots=True)
class Run:
    """One start of the program, up to its end or its death."""

    status: int = 0
    """Exit status; negative = the signal that ended it."""
    events: list[Event] = field(default_factory=list)
    """What it said."""
    noise: int = 0
    """Lines that are no events."""

    def named(self, name: str) -> list[Event]:
        """Events of one kind."""
        return [event for event in self.events if event["event"] == name]


def sources(data: Path | None, count: int) -> Iterator[Image.Image]:
    """Pictures to cut from: real ones, or drawn."""
    files = sorted((data / "bsds500/val").glob("*")) if data else []
    for number in range(count):
        if files:
            yield Image.open(files[number % len(files)]).convert("RGB")
        else:
            y, x = np.mgrid[0:120, 0:160]
            planes = [(x * (3 + number % 5)) % 256, (y * 5 + number * 9) % 256, (x + y * 2) % 256]
            yield Image.fromarray(np.stack(planes, -1).astype(np.uint8))


def make_inputs(folder: Path, options: argparse.Namespace) -> int:
    """Pictures in a few folders, clips in another one; how many in all."""
    draw = random.Random(options.seed)
    for number, picture in enumerate(sources(options.data, options.pictures)):
        left, top = (draw.randrange(side - SIDE) for side in picture.size)
        path = folder / f"day{number % 5}" / f"{number:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.crop((left, top, left + SIDE, top + SIDE)).save(path)
    (folder / "clips").mkdir()
    for number in range(options.clips):
        write_film(folder / "clips" / f"{number}.mp4", options, draw)
    return int(options.pictures + options.clips)


def shots(options: argparse.Namespace, draw: random.Random) -> Iterator[np.ndarray[Any, Any]]:
    """Frames `(48, 64, 3)`: shots of pictures over which a window moves."""
    pictures = list(sources(options.data, 40))
    for picture in draw.sample(pictures, SHOTS):
        whole = np.asarray(picture)
        row = draw.randrange(whole.shape[0] - 48 - SHOT)
        column = draw.randrange(whole.shape[1] - 64 - SHOT)
        for step in range(SHOT):
            yield np.ascontiguousarray(whole[row + step // 2 :, column + step :][:48, :64])


def write_film(path: Path, options: argparse.Namespace, draw: random.Random) -> None:
    """A clip of several shots with uneven times and sound."""
    with av.open(str(path), "w") as out:
        out.metadata["title"] = f"film {path.stem}"
        video = out.add_stream("libx264", rate=25, options={"crf": "12", "threads": "1"})
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        video.codec_context.time_base = video.time_base = Fraction(1, 12800)
        sound = out.add_stream("aac", rate=44100, layout="mono")
        for index, picture in enumerate(shots(options, draw)):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = 512 * index + 60 * (index % 3), Fraction(1, 12800)
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
        wave = np.sin(np.arange(44100 * SHOTS * SHOT // 25) / 30).astype(np.float32)[None]
        tone = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
        tone.sample_rate = 44100
        out.mux(sound.encode(tone))
        out.mux(sound.encode(None))


def references(source: Path, target: Path, options: argparse.Namespace) -> None:
    """What `restore image` and `restore video` make, each file alone."""
    same = ["-n", options.model]
    pictures = restore_command("image", source, "-o", target, "--recursive", *same)
    subprocess.run(pictures, check=True, capture_output=True)
    (target / "clips").mkdir(exist_ok=True)
    for clip in sorted((source / "clips").iterdir()):
        path = target / "clips" / clip.name
        command = restore_command("video", clip, "-o", path, "--segment", SEGMENT, *same)
        subprocess.run(command, check=True, capture_output=True)


def command(source: Path, target: Path, engine: str, options: argparse.Namespace) -> list[str]:
    """The batch."""
    more = ["--engine", engine, "-w", str(options.workers), "-n", options.model, "--json"]
    return restore_command("batch", source, target, "--segment", SEGMENT, *more)


def start(words: list[str], watch: Callable[[subprocess.Popen[str], Run], None]) -> Run:
    """Run the program to its end, calling `watch` after each of its events."""
    run = Run()
    child = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    for line in child.stdout:
        try:
            run.events.append({"at": time.monotonic(), **json.loads(line)})
        except ValueError:
            run.noise += line.endswith("\n")  # else half a line, as it was killed
            continue
        watch(child, run)
    run.status = child.wait()
    child.stdout.close()
    return run


class Killer:
    """Kills a worker when the time has come, and the driver some results later."""

    def __init__(self, *, worker_at: Callable[[Run], bool], driver_after: int) -> None:
        self._worker_at, self._after = worker_at, driver_after
        self._since: int | None = None
        self.worker: Event | None = None
        self.driver = False

    def __call__(self, child: subprocess.Popen[str], run: Run) -> None:
        settled = len(run.named("done")) + len(run.named("given"))
        event = run.events[-1]
        if self.worker is None and event["event"] == "given" and self._worker_at(run):
            pids = {e["worker"]: e["pid"] for e in run.named("worker_started")}
            os.kill(pids[event["worker"]], signal.SIGKILL)
            self.worker, self._since = event, settled
        lost = bool(run.named("worker_lost"))
        if lost and not self.driver and settled - (self._since or 0) >= self._after:
            child.send_signal(signal.SIGKILL)
            self.driver = True


def left_processes(mark: str) -> list[str]:
    """Processes whose command line has `mark`, after some seconds to end."""
    for _ in range(100):
        found = []
        for process in psutil.process_iter(["cmdline"]):
            words = " ".join(process.info["cmdline"] or ())
            if mark in words and process.pid != os.getpid():
                found.append(words[:60])
        if not found:
            return []
        time.sleep(0.2)
    return found


def check(source: Path, target: Path, wanted: Path, runs: list[Run], total: int) -> list[Row]:
    """What, wanted, got, equal?"""
    keys = sorted(p.relative_to(source).as_posix() for p in source.rglob("*.*"))
    with closing(sqlite3.connect(target / ".restore-batch" / "manifest.sqlite")) as file:
        states = Counter(state for (state,) in file.execute("SELECT state FROM items"))
        rows = [key for (key,) in file.execute("SELECT key FROM items ORDER BY key")]
    files = sorted(
        p.relative_to(target).as_posix()
        for p in target.rglob("*.*")
        if p.is_file() and ".restore-batch" not in p.parts
    )
    done = Counter(event["source"] for run in runs for event in run.named("done"))
    twice = [key for key, count in done.items() if count > 1]
    hidden = [p.name for p in (target / ".restore-batch").rglob("*") if p.is_file()]
    pictures = [key for key in keys if not key.startswith("clips/")]
    other = [k for k in pictures if (target / k).read_bytes() != (wanted / k).read_bytes()]
    last = runs[-1].named("summary")[0]
    settled = last["done"] + last["skipped"]
    noise = sum(run.noise for run in runs)
    result: list[Row] = [
        ("lines that are no JSON", 0, noise, not noise),
        ("items done", total, states.get("done", 0), states == {"done": total}),
        ("rows of the manifest", total, len(rows), rows == keys),
        ("files", total, len(files), files == keys),
        ("done twice", 0, len(twice), not twice),
        ("done in the last run, and before", total, settled, settled == total),
        ("pictures that differ", 0, len(other), not other),
        ("files left behind", "manifest.sqlite", " ".join(hidden), hidden == ["manifest.sqlite"]),
        ("exit status at the end", 0, runs[-1].status, runs[-1].status == 0),
    ]
    for clip in sorted((source / "clips").iterdir()):
        pair = (content(folder / "clips" / clip.name) for folder in (wanted, target))
        for what, a, b, equal in compare(*pair):
            result.append((f"{clip.name}: {what}", a, b, equal))
    return result


def disturb(words: list[str], options: argparse.Namespace) -> tuple[list[Run], list[Row]]:
    """Kill twice each, and let the last start come to its end."""
    half = options.pictures // 2

    def in_a_piece(run: Run) -> bool:
        event = run.events[-1]
        return event["task"] == "piece" and event["piece"] >= 1

    def among_pictures(run: Run) -> bool:
        event = run.events[-1]
        return event["task"] == "picture" and len(run.named("done")) >= half // 2

    runs, rows = [], []
    plans = {"pieces": Killer(worker_at=in_a_piece, driver_after=2)}
    plans["pictures"] = Killer(worker_at=among_pictures, driver_after=half // 2)
    for name, killer in plans.items():
        run = start(words, killer)
        runs.append(run)
        at = "" if killer.worker is None else f"{killer.worker['task']} {killer.worker['source']}"
        rows.append((f"worker killed, {name}", "yes", at, killer.worker is not None))
        dead = run.status == -signal.SIGKILL
        rows.append((f"driver killed, {name}", -9, run.status, killer.driver and dead))
        left = left_processes("restore-ray-")
        rows.append(("processes left after that", 0, len(left), not left))
    runs.append(start(words, lambda child, run: None))
    return runs, rows


def quiet(source: Path, target: Path, engine: str, options: argparse.Namespace) -> tuple[str, ...]:
    """An undisturbed run: engine, seconds in all, seconds from the first task, items a second."""
    first: list[float] = []

    def watch(child: subprocess.Popen[str], run: Run) -> None:
        if not first and run.events[-1]["event"] == "given":
            first.append(time.perf_counter())

    begin = time.perf_counter()
    run = start(command(source, target, engine, options), watch)
    end = time.perf_counter()
    if run.status != 0:
        raise RuntimeError(f"the undisturbed run with {engine} ended with status {run.status}")
    done = len(run.named("done"))
    return (
        engine,
        f"{end - begin:.1f}",
        f"{end - first[0]:.1f}",
        f"{done / (end - first[0]):.2f}",
    )


def arguments() -> argparse.Namespace:
    """The command line."""
    take = parser(__doc__, examples=EXAMPLES)
    take.add_argument("--data", type=Path, metavar="DIR", help="with bsds500/val; default: drawn")
    take.add_argument(
        "--engine", choices=("ray", "local"), default="ray", help="which is disturbed"
    )
    take.add_argument("--workers", type=int, default=2)
    take.add_argument("--pictures", type=int, default=200)
    take.add_argument("--clips", type=int, default=4)
    take.add_argument("--model", default="compact-fast")
    take.add_argument("--seed", type=int, default=0)
    take.add_argument("--no-speed", action="store_true", help="leave the undisturbed runs out")
    take.add_argument("--work", type=Path, metavar="DIR", help="keep the results here")
    return take.parse_args()


def run_all(options: argparse.Namespace, folder: Path) -> bool:
    """Everything; True when nothing is wrong."""
    source, wanted, target = (folder / name for name in ("in", "wanted", "out"))
    total = make_inputs(source, options)
    references(source, wanted, options)
    speeds = []
    for engine in () if options.no_speed else ("local", "ray"):
        speeds.append(quiet(source, folder / engine, engine, options))
        shutil.rmtree(folder / engine)
    runs, rows = disturb(command(source, target, options.engine, options), options)
    for number, run in enumerate(runs):
        lines = (json.dumps(event) for event in run.events)
        (folder / f"events-{number}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    rows += check(source, target, wanted, runs, total)
    print(machine())
    print(f"{options.pictures} pictures of {SIDE}x{SIDE}, {options.clips} clips of {SHOTS} shots,")
    print(f"{SHOTS * SHOT} frames each; {options.workers} workers, {options.model}\n")
    if speeds:
        print(table(("engine", "seconds", "without the start", "items a second"), speeds), "\n")
    shown = [(item, a, b, "ok" if good else "WRONG") for item, a, b, good in rows]
    print(table((f"killed and started again, {options.engine}", "wanted", "got", ""), shown))
    return all(good for *_, good in rows)


def main() -> int:
    """0 = all is well, 1 = it is not, 2 = a run failed."""
    options = arguments()
    try:
        if options.work is not None:
            options.work.mkdir(parents=True)
            return 0 if run_all(options, options.work) else 1
        with tempfile.TemporaryDirectory() as folder:
            return 0 if run_all(options, Path(folder)) else 1
    except (RuntimeError, OSError, subprocess.CalledProcessError, av.FFmpegError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
