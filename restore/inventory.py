"""What there is to run: methods, codecs and weights, whether they are here, and under what terms.

`restore models`, `restore doctor` and the web page show it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from restore.errors import MissingExtraError, RestoreError, WeightsError
from restore.method import MethodSpec
from restore.registry import (
    CODECS,
    DEFAULT_CODEC,
    DEFAULT_METHOD,
    METHODS,
    codec_class,
    method_class,
)
from restore.zoo.cache import Shelf
from restore.zoo.entries import ENTRIES
from restore.zoo.entry import Entry
from restore.zoo.locate import locate, locate_weights
from restore.zoo.pull import with_needs

FREE_LICENCES = ("apache", "mit", "bsd", "isc", "cc0", "cc-by-4", "cc-by-sa", "openrail")
"""Beginnings of licence names, in lower case, that allow commercial use."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Registered:
    """What can be named with `-n`, and the state of its weights."""

    name: str
    """Name for `-n`."""
    default: bool
    """Whether it runs when nothing is named."""
    dtypes: tuple[str, ...]
    """Number formats it gives correct results in."""
    licence: str
    """Licence of its weights."""
    commercial_use: bool
    """Whether that licence is known to allow commercial use."""
    summary: str
    """One line on what it does."""
    source: str
    """Paper or repository it comes from."""
    weights: Path | None
    """Its weight file or folder, or None when that is missing."""
    weights_bytes: int
    """Size of the weight file or of the files of their folder, 0 when it is missing."""
    base: str
    """Pretrained model that it stands on; empty when it needs none."""
    ready: bool
    """Whether it can be used now."""
    missing: tuple[str, ...]
    """Names for `restore models pull` of what it lacks."""
    problem: str | None
    """Why it cannot be used now and what to do, or None."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelEntry(Registered):
    """One registered method."""

    kind: str = "method"
    """Tells it from the codecs and weights that are listed beside it."""
    scale: int | None
    """Output pixels per input pixel along each side; None when the method cannot be loaded."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CodecEntry(Registered):
    """One registered codec."""

    kind: str = "codec"
    """Tells it from the methods and weights that are listed beside it."""
    rates: tuple[float, ...]
    """Its rates in bits per pixel."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ZooState:
    """Weights that can be pulled, and whether they are here."""

    name: str
    """Name for `restore models pull`."""
    kind: str
    """`weights`, `part` or `base`."""
    summary: str
    """One line on what they are."""
    licence: str
    """Licence of the weights."""
    commercial_use: bool
    """Whether that licence is known to allow commercial use."""
    bytes: int
    """Size of the download; 0 = not known."""
    exact: bool
    """Whether that is the exact size."""
    path: Path | None
    """File or folder here, None when something of it is missing."""
    requires: tuple[str, ...]
    """What they are of no use without."""
    optional: tuple[str, ...]
    """What makes them better."""


def list_models(names: Iterable[str] = METHODS) -> list[ModelEntry]:
    """An entry for each method of the registry, by name.

    A method that lacks something is listed with its problem: it does not hide the others.
    """
    return [describe_model(name) for name in sorted(names)]


def list_zoo() -> list[ZooState]:
    """The state of all weights that can be pulled, but for those of methods and codecs."""
    return [
        zoo_state(entry)
        for name, entry in ENTRIES.items()
        if name not in METHODS and name not in CODECS
    ]


def describe_model(name: str) -> ModelEntry:
    """The entry of the method `name`.

    Raises:
        OptionError: no method has that name.
    """
    spec: MethodSpec | None = None
    problem: str | None = None
    try:
        spec = method_class(name).spec
    except MissingExtraError as error:
        problem = str(error)
    base = spec.base if spec else ""
    weights, missing, lacking = weights_state(name, base)
    problem = problem or lacking
    return ModelEntry(
        name=name,
        default=name == DEFAULT_METHOD,
        scale=spec.scale if spec else None,
        dtypes=spec.dtypes if spec else (),
        licence=spec.licence if spec else "unknown",
        commercial_use=spec is not None and licence_notice(spec) is None,
        summary=spec.summary if spec else "",
        source=spec.source if spec else "",
        weights=weights,
        weights_bytes=bytes_of(weights) if weights else 0,
        base=base,
        ready=problem is None,
        missing=missing,
        problem=problem,
    )


def list_codecs() -> list[CodecEntry]:
    """An entry for each codec of the registry, by name."""
    return [describe_codec(name) for name in sorted(CODECS)]


def describe_codec(name: str) -> CodecEntry:
    """The entry of the codec `name`.

    Raises:
        OptionError: no codec has that name.
    """
    spec = codec_class(name).spec
    weights, missing, problem = weights_state(name, spec.base)
    return CodecEntry(
        name=name,
        default=name == DEFAULT_CODEC,
        rates=tuple(sorted(rate.bpp for rate in spec.rates)),
        dtypes=spec.dtypes,
        licence=spec.licence,
        commercial_use=own_or_base_notice(name, spec.licence, spec.base) is None,
        summary=spec.summary,
        source=spec.source,
        weights=weights,
        weights_bytes=bytes_of(weights) if weights else 0,
        base=spec.base,
        ready=problem is None,
        missing=missing,
        problem=problem,
    )


def weights_state(name: str, base: str) -> tuple[Path | None, tuple[str, ...], str | None]:
    """The weights of a method or codec that stands on `base`.

    Returns:
        Where they are, or None; names for `restore models pull` of what is missing; and why they
        cannot be used, or None.
    """
    weights: Path | None = None
    problem: str | None = None
    try:
        weights = locate_weights(name)
    except WeightsError as error:
        problem = str(error)
    missing = []
    for needed in needs(name, base):
        try:
            locate(needed)
        except RestoreError as error:
            missing.append(needed)
            problem = problem or str(error)
    return weights, tuple(missing), problem


def bytes_of(path: Path) -> int:
    """Size of a file, or of all files of a folder."""
    files = (file for file in path.rglob("*") if file.is_file()) if path.is_dir() else (path,)
    return sum(file.stat().st_size for file in files)


def needs(name: str, base: str) -> list[str]:
    """Entries of the zoo that a method cannot do without, its own weights among them."""
    found = with_needs([name]) if name in ENTRIES else []
    return [*found, base] if base in ENTRIES and base not in found else found


def zoo_state(entry: Entry) -> ZooState:
    """Whether the weights of `entry` are here, and what else `list` says of them."""
    files = entry.choose()
    return ZooState(
        name=entry.name,
        kind=entry.kind,
        summary=entry.summary,
        licence=entry.licence,
        commercial_use=allows_commercial_use(entry.licence),
        bytes=sum(file.bytes for file in files) if all(file.bytes for file in files) else 0,
        exact=all(file.size is not None for file in files),
        path=locate(entry.name) if not Shelf(entry).missing() else None,
        requires=entry.requires,
        optional=entry.optional,
    )


def allows_commercial_use(licence: str) -> bool:
    """Whether `licence` is one that is known to allow commercial use."""
    text = licence.lower()
    restricted = "non-commercial" in text or "noncommercial" in text or "-nc" in text
    return text.startswith(FREE_LICENCES) and not restricted


def licence_notice(spec: MethodSpec) -> str | None:
    """The line that is said each time weights with a restricted licence are used."""
    return own_or_base_notice(spec.name, spec.licence, spec.base)


def own_or_base_notice(name: str, licence: str, base: str) -> str | None:
    """The line on weights under `licence`, or else on the pretrained model that they stand on."""
    own = licence_line(name, licence)
    if own is None and base in ENTRIES:
        return licence_line(base, ENTRIES[base].licence)
    return own


def licence_line(name: str, licence: str) -> str | None:
    """What is said of a licence that is not known to allow commercial use; None for others."""
    if allows_commercial_use(licence):
        return None
    return (
        f"the weights of '{name}' are under '{licence}': check it before any commercial use of the "
        "results"
    )


def licence_text(licence: str) -> str:
    """A licence, marked where it may not allow commercial use."""
    return licence + ("" if allows_commercial_use(licence) else " (check it before commercial use)")
