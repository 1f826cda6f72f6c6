"""Sizes: any size in, s times that out, and Pillow's enlarging in between."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from published import picture

from restore.models.parts.framing import Framing


@pytest.mark.parametrize("tiling", ["exact", "published"])
@pytest.mark.parametrize("size", [(32, 32), (33, 47), (20, 50), (1, 1), (3, 200)])
def test_any_size_comes_back_enlarged(tiling: str, size: tuple[int, int]) -> None:
    framing = Framing(scale=4, smallest=128, tiling=tiling)  # type: ignore[arg-type]
    x = picture(*size, 1)
    large = framing.enlarge(x)
    assert all(side % 8 == 0 and side >= 120 for side in large.shape[-2:])
    result = framing.give_back(large, size)
    assert result.shape[-2:] == (4 * size[0], 4 * size[1])
    if (
        tiling == "exact"
    ):  # enlarged, padded, cropped and shrunk again: nearly what plain enlarging is
        plain = Framing(scale=4, smallest=1).enlarge(x)[..., : 4 * size[0], : 4 * size[1]]
        assert (result - plain).abs().mean() < 0.01


def test_the_enlarged_picture_is_pillows() -> None:
    x = picture(33, 47, 2)
    image = Image.fromarray((x[0].permute(1, 2, 0) * 255).byte().numpy())
    pillow = torch.from_numpy(np.array(image.resize((188, 132)))).permute(2, 0, 1) / 255
    ours = Framing(scale=4, smallest=1).enlarge(x)[0, :, :132, :188]
    # Pillow rounds to 8 bits after each of its two passes.
    assert (ours - pillow).abs().max() <= 1.1 / 255
