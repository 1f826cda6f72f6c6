"""`restore doctor`: it finds what is there, survives what is broken, and names the mending."""

from __future__ import annotations

import builtins
import dataclasses
import importlib
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from click.testing import CliRunner

import restore
from restore.cli import doctor
from restore.cli.commands import app
from restore.errors import install_command
from restore.video.encoders import SOFTWARE


@pytest.fixture
def no_hardware(monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening encoders of graphics hardware is the video room's business, and slow."""
    monkeypatch.setattr(doctor, "hardware_encoders", lambda: ("h264_nvenc",))


def test_a_working_machine_is_described(no_hardware: None) -> None:
    health = doctor.examine()
    assert health.problems == ()
    assert health.ok
    assert health.restore == restore.__version__
    assert health.packages["torch"] == importlib.metadata.version("torch")
    assert all(health.packages.values())
    assert set(health.ffmpeg) >= {"libavcodec", "libavformat", "libswscale"}
    assert health.devices[0].name == "cpu"
    assert (health.devices[0].free_bytes or 0) > 0
    assert health.encoders["h264"] == "libx264"
    assert health.formats["png"] and health.formats["jpg"]
    assert health.models["compact"] is not None
    assert str(Path.cwd()) in health.disk_free_bytes


def test_the_report_is_text_or_one_json_object(
    no_hardware: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = CliRunner()
    text = runner.invoke(app, ["doctor"])
    assert text.exit_code == 0
    for word in (restore.__version__, "torch", "libavcodec", "cpu", "libx264", "h264_nvenc"):
        assert word in text.stdout
    assert text.stdout.splitlines()[-1] == "Pictures and clips can be restored here."
    machine = runner.invoke(app, ["doctor", "--json"])
    assert set(json.loads(machine.stdout)) == {f.name for f in dataclasses.fields(doctor.Health)}


def test_a_package_that_cannot_be_imported_is_a_problem_with_its_command(
    no_hardware: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)  # import cv2 now raises ImportError
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 1
    assert "opencv-python-headless  CANNOT BE IMPORTED" in result.stdout
    assert "problem: cannot be imported: opencv-python-headless" in result.stdout
    assert "--force-reinstall --no-deps opencv-python-headless" in result.stdout
    assert result.stdout.splitlines()[-1] == "The core does not work."


def test_it_works_where_hardly_anything_can_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("torch", "av", "PIL", "PIL.features", "numpy", "restore.weights"):
        monkeypatch.setitem(sys.modules, name, None)
    for name in (
        "restore.inventory",
        "restore.memory",
        "restore.engine",
        "restore.video.encoders",
    ):
        monkeypatch.delitem(sys.modules, name, raising=False)
    health = doctor.examine()
    assert not health.ok
    assert health.packages["torch"] is None
    assert health.devices == ()
    assert all(problem.fix for problem in health.problems)
    assert "The core does not work." in doctor.report_lines(health)


def test_a_broken_library_may_raise_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def broken(name: str) -> Any:
        if name == "av":
            raise OSError("libavcodec.so.62: cannot open shared object file")
        return real(name)

    monkeypatch.setattr(importlib, "import_module", broken)
    assert doctor.package_version("av", "av") is None
    assert doctor.package_version("click", "click") is not None


def test_missing_weights_of_the_default_model_are_a_problem(
    no_hardware: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("restore.weights.ASSETS", tmp_path)
    health = doctor.examine()
    assert not health.ok
    assert health.models["compact"] is None
    assert "compact.safetensors is missing" in health.problems[0].what
    assert "pip install" in health.problems[0].fix


def test_a_network_that_gives_rubbish_is_a_problem(
    no_hardware: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    black = SimpleNamespace(restore=lambda picture: picture * 0)
    monkeypatch.setattr(restore, "load", lambda **_: black, raising=False)
    health = doctor.examine()
    assert [p.what for p in health.problems] == [
        "a test picture could not be restored: a gray picture came out with a mean of 0 of 255"
    ]


def test_no_h264_encoder_is_a_problem(no_hardware: None, monkeypatch: pytest.MonkeyPatch) -> None:
    h264 = replace(SOFTWARE["h264"], name="libnothing")
    monkeypatch.setitem(SOFTWARE, "h264", h264)
    health = doctor.examine()
    assert not health.ok
    assert health.encoders["h264"] is None
    assert health.encoders["hevc"] == "libx265"
    assert [p.what for p in health.problems] == [
        "no H.264 encoder opens, so that clips cannot be written"
    ]


def test_missing_extras_name_the_command_that_brings_them(monkeypatch: pytest.MonkeyPatch) -> None:
    requirements = [
        "torch>=2.9",
        'tensorboard>=2.16; extra == "train"',
        'pytest>=8.2; extra == "dev"',
        "no-such-thing[x]<9,>=2; python_version < '4' and extra == 'dev'",
        'restore[train,dev]; extra == "all"',
    ]
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: requirements)
    monkeypatch.setattr(doctor, "is_installed", lambda name: name in ("pytest", "tensorboard"))
    assert doctor.extras() == {
        "dev": doctor.Extra(missing=("no-such-thing",), command=install_command("dev")),
        "train": doctor.Extra(missing=(), command=install_command("train")),
    }


def test_the_extras_of_this_package_are_found() -> None:
    assert {"train", "metrics", "demo", "cluster", "dev"} <= set(doctor.extras())
    assert doctor.is_installed("pytest")
    assert not doctor.is_installed("a-distribution-that-nobody-has")


def test_graphics_cards_are_listed_with_their_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "A Card")
    monkeypatch.setattr("restore.memory.free_memory", lambda device: 3 << 30)
    card = doctor.devices()[1]
    assert (card.name, card.model, card.free_bytes) == ("cuda:0", "A Card", 3 << 30)
    assert doctor.describe_device(card) == "A Card, 3.0 GiB free"


@pytest.mark.gpu
def test_a_real_graphics_card_is_found() -> None:
    assert any(device.name == "cuda:0" and device.free_bytes for device in doctor.devices())
