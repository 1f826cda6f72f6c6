"""Blended predictions: tiles cover everything, a linear prediction does not show them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from restore.models.parts.latent_tiles import gaussian, predict_tiled, starts


@pytest.mark.parametrize(
    ("length", "side", "overlap", "expected"),
    [(96, 96, 32, [0]), (97, 96, 32, [0, 1]), (160, 96, 32, [0, 64]), (161, 96, 32, [0, 64, 65])],
)
def test_tiles_of_an_axis(length: int, side: int, overlap: int, expected: list[int]) -> None:
    assert starts(length, side, overlap) == expected


def test_tiles_no_larger_than_their_overlap_are_an_error_and_not_an_endless_loop() -> None:
    with pytest.raises(ValueError, match="cannot overlap"):
        starts(100, 32, 32)


def test_a_strip_no_wider_than_the_overlap_is_tiled_along_its_length() -> None:
    z = torch.randn(1, 4, 12, 60)
    torch.testing.assert_close(
        predict_tiled(z, lambda x: 2 * x, tile=16, overlap=14), 2 * z, atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("tiling", ["exact", "published"])
@pytest.mark.parametrize("batch", [1, 3])
def test_a_prediction_for_each_place_alone_is_that_of_the_whole(tiling: str, batch: int) -> None:
    z = torch.randn(2, 4, 40, 33)
    tiled = predict_tiled(
        z,
        lambda x: 3 * x,
        tile=16,
        overlap=5,
        tiling=tiling,
        batch=batch,  # type: ignore[arg-type]
    )
    torch.testing.assert_close(tiled, 3 * z, atol=1e-5, rtol=1e-5)


def test_tiles_of_a_batch_belong_to_their_pictures() -> None:
    """What is told apart by its place in the batch must come back there."""
    z = torch.randn(2, 4, 40, 33)

    def mark(x: Tensor) -> Tensor:
        return x * torch.tensor([1.0, -1.0]).repeat(len(x) // 2).view(-1, 1, 1, 1)

    tiled = predict_tiled(z, mark, tile=16, overlap=5, batch=2)
    torch.testing.assert_close(tiled, mark(z), atol=1e-5, rtol=1e-5)


def test_the_published_weights_are_half_a_place_off_along_the_height_alone() -> None:
    ours, theirs = gaussian(9, tiling="exact"), gaussian(9, tiling="published")
    torch.testing.assert_close(ours, ours.flip(0))
    torch.testing.assert_close(theirs, theirs.flip(1))
    assert not torch.allclose(theirs, theirs.flip(0))
    # 1 / sqrt(2 pi 0.01), twice, in the middle.
    assert float(ours[4, 4]) == pytest.approx(15.9155, rel=1e-4)
