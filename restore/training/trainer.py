"""Training loop of a pixel-space network on pictures degraded on the way."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from restore.data_pipelines.patches import PatchSource
from restore.degradations.blur import random_blur
from restore.degradations.draw import chance
from restore.degradations.recipe import degrade
from restore.models.compact import CompactNet
from restore.training.checkpoint import TrainState
from restore.training.config import OptimConfig, TrainConfig
from restore.training.losses import charbonnier, spectral_l1


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainStep:
    """What one iteration reports."""

    iteration: int
    """Steps done, counting this one."""
    loss: float
    """Loss of this batch."""
    lr: float
    """Learning rate of this step."""
    seconds: float
    """Time of this step."""


def learning_rate(config: OptimConfig, iteration: int, iterations: int) -> float:
    """Rate of step `iteration` (from 0): a linear warm-up, then a cosine down to `final_lr`."""
    if iteration < config.warmup:
        return config.lr * (iteration + 1) / config.warmup
    progress = (iteration - config.warmup) / max(1, iterations - config.warmup)
    wave = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return config.final_lr + (config.lr - config.final_lr) * wave


def step_generator(seed: int, iteration: int) -> torch.Generator:
    """The generator of one step.

    It depends on the seed and the step alone, so a resumed run draws what the uninterrupted one
    would have drawn, and no generator state has to be stored.
    """
    return torch.Generator().manual_seed((seed * 1_000_003 + iteration) % 2**63)


class Trainer:
    """Holds the network, its average and the optimiser; `steps` moves them on."""

    def __init__(self, config: TrainConfig, source: PatchSource) -> None:
        self.config = config
        self.source = source
        torch.manual_seed(config.seed)
        self.network = CompactNet(config.network).to(memory_format=torch.channels_last).train()
        self.average = {k: v.detach().clone() for k, v in self.network.state_dict().items()}
        self.optimiser = torch.optim.AdamW(
            self.network.parameters(),
            lr=config.optim.lr,
            betas=(0.9, 0.99),
            weight_decay=config.optim.weight_decay,
        )
        self.iteration = 0

    def load_weights(self, weights: dict[str, Tensor]) -> None:
        """Start from trained weights, with a fresh optimiser."""
        self.network.load_state_dict(weights, strict=True)
        self.average = {k: v.detach().clone() for k, v in self.network.state_dict().items()}

    def state(self) -> TrainState:
        """Everything that the next step depends on."""
        return TrainState(
            iteration=self.iteration,
            network=self.network.state_dict(),
            average=self.average,
            optimiser=self.optimiser.state_dict(),
        )

    def restore_state(self, state: TrainState) -> None:
        """Go on from `state`."""
        self.iteration = state.iteration
        self.network.load_state_dict(state.network, strict=True)
        self.average = {k: v.clone() for k, v in state.average.items()}
        self.optimiser.load_state_dict(state.optimiser)

    def steps(self) -> Iterator[TrainStep]:
        """Train until the last iteration, yielding after each."""
        while self.iteration < self.config.iterations:
            started = time.perf_counter()
            rate = learning_rate(self.config.optim, self.iteration, self.config.iterations)
            loss = self._step(rate)
            self.iteration += 1
            yield TrainStep(
                iteration=self.iteration,
                loss=loss,
                lr=rate,
                seconds=time.perf_counter() - started,
            )

    def batch(self, iteration: int) -> tuple[Tensor, Tensor]:
        """Bad pictures `(B, 3, p, p)` and their good ones `(B, 3, s p, s p)` of one step."""
        config, generator = self.config, step_generator(self.config.seed, iteration)
        scale = config.network.scale
        good = self.source.draw(config.batch, generator)
        bad, targets = [], []
        for group in good.chunk(config.groups):
            if chance(config.soft_target_prob, generator=generator):
                group = random_blur(
                    group,
                    generator,
                    sigma=(0.2, config.soft_target_sigma),
                    anisotropic=0.0,
                    size=config.degradation.kernel_size,
                )
            bad.append(degrade(group, generator, config.degradation, scale=scale))
            targets.append(group)
        return torch.cat(bad), torch.cat(targets)

    def _step(self, rate: float) -> float:
        bad, good = self.batch(self.iteration)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        result = self.network(bad.to(memory_format=torch.channels_last))
        loss = charbonnier(result, good)
        if self.config.frequency_weight:
            loss = loss + self.config.frequency_weight * spectral_l1(result, good)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.config.optim.clip)
        self.optimiser.step()
        self._update_average()
        return float(loss.detach())

    @torch.no_grad()
    def _update_average(self) -> None:
        # The decay grows from 0, so that the random start does not linger in the average.
        decay = min(self.config.optim.ema, (1 + self.iteration) / (10 + self.iteration))
        for name, value in self.network.state_dict().items():
            self.average[name].lerp_(value, 1 - decay)
