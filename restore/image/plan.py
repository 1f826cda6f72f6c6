"""Which pictures a run takes and where each result goes, decided before any work is done."""

from __future__ import annotations

import contextlib
import os
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from restore.config import ImageConfig
from restore.errors import OptionError
from restore.image.encode import SUFFIXES, WritableFormat
from restore.image.files import format_of
from restore.image.metadata import sniff_format
from restore.inputs import Found, Identity, exists, expand, identities, look_at, unique

PICTURE_SUFFIXES = frozenset(
    # The last line cannot be read, but passing over it in silence would look like success.
    {*SUFFIXES, ".apng", ".gif", ".bmp", ".dib", ".ppm", ".pgm", ".pbm", ".pnm", ".mpo"}
    | {".heic", ".heif", ".jxl"}
)
"""Suffixes, in small letters, that are taken for pictures in a folder or by a pattern."""

# What `_default_suffix` makes: _x4, _x2.5, _3840x2160, _1080p.
_DEFAULT_SUFFIX = re.compile(r"_(x\d+(\.\d+)?|\d+x\d+|\d+p)$")

STREAM = "-"
"""Name of stdin among the inputs, and of stdout as the output."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One input and what is to become of it."""

    source: Path | None
    """File to read; None = stdin."""
    destination: Path | None
    """File to write; None = stdout, or nothing because of `verdict`."""
    format: WritableFormat | None
    """Format of the result; None = as the input, once it is read."""
    verdict: Literal["run", "skip", "fail"] = "run"
    """Restore it, pass it over, or list it as failed."""
    reason: str = ""
    """Why it is passed over or failed, one line."""


def plan_images(
    inputs: Sequence[str | Path], config: ImageConfig, *, method_scale: int
) -> list[Job]:
    """One job for each input picture, in the order of the inputs, folders sorted.

    The disk is only looked at: names, what exists, and the first bytes of each input, which say
    its format.

    Args:
        inputs: files, folders, patterns (`*`, `?`, `[]`, `**`), or `"-"` for stdin alone.
        config: output, names, and what to do with results that exist.
        method_scale: scale of the method, for the names of the results.

    Raises:
        OptionError: the output does not go with the inputs, or two results would get one name.
    """
    names = [os.fspath(name) for name in inputs]
    if not names:
        raise OptionError("no input was given; give pictures, folders or patterns such as '*.jpg'")
    if config.suffix is not None and (set(config.suffix) & {"/", "\\", "\0"}):
        raise OptionError(f"suffix '{config.suffix}' holds a path; give text for the name only")
    if STREAM in names:
        return [_plan_stream(names, config)]
    if config.output == STREAM:
        return [_plan_to_stdout(names, config)]
    found = unique(item for name in names for item in _expand(name, config))
    single = _single_destination(names, found, config)
    if single is not None:
        jobs = [_file_job(found[0], single, config)]
    else:
        jobs = _folder_jobs(found, config, method_scale)
    return _judge(jobs, config)


def _plan_stream(names: list[str], config: ImageConfig) -> Job:
    if len(names) > 1:
        raise OptionError("'-' (stdin) was given beside other inputs; give it alone")
    if config.output in (None, STREAM):
        return _stdout_job(None, config)
    assert config.output is not None
    output = Path(config.output)
    if output.is_dir() or not output.suffix:
        raise OptionError(f"'{output}' is not a file name; for stdin give -o FILE.png or -o -")
    return _judge([_file_job(None, output, config)], config)[0]


def _plan_to_stdout(names: list[str], config: ImageConfig) -> Job:
    if len(names) > 1 or Path(names[0]).is_dir():
        raise OptionError("stdout takes one picture; give one input file, or a folder with -o")
    return _stdout_job(Path(names[0]), config)


def _stdout_job(source: Path | None, config: ImageConfig) -> Job:
    if config.json:
        raise OptionError("both the picture and --json want stdout; leave --json out or give -o")
    name = None if config.ext == "auto" else config.ext
    return Job(source=source, destination=None, format=name)


def _expand(name: str, config: ImageConfig) -> Iterator[Found]:
    return expand(
        name,
        recursive=config.recursive,
        output=config.output,
        is_known=_is_picture_name,
        what="picture",
        looked_for=f"looked for {' '.join(sorted(PICTURE_SUFFIXES))}",
    )


def _is_picture_name(path: Path) -> bool:
    return path.suffix.lower() in PICTURE_SUFFIXES and not path.name.startswith(".")


def _single_destination(names: list[str], found: list[Found], config: ImageConfig) -> Path | None:
    """The output as the name of a file, or None where it is a folder or not given."""
    if config.output is None:
        return None
    output = Path(config.output)
    if output.is_dir() or config.output.endswith(("/", os.sep)):
        return None
    one_file = len(names) == 1 and len(found) == 1 and not Path(names[0]).is_dir()
    looks_like_file = output.suffix.lower() in SUFFIXES or (one_file and output.suffix != "")
    if one_file and (looks_like_file or output.exists()):
        return output
    if looks_like_file or output.exists():
        raise OptionError(
            f"the output '{output}' is one file and the input can be many; give a folder with -o"
        )
    return None


def _file_job(item: Found | None, output: Path, config: ImageConfig) -> Job:
    name = format_of(output) if output.suffix.lower() in SUFFIXES or config.ext == "auto" else None
    if config.ext not in ("auto", name) and name is not None:
        raise OptionError(f"'{output}' and --ext {config.ext} disagree; leave --ext out")
    source = None if item is None else item.path
    job = Job(source=source, destination=output, format=name or written_as(config.ext))
    if item is not None and item.problem:
        return replace(job, verdict="fail", reason=item.problem)
    return job


def written_as(name: str | None) -> WritableFormat:
    """The format itself where it can be written, else PNG."""
    return next((known for known in SUFFIXES.values() if known == name), "png")


def _folder_jobs(found: list[Found], config: ImageConfig, method_scale: int) -> list[Job]:
    """Jobs whose results lie beside the inputs or in the output folder, as a mirrored tree."""
    beside = _default_suffix(config, method_scale) if config.suffix is None else config.suffix
    jobs = []
    for item in found:
        if item.problem:
            job = Job(source=item.path, destination=None, format=None, verdict="fail")
            jobs.append(replace(job, reason=item.problem))
            continue
        if not item.named and (original := _original_of(item.path, beside)) is not None:
            job = Job(source=item.path, destination=None, format=None, verdict="skip")
            text = f"taken for an earlier result of '{original.name}'; name it to restore it"
            jobs.append(replace(job, reason=text))
            continue
        jobs.append(_mirrored_job(item, config, beside))
    return _without_clashes(jobs)


def _default_suffix(config: ImageConfig, method_scale: int) -> str:
    if config.target is not None:
        return f"_{config.target.lower()}"
    return f"_x{method_scale if config.scale is None else config.scale:g}"


def _original_of(path: Path, suffix: str) -> Path | None:
    """The picture of which `path` looks like the result by its name, if it lies beside it.

    Args:
        path: a picture found in a folder.
        suffix: what this run adds to names; what other runs add by default counts as well.
    """
    stem = path.stem.removesuffix(suffix)
    if stem == path.stem:
        stem = _DEFAULT_SUFFIX.sub("", path.stem)
    if stem in ("", path.stem):
        return None
    names = [stem + ending for ending in (path.suffix, *sorted(PICTURE_SUFFIXES))]
    base, _, kept = stem.rpartition("_")  # a.png and a.jpg become a_png_x4 and a_jpg_x4
    if base:
        names.append(f"{base}.{kept}")
    for name in names:
        before, dot, ending = name.rpartition(".")
        for candidate in (name, before + dot + ending.upper()):  # cameras write .JPG
            if path.with_name(candidate).is_file():
                return path.with_name(candidate)
    return None


def _mirrored_job(item: Found, config: ImageConfig, beside: str) -> Job:
    path = item.path
    folder = path.parent
    suffix = beside
    if config.output is not None:
        folder = Path(config.output, path.parent.relative_to(item.root))
        if config.suffix is None and os.path.realpath(folder) != os.path.realpath(path.parent):
            suffix = ""
    name = written_as(format_in(path) if config.ext == "auto" else config.ext)
    same = config.ext == "auto" and SUFFIXES.get(path.suffix.lower()) == name
    ending = path.suffix if same else f".{name}"  # photo.JPEG stays photo.JPEG
    return Job(source=path, destination=folder / f"{path.stem}{suffix}{ending}", format=name)


def format_in(path: Path) -> str | None:
    """Format of a file by its first bytes, else by its name."""
    with contextlib.suppress(OSError, ValueError):
        if path.is_file():  # a pipe would wait for its writer
            with path.open("rb") as stream:
                kind = sniff_format(stream.read(64))
            if kind is not None:
                return kind
    return SUFFIXES.get(path.suffix.lower())


def _without_clashes(jobs: list[Job]) -> list[Job]:
    """Give results that would share a name the suffix of their inputs: `a_png_x4`, `a_jpg_x4`."""
    groups = _by_destination(jobs)
    jobs = [_with_input_suffix(job) if len(groups[_key(job)]) > 1 else job for job in jobs]
    for key, group in _by_destination(jobs).items():
        if key and len(group) > 1:
            raise OptionError(
                f"'{group[0].source}' and '{group[1].source}' would both become "
                f"'{group[0].destination}'; give the folder above them, whose tree is mirrored, "
                "or restore them one by one, each with its own -o"
            )
    return jobs


def _key(job: Job) -> str:
    """The result's place on the disk; empty for a job without one."""
    return os.path.normcase(os.path.normpath(job.destination.absolute())) if job.destination else ""


def _by_destination(jobs: list[Job]) -> dict[str, list[Job]]:
    groups: dict[str, list[Job]] = defaultdict(list)
    for job in jobs:
        groups[_key(job)].append(job)
    return groups


def _with_input_suffix(job: Job) -> Job:
    if job.source is None or job.destination is None:
        return job
    rest = job.destination.name.removeprefix(job.source.stem)
    name = f"{job.source.stem}_{job.source.suffix.removeprefix('.')}{rest}"
    return replace(job, destination=job.destination.with_name(name))


def _judge(jobs: list[Job], config: ImageConfig) -> list[Job]:
    """Look at what exists: results are skipped or refused, inputs are never written over."""
    sources = (job.source for job in jobs if job.verdict == "run")
    originals = identities(source for source in sources if source is not None)
    return [_judge_one(job, config, originals) for job in jobs]


def _judge_one(job: Job, config: ImageConfig, originals: dict[Identity, Path]) -> Job:
    target = job.destination
    if job.verdict != "run" or target is None:
        return job
    if job.source is not None and not exists(job.source):
        return job  # reading it will say so
    standing = look_at(target, originals)
    if standing.problem:
        return replace(job, verdict="fail", reason=standing.problem)
    if not standing.taken:
        return job
    if standing.original is not None:
        reason = f"its result '{target}' would overwrite the input '{standing.original}'"
        reason += "; choose another folder with -o, or a --suffix"
        return replace(job, verdict="fail", reason=reason)
    if target.is_dir():
        reason = f"its result '{target}' is the name of a folder; choose another name with -o"
        return replace(job, verdict="fail", reason=reason)
    if config.skip_existing:
        return replace(job, verdict="skip", reason=f"'{target}' is already there")
    if config.overwrite:
        return job
    reason = f"'{target}' is already there; add --skip-existing or --overwrite"
    return replace(job, verdict="fail", reason=reason)
