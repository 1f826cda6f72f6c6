"""Where the marks of a plot lie, in units of its drawing; the page's template draws them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from restore.reports.catalogue import MetricSpec
from restore.reports.report import Report
from restore.reports.results import Result
from restore.reports.statistics import counted

WIDTH = 360
"""Units across a plot: about the pixels of a narrow telephone, so that its text stays readable."""
MARGIN = 14
ROW = 54
"""Units down, for each method."""
LINE_HEIGHT = 120
"""Units down, of a plot over time."""
_MOST_DOTS = 240
_MOST_CLIPS = 6
_MOST_STEPS = 400
_GOLDEN = 0.6180339887


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One method."""

    label: str
    """Its name."""
    color: int
    """Number of its color."""
    top: int
    """Where its part begins."""
    box: tuple[float, float, float, float, float]
    """Places of the 5 %, 25 %, 50 %, 75 % and 95 % quantile."""
    mean: float
    """Place of the mean."""
    dots: tuple[tuple[float, float], ...]
    """Places of values, across and down."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plot:
    """The distribution of a metric over files."""

    spec: MetricSpec
    """The metric."""
    rows: tuple[Row, ...]
    """Methods."""
    ticks: tuple[tuple[float, str], ...]
    """Places and labels of the scale."""
    height: int
    """Of the whole drawing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Course:
    """A metric over the time of a clip."""

    spec: MetricSpec
    """The metric."""
    key: str
    """The clip."""
    lines: tuple[tuple[str, int, str], ...]
    """Method, number of its color, and points."""
    ticks: tuple[tuple[float, str], ...]
    """Places and labels of the scale, from the top."""
    seconds: float
    """Length of the clip."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scale:
    """From values to places."""

    low: float
    high: float
    begin: float
    end: float

    def __call__(self, value: float) -> float:
        """Place of a value."""
        share = (value - self.low) / (self.high - self.low)
        return round(self.begin + share * (self.end - self.begin), 1)


def distributions(report: Report) -> Iterator[Plot]:
    """One plot for each metric that gives a number a file."""
    for spec in report.per_file:
        values = {
            method: counted(list(own.values()), unit=spec.unit)
            for method, own in report.values(spec.name).items()
            if own
        }
        if not values or max(len(own) for own in values.values()) < 2:
            continue
        every = np.concatenate(list(values.values()))
        low, high, ticks = nice_scale(float(every.min()), float(every.max()))
        scale = Scale(low=low, high=high, begin=MARGIN, end=WIDTH - MARGIN)
        rows = [
            _row(report, method, own, scale, top=number * ROW)
            for number, (method, own) in enumerate(values.items())
        ]
        yield Plot(
            spec=spec,
            rows=tuple(rows),
            ticks=tuple((scale(tick), f"{tick:g}") for tick in ticks),
            height=len(rows) * ROW + 22,
        )


def _row(report: Report, method: str, own: np.ndarray, scale: Scale, *, top: int) -> Row:
    quantiles = [scale(float(value)) for value in np.percentile(own, [5, 25, 50, 75, 95])]
    order = np.sort(own)
    chosen = order[np.unique(np.linspace(0, len(order) - 1, _MOST_DOTS).astype(int))]
    dots = [
        (scale(float(value)), round(top + 20 + 26 * (number * _GOLDEN % 1), 1))
        for number, value in enumerate(chosen)
    ]
    a, b, c, d, e = quantiles
    return Row(
        label=method,
        color=report.methods.index(method) % 6,
        top=top,
        box=(a, b, c, d, e),
        mean=scale(float(own.mean())),
        dots=tuple(dots),
    )


def courses(report: Report) -> Iterator[Course]:
    """Metrics over time, for the first clips."""
    clips = [result for result in report.results if result.series is not None]
    keys = list(dict.fromkeys(result.pair.key for result in clips))[:_MOST_CLIPS]
    for key in keys:
        own = [result for result in clips if result.pair.key == key]
        for spec in report.per_file:
            course = _course(report, spec, key, own)
            if course is not None:
                yield course


def _course(report: Report, spec: MetricSpec, key: str, results: Sequence[Result]) -> Course | None:
    points: dict[str, list[tuple[float, float]]] = {}
    for result in results:
        series = result.series
        values = [] if series is None else series.values.get(spec.name, [])
        times = [] if series is None else series.times
        known = [(t, v) for t, v in zip(times, values, strict=False) if v is not None]
        if len(known) > 1:
            heights = counted([value for _, value in known], unit=spec.unit)
            points[result.pair.method] = _thinned(
                [(time, float(value)) for (time, _), value in zip(known, heights, strict=True)]
            )
    if not points:
        return None
    every = [value for line in points.values() for _, value in line]
    length = max(line[-1][0] for line in points.values())
    low, high, ticks = nice_scale(min(every), max(every), most=4)
    down = Scale(low=low, high=high, begin=LINE_HEIGHT - 16, end=8)
    across = Scale(low=0, high=max(length, 1e-3), begin=40, end=WIDTH - 6)
    return Course(
        spec=spec,
        key=key,
        lines=tuple(
            (
                method,
                report.methods.index(method) % 6,
                " ".join(f"{across(time)},{down(value)}" for time, value in line),
            )
            for method, line in points.items()
        ),
        ticks=tuple((down(tick), f"{tick:g}") for tick in ticks),
        seconds=length,
    )


def _thinned(line: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most so many points, as means of neighbours."""
    if len(line) <= _MOST_STEPS:
        return line
    parts = np.array_split(np.array(line), _MOST_STEPS)
    return [(float(part[:, 0].mean()), float(part[:, 1].mean())) for part in parts]


def nice_scale(low: float, high: float, *, most: int = 6) -> tuple[float, float, list[float]]:
    """A scale of round numbers round two values: its ends and its ticks."""
    if high - low < 1e-9 * max(1.0, abs(high)):
        pad = abs(high) * 0.05 or 0.5
        low, high = low - pad, high + pad
    rough = (high - low) / max(1, most - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough)
    first, last = math.floor(low / step), math.ceil(high / step)
    ticks = [round(number * step, 12) for number in range(first, last + 1)]
    return ticks[0], ticks[-1], ticks
