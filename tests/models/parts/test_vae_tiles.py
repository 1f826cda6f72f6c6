"""Tiles of the autoencoder: exact ones do not show, published ones lie where the authors' lay."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from published import filled, make_vae
from torch import Tensor

from restore.models.parts.vae import Autoencoder
from restore.models.parts.vae_tiles import EXACT, PUBLISHED, TilePlan, plan_axis, run_tiled


@pytest.fixture(scope="module")
def vae() -> Any:
    return filled(make_vae(), 3)


def test_exact_tiles_give_the_result_of_the_whole(vae: Any) -> None:
    for half, x, plan in (
        ("encoder", torch.rand(2, 3, 328, 264) * 2 - 1, EXACT.encoder.with_tile(64)),
        ("decoder", torch.randn(1, 4, 70, 41), EXACT.decoder.with_tile(8)),
    ):
        net = getattr(vae, half)
        assert max(x.shape[-2:]) > plan.limit
        with torch.inference_mode():
            whole, tiled = net(x), run_tiled(net, x, plan)
        # The same sums in another order.
        assert (tiled - whole).abs().max() < 1e-5 * whole.abs().max(), half


def test_published_tiles_differ_from_the_whole(vae: Any) -> None:
    """Which is why there is another way; tiles that made them equal would not be theirs."""
    x = torch.rand(1, 3, 328, 264) * 2 - 1
    plan = TilePlan(tile=96, border=32, limit=160, exact=False)
    with torch.inference_mode():
        whole, tiled = vae.encoder(x), run_tiled(vae.encoder, x, plan)
    assert (tiled - whole).abs().max() > 1e-2 * whole.abs().max()


def test_a_border_below_the_reach_of_the_convolutions_shows(vae: Any) -> None:
    """The borders of the exact plan are needed: a third of one is not enough."""
    z = torch.randn(1, 4, 70, 41)
    narrow = TilePlan(tile=8, border=5, limit=18, exact=True)
    with torch.inference_mode():
        whole, tiled = vae.decoder(z), run_tiled(vae.decoder, z, narrow)
    assert (tiled - whole).abs().max() > 1e-3 * whole.abs().max()


@pytest.mark.parametrize("length", [1089, 1500, 2048, 4096])
def test_published_tiles_lie_as_the_tiled_vae_puts_them(length: int) -> None:
    spans = plan_axis(length, PUBLISHED.encoder)
    count = -(-(length - 64) // 1024)
    assert len(spans) == count
    least = -(-(length - 64) // count)
    side = -(-least // 32) * 32
    for i, ((first, last), window, output) in enumerate(spans):
        assert first == 32 + i * side
        assert window == (first - 32, min(length, last + 32))
        assert output[0] == (0 if i == 0 else first)
        assert output[1] == (length if i == count - 1 else last)


@pytest.mark.parametrize(("length", "tile"), [(8, 8), (1000, 128), (1016, 64), (264, 256)])
def test_exact_tiles_cover_the_axis_once(length: int, tile: int) -> None:
    plan = TilePlan(tile=tile, border=16, limit=0, exact=True, multiple=8)
    spans = plan_axis(length, plan)
    assert [core[0] for core, _, _ in spans][1:] == [core[1] for core, _, _ in spans][:-1]
    assert (spans[0][0][0], spans[-1][0][1]) == (0, length)
    assert all(edge % 8 == 0 for core, _, _ in spans for edge in core)


def test_the_mean_and_the_draw_of_the_posterior(vae: Any) -> None:
    coder = Autoencoder(vae)
    x = torch.rand(1, 3, 64, 64) * 2 - 1
    with torch.inference_mode():
        theirs = vae.encode(x).latent_dist
        mode = coder.encode(x, posterior="mode", generator=torch.Generator())

        def draw(seed: int) -> Tensor:
            generator = torch.Generator().manual_seed(seed)
            return coder.encode(x, posterior="sample", generator=generator)

        torch.testing.assert_close(mode, theirs.mode() * 0.18215)
        expected = theirs.sample(torch.Generator().manual_seed(4)) * 0.18215
        torch.testing.assert_close(draw(4), expected)
        assert not torch.equal(draw(4), draw(5))
        torch.testing.assert_close(coder.decode(mode), vae.decode(mode / 0.18215).sample)
