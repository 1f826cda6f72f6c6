"""Measure sets of results: what `restore metrics` runs, and what a program calls instead.

One bad file never stops the others. Pictures are read, measured and let go; what stays is numbers.
"""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2

from restore.devices import choose_device
from restore.errors import InputError, MissingExtraError
from restore.image.batch import explain, one_line
from restore.reports.catalogue import Metric, choose_metrics
from restore.reports.clips import measure_clip
from restore.reports.config import ReportConfig
from restore.reports.events import Advanced, Left, Measured, ReportEvent
from restore.reports.measure import measure_picture
from restore.reports.pairing import Pair, parse_methods, plan_pairs
from restore.reports.reading import Reader
from restore.reports.report import Report, check_outputs, versions_of
from restore.reports.results import Result

log = logging.getLogger("restore.reports")

Tell = Callable[[ReportEvent], None]

_MEMORY_HINT = "give --workers 1, or cut it into parts"
_FRAMES_A_TIME = 10  # between two events of a clip


def run(
    config: ReportConfig,
    on_event: Tell | None = None,
    **settings: Any,
) -> Report:
    """Measure results, beside their references where there are any.

    Nothing is written: `Report.write` does that.

    Args:
        config: what to measure, and how.
        on_event: called as the work goes on, in this thread.
        settings: fields of `ReportConfig` that replace those of `config`.

    Returns:
        The report; look at `ok`, `failed`, `unpaired` and `skipped`.

    Raises:
        OptionError: the settings do not go together, or a metric is unknown.
        InputError: a folder is missing or holds nothing, or no name fits.
        MissingExtraError: not one of the metrics can be computed here.
    """
    start = time.perf_counter()
    config = replace(config, **settings)
    tell: Tell = on_event or (lambda _: None)
    check_outputs(config.output, overwrite=config.overwrite)
    methods = parse_methods(config.restored)
    pairs, unpaired = plan_pairs(
        methods, None if config.reference is None else Path(config.reference)
    )
    clips = any(pair.kind == "clip" for pair in pairs)
    metrics, skipped = choose_metrics(config, clips=clips, coded=all(pair.coded for pair in pairs))
    for name, why in skipped:
        tell(Left(kind="metric", name=name, reason=why))
    if not metrics:
        raise MissingExtraError(f"no metric is left to measure: {skipped[0][0]}: {skipped[0][1]}")
    for one in unpaired:
        tell(Left(kind="file", name=f"{one.where}: {one.name}", reason=one.reason))
    reader = Reader(config=config)
    results = _measure_all(pairs, metrics, reader, tell)
    specs = tuple(metric.spec for metric in metrics)
    report = Report(
        config=config,
        methods=tuple(method.name for method in methods),
        metrics=specs,
        results=results,
        skipped=skipped,
        unpaired=unpaired,
        versions=versions_of(specs),
        device=str(choose_device(config.device)),
    )
    _measure_sets(report, metrics, reader, tell)
    report.seconds = time.perf_counter() - start
    return report


@dataclass(kw_only=True, slots=True)
class _Watch:
    """Between the threads that work and the one that tells."""

    tell: Tell
    news: list[Advanced] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def note(self, advanced: Advanced) -> None:
        """Called by a thread that works on a clip: say how far it is, or leave."""
        if self.stop.is_set():
            raise InputError("the run was broken off")
        if advanced.frames % _FRAMES_A_TIME == 0:
            self.news.append(advanced)

    def tell_news(self) -> None:
        """Called by the thread that tells."""
        while self.news:
            self.tell(self.news.pop(0))


def _measure_all(
    pairs: Sequence[Pair], metrics: Sequence[Metric], reader: Reader, tell: Tell
) -> list[Result]:
    """Every pair on a few threads: pictures decode and filter outside of Python's lock."""
    watch = _Watch(tell=tell)

    def work(pair: Pair) -> Result:
        return _settled(pair, metrics, reader, watch)

    found: dict[int, Result] = {}
    results = _in_parallel(work, pairs, reader.config.workers or _cores(), watch=watch)
    with contextlib.closing(results):  # at once, also when `tell` raises
        for index, result in results:
            found[index] = result
            tell(_measured(result, len(found), len(pairs)))
    return [found[index] for index in range(len(pairs))]


def _measured(result: Result, index: int, total: int) -> Measured:
    return Measured(
        method=result.pair.method,
        key=result.pair.key,
        index=index,
        total=total,
        values=result.values,
        failed=result.failed,
    )


def _settled(pair: Pair, metrics: Sequence[Metric], reader: Reader, watch: _Watch) -> Result:
    """The numbers of a pair, or why there are none; only KeyboardInterrupt comes out."""

    def on_frames(count: int) -> None:
        watch.note(Advanced(method=pair.method, key=pair.key, frames=count))

    try:
        if pair.kind == "clip":
            return measure_clip(pair, metrics, reader.config, on_frames)
        return measure_picture(pair, metrics, reader)
    except Exception as error:  # one bad file must not stop the others
        log.debug("%s failed", pair.restored, exc_info=True)
        return Result(pair=pair, failed=reason(error, pair))


def reason(error: Exception, pair: Pair) -> str:
    """Why a pair failed, one line without folders of this machine."""
    text = one_line(explain(error, memory_hint=_MEMORY_HINT))
    for path in (pair.restored, pair.reference):
        if path is not None:
            text = text.replace(one_line(str(path)), one_line(path.name))
    return text.removeprefix(f"'{one_line(pair.restored.name)}': ")


def _in_parallel(
    work: Callable[[Pair], Result],
    pairs: Sequence[Pair],
    workers: int,
    *,
    watch: _Watch,
) -> Generator[tuple[int, Result], None, None]:
    """Results as they come; not many more pairs than workers are begun at a time."""
    waiting: dict[Future[Result], int] = {}
    rest = iter(enumerate(pairs))
    threads = cv2.getNumThreads()
    if workers > 1:
        cv2.setNumThreads(1)  # the pairs share the cores already
    try:
        with ThreadPoolExecutor(workers) as pool:
            try:
                while True:
                    for index, pair in _next(rest, 2 * workers - len(waiting)):
                        waiting[pool.submit(work, pair)] = index
                    if not waiting:
                        return
                    done, _ = wait(waiting, timeout=0.5, return_when=FIRST_COMPLETED)
                    watch.tell_news()
                    for future in done:
                        yield waiting.pop(future), future.result()
            except BaseException:
                watch.stop.set()  # a clip in work may be hours long
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    finally:
        cv2.setNumThreads(threads)


def _next(rest: Iterator[tuple[int, Pair]], count: int) -> Iterable[tuple[int, Pair]]:
    return [item for _, item in zip(range(count), rest, strict=False)]


def _cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _measure_sets(report: Report, metrics: Sequence[Metric], reader: Reader, tell: Tell) -> None:
    """Metrics of whole sets: they take folders, so the pictures are written out as PNG."""
    from PIL import Image

    wanted = [metric for metric in metrics if metric.compute_set is not None]
    for method in report.methods if wanted else ():
        own = [r.pair for r in report.results if r.pair.method == method and not r.failed]
        pictures = [pair for pair in own if pair.kind == "picture"]
        with tempfile.TemporaryDirectory(prefix="restore-metrics-") as name:
            folders = [Path(name, "restored"), Path(name, "reference")]
            for folder in folders:
                folder.mkdir()
            for number, pair in enumerate(pictures):
                views = reader.pair(pair)
                for folder, array in zip(folders, (views.image, views.reference), strict=True):
                    if array is not None:
                        eight = array if array.dtype == "uint8" else (array // 257).astype("uint8")
                        Image.fromarray(eight).save(folder / f"{number:06}.png", compress_level=1)
            for metric in wanted:
                _measure_set(report, metric, method, folders, tell)
    if wanted:
        report.metrics = tuple(
            spec for spec in report.metrics if spec.kind != "set" or report.of_sets.get(spec.name)
        )


def _measure_set(
    report: Report, metric: Metric, method: str, folders: Sequence[Path], tell: Tell
) -> None:
    assert metric.compute_set is not None
    reference = folders[1] if report.config.reference is not None else None
    try:
        value = metric.compute_set(folders[0], reference)
    except Exception as error:  # a library's: too few pictures, a network that cannot be fetched
        log.debug("%s failed", metric.spec.name, exc_info=True)
        text = one_line(explain(error, memory_hint=_MEMORY_HINT))
        report.skipped.append((metric.spec.name, f"{method}: {text}"))
        tell(Left(kind="metric", name=metric.spec.name, reason=f"{method}: {text}"))
    else:
        report.of_sets.setdefault(metric.spec.name, {})[method] = value
