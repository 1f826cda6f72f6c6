"""The worst and the best results of each metric, as crops side by side for the page."""

from __future__ import annotations

import base64
import functools
import io
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image

from restore.metrics import Picture
from restore.reports.catalogue import MetricSpec
from restore.reports.clips import FrameWalk
from restore.reports.job import reason
from restore.reports.pairing import Pair
from restore.reports.reading import Reader, frame_array
from restore.reports.report import Report
from restore.reports.results import Result

CROP_SIDE = 192
"""Pixels along a side of a crop."""
_QUALITY = 92  # JPEG with full color resolution
_MOST_CROPS = 300  # on a page: some ten megabytes


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """One crop."""

    label: str
    """What it is of."""
    data: str
    """The picture, as an address that holds it."""
    value: str
    """Value of the metric; empty = it has none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """A result that stands out."""

    key: str
    """Name of the pair."""
    method: str
    """The method that it stands out in."""
    value: str
    """Its value."""
    place: str
    """Where the crop is from."""
    views: tuple[View, ...]
    """Reference and all methods; empty = it could not be read again."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cases:
    """What stands out by one metric."""

    spec: MetricSpec
    """The metric."""
    worst: tuple[Case, ...]
    """Worst first, methods one after the other."""
    best: tuple[Case, ...]
    """Best first, likewise."""


def find_cases(report: Report) -> Iterator[Cases]:
    """The cases of each metric that gives a number a file, and looks at pixels."""
    specs = [spec for spec in report.per_file if spec.kind != "size"]
    count = min(report.config.cases, _affordable(report, len(specs)))
    if not count:
        return
    cutter = _Cutter(report)
    for spec in specs:
        found: tuple[list[Case], list[Case]] = ([], [])
        for method in report.methods:
            for several, results in zip(found, report.extremes(spec, method, count), strict=True):
                several += [cutter.case(spec, result) for result in results]
        yield Cases(spec=spec, worst=tuple(found[0]), best=tuple(found[1]))


def _affordable(report: Report, metrics: int) -> int:
    views = len(report.methods) + (report.config.reference is not None)
    return max(1, _MOST_CROPS // max(1, 2 * metrics * len(report.methods) * views))


class _Cutter:
    """Reads results again and cuts crops out of them; keeps a few."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._reader = Reader(config=report.config)
        self._results = {(r.pair.method, r.pair.key): r for r in report.results if not r.failed}
        self._views = functools.lru_cache(maxsize=8)(self._read)

    def case(self, spec: MetricSpec, result: Result) -> Case:
        """The case of one result."""
        pair = result.pair
        value = _shown(spec, result)
        place = ""
        views: list[View] = []
        try:
            time = _worst_time(spec, result)
            image, true = self._views(pair, _moment(result, time))
            top, left = place_of_interest(image, true)
            side = f"{min(CROP_SIDE, image.shape[1])}x{min(CROP_SIDE, image.shape[0])}"
            place = f"{side} pixels from ({left}, {top})"
            if time is not None:
                place += f", at {time:.2f} s"
            if true is not None:
                views.append(View(label="reference", data=_cut(true, top, left), value=""))
            views += self._of_methods(spec, result, time, (top, left))
        except Exception as error:  # it was there a moment ago
            place = f"it cannot be read again: {reason(error, pair)}"
        return Case(key=pair.key, method=pair.method, value=value, place=place, views=tuple(views))

    def _of_methods(
        self, spec: MetricSpec, result: Result, time: float | None, place: tuple[int, int]
    ) -> Iterator[View]:
        """The same place in the results of all methods, in the order of the tables."""
        for method in self._report.methods:
            own = self._results.get((method, result.pair.key))
            if own is None:
                continue
            image, _ = self._views(own.pair, _moment(own, time))
            yield View(label=method, data=_cut(image, *place), value=_shown(spec, own))

    def _read(
        self, pair: Pair, moment: tuple[float, float] | None
    ) -> tuple[Picture, Picture | None]:
        """A result and its reference; of clips the pair of frames at that moment."""
        if moment is None:
            views = self._reader.pair(pair)
            return views.image, views.reference
        frames = FrameWalk(pair, self._report.config).at(*moment)
        true = None if frames.reference is None else frame_array(frames.reference)
        return frame_array(frames.restored), true


def _shown(spec: MetricSpec, result: Result) -> str:
    text = spec.shown(result.values.get(spec.name))
    return f"{text} {spec.unit}".strip()


def _worst_time(spec: MetricSpec, result: Result) -> float | None:
    """Seconds to the pair of frames in which a clip is worst; None for a picture."""
    series = result.series
    if series is None:
        return None
    values = zip(series.values.get(spec.name, []), series.times, strict=False)
    known = [(value, time) for value, time in values if value is not None]
    return (max if spec.lower_better else min)(known)[1] if known else series.times[0]


def _moment(result: Result, time: float | None) -> tuple[float, float] | None:
    """The pair of frames nearest to a time, by both clocks; None for a picture."""
    series = result.series
    if series is None or time is None:
        return None
    nearest = min(range(len(series.times)), key=lambda i: abs(series.times[i] - time))
    return series.times[nearest], series.own_times[nearest]


def place_of_interest(image: Picture, reference: Picture | None) -> tuple[int, int]:
    """Row and column of the crop with the greatest mean square error.

    Without a reference it is the crop with the most detail.
    """
    rows, columns = (min(CROP_SIDE, side) for side in image.shape[:2])
    gray = _unit(image).mean(axis=2)
    if reference is not None:
        score = np.square(_unit(image) - _unit(reference)).mean(axis=2)
    else:
        score = np.square(gray - cv2.blur(gray, (7, 7)))
    mean = cv2.boxFilter(score, cv2.CV_64F, (columns, rows), anchor=(0, 0))
    inside = mean[: image.shape[0] - rows + 1, : image.shape[1] - columns + 1]
    top, left = np.unravel_index(int(np.argmax(inside)), inside.shape)
    return int(top), int(left)


def _cut(image: Picture, top: int, left: int) -> str:
    # A result that is smaller than the one that the place was found in shows its edge.
    top, left = (
        max(0, min(at, side - CROP_SIDE))
        for at, side in zip((top, left), image.shape[:2], strict=True)
    )
    part = image[top : top + CROP_SIDE, left : left + CROP_SIDE]
    eight = np.rint(255 * _unit(part)).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(eight).save(buffer, "JPEG", quality=_QUALITY, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _unit(image: Picture) -> Picture:
    if np.issubdtype(image.dtype, np.floating):
        return image.astype(np.float64)
    return image / float(np.iinfo(image.dtype).max)
