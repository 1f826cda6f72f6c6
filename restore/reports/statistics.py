"""Means with intervals, and whether a method is better than another on the same files.

Equal pictures have an infinite PSNR, and a mean of them says nothing. So in means, intervals and
tests every PSNR counts at most `PSNR_CAP` dB: that keeps the order of methods, and lets an equal
picture count as very good instead of swallowing the rest. How many were equal is said beside it.

Nothing is assumed about the distribution: intervals are bootstrapped (Efron, 1979), tests flip the
signs of the paired differences (Fisher, 1935), all of them where there are few. Draws come from
generators that are seeded, so that a report can be repeated.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

PSNR_CAP = 100.0
"""dB that an infinite or higher value counts as in means, intervals and tests."""
CONFIDENCE = 0.95
"""Share of intervals that hold the true mean; a difference with p below the rest is told."""

Array: TypeAlias = npt.NDArray[np.float64]

_DRAWS = 2000  # of a bootstrap
_FLIPS = 9999  # of a test, where there are too many to try all
_ALL_FLIPS = 12  # differences of which all signs are tried: 2 ** 12
_AT_ONCE = 1 << 20  # numbers drawn at a time


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """A metric over the files of a method."""

    count: int
    """Files with a value."""
    mean: float
    """Mean, as the module says."""
    low: float | None
    """Lower end of the 95 % interval of the mean; None = fewer than two files."""
    high: float | None
    """Upper end."""
    median: float
    """Median."""
    deviation: float | None
    """Standard deviation of the values; None = fewer than two."""
    equal: int
    """Files whose value is infinite, as they equal their reference."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """A method beside the best one, on the files that both have."""

    metric: str
    """Name of the metric."""
    best: str
    """The method with the best mean."""
    method: str
    """The other one."""
    count: int
    """Files that both have a value of."""
    difference: float
    """Mean of other minus best."""
    low: float | None
    """Lower end of its 95 % interval."""
    high: float | None
    """Upper end."""
    p: float
    """Of the two-sided test, after Holm's correction for the other methods beside the same best."""

    @property
    def significant(self) -> bool:
        """The best one is better beyond chance."""
        return self.p < 1 - CONFIDENCE


def counted(values: Sequence[float], *, unit: str) -> Array:
    """Values as means and tests take them: of those in dB none is above `PSNR_CAP`."""
    array = np.asarray(values, dtype=np.float64)
    return np.minimum(array, PSNR_CAP) if unit == "dB" else array


def summarise(values: Sequence[float], *, unit: str, seed: int, name: str) -> Summary:
    """Mean, interval and spread of one or more values.

    Args:
        values: one a file; infinite ones are those of equal pictures.
        unit: of the values.
        seed: of the draws.
        name: says which draws, so that no two metrics share them.
    """
    array = np.asarray(values, dtype=np.float64)
    equal = int(np.isinf(array).sum())
    used = counted(values, unit=unit)
    several = len(used) > 1
    low, high = interval(used, seed=seed, name=name) if several else (None, None)
    every = equal == len(array)
    return Summary(
        count=len(used),
        mean=float("inf") if every else float(np.mean(used)),
        low=None if every else low,
        high=None if every else high,
        median=float(np.median(array)),
        deviation=float(np.std(used, ddof=1)) if several else None,
        equal=equal,
    )


def interval(values: Array, *, seed: int, name: str) -> tuple[float, float]:
    """95 % interval of the mean: percentiles of the means of 2,000 samples with replacement."""
    draw = _generator(seed, name)
    rows = max(1, _AT_ONCE // len(values))
    means = np.concatenate(
        [
            values[draw.integers(0, len(values), (min(rows, _DRAWS - done), len(values)))].mean(
                axis=1
            )
            for done in range(0, _DRAWS, rows)
        ]
    )
    rest = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(means, [rest, 100 - rest])
    return float(low), float(high)


def sign_flip_p(differences: Array, *, seed: int, name: str) -> float:
    """Two-sided p of a mean difference of 0: how often random signs give as large a mean.

    All 2^n signs are tried up to 12 differences; above that 9,999 drawn ones and the true ones.
    """
    total = abs(float(differences.sum())) * (1 - 1e-12)  # sums in another order round otherwise
    count = len(differences)
    if count <= _ALL_FLIPS:
        signs = 1 - 2 * ((np.arange(2**count)[:, None] >> np.arange(count)) & 1)
        return float(np.mean(np.abs(signs @ differences) >= total))
    draw = _generator(seed, name)
    rows, reached = max(1, _AT_ONCE // count), 1
    for done in range(0, _FLIPS, rows):
        signs = 1 - 2 * draw.integers(0, 2, (min(rows, _FLIPS - done), count), dtype=np.int8)
        reached += int((np.abs(signs @ differences) >= total).sum())
    return reached / (_FLIPS + 1)


def compare(
    metric: str,
    values: dict[str, dict[str, float]],
    *,
    unit: str,
    lower_better: bool,
    seed: int,
) -> list[Comparison]:
    """The method with the best mean beside each other one.

    Args:
        metric: its name.
        values: for each method and each file a value; best is judged over the files of all.
        unit: of the values.
        lower_better: direction.
        seed: of the draws.

    Returns:
        One comparison for each other method that shares files with the best one; the best is the
        same in all.
    """
    common = common_keys(values)
    methods = [method for method, found in values.items() if found]
    if len(methods) < 2 or not common:
        return []
    columns = {m: counted([values[m][key] for key in common], unit=unit) for m in methods}
    sign = 1 if lower_better else -1
    best = min(methods, key=lambda m: sign * float(columns[m].mean()))
    found = []
    for method in methods:
        if method == best:
            continue
        gaps = columns[method] - columns[best]
        name = f"{metric} {best} {method}"
        low, high = interval(gaps, seed=seed, name=name) if len(gaps) > 1 else (None, None)
        p = sign_flip_p(gaps, seed=seed, name=name)
        found.append((method, float(gaps.mean()), low, high, p))
    corrected = holm([p for *_, p in found])
    return [
        Comparison(
            metric=metric,
            best=best,
            method=method,
            count=len(common),
            difference=difference,
            low=low,
            high=high,
            p=p,
        )
        for (method, difference, low, high, _), p in zip(found, corrected, strict=True)
    ]


def common_keys(values: dict[str, dict[str, float]]) -> list[str]:
    """Files that all methods with any value have a value of, in their order."""
    tables = [found for found in values.values() if found]
    if not tables:
        return []
    return [key for key in tables[0] if all(key in table for table in tables[1:])]


def holm(ps: Sequence[float]) -> list[float]:
    """p of several tests so that one false alarm among them all is as rare (Holm, 1979)."""
    order = sorted(range(len(ps)), key=lambda i: ps[i])
    result, least = [0.0] * len(ps), 0.0
    for rank, index in enumerate(order):
        least = max(least, min(1.0, (len(ps) - rank) * ps[index]))
        result[index] = least
    return result


def _generator(seed: int, name: str) -> np.random.Generator:
    return np.random.default_rng([seed, zlib.crc32(name.encode())])
