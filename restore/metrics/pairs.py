"""Strict pairs: each picture has its reference, or nothing is measured.

`restore.reports.pairing` is the patient form, which lists what has no pair and goes on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from restore.errors import InputError


def pair_by_stem(images: Sequence[Path], references: Sequence[Path]) -> list[tuple[Path, Path]]:
    """Pair pictures with their references by name without suffix, whatever the order.

    Returns:
        (picture, reference) in the order of the pictures' names.

    Raises:
        InputError: a picture has no reference, or two files share a stem.
    """
    by_stem = _by_stem(references)
    pairs = _by_stem(images)
    missing = sorted(set(pairs) - set(by_stem))
    if missing:
        raise InputError(
            f"{len(missing)} of {len(pairs)} pictures have no reference, the first is "
            f"{pairs[missing[0]].name}; a pair has the same name without its suffix"
        )
    return [(pairs[stem], by_stem[stem]) for stem in sorted(pairs)]


def _by_stem(paths: Iterable[Path]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in paths:
        if path.stem in found:
            raise InputError(
                f"{found[path.stem].name} and {path.name} have the same name without suffix; "
                "leave one of them out"
            )
        found[path.stem] = path
    return found
