"""What lies in SRC, and the name of each result in DST, whose tree is the same.

A clip's container is known only when it is read, so it claims its name with any suffix.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import Literal

from restore.batch.store import Entry, Store
from restore.batch_config import BatchConfig
from restore.degrading.plan import CLIP_SUFFIXES
from restore.errors import InputError, OptionError
from restore.image.encode import SUFFIXES
from restore.image.plan import PICTURE_SUFFIXES, format_in, written_as

Kind = Literal["picture", "clip"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """One input and where its result may go."""

    entry: Entry
    """The file."""
    kind: Kind
    """What it is, by its name."""
    plain: str
    """Path of the result below DST; of a clip without the suffix."""
    full: str
    """The same with the input's suffix in the name, for when another input claims `plain`."""


def check_places(source: Store, target: Store) -> None:
    """Refuse folders that cannot be SRC and DST.

    Raises:
        InputError: SRC is not a folder.
        OptionError: results would fall among the inputs.
    """
    if source.local is None or target.local is None:
        if source.url == target.url:
            raise OptionError(f"SRC and DST are both {source.url}; give another DST")
        return
    if source.local.is_file():
        raise InputError(
            f"{source.local} is a file; give the folder it is in, "
            "or run 'restore image' or 'restore video' on it"
        )
    if not source.local.is_dir():
        raise InputError(f"{source.local} is not there; give a folder of pictures and clips")
    if target.local.is_file():
        raise OptionError(f"{target.local} is a file; give a folder as DST")
    inputs, results = os.path.realpath(source.local), os.path.realpath(target.local)
    if inputs == results or inputs.startswith(results.rstrip(os.sep) + os.sep):
        raise OptionError(
            f"SRC ({source.local}) is DST or lies in it, so that originals could be overwritten; "
            "give another DST, such as a new folder beside SRC"
        )


def find_items(source: Store, target: Store, config: BatchConfig) -> Iterator[Found]:
    """Pictures and clips in SRC, in the order of the tree; nothing is kept in memory."""
    for entry in source.entries(without=target.url):
        if not wanted(entry.key, config.include, config.exclude):
            continue
        suffix = PurePosixPath(entry.key).suffix
        if suffix.lower() in PICTURE_SUFFIXES:
            yield _picture(entry, source, config)
        elif suffix.lower() in CLIP_SUFFIXES:
            stem = entry.key.removesuffix(suffix)
            yield Found(entry=entry, kind="clip", plain=stem, full=f"{stem}_{suffix[1:]}")


def wanted(key: str, include: Sequence[str], exclude: Sequence[str]) -> bool:
    """Whether a path passes the patterns, each of which holds for the whole path or the name."""

    def matches(patterns: Iterable[str]) -> bool:
        name = posixpath.basename(key)
        return any(fnmatchcase(key, one) or fnmatchcase(name, one) for one in patterns)

    return (not include or matches(include)) and not matches(exclude)


def claim(kind: Kind, path: str) -> str:
    """What two results must not share: the name, of a clip with any suffix."""
    path = f"{path}.*" if kind == "clip" else path
    return path.lower() if os.name == "nt" else path


def claims_of(key: str) -> list[str]:
    """What a file that lies in DST claims already."""
    stem, suffix = posixpath.splitext(key)
    extra = [claim("clip", stem)] if suffix.lower() in CLIP_SUFFIXES else []
    return [key, claim("picture", key), *extra]


def _picture(entry: Entry, source: Store, config: BatchConfig) -> Found:
    name = PurePosixPath(entry.key)
    known: str | None = config.ext
    if config.ext == "auto":  # elsewhere than on this machine each look would be a request
        own = SUFFIXES.get(name.suffix.lower())
        known = own if source.local is None else format_in(source.local / entry.key)
    form = written_as(known)
    same = config.ext == "auto" and SUFFIXES.get(name.suffix.lower()) == form
    ending = name.suffix if same else f".{form}"  # photo.JPEG stays photo.JPEG
    stem = entry.key.removesuffix(name.suffix)
    return Found(
        entry=entry,
        kind="picture",
        plain=stem + ending,
        full=f"{stem}_{name.suffix[1:]}{ending}",
    )
