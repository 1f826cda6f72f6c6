"""Filtering: the sum that defines it, whichever way it is computed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from degradation_scenes import blurred, generator, noise_pictures
from torch import Tensor

from restore.degradations.blur import Sharpen, random_blur
from restore.degradations.filtering import filter_each, mirrored
from restore.degradations.kernels import gaussian_kernels
from restore.degradations.step import Scene
from restore.errors import OptionError


def by_definition(pictures: Tensor, kernels: Tensor) -> Tensor:
    """The correlation in float64, with NumPy's mirroring."""
    half = kernels.shape[-1] // 2
    height, width = pictures.shape[-2:]
    result = np.zeros(pictures.shape)
    for i, picture in enumerate(pictures.double().numpy()):
        padded = np.pad(picture, ((0, 0), (half, half), (half, half)), mode="reflect")
        for down in range(2 * half + 1):
            for right in range(2 * half + 1):
                part = padded[:, down : down + height, right : right + width]
                result[i] += float(kernels[i, down, right]) * part
    return torch.from_numpy(result).float()


def random_kernels(count: int, size: int) -> Tensor:
    drawn = torch.rand(count, size, size, generator=generator(3))
    return drawn / drawn.sum((1, 2), keepdim=True)


@pytest.mark.parametrize("on_tape", [False, True])
@pytest.mark.parametrize("size", [1, 3, 9, 21])
@pytest.mark.parametrize("shape", [(40, 33), (6, 4), (1, 3)])
def test_filtering_is_the_sum_that_defines_it(
    shape: tuple[int, int], size: int, on_tape: bool
) -> None:
    pictures = noise_pictures(2, *shape).requires_grad_(on_tape)  # OpenCV, or torch
    kernels = random_kernels(2, size)
    expected = by_definition(pictures.detach(), kernels)
    got = filter_each(pictures, kernels).detach()
    torch.testing.assert_close(got, expected, atol=3e-6, rtol=0)  # float32, 441 summands


def test_separable_kernels_give_the_same() -> None:
    sigma = torch.tensor([0.4, 2.0])
    kernels = gaussian_kernels(sigma, sigma, torch.zeros(2), size=21)
    pictures = noise_pictures(2, 30)
    expected = by_definition(pictures, kernels)
    # What may be missing of a kernel is 1e-5, a four-hundredth of a step of 8 bits.
    torch.testing.assert_close(filter_each(pictures, kernels), expected, atol=1.5e-5, rtol=0)


def test_filtering_uses_the_kernel_of_each_picture() -> None:
    kernels = torch.zeros(2, 3, 3)
    kernels[0, 1, 1] = 1  # identity
    kernels[1, 1, 0] = 1  # takes the left neighbour
    x = noise_pictures(2, 16)
    y = filter_each(x, kernels)
    assert torch.equal(y[0], x[0])
    assert torch.equal(y[1, :, :, 1:], x[1, :, :, :-1])


def test_a_view_is_filtered_and_left_alone() -> None:
    whole = noise_pictures(1, 40)
    before = whole.clone()
    part = whole[:, :, 3:23, ::2]
    expected = by_definition(part, random_kernels(1, 5))
    torch.testing.assert_close(filter_each(part, random_kernels(1, 5)), expected)
    assert torch.equal(whole, before)


def test_mirroring_goes_on_for_pictures_smaller_than_the_margin() -> None:
    x = noise_pictures(1, 3, 2)
    pad = ((0, 0), (0, 0), (7, 7), (7, 7))
    assert np.array_equal(mirrored(x, 7).numpy(), np.pad(x.numpy(), pad, mode="reflect"))


def test_blur_takes_away_detail() -> None:
    x = noise_pictures()
    blurred = random_blur(x, generator(), sigma=(1, 2), anisotropic=0.5, size=15)
    assert float(blurred.var()) < 0.5 * float(x.var())


def sharpened(kind: Sharpen, x: Tensor) -> Tensor:
    draws = kind.draw(len(x), generator())
    return kind.apply(x, draws, generator(), Scene(good=(40, 160), bad=(10, 40)))


def soft_edge() -> Tensor:
    x = torch.full((1, 3, 40, 160), 0.3)
    x[..., 80:] = 0.7
    return blurred(x, 2.0, size=13)


def test_sharpening_steepens_edges_and_leaves_flat_parts_alone() -> None:
    soft = soft_edge()
    y = sharpened(Sharpen(), soft)
    slope = (soft[..., 80] - soft[..., 79]).mean()
    assert float((y[..., 80] - y[..., 79]).mean()) > 1.1 * float(slope)
    torch.testing.assert_close(y[..., :30], soft[..., :30], atol=1e-4, rtol=0)
    assert float(y.min()) >= 0
    assert float(y.max()) <= 1


def test_a_camera_sharpens_small_differences_too_each_picture_by_its_own_amount() -> None:
    faint = (0.5 + 0.02 * (soft_edge() - 0.5)).repeat(8, 1, 1, 1)  # 2 steps of 255 high
    y = sharpened(Sharpen(amount=(0.2, 1.0), sigma=(1, 3), threshold=0), faint)
    halo = y.amax(dim=(1, 2, 3)) - faint.amax(dim=(1, 2, 3))
    assert bool((halo > 1e-6).all())
    assert len(set(halo.tolist())) == 8
    torch.testing.assert_close(sharpened(Sharpen(amount=(0, 0), threshold=0), faint), faint)
    torch.testing.assert_close(sharpened(Sharpen(), faint), faint)


def test_a_mask_that_cannot_be_is_refused() -> None:
    for wrong in ({"amount": (1, 0.5)}, {"sigma": (0, 2)}, {"threshold": -1}, {"prob": 2}):
        with pytest.raises(OptionError, match="sharpen"):
            Sharpen(**wrong)  # type: ignore[arg-type]
