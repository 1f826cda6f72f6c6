"""JPEG as arithmetic in torch: for batches on a GPU, and for gradients through compression.

Written here rather than taken from kornia, which would be a large dependency for one function, and
whose chroma is enlarged without the filter that libjpeg reads with.

    RGB -> Y Cb Cr -> chroma / 2 -> 8x8 blocks -> DCT -> / table, round, * table -> and back

Sources: ITU-T T.81 (the DCT in A.3.3, the tables in K.1), T.871 (colours), and the Independent JPEG
Group's scale of quality.
"""

from __future__ import annotations

import functools
import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

_LUMA_TABLE = (
    *(16, 11, 10, 16, 24, 40, 51, 61),
    *(12, 12, 14, 19, 26, 58, 60, 55),
    *(14, 13, 16, 24, 40, 57, 69, 56),
    *(14, 17, 22, 29, 51, 87, 80, 62),
    *(18, 22, 37, 56, 68, 109, 103, 77),
    *(24, 35, 55, 64, 81, 104, 113, 92),
    *(49, 64, 78, 87, 103, 121, 120, 101),
    *(72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMA_TABLE = (
    *(17, 18, 24, 47, 99, 99, 99, 99),
    *(18, 21, 26, 66, 99, 99, 99, 99),
    *(24, 26, 56, 99, 99, 99, 99, 99),
    *(47, 66, 99, 99, 99, 99, 99, 99),
    *((99,) * 32),
)
_TO_YCC = (
    (0.299, 0.587, 0.114),
    (-0.168735892, -0.331264108, 0.5),
    (0.5, -0.418687589, -0.081312411),
)
_TO_RGB = ((1.0, 0.0, 1.402), (1.0, -0.344136286, -0.714136286), (1.0, 1.772, 0.0))

Rounding = Literal["hard", "soft", "straight"]


def jpeg(pictures: Tensor, quality: Tensor, *, rounding: Rounding = "hard") -> Tensor:
    """What is left of pictures after a JPEG of 4:2:0 and Huffman codes.

    Args:
        pictures: RGB `(B, 3, H, W)` in [0, 1]; values outside are clamped.
        quality: 1 to 100 for each picture, `(B,)`, rounded.
        rounding: hard = as the format does, without a useful gradient; straight = the same values
            with the gradient of the identity; soft = round(x) + (x - round(x))^3, which is
            smooth nearly everywhere (Shin and Song, 2017).

    Returns:
        The same shape in [0, 1]; in steps of 1/255 with hard rounding.
    """
    height, width = pictures.shape[-2:]
    codes = pictures.clamp(0, 1) * 255
    if rounding == "hard":
        codes = codes.round()
    padded = F.pad(codes, (0, -width % 16, 0, -height % 16), mode="replicate")
    # The format has whole numbers of 8 bits between its stages.
    whole = _held if rounding == "hard" else _as_is
    ycc = whole(_mixed(padded, _TO_YCC) + _offset(padded))
    scale = _table_scale(quality).to(pictures)
    luma = whole(_coded(ycc[:, :1] - 128, _LUMA_TABLE, scale, rounding) + 128)
    small = whole(F.avg_pool2d(ycc[:, 1:], 2))
    small = whole(_coded(small - 128, _CHROMA_TABLE, scale, rounding) + 128)
    # A triangle filter: what libjpeg calls fancy upsampling.
    chroma = whole(F.interpolate(small, scale_factor=2, mode="bilinear", align_corners=False))
    decoded = torch.cat((luma, chroma), dim=1) - _offset(padded)
    rgb = whole(_mixed(decoded, _TO_RGB)[..., :height, :width])
    return rgb.clamp(0, 255) / 255


def _held(values: Tensor) -> Tensor:
    return values.round().clamp(0, 255)


def _as_is(values: Tensor) -> Tensor:
    return values


def _offset(like: Tensor) -> Tensor:
    """Chroma codes count from 128."""
    return torch.tensor([0.0, 128.0, 128.0], dtype=like.dtype, device=like.device)[:, None, None]


def _mixed(planes: Tensor, matrix: tuple[tuple[float, ...], ...]) -> Tensor:
    weights = torch.tensor(matrix, dtype=planes.dtype, device=planes.device)
    return torch.einsum("ij,bjhw->bihw", weights, planes)


def _table_scale(quality: Tensor) -> Tensor:
    """Percent by which the tables are multiplied, `(B,)`: 5000 / q below 50, else 200 - 2 q."""
    whole = quality.round().clamp(1, 100)
    return torch.where(whole < 50, (5000 / whole).floor(), 200 - 2 * whole)


def _coded(planes: Tensor, table: tuple[int, ...], scale: Tensor, rounding: Rounding) -> Tensor:
    """Planes `(B, C, H, W)` round 0 after their coefficients were divided, rounded and restored."""
    batch, channels, height, width = planes.shape
    dct = _dct_matrix().to(planes)
    base = torch.tensor(table, dtype=planes.dtype, device=planes.device).view(8, 8)
    steps = ((base * scale[:, None, None] + 50) / 100).floor().clamp(1, 255)  # (B, 8, 8)
    steps = steps[:, None, None, None]
    blocks = planes.view(batch, channels, height // 8, 8, width // 8, 8).transpose(3, 4)
    coefficients = dct @ blocks @ dct.T
    restored = dct.T @ (_rounded(coefficients / steps, rounding) * steps) @ dct
    return restored.transpose(3, 4).reshape(planes.shape)


def _rounded(values: Tensor, rounding: Rounding) -> Tensor:
    whole = values.round()
    if rounding == "hard":
        return whole
    if rounding == "straight":
        return values + (whole - values).detach()
    return whole.detach() + (values - whole.detach()) ** 3


@functools.cache
def _dct_matrix() -> Tensor:
    """Orthonormal DCT-II of 8 points: row k is a cosine of k half waves."""
    k = torch.arange(8, dtype=torch.float64)[:, None]
    n = torch.arange(8, dtype=torch.float64)
    matrix = torch.cos((2 * n + 1) * k * math.pi / 16) / 2
    matrix[0] /= math.sqrt(2)
    return matrix
