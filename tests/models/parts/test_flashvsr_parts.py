"""Parts of FlashVSR: order of tokens, positions, noise, the projection and its two versions."""

from __future__ import annotations

import pytest
import torch
from published_flashvsr import clip, make_lq
from torch import Tensor

from restore.models.parts.flashvsr import lq_projection
from restore.models.parts.flashvsr.enlarge import Frame
from restore.models.parts.flashvsr.lq_projection import (
    LQProjection,
    Version,
    as_convolution,
    as_product,
    unshuffle,
)
from restore.models.parts.flashvsr.noise import latent_noise
from restore.models.parts.flashvsr.rope import Rotation, axis_channels, rebase, rotation
from restore.models.parts.flashvsr.windows import from_windows, to_windows
from restore.resampling import resample

CPU = torch.device("cpu")


def projection(version: Version) -> LQProjection:
    state = make_lq()
    net = LQProjection(LQProjection.widths(state), version=version)
    net.load_state_dict(state)
    return net.requires_grad_(False)


def test_windows_are_blocks_of_two_latents_and_8x8_tokens() -> None:
    grid = torch.arange(4 * 16 * 24).view(4, 16, 24, 1)
    tokens = to_windows(grid)
    assert torch.equal(from_windows(tokens, 4, 16, 24), grid)
    block = tokens[:128].flatten()
    expected = grid[:2, :8, :8].flatten()
    assert torch.equal(block, expected)
    assert torch.equal(tokens[128:256].flatten(), grid[:2, :8, 8:16].flatten())


@pytest.mark.parametrize("head_dim", [32, 128])
def test_scores_depend_on_differences_of_positions(head_dim: int) -> None:
    generator = torch.Generator().manual_seed(0)
    q, k = torch.randn(2, 128, 2, head_dim, generator=generator)

    def scores(start: int) -> Tensor:
        turn = rotation(head_dim, times=range(start, start + 2), rows=8, columns=8, device=CPU)
        return torch.einsum("nhd,mhd->hnm", turn.turn(q), turn.turn(k))

    torch.testing.assert_close(scores(900), scores(0), atol=1e-4, rtol=0)


def test_rebased_keys_are_those_of_the_earlier_position() -> None:
    keys = torch.randn(128, 2, 32, generator=torch.Generator().manual_seed(1))

    def turned(start: int) -> Tensor:
        turn = rotation(32, times=range(start, start + 2), rows=8, columns=8, device=CPU)
        return turn.turn(keys)

    torch.testing.assert_close(rebase(turned(1010), 1004), turned(6), atol=1e-5, rtol=0)


def test_lengths_are_kept_and_channels_go_to_three_axes() -> None:
    assert axis_channels(128) == (44, 42, 42)
    with pytest.raises(ValueError, match="heads of 64"):
        axis_channels(64)
    x = torch.randn(128, 1, 32)
    turn = rotation(32, times=range(2), rows=8, columns=8, device=CPU)
    torch.testing.assert_close(turn.turn(x).norm(dim=-1), x.norm(dim=-1))
    assert isinstance(turn, Rotation)
    assert torch.equal(turn.turn(x)[0], x[0])  # all positions 0


def test_noise_of_a_latent_does_not_depend_on_where_chunks_begin() -> None:
    whole = latent_noise(5, 0, 8, (16, 4, 6), CPU)
    parts = [latent_noise(5, first, 2, (16, 4, 6), CPU) for first in range(0, 8, 2)]
    assert torch.equal(torch.cat(parts, 2), whole)
    assert abs(float(whole.std()) - 1) < 0.05


def test_noise_is_nobody_elses() -> None:
    """Neither the next latent of this seed, nor this latent of the next, has any of it."""
    draws = torch.stack(
        [latent_noise(seed, t, 1, (16, 8, 8), CPU).flatten() for seed in range(6) for t in range(6)]
    )
    correlation = torch.corrcoef(draws) - torch.eye(len(draws))
    assert correlation.abs().max() < 0.15  # 1,024 numbers each: 5 deviations


def test_the_product_is_the_convolution(monkeypatch: pytest.MonkeyPatch) -> None:
    net = projection("1")
    x = torch.randn(2, 6, 5, 7, 768, generator=torch.Generator().manual_seed(2))
    plain = as_convolution(x, net.conv1.weight, net.conv1.bias)  # type: ignore[arg-type]
    net.channels_last()
    monkeypatch.setattr(lq_projection, "BUDGET", 2 * 7 * 768 * 36)  # two rows at a time
    product = as_product(x, net.conv1.weight, net.conv1.bias)  # type: ignore[arg-type]
    assert product.shape == plain.shape == (2, 2, 5, 7, 24)
    # 27,648 products in another order.
    torch.testing.assert_close(product, plain, atol=1e-4, rtol=0)


@pytest.mark.parametrize("version", ["1", "1.1"])
def test_tokens_in_chunks_are_those_of_the_whole_clip(version: Version) -> None:
    net, frames = projection(version), clip(33, 32, 48) * 2 - 1
    whole, _ = net(frames, None)
    first, cache = net(frames[:25], None)
    second, cache = net(frames[25:29], cache)
    third, _ = net(frames[29:], cache)
    assert whole.shape == (8, 2, 3, 64)
    # 27,648 products in another order.
    torch.testing.assert_close(torch.cat((first, second, third)), whole, atol=1e-4, rtol=0)


def test_only_the_newer_version_sees_what_was_before_a_group() -> None:
    frames = clip(9, 32, 32) * 2 - 1
    other = frames.clone()
    other[3:5] = 0.7  # the end of the first group
    for version, differs in (("1", False), ("1.1", True)):
        net = projection(version)  # type: ignore[arg-type]
        change = (net(frames, None)[0] - net(other, None)[0]).abs().amax((1, 2, 3))
        assert change[0] > 1e-3
        assert bool(change[1] > 1e-3) is differs


def test_channels_are_by_colour_row_and_column() -> None:
    frames = torch.arange(3 * 32 * 16.0).view(1, 3, 32, 16)
    assert torch.equal(unshuffle(frames)[0, 1, 0], frames[0, :, 16:].flatten())


def test_the_exact_enlargement_is_the_engines() -> None:
    low = clip(1, 32, 64)[0]
    large = Frame(height=32, width=64, tiling="exact").enlarge(low)
    torch.testing.assert_close(large, resample(low, (256, 128)), atol=1e-5, rtol=0)


def test_the_published_enlargement_is_pillows() -> None:
    low = clip(1, 33, 50)[0]
    frame = Frame(height=33, width=50, tiling="published")
    large = frame.enlarge(low)
    assert large.shape == (3, 132, 200)
    assert torch.equal((large * 255).round() / 255, large)
    # Rounded after each of two passes.
    torch.testing.assert_close(large, resample(low, (200, 132)), atol=1.5 / 255, rtol=0)
    part = frame.middle(large)
    assert part.shape == (3, 128, 128)
    assert torch.equal(part, large[:, 2:130, 36:164])
