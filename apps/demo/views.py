"""Copies of pictures that every browser can show: upright, 8 bits, not larger than a screen needs.

What is downloaded is never such a copy.
"""

from __future__ import annotations

import math
from pathlib import Path

from restore.image.files import Picture, read_image, write_image
from restore.resampling import resample

VIEW_PIXELS = 16_000_000
"""Larger pictures are shown smaller."""
LOSSLESS_PIXELS = 2_000_000
"""Up to this a view is a PNG; JPEG of quality 95 above."""


def view_of(source: Path, folder: Path, name: str, *, max_pixels: int, multiple: int = 1) -> Path:
    """Write a copy of a picture for the browser.

    Args:
        source: the picture.
        folder: where the copy goes.
        name: its name without suffix.
        max_pixels: refuse larger pictures.
        multiple: cut its sides to multiples of this, on the right and below.

    Raises:
        InputError: it cannot be read, or is too large.
    """
    picture = read_image(source, max_pixels=max_pixels)
    width, height = (side // multiple * multiple for side in picture.size)
    rgb = picture.rgb[..., :height, :width]
    alpha = None if picture.alpha is None else picture.alpha[..., :height, :width]
    if width * height > VIEW_PIXELS:
        factor = math.sqrt(VIEW_PIXELS / (width * height))
        size = max(1, int(width * factor)), max(1, int(height * factor))
        rgb = resample(rgb, size)
        alpha = None if alpha is None else resample(alpha, size)
    copy = Picture(rgb=rgb, alpha=alpha, gray=picture.gray, icc=picture.icc)
    lossless = alpha is not None or copy.size[0] * copy.size[1] <= LOSSLESS_PIXELS
    path = folder / f"{name}.{'png' if lossless else 'jpg'}"
    write_image(copy, path)
    return path


def views(
    before: Path, after: Path, folder: Path, *, max_pixels: int, multiple: int = 1
) -> tuple[str, str]:
    """Two such copies, for a slider between them; the first one cut to what the second shows."""
    folder.mkdir(exist_ok=True)
    first = view_of(before, folder, "before", max_pixels=max_pixels, multiple=multiple)
    second = view_of(after, folder, "after", max_pixels=max_pixels)
    return str(first), str(second)
