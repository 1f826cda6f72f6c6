"""Numbers of one pair of pictures."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence

from restore.errors import InputError, RestoreError
from restore.image.batch import one_line
from restore.metrics import Picture
from restore.reports.catalogue import Metric
from restore.reports.pairing import Pair
from restore.reports.reading import Reader
from restore.reports.results import Result

_alone = threading.Lock()


def measure_picture(pair: Pair, metrics: Sequence[Metric], reader: Reader) -> Result:
    """Read a pair and compute what looks at single pictures.

    Raises:
        RestoreError: it cannot be read or compared; a metric that refuses it is in `problems`.
    """
    views = reader.pair(pair)
    height, width = views.image.shape[:2]
    result = Result(pair=pair, size=(width, height), notes=views.notes)
    result.bytes = pair.restored.stat().st_size
    for metric in metrics:
        name = metric.spec.name
        if metric.compute is None:
            continue
        try:
            result.values[name] = value_of(metric, views.image, views.reference)
        except RestoreError as error:
            result.values[name] = None
            result.problems[name] = one_line(str(error))
    add_sizes(result, metrics, views.pixels)
    return result


def value_of(metric: Metric, image: Picture, reference: Picture | None) -> float:
    """Value of a metric of pictures; those that cannot share a network wait for each other.

    Raises:
        InputError: the metric refuses the picture.
    """
    assert metric.compute is not None
    with _alone if metric.alone else contextlib.nullcontext():
        value = metric.compute(image, reference)
    if value != value:
        raise InputError("the metric gives no number for it")
    return value


def add_sizes(result: Result, metrics: Sequence[Metric], pixels: int) -> None:
    """Bytes and bits per pixel, where they are asked for."""
    for metric in metrics:
        if metric.spec.kind == "size":
            bits = metric.spec.name == "bpp"
            result.values[metric.spec.name] = (
                8 * result.bytes / pixels if bits else float(result.bytes)
            )
