"""Means over a run, as the plot tool of CompressAI reads them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from restore.codec.contract import Rate
from restore.errors import OutputError
from restore.image.files import atomic, output_reason


@dataclass(kw_only=True, slots=True)
class RateReport:
    """Measurements of pictures, and their means for each rate."""

    name: str
    """Name of the curve."""
    description: str
    """One line on how it was made."""
    values: dict[float, list[Mapping[str, float]]] = field(default_factory=dict)
    """For each nominal rate what was measured of each picture."""

    def add(self, rate: Rate, **measured: float) -> None:
        """Take one picture: `bpp`, and metrics under any name."""
        self.values.setdefault(rate.bpp, []).append(measured)

    def content(self) -> dict[str, Any]:
        """`name`, `description` and `results`: a list for each metric, with one mean a rate.

        The keys are those of CompressAI: `bpp`, `psnr-rgb`, `encoding_time`, ...
        """
        points = [_means(pictures) for _, pictures in sorted(self.values.items())]
        return curve(name=self.name, description=self.description, points=points)

    def write(self, path: Path) -> None:
        """Write it as JSON, whole or not at all.

        Raises:
            OutputError: no space, no permission.
        """
        try:
            with atomic(path) as stream:
                stream.write(json.dumps(self.content(), indent=2).encode() + b"\n")
        except OSError as error:
            raise OutputError(f"'{path}' cannot be written: {output_reason(error)}") from error


def curve(*, name: str, description: str, points: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Points of a curve as CompressAI writes them: a list for each metric, with one value each."""
    keys = dict.fromkeys(key for point in points for key in point)
    results = {key: [point.get(key) for point in points] for key in keys}
    return {"name": name, "description": description, "results": results}


def _means(pictures: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each measurement over the pictures that have it."""
    found: dict[str, list[float]] = {}
    for picture in pictures:
        for key, value in picture.items():
            found.setdefault(key, []).append(value)
    return {key: sum(values) / len(values) for key, values in found.items()}
