"""How good pictures and clips are, with the definitions that the field publishes with.

`picture` holds what looks at one picture, `temporal` what looks at a clip, `pairs` finds the
reference of a picture. `restore.reports` runs them over folders.
"""

from restore.metrics.pairs import pair_by_stem
from restore.metrics.picture import (
    MS_SSIM_SIDE,
    SSIM_WINDOW,
    Array,
    Channel,
    Picture,
    crop,
    luma,
    ms_ssim,
    niqe,
    psnr,
    ssim,
)
from restore.niqe import BLOCK, NiqeParameters, load_niqe_parameters, niqe_of_luma

__all__ = [
    "BLOCK",
    "MS_SSIM_SIDE",
    "SSIM_WINDOW",
    "Array",
    "Channel",
    "NiqeParameters",
    "Picture",
    "crop",
    "load_niqe_parameters",
    "luma",
    "ms_ssim",
    "niqe",
    "niqe_of_luma",
    "pair_by_stem",
    "psnr",
    "ssim",
]
