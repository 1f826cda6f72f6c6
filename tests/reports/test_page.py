"""The page: whole in itself, with every number, and names stay text whatever is in them."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from restore.reports.cases import CROP_SIDE, find_cases, place_of_interest
from restore.reports.config import ReportConfig
from restore.reports.job import run
from restore.reports.plots import nice_scale
from restore.reports.report import Report

NASTY = '<script>alert(\'ü|"&")<'


class Tags(HTMLParser):
    """What a browser would see."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.sources: list[str] = []
        self.text: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.fixture
def report(tmp_path: Path, make_picture: Callable[..., Any]) -> Report:
    """Two methods over six pictures, of which one has a nasty name."""
    for name in ("hr", "one", "two"):
        (tmp_path / name).mkdir()
    for number in range(6):
        name = f"{NASTY}{number}.png" if number < 2 else f"p{number}.png"
        true = make_picture(260, 230)
        Image.fromarray(true).save(tmp_path / "hr" / name)
        for method, strength in (("one", 6), ("two", 12)):
            noise = np.random.default_rng(number).normal(0, strength + number, true.shape)
            result = np.clip(true + noise, 0, 255).astype(np.uint8)
            Image.fromarray(result).save(tmp_path / method / name)
    (tmp_path / "two" / "p5.png").write_bytes(b"no picture")
    config = ReportConfig(
        restored=(f"{NASTY}={tmp_path / 'one'}", str(tmp_path / "two")),
        reference=str(tmp_path / "hr"),
        metric=("psnr", "ssim"),
        cases=2,
    )
    return run(config)


def test_the_page_needs_nothing_and_names_stay_text(report: Report, tmp_path: Path) -> None:
    report.write(tmp_path / "r.html")
    content = (tmp_path / "r.html").read_text(encoding="utf-8")
    seen = Tags()
    seen.feed(content)
    assert not seen.open  # every element is closed
    assert "script" not in seen.names
    assert all(source.startswith(("data:image/jpeg;base64,", "#")) for source in seen.sources)
    assert "http" not in re.sub(r"data:[^\"]*", "", content)
    text = " ".join("".join(seen.text).split())
    assert NASTY in text
    for spec in report.metrics:
        assert spec.title in text
        for method in report.methods:
            assert spec.shown(report.mean(spec, method)) in text
    assert report.failed[0].failed
    assert " ".join(report.failed[0].failed.split()) in text
    assert str(tmp_path) not in content


def test_crops_show_the_same_place_of_reference_and_methods(report: Report) -> None:
    cases = {one.spec.name: one for one in find_cases(report)}
    assert set(cases) == {"psnr", "ssim"}
    worst = cases["psnr"].worst[0]
    values = report.values("psnr")[report.methods[0]]
    assert worst.key == min(values, key=lambda key: values[key])
    assert worst.views[0].label == "reference"
    for view in worst.views:
        data = base64.b64decode(view.data.removeprefix("data:image/jpeg;base64,"))
        assert Image.open(io.BytesIO(data)).size == (CROP_SIDE, CROP_SIDE)
    best = cases["psnr"].best[0]
    assert best.key == max(values, key=lambda key: values[key])


def test_crops_lie_where_the_error_is_greatest() -> None:
    reference = np.full((600, 700, 3), 120, np.uint8)
    image = reference.copy()
    image[410:420, 500:520] = 255
    top, left = place_of_interest(image, reference)
    assert top <= 410
    assert top + CROP_SIDE >= 420
    assert left <= 500
    assert left + CROP_SIDE >= 520
    assert place_of_interest(image[:50, :60], None) == (0, 0)


@pytest.mark.parametrize(("low", "high"), [(20.2, 35.1), (0.98, 0.981), (5, 5), (0, 0), (-3, 1e6)])
def test_scales_hold_their_values(low: float, high: float) -> None:
    begin, end, ticks = nice_scale(low, high)
    assert begin <= low <= high <= end
    assert begin < end
    assert 2 <= len(ticks) <= 8


def test_markdown_keeps_its_table(report: Report, tmp_path: Path) -> None:
    report.write(tmp_path / "r.md")
    lines = (tmp_path / "r.md").read_text(encoding="utf-8").splitlines()
    table = [line for line in lines if line.startswith("| ")][:3]
    bars = {len(re.findall(r"(?<!\\)\|", line)) for line in table}
    assert len(bars) == 1
    assert "<script" not in "\n".join(lines)


def test_a_report_without_numbers_is_still_a_page(tmp_path: Path) -> None:
    empty = Report(
        config=ReportConfig(),
        methods=("a",),
        metrics=(),
        results=[],
        skipped=[("niqe", "its parameters are missing")],
        versions={"restore": "1"},
    )
    for suffix in ("html", "md", "csv", "json"):
        empty.write(tmp_path / f"r.{suffix}")
    assert "its parameters are missing" in (tmp_path / "r.html").read_text()
