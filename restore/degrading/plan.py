"""Which files a run degrades and where each result goes, decided before any work is done."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from restore.data_config import DegradeConfig
from restore.errors import OptionError
from restore.image.encode import SUFFIXES
from restore.image.files import output_reason
from restore.image.metadata import sniff_format
from restore.image.plan import PICTURE_SUFFIXES

Verdict = Literal["run", "skip", "fail"]

CLIP_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".ts", ".mts", ".m2ts", ".mpg", ".mpeg"}
    | {".wmv", ".flv", ".3gp", ".ogv", ".nut"}
)
"""Suffixes, in small letters, that are taken for clips in a folder or by a pattern."""

CLIP_FORMATS = {"h264": ("mp4", ".mp4"), "ffv1": ("nut", ".nut")}
"""Container and suffix of each codec. FFV1 goes into NUT, which keeps time stamps exactly; as
PyAV writes MKV, the same clip gives another file each time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DegradeJob:
    """One input and what is to become of it."""

    source: Path
    """File to read."""
    key: str
    """Its name from the folder that was given, with slashes; the seed is mixed with it."""
    is_clip: bool
    """A clip, not a picture."""
    destination: Path
    """File to write."""
    verdict: Verdict = "run"
    """Degrade it, pass it over, or list it as failed."""
    reason: str = ""
    """Why it is passed over or failed, one line."""

    @property
    def record(self) -> Path:
        """File for what was drawn, beside the result."""
        return self.destination.with_suffix(".json")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Found:
    path: Path
    root: Path
    problem: str = ""


def plan_degradation(inputs: Sequence[str | Path], config: DegradeConfig) -> list[DegradeJob]:
    """One job for each input, in the order of the inputs, folders sorted.

    Args:
        inputs: files, folders, and patterns (`*`, `?`, `[]`, `**`).
        config: output, formats, and what to do with results that exist.

    Raises:
        OptionError: there is no input or no output, or two results would get one name.
    """
    names = [os.fspath(name) for name in inputs]
    if not names:
        raise OptionError("no input was given; give pictures, clips, folders or patterns")
    if config.output is None:
        raise OptionError("no output was given; give a folder with -o, or a file for one input")
    output = Path(config.output)
    found = [item for name in names for item in _expand(name, config.recursive, output)]
    found = list({os.path.normpath(item.path.absolute()): item for item in found}.values())
    single = len(names) == len(found) == 1 and not Path(names[0]).is_dir()
    as_file = single and not output.is_dir() and output.suffix != ""
    if not as_file and output.is_file():
        raise OptionError(f"the output '{output}' is a file, the input can be many; give a folder")
    jobs = [_job(item, output, config, as_file=as_file) for item in found]
    jobs = _without_clashes(jobs)
    inputs_seen = {_identity(job.source): job.source for job in jobs}
    return [_judged(job, config, inputs_seen) for job in jobs]


def _expand(name: str, recursive: bool, output: Path) -> Iterator[_Found]:
    path = Path(name)
    if path.is_dir():
        yield from _in_folder(path, recursive, output)
    elif path.exists() or not glob.has_magic(name):
        yield _Found(path=path, root=path.parent)
    else:
        parts = Path(name).parts
        fixed = next(i for i, part in enumerate(parts) if glob.has_magic(part))
        root = Path(*parts[:fixed])
        # Path.glob would go into hidden folders as well.
        matches = sorted(Path(match) for match in glob.glob(name, recursive=True))  # noqa: PTH207
        files = [match for match in matches if match.is_file() and _is_known(match)]
        if not files:
            problem = "nothing matches this pattern that is a picture or a clip; check it"
            yield _Found(path=path, root=root, problem=problem)
        for file in files:
            yield _Found(path=file, root=root)


def _in_folder(folder: Path, recursive: bool, output: Path) -> Iterator[_Found]:
    """Pictures and clips, sorted; hidden ones and the output folder inside it are left out."""
    count = 0
    for here, folders, files in os.walk(folder):
        folders[:] = sorted(
            name
            for name in folders
            if recursive
            and not name.startswith(".")
            and os.path.realpath(Path(here, name)) != os.path.realpath(output)
        )
        for name in sorted(files):
            if _is_known(path := Path(here, name)):
                count += 1
                yield _Found(path=path, root=folder)
    if not count:
        deeper = "" if recursive else "; for folders below add --recursive"
        problem = f"there is no picture and no clip in this folder{deeper}"
        yield _Found(path=folder, root=folder.parent, problem=problem)


def _is_known(path: Path) -> bool:
    known = path.suffix.lower() in PICTURE_SUFFIXES | CLIP_SUFFIXES
    return known and not path.name.startswith(".")


def _job(item: _Found, output: Path, config: DegradeConfig, *, as_file: bool) -> DegradeJob:
    is_clip = _is_clip(item.path)
    inside = item.path.relative_to(item.root)
    suffix = CLIP_FORMATS[config.codec][1] if is_clip else f".{config.ext}"
    destination = output
    if not as_file:
        destination = output / inside.with_name(f"{item.path.stem}{suffix}")
    elif not item.problem:
        _check_file_name(output, is_clip=is_clip, suffix=suffix)
    return DegradeJob(
        source=item.path,
        key=inside.as_posix(),
        is_clip=is_clip,
        destination=destination,
        verdict="fail" if item.problem else "run",
        reason=item.problem,
    )


def _check_file_name(output: Path, *, is_clip: bool, suffix: str) -> None:
    """Raise OptionError where the name of the output asks for another format than the flags."""
    given = output.suffix.lower()
    fits = given == suffix if is_clip else SUFFIXES.get(given) == SUFFIXES[suffix]
    if not fits:
        flags = "--codec" if is_clip else "--ext"
        raise OptionError(
            f"'{output}' does not end in {suffix}; change the name, or choose with {flags}"
        )


def _is_clip(path: Path) -> bool:
    """By the first bytes, else by the name."""
    try:
        with path.open("rb") as stream:
            kind = sniff_format(stream.read(64)) if path.is_file() else None
    except (OSError, ValueError):
        kind = None
    return kind == "video" if kind is not None else path.suffix.lower() in CLIP_SUFFIXES


def _without_clashes(jobs: list[DegradeJob]) -> list[DegradeJob]:
    """Name results after the whole name of the input where two would share a record."""
    names = Counter(os.path.normcase(job.record) for job in jobs)
    jobs = [_renamed(job) if names[os.path.normcase(job.record)] > 1 else job for job in jobs]
    names = Counter(os.path.normcase(job.record) for job in jobs)
    for job in jobs:
        if names[os.path.normcase(job.record)] > 1:
            raise OptionError(
                f"'{job.source}' and another input would both become '{job.destination}'; "
                "give the folder above them, whose tree is mirrored"
            )
    return jobs


def _renamed(job: DegradeJob) -> DegradeJob:
    """`a.jpg` becomes `a_jpg.png`."""
    ending = job.source.suffix.removeprefix(".")
    name = f"{job.source.stem}_{ending}{job.destination.suffix}"
    return replace(job, destination=job.destination.with_name(name))


def _judged(
    job: DegradeJob, config: DegradeConfig, inputs: dict[tuple[int, int] | None, Path]
) -> DegradeJob:
    """Look at what exists: results are skipped or refused, inputs are never written over."""
    if job.verdict != "run" or _identity(job.source) is None:
        return job  # reading a missing file will say so
    for target in (job.destination, job.record):
        try:
            target.lstat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, ValueError) as error:
            reason = output_reason(error) if isinstance(error, OSError) else str(error)
            return replace(job, verdict="fail", reason=f"'{target}' cannot be written: {reason}")
        known = _identity(target)
        if known is not None and known in inputs:
            reason = f"its result '{target}' would overwrite an input; choose another folder"
            return replace(job, verdict="fail", reason=reason)
        if config.skip_existing:
            return replace(job, verdict="skip", reason=f"'{target}' is already there")
        if target.is_dir() or not config.overwrite:
            reason = f"'{target}' is already there; add --skip-existing or --overwrite"
            return replace(job, verdict="fail", reason=reason)
    return job


def _identity(path: Path) -> tuple[int, int] | None:
    """What tells a file from all others on this machine, whatever links lead to it."""
    try:
        facts = path.stat()
    except (OSError, ValueError):
        return None
    return facts.st_dev, facts.st_ino
