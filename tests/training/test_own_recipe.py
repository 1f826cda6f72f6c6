"""A new kind of training is a class and a line in the registry; the loop does the rest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn
from training.test_resume import assert_same_run

from restore.errors import OptionError
from restore.training.config import OptimConfig, TrainConfig
from restore.training.recipe import Batch, Player, Stepper, Weights, step_generator
from restore.training.registry import RECIPES
from restore.training.run import train_from_file
from restore.training.trainer import TrainStep
from restore.weights import open_weights, save_weights


@dataclass(frozen=True, kw_only=True, slots=True)
class LineConfig(TrainConfig):
    """Two players that fit a line: one has the slope, the other the offset."""

    slope: float
    """What is to be found."""


class Line:
    """y = slope x + offset, by two optimisers."""

    Config: ClassVar[type[TrainConfig]] = LineConfig
    scale = 1
    loss_names = ("loss", "offset")
    averaged = ("slope",)

    def __init__(self, config: LineConfig, *, device: torch.device) -> None:
        self.config = config
        self.modules: dict[str, nn.Module] = {
            "slope": nn.Linear(1, 1, bias=False),
            "offset": nn.BatchNorm1d(1),  # has a counter, which no average may touch
        }
        fast = OptimConfig(lr=0.1, warmup=1)
        self.players = {
            name: Player.of(list(module.parameters()), fast)
            for name, module in self.modules.items()
        }

    def batch(self, iteration: int) -> Batch:
        """Points on the line."""
        x = torch.randn(8, 1, generator=step_generator(self.config.seed, iteration))
        return {"x": x, "y": self.config.slope * x + 1}

    def step(self, batch: Batch, stepper: Stepper) -> dict[str, Tensor]:
        """One step of each player."""
        losses = []
        for name in self.players:
            with stepper.autocast():
                y = self.modules["slope"](batch["x"]) + self.modules["offset"](batch["x"] * 0)
            losses.append((y - batch["y"]).square().mean())
            stepper.update(name, losses[-1])
        return dict(zip(self.loss_names, (loss.detach() for loss in losses), strict=True))

    def save(self, path: Path, averages: Mapping[str, Weights], *, iteration: int) -> None:
        """Write the slope."""
        save_weights(path, dict(averages["slope"]), {"iteration": str(iteration)})

    def restorer(self, averages: Mapping[str, Weights]) -> Callable[[Tensor], Tensor]:
        """Nothing is validated here."""
        raise NotImplementedError


def test_the_loop_trains_and_resumes_a_recipe_it_does_not_know(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(RECIPES, "line", "training.test_own_recipe:Line")
    recipe = tmp_path / "line.yaml"
    recipe.write_text(
        "{name: line, recipe: line, slope: 2.5, iterations: 150, batch: 8, device: cpu, ema: 0.9, "
        "save_every: 60}"
    )
    weights = train_from_file(recipe, output=tmp_path / "whole").weights
    assert float(open_weights(weights)[0]["weight"]) == pytest.approx(2.5, abs=0.05)

    def crash(step: TrainStep, total: int) -> None:
        if step.iteration == 100:
            raise RuntimeError("crash")

    with pytest.raises(RuntimeError):
        train_from_file(recipe, output=tmp_path / "broken", progress=crash)
    train_from_file(recipe, output=tmp_path / "broken", resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "broken")
    with pytest.raises(OptionError, match="unknown field 'patch'"):
        train_from_file(recipe, output=tmp_path / "other", changes=["patch=8"])
