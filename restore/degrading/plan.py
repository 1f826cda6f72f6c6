"""Which files a run degrades and where each result goes, decided before any work is done."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from restore.data_config import DegradeConfig
from restore.errors import OptionError
from restore.image.encode import SUFFIXES
from restore.image.metadata import sniff_format
from restore.image.plan import PICTURE_SUFFIXES
from restore.inputs import Found, Identity, expand, identities, identity, look_at, unique

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
    found = unique(item for name in names for item in _expand(name, config.recursive, output))
    single = len(names) == len(found) == 1 and not Path(names[0]).is_dir()
    as_file = single and not output.is_dir() and output.suffix != ""
    if not as_file and output.is_file():
        raise OptionError(f"the output '{output}' is a file, the input can be many; give a folder")
    jobs = [_job(item, output, config, as_file=as_file) for item in found]
    jobs = _without_clashes(jobs)
    originals = identities(job.source for job in jobs)
    return [_judged(job, config, originals) for job in jobs]


def _expand(name: str, recursive: bool, output: Path) -> Iterator[Found]:
    return expand(
        name,
        recursive=recursive,
        output=output,
        is_known=_is_known,
        what="picture or clip",
        looked_for=f"looked for {' '.join(sorted(PICTURE_SUFFIXES | CLIP_SUFFIXES))}",
    )


def _is_known(path: Path) -> bool:
    known = path.suffix.lower() in PICTURE_SUFFIXES | CLIP_SUFFIXES
    return known and not path.name.startswith(".")


def _job(item: Found, output: Path, config: DegradeConfig, *, as_file: bool) -> DegradeJob:
    is_clip = _is_clip(item.path)
    inside = item.path.relative_to(item.root)
    suffix = CLIP_FORMATS[config.codec][1] if is_clip else f".{config.ext}"
    destination = output
    if not as_file:
        named = inside.with_name(f"{item.path.stem}{suffix}") if inside.name else inside
        destination = output / named
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
    names = _records(jobs)
    jobs = [
        _renamed(job) if job.verdict == "run" and names[os.path.normcase(job.record)] > 1 else job
        for job in jobs
    ]
    names = _records(jobs)
    for job in jobs:
        if job.verdict == "run" and names[os.path.normcase(job.record)] > 1:
            raise OptionError(
                f"'{job.source}' and another input would both become '{job.destination}'; "
                "give the folder above them, whose tree is mirrored"
            )
    return jobs


def _records(jobs: list[DegradeJob]) -> Counter[str]:
    """How many jobs would write each record."""
    return Counter(os.path.normcase(job.record) for job in jobs if job.verdict == "run")


def _renamed(job: DegradeJob) -> DegradeJob:
    """`a.jpg` becomes `a_jpg.png`."""
    ending = job.source.suffix.removeprefix(".")
    name = f"{job.source.stem}_{ending}{job.destination.suffix}"
    return replace(job, destination=job.destination.with_name(name))


def _judged(job: DegradeJob, config: DegradeConfig, originals: dict[Identity, Path]) -> DegradeJob:
    """Look at what exists: results are skipped or refused, inputs are never written over."""
    if job.verdict != "run" or identity(job.source) is None:
        return job  # reading a missing file will say so
    for target in (job.destination, job.record):
        standing = look_at(target, originals)
        if standing.problem:
            return replace(job, verdict="fail", reason=standing.problem)
        if not standing.taken:
            continue
        if standing.original is not None:
            reason = f"its result '{target}' would overwrite an input; choose another folder"
            return replace(job, verdict="fail", reason=reason)
        if config.skip_existing:
            return replace(job, verdict="skip", reason=f"'{target}' is already there")
        if target.is_dir() or not config.overwrite:
            reason = f"'{target}' is already there; add --skip-existing or --overwrite"
            return replace(job, verdict="fail", reason=reason)
    return job
