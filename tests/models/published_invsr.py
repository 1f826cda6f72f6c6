"""A `noise_predictor_sd_turbo_v5.pth` of random numbers, and an SD-Turbo for it to stand on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from published import TINY, TURBO, BaseSize, filled, make_base

from restore.models.parts.noise_predictor import NoisePredictor, PredictorConfig

TINY_PREDICTOR = PredictorConfig(channels=(64, 64), layers=(1, 2), time_channels=32)
FULL_PREDICTOR = PredictorConfig()


def make_invsr(path: Path, config: PredictorConfig = TINY_PREDICTOR, *, seed: int) -> Path:
    """Write the file: a state dict and nothing else."""
    net = filled(NoisePredictor(config), seed)
    state = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    torch.save(state, path)
    return path


def make_turbo(folder: Path, size: BaseSize = TINY, *, seed: int = 1) -> Path:
    """Write an SD-Turbo in diffusers' layout."""
    return make_base(folder, replace(size, scheduler=TURBO), seed=seed)
