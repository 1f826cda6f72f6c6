"""The loop: steps, learning rates, averages, states. What a step is, the recipe knows."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

import torch
from torch import Tensor

from restore.errors import RestoreError
from restore.training.checkpoint import TrainState
from restore.training.config import OptimConfig, TrainConfig
from restore.training.prefetch import batches
from restore.training.recipe import Recipe, Stepper

WHAT_TO_DO = (
    "the last checkpoint is kept: go on from it with a lower optim.lr, or with precision: fp32, "
    "under another name (init: its net.safetensors)"
)


class DivergedError(RestoreError):
    """A loss is not a finite number; the weights of this moment are of no use."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainStep:
    """What one iteration reports."""

    iteration: int
    """Steps done, counting this one."""
    progress: float
    """Part of the run that is done, 0 to 1."""
    losses: dict[str, float]
    """Losses of this batch, by name; on a GPU those of the last reading."""
    lr: float
    """Learning rate of this step."""
    seconds: float
    """Time of this step."""
    samples: int
    """Samples in it."""
    time_left: float | None = None
    """Seconds until a run of limited time ends."""

    @property
    def loss(self) -> float:
        """The one that is made small."""
        return self.losses["loss"]

    def seconds_left(self, pace: float, iterations: int) -> float:
        """Time until the end at `pace` seconds a step, of `iterations` steps."""
        by_steps = pace * (iterations - self.iteration)
        return by_steps if self.time_left is None else min(by_steps, self.time_left)


def learning_rate(config: OptimConfig, iteration: int, progress: float) -> float:
    """Rate of step `iteration` (from 0): a linear warm-up, then a cosine down to `final_lr`.

    Args:
        config: rates.
        iteration: counts the warm-up.
        progress: part of what follows the warm-up that is done, 0 to 1.
    """
    if iteration < config.warmup:
        return config.lr * (iteration + 1) / config.warmup
    if config.schedule == "constant":
        return config.lr
    wave = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return config.final_lr + (config.lr - config.final_lr) * wave


class Trainer:
    """Moves a recipe on, step by step."""

    def __init__(self, recipe: Recipe, config: TrainConfig) -> None:
        self.recipe, self.config = recipe, config
        self.device = torch.device(config.device)
        self.stepper = Stepper(recipe.players, device=self.device, precision=config.precision)
        self.iteration = 0
        self.seconds = 0.0
        self.best: float | None = None
        self.averages = {
            name: {k: v.detach().clone() for k, v in recipe.modules[name].state_dict().items()}
            for name in recipe.averaged
        }
        self._sums: dict[str, float] = dict.fromkeys(recipe.loss_names, 0.0)
        self._summed = 0
        self._unread: list[dict[str, Tensor]] = []
        self._last = self._sums

    def state(self) -> TrainState:
        """Everything that the next step depends on.

        Raises:
            DivergedError: a loss since the last reading, or a weight, is not finite.
        """
        self.check()
        return TrainState(
            iteration=self.iteration,
            seconds=self.seconds,
            modules={name: module.state_dict() for name, module in self.recipe.modules.items()},
            averages=self.averages,
            optimisers={
                name: player.optimiser.state_dict() for name, player in self.recipe.players.items()
            },
            sums=dict(self._sums),
            summed=self._summed,
            best=self.best,
        )

    def restore_state(self, state: TrainState) -> None:
        """Go on from `state`."""
        self.iteration, self.seconds, self.best = state.iteration, state.seconds, state.best
        for name, module in self.recipe.modules.items():
            module.load_state_dict(state.modules[name], strict=True)
        for name, average in self.averages.items():
            for key, value in state.averages[name].items():
                average[key].copy_(value)
        for name, player in self.recipe.players.items():
            player.optimiser.load_state_dict(state.optimisers[name])
        self._sums, self._summed = dict(state.sums), state.summed

    @property
    def progress(self) -> float:
        """Part of the run that is done, 0 to 1."""
        return max(self._part(self.iteration, 0), self._timed_part())

    def steps(self) -> Iterator[TrainStep]:
        """Train until the end, yielding after each step."""
        workers = self.config.workers
        if workers is None:
            workers = 8 if self.device.type == "cuda" else 0
        made = batches(self.recipe.batch, self.iteration, device=self.device, workers=workers)
        with closing(made):  # type: ignore[type-var]
            while self.progress < 1:
                started = time.perf_counter()
                rate = self._set_rates()
                self._unread.append(self.recipe.step(next(made), self.stepper))
                self._update_averages()
                self.iteration += 1
                if self.device.type == "cpu" or self.iteration % 20 == 0:
                    self.read_losses()
                seconds = time.perf_counter() - started
                self.seconds += seconds
                yield TrainStep(
                    iteration=self.iteration,
                    progress=self.progress,
                    losses=self._last,
                    lr=rate,
                    seconds=seconds,
                    samples=self.config.batch,
                    time_left=self._time_left(),
                )

    def mean_losses(self) -> dict[str, float]:
        """Means since the last call."""
        self.read_losses()
        means = {name: total / max(1, self._summed) for name, total in self._sums.items()}
        self._sums, self._summed = dict.fromkeys(self._sums, 0.0), 0
        return means

    def read_losses(self) -> None:
        """Take the losses from the device, which waits for it.

        Raises:
            DivergedError: one is not finite.
        """
        unread, self._unread = self._unread, []
        for i, losses in enumerate(unread):
            values = {name: float(value) for name, value in losses.items()}
            for name, value in values.items():
                if not math.isfinite(value):
                    raise DivergedError(
                        f"{name} is {value} at iteration {self.iteration - len(unread) + i + 1}; "
                        f"{WHAT_TO_DO}"
                    )
                self._sums[name] += value
            self._summed += 1
            self._last = values

    def check(self) -> None:
        """Refuse weights of no use; the last step may have spoilt them with no loss to show it yet.

        Raises:
            DivergedError: a loss since the last reading, or a weight, is not finite.
        """
        self.read_losses()
        states = [module.state_dict() for module in self.recipe.modules.values()]
        for state in (*states, *self.averages.values()):
            for key, value in state.items():
                if value.is_floating_point() and not bool(value.isfinite().all()):
                    raise DivergedError(
                        f"{key} is not finite after iteration {self.iteration}; {WHAT_TO_DO}"
                    )

    def _set_rates(self) -> float:
        """Set the rate of every optimiser; the first one's is returned."""
        rates = []
        for player in self.recipe.players.values():
            warmup = player.config.warmup
            part = max(self._part(self.iteration, warmup), self._timed_part())
            rates.append(learning_rate(player.config, self.iteration, part))
            for group in player.optimiser.param_groups:
                group["lr"] = rates[-1]
        return rates[0]

    def _part(self, iteration: int, warmup: int) -> float:
        return (iteration - warmup) / max(1, self.config.iterations - warmup)

    def _timed_part(self) -> float:
        minutes = self.config.minutes
        return 0.0 if minutes is None else self.seconds / (60 * minutes)

    def _time_left(self) -> float | None:
        minutes = self.config.minutes
        return None if minutes is None else max(0.0, 60 * minutes - self.seconds)

    @torch.no_grad()
    def _update_averages(self) -> None:
        # The decay grows from 0, so that the random start does not linger in the average.
        decay = min(self.config.ema, (1 + self.iteration) / (10 + self.iteration))
        for name, average in self.averages.items():
            now = self.recipe.modules[name].state_dict()
            moving = [key for key, value in now.items() if value.is_floating_point()]
            torch._foreach_lerp_(
                [average[key] for key in moving], [now[key] for key in moving], 1 - decay
            )
            for key in now.keys() - set(moving):  # counters are not averaged
                average[key].copy_(now[key])
