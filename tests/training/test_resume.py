"""A run that was stopped, in whatever way, goes on as if nothing had been."""

from __future__ import annotations

import csv
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from training.conftest import GAN, KINDS, NETWORK, Write

from restore.errors import InputError, OptionError, OutputError
from restore.training.run import train_from_file
from restore.training.trainer import DivergedError, Trainer, TrainStep
from restore.weights import open_weights


def leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every tensor and number of a state, with the way to it; the time spent is left out."""
    if isinstance(value, dict | list | tuple):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in items:
            if key != "seconds":
                yield from leaves(item, f"{name}/{key}")
    else:
        yield name, value


def assert_same_run(first: Path, second: Path) -> None:
    """Both folders hold the same weights, states and logged losses, to the last bit."""
    states = [dict(leaves(torch.load(p / "state.pt", weights_only=True))) for p in (first, second)]
    assert states[0].keys() == states[1].keys()
    for name, value in states[0].items():
        other = states[1][name]
        same = torch.equal(value, other) if isinstance(value, torch.Tensor) else value == other
        assert same, name
    weights = [open_weights(p / "net.safetensors")[0] for p in (first, second)]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    assert log_of(first) == log_of(second)


def log_of(folder: Path) -> list[dict[str, str]]:
    """Rows of the log without the time."""
    with (folder / "log.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        del row["seconds"]
    return rows


@pytest.mark.usefixtures("faithful")
@pytest.mark.parametrize("kind", KINDS)
def test_a_crashed_run_goes_on_bit_for_bit(kind: str, write_recipe: Write, tmp_path: Path) -> None:
    recipe = write_recipe(**KINDS[kind])
    train_from_file(recipe, output=tmp_path / "whole")

    def crash_after_five(step: TrainStep, total: int) -> None:
        if step.iteration == 5:
            raise RuntimeError("crash")

    with pytest.raises(RuntimeError, match="crash"):
        train_from_file(recipe, output=tmp_path / "broken", progress=crash_after_five)
    assert torch.load(tmp_path / "broken" / "state.pt", weights_only=True)["iteration"] == 3
    result = train_from_file(recipe, output=tmp_path / "broken", resume=True)
    assert (result.iteration, result.finished) == (6, True)
    assert_same_run(tmp_path / "whole", tmp_path / "broken")


@pytest.mark.slow
@pytest.mark.usefixtures("faithful")
def test_kill_9_at_any_moment_and_ctrl_c_are_harmless(write_recipe: Write, tmp_path: Path) -> None:
    fields = {**GAN, "precision": "bf16", "workers": 2, "iterations": 40}
    recipe = write_recipe(**fields, save_every=2)
    folder = tmp_path / "killed"
    command = [sys.executable, "-m", "restore", "train", str(recipe), "-o", str(folder)]
    for stop, status in ((signal.SIGKILL, -9), (signal.SIGINT, 130)):
        state = folder / "state.pt"
        before = state.stat().st_mtime_ns if state.exists() else 0
        process = subprocess.Popen([*command, "--resume"], stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 60
        while not state.exists() or state.stat().st_mtime_ns == before:
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(stop)
        said = process.communicate(timeout=60)[1]
        assert process.returncode == status, said
        done = torch.load(state, weights_only=True)["iteration"]
        assert 0 < done < 40  # stopped on the way; else the test shows nothing
    assert "--resume goes on" in said
    train_from_file(recipe, output=folder, resume=True)
    train_from_file(recipe, output=tmp_path / "whole")
    assert_same_run(tmp_path / "whole", folder)


def test_ctrl_c_keeps_every_finished_step(write_recipe: Write, tmp_path: Path) -> None:
    recipe = write_recipe()
    # A shell starts programs in the background with Ctrl-C switched off.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def press(step: TrainStep, total: int) -> None:
        if step.iteration == 4:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train_from_file(recipe, output=tmp_path / "run", progress=press)
    assert torch.load(tmp_path / "run" / "state.pt", weights_only=True)["iteration"] == 4
    assert signal.signal(signal.SIGINT, before) is signal.default_int_handler
    train_from_file(recipe, output=tmp_path / "run", resume=True)
    train_from_file(recipe, output=tmp_path / "whole")
    assert_same_run(tmp_path / "whole", tmp_path / "run")


def test_a_run_that_leaves_in_time_goes_on_later(write_recipe: Write, tmp_path: Path) -> None:
    recipe = write_recipe(iterations=8)
    parts = [
        train_from_file(recipe, output=tmp_path / "run", resume=True, stop_after=0.0)
        for _ in range(8)
    ]
    # No time at all still gives a step a call, so that nobody waits for ever.
    assert [part.iteration for part in parts] == list(range(1, 9))
    assert [part.finished for part in parts] == [False] * 7 + [True]
    train_from_file(recipe, output=tmp_path / "whole")
    assert_same_run(tmp_path / "whole", tmp_path / "run")


@pytest.mark.usefixtures("faithful")
@pytest.mark.parametrize("kind", ["faithful", "clips"])
def test_batches_made_ahead_are_the_same(kind: str, write_recipe: Write, tmp_path: Path) -> None:
    for workers in (0, 3):
        recipe = write_recipe(**{**KINDS[kind], "workers": workers})
        train_from_file(recipe, output=tmp_path / str(workers))
    assert_same_run(tmp_path / "0", tmp_path / "3")


def test_a_run_with_a_time_limit_ends_at_it(write_recipe: Write, tmp_path: Path) -> None:
    recipe = write_recipe(iterations=10**6, minutes=1 / 60, save_every=10**6)
    result = train_from_file(recipe, output=tmp_path / "run")
    assert result.finished
    assert 1 < result.iteration < 10**6
    last = log_of(tmp_path / "run")[-1]
    assert int(last["iteration"]) == result.iteration
    # The rate fell from 2e-3 along with the time; on a busy machine the last step may begin early.
    assert float(last["lr"]) < 1e-3


def test_a_loss_that_is_not_finite_stops_the_run(write_recipe: Write, tmp_path: Path) -> None:
    recipe = write_recipe(iterations=9, optim={"lr": 1e-3, "warmup": 1})
    train_from_file(recipe, output=tmp_path / "run", stop_after=0.0)
    good = (tmp_path / "run" / "net.safetensors").read_bytes()
    state = torch.load(tmp_path / "run" / "state.pt", weights_only=True)
    state["modules"]["network"]["head.weight"][:] = float("nan")
    torch.save(state, tmp_path / "run" / "state.pt")
    with pytest.raises(DivergedError, match="loss is nan at iteration 2; the last checkpoint"):
        train_from_file(recipe, output=tmp_path / "run", resume=True)
    assert (tmp_path / "run" / "net.safetensors").read_bytes() == good


def test_a_run_resumes_with_its_own_recipe_only(write_recipe: Write, tmp_path: Path) -> None:
    train_from_file(write_recipe(), output=tmp_path / "run")
    with pytest.raises(OptionError, match=r"recipe differs.*\(seed\)"):
        train_from_file(write_recipe(seed=5), output=tmp_path / "run", resume=True)
    # What does not reach the weights may change.
    train_from_file(write_recipe(log_every=1), output=tmp_path / "run", resume=True)


def test_damage_beside_the_state_is_named(write_recipe: Write, tmp_path: Path) -> None:
    train_from_file(write_recipe(), output=tmp_path / "run")
    (tmp_path / "run" / "recipe.json").write_text("{")
    with pytest.raises(InputError, match=r"recipe\.json is damaged"):
        train_from_file(write_recipe(), output=tmp_path / "run", resume=True)
    (tmp_path / "run" / "recipe.json").unlink()
    wider = write_recipe(network={**NETWORK, "deep": 16})
    with pytest.raises(InputError, match="holds the state of another run"):
        train_from_file(wider, output=tmp_path / "run", resume=True)


def test_a_run_that_starts_again_does_not_go_on_with_the_old_state(
    write_recipe: Write, tmp_path: Path
) -> None:
    train_from_file(write_recipe(validation=[{"hr": "low"}]), output=tmp_path / "run")
    train_from_file(write_recipe(seed=5), output=tmp_path / "whole")

    def crash_before_the_checkpoint(step: TrainStep, total: int) -> None:
        raise RuntimeError("crash")

    again = write_recipe(seed=5)
    with pytest.raises(RuntimeError, match="crash"):
        train_from_file(
            again,
            output=tmp_path / "run",
            overwrite=True,
            progress=crash_before_the_checkpoint,
        )
    train_from_file(again, output=tmp_path / "run", resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "run")
    assert not (tmp_path / "run" / "best.safetensors").exists()  # it was the old run's


def test_two_runs_do_not_share_a_folder(write_recipe: Write, tmp_path: Path) -> None:
    recipe = write_recipe()

    def start_another(step: TrainStep, total: int) -> None:
        if step.iteration == 4:
            with pytest.raises(OutputError, match="another run"):
                train_from_file(recipe, output=tmp_path / "run", resume=True)

    train_from_file(recipe, output=tmp_path / "run", progress=start_another)
    assert train_from_file(recipe, output=tmp_path / "run", resume=True).finished


def test_spoilt_weights_never_replace_good_ones(
    write_recipe: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Trainer._update_averages

    def spoil_the_fourth_step(trainer: Trainer) -> None:
        if trainer.iteration == 3:
            parameter = next(trainer.recipe.modules["network"].parameters())
            parameter.data[0] = float("inf")
        real(trainer)

    monkeypatch.setattr(Trainer, "_update_averages", spoil_the_fourth_step)
    with pytest.raises(DivergedError, match=r"not finite after iteration 4; the last checkpoint"):
        train_from_file(write_recipe(save_every=1), output=tmp_path / "run")
    assert torch.load(tmp_path / "run" / "state.pt", weights_only=True)["iteration"] == 3
    weights, _ = open_weights(tmp_path / "run" / "net.safetensors")
    assert all(bool(weight.isfinite().all()) for weight in weights.values())


def test_a_picture_that_cannot_be_read_costs_no_step(write_recipe: Write, tmp_path: Path) -> None:
    fields = {"validation": [{"hr": "low"}], "validate_every": 4, "save_every": 6}
    recipe = write_recipe(**fields)
    train_from_file(recipe, output=tmp_path / "whole")
    picture = tmp_path / "low" / "1.png"
    good = picture.read_bytes()
    picture.write_bytes(good[:50])
    with pytest.raises(InputError, match=r"1\.png is not a readable picture"):
        train_from_file(recipe, output=tmp_path / "run")
    assert torch.load(tmp_path / "run" / "state.pt", weights_only=True)["iteration"] == 4
    picture.write_bytes(good)
    train_from_file(recipe, output=tmp_path / "run", resume=True)
    weights = [open_weights(tmp_path / run / "net.safetensors")[0] for run in ("whole", "run")]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a disk that is full, as Linux has it")
@pytest.mark.parametrize("name", ["state.pt", "log.csv"])
def test_a_full_disk_is_said_and_the_last_checkpoint_stays(
    name: str, write_recipe: Write, tmp_path: Path
) -> None:
    recipe, folder = write_recipe(), tmp_path / "run"
    train_from_file(recipe, output=folder, stop_after=0.0)
    before = (folder / "state.pt").read_bytes()
    (folder / f"{name}.tmp").symlink_to("/dev/full")
    with pytest.raises(OutputError, match="cannot be written") as caught:
        train_from_file(recipe, output=folder, resume=True)
    assert "\n" not in str(caught.value)
    assert (folder / "state.pt").read_bytes() == before
    (folder / f"{name}.tmp").unlink(missing_ok=True)
    train_from_file(recipe, output=folder, resume=True)
    train_from_file(recipe, output=tmp_path / "whole")
    assert_same_run(tmp_path / "whole", folder)
