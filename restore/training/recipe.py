"""What the loop asks of a recipe, and what it offers to one.

The loop counts steps, sets learning rates, clips gradients, averages weights, saves, resumes,
validates and logs. A recipe owns networks, optimisers, losses, what a batch is and what is
written for use.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from restore.training.config import OptimConfig, Precision, TrainConfig

Batch = dict[str, Tensor]
"""Tensors of one step, by name."""
Weights = Mapping[str, Tensor]
"""A state dict."""


@dataclass(frozen=True, slots=True)
class Player:
    """One optimiser and its settings; an adversarial recipe has two."""

    optimiser: torch.optim.Optimizer
    config: OptimConfig

    @classmethod
    def of(cls, parameters: Sequence[nn.Parameter], config: OptimConfig) -> Player:
        """AdamW over `parameters`."""
        settings: dict[str, Any] = {"betas": config.betas, "weight_decay": config.weight_decay}
        return cls(torch.optim.AdamW(parameters, lr=config.lr, **settings), config)


class Stepper:
    """What a recipe updates its weights with."""

    def __init__(
        self, players: Mapping[str, Player], *, device: torch.device, precision: Precision
    ) -> None:
        self.players = players
        self._device, self._precision = device, precision

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Inside, convolutions run in the recipe's precision."""
        return torch.autocast(
            self._device.type, dtype=torch.bfloat16, enabled=self._precision == "bf16"
        )

    def update(self, name: str, loss: Tensor) -> None:
        """One step of the optimiser `name` down the gradient of `loss`."""
        player = self.players[name]
        player.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        parameters = [p for group in player.optimiser.param_groups for p in group["params"]]
        torch.nn.utils.clip_grad_norm_(parameters, player.config.clip)
        player.optimiser.step()


class Recipe(Protocol):
    """A thing that can be trained."""

    Config: ClassVar[type[TrainConfig]]
    """Dataclass that its YAML file is checked against."""

    modules: dict[str, nn.Module]
    """Everything whose state belongs into a checkpoint."""
    averaged: tuple[str, ...]
    """Names of the modules whose moving average is used in the end."""
    players: dict[str, Player]
    """Optimisers by name."""
    loss_names: tuple[str, ...]
    """Columns of the log, `loss` first; `step` returns these."""
    scale: int
    """Output pixels per input pixel along each side."""

    def __init__(self, config: Any, *, device: torch.device) -> None:
        """Build networks, read the weights to start from, open the data."""

    def batch(self, iteration: int) -> Batch:
        """The batch of step `iteration` (from 0) on the training device.

        It depends on the settings and `iteration` alone, and may be called from several threads:
        this is what makes a resumed run repeat the uninterrupted one.
        """

    def step(self, batch: Batch, stepper: Stepper) -> dict[str, Tensor]:
        """Losses of one batch, after the weights have been updated with `stepper`."""

    def save(self, path: Path, averages: Mapping[str, Weights], *, iteration: int) -> None:
        """Write the averaged weights as a file that `restore image --weights` takes."""

    def restorer(self, averages: Mapping[str, Weights]) -> Callable[[Tensor], Tensor]:
        """The averaged network for validation: `(1, 3, H, W)` to `(1, 3, s H, s W)`, H, W even."""


def step_generator(
    seed: int, iteration: int, *, device: torch.device | str = "cpu"
) -> torch.Generator:
    """The generator of one step.

    It depends on the seed and the step alone, so a resumed run draws what the uninterrupted one
    would have drawn, and no generator state has to be stored.
    """
    return torch.Generator(device).manual_seed((seed * 1_000_003 + iteration) % 2**63)
