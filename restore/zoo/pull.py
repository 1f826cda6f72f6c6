"""Bring weights into the cache, once: fetch, check, convert pickles to safetensors."""

from __future__ import annotations

import datetime
import importlib
import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from restore.errors import WeightsError
from restore.zoo.cache import Record, Shelf, alone, is_pickle, writing
from restore.zoo.download import fetch_file
from restore.zoo.entries import find_entry
from restore.zoo.entry import Variant, ZooFile
from restore.zoo.hashing import hash_file
from restore.zoo.network import Network

log = logging.getLogger("restore.zoo")

Progress = Callable[[str, str, int, int | None], None]
"""Called with the name of an entry, a path in it, the bytes that are here, and those of all, None
where nobody knows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pulled:
    """What was done for one entry."""

    name: str
    """The entry."""
    path: Path
    """File or folder to load."""
    fetched: int
    """Bytes that came over the network; 0 = all was here."""
    converted: bool
    """Whether a safetensors file was made."""
    unpublished: tuple[str, ...]
    """Files whose hash nobody published: that of this first download counts from now on."""


def with_needs(names: Iterable[str]) -> list[str]:
    """`names` with all that they stand on, each once, in the order in which it is needed.

    Raises:
        OptionError: there is no entry of that name.
    """
    found: list[str] = []

    def add(name: str) -> None:
        for needed in find_entry(name).requires:
            add(needed)
        if name not in found:
            found.append(name)

    for name in names:
        add(name)
    return found


def pull(
    names: Iterable[str],
    *,
    network: Network,
    variant: Variant = "fp32",
    keep: bool = False,
    progress: Progress | None = None,
) -> Iterator[Pulled]:
    """Bring the entries `names` into the cache; yields each when it is there.

    Args:
        names: entries.
        network: how the network may be used.
        variant: number format, where an entry has several.
        keep: keep a pickle that was converted, too.
        progress: called while bytes arrive.

    Raises:
        OptionError: there is no entry of that name.
        WeightsError: it could not be fetched, or is not what it should be.
        OutputError: the cache has no room or cannot be written.
    """
    for entry in [find_entry(name) for name in names]:
        shelf = Shelf(entry)
        if shelf.missing(variant) and network.offline:
            raise WeightsError(say_missing(shelf, variant, offline=True))
        yield pull_entry(shelf, network=network, variant=variant, keep=keep, progress=progress)


def pull_entry(
    shelf: Shelf,
    *,
    network: Network,
    variant: Variant = "fp32",
    keep: bool = False,
    progress: Progress | None = None,
) -> Pulled:
    """Bring one entry into the cache, as `pull` does."""
    entry = shelf.entry
    fetched, converted = 0, False
    with alone(shelf):
        for file in entry.choose(variant):
            if shelf.path(file) is None:
                fetched += _fetch(shelf, file, network, progress)
            if is_pickle(file) and shelf.path(file) != shelf.converted(file):
                convert_pickle(shelf, file, keep=keep)
                converted = True
        records = shelf.records()
    return Pulled(
        name=entry.name,
        path=locate_on(shelf),
        fetched=fetched,
        converted=converted,
        unpublished=tuple(
            file.path
            for file in entry.choose(variant)
            if file.path in records and records[file.path].trust != "published"
        ),
    )


def locate_on(shelf: Shelf) -> Path:
    """The file or folder of an entry that a method loads.

    Raises:
        WeightsError: something of it is missing.
    """
    if shelf.missing():
        raise WeightsError(say_missing(shelf))
    if shelf.entry.kind == "base" or shelf.entry.folder:
        return shelf.folder
    path = shelf.path(shelf.entry.files[0])
    assert path is not None
    return path


def say_missing(shelf: Shelf, variant: Variant | None = None, *, offline: bool = False) -> str:
    """The line that says what is missing of an entry and how it is got."""
    entry = shelf.entry
    missing = shelf.missing(variant)
    more = f" and {len(missing) - 1} more files" if len(missing) > 1 else ""
    what = f"{missing[0].path}{more} of '{entry.name}'"
    how = f"'restore models pull {entry.name}'"
    if offline:
        why = "--offline, RESTORE_OFFLINE or HF_HUB_OFFLINE is set"
        return f"{what}: not on this machine, and {why}; run {how} with a network"
    return f"{what}: not on this machine; run {how}, or see {entry.pages[0]}"


def convert_pickle(shelf: Shelf, file: ZooFile, *, keep: bool = False) -> None:
    """Make the safetensors file of a pickle in the cache, and note what it was made from.

    Raises:
        WeightsError: the pickle cannot be read, or holds code.
        OutputError: the result cannot be written.
    """
    module, _, function = file.converter.partition(":")
    convert = getattr(importlib.import_module(module), function)
    source, target = shelf.place(file), shelf.converted(file)
    origin = shelf.records().get(file.path)
    if origin is None:  # put there by hand
        origin = _record("", source, file)
        shelf.remember(file.path, origin)
    log.info("converting %s to safetensors", source)
    with writing(target):
        convert(source, target)
        digests = hash_file(target)
    shelf.remember(
        target.name,
        Record(
            url="",
            size=digests.size,
            sha256=digests.sha256,
            trust="converted",
            time=_now(),
            made_from=origin.sha256,
        ),
    )
    if not keep:
        with writing(source):
            source.unlink()


def _fetch(shelf: Shelf, file: ZooFile, network: Network, progress: Progress | None) -> int:
    """Fetch one file; the bytes that came."""
    name = shelf.entry.name
    before = shelf.records().get(file.path)
    try:
        receipt = fetch_file(
            file,
            shelf.place(file),
            part=shelf.part(file),
            network=network,
            known_sha256=before.sha256 if before else None,
            room=2.0 if is_pickle(file) else 1.0,
            progress=None if progress is None else lambda *n: progress(name, file.path, *n),
        )
    except WeightsError as error:
        changed = (
            f", or delete {shelf.records_path} to trust what is published now"
            if "first download" in str(error)
            else ""
        )
        raise WeightsError(
            f"{name}: {error}; try again later{changed}, or get it from {shelf.entry.pages[0]} and "
            f"put it at {shelf.place(file)}"
        ) from error
    shelf.remember(
        file.path,
        Record(
            url=receipt.url,
            size=receipt.size,
            sha256=receipt.sha256,
            trust=receipt.trust,
            time=_now(),
        ),
    )
    return receipt.size


def _record(url: str, path: Path, file: ZooFile) -> Record:
    """A record of a file that lies in the cache already.

    Raises:
        WeightsError: it is not what was published.
    """
    digests = hash_file(path)
    wrong = digests.differs(file)
    if wrong is not None:
        raise WeightsError(
            f"{path} is not what was published: {wrong}; delete it and pull it again"
        )
    return Record(
        url=url,
        size=digests.size,
        sha256=digests.sha256,
        trust="published" if file.checkable else "first",
        time=_now(),
    )


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
