"""Texture losses: zero for the same picture, small for other grains of one kind, large for none."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from restore.errors import OptionError
from restore.training.texture import (
    TextureConfig,
    lattice,
    sliced_distance,
    spectrum_distance,
    texture_loss,
)

CONFIG = TextureConfig(weight=1.0, spectrum_weight=1.0, lattice_weight=1.0)


def grain(seed: int, *, strength: float = 0.1) -> Tensor:
    """Fine noise on gray, `(2, 1, 96, 96)`."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(2, 1, 98, 98, generator=generator)
    return 0.5 + strength * F.avg_pool2d(noise, 3, 1) * 3


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def sliced(x: Tensor, y: Tensor) -> float:
    return float(sliced_distance(x, y, CONFIG, seeded(), scale=4))


def spectrum(x: Tensor, y: Tensor) -> float:
    return float(spectrum_distance(x, y, seeded()))


@pytest.mark.parametrize("distance", [sliced, spectrum])
def test_other_grains_of_one_kind_are_near_and_smooth_is_far(distance) -> None:  # type: ignore[no-untyped-def]
    good, other, smooth = grain(1), grain(2), torch.full((2, 1, 96, 96), 0.5)
    assert distance(good, good) == 0
    # By pixels the other grains are farther away than the mean is: that is why nets learn the mean.
    assert (other - good).abs().mean() > 1.3 * (smooth - good).abs().mean()
    assert distance(other, good) < 0.5 * distance(smooth, good)
    assert distance(grain(2, strength=0.2), good) > 2 * distance(other, good)


def test_texture_in_the_wrong_place_is_found() -> None:
    left = grain(1)
    left[..., 48:] = 0.5
    assert sliced(left.flip(-1), left) > 3 * sliced(
        torch.cat([grain(2)[..., :48], left[..., 48:]], -1), left
    )


def test_detail_in_one_place_of_each_square_is_a_lattice() -> None:
    even, uneven = grain(1), torch.full((2, 1, 96, 96), 0.5)
    uneven[..., ::4, ::4] = grain(1)[..., ::4, ::4]
    assert float(lattice(uneven, seeded(), scale=4)) > 4 * float(lattice(even, seeded(), scale=4))


def test_the_gradient_leads_from_smooth_to_textured() -> None:
    """Descending it from a nearly smooth picture makes texture as strong as that of the target."""
    target = grain(1).expand(-1, 3, -1, -1)
    x = grain(2, strength=0.01).expand(-1, 3, -1, -1).clone().requires_grad_(True)
    optimiser = torch.optim.Adam([x], lr=0.01)
    for step in range(60):
        draw = torch.Generator().manual_seed(step)
        loss = texture_loss(x, target, CONFIG, draw, scale=4)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert 0.7 < float(x.detach().std() / target.std()) < 1.4


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(OptionError, match=r"texture\.weight is -1"):
        TextureConfig(weight=-1)
    with pytest.raises(OptionError, match=r"texture\.window is 4"):
        TextureConfig(window=4)
