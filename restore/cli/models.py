"""What `restore models list` and `restore doctor` know about each registered method."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from restore.errors import MissingExtraError, WeightsError
from restore.method import MethodSpec
from restore.registry import DEFAULT_METHOD, METHODS, method_class
from restore.weights import packaged_weights

FREE_LICENCES = ("apache", "mit", "bsd", "isc", "cc0", "cc-by-4", "cc-by-sa", "openrail")
"""Beginnings of licence names, in lower case, that allow commercial use."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelEntry:
    """One registered method and the state of its weights."""

    name: str
    """Name for `-n`."""
    default: bool
    """Whether it runs when no model is named."""
    scale: int | None
    """Output pixels per input pixel along each side; None when the method cannot be loaded."""
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
    """Its weight file, or None when that is missing."""
    weights_bytes: int
    """Size of the weight file, 0 when it is missing."""
    problem: str | None
    """Why it cannot be used now and what to do, or None."""


def list_models(names: Iterable[str] = METHODS) -> list[ModelEntry]:
    """An entry for each method of the registry, by name.

    A method that lacks something is listed with its problem: it does not hide the others.
    """
    return [describe_model(name) for name in sorted(names)]


def describe_model(name: str) -> ModelEntry:
    """The entry of the method `name`.

    Raises:
        OptionError: no method has that name.
    """
    spec: MethodSpec | None = None
    weights: Path | None = None
    problem: str | None = None
    try:
        spec = method_class(name).spec
    except MissingExtraError as error:
        problem = str(error)
    try:
        weights = packaged_weights(name)
    except WeightsError as error:
        problem = problem or str(error)
    return ModelEntry(
        name=name,
        default=name == DEFAULT_METHOD,
        scale=spec.scale if spec else None,
        dtypes=spec.dtypes if spec else (),
        licence=spec.licence if spec else "unknown",
        commercial_use=spec is not None and allows_commercial_use(spec.licence),
        summary=spec.summary if spec else "",
        source=spec.source if spec else "",
        weights=weights,
        weights_bytes=weights.stat().st_size if weights else 0,
        problem=problem,
    )


def allows_commercial_use(licence: str) -> bool:
    """Whether `licence` is one that is known to allow commercial use."""
    text = licence.lower()
    restricted = "non-commercial" in text or "noncommercial" in text or "-nc" in text
    return text.startswith(FREE_LICENCES) and not restricted


def licence_notice(spec: MethodSpec) -> str | None:
    """The line that is said each time weights with a restricted licence are used."""
    if allows_commercial_use(spec.licence):
        return None
    return (
        f"the weights of '{spec.name}' are under '{spec.licence}': check it before any commercial "
        "use of the results"
    )
