"""Read weights in the cache again and compare their hashes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from restore.zoo.cache import Shelf, is_pickle
from restore.zoo.entries import ENTRIES, find_entry
from restore.zoo.entry import ZooFile
from restore.zoo.hashing import hash_file

State = Literal["published", "unchanged", "unknown", "changed", "missing"]
"""It is what was published; what was first downloaded or made here; there is nothing to compare it
with; it is neither; it is not here."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """What came of the comparison of one file."""

    name: str
    """The entry."""
    path: Path
    """The file."""
    state: State
    """What it is."""
    sha256: str
    """Its hash now; empty when it is missing."""
    problem: str | None
    """What is wrong and what to do, or None."""


def verify(
    names: Iterable[str] = (), *, progress: Callable[[str, int, int], None] | None = None
) -> Iterator[Check]:
    """Check every file of the entries `names`, or of all that have files here.

    Args:
        names: entries; none = all of which something is here.
        progress: called with the name of an entry, the bytes read, and those of the file.

    Raises:
        OptionError: there is no entry of that name.
    """
    chosen = [find_entry(name) for name in names]
    shelves = [Shelf(entry) for entry in chosen or ENTRIES.values()]
    if not chosen:
        shelves = [shelf for shelf in shelves if any(_is_here(shelf, f) for f in shelf.entry.files)]
    for shelf in shelves:
        for file in _expected(shelf):
            yield from _check_file(shelf, file, progress)


def _expected(shelf: Shelf) -> tuple[ZooFile, ...]:
    """The files of an entry that should be here: those that are, and what belongs to them."""
    here = [file for file in shelf.entry.files if _is_here(shelf, file)]
    formats = {file.variant for file in here} - {None}
    wanted = formats or {shelf.entry.variants[0] if shelf.entry.variants else None}
    return tuple(f for f in shelf.entry.files if f.variant is None or f.variant in wanted)


def _is_here(shelf: Shelf, file: ZooFile) -> bool:
    """Whether the file lies here, be it whole or not."""
    return shelf.place(file).exists() or shelf.path(file) is not None


def _check_file(
    shelf: Shelf, file: ZooFile, progress: Callable[[str, int, int], None] | None
) -> Iterator[Check]:
    """The file as published, the one that was made of it, or both where both are here."""
    records = shelf.records()
    places = [shelf.place(file)]
    if is_pickle(file) and shelf.converted(file).name in records:
        made = shelf.converted(file)
        places = [made, *(place for place in places if place.exists())]
    again = f"delete it and run 'restore models pull {shelf.entry.name}'"
    for place in places:
        name = place.relative_to(shelf.folder).as_posix()
        if not place.is_file():
            problem = f"{place} is missing; run 'restore models pull {shelf.entry.name}'"
            yield Check(
                name=shelf.entry.name, path=place, state="missing", sha256="", problem=problem
            )
            continue
        size = place.stat().st_size
        told = None if progress is None else (lambda n, s=size: progress(shelf.entry.name, n, s))
        digests = hash_file(place, told)
        record = records.get(name)
        wrong = digests.differs(file) if place == shelf.place(file) else None
        if wrong is None and record is not None and digests.sha256 != record.sha256:
            wrong = f"its SHA-256 is {digests.sha256}, and was {record.sha256} on {record.time}"
        state: State = "unknown" if record is None else "unchanged"
        if place == shelf.place(file) and file.checkable:
            state = "published"
        yield Check(
            name=shelf.entry.name,
            path=place,
            state=state if wrong is None else "changed",
            sha256=digests.sha256,
            problem=None if wrong is None else f"{place} has changed: {wrong}; {again}",
        )
