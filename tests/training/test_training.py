"""The trainer: it learns, its files load, it logs and shows, it asks before it overwrites."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from training.conftest import NETWORK, Write
from training.test_resume import log_of

import restore
from restore.config import EngineConfig
from restore.engine import describe
from restore.errors import InputError, MissingExtraError, OptionError, OutputError
from restore.models.compact_weights import read_compact
from restore.training.config import OptimConfig, ValidationSet
from restore.training.run import train_from_file
from restore.training.trainer import learning_rate
from restore.training.validation import validate, validation_pairs

VALIDATION = [{"name": "own", "lr": "low", "hr": "pictures", "shown": 1}]


def test_training_makes_the_loss_smaller(write_recipe: Write, tmp_path: Path) -> None:
    losses: list[float] = []
    train_from_file(
        write_recipe(iterations=120, save_every=120),
        output=tmp_path / "run",
        progress=lambda step, _: losses.append(step.loss),
    )
    assert len(losses) == 120
    assert np.mean(losses[-20:]) < 0.9 * np.mean(losses[:20])


def test_the_weights_load_into_the_engine(write_recipe: Write, tmp_path: Path) -> None:
    weights = train_from_file(write_recipe(), output=tmp_path / "run").weights
    restorer = restore.load("compact", weights=str(weights), device="cpu")
    assert restorer.spec.scale == 2
    assert describe(EngineConfig(weights=str(weights))) == restorer.spec
    assert restorer.restore(torch.rand(3, 10, 12)).shape == (3, 20, 24)
    # And a later run may start from them.
    train_from_file(write_recipe(init=str(weights)), output=tmp_path / "second")


def test_the_log_and_the_pictures_show_the_validation(write_recipe: Write, tmp_path: Path) -> None:
    train_from_file(write_recipe(validation=VALIDATION, validate_every=4), output=tmp_path / "run")
    rows = log_of(tmp_path / "run")
    assert [row["iteration"] for row in rows] == ["2", "4", "6"]
    assert [bool(row["own.psnr_y"]) for row in rows] == [False, True, True]
    assert all(10 < float(row["own.psnr_y"]) < 60 for row in rows[1:])
    assert all(0 < float(row["own.ssim_y"]) <= 1 for row in rows[1:])
    shown = sorted((tmp_path / "run" / "pictures").iterdir())
    assert [path.name for path in shown] == ["0000004_own_0.png", "0000006_own_0.png"]
    sheet = np.asarray(Image.open(shown[0]))
    assert sheet.shape == (48, 3 * 48, 3)
    reference = np.asarray(Image.open(tmp_path / "pictures" / "0.png"))
    np.testing.assert_array_equal(sheet[:, 96:], reference)
    read_compact(tmp_path / "run" / "best.safetensors")


def test_the_best_weights_are_those_with_the_best_validation(
    write_recipe: Write, tmp_path: Path
) -> None:
    """A rate that ruins the network: the last weights are bad, the best ones are not."""
    recipe = write_recipe(
        validation=VALIDATION,
        validate_every=1,
        ema=0.0,
        optim={"lr": 0.5, "warmup": 100, "clip": 100.0},
    )
    train_from_file(recipe, output=tmp_path / "run")
    own = ValidationSet(lr=str(tmp_path / "low"), hr=str(tmp_path / "pictures"))

    def measured(name: str) -> float:
        restorer = restore.load("compact", weights=str(tmp_path / "run" / name), device="cpu")

        def run(picture: torch.Tensor) -> torch.Tensor:
            return restorer.restore(picture[0])[None]

        return validate(own, run, scale=2, device=torch.device("cpu"))["validation.psnr_y"]

    logged = [float(row["own.psnr_y"]) for row in log_of(tmp_path / "run") if row["own.psnr_y"]]
    assert max(logged) > logged[-1] + 1  # the run was ruined, as it should be here
    # Weights are stored in fp16, which moves the result by hundredths of a decibel.
    assert measured("best.safetensors") == pytest.approx(max(logged), abs=0.1)
    assert measured("net.safetensors") == pytest.approx(logged[-1], abs=0.1)


def test_weights_on_the_way_are_kept_when_asked(write_recipe: Write, tmp_path: Path) -> None:
    train_from_file(write_recipe(keep_every=2, ema=0.0), output=tmp_path / "run")
    kept = sorted(path.name for path in (tmp_path / "run").glob("net-*"))
    assert kept == [f"net-000000{i}.safetensors" for i in (2, 4, 6)]
    first, last, final = (
        read_compact(tmp_path / "run" / name).sets["faithful"]["head.weight"]
        for name in (kept[0], kept[2], "net.safetensors")
    )
    assert torch.equal(last, final) and not torch.equal(first, last)


def test_niqe_is_measured_and_chooses_the_best(
    pictures: Path, write_recipe: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With numbers of our own in its place: the second validation is the best."""
    told = iter([9.0, 9.0, 4.0, 4.0, 7.0, 7.0])
    monkeypatch.setattr("restore.training.validation.load_niqe_parameters", lambda path: path)
    monkeypatch.setattr("restore.training.validation.niqe", lambda _, parameters: next(told))
    own = [{**VALIDATION[0], "niqe_params": "params.npz"}]
    recipe = write_recipe(validation=own, validate_every=2, best_by="niqe", keep_every=2)
    train_from_file(recipe, output=tmp_path / "run")
    assert [row["own.niqe"] for row in log_of(tmp_path / "run")] == ["9", "4", "7"]
    best, second = (
        read_compact(tmp_path / "run" / name).sets["faithful"]
        for name in ("best.safetensors", "net-0000004.safetensors")
    )
    assert all(torch.equal(best[key], second[key]) for key in best)
    with pytest.raises(OptionError, match="best_by is niqe"):
        train_from_file(write_recipe(best_by="niqe"), output=tmp_path / "other")


def test_tensorboard_gets_the_same_numbers(write_recipe: Write, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    train_from_file(write_recipe(tensorboard=True), output=tmp_path / "run")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    board.Reload()
    got = {event.step: event.value for event in board.Scalars("loss")}
    rows = {int(row["iteration"]): float(row["loss"]) for row in log_of(tmp_path / "run")}
    assert got == pytest.approx(rows, rel=1e-5)  # the table has six digits


def test_tensorboard_that_is_missing_is_named(
    write_recipe: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torch.utils.tensorboard", None)
    with pytest.raises(MissingExtraError, match=r"needs TensorBoard; .*\[train\]"):
        train_from_file(write_recipe(tensorboard=True), output=tmp_path / "run")


def test_a_finished_run_is_not_overwritten_by_accident(write_recipe: Write, tmp_path: Path) -> None:
    first = train_from_file(write_recipe(), output=tmp_path / "run").weights
    with pytest.raises(OutputError, match=r"--resume.*--overwrite"):
        train_from_file(write_recipe(), output=tmp_path / "run")
    before = first.read_bytes()
    train_from_file(write_recipe(seed=5), output=tmp_path / "run", overwrite=True)
    assert first.read_bytes() != before


def test_a_damaged_state_is_named(write_recipe: Write, tmp_path: Path) -> None:
    train_from_file(write_recipe(), output=tmp_path / "run")
    (tmp_path / "run" / "state.pt").write_bytes(b"broken")
    with pytest.raises(InputError, match="not a readable training state"):
        train_from_file(write_recipe(), output=tmp_path / "run", resume=True)


def test_the_rate_warms_up_and_decays() -> None:
    optim = OptimConfig(lr=1.0, final_lr=0.1, warmup=10)
    rates = [learning_rate(optim, i, max(0, i - 10) / 90) for i in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[9] == pytest.approx(1.0)
    assert rates[9:] == sorted(rates[9:], reverse=True)
    assert rates[100] == pytest.approx(0.1)
    level = OptimConfig(**{**asdict(optim), "schedule": "constant"})
    assert [learning_rate(level, i, 0.9) for i in (0, 10, 99)] == pytest.approx([0.1, 1, 1])


def test_the_average_follows_the_weights(write_recipe: Write, tmp_path: Path) -> None:
    train_from_file(write_recipe(ema=0.0, iterations=3), output=tmp_path / "run")
    state = torch.load(tmp_path / "run" / "state.pt", weights_only=True)
    for key, value in state["modules"]["network"].items():
        assert torch.equal(state["averages"]["network"][key], value)


@pytest.mark.parametrize(("lr", "hr", "size"), [("low", "pictures", 48), (None, "pictures", 48)])
def test_validation_brings_references_to_the_size_of_results(
    pictures: Path, lr: str | None, hr: str, size: int
) -> None:
    """References four times as large, for a network of x2: they are shrunk."""
    folder = pictures.parent
    sizes = []

    def enlarge(picture: torch.Tensor) -> torch.Tensor:
        sizes.append(picture.shape[-1])
        return torch.nn.functional.interpolate(picture, scale_factor=2.0, mode="bicubic")

    own = ValidationSet(lr=lr and str(folder / lr), hr=str(folder / hr))
    good = validate(own, enlarge, scale=2, device=torch.device("cpu"))
    assert good["validation.psnr_y"] > 30  # smooth pictures survive halving
    assert sizes == [24, 24]
    for path in sorted((folder / "low").iterdir()):
        Image.open(path).resize((12, 12)).save(path)
    small = ValidationSet(lr=str(folder / "low"), hr=str(folder / hr))
    assert validate(small, enlarge, scale=2, device=torch.device("cpu"))["validation.psnr_y"] > 20
    assert sizes[2:] == [12, 12]


def test_a_validation_picture_without_a_reference_is_named(pictures: Path) -> None:
    (pictures / "0.png").unlink()
    own = ValidationSet(name="own", lr=str(pictures.parent / "low"), hr=str(pictures))
    with pytest.raises(OptionError, match=r"0\.png of the validation set 'own' has no reference"):
        validation_pairs(own)


def test_a_reference_with_nothing_to_measure_is_named(tmp_path: Path) -> None:
    Image.new("RGB", (1, 1)).save(tmp_path / "a.png")
    own = ValidationSet(hr=str(tmp_path))
    with pytest.raises(OptionError, match="1x1 pixels; give pictures with sides of 4 or more"):
        validate(own, lambda x: x, scale=2, device=torch.device("cpu"))


def test_a_shape_in_the_recipe_is_the_shape_of_the_file(
    write_recipe: Write, tmp_path: Path
) -> None:
    weights = train_from_file(write_recipe(), output=tmp_path / "run").weights
    assert asdict(read_compact(weights).config) == NETWORK
