"""The schedule of Stable Diffusion, against numbers that diffusers prints."""

from __future__ import annotations

import pytest
import torch

from restore.errors import WeightsError
from restore.models.parts.schedule import alphas_cumprod, x0_from_epsilon

SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


@pytest.mark.parametrize(
    ("t", "expected"), [(1, 0.998296), (199, 0.755238), (273, 0.635743), (999, 0.00466010)]
)
def test_the_products_of_stable_diffusion(t: int, expected: float) -> None:
    assert float(alphas_cumprod(SD)[t]) == pytest.approx(expected, rel=2e-6)


def test_it_is_the_schedule_of_diffusers() -> None:
    from diffusers import DDPMScheduler

    theirs = DDPMScheduler(**SD).alphas_cumprod
    torch.testing.assert_close(alphas_cumprod(SD).float(), theirs, atol=0, rtol=1e-6)


def test_the_clean_latents_come_back() -> None:
    x0, eps = torch.randn(1, 4, 8, 8), torch.randn(1, 4, 8, 8)
    a = float(alphas_cumprod(SD)[199])
    torch.testing.assert_close(x0_from_epsilon(a**0.5 * x0 + (1 - a) ** 0.5 * eps, eps, a), x0)


def test_an_unknown_schedule_is_refused() -> None:
    with pytest.raises(WeightsError, match="squaredcos"):
        alphas_cumprod({**SD, "beta_schedule": "squaredcos_cap_v2"})
