"""The trainer: it learns, it resumes bit for bit, its files load, its recipes teach."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import restore
from restore.config import EngineConfig
from restore.engine import describe
from restore.errors import InputError, OptionError, OutputError
from restore.training.config import OptimConfig, read_train_config
from restore.training.run import train_from_file
from restore.training.trainer import TrainStep, learning_rate
from restore.weights import open_weights

RECIPE = """
name: tiny
network: {scale: 2, width: 8, blocks: 1}
data: [{path: pictures}]
degradation: {noise_prob: 0.5, jpeg_quality: [60, 95]}
soft_target_prob: 0.5
frequency_weight: 0.1
optim: {lr: 2e-3, warmup: 2}
iterations: 6
batch: 4
groups: 2
patch: 8
save_every: 3
log_every: 2
validation_lr: low
validation_hr: pictures
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "low").mkdir()
    random = np.random.default_rng(0)
    for i in range(2):
        small = Image.fromarray(random.integers(0, 256, (6, 6, 3), dtype=np.uint8))
        picture = small.resize((48, 48), Image.Resampling.BICUBIC)
        picture.save(tmp_path / "pictures" / f"{i}.png")
        picture.resize((24, 24)).save(tmp_path / "low" / f"{i}.png")
    path = tmp_path / "tiny.yaml"
    path.write_text(RECIPE)
    return path


def same_weights(a: Path, b: Path) -> bool:
    first, _ = open_weights(a)
    second, _ = open_weights(b)
    return all(torch.equal(first[k], second[k]) for k in first)


def test_a_killed_run_goes_on_bit_for_bit(recipe: Path, tmp_path: Path) -> None:
    whole = train_from_file(recipe, output=tmp_path / "whole")

    def kill_after_four(step: TrainStep, total: int) -> None:
        if step.iteration == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_from_file(recipe, output=tmp_path / "killed", progress=kill_after_four)
    resumed = train_from_file(recipe, output=tmp_path / "killed", resume=True)
    assert same_weights(whole, resumed)
    logs = [(f.parent / "log.csv").read_text().splitlines() for f in (whole, resumed)]
    iterations = [[line.split(",")[0] for line in lines] for lines in logs]
    assert iterations[0] == iterations[1] == ["iteration", "2", "3", "4", "6"]
    state = [torch.load(f.parent / "state.pt", weights_only=True) for f in (whole, resumed)]
    assert state[0]["iteration"] == state[1]["iteration"] == 6
    moments = [s["optimiser"]["state"][0]["exp_avg"] for s in state]
    assert torch.equal(*moments)


def test_training_makes_the_loss_smaller(recipe: Path, tmp_path: Path) -> None:
    recipe.write_text(RECIPE.replace("iterations: 6", "iterations: 120"))
    losses: list[float] = []
    train_from_file(recipe, output=tmp_path / "run", progress=lambda s, n: losses.append(s.loss))
    assert len(losses) == 120
    assert np.mean(losses[-20:]) < 0.9 * np.mean(losses[:20])


def test_the_weights_load_into_the_engine(recipe: Path, tmp_path: Path) -> None:
    weights = train_from_file(recipe, output=tmp_path / "run")
    restorer = restore.load("compact", weights=str(weights), device="cpu")
    assert restorer.spec.scale == 2
    assert restorer.spec.overlap == 4
    assert describe(EngineConfig(weights=str(weights))) == restorer.spec
    assert restorer.restore(torch.rand(3, 10, 12)).shape == (3, 20, 24)
    # And a later run may start from them.
    recipe.write_text(RECIPE + f"init: {weights}\n")
    train_from_file(recipe, output=tmp_path / "second")


def test_the_log_has_losses_and_validation(recipe: Path, tmp_path: Path) -> None:
    train_from_file(recipe, output=tmp_path / "run")
    rows = (tmp_path / "run" / "log.csv").read_text().splitlines()
    assert rows[0] == "iteration,loss,lr,seconds,psnr_y"
    assert [row.split(",")[0] for row in rows[1:]] == ["2", "3", "4", "6"]
    assert all(10 < float(row.split(",")[4]) < 60 for row in (rows[2], rows[4]))


def test_a_finished_run_is_not_overwritten_by_accident(recipe: Path, tmp_path: Path) -> None:
    first = train_from_file(recipe, output=tmp_path / "run")
    with pytest.raises(OutputError, match=r"--resume.*--overwrite"):
        train_from_file(recipe, output=tmp_path / "run")
    recipe.write_text(RECIPE + "seed: 5\n")
    with pytest.raises(OptionError, match=r"recipe differs.*\(seed\)"):
        train_from_file(recipe, output=tmp_path / "run", resume=True)
    before = first.read_bytes()
    train_from_file(recipe, output=tmp_path / "run", overwrite=True)
    assert first.read_bytes() != before


def test_a_damaged_state_is_named(recipe: Path, tmp_path: Path) -> None:
    train_from_file(recipe, output=tmp_path / "run")
    (tmp_path / "run" / "state.pt").write_bytes(b"broken")
    with pytest.raises(InputError, match="not a readable training state"):
        train_from_file(recipe, output=tmp_path / "run", resume=True)


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("batch: 4", "batch: four", "field 'batch' is 'four'; it must be of type int"),
        ("batch: 4", "batch: 5", "does not divide into 2 groups"),
        ("batch: 4", "batch: 0", "batch is 0"),
        ("patch: 8", "pach: 8", "unknown field 'pach'; allowed: name, network"),
        ("width: 8", "wide: 8", "unknown field 'network.wide'"),
        ("name: tiny", "", "field 'name' is missing"),
        ("[60, 95]", "60", "field 'degradation.jpeg_quality' is 60; it must be a list"),
        ("[60, 95]", "[60, 95, 99]", "has 3 values; it must have 2"),
        ("data: [{path: pictures}]", "data: [{path: none}]", "no training folder at"),
        ("lr: 2e-3", "lr: fast", "field 'optim.lr' is 'fast'; it must be of type float"),
        ("validation_hr: pictures", "", "needs both"),
        ("name: tiny", "name: [", "not valid YAML"),
    ],
)
def test_a_wrong_recipe_is_answered_with_the_field(
    recipe: Path, tmp_path: Path, before: str, after: str, said: str
) -> None:
    recipe.write_text(RECIPE.replace(before, after))
    with pytest.raises((OptionError, InputError)) as caught:
        train_from_file(recipe, output=tmp_path / "run")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_rate_warms_up_and_decays() -> None:
    optim = OptimConfig(lr=1.0, final_lr=0.1, warmup=10)
    rates = [learning_rate(optim, i, 100) for i in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[9] == pytest.approx(1.0)
    assert rates[9:] == sorted(rates[9:], reverse=True)
    assert rates[100] == pytest.approx(0.1)


def test_the_recipe_of_the_shipped_weights_is_valid() -> None:
    path = Path(restore.__file__).parent / "training" / "recipes" / "compact_x4.yaml"
    config = read_train_config(path)
    shipped = restore.load("compact", device="cpu").method.net.config  # type: ignore[attr-defined]
    assert config.network == shipped
