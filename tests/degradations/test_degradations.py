"""Degradations: seeds repeat, sizes and ranges hold, each step does what it says."""

import math

import pytest
import torch

from restore.degradations.blur import filter_each, gaussian_kernels, random_blur
from restore.degradations.compression import random_jpeg
from restore.degradations.draw import pick, uniform
from restore.degradations.noise import random_gaussian_noise, random_poisson_noise
from restore.degradations.recipe import DegradationRecipe, degrade
from restore.degradations.resize import MODES, resize


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(count: int = 4, side: int = 64) -> torch.Tensor:
    return torch.rand(count, 3, side, side, generator=generator(9))


def test_the_same_seed_repeats_a_picture_exactly_and_another_does_not() -> None:
    first, again, other = (
        degrade(pictures(), generator(seed), DegradationRecipe(), scale=4) for seed in (3, 3, 4)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_every_draw_has_the_right_size_and_is_a_picture(scale: int) -> None:
    for seed in range(30):
        bad = degrade(pictures(2, 48), generator(seed), DegradationRecipe(), scale=scale)
        assert bad.shape == (2, 3, 48 // scale, 48 // scale)
        steps = bad * 255
        torch.testing.assert_close(steps, steps.round(), atol=1e-3, rtol=0)
        assert float(bad.min()) >= 0
        assert float(bad.max()) <= 1


def test_sizes_that_do_not_divide_are_refused() -> None:
    with pytest.raises(ValueError, match="do not divide"):
        degrade(pictures(1, 30), generator(), DegradationRecipe(), scale=4)


def test_a_recipe_of_nothing_only_resamples() -> None:
    nothing = DegradationRecipe(blur_prob=0, detour_prob=0, noise_prob=0, jpeg_prob=0)
    assert torch.allclose(
        degrade(pictures(), generator(), nothing, scale=1), pictures(), atol=0.002
    )


def test_kernels_sum_to_one_and_have_the_deviation_asked_for() -> None:
    sigma = torch.tensor([0.8, 2.0])
    kernels = gaussian_kernels(sigma, sigma, torch.zeros(2), size=21)
    torch.testing.assert_close(kernels.sum((1, 2)), torch.ones(2))
    axis = torch.arange(21.0) - 10
    variance = (kernels.sum(1) * axis**2).sum(1)
    torch.testing.assert_close(variance.sqrt(), sigma, atol=0.01, rtol=0)


def test_an_anisotropic_kernel_turns_with_its_angle() -> None:
    long, short = torch.tensor([3.0]), torch.tensor([0.7])
    lying = gaussian_kernels(long, short, torch.zeros(1), size=15)[0]
    standing = gaussian_kernels(long, short, torch.tensor([math.pi / 2]), size=15)[0]
    torch.testing.assert_close(lying, standing.T, atol=1e-6, rtol=0)
    assert float(lying[7].sum()) > 0.5 > float(lying[:, 7].sum())


def test_filtering_uses_the_kernel_of_each_picture() -> None:
    kernels = torch.zeros(2, 3, 3)
    kernels[0, 1, 1] = 1  # identity
    kernels[1, 1, 0] = 1  # takes the left neighbour
    x = pictures(2, 16)
    y = filter_each(x, kernels)
    assert torch.equal(y[0], x[0])
    assert torch.equal(y[1, :, :, 1:], x[1, :, :, :-1])


def test_blur_takes_away_detail() -> None:
    blurred = random_blur(pictures(), generator(), sigma=(1, 2), anisotropic=0.5, size=15)
    assert float(blurred.var()) < 0.5 * float(pictures().var())


@pytest.mark.parametrize("mode", MODES)
def test_resampling_keeps_the_mean(mode: str) -> None:
    small = resize(pictures(), 16, 20, mode)  # type: ignore[arg-type]
    assert small.shape == (4, 3, 16, 20)
    torch.testing.assert_close(small.mean((2, 3)), pictures().mean((2, 3)), atol=0.01, rtol=0)


def test_noise_has_the_strength_asked_for() -> None:
    flat = torch.full((4, 3, 64, 64), 0.5)
    white = random_gaussian_noise(flat, generator(), sigma=(10, 10), gray=0)
    torch.testing.assert_close((white - flat).std() * 255, torch.tensor(10.0), atol=0.2, rtol=0)
    photons = random_poisson_noise(flat, generator(), scale=(1, 1), gray=0)
    expected = math.sqrt(0.5 * 255)  # Poisson: the variance is the count
    torch.testing.assert_close(
        (photons - flat).std() * 255, torch.tensor(expected), atol=0.2, rtol=0
    )


def test_gray_noise_is_the_same_in_all_channels() -> None:
    flat = torch.full((2, 3, 16, 16), 0.5)
    for noisy in (
        random_gaussian_noise(flat, generator(), sigma=(5, 9), gray=1),
        random_poisson_noise(flat, generator(), scale=(1, 2), gray=1),
    ):
        assert torch.equal(noisy[:, 0], noisy[:, 2])
        assert not torch.equal(noisy[0], noisy[1])


def test_lower_jpeg_quality_costs_more() -> None:
    x = resize(pictures(2, 16), 64, 64, "bicubic").clamp(0, 1)
    errors = [
        float((random_jpeg(x, generator(), quality=(q, q)) - x).square().mean())
        for q in (95, 60, 20)
    ]
    assert errors == sorted(errors)
    assert 4 * errors[0] < errors[2]


def test_draws_fill_their_range() -> None:
    drawn = uniform(4000, 2, 5, generator=generator())
    assert 2 <= float(drawn.min()) < 2.05
    assert 4.95 < float(drawn.max()) < 5
    names = [pick(("a", "b"), (1, 3), generator=generator(i)) for i in range(400)]
    assert 0.65 < names.count("b") / 400 < 0.85
