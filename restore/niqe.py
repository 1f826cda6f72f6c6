"""NIQE on a luma plane: the distance of a picture's local statistics to those of photographs.

Mittal, Soundararajan, Bovik, "Making a 'completely blind' image quality analyzer", IEEE Signal
Processing Letters 2013; equation numbers are of this paper. Where the paper is silent (rounding,
borders, blocks without texture), it does what BasicSR and the authors' MATLAB release do.
"""

from __future__ import annotations

import importlib.util
import sys
import zipfile
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TypeAlias

import cv2
import numpy as np
import numpy.typing as npt
import torch

from restore.errors import InputError, MissingExtraError, install_command

Array: TypeAlias = npt.NDArray[np.float64]

BLOCK = 96
FEATURES = 36
# Neighbours whose products are looked at, as (rows, columns): horizontal, vertical, two diagonals.
_NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (1, -1))


@dataclass(frozen=True, kw_only=True, slots=True)
class NiqeParameters:
    """What NIQE measures the distance to: the statistics of undistorted photographs."""

    mean: Array
    """Mean of the features, `(36,)`."""
    covariance: Array
    """Covariance of the features, `(36, 36)`."""
    window: Array
    """Gaussian window of the local mean and deviation, `(7, 7)`, summing to 1."""


def niqe_of_luma(plane: Array, parameters: NiqeParameters) -> float:
    """NIQE of a luma plane in whole numbers; the rest at the right and bottom is left out.

    Args:
        plane: `(H, W)`, 0 to 255, of two blocks of 96x96 or more.
        parameters: the statistics to measure the distance to.

    Raises:
        InputError: fewer than two blocks hold any texture.
    """
    rows, columns = plane.shape[0] // BLOCK, plane.shape[1] // BLOCK
    plane = plane[: rows * BLOCK, : columns * BLOCK]
    scales = ((plane, BLOCK), (_half(plane), BLOCK // 2))
    features = np.concatenate(
        [_features(_blocks(_normalise(p, parameters.window), side)) for p, side in scales], axis=1
    )  # (blocks, 36)
    whole = features[~np.isnan(features).any(axis=1)]
    if len(whole) < 2:
        raise InputError(
            "NIQE cannot judge this picture: fewer than two of its blocks hold any texture; "
            "give a picture that is not flat"
        )
    # The mean also counts the readable features of blocks that miss others, as MATLAB's does.
    distance = parameters.mean - np.nanmean(features, axis=0)
    covariance = (parameters.covariance + np.cov(whole, rowvar=False)) / 2
    return float(np.sqrt(distance @ np.linalg.pinv(covariance) @ distance))  # eq. 10


def find_niqe_parameters() -> Path:
    """File with NIQE's statistics in the installed basicsr, which is found, but not imported.

    Raises:
        MissingExtraError: basicsr is not installed, or its file is gone.
    """
    spec = importlib.util.find_spec("basicsr")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder) / "metrics" / "niqe_pris_params.npz"
        if path.is_file():
            return path
    message = (
        "NIQE needs niqe_pris_params.npz, a file of basicsr 1.4.2, which is not installed; "
        f"run {install_command('metrics')}"
    )
    if sys.version_info >= (3, 13):
        # Its setup.py reads a name out of locals() that exec() set, which 3.13 ended (PEP 667).
        message += (
            " - on Python 3.13 basicsr does not build: make its wheel with an older Python "
            "(pip wheel --no-deps basicsr==1.4.2) and install that with --no-deps"
        )
    raise MissingExtraError(message)


@lru_cache(maxsize=4)
def load_niqe_parameters(path: Path | None = None) -> NiqeParameters:
    """Statistics of undistorted photographs for `niqe`.

    Args:
        path: `.npz` with `mu_pris_param`, `cov_pris_param` and `gaussian_window`; None takes the
            one of the installed basicsr.

    Raises:
        MissingExtraError: no path was given, and basicsr is not installed.
        InputError: the file cannot be read, or does not hold these arrays.
    """
    source = find_niqe_parameters() if path is None else path
    if not zipfile.is_zipfile(source):  # np.load would also open .npy files and pickles
        raise _unusable(source, "it is missing, or no .npz file")
    try:
        with np.load(source, allow_pickle=False) as stored:
            mean = np.asarray(stored["mu_pris_param"], dtype=np.float64).reshape(FEATURES)
            covariance = np.asarray(stored["cov_pris_param"], dtype=np.float64)
            window = np.asarray(stored["gaussian_window"], dtype=np.float64)
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise _unusable(source, str(error)) from error
    if covariance.shape != (FEATURES, FEATURES) or window.shape != (7, 7):
        raise _unusable(source, f"arrays of {covariance.shape} and {window.shape}")
    return NiqeParameters(mean=mean, covariance=covariance, window=window)


def _unusable(path: Path, reason: str) -> InputError:
    return InputError(
        f"{path} does not hold NIQE's statistics ({reason}); give the niqe_pris_params.npz "
        "of basicsr 1.4.2"
    )


def _normalise(plane: Array, window: Array) -> Array:
    """Each value over its surroundings, in local deviations: eq. 1 of the NIQE paper.

    The rounding to float32 is BasicSR's, and belongs to its numbers: in smooth areas the deviation
    is the small difference of two large means, and NIQE moves by up to 0.02 without it.
    """

    def mean(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        wide = values.astype(np.float64)
        blurred = cv2.filter2D(wide, cv2.CV_64F, window, borderType=cv2.BORDER_REPLICATE)
        return np.asarray(blurred, dtype=np.float32)

    values = plane.astype(np.float32)
    mu = mean(values)
    sigma = np.sqrt(np.abs(mean(values * values) - mu * mu))
    return np.asarray((values - mu) / (sigma + 1), dtype=np.float64)


def _half(plane: Array) -> Array:
    """Half the size, as MATLAB's `imresize(plane, 0.5)`: cubic (a = -0.5), stretched to 8 taps.

    The sides of `plane` are even; beyond its edges it goes on mirrored.
    """
    x = np.array([1.75, 1.25, 0.75, 0.25])
    near, far = 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    taps = np.where(x <= 1, near, far)
    taps = np.concatenate([taps, taps[::-1]])
    taps /= taps.sum()
    for _ in range(2):  # rows, then columns
        padded = np.pad(plane, ((3, 3), (0, 0)), mode="symmetric")
        count = plane.shape[0] // 2
        shifted = (tap * padded[i : i + 2 * count : 2] for i, tap in enumerate(taps))
        plane = np.sum(list(shifted), axis=0).T
    return np.ascontiguousarray(plane)


def _blocks(plane: Array, side: int) -> Array:
    """Cut `(rows * side, columns * side)` into `(rows * columns, side, side)`."""
    rows, columns = plane.shape[0] // side, plane.shape[1] // side
    cut = plane.reshape(rows, side, columns, side).swapaxes(1, 2)
    return np.ascontiguousarray(cut.reshape(rows * columns, side, side))


def _features(blocks: Array) -> Array:
    """The 18 features of each block at one scale: `(N, side, side)` -> `(N, 18)`."""
    alpha, left, right = _fit_aggd(blocks)
    columns = [alpha, (left + right) / 2]
    for shift in _NEIGHBOURS:
        # The neighbour of a value at the edge is at the other side: the release rolls the block.
        alpha, left, right = _fit_aggd(blocks * np.roll(blocks, shift, axis=(1, 2)))
        mean = (right - left) * np.exp(_lgamma(2 / alpha) - _lgamma(1 / alpha))  # eq. 8
        columns += [alpha, mean, left, right]
    return np.stack(columns, axis=1)


def _fit_aggd(blocks: Array) -> tuple[Array, Array, Array]:
    """Fit an asymmetric generalised Gaussian to each block by its moments (eq. 4 to 7).

    Returns:
        Shape alpha and the scales beta of the left and of the right side, `(N,)` each; a side
        without values has the scale NaN.
    """
    x = blocks.reshape(len(blocks), -1)
    square = x * x
    with np.errstate(invalid="ignore", divide="ignore"):  # 0 / 0 is the NaN that is promised
        left = np.sqrt(square.sum(1, where=x < 0) / np.count_nonzero(x < 0, axis=1))
        right = np.sqrt(square.sum(1, where=x > 0) / np.count_nonzero(x > 0, axis=1))
        gamma_hat = left / right
        r_hat = np.abs(x).mean(1) ** 2 / square.mean(1)
        wanted = r_hat * (gamma_hat**3 + 1) * (gamma_hat + 1) / (gamma_hat**2 + 1) ** 2
    shapes, ratios = _shape_table()
    above = np.clip(np.searchsorted(ratios, wanted), 1, len(ratios) - 1)
    nearer_below = wanted - ratios[above - 1] <= ratios[above] - wanted
    # A block without a side keeps the first shape, and counts in the mean: as in both releases.
    first = np.isnan(wanted)
    alpha = shapes[np.where(first, 0, np.where(nearer_below, above - 1, above))]
    spread = np.exp((_lgamma(1 / alpha) - _lgamma(3 / alpha)) / 2)
    return alpha, left * spread, right * spread


@lru_cache(maxsize=1)
def _shape_table() -> tuple[Array, Array]:
    """Shapes 0.2, 0.201, ... 10 and the (rising) ratio of moments that each has."""
    shapes = np.arange(0.2, 10.001, 0.001)
    inverse = 1 / shapes
    return shapes, np.exp(2 * _lgamma(2 * inverse) - _lgamma(inverse) - _lgamma(3 * inverse))


def _lgamma(x: Array) -> Array:
    """Logarithm of the gamma function, which NumPy lacks."""
    return np.asarray(torch.lgamma(torch.from_numpy(x)).numpy(), dtype=np.float64)
