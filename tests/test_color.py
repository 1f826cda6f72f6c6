"""Colour transfer against its definitions."""

import torch
import torch.nn.functional as F

from restore.color import adain, fix_colors, low_frequencies, wavelet


def two_dimensional_low_pass(x: torch.Tensor) -> torch.Tensor:
    """The published form: a 3x3 kernel with holes, five times."""
    line = torch.tensor([1.0, 2.0, 1.0])
    kernel = (line[:, None] * line / 16)[None, None].repeat(x.shape[1], 1, 1, 1)
    for level in range(5):
        step = 2**level
        padded = F.pad(x, (step,) * 4, mode="replicate")
        x = F.conv2d(padded, kernel, dilation=step, groups=x.shape[1])
    return x


def test_the_separable_low_pass_is_the_published_one() -> None:
    x = torch.rand(2, 3, 80, 70)
    torch.testing.assert_close(low_frequencies(x), two_dimensional_low_pass(x))


def test_wavelet_takes_high_from_the_result_and_low_from_the_reference() -> None:
    result, reference = torch.rand(2, 1, 3, 70, 80) * 0.5 + 0.25
    high = result - two_dimensional_low_pass(result)
    expected = (high + two_dimensional_low_pass(reference)).clamp(0, 1)
    torch.testing.assert_close(wavelet(result, reference), expected)


def test_adain_copies_mean_and_deviation() -> None:
    result = torch.rand(1, 3, 60, 60) * 0.2 + 0.3
    reference = torch.rand(1, 3, 60, 60) * 0.1 + 0.5
    fixed = adain(result, reference)
    torch.testing.assert_close(fixed.mean((2, 3)), reference.mean((2, 3)), atol=1e-5, rtol=0)
    # 1e-5 under the root shifts a variance of about 1e-3 by a percent.
    torch.testing.assert_close(fixed.std((2, 3)), reference.std((2, 3)), atol=0, rtol=0.01)


def test_none_changes_nothing() -> None:
    result = torch.rand(1, 3, 16, 16)
    assert fix_colors(result, torch.rand(1, 3, 4, 4), "none") is result
