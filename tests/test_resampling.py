"""Resampling: PyTorch's antialiased bicubic is the oracle, and parts equal the whole."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from restore.resampling import Axis, resample, resample_part

SIZES = [(40, 60), (80, 120), (30, 45), (13, 17), (57, 200), (40, 20), (1, 1)]


@pytest.mark.parametrize("size", SIZES)
def test_it_is_antialiased_bicubic(size: tuple[int, int]) -> None:
    x = torch.rand(2, 3, 40, 60)
    expected = F.interpolate(x, size, mode="bicubic", align_corners=False, antialias=True)
    torch.testing.assert_close(resample(x, size[::-1]), expected.clamp(0, 1), atol=2e-5, rtol=0)


@pytest.mark.parametrize("size", SIZES[:6])
def test_parts_equal_the_whole(size: tuple[int, int]) -> None:
    x = torch.rand(3, 40, 60)
    rows, columns = Axis(source=40, target=size[0]), Axis(source=60, target=size[1])
    whole = resample_part(x, rows, columns, origin=(0, 0), box=(0, size[0], 0, size[1]))
    top, bottom = rows.outputs(11, 29)
    left, right = columns.outputs(0, 33)
    low, high = max(0, 11 - rows.support), min(40, 29 + rows.support)
    end = min(60, 33 + columns.support)
    part = resample_part(
        x[:, low:high, :end], rows, columns, origin=(low, 0), box=(top, bottom, left, right)
    )
    torch.testing.assert_close(part, whole[:, top:bottom, left:right], atol=1e-6, rtol=0)


def test_neighbouring_intervals_share_no_output_and_leave_none_out() -> None:
    axis = Axis(source=97, target=31)
    edges = [0, 13, 14, 50, 97]
    parts = [axis.outputs(a, b) for a, b in itertools.pairwise(edges)]
    assert parts[0][0] == 0
    assert parts[-1][1] == 31
    assert all(a[1] == b[0] for a, b in itertools.pairwise(parts))


def test_a_flat_color_stays_and_the_range_holds() -> None:
    flat = torch.full((1, 3, 20, 30), 0.25)
    torch.testing.assert_close(resample(flat, (47, 11)), torch.full((1, 3, 11, 47), 0.25))
    noise = resample(torch.rand(1, 3, 20, 30).round(), (90, 60))
    assert float(noise.min()) >= 0
    assert float(noise.max()) <= 1
