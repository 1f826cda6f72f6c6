"""The recipe of the codec: it learns, goes on exactly, and writes a codec that works."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from training.test_resume import assert_same_run

from restore.errors import OptionError
from restore.models.compact_codec import CompactCodec
from restore.models.compact_codec_weights import read_codec
from restore.training.compact_codec import CodecTrainConfig, multiscale_dissimilarity
from restore.training.config import read_train_config
from restore.training.losses import dissimilarities, dissimilarity
from restore.training.run import train_from_file
from restore.training.trainer import TrainStep

NETWORK = {
    "rates": 2,
    "latent": 12,
    "outer": 8,
    "middle": 8,
    "deep": 12,
    "down": 1,
    "up": 1,
    "hidden": 8,
}


def write_recipe(pictures: Path, name: str = "tiny", **fields: Any) -> Path:
    """A recipe with these fields over those of a small run on the fixture's pictures."""
    content = {
        "name": name,
        "recipe": "compact-codec",
        "network": NETWORK,
        "data": [{"path": "pictures"}],
        "optim": {"lr": 3e-3, "warmup": 2},
        "iterations": 6,
        "batch": 4,
        "patch": 64,
        "save_every": 3,
        "log_every": 2,
        "device": "cpu",
        **fields,
    }
    path = pictures.parent / f"{name}.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_the_loss_falls(pictures: Path, tmp_path: Path) -> None:
    losses: list[TrainStep] = []
    recipe = write_recipe(pictures, iterations=60, save_every=60, log_every=10)
    train_from_file(recipe, output=tmp_path / "run", progress=lambda step, _: losses.append(step))
    first, last = losses[:10], losses[-10:]
    assert sum(step.loss for step in last) < 0.7 * sum(step.loss for step in first)
    # Neither bits nor pixels alone: both got better.
    for name in ("bpp", "square"):
        assert sum(s.losses[name] for s in last) < 0.9 * sum(s.losses[name] for s in first)


TEXTURE = {"weight": 0.02, "filters": 4, "window": 16}


@pytest.mark.parametrize("fields", [{}, {"precision": "bf16", "workers": 2, "texture": TEXTURE}])
def test_a_crashed_run_goes_on_bit_for_bit(
    pictures: Path, tmp_path: Path, fields: dict[str, Any]
) -> None:
    recipe = write_recipe(pictures, **fields)
    train_from_file(recipe, output=tmp_path / "whole")

    def crash_after_five(step: TrainStep, total: int) -> None:
        if step.iteration == 5:
            raise RuntimeError("crash")

    with pytest.raises(RuntimeError, match="crash"):
        train_from_file(recipe, output=tmp_path / "broken", progress=crash_after_five)
    train_from_file(recipe, output=tmp_path / "broken", resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "broken")


def test_what_was_trained_is_a_codec(pictures: Path, tmp_path: Path) -> None:
    validation = [{"name": "set", "hr": "pictures"}]
    recipe = write_recipe(pictures, validation=validation)
    result = train_from_file(recipe, output=tmp_path / "run")
    codec = CompactCodec.load(result.weights, device=torch.device("cpu"), dtype=torch.float32)
    bpp = [rate.bpp for rate in codec.spec.rates]
    assert all(value > 0 for value in bpp)
    coded = codec.encode(torch.rand(1, 3, 32, 48), 1, generator=torch.Generator())
    payload = codec.write_payload(coded)
    assert torch.equal(codec.read_payload(payload, 1, 2, 3), coded.indices)
    log = (tmp_path / "run" / "log.csv").read_text()
    assert "set.psnr_y" in log.splitlines()[0]


def test_a_run_starts_from_another_ones_weights(pictures: Path, tmp_path: Path) -> None:
    first = train_from_file(write_recipe(pictures), output=tmp_path / "first")
    fields = {"init": str(first.weights), "iterations": 1, "optim": {"lr": 1e-9, "warmup": 1}}
    second = train_from_file(write_recipe(pictures, "more", **fields), output=tmp_path / "second")
    before, after = read_codec(first.weights), read_codec(second.weights)
    for key, value in before.network.items():
        assert torch.allclose(value, after.network[key], atol=1e-4), key  # fp16 both times
    other = {**fields, "network": {**NETWORK, "deep": 16}}
    with pytest.raises(OptionError, match="networks of another shape"):
        train_from_file(write_recipe(pictures, "other", **other), output=tmp_path / "third")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"patch": 72}, "patch is 72"),
        ({"patch": 48}, "patch is 48"),
        ({"lambdas": [1.0, 0.5]}, "lambdas are"),
        ({"shown_rate": 2}, "shown_rate is 2; give 0 to 1"),
        ({"network": {"latent": 10}}, "network.latent is 10; give a multiple of 6"),
    ],
)
def test_a_wrong_field_is_said(pictures: Path, fields: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        read_train_config(write_recipe(pictures, **fields))


def test_higher_rates_ask_for_better_pictures(pictures: Path) -> None:
    config = read_train_config(write_recipe(pictures, lambdas=[0.1, 6.4]))
    assert isinstance(config, CodecTrainConfig)
    from restore.training.compact_codec import CodecTraining

    recipe = CodecTraining(config, device=torch.device("cpu"))
    assert recipe.lambdas.tolist() == pytest.approx([0.1, 6.4])
    batch = recipe.batch(0)
    assert sorted(batch["rate"].tolist()) == [0, 0, 1, 1]  # each as often as the others
    assert float(batch["noise"].abs().max()) <= 0.5


def test_dissimilarity_is_told_for_each_picture() -> None:
    x, y = torch.rand(2, 3, 64, 64), torch.rand(2, 3, 64, 64)
    y[0] = x[0]
    found = dissimilarities(x, y)
    assert float(found[0]) == pytest.approx(0, abs=1e-5)
    assert float(found.mean()) == pytest.approx(float(dissimilarity(x, y)))
    scales = multiscale_dissimilarity(x, y)
    assert float(scales[0]) == pytest.approx(0, abs=1e-5)
    assert float(scales[1]) > 0.1
