"""pyiqa by name, through a stand-in: missing weights are one line, and no host is asked."""

from __future__ import annotations

import socket
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from restore.errors import OptionError
from restore.reports.config import ReportConfig
from restore.reports.iqa import _no_network
from restore.reports.job import run

PYIQA = """
    import torch
    from pyiqa.default_model_configs import DEFAULT_CONFIGS

    class Metric:
        def __init__(self, name):
            self.metric_name = name
            self.lower_better = DEFAULT_CONFIGS[name].get("lower_better", False)
            self.metric_mode = DEFAULT_CONFIGS[name]["metric_mode"]
            self.net = self.of_folders

        def __call__(self, image, reference=None):
            assert image.shape[:2] == (1, 3) and image.dtype == torch.float32
            if self.metric_name == "drawn":
                return torch.rand(1, 1)
            if self.metric_name == "odd":
                return torch.tensor([float("nan")])
            return (image - reference).abs().mean()

        def of_folders(self, own, true, **more):
            from pathlib import Path
            return float(len(list(Path(own).iterdir())) + 100 * len(list(Path(true).iterdir())))

    def create_metric(name, device=None):
        print("Loading pretrained model ...")
        if name == "lpips":
            import urllib.request
            urllib.request.urlopen("http://weights.example/lpips.pth")
        if name == "broken":
            raise ModuleNotFoundError("No module named 'timm'")
        return Metric(name)
"""
CONFIGS = """
    DEFAULT_CONFIGS = {
        "lpips": {"metric_mode": "FR", "lower_better": True, "metric_opts": {}},
        "broken": {"metric_mode": "NR", "metric_opts": {}},
        "mae": {"metric_mode": "FR", "lower_better": True,
                "metric_opts": {"test_y_channel": True, "color_space": "ycbcr"}},
        "drawn": {"metric_mode": "NR", "metric_opts": {}},
        "odd": {"metric_mode": "NR", "metric_opts": {}},
        "fid": {"metric_mode": "NR", "lower_better": True, "metric_opts": {}},
    }
"""


@pytest.fixture
def pyiqa(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A stand-in with pyiqa's interface, instead of the real one if that is installed."""
    package = tmp_path / "site" / "pyiqa"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(textwrap.dedent(PYIQA))
    (package / "default_model_configs.py").write_text(textwrap.dedent(CONFIGS))
    info = tmp_path / "site" / "pyiqa-9.8.7.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: pyiqa\nVersion: 9.8.7\n")
    monkeypatch.syspath_prepend(str(package.parent))
    names = [name for name in sys.modules if name.partition(".")[0] == "pyiqa"]
    for name in names:
        monkeypatch.delitem(sys.modules, name)
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "pyiqa"]:
        del sys.modules[name]


@pytest.fixture
def folders(tmp_path: Path, make_picture: Callable[..., Any]) -> dict[str, Any]:
    for name, offset in (("hr", 0), ("good", 3)):
        (tmp_path / name).mkdir()
        for number in range(3):
            picture = (make_picture(40, 30) // 2 + np.uint8(offset)).astype(np.uint8)
            Image.fromarray(picture).save(tmp_path / name / f"p{number}.png")
    return {"restored": (str(tmp_path / "good"),), "reference": str(tmp_path / "hr")}


@pytest.mark.usefixtures("pyiqa")
def test_metrics_by_name_with_direction_color_and_version(folders: dict[str, Any]) -> None:
    report = run(ReportConfig(**folders, metric=("mae", "psnr")))
    assert report.ok
    (spec, _) = report.metrics
    assert (spec.lower_better, spec.source, spec.version) == (True, "pyiqa", "9.8.7")
    assert "YCBCR" in spec.color
    assert report.mean(spec, "good") == pytest.approx(3 / 255, abs=1e-6)  # float32
    assert report.versions["pyiqa"] == "9.8.7"


@pytest.mark.usefixtures("pyiqa")
def test_without_weights_a_metric_is_skipped_with_one_line(
    folders: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    report = run(ReportConfig(**folders, metric=("psnr", "lpips", "broken")))
    lines = dict(report.skipped)
    assert "--fetch" in lines["lpips"]
    assert "timm" in lines["broken"]
    assert all("\n" not in line for line in lines.values())
    assert [spec.name for spec in report.metrics] == ["psnr"]
    assert report.ok
    assert not run(ReportConfig(**folders, metric=("psnr", "lpips"), strict=True)).ok
    assert capsys.readouterr().out == ""  # stdout belongs to the report


@pytest.mark.usefixtures("pyiqa")
def test_drawn_crops_depend_on_the_seed_alone(folders: dict[str, Any]) -> None:
    before = torch.random.get_rng_state()
    found = [
        [r.values["drawn"] for r in run(ReportConfig(**folders, metric=("drawn",), seed=s)).results]
        for s in (0, 0, 1)
    ]
    assert found[0] == found[1] != found[2]
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.usefixtures("pyiqa")
def test_no_number_is_a_problem_and_not_a_value(folders: dict[str, Any]) -> None:
    report = run(ReportConfig(**folders, metric=("odd",)))
    assert {r.values["odd"] for r in report.results} == {None}
    assert not report.ok


@pytest.mark.usefixtures("pyiqa")
def test_metrics_of_sets_get_folders_of_all_pairs(folders: dict[str, Any]) -> None:
    report = run(ReportConfig(**folders, metric=("fid",)))
    assert report.of_sets == {"fid": {"good": 303.0}}
    assert report.mean(report.metrics[0], "good") == 303.0


@pytest.mark.usefixtures("pyiqa")
def test_an_unknown_name_is_refused(folders: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match="no metric 'nosuch'"):
        run(ReportConfig(**folders, metric=("nosuch",)))


def test_without_pyiqa_the_extra_and_its_licence_are_named(
    folders: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("restore.reports.iqa.installed", lambda: False)
    report = run(ReportConfig(**folders, metric=("psnr", "lpips")))
    assert report.skipped[0][0] == "lpips"
    assert "[metrics]" in report.skipped[0][1]
    assert "Noncommercial" in report.skipped[0][1]
    with pytest.raises(OptionError, match="did you mean 'psnr'"):
        run(ReportConfig(**folders, metric=("psnrr",)))


def test_only_the_thread_that_makes_a_metric_is_cut_off() -> None:
    found: list[object] = []
    with _no_network():
        with pytest.raises(socket.gaierror, match="no network"):
            socket.getaddrinfo("localhost", 80)
        thread = threading.Thread(target=lambda: found.append(socket.getaddrinfo("localhost", 80)))
        thread.start()
        thread.join()
    assert found
    assert socket.getaddrinfo("localhost", 80)
