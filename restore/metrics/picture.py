"""How good a picture is: PSNR, SSIM and MS-SSIM against a reference, NIQE without one.

Pictures are NumPy arrays, `(H, W, 3)` RGB or `(H, W)` gray: integers over the full range of their
type, or floats in [0, 1]. Inside, values are float64 from 0 to 255.

The definitions are those that the field publishes with (BasicSR, after the MATLAB releases of the
papers), so that a number from here can stand beside a number from there.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

from restore.errors import InputError
from restore.niqe import BLOCK, NiqeParameters, load_niqe_parameters, niqe_of_luma

Channel = Literal["y", "rgb"]
Array: TypeAlias = npt.NDArray[np.float64]
Picture: TypeAlias = npt.NDArray[Any]

SSIM_WINDOW = 11
MS_SSIM_SIDE = 161
"""Shortest side of a picture for MS-SSIM: halved four times, it still holds a window."""

# Wang et al., 2003: how much each scale counts, the finest first.
_SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)

# ITU-R BT.601 luma of R'G'B' in [0, 1] on the 8-bit studio range, 16 (black) to 235 (white).
_BT601 = np.array([65.481, 128.553, 24.966])
_BT601_BLACK = 16.0


def luma(image: Picture) -> Array:
    """Luma of a picture by BT.601, as MATLAB's `rgb2ycbcr` has it, without rounding.

    Args:
        image: `(H, W, 3)` RGB, or `(H, W)` gray, which is taken as luma already.

    Returns:
        `(H, W)`, 16 (black) to 235 (white).

    Raises:
        InputError: it is not such a picture.
    """
    values = _range255(image)
    if values.shape[2] == 1:
        return values[:, :, 0]
    return values @ (_BT601 / 255) + _BT601_BLACK


def psnr(
    image: Picture, reference: Picture, *, channel: Channel = "y", crop_border: int = 0
) -> float:
    """Peak signal-to-noise ratio in dB, the peak being 255; infinite for equal pictures.

    Args:
        image: `(H, W, 3)` RGB or `(H, W)` gray.
        reference: the same shape.
        channel: `y` compares luma (`luma`), `rgb` all three channels at once.
        crop_border: pixels left out along each edge, before anything else.

    Raises:
        InputError: the shapes differ, or one is not a picture.
    """
    first, second = _planes(image, reference, channel, crop_border)
    error = float(np.mean(np.square(first - second)))
    return float("inf") if error == 0 else float(10 * np.log10(255**2 / error))


def ssim(
    image: Picture, reference: Picture, *, channel: Channel = "y", crop_border: int = 0
) -> float:
    """Structural similarity, 1 for equal pictures: the mean over the map and over the channels.

    Gaussian window of 11x11 with sigma 1.5, K1 = 0.01, K2 = 0.03, only where the window lies
    wholly inside the picture (Wang et al., "Image quality assessment: from error visibility to
    structural similarity", 2004, eq. 13).

    Args:
        image: `(H, W, 3)` RGB or `(H, W)` gray, at least 11x11 after the crop.
        reference: the same shape.
        channel: `y` compares luma (`luma`), `rgb` each channel by itself.
        crop_border: pixels left out along each edge, before anything else.

    Raises:
        InputError: the shapes differ, one is not a picture, or it is too small.
    """
    first, second = _planes(image, reference, channel, crop_border)
    height, width = first.shape[:2]
    if min(height, width) < SSIM_WINDOW:
        raise InputError(
            f"a picture of {width}x{height} pixels is too small for SSIM; its window needs "
            f"{SSIM_WINDOW}x{SSIM_WINDOW}; give a larger picture or a smaller crop border"
        )
    planes = range(first.shape[2])
    return float(np.mean([_ssim_maps(first[:, :, i], second[:, :, i])[0] for i in planes]))


def ms_ssim(
    image: Picture, reference: Picture, *, channel: Channel = "y", crop_border: int = 0
) -> float:
    """Structural similarity over five scales, 1 for equal pictures.

    Wang et al., "Multiscale structural similarity for image quality assessment", Asilomar 2003,
    eq. 7 with the weights of the paper; as in the authors' release and in the codecs' field, the
    finer scales give the mean of contrast and structure, the coarsest that of all three, and a
    scale is halved by means of 2x2 pixels. A negative mean counts as 0.

    Args:
        image: `(H, W, 3)` RGB or `(H, W)` gray, at least 161 pixels along each side after the crop.
        reference: the same shape.
        channel: `y` compares luma (`luma`), `rgb` each channel by itself.
        crop_border: pixels left out along each edge, before anything else.

    Raises:
        InputError: the shapes differ, one is not a picture, or it is too small.
    """
    first, second = _planes(image, reference, channel, crop_border)
    height, width = first.shape[:2]
    if min(height, width) < MS_SSIM_SIDE:
        raise InputError(
            f"a picture of {width}x{height} pixels is too small for MS-SSIM, which halves it four "
            f"times; it needs {MS_SSIM_SIDE}x{MS_SSIM_SIDE}; give a larger picture or leave it out"
        )
    planes = range(first.shape[2])
    return float(np.mean([_ms_ssim_plane(first[:, :, i], second[:, :, i]) for i in planes]))


def _ms_ssim_plane(x: Array, y: Array) -> float:
    """MS-SSIM of two planes `(H, W)`."""
    result = 1.0
    for scale, weight in enumerate(_SCALE_WEIGHTS):
        similarity, contrast = _ssim_maps(x, y)
        last = scale == len(_SCALE_WEIGHTS) - 1
        result *= max(float(np.mean(similarity if last else contrast)), 0.0) ** weight
        x, y = _halved(x), _halved(y)
    return result


def _halved(plane: Array) -> Array:
    """Means of 2x2 pixels; an odd side is continued by its last row or column."""
    height, width = plane.shape
    even = np.pad(plane, ((0, height % 2), (0, width % 2)), mode="edge")
    return (even[::2, ::2] + even[1::2, ::2] + even[::2, 1::2] + even[1::2, 1::2]) / 4


def _ssim_maps(x: Array, y: Array) -> tuple[Array, Array]:
    """SSIM, and its contrast and structure alone, of each window; the paper's symbols."""
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mu_x, mu_y = _window_mean(x), _window_mean(y)
    var_x = _window_mean(x * x) - mu_x**2
    var_y = _window_mean(y * y) - mu_y**2
    cov = _window_mean(x * y) - mu_x * mu_y
    contrast = (2 * cov + c2) / (var_x + var_y + c2)
    return (2 * mu_x * mu_y + c1) / (mu_x**2 + mu_y**2 + c1) * contrast, contrast


def _window_mean(plane: Array) -> Array:
    """Gaussian mean of each 11x11 window wholly inside the plane: `(H - 10, W - 10)`."""
    kernel = cv2.getGaussianKernel(SSIM_WINDOW, 1.5, cv2.CV_64F)
    edge = SSIM_WINDOW // 2
    mean = cv2.sepFilter2D(np.ascontiguousarray(plane), cv2.CV_64F, kernel, kernel)
    return np.asarray(mean[edge:-edge, edge:-edge], dtype=np.float64)


def niqe(
    image: Picture, *, crop_border: int = 0, parameters: NiqeParameters | None = None
) -> float:
    """Natural image quality evaluator: 0 and up, lower is more like an undistorted photograph.

    Mittal et al., "Making a 'completely blind' image quality analyzer", 2013, with BasicSR's
    reading of the authors' release: luma rounded to whole numbers, blocks of 96x96 without
    overlap, a rest at the right and at the bottom left out, two scales.

    Args:
        image: `(H, W, 3)` RGB or `(H, W)` gray, at least two blocks large.
        crop_border: pixels left out along each edge, before anything else.
        parameters: other statistics than those of the installed basicsr.

    Raises:
        InputError: it is not a picture, is too small, or holds no texture to judge.
        MissingExtraError: no `parameters` were given, and basicsr is not installed.
    """
    if parameters is None:
        parameters = load_niqe_parameters()
    plane = np.rint(crop(luma(image)[:, :, None], crop_border)[:, :, 0])
    height, width = plane.shape
    if (height // BLOCK) * (width // BLOCK) < 2:
        raise InputError(
            f"a picture of {width}x{height} pixels is too small for NIQE, which compares blocks "
            f"of {BLOCK}x{BLOCK}; give one of two blocks or more, such as {2 * BLOCK}x{BLOCK}"
        )
    return niqe_of_luma(plane, parameters)


def _range255(image: Picture) -> Array:
    """Check a picture and bring it to `(H, W, 1 or 3)` float64, 0 to 255."""
    planes = image[:, :, None] if image.ndim == 2 else image
    if planes.ndim != 3 or planes.shape[2] not in (1, 3) or planes.size == 0:
        raise InputError(
            f"an array of shape {image.shape} is not a picture; give (H, W, 3) RGB or (H, W) gray"
        )
    if np.issubdtype(planes.dtype, np.unsignedinteger):
        return planes.astype(np.float64) * (255 / np.iinfo(planes.dtype).max)
    if not np.issubdtype(planes.dtype, np.floating):
        raise InputError(
            f"a picture of type {image.dtype} is not read; give uint8, uint16 or float in [0, 1]"
        )
    values = planes.astype(np.float64)
    if not (values.min() >= 0 and values.max() <= 1):  # also catches NaN
        raise InputError(
            f"the picture has values from {values.min():g} to {values.max():g}; floats are read "
            "in [0, 1]; divide them by their peak, or clip them"
        )
    return values * 255


def _planes(
    image: Picture, reference: Picture, channel: Channel, crop_border: int
) -> tuple[Array, Array]:
    """Both pictures as `(H, W, channels)`, cropped, 0 to 255."""
    if image.shape != reference.shape:
        raise InputError(
            f"pictures of shape {image.shape} and {reference.shape} cannot be compared; "
            "bring them to the same size and number of channels"
        )
    if channel == "y":
        planes = (luma(image)[:, :, None], luma(reference)[:, :, None])
    else:
        planes = (_range255(image), _range255(reference))
    return crop(planes[0], crop_border), crop(planes[1], crop_border)


def crop(planes: Picture, border: int) -> Picture:
    """A picture `(H, W)` or `(H, W, C)` without `border` pixels along each edge.

    Raises:
        InputError: nothing would be left.
    """
    height, width = planes.shape[:2]
    if border < 0 or 2 * border >= min(height, width):
        raise InputError(
            f"a crop border of {border} leaves nothing of {width}x{height} pixels; "
            f"give 0 to {(min(height, width) - 1) // 2}"
        )
    return planes[border : height - border, border : width - border]
