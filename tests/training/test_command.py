"""`restore train` and `restore pack` as they are called from a shell."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from training.conftest import Write

from restore.cli.commands import app
from restore.cli.progress import Meter
from restore.cli.report import TrainLines
from restore.models.compact_weights import read_compact
from restore.training.trainer import TrainStep


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def test_a_packed_set_trains_a_network(write_recipe: Write, tmp_path: Path) -> None:
    packed, folder = tmp_path / "set.safetensors", tmp_path / "run"
    pictures = str(tmp_path / "pictures")
    done = run("pack", pictures, "-o", str(packed), "--patch", "32", "--count", "5")
    assert done.exit_code == 0, done.stderr
    assert f"{packed}: 5 patches, 0.0 MiB" in done.stderr
    recipe = write_recipe()
    changes = ["--set", f"data=[{{path: {packed}}}]", "--set", "iterations=4"]
    done = run("train", str(recipe), "-o", str(folder), *changes, "--stop-after", "0.00001")
    assert done.exit_code == 0, done.stderr
    assert "stopped at iteration 1; --resume goes on" in done.stderr
    done = run("train", str(recipe), "-o", str(folder), *changes, "--resume")
    assert done.exit_code == 0, done.stderr
    assert done.stderr == f"weights: {folder / 'net.safetensors'}\n"
    read_compact(folder / "net.safetensors")


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["train", "{recipe}", "--stop-after", "-1"], 2, "stop after -1 is not possible"),
        (["train", "{recipe}", "--set", "batch"], 2, "write it as field=value"),
        (["train", "none.yaml"], 1, "none.yaml cannot be read"),
        (["pack", "none"], 1, "none is not there"),
        (["pack"], 2, "Missing argument 'IN...'"),
    ],
)
def test_wrong_use_is_one_line(
    arguments: list[str], status: int, said: str, write_recipe: Write
) -> None:
    recipe = str(write_recipe())
    result = run(*(argument.format(recipe=recipe) for argument in arguments))
    assert result.exit_code == status
    assert said in result.stderr and result.stderr.count("\n") == 1


def test_the_progress_says_how_fast_and_how_long(monkeypatch: pytest.MonkeyPatch) -> None:
    notes: list[str] = []
    monkeypatch.setattr(Meter, "update", lambda _, done, total, note: notes.append(note))
    lines = TrainLines(Meter("iterations"))
    step = {"progress": 0.0, "losses": {"loss": 0.5}, "lr": 0.1, "seconds": 2.0, "samples": 8}
    lines.step(TrainStep(iteration=1, **step), 91)  # type: ignore[arg-type]
    assert notes == ["loss 0.5000, 4.0 samples a second, 3:00 left"]
    lines.step(TrainStep(iteration=2, time_left=60.0, **step), 91)  # type: ignore[arg-type]
    assert notes[1].endswith("1:00 left")
