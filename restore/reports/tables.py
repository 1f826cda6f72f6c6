"""A report as JSON, CSV and Markdown."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
from collections.abc import Iterator, Sequence
from typing import Any

from restore.codec.report import curve
from restore.reports.catalogue import MetricSpec
from restore.reports.report import Report
from restore.reports.results import Result

_COMPRESSAI = {"psnr": "psnr-y", "ssim": "ssim-y", "ms-ssim": "ms-ssim-y"}
"""Keys that CompressAI's reports, and ours on codecs, have for what we call otherwise."""


def json_text(report: Report) -> str:
    """Everything, as one object; an infinite value is the text `inf`, a missing one is null.

    `name`, `description` and `results` are those of CompressAI, so that its plot tool reads the
    file: each method is one point of a curve, by falling quality of the means.
    """
    content = {
        **_points(report),
        "restore": report.versions.get("restore"),
        "ok": report.ok,
        "settings": report.settings()
        | {"crop_border": report.config.crop_border, "workers": report.config.workers},
        "versions": report.versions,
        "seconds": round(report.seconds, 3),
        "metrics": [_metric(spec) for spec in report.metrics],
        "skipped": [{"metric": name, "reason": reason} for name, reason in report.skipped],
        "methods": {method: _method(report, method) for method in report.methods},
        "comparisons": [
            dataclasses.asdict(one) | {"significant": one.significant}
            for several in report.comparisons.values()
            for one in several
        ],
        "items": [_item(result) for result in report.results],
        "unpaired": [dataclasses.asdict(one) for one in report.unpaired],
    }
    return json.dumps(_plain(content), indent=1, allow_nan=False) + "\n"


def _points(report: Report) -> dict[str, Any]:
    """The part of CompressAI, and which method each point is."""
    points: list[tuple[str, dict[str, float]]] = []
    for method in report.methods:
        means = {
            _COMPRESSAI.get(spec.name, spec.name): mean
            for spec in report.metrics
            if (mean := report.mean(spec, method)) is not None
        }
        points.append((method, means))
    points.sort(key=lambda point: point[1].get("bpp", 0.0))
    found = curve(
        name=", ".join(report.methods),
        description="restore metrics: means of files, one point for each method",
        points=[means for _, means in points],
    )
    return {**found, "points": [method for method, _ in points]}


def _metric(spec: MetricSpec) -> dict[str, Any]:
    return {
        "name": spec.name,
        "title": spec.title,
        "better": spec.better,
        "unit": spec.unit or None,
        "color": spec.color or None,
        "reference": spec.reference,
        "source": spec.source,
        "version": spec.version,
        "definition": spec.definition,
    }


def _method(report: Report, method: str) -> dict[str, Any]:
    means: dict[str, Any] = {
        spec.name: dataclasses.asdict(summary)
        for spec in report.per_file
        if (summary := report.summaries.get((spec.name, method))) is not None
    }
    means |= {name: {"mean": own[method]} for name, own in report.of_sets.items() if method in own}
    return {"files": sum(r.pair.method == method for r in report.results), "summary": means}


def _item(result: Result) -> dict[str, Any]:
    item: dict[str, Any] = {
        "method": result.pair.method,
        "name": result.pair.key,
        "restored": result.pair.restored.name,
        "reference": result.pair.reference and result.pair.reference.name,
        "kind": result.pair.kind,
        "size": result.size,
        "values": result.values,
    }
    if result.series is not None:
        item["frames"] = {"times": result.series.times, **result.series.values}
        item["stray_frames"] = result.stray
    for name in ("failed", "problems", "notes"):
        if found := getattr(result, name):
            item[name] = found
    return item


def _plain(value: Any) -> Any:
    """What JSON has: no infinity, no halves of characters."""
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else ("inf" if value > 0 else "-inf")
    return value


def comma_separated(report: Report) -> str:
    """One row for each result, then one with the means of each method."""
    names = [spec.name for spec in report.metrics]
    buffer = io.StringIO()
    table = csv.writer(buffer, lineterminator="\n")
    table.writerow(["method", "name", "kind", "width", "height", *names, "frames", "remarks"])
    for result in report.results:
        size = result.size or ("", "")
        frames = "" if result.series is None else len(result.series.times)
        cells = [_cell(result.values.get(name)) for name in names]
        pair = result.pair
        row = [pair.method, pair.key, pair.kind, *size, *cells, frames, remarks(result)]
        table.writerow(row)
    for method in report.methods:
        means = [_cell(report.mean(spec, method)) for spec in report.metrics]
        table.writerow([method, "mean", "", "", "", *means, "", ""])
    return buffer.getvalue()


def remarks(result: Result) -> str:
    """What is to be said of a result, on one line."""
    problems = [f"{name}: {reason}" for name, reason in result.problems.items()]
    failed = [f"failed: {result.failed}"] if result.failed else []
    return "; ".join([*failed, *problems, *result.notes])


def _cell(value: float | None) -> str:
    return "" if value is None else repr(float(value))


def markdown(report: Report) -> str:
    """The summary, what was compared, and what is missing."""
    return "\n".join(_lines(report)) + "\n"


def summary_rows(report: Report) -> Iterator[list[str]]:
    """The summary table with its heading: a row for each method, the best in bold."""
    yield ["", "files", *(f"{spec.title} {spec.arrow}" for spec in report.metrics)]
    for method in report.methods:
        cells = [_mean_cell(report, spec, method) for spec in report.metrics]
        yield [method, report.files_of(method), *cells]


def _mean_cell(report: Report, spec: MetricSpec, method: str) -> str:
    text = spec.shown(report.mean(spec, method))
    summary = report.summaries.get((spec.name, method))
    if summary is not None and summary.low is not None and summary.high is not None:
        text += f" [{spec.shown(summary.low)}, {spec.shown(summary.high)}]"
    if summary is not None and summary.equal:
        text += f" ({summary.equal} equal)"
    standing = report.standing(spec, method)
    return {"best": f"**{text}**", "tied": f"{text} \N{ALMOST EQUAL TO}"}.get(standing, text)


def _lines(report: Report) -> Iterator[str]:
    yield "# Metrics"
    yield ""
    yield from _table(list(summary_rows(report)))
    yield ""
    yield "In brackets: 95 % interval of the mean over files. Bold: best mean; \N{ALMOST EQUAL TO}:"
    yield "not significantly worse than that."
    comparisons = [one for several in report.comparisons.values() for one in several]
    if comparisons:
        specs = {spec.name: spec for spec in report.metrics}
        yield ""
        rows = [["metric", "method", "minus the best", "difference", "95 % interval", "p", "files"]]
        for one in comparisons:
            spec = specs[one.metric]
            gap = spec.shown(one.difference)
            facts = [gap, spec.between(one.low, one.high), shown_p(one.p), str(one.count)]
            rows.append([spec.title, one.method, one.best, *facts])
        yield from _table(rows)
    yield from _missing(report)
    yield ""
    yield "## Settings"
    yield ""
    for spec in report.metrics:
        color = f"; {spec.color}" if spec.color else ""
        said = f"{spec.better} is better; {spec.definition}{color}; {spec.source} {spec.version}"
        yield f"- {spec.title}: {said}"
    for name, value in (report.settings() | report.versions).items():
        yield f"- {name}: {value}"


def shown_p(p: float) -> str:
    """A p as text."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _missing(report: Report) -> Iterator[str]:
    failed = [f"{r.pair.method}: {r.pair.key}: {remarks(r)}" for r in report.failed]
    stray = [f"{r.pair.method}: {r.pair.key}: {remarks(r)}" for r in report.results if r.stray]
    for title, lines in (
        ("Skipped metrics", [f"{name}: {reason}" for name, reason in report.skipped]),
        ("Failed", failed),
        ("Frames without a counterpart", stray),
        ("Unpaired", [f"{one.where}: {one.name}: {one.reason}" for one in report.unpaired]),
    ):
        if lines:
            yield ""
            yield f"## {title}"
            yield ""
            for line in lines:
                yield f"- {_escaped(line)}"


def _table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    for number, row in enumerate(rows):
        yield "| " + " | ".join(_escaped(cell) for cell in row) + " |"
        if number == 0:
            yield "|" + "---|" * len(row)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
