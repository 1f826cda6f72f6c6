"""`restore metrics` on the command line: tables, lines, statuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from restore.cli.commands import app


@pytest.fixture
def folders(
    tmp_path: Path, make_picture: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> Path:
    monkeypatch.chdir(tmp_path)
    for name, offset in (("hr", 0), ("a", 2), ("b", 6)):
        Path(name).mkdir()
        for number in range(8):
            picture = (make_picture(60, 50 + number) // 2 + offset).astype(np.uint8)
            Image.fromarray(picture).save(f"{name}/p{number}.png")
    return tmp_path


def metrics(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["metrics", *arguments])


@pytest.mark.usefixtures("folders")
def test_the_table_goes_to_stdout_and_reports_to_files() -> None:
    outputs = [f"r{suffix}" for suffix in (".html", ".csv", ".json", ".md")]
    options = [word for name in outputs for word in ("-o", name)]
    command = ["--restored", "a", "--restored", "other=b", "--reference", "hr", *options]
    result = metrics(*command, "-m", "psnr-rgb")
    assert result.exit_code == 0, result.stderr
    lines = [line.split() for line in result.stdout.splitlines()]
    assert lines[0] == ["a", "other"]
    assert lines[1] == ["files", "8", "8"]
    # An offset of 2 of 255 is 42.11 dB, of 6 it is 32.57 dB.
    assert lines[2][:3] == ["PSNR-RGB", "\N{UPWARDS ARROW}", "42.11"]
    assert "32.57" in lines[2]
    assert all(Path(name).stat().st_size for name in outputs)
    again = metrics(*command)
    assert again.exit_code == 2
    assert "--overwrite" in again.stderr
    assert metrics(*command, "--overwrite").exit_code == 0


def test_unpaired_files_and_failures_are_lines_and_the_status(folders: Path) -> None:
    (folders / "a" / "p1.png").write_bytes(b"\x89PNG nothing")
    (folders / "a" / "p2.png").unlink()
    result = metrics("--restored", "a", "--reference", "hr")
    assert result.exit_code == 1
    assert "restore: unpaired: reference: p2.png: 'a' has no result for it" in result.stderr
    assert "restore: failed: a: p1:" in result.stderr
    assert "Traceback" not in result.stderr
    assert "PSNR-Y" in result.stdout


@pytest.mark.usefixtures("folders")
def test_a_metric_that_is_not_here_is_skipped_unless_strict(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("restore.reports.iqa.installed", lambda: False)
    command = ["--restored", "a", "--reference", "hr", "-m", "psnr", "-m", "lpips"]
    result = metrics(*command)
    assert result.exit_code == 0
    assert result.stderr.count("restore: skipped: lpips:") == 1
    assert metrics(*command, "--strict").exit_code == 1
    alone = metrics("--restored", "a", "-m", "lpips")
    assert alone.exit_code == 1
    assert "no metric is left to measure" in alone.stderr


@pytest.mark.usefixtures("folders")
def test_json_lines_end_with_a_summary() -> None:
    result = metrics("--restored", "a", "--reference", "hr", "--json", "-m", "psnr-rgb")
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["event"] for line in lines] == ["measured"] * 8 + ["summary"]
    assert lines[-1]["ok"] is True
    assert lines[-1]["means"]["a"]["psnr-rgb"] == pytest.approx(42.11, abs=0.01)


@pytest.mark.usefixtures("folders")
def test_what_is_wrong_with_the_call_is_one_line() -> None:
    for arguments, status in (
        ([], 2),
        (["--restored", "a", "-m", "psnr"], 2),
        (["--restored", "nowhere"], 1),
        (["--restored", "a", "--reference", "hr", "-o", "r.pdf"], 2),
        (["--restored", "a", "--reference", "hr", "-o", "no/r.html"], 2),
    ):
        result = metrics(*arguments)
        assert result.exit_code == status, arguments
        assert len(result.stderr.splitlines()) == 1
        assert result.stdout == ""


def test_the_list_names_our_own_and_says_whose_the_others_are() -> None:
    result = metrics("--list")
    assert result.exit_code == 0
    for name in ("psnr:", "ms-ssim-rgb:", "niqe:", "warping-error:", "tlp-like:", "bpp:"):
        assert name in result.stdout
    assert "Noncommercial" in result.stdout
