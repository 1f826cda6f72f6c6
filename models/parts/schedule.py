"""The noise schedule of a diffusion model, and one-step samplers in closed form.

The schedulers of libraries are made for many steps: their single step at t = 999 fails or adds
noise depending on the version. What it comes to is one line each.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from restore.errors import WeightsError


def alphas_cumprod(config: Mapping[str, Any]) -> Tensor:
    """Cumulative products of 1 - beta for each time step, `(T,)`, float64.

    Ho et al., "Denoising Diffusion Probabilistic Models", NeurIPS 2020, section 2; `scaled_linear`
    is that of Stable Diffusion: sqrt(beta) goes from one end to the other in equal steps.

    Args:
        config: content of a `scheduler_config.json`.

    Raises:
        WeightsError: the schedule is of a kind that no method here was made for.
    """
    count = int(config.get("num_train_timesteps", 1000))
    first, last = float(config["beta_start"]), float(config["beta_end"])
    kind = config.get("beta_schedule", "linear")
    if kind not in ("scaled_linear", "linear"):
        raise WeightsError(
            f"the scheduler's beta_schedule is '{kind}'; known are scaled_linear and linear: give "
            "the folder of the base model that the method was trained on"
        )
    power = 0.5 if kind == "scaled_linear" else 1.0
    # In float32, as the schedulers of diffusers have it: the methods were trained with its numbers.
    betas = torch.linspace(first**power, last**power, count, dtype=torch.float32) ** (1 / power)
    return torch.cumprod(1 - betas, 0).double()


def x0_from_epsilon(z: Tensor, epsilon: Tensor, alpha_bar: float) -> Tensor:
    """Clean latents from noisy ones and the noise in them.

    x0 = (z - sqrt(1 - a) eps) / sqrt(a), DDPM equation 15 solved for x0 (there, below equation 9).

    Args:
        z: `(B, C, h, w)`.
        epsilon: predicted noise, the same shape.
        alpha_bar: a, the cumulative product at the time step.

    Returns:
        The same shape, float32.
    """
    return (z.float() - (1 - alpha_bar) ** 0.5 * epsilon.float()) / alpha_bar**0.5


def x0_from_velocity(z: Tensor, v: Tensor, alpha_bar: float) -> Tensor:
    """Clean latents from noisy ones and the velocity there.

    x0 = sqrt(a) z - sqrt(1 - a) v (Salimans and Ho, "Progressive Distillation", ICLR 2022,
    appendix D).

    Args:
        z: `(B, C, h, w)`.
        v: predicted velocity sqrt(a) eps - sqrt(1 - a) x0, the same shape.
        alpha_bar: a, the cumulative product at the time step.

    Returns:
        The same shape, float32.
    """
    return alpha_bar**0.5 * z.float() - (1 - alpha_bar) ** 0.5 * v.float()
