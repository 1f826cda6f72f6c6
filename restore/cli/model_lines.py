"""What people and programs read about weights: lines of text, and plain values for JSON."""

from __future__ import annotations

import dataclasses
from typing import Any

from restore.inventory import CodecEntry, ModelEntry, Registered, ZooState, licence_text
from restore.zoo.cache import Record, Shelf
from restore.zoo.entry import Entry, ZooFile
from restore.zoo.pull import Pulled
from restore.zoo.verify import Check

_COMPARED = {
    "published": "as published",
    "host": "as the host stated it",
    "first": "that of the first download, as none was published",
    "converted": "made here",
}
_STATES = {
    "published": "as published",
    "unchanged": "unchanged since it came here",
    "unknown": "readable; there is no hash to compare it with",
}


def size_text(count: int, *, exact: bool = True) -> str:
    """`3.2 GiB`, `about 19 MiB`, `911 bytes`, or `size not known`."""
    if not count:
        return "size not known"
    about = "" if exact else "about "
    for unit, least, name in ((2**30, 2**30, "GiB"), (2**20, 10**5, "MiB")):
        if count >= least:
            return f"{about}{count / unit:.1f} {name}"
    return f"{about}{count} bytes"


def model_lines(entry: ModelEntry) -> list[str]:
    """What a person reads about one method."""
    scale = f"x{entry.scale}" if entry.scale else "x?"
    default = ", default" if entry.default else ""
    weights = size_text(entry.weights_bytes) if entry.weights else "not here"
    base = f"; stands on: {entry.base}" if entry.base else ""
    return [
        f"{entry.name} ({scale}{default}): {entry.summary}",
        f"    number formats: {', '.join(entry.dtypes)}; weights: {weights}{base}",
        f"    licence of the weights: {licence_text(entry.licence)}",
        *_lacking(entry),
    ]


def codec_lines(entry: CodecEntry) -> list[str]:
    """What a person reads about one codec."""
    rates = " ".join(f"{rate:g}" for rate in entry.rates)
    weights = size_text(entry.weights_bytes) if entry.weights else "not here"
    base = f"; stands on: {entry.base}" if entry.base else ""
    return [
        f"{entry.name} (codec{', default' if entry.default else ''}): {entry.summary}",
        f"    rates in bits per pixel: {rates}",
        f"    number formats: {', '.join(entry.dtypes)}; weights: {weights}{base}",
        f"    licence of the weights: {licence_text(entry.licence)}",
        *_lacking(entry),
    ]


def _lacking(entry: Registered) -> list[str]:
    """Why it cannot be used now, where that is so."""
    if entry.missing:
        return [f"    missing: {', '.join(entry.missing)}; run: restore models pull {entry.name}"]
    return [f"    problem: {entry.problem}"] if entry.problem else []


def zoo_lines(state: ZooState) -> list[str]:
    """What a person reads about weights that can be pulled."""
    here = "here" if state.path else "not here"
    size = size_text(state.bytes, exact=state.exact)
    return [
        f"{state.name} ({state.kind}, {size}): {state.summary}",
        f"    {here}; licence: {licence_text(state.licence)}",
    ]


def entry_values(entry: Entry) -> dict[str, Any]:
    """All that is known of an entry, as plain values."""
    shelf = Shelf(entry)
    records = shelf.records()
    return {
        **dataclasses.asdict(entry),
        "folder": shelf.folder,
        "files": [
            {
                **dataclasses.asdict(file),
                "path_here": shelf.path(file),
                "record": _asdict(records.get(file.path)),
                "converted": _asdict(records.get(shelf.converted(file).name)),
            }
            for file in entry.files
        ],
    }


def entry_lines(entry: Entry) -> list[str]:
    """All that is known of an entry, for a person."""
    lines = [f"{entry.name}: {entry.summary}", f"    licence: {licence_text(entry.licence)}"]
    for title, names in (("needs", entry.requires), ("can use", entry.optional)):
        if names:
            lines.append(f"    {title}: {', '.join(names)}")
    if entry.variants:
        lines.append(f"    number formats to choose from: {', '.join(entry.variants)}")
    lines += [f"    page: {page}" for page in entry.pages]
    if entry.note:
        lines.append(f"    note: {entry.note}")
    shelf = Shelf(entry)
    for file in entry.files:
        lines += _file_lines(shelf, file)
    if shelf.missing():
        lines.append(f"    to fetch: restore models pull {entry.name}")
    return lines


def _file_lines(shelf: Shelf, file: ZooFile) -> list[str]:
    size = size_text(file.bytes, exact=file.size is not None)
    lines = [f"    file {file.path}: {size}", f"        SHA-256 {file.sha256 or 'not known'}"]
    if file.git_blob:
        lines.append(f"        Git blob {file.git_blob}")
    lines += [f"        from {url}" for url in file.urls]
    path, records = shelf.path(file), shelf.records()
    if path is None:
        return [*lines, "        not here"]
    lines.append(f"        here: {path}")
    for record in (records.get(file.path), records.get(shelf.converted(file).name)):
        if record is not None:
            lines.append(f"        {_record_text(record)}")
    return lines


def _record_text(record: Record) -> str:
    origin = f"from {record.url}" if record.url else f"of {record.made_from[:16]}"
    return f"{record.time}, {origin}, SHA-256 {record.sha256} ({_COMPARED[record.trust]})"


def pulled_line(pulled: Pulled) -> str:
    """What a person reads when an entry is there."""
    done = f"{size_text(pulled.fetched)} fetched" if pulled.fetched else "was here"
    converted = ", converted to safetensors" if pulled.converted else ""
    trust = ""
    if pulled.unpublished:
        trust = (
            f"; nobody published a hash of {', '.join(pulled.unpublished)}: that of this download "
            "counts from now on"
        )
    return f"{pulled.name}: {done}{converted}: {pulled.path}{trust if pulled.fetched else ''}"


def check_line(check: Check) -> str:
    """What a person reads of a file that passed."""
    return f"{check.name}: {check.path.name}: {_STATES[check.state]} (SHA-256 {check.sha256})"


def _asdict(record: Record | None) -> dict[str, Any] | None:
    return None if record is None else dataclasses.asdict(record)
