"""Fixtures that every test file may use."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

Picture = npt.NDArray[Any]

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(autouse=True)
def isolated_rng() -> None:
    """Every test starts from the same random state, whatever ran before it."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real pictures and clips beside the checkout; the test is skipped without it."""
    if not SHARED_DATA.is_dir():
        pytest.skip("no shared data beside this checkout")
    return SHARED_DATA


@pytest.fixture(scope="session")
def make_picture() -> Callable[..., Picture]:
    """`make_picture(width, height, channels=3, dtype=np.uint8)`: a ramp, an edge and texture.

    Returns an array `(H, W, C)`, or `(H, W)` for one channel, over the whole range of `dtype`
    (floats: 0 to 1). The same arguments give the same picture.
    """

    def make(width: int, height: int, channels: int = 3, dtype: Any = np.uint8) -> Picture:
        y, x = np.mgrid[0:height, 0:width]
        ramp = x / max(1, width - 1)
        edge = (x + y > (width + height) / 2).astype(np.float64)
        texture = 0.5 + 0.5 * np.sin(1.3 * x + 0.7 * y)
        planes = [ramp, edge, texture, 1 - ramp]
        picture = np.stack([planes[c % 4] for c in range(channels)], axis=-1)
        if channels == 1:
            picture = picture[..., 0]
        if np.issubdtype(dtype, np.floating):
            return picture.astype(dtype)
        return np.round(picture * np.iinfo(dtype).max).astype(dtype)

    return make
