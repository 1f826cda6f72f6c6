"""Losses are what their formulas say; the discriminator is bounded and learns."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from restore.training.discriminator import (
    AdversarialKind,
    UNetDiscriminator,
    discriminator_loss,
    feature_distance,
    generator_loss,
)
from restore.training.losses import charbonnier, perceptual, spectral_l1, temporal_change


def test_charbonnier_is_nearly_the_absolute_difference() -> None:
    a, b = torch.rand(2, 3, 8, 8), torch.rand(2, 3, 8, 8)
    # It is above it by at most epsilon.
    assert 0 <= charbonnier(a, b) - (a - b).abs().mean() <= 1e-3


def test_the_spectral_loss_sees_one_wave_as_it_is() -> None:
    wave = torch.cos(2 * torch.pi * torch.arange(16) / 4).expand(1, 1, 16, 16)
    # One line of the half spectrum holds everything: amplitude 1/2 times the side of 16.
    assert spectral_l1(wave, torch.zeros_like(wave)) == pytest.approx(16 / 2 / (16 * 9), rel=1e-4)


def test_temporal_change_is_what_the_good_frames_do_not_do() -> None:
    now, before, change = torch.rand(1, 3, 4, 4), torch.rand(1, 3, 4, 4), torch.rand(1, 3, 4, 4)
    seen = torch.ones(1, 1, 4, 4)
    good = {"target": now, "target_before": before}
    steady = temporal_change(now + 0.2, before + 0.2, **good, seen=seen)
    assert steady == pytest.approx(0, abs=1e-6)
    flicker = temporal_change(now + change, before, **good, seen=seen)
    assert flicker == pytest.approx(float(change.mean()), rel=1e-5)
    seen[..., :2] = 0
    half = temporal_change(now + change, before, **good, seen=seen)
    assert half == pytest.approx(float(change[..., 2:].mean()), rel=1e-5)


@pytest.mark.parametrize("kind", ["bce", "relativistic"])
def test_the_players_want_opposite_things(kind: AdversarialKind) -> None:
    fooled, caught = (torch.full((1, 1, 4, 4), v) for v in (3.0, -3.0))
    real = torch.zeros(1, 1, 4, 4)
    assert generator_loss(fooled, real, kind=kind) < generator_loss(caught, real, kind=kind)
    good, bad = (discriminator_loss(x, real, kind=kind) for x in (caught, fooled))
    assert good < bad
    even = discriminator_loss(real, real, kind=kind)
    assert even == pytest.approx(0.6931, abs=1e-3)  # ln 2: it cannot tell


def test_the_discriminator_gives_a_verdict_for_each_pixel() -> None:
    network = UNetDiscriminator(4)
    verdicts, features = network(torch.rand(2, 3, 24, 16))
    assert verdicts.shape == (2, 1, 24, 16)
    assert [f.shape[1:] for f in features] == [(4, 24, 16), (8, 12, 8), (16, 6, 4), (32, 3, 2)]
    assert feature_distance(features, features) == 0


def test_spectral_norm_bounds_every_layer_but_the_ends() -> None:
    network = UNetDiscriminator(4).train()
    for _ in range(30):  # the power iteration takes a step with each use
        network(torch.rand(1, 3, 16, 16))
    bounded = [m for m in network.modules() if hasattr(m, "parametrizations")]
    assert len(bounded) == 8
    for conv in bounded:
        assert isinstance(conv.weight, Tensor)
        largest = torch.linalg.matrix_norm(conv.weight.detach().flatten(1), ord=2)
        assert float(largest) == pytest.approx(1.0, abs=0.05)  # what 30 steps leave


def test_the_discriminator_learns_to_tell_noise_from_flats() -> None:
    torch.manual_seed(0)
    network = UNetDiscriminator(4)
    optimiser = torch.optim.AdamW(network.parameters(), lr=2e-3)
    losses = []
    for _ in range(40):
        real, fake = torch.rand(4, 3, 16, 16), torch.rand(4, 3, 1, 1).expand(-1, -1, 16, 16)
        loss = discriminator_loss(network(fake)[0], network(real)[0], kind="bce")
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 < losses[0]


def test_without_lpips_training_goes_on_with_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(logging.getLogger("restore"), "propagate", True)
    monkeypatch.setitem(sys.modules, "lpips", None)
    assert perceptual("alex", device=torch.device("cpu")) is None
    monkeypatch.setitem(sys.modules, "lpips", SimpleNamespace())
    assert perceptual("vgg", device=torch.device("cpu")) is None
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2
    assert "pip install lpips" in said[0] and "vgg16-397923af.pth is missing" in said[1]


def test_lpips_gets_pictures_in_the_range_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for the package, whose own weights would be downloaded."""

    class Stand(torch.nn.Module):
        def __init__(self, net: str, verbose: bool) -> None:
            super().__init__()
            self.scale = torch.nn.Parameter(torch.tensor(2.0))

        def forward(self, a: Tensor, b: Tensor, normalize: bool = False) -> Tensor:
            assert normalize  # tells the package that values are in [0, 1]
            return self.scale * (a - b).square().mean((1, 2, 3), keepdim=True)

    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "alexnet-owt-7be5be79.pth").touch()
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setitem(sys.modules, "lpips", SimpleNamespace(LPIPS=Stand))
    distance = perceptual("alex", device=torch.device("cpu"))
    assert distance is not None
    result = torch.rand(2, 3, 8, 8, requires_grad=True)
    value = distance(result, torch.zeros(2, 3, 8, 8))
    value.backward()  # type: ignore[no-untyped-call]
    assert float(value.detach()) == pytest.approx(2 * float(result.detach().square().mean()))
    assert result.grad is not None
