"""FFmpeg's pixel formats by name: what lies in their planes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, cast

import av
import numpy as np

from restore.errors import InputError

Chroma = Literal["400", "410", "411", "420", "422", "440", "444"]
Model = Literal["yuv", "gray", "rgb"]

_RATIOS: dict[Chroma, tuple[int, int]] = {
    "400": (1, 1),
    "410": (4, 4),
    "411": (4, 1),
    "420": (2, 2),
    "422": (2, 1),
    "440": (1, 2),
    "444": (1, 1),
}
_NAME = re.compile(
    r"(?P<family>yuvj|yuva|yuv|gray|gbrap|gbrp)"
    r"(?:(?P<chroma>4[0-4][0-4])p)?"
    r"(?P<bits>9|10|12|14|16)?(?P<endian>le|be)?"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class PixelLayout:
    """What the planes of a planar pixel format hold."""

    model: Model
    """What the numbers mean."""
    chroma: Chroma
    """Chroma subsampling; 400 for gray, 444 for RGB."""
    bits: int
    """Bits of one sample; above 8 a sample takes two bytes."""
    big_endian: bool = False
    """Order of the two bytes."""
    alpha: bool = False
    """A plane of opacity follows."""
    jpeg: bool = False
    """One of the old names (yuvj420p) that mean full range."""

    @property
    def ratios(self) -> tuple[int, int]:
        """Luma samples per chroma sample, across and down."""
        return _RATIOS[self.chroma]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of one sample in memory."""
        return np.dtype("u1" if self.bits == 8 else ">u2" if self.big_endian else "<u2")


@lru_cache(maxsize=256)
def pixel_layout(pix_fmt: str) -> PixelLayout | None:
    """Layout of a planar integer format, None for every other one (packed, float, hardware)."""
    match = _NAME.fullmatch(pix_fmt)
    if match is None:
        return None
    family, chroma = match["family"], match["chroma"]
    is_yuv = family.startswith("yuv")
    if is_yuv != (chroma in _RATIOS):
        return None
    model: Model = "yuv" if is_yuv else "gray" if family == "gray" else "rgb"
    return PixelLayout(
        model=model,
        chroma=cast(Chroma, chroma) if is_yuv else "400" if model == "gray" else "444",
        bits=int(match["bits"] or 8),
        big_endian=match["endian"] == "be",
        alpha=family in ("yuva", "gbrap"),
        jpeg=family == "yuvj",
    )


@lru_cache(maxsize=256)
def planar_format(pix_fmt: str) -> str:
    """Name of the planar format that holds everything of `pix_fmt` except opacity.

    Raises:
        InputError: the format is unknown or lies in a graphics card.
    """
    if pixel_layout(pix_fmt) is not None:
        return pix_fmt
    try:
        known = av.VideoFormat(pix_fmt)
    except ValueError:
        known = None
    samples = [part for part in known.components if not part.is_alpha] if known else []
    if known is None or not samples:
        raise InputError(
            f"pixel format '{pix_fmt}' cannot be read; "
            "convert the clip to yuv420p or yuv422p10le first, with ffmpeg for example"
        )
    bits = next((b for b in (8, 9, 10, 12, 14) if max(s.bits for s in samples) <= b), 16)
    depth = "" if bits == 8 else f"{bits}le"
    if known.is_rgb or known.has_palette or known.is_bayer:
        return f"gbrp{depth}"
    if len(samples) < 3:
        return f"gray{depth}"
    ratios = (64 // known.chroma_width(64), 64 // known.chroma_height(64))
    chroma = next(name for name, value in _RATIOS.items() if value == ratios and name != "400")
    return f"yuv{chroma}p{depth}"


def format_layout(pix_fmt: str) -> PixelLayout:
    """Layout of the planar format that holds `pix_fmt`.

    Raises:
        InputError: as `planar_format`.
    """
    layout = pixel_layout(planar_format(pix_fmt))
    assert layout is not None
    return layout
