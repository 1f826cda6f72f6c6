"""Gray and alpha through a network that knows RGB only."""

from pathlib import Path

import pytest
import torch
from fake_method import fake_restorer

from restore.planes import bleed_colors, hold_to_range, restore_planes


def test_gray_and_alpha_come_back_as_they_went_in(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    restorer = fake_restorer(monkeypatch, tmp_path)
    frames = torch.rand(2, 3, 4, 10, 12)
    for channels in (1, 2, 3, 4):
        result = restore_planes(restorer, frames[:, :, :channels])
        assert result.shape == (2, 3, channels, 20, 24)


def test_flat_alpha_is_kept_exactly_without_the_network(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    restorer = fake_restorer(monkeypatch, tmp_path)
    frames = torch.rand(1, 1, 4, 10, 12)
    frames[:, :, 3] = 0.7
    result = restore_planes(restorer, frames)
    assert restorer.method.calls == 1  # type: ignore[attr-defined]
    assert bool((result[:, :, 3] == 0.7).all())
    torch.testing.assert_close(result[:, :, :3], restore_planes(restorer, frames[:, :, :3]))


def test_opaque_stays_opaque_and_hidden_colors_do_not_bleed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    restorer = fake_restorer(monkeypatch, tmp_path)
    frames = torch.full((1, 1, 4, 24, 40), 0.8)
    frames[..., 3, :, :20], frames[..., 3, :, 20:] = 0.0, 1.0
    clean = restore_planes(restorer, frames)
    frames[..., :3, :, :20] = 0.0  # black under the transparent half
    result = restore_planes(restorer, frames)
    assert bool((result[..., 3, :, 46:] == 1).all())
    assert bool((result[..., 3, :, :34] == 0).all())
    torch.testing.assert_close(result[..., :3, :, 40:], clean[..., :3, :, 40:])


def test_bleeding_keeps_what_is_seen_and_fills_what_is_not() -> None:
    rgb = torch.zeros(3, 9, 13)
    alpha = torch.zeros(1, 9, 13)
    rgb[0, :, 6:], alpha[:, :, 6:] = 1.0, 0.5
    rgb[1, 0, 0] = 0.7  # hidden
    assert torch.equal(bleed_colors(rgb, alpha)[:, :, 6:], rgb[:, :, 6:])
    filled = bleed_colors(rgb, alpha)[:, :, :6]
    assert torch.allclose(filled, torch.tensor([1.0, 0, 0])[:, None, None].expand_as(filled))
    assert torch.equal(bleed_colors(rgb, torch.zeros_like(alpha)), rgb)  # nothing to take from


def test_flat_alpha_is_held_exactly_and_ringing_is_cut() -> None:
    source = torch.zeros(1, 8, 16)
    source[:, :, 8:] = 1
    large = torch.nn.functional.interpolate(source[None], scale_factor=4, mode="bicubic")[0] + 0.01
    held = hold_to_range(large.clone(), source)
    assert float(large.max()) > 1.01 and float(large.min()) < 0.01
    assert torch.equal(held[:, :, :20], torch.zeros(1, 32, 20))
    assert torch.equal(held[:, :, 44:], torch.ones(1, 32, 20))
    assert 0 < float(held[0, 0, 30]) < 1
