"""Noise: its strength, its colour, and the light it depends on."""

from __future__ import annotations

import math

import pytest
import torch
from degradation_scenes import generator, noise_pictures, smooth_pictures
from torch import Tensor

from restore.degradations.camera import Camera, bayer_masks, demosaic, from_light, to_light
from restore.degradations.noise import (
    Noise,
    NoiseKind,
    add_correlated,
    add_gaussian,
    add_photon,
    add_poisson,
)
from restore.degradations.step import Scene

SCENE = Scene(good=(64, 64), bad=(16, 16))


def each(value: float, count: int = 1) -> Tensor:
    return torch.full((count,), value)


def test_noise_has_the_strength_asked_for() -> None:
    flat = torch.full((4, 3, 64, 64), 0.5)
    colour = torch.zeros(4, dtype=torch.bool)
    white = add_gaussian(flat, generator(), sigma=each(10, 4), gray=colour)
    # 49152 samples: a standard deviation is known to 0.3 %, and three times that is let through.
    torch.testing.assert_close((white - flat).std() * 255, torch.tensor(10.0), atol=0.1, rtol=0)
    photons = add_photon(flat, generator(), scale=each(1, 4), gray=colour)
    expected = 255 * math.sqrt(0.5 / 256)  # Poisson: the variance is the count
    assert float((photons - flat).std() * 255) == pytest.approx(expected, rel=0.01)


def test_gray_noise_is_the_same_in_all_channels() -> None:
    flat = torch.full((2, 3, 16, 16), 0.5)
    for kind in ("gaussian", "photon", "poisson"):
        noise = Noise(kinds=(kind,), weights=(1,), sigma=(5, 9), scale=(1, 2), gray=1)  # type: ignore[arg-type]
        noisy = noise.apply(flat, noise.draw(2, generator()), generator(), SCENE)
        difference = noisy - flat
        torch.testing.assert_close(difference[:, 0], difference[:, 2], atol=1e-6, rtol=0)
        assert not torch.equal(noisy[0], noisy[1])


def test_poisson_noise_is_a_count_of_as_many_photons_as_the_definition_says() -> None:
    # Five different values make 2^ceil(log2 5) = 8 photons of white.
    values = torch.tensor([0, 51, 102, 153, 255]) / 255
    x = values.repeat(20000)[:, None].expand(-1, 3).T.reshape(1, 3, 100, 1000)
    y = add_poisson(x, generator(), scale=each(1), gray=torch.tensor([False]))
    counts = y * 8
    torch.testing.assert_close(counts, counts.round(), atol=1e-4, rtol=0)
    for value in values.tolist():
        own = counts[x == value]
        assert float(own.mean()) == pytest.approx(8 * value, abs=0.05)
        assert float(own.var()) == pytest.approx(8 * value, rel=0.03)
    half = add_poisson(x, generator(), scale=each(0.5), gray=torch.tensor([False]))
    torch.testing.assert_close(half - x, 0.5 * (y - x), atol=1e-6, rtol=0)


def test_the_quick_photon_noise_agrees_with_counted_photons_where_there_is_light() -> None:
    x = smooth_pictures(1, 256)
    no = torch.tensor([False])
    counted = add_poisson(x, generator(), scale=each(1), gray=no) - x
    quick = add_photon(x, generator(1), scale=each(1), gray=no) - x
    for low, high in ((0.1, 0.3), (0.4, 0.6), (0.8, 0.95)):
        chosen = (x > low) & (x < high)
        assert float(quick[chosen].std()) == pytest.approx(float(counted[chosen].std()), rel=0.03)


def test_correlated_noise_has_the_covariance_asked_for() -> None:
    mix = torch.tensor([[[10.0, 0, 0], [6, 8, 0], [0, 3, 4]]])
    flat = torch.full((1, 3, 200, 200), 0.5)
    noise = (add_correlated(flat, generator(), mix=mix) - flat)[0].flatten(1) * 255
    torch.testing.assert_close(torch.cov(noise), mix[0] @ mix[0].T, atol=2.0, rtol=0)
    noise = Noise(kinds=("correlated",), weights=(1,), sigma=(2, 25))
    draws = noise.draw(300, generator())
    roots = torch.stack([draws[f"mix{i}"] for i in range(9)], dim=1).view(-1, 3, 3)
    largest = torch.linalg.svdvals(roots).max()
    assert 0.99 < float(largest) <= 1.00001  # variances of up to 25^2


@pytest.mark.parametrize("kind", ["gaussian", "poisson", "photon", "correlated"])
def test_noise_of_no_strength_changes_nothing(kind: NoiseKind) -> None:
    x = noise_pictures(2, 16)
    noise = Noise(kinds=(kind,), weights=(1,), sigma=(0, 0), scale=(0, 0))
    assert torch.equal(noise.apply(x, noise.draw(2, generator()), generator(), SCENE), x)


def test_tone_curves_undo_each_other() -> None:
    values = torch.linspace(0, 1, 1000)
    torch.testing.assert_close(from_light(to_light(values)), values, atol=1e-5, rtol=0)
    assert float(to_light(torch.tensor(0.5))) == pytest.approx(0.21404, abs=1e-4)  # IEC 61966-2-1


def test_each_pixel_of_the_sensor_sees_one_colour_and_green_twice_as_often() -> None:
    masks = bayer_masks(torch.zeros(1, 1, 6, 8))[0]
    assert torch.equal(masks.sum(0), torch.ones(6, 8))
    assert masks.sum((1, 2)).tolist() == [12, 24, 12]


@pytest.mark.parametrize("shape", [(7, 5), (2, 2), (1, 9), (1, 1)])
def test_demosaicing_keeps_measured_pixels_and_flat_gray(shape: tuple[int, int]) -> None:
    raw = torch.rand(2, 1, *shape, generator=generator())
    masks = bayer_masks(raw)
    rgb = demosaic(raw)
    torch.testing.assert_close(rgb * masks, raw * masks)
    flat = demosaic(torch.full((1, 1, *shape), 0.4))
    torch.testing.assert_close(flat, torch.full((1, 3, *shape), 0.4))


def test_a_camera_without_noise_gives_a_soft_picture_back() -> None:
    camera = Camera(shot=(1e-12, 1e-12))
    x = smooth_pictures(2, 64)
    y = camera.apply(x, camera.draw(2, generator()), generator(), SCENE)
    assert float((y - x).abs().mean()) < 0.01  # what bilinear demosaicing costs


def test_a_noisier_camera_is_noisier_and_its_noise_has_colour() -> None:
    x = torch.full((1, 3, 96, 96), 0.5)
    errors = []
    for shot in (1e-4, 1e-3, 1e-2):
        camera = Camera(shot=(shot, shot))
        y = camera.apply(x, camera.draw(1, generator()), generator(), SCENE)
        errors.append(float((y - x).std()))
        assert not torch.equal(y[:, 0], y[:, 1])
    assert errors[0] * 2 < errors[1] < errors[2] / 2
