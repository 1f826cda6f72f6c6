"""Which files a run takes and where each result goes, decided before any work is done."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from restore.bitstream import is_container
from restore.codec_config import CompressConfig, DecompressConfig
from restore.errors import OptionError
from restore.image.encode import SUFFIXES
from restore.image.plan import PICTURE_SUFFIXES, STREAM
from restore.inputs import Found, Identity, expand, identities, identity, look_at, unique

CODED_SUFFIX = ".rsc"
"""Ending of a coded picture where the user names none."""
CODED_SUFFIXES = frozenset({CODED_SUFFIX, ".oscar"})
"""Endings, in small letters, that are taken for coded pictures in a folder or by a pattern."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CodecJob:
    """One input and what is to become of it."""

    source: Path | None
    """File to read; None = stdin."""
    destination: Path | None
    """File to write; None = stdout."""
    verdict: Literal["run", "skip", "fail"] = "run"
    """Do it, pass it over, or list it as failed."""
    reason: str = ""
    """Why it is passed over or failed, one line."""

    @property
    def names(self) -> tuple[str, str]:
        """Names of input and result for an event."""
        source, destination = (
            STREAM if path is None else str(path) for path in (self.source, self.destination)
        )
        return source, destination


@dataclass(frozen=True, kw_only=True, slots=True)
class _Kind:
    """What a direction reads and writes."""

    what: str
    """What an input is called."""
    read: frozenset[str]
    """Endings of inputs in a folder, in small letters."""
    written: str
    """Ending of results."""


def plan_files(
    inputs: Sequence[str | Path], config: CompressConfig | DecompressConfig
) -> list[CodecJob]:
    """One job for each input, in the order of the inputs, folders sorted by name.

    Args:
        inputs: files, folders, patterns (`*`, `?`, `[]`, `**`), or `"-"` for stdin alone.
        config: output, and what to do with results that exist.

    Raises:
        OptionError: the output does not go with the inputs, or two results would get one name.
    """
    names = [os.fspath(name) for name in inputs]
    if isinstance(config, CompressConfig):
        kind = _Kind(what="picture", read=PICTURE_SUFFIXES, written=CODED_SUFFIX)
    else:
        kind = _Kind(what="coded picture", read=CODED_SUFFIXES, written=f".{config.ext}")
    if not names:
        raise OptionError("no input was given; give files, folders or patterns such as '*.png'")
    if STREAM in names or config.output == STREAM:
        return [_stream_job(names, config)]
    output = None if config.output is None else Path(config.output)
    found = unique(item for name in names for item in _expand(name, config.recursive, output, kind))
    single = len(names) == len(found) == 1 and not Path(names[0]).is_dir()
    as_file = output is not None and single and not output.is_dir() and output.suffix != ""
    if output is not None and not as_file and output.is_file():
        raise OptionError(f"the output '{output}' is a file, the input can be many; give a folder")
    if as_file and output is not None:
        _check_name(output, config)
    jobs = _without_clashes([_job(item, output, kind, as_file=as_file) for item in found])
    return _judged(jobs, config)


def _stream_job(names: list[str], config: CompressConfig | DecompressConfig) -> CodecJob:
    if len(names) > 1 or (names[0] != STREAM and Path(names[0]).is_dir()):
        raise OptionError("- is one stream; give one input file, or - alone, beside it")
    source = None if names[0] == STREAM else Path(names[0])
    if config.output in (None, STREAM):
        if config.json:
            raise OptionError("both the result and --json want stdout; leave --json out or give -o")
        return CodecJob(source=source, destination=None)
    assert config.output is not None
    output = Path(config.output)
    if output.is_dir() or not output.suffix:
        raise OptionError(f"'{output}' is not a file name; for stdin give -o FILE or -o -")
    _check_name(output, config)
    return _judged([CodecJob(source=source, destination=output)], config)[0]


def _check_name(output: Path, config: CompressConfig | DecompressConfig) -> None:
    """Raise OptionError where the name of the output is that of another kind of file."""
    picture = output.suffix.lower() in SUFFIXES
    if isinstance(config, CompressConfig) and output.suffix.lower() in PICTURE_SUFFIXES:
        raise OptionError(
            f"'{output}' has a picture's name, and the result is a coded one; end it {CODED_SUFFIX}"
        )
    if isinstance(config, DecompressConfig) and not picture:
        raise OptionError(
            f"'{output.name}' does not end like a format that can be written; "
            f"use one of {', '.join(SUFFIXES)}"
        )


def _expand(name: str, recursive: bool, output: Path | None, kind: _Kind) -> Iterator[Found]:
    return expand(
        name,
        recursive=recursive,
        output=output,
        is_known=lambda path: _is_known(path, kind),
        what=kind.what,
        looked_for=f"looked for {' '.join(sorted(kind.read))}",
    )


def _is_known(path: Path, kind: _Kind) -> bool:
    """By its name; a coded picture by its first bytes too, as it can have any name."""
    if path.name.startswith("."):
        return False
    if path.suffix.lower() in kind.read:
        return True
    if kind.read is not CODED_SUFFIXES or path.suffix.lower() in PICTURE_SUFFIXES:
        return False
    try:
        if not path.is_file():  # a pipe would wait for its writer
            return False
        with path.open("rb") as stream:
            return is_container(stream.read(4))
    except OSError:
        return False


def _job(item: Found, output: Path | None, kind: _Kind, *, as_file: bool) -> CodecJob:
    inside = item.path.relative_to(item.root)
    named = inside.with_name(f"{item.path.stem}{kind.written}") if inside.name else inside
    folder = item.root if output is None else output
    destination = output if as_file else folder / named
    verdict: Literal["run", "fail"] = "fail" if item.problem else "run"
    return CodecJob(source=item.path, destination=destination, verdict=verdict, reason=item.problem)


def _without_clashes(jobs: list[CodecJob]) -> list[CodecJob]:
    """Name results after the whole name of the input where two would share one."""

    def repeated(jobs: list[CodecJob]) -> Counter[str]:
        return Counter(
            os.path.normcase(job.destination or "") for job in jobs if job.verdict == "run"
        )

    names = repeated(jobs)
    jobs = [
        _renamed(job)
        if job.verdict == "run" and names[os.path.normcase(job.destination or "")] > 1
        else job
        for job in jobs
    ]
    names = repeated(jobs)
    for job in jobs:
        if job.verdict == "run" and names[os.path.normcase(job.destination or "")] > 1:
            raise OptionError(
                f"'{job.source}' and another input would both become '{job.destination}'; "
                "give the folder above them, whose tree is mirrored"
            )
    return jobs


def _renamed(job: CodecJob) -> CodecJob:
    """`a.jpg` becomes `a_jpg.rsc`."""
    assert job.source is not None and job.destination is not None
    ending = job.source.suffix.removeprefix(".")
    name = f"{job.source.stem}_{ending}{job.destination.suffix}"
    return replace(job, destination=job.destination.with_name(name))


def _judged(jobs: list[CodecJob], config: CompressConfig | DecompressConfig) -> list[CodecJob]:
    """Look at what exists: results are skipped or refused, inputs are never written over."""
    sources = (job.source for job in jobs if job.verdict == "run")
    originals = identities(source for source in sources if source is not None)
    return [_judged_one(job, config, originals) for job in jobs]


def _judged_one(
    job: CodecJob,
    config: CompressConfig | DecompressConfig,
    originals: dict[Identity, Path],
) -> CodecJob:
    target = job.destination
    if job.verdict != "run" or target is None:
        return job
    if job.source is not None and identity(job.source) is None:
        return job  # reading a missing file will say so
    standing = look_at(target, originals)
    if standing.problem:
        return replace(job, verdict="fail", reason=standing.problem)
    if not standing.taken:
        return job
    if standing.original is not None:
        reason = f"its result '{target}' would overwrite an input; choose another name with -o"
        return replace(job, verdict="fail", reason=reason)
    if config.skip_existing and not target.is_dir():
        return replace(job, verdict="skip", reason=f"'{target}' is already there")
    if target.is_dir() or not config.overwrite:
        reason = f"'{target}' is already there; add --skip-existing or --overwrite"
        return replace(job, verdict="fail", reason=reason)
    return job
