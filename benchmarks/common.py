"""What the scripts of this folder share: the machine, tables, and child processes.

Light on purpose (no torch, no PyAV): a child's peak memory starts at that of its parent.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from restore.errors import RestoreError

PROGRAM = ("-m", "restore")
"""Arguments that make a Python run the `restore` command of its own environment."""

# Runs between us and the measured child: Linux counts the memory of whoever starts a process into
# the peak of that process, so whoever starts it has to be small.
_LAUNCHER = """
import json, os, resource, subprocess, sys, time
report, command = sys.argv[1], sys.argv[2:]
start = time.perf_counter()
status = subprocess.call(command)
seconds = time.perf_counter() - start
used = resource.getrusage(resource.RUSAGE_CHILDREN)
cpu = used.ru_utime + used.ru_stime
with open(report, "w") as file:
    json.dump({"status": status, "seconds": seconds, "peak": used.ru_maxrss, "cpu": cpu}, file)
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Finished:
    """A child process that has ended."""

    status: int
    """Exit status; negative = the signal that ended it."""
    stdout: str
    """What it wrote."""
    stderr: str
    """What it wrote as messages."""
    seconds: float
    """Wall time."""
    cpu_seconds: float
    """Time of all processor cores together."""
    peak_mib: float
    """Largest resident memory, in MiB."""


def restore_command(*arguments: str | os.PathLike[str]) -> list[str]:
    """Command line that runs `restore ARGUMENTS` with this Python."""
    return [sys.executable, *PROGRAM, *(os.fspath(argument) for argument in arguments)]


def run_measured(
    command: Sequence[str], *, environment: Mapping[str, str] | None = None
) -> Finished:
    """Run a command to its end and measure it (Linux and macOS); `environment` None = ours."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        done = subprocess.run(
            [sys.executable, "-c", _LAUNCHER, str(report), *command],
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            env=environment,
        )
        measured = json.loads(report.read_text(encoding="utf-8"))
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux KiB
    return Finished(
        status=measured["status"],
        stdout=done.stdout,
        stderr=done.stderr,
        seconds=measured["seconds"],
        cpu_seconds=measured["cpu"],
        peak_mib=measured["peak"] * unit / 2**20,
    )


def last_line(finished: Finished) -> str:
    """The last line that a failed child wrote: what went wrong."""
    lines = (finished.stderr.strip() or finished.stdout.strip() or "(no message)").splitlines()
    return lines[-1]


def machine() -> str:
    """One line: processor, cores that may be used, system, versions."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return (
        f"{_processor()}, {cores} cores, {platform.system()} {platform.machine()}, "
        f"Python {platform.python_version()}, torch {_version('torch')}, PyAV {_version('av')}"
    )


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown processor"


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "missing"


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table with columns of even width."""
    cells = [list(header), *([_cell(value) for value in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    lines = [
        "| " + " | ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) + " |"
        for row in cells
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")


def exit_status(work: Callable[[], object]) -> int:
    """Do the work of a script: 0 = done, 1 = could not, with one line that says why."""
    try:
        work()
    except (RestoreError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def parser(module_doc: str | None, *, examples: Sequence[str]) -> argparse.ArgumentParser:
    """A parser whose help is the script's docstring and runnable examples."""
    shown = "\n".join(f"  {line}" for line in examples)
    return argparse.ArgumentParser(
        description=module_doc,
        epilog=f"examples:\n{shown}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
