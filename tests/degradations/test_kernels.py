"""Kernels: BasicSR's numbers where it has them, moments and symmetry where it has none."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from degradation_scenes import generator
from torch import Tensor

from restore.degradations import kernels
from restore.degradations.basicsr_alias import basicsr_degradations
from restore.degradations.blur import Blur, KernelKind
from restore.errors import MissingExtraError, OptionError


def one(value: float) -> Tensor:
    return torch.tensor([value], dtype=torch.float64)


# The upper four rows of kernels of side 7 by basicsr.data.degradations 1.4.2; the lower three
# mirror them. Parameters: sigma 1.3; then sigma 2.0 and 0.8, angle 0.6, exponents 0.7 and 1.5;
# cut-off 1.4.
GOLDEN: dict[str, tuple[Callable[[], Tensor], list[float]]] = {
    "iso": (
        lambda: kernels.gaussian_kernels(one(1.3), one(1.3), one(0), size=7),
        [
            *(0.000463623039, 0.00203522519, 0.00494402825, 0.00664615453, 0.00494402825),
            *(0.00203522519, 0.000463623039, 0.00203522519, 0.00893428756, 0.0217034313),
            *(0.0291754722, 0.0217034313, 0.00893428756, 0.00203522519, 0.00494402825),
            *(0.0217034313, 0.052722607, 0.070873906, 0.052722607, 0.0217034313),
            *(0.00494402825, 0.00664615453, 0.0291754722, 0.070873906, 0.0952743205),
            *(0.070873906, 0.0291754722, 0.00664615453),
        ],
    ),
    "aniso": (
        lambda: kernels.gaussian_kernels(one(2), one(0.8), one(0.6), size=7),
        [
            *(0.00731518114, 0.00620981842, 0.00270163945, 0.000602380003, 6.88348508e-05),
            *(4.03126061e-06, 1.20995173e-07, 0.0203914978, 0.0319109288, 0.0255931908),
            *(0.0105197179, 0.00221604424, 0.00023924751, 1.32376563e-05, 0.0181058846),
            *(0.0522331923, 0.0772268038, 0.0585172924, 0.0227245377, 0.00452272894),
            *(0.000461318355, 0.00512078982, 0.0272333002, 0.0742263779, 0.103683806),
            *(0.0742263779, 0.0272333002, 0.00512078982),
        ],
    ),
    "generalized": (
        lambda: kernels.generalized_kernels(one(2), one(0.8), one(0.6), one(0.7), size=7),
        [
            *(0.0151821027, 0.0141713773, 0.0101555471, 0.00586972753, 0.00287502964),
            *(0.00123680921, 0.000478584533, 0.0241891249, 0.0304581156, 0.0271139201),
            *(0.0177727204, 0.00941418979, 0.00429182087, 0.00174374993, 0.0228307012),
            *(0.040603187, 0.0536374857, 0.0437339065, 0.0255256276, 0.0124437577),
            *(0.00535338295, 0.0130874834, 0.0279997782, 0.0519540183, 0.0757557036),
            *(0.0519540183, 0.0279997782, 0.0130874834),
        ],
    ),
    "plateau": (
        lambda: kernels.plateau_kernels(one(2), one(0.8), one(0.6), one(1.5), size=7),
        [
            *(0.00886841666, 0.00815881013, 0.00565913657, 0.00344196978, 0.00205597801),
            *(0.00126619682, 0.000814671363, 0.0170649141, 0.0253700673, 0.0206257402),
            *(0.0108589895, 0.00524679365, 0.00270484726, 0.00152285652, 0.0155790757),
            *(0.0449628719, 0.0806753422, 0.052688441, 0.0186283481, 0.00702440966),
            *(0.00319760467, 0.00743600253, 0.0218090959, 0.0757584455, 0.11716195),
            *(0.0757584455, 0.0218090959, 0.00743600253),
        ],
    ),
    "sinc": (
        lambda: kernels.sinc_kernels(one(1.4), size=7),
        [
            *(-0.0149028891, -0.0202408711, -0.0146243074, -0.0101422689, -0.0146243074),
            *(-0.0202408711, -0.0149028891, -0.0202408711, -0.00392734321, 0.0283623583),
            *(0.0449564337, 0.0283623583, -0.00392734321, -0.0202408711, -0.0146243074),
            *(0.0283623583, 0.0896837294, 0.1189333, 0.0896837294, 0.0283623583),
            *(-0.0146243074, -0.0101422689, 0.0449564337, 0.1189333, 0.153618713),
            *(0.1189333, 0.0449564337, -0.0101422689),
        ],
    ),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_kernels_are_those_of_basicsr(name: str) -> None:
    make, upper = GOLDEN[name]
    rows = torch.tensor(upper).view(4, 7)
    expected = torch.cat((rows, rows[:3].flip(0, 1)))
    # float32, and a Bessel function that torch computes to 1e-7 relative.
    torch.testing.assert_close(make()[0], expected, atol=3e-7, rtol=0)


def test_random_kernels_are_those_of_an_installed_basicsr() -> None:
    try:
        oracle: Any = basicsr_degradations()
    except MissingExtraError as error:
        pytest.skip(str(error))
    rng = np.random.default_rng(0)
    for _ in range(40):
        size = int(rng.choice([7, 11, 21]))
        x, y = rng.uniform(0.2, 3, 2)
        angle, shape = rng.uniform(-math.pi, math.pi), rng.uniform(0.5, 4)
        cutoff = rng.uniform(math.pi / 5, math.pi)
        side = {"size": 21, "side": one(size)}
        pairs = [
            (
                oracle.bivariate_Gaussian(size, x, y, angle, isotropic=False),
                kernels.gaussian_kernels(one(x), one(y), one(angle), **side),
            ),
            (
                oracle.bivariate_generalized_Gaussian(size, x, y, angle, shape, isotropic=False),
                kernels.generalized_kernels(one(x), one(y), one(angle), one(shape), **side),
            ),
            (
                oracle.bivariate_plateau(size, x, y, angle, shape, isotropic=False),
                kernels.plateau_kernels(one(x), one(y), one(angle), one(shape), **side),
            ),
            (
                oracle.circular_lowpass_kernel(cutoff, size),
                kernels.sinc_kernels(one(cutoff), **side),
            ),
        ]
        for expected, got in pairs:
            padded = np.pad(expected, (21 - size) // 2)
            assert np.abs(got[0].numpy() - padded).max() < 3e-7  # as above


ALL_KINDS: tuple[KernelKind, ...] = (
    *("iso", "aniso", "generalized_iso", "generalized_aniso", "plateau_iso", "plateau_aniso"),
    *("sinc", "motion", "shake", "defocus"),
)


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_every_family_sums_to_one_and_leaves_the_picture_in_its_place(kind: KernelKind) -> None:
    blur = Blur(kinds=(kind,), weights=(1,), size=(7, 21))
    drawn = blur.kernels(blur.draw(20, generator()))
    torch.testing.assert_close(drawn.sum((1, 2)), torch.ones(20), atol=1e-5, rtol=0)
    axis = torch.arange(21.0) - 10
    centre = torch.stack(((drawn.sum(1) * axis).sum(1), (drawn.sum(2) * axis).sum(1)))
    # A path may stick out at the rim and be bent there; nothing else is off by rounding.
    room = 0.3 if kind == "shake" else 1e-4
    assert float(centre.abs().max()) < room


def moments(kernel: Tensor) -> Tensor:
    """Variances along x and y, and their covariance."""
    half = kernel.shape[-1] // 2
    axis = torch.arange(-half, half + 1.0)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return torch.stack([(kernel * a * b).sum() for a, b in ((x, x), (y, y), (x, y))])


def test_a_gaussian_has_the_deviations_asked_for_at_its_angle() -> None:
    lying = kernels.gaussian_kernels(one(2.5), one(0.9), one(0), size=21)[0]
    expected = torch.tensor([2.5**2, 0.9**2, 0])
    # The kernel ends at four deviations.
    torch.testing.assert_close(moments(lying), expected, atol=0.02, rtol=0)
    standing = kernels.gaussian_kernels(one(2.5), one(0.9), one(math.pi / 2), size=21)[0]
    torch.testing.assert_close(standing, lying.T, atol=1e-6, rtol=0)


def test_motion_is_as_long_as_asked_for_in_its_direction() -> None:
    along, across, _ = moments(kernels.motion_kernels(one(12), one(0), size=21)[0])
    # Even over a way of 12 pixels, a little more as points are shared between pixels.
    assert float(along) == pytest.approx(12**2 / 12, abs=0.6)
    assert float(across) == pytest.approx(0, abs=1e-6)
    _, _, tilted = moments(kernels.motion_kernels(one(12), one(math.pi / 4), size=21)[0])
    assert float(tilted) == pytest.approx(6, abs=0.5)  # half of 12, downwards to the right


def test_a_shaking_hand_without_turns_moves_straight_and_one_at_rest_not_at_all() -> None:
    none = torch.zeros(1, 4)
    straight = kernels.shake_kernels(one(9), one(0.3), none, size=21)
    expected = kernels.motion_kernels(one(9), one(0.3), size=21)
    torch.testing.assert_close(straight, expected, atol=1e-6, rtol=0)
    rest = kernels.shake_kernels(one(0), one(0.3), none, size=5)[0]
    assert float(rest[2, 2]) == pytest.approx(1)
    bent = kernels.shake_kernels(one(9), one(0.3), torch.full((1, 4), 0.8), size=21)
    assert float((bent - straight).abs().sum()) > 0.5


@pytest.mark.parametrize("radius", [0.0, 0.5, 2.0, 4.5])
def test_a_disk_has_the_width_of_its_radius(radius: float) -> None:
    disk = kernels.defocus_kernels(one(radius), size=21)[0]
    # A disk has the variance r^2 / 4 along each axis; a soft rim of a pixel adds a little.
    assert float(moments(disk)[0]) == pytest.approx(radius**2 / 4, abs=0.2)


def test_a_smaller_side_is_a_kernel_of_that_size_in_the_middle() -> None:
    inside = kernels.gaussian_kernels(one(2), one(2), one(0), size=21, side=one(9))[0]
    own = kernels.gaussian_kernels(one(2), one(2), one(0), size=9)[0]
    torch.testing.assert_close(inside[6:15, 6:15], own)
    assert float(inside.sum()) == pytest.approx(float(inside[6:15, 6:15].sum()))


def test_a_narrow_kernel_between_pixels_is_no_nan() -> None:
    kernel = kernels.gaussian_kernels(one(0.01), one(0.01), one(0), size=5, offset=0.5)[0]
    torch.testing.assert_close(kernel[2:4, 2:4], torch.full((2, 2), 0.25))


def test_even_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="give an odd number"):
        kernels.sinc_kernels(one(1), size=8)
    with pytest.raises(OptionError, match="give odd numbers"):
        Blur(size=(7, 20))


def test_families_are_drawn_as_often_as_their_weights_say() -> None:
    blur = Blur(kinds=("iso", "sinc", "aniso"), weights=(1, 2, 1), size=(7, 21), sigma=(0.2, 3))
    draws = blur.draw(4000, generator())
    shares = torch.bincount(draws["kind"], minlength=3) / 4000
    # Four standard deviations of a share of 0.5 among 4000.
    torch.testing.assert_close(shares, torch.tensor([0.25, 0.5, 0.25]), atol=0.032, rtol=0)
    assert set(draws["size"].tolist()) == set(range(7, 22, 2))
    wide = draws["size"] >= 13
    assert float(draws["cutoff"][wide].min()) == pytest.approx(math.pi / 5, abs=0.02)
    assert float(draws["cutoff"][~wide].min()) == pytest.approx(math.pi / 3, abs=0.02)
