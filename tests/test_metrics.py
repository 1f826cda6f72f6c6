"""PSNR, SSIM and NIQE are the published ones; pairs are made by name."""

from __future__ import annotations

import importlib.machinery
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from restore import niqe as niqe_module
from restore.errors import InputError, MissingExtraError
from restore.metrics import luma, niqe, pair_by_stem, psnr, ssim
from restore.niqe import NiqeParameters, find_niqe_parameters, load_niqe_parameters

Bytes = npt.NDArray[np.uint8]


def textured(height: int, width: int, seed: int = 0) -> Bytes:
    """A picture with coarse and fine structure; RandomState's numbers never change."""
    draw = np.random.RandomState(seed)
    coarse = draw.randint(20, 230, (height // 16 + 1, width // 16 + 1, 3))
    fine = draw.randint(-12, 13, (height, width, 3))
    large = np.kron(coarse, np.ones((16, 16, 1), dtype=int))[:height, :width]
    return np.asarray(np.clip(large + fine, 0, 255), dtype=np.uint8)


def synthetic_parameters() -> NiqeParameters:
    """Statistics of no photograph, so that no test needs the file of basicsr."""
    x = np.arange(-3, 4)
    line = np.exp(-(x**2) / (2 * (7 / 6) ** 2))
    window = np.outer(line, line)
    return NiqeParameters(
        mean=np.linspace(0.5, 1.5, 36), covariance=0.1 * np.eye(36), window=window / window.sum()
    )


@pytest.mark.parametrize(
    ("color", "expected"),  # from the matrix of ITU-R BT.601
    [
        ((0, 0, 0), 16.0),
        ((255, 255, 255), 235.0),
        ((255, 0, 0), 81.481),
        ((0, 255, 0), 144.553),
        ((0, 0, 255), 40.966),
    ],
)
def test_luma_is_bt601(color: tuple[int, int, int], expected: float) -> None:
    picture = np.full((2, 3, 3), color, dtype=np.uint8)
    np.testing.assert_allclose(luma(picture), expected, atol=1e-9)


def test_equal_pictures_have_infinite_psnr_and_full_ssim() -> None:
    picture = textured(40, 50)
    for channel in ("y", "rgb"):
        assert psnr(picture, picture, channel=channel) == math.inf
        assert ssim(picture, picture, channel=channel) == pytest.approx(1, abs=1e-12)


def test_psnr_of_a_constant_offset_is_known() -> None:
    picture = np.full((20, 20, 3), 100, dtype=np.uint8)
    brighter = picture + np.uint8(10)
    assert psnr(brighter, picture, channel="rgb") == pytest.approx(20 * math.log10(255 / 10))
    # The same offset is smaller in luma, whose white is 219 above black.
    assert psnr(brighter, picture) == pytest.approx(20 * math.log10(255 / 10 * 255 / 219))


def test_number_formats_agree() -> None:
    first, second = textured(40, 50, seed=1), textured(40, 50, seed=2)
    same: list[tuple[npt.NDArray[Any], npt.NDArray[Any]]] = [
        (first.astype(np.uint16) * 257, second.astype(np.uint16) * 257),
        (first / 255, second / 255),
        ((first / 255).astype(np.float32), (second / 255).astype(np.float32)),
    ]
    for a, b in same:  # float32 holds a value of 8 bits to 1e-7
        assert psnr(a, b) == pytest.approx(psnr(first, second), abs=1e-5)
        assert ssim(a, b) == pytest.approx(ssim(first, second), abs=1e-6)


def test_crop_border_hides_what_lies_there_and_nothing_more() -> None:
    reference = textured(40, 50)
    damaged = reference.copy()
    damaged[:4], damaged[-4:], damaged[:, :4], damaged[:, -4:] = 0, 0, 0, 0
    assert psnr(damaged, reference, crop_border=4) == math.inf
    assert ssim(damaged, reference, crop_border=4) == pytest.approx(1, abs=1e-12)
    assert psnr(damaged, reference, crop_border=3) < 40


def test_ssim_follows_its_definition() -> None:
    """Beside a plain twin that visits each window by itself."""
    x, y = textured(15, 18, seed=3), textured(15, 18, seed=4)
    a, b = luma(x), luma(y)
    line = np.exp(-((np.arange(11) - 5) ** 2) / (2 * 1.5**2))
    weight = np.outer(line, line) / line.sum() ** 2
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    values = []
    for top in range(15 - 10):
        for left in range(18 - 10):
            p, q = a[top : top + 11, left : left + 11], b[top : top + 11, left : left + 11]
            m, n = (weight * p).sum(), (weight * q).sum()
            var_p, var_q = (weight * (p - m) ** 2).sum(), (weight * (q - n) ** 2).sum()
            cov = (weight * (p - m) * (q - n)).sum()
            value = (2 * m * n + c1) * (2 * cov + c2)
            values.append(value / ((m * m + n * n + c1) * (var_p + var_q + c2)))
    assert ssim(x, y) == pytest.approx(np.mean(values), abs=1e-9)


def test_ssim_of_rgb_is_the_mean_of_the_channels() -> None:
    x, y = textured(30, 30, seed=5), textured(30, 30, seed=6)
    single = [ssim(x[:, :, i], y[:, :, i]) for i in range(3)]
    assert ssim(x, y, channel="rgb") == pytest.approx(np.mean(single), abs=1e-12)


@pytest.mark.parametrize(
    ("image", "reference", "says"),
    [
        (np.zeros((8, 8, 3), np.uint8), np.zeros((8, 9, 3), np.uint8), "same size"),
        (np.zeros((8, 8, 4)), np.zeros((8, 8, 4)), "not a picture"),
        (np.zeros((8, 8, 3)), np.full((8, 8, 3), 255.0), r"\[0, 1\]"),
        (np.zeros((8, 8, 3)), np.full((8, 8, 3), np.nan), r"\[0, 1\]"),
        (np.zeros((8, 8, 3), np.int64), np.zeros((8, 8, 3), np.int64), "int64"),
    ],
)
def test_what_is_not_a_pair_of_pictures_is_refused(
    image: npt.NDArray[np.generic], reference: npt.NDArray[np.generic], says: str
) -> None:
    with pytest.raises(InputError, match=says):
        psnr(image, reference)


def test_too_small_pictures_are_refused() -> None:
    picture = textured(24, 24)
    with pytest.raises(InputError, match="SSIM"):
        ssim(picture, picture, crop_border=7)
    with pytest.raises(InputError, match="leaves nothing"):
        psnr(picture, picture, crop_border=12)
    with pytest.raises(InputError, match="NIQE"):
        niqe(textured(128, 128), parameters=synthetic_parameters())


@pytest.mark.parametrize(
    ("flat_columns", "expected"),
    # From BasicSR 1.4.2's own `niqe` with these pictures and parameters.
    [(0, 48.001584), (100, 33.750713)],
)
def test_niqe_equals_basicsr(flat_columns: int, expected: float) -> None:
    picture = textured(230, 300, seed=7)
    picture[:, :flat_columns] = 255  # blocks without texture: the first shape counts, no scale
    got = niqe(picture, parameters=synthetic_parameters())
    assert got == pytest.approx(expected, abs=1e-3)  # BasicSR sums in float32


def test_niqe_of_a_flat_picture_is_refused() -> None:
    flat = np.full((192, 192, 3), 90, dtype=np.uint8)
    with pytest.raises(InputError, match="texture"):
        niqe(flat, parameters=synthetic_parameters())


def test_the_shape_of_known_distributions_is_found() -> None:
    draw = np.random.RandomState(0)
    size = (2, 300, 300)
    # 90,000 draws give the shape to about 2 %.
    for values, shape, scale in (
        (draw.laplace(size=size), 1, 1),
        (draw.normal(size=size), 2, math.sqrt(2)),
    ):
        alpha, left, right = niqe_module._fit_aggd(values)
        np.testing.assert_allclose(alpha, shape, rtol=0.05)
        np.testing.assert_allclose(left, scale, rtol=0.05)
        np.testing.assert_allclose(right, scale, rtol=0.05)
        _, left, right = niqe_module._fit_aggd(np.where(values > 0, 3 * values, values))
        np.testing.assert_allclose(right / left, 3, rtol=0.05)


def test_half_size_is_the_stretched_cubic() -> None:
    """PyTorch's antialiased bicubic is the same but for its borders, which it does not mirror."""
    plane = luma(textured(40, 60))
    other = torch.nn.functional.interpolate(
        torch.from_numpy(plane)[None, None], scale_factor=0.5, mode="bicubic", antialias=True
    )[0, 0].numpy()
    np.testing.assert_allclose(niqe_module._half(plane)[2:-2, 2:-2], other[2:-2, 2:-2], atol=1e-9)


def save_parameters(path: Path, **change: npt.NDArray[np.float64]) -> Path:
    known = synthetic_parameters()
    arrays = {
        "mu_pris_param": known.mean[None],
        "cov_pris_param": known.covariance,
        "gaussian_window": known.window,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **{**arrays, **change})  # type: ignore[arg-type]
    return path


def test_statistics_come_from_basicsr_without_importing_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "basicsr").mkdir()
    (tmp_path / "basicsr" / "__init__.py").write_text("raise ImportError('functional_tensor')")
    path = save_parameters(tmp_path / "basicsr" / "metrics" / "niqe_pris_params.npz")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert find_niqe_parameters() == path
    assert "basicsr" not in sys.modules
    np.testing.assert_array_equal(load_niqe_parameters(path).mean, synthetic_parameters().mean)


@pytest.mark.parametrize("folder_in_the_way", [False, True])
def test_without_basicsr_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder_in_the_way: bool
) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.setattr(sys, "meta_path", [importlib.machinery.PathFinder])
    if folder_in_the_way:  # a namespace package to Python, and not the library
        (tmp_path / "basicsr").mkdir()
    with pytest.raises(MissingExtraError, match=r"pip install '\.\[metrics\]'"):
        find_niqe_parameters()


def test_unusable_statistics_are_refused(tmp_path: Path) -> None:
    text = tmp_path / "text.npz"
    text.write_text("not numbers")
    npy = tmp_path / "array.npz"
    with npy.open("wb") as file:
        np.save(file, np.zeros(36))
    other_keys = tmp_path / "keys.npz"
    np.savez(other_keys, weights=np.zeros(3))
    wrong_shape = save_parameters(tmp_path / "shape.npz", cov_pris_param=np.eye(18))
    truncated = save_parameters(tmp_path / "cut.npz")
    truncated.write_bytes(truncated.read_bytes()[:4000])
    for path in (text, npy, other_keys, wrong_shape, truncated, tmp_path / "missing.npz"):
        with pytest.raises(InputError, match="statistics"):
            load_niqe_parameters(path)


def test_pairs_are_made_by_name_not_by_order() -> None:
    images = [Path("out/b.png"), Path("out/a.jpg")]
    references = [Path("hr/a.png"), Path("hr/b.png"), Path("hr/c.png")]
    assert pair_by_stem(images, references) == [
        (Path("out/a.jpg"), Path("hr/a.png")),
        (Path("out/b.png"), Path("hr/b.png")),
    ]


def test_pictures_without_reference_and_double_names_are_refused() -> None:
    with pytest.raises(InputError, match=r"1 of 2 pictures .* b\.png"):
        pair_by_stem([Path("a.png"), Path("b.png")], [Path("a.png")])
    with pytest.raises(InputError, match="same name"):
        pair_by_stem([Path("a.png"), Path("a.jpg")], [Path("a.png")])
