"""The 4,585 labels of RAM, each with the probability above which a picture is given it."""

from __future__ import annotations

from functools import lru_cache
from importlib import resources


@lru_cache(maxsize=1)
def read_labels() -> tuple[tuple[str, ...], tuple[float, ...]]:
    """Names and thresholds, in the order of the network's outputs."""
    table = resources.files(__package__).joinpath("labels.tsv").read_text(encoding="utf-8")
    rows = [line.split("\t") for line in table.splitlines() if not line.startswith("#")]
    return tuple(name for name, _ in rows), tuple(float(value) for _, value in rows)
