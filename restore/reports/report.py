"""What a run found, and its tables; `write` makes files of it."""

from __future__ import annotations

import functools
import platform
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import restore
from restore.errors import OptionError, OutputError
from restore.image.files import atomic, output_reason
from restore.reports.catalogue import MetricSpec
from restore.reports.config import ReportConfig, report_suffix
from restore.reports.pairing import Unpaired
from restore.reports.results import Result
from restore.reports.statistics import (
    Comparison,
    Summary,
    common_keys,
    compare,
    summarise,
)


@dataclass(kw_only=True)
class Report:
    """Everything that was measured, and everything that was not."""

    config: ReportConfig
    """What was asked for."""
    methods: tuple[str, ...]
    """Names of the sets of results."""
    metrics: tuple[MetricSpec, ...]
    """What was measured, in the order of the columns."""
    results: list[Result]
    """One for each pair, methods one after the other."""
    skipped: list[tuple[str, str]] = field(default_factory=list)
    """Metrics that cannot be computed here, each with one line."""
    unpaired: list[Unpaired] = field(default_factory=list)
    """Files without a counterpart."""
    of_sets: dict[str, dict[str, float]] = field(default_factory=dict)
    """For each metric of whole sets, such as FID, the value of each method."""
    versions: dict[str, str] = field(default_factory=dict)
    """Of what took part."""
    device: str = "cpu"
    """Where the networks ran."""
    seconds: float = 0.0
    """Time of the run."""

    @property
    def failed(self) -> list[Result]:
        """Results of which nothing, or not everything, could be measured."""
        return [result for result in self.results if result.failed or result.problems]

    @property
    def ok(self) -> bool:
        """Every file has its pair and its numbers; with `--strict`, every metric was there."""
        strays = any(result.stray for result in self.results)
        lacking = bool(self.skipped) and self.config.strict
        return not (self.failed or self.unpaired or strays or lacking)

    @property
    def per_file(self) -> list[MetricSpec]:
        """Metrics that give a number for each file."""
        return [spec for spec in self.metrics if spec.kind != "set"]

    def values(self, metric: str) -> dict[str, dict[str, float]]:
        """For each method the value of each file that has one."""
        found: dict[str, dict[str, float]] = {name: {} for name in self.methods}
        for result in self.results:
            value = result.values.get(metric)
            if value is not None:
                found[result.pair.method][result.pair.key] = value
        return found

    @functools.cached_property
    def summaries(self) -> dict[tuple[str, str], Summary]:
        """By metric and method. With several methods, over the files that all of them have."""
        found = {}
        for spec in self.per_file:
            values = self.values(spec.name)
            keys = common_keys(values)
            for method, own in values.items():
                used = [own[key] for key in keys if key in own]
                if used:
                    found[spec.name, method] = summarise(
                        used, unit=spec.unit, seed=self.config.seed, name=spec.name
                    )
        return found

    @functools.cached_property
    def comparisons(self) -> dict[str, list[Comparison]]:
        """For each metric the best method beside the others; empty lists for a single method."""
        return {
            spec.name: compare(
                spec.name,
                self.values(spec.name),
                unit=spec.unit,
                lower_better=spec.lower_better,
                seed=self.config.seed,
            )
            for spec in self.per_file
        }

    def files_of(self, method: str) -> str:
        """How many results of a method were measured, and in how many of them all methods were."""
        own = sum(r.pair.method == method and not r.failed for r in self.results)
        used = {one.count for (_, name), one in self.summaries.items() if name == method}
        return str(own) if not used or min(used) == own else f"{own}, {min(used)} in common"

    def mean(self, spec: MetricSpec, method: str) -> float | None:
        """What the summary table shows of a method."""
        if spec.kind == "set":
            return self.of_sets.get(spec.name, {}).get(method)
        summary = self.summaries.get((spec.name, method))
        return None if summary is None else summary.mean

    def standing(self, spec: MetricSpec, method: str) -> str:
        """`best`, `tied` (not significantly worse), `worse`; empty where nothing is compared."""
        if spec.kind == "set":
            own = self.of_sets.get(spec.name, {})
            if len(own) < 2 or method not in own:
                return ""
            top = (min if spec.lower_better else max)(own.values())
            return "best" if own[method] == top else "worse"
        for comparison in self.comparisons[spec.name]:
            if comparison.best == method:
                return "best"
            if comparison.method == method:
                return "worse" if comparison.significant else "tied"
        return ""

    def extremes(
        self, spec: MetricSpec, method: str, count: int
    ) -> tuple[list[Result], list[Result]]:
        """The worst and the best results of a method, worst and best first; none is in both."""
        own = [r for r in self.results if r.pair.method == method and spec.name in r.values]
        found = [(value, r) for r in own if (value := r.values[spec.name]) is not None]
        order = sorted(found, key=lambda item: item[0], reverse=spec.lower_better)
        few = min(count, (len(order) + 1) // 2)
        worst = [result for _, result in order[:few]]
        best = [result for _, result in order[::-1][: min(count, len(order) - few)]]
        return worst, best

    def settings(self) -> dict[str, str]:
        """What was chosen, for a table."""
        config = self.config
        border = "none" if not config.crop_border else f"{config.crop_border} pixels at each edge"
        return {
            "crop border": f"{border}, before every metric (BasicSR's habit for x4 is 4)",
            "sizes that differ": config.fit,
            "transparent parts": "on white",
            "gray": "as three equal channels, as BasicSR reads it",
            "means": "over the files that all methods have; PSNR counts at most 100 dB there, so "
            "that equal pictures (inf) do not swallow the rest; clips: mean over frames first",
            "intervals": "95 %, bootstrap of the mean over files, 2,000 draws",
            "tests": "paired sign flips against the best method, two-sided, Holm's correction",
            "seed": str(config.seed),
            "device": self.device,
        }

    def write(self, path: str | Path) -> None:
        """Write it, by the ending .html, .csv, .json or .md; whole or not at all.

        HTML reads the results again for its crops, so they must still be there.

        Raises:
            OptionError: the name ends otherwise.
            OutputError: no space, no permission.
        """
        suffix = report_suffix(path)
        if suffix == ".html":
            from restore.reports.page import page as make
        elif suffix == ".md":
            from restore.reports.tables import markdown as make
        elif suffix == ".csv":
            from restore.reports.tables import comma_separated as make
        else:
            from restore.reports.tables import json_text as make
        data = make(self).encode("utf-8", "backslashreplace")
        try:
            with atomic(Path(path)) as stream:
                stream.write(data)
        except OSError as error:
            raise OutputError(f"'{path}' cannot be written: {output_reason(error)}") from error


def check_outputs(outputs: Sequence[str], *, overwrite: bool) -> None:
    """Refuse, before any work, files that are there or cannot be.

    Raises:
        OptionError: a report is there already, or its folder is not, or two have one name.
    """
    if len({str(Path(name)) for name in outputs}) < len(outputs):
        raise OptionError("the same -o was given twice; give each report its own name")
    for name in outputs:
        path = Path(name)
        if path.is_dir():
            raise OptionError(f"'{path}' is a folder; give a file name")
        if path.exists() and not overwrite:
            raise OptionError(f"'{path}' is there already; add --overwrite to replace it")
        if not path.parent.is_dir():
            raise OptionError(f"the folder of '{path}' does not exist; make it first")


def versions_of(specs: Sequence[MetricSpec]) -> dict[str, str]:
    """Versions of restore and of what took part."""
    import cv2
    import numpy as np
    import PIL
    import torch

    found = {
        "restore": restore.__version__,
        "Python": platform.python_version(),
        "NumPy": np.__version__,
        "OpenCV": cv2.__version__,
        "Pillow": PIL.__version__,
        "PyTorch": str(torch.__version__),
    }
    for spec in specs:
        if spec.source != "restore":
            found[spec.source] = spec.version
    return found
