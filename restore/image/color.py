"""Color of a picture: any Pillow mode to gray or RGB, ICC profiles, transparency."""

from __future__ import annotations

import functools
import io
import struct

import numpy as np
import torch
from PIL import Image, ImageCms
from torch import Tensor

from restore.errors import InputError

PLAIN_MODES = ("L", "LA", "RGB", "RGBA")
"""The 8-bit modes that every other mode is brought to: gray or RGB, with alpha or without."""


def to_plain_mode(image: Image.Image, icc: bytes | None) -> tuple[Image.Image, bytes | None, str]:
    """A loaded picture as gray or RGB, with alpha where it has any.

    Args:
        image: of any mode that Pillow reads.
        icc: the profile in its file.

    Returns:
        The picture as L, LA, RGB, RGBA or I;16, the profile that its values are in now, and a
        note for the user, empty when there is nothing to say.

    Raises:
        InputError: its values have no fixed white (32-bit integers, floats).
    """
    if image.mode in ("CMYK", "LAB"):
        return _to_srgb(image, icc)
    if image.mode in ("I", "F"):
        return _to_sixteen_bit(image), icc, ""
    if image.mode.startswith("I;16"):
        return image, icc, ""
    if image.mode == "P":
        return _without_palette(image, icc), icc, ""
    if image.mode not in ("LA", "RGBA") and image.has_transparency_data:
        gray = image.mode in ("1", "L", "La")
        image = image.convert("RGBA")
        return (image.convert("LA") if gray else image), icc, ""
    if image.mode not in PLAIN_MODES:
        image = image.convert("L" if image.mode == "1" else "RGB")
    return image, icc, ""


def _without_palette(image: Image.Image, icc: bytes | None) -> Image.Image:
    """A palette picture in its colors; gray when all of them are gray and no profile says RGB."""
    colors = np.asarray(image.getpalette("RGB") or [0, 0, 0], dtype=np.uint8).reshape(-1, 3)
    gray = icc is None and bool((colors == colors[:, :1]).all())
    alpha = image.has_transparency_data
    image = image.convert("RGBA" if alpha else "RGB")
    return image.convert("LA" if alpha else "L") if gray else image


def _to_sixteen_bit(image: Image.Image) -> Image.Image:
    """32-bit gray as 16-bit gray, where its values say how that is meant."""
    values = np.asarray(image)
    low, high = float(values.min()), float(values.max())
    if image.mode == "F" and low >= 0 and high <= 1:
        return Image.fromarray(np.rint(values * np.float32(65535)).astype(np.uint16))
    if image.mode == "I" and low >= 0 and high <= 65535:
        return Image.fromarray(values.astype(np.uint16))
    kind, room = ("32-bit integers", "0 to 65535") if image.mode == "I" else ("floats", "0 to 1")
    raise InputError(
        f"it holds {kind} from {low:g} to {high:g}, of which {room} can be read; "
        "save it with 8 or 16 bits"
    )


def _to_srgb(image: Image.Image, icc: bytes | None) -> tuple[Image.Image, bytes, str]:
    """CMYK or Lab as sRGB, through its profile when it has one."""
    srgb = srgb_profile()
    plain = "converted to sRGB by a plain formula, colors may be off"
    if image.mode == "LAB":
        source = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
    elif icc is None:
        return image.convert("RGB"), srgb, f"CMYK without a profile: {plain}"
    else:
        source = ImageCms.ImageCmsProfile(io.BytesIO(icc))
    try:
        converted = ImageCms.profileToProfile(
            image,
            source,
            ImageCms.ImageCmsProfile(io.BytesIO(srgb)),
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            outputMode="RGB",
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    except ImageCms.PyCMSError as error:
        if image.mode == "LAB":
            raise
        return image.convert("RGB"), srgb, f"its profile gives no conversion ({error}): {plain}"
    assert converted is not None
    return converted, srgb, ""


@functools.cache
def srgb_profile() -> bytes:
    """ICC profile of sRGB, the same bytes at every call."""
    data = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    # Bytes 24 to 35 are the time of its making: two runs would give two files.
    return data[:24] + struct.pack(">6H", 2000, 1, 1, 0, 0, 0) + data[36:]


def icc_space(icc: bytes) -> str:
    """Color space of an ICC profile: `"RGB"`, `"GRAY"`, `"CMYK"`, `"Lab"`, ...

    Raises:
        ValueError: the profile is damaged.
    """
    if len(icc) < 132 or icc[36:40] != b"acsp":
        raise ValueError("it does not start like a profile")
    try:
        ImageCms.ImageCmsProfile(io.BytesIO(icc))
    except Exception as error:  # lcms: PyCMSError, OSError or ValueError, by the damage
        raise ValueError(str(error) or "it cannot be opened") from error
    return icc[16:20].decode("latin-1").strip()


def fitting_icc(icc: bytes | None, mode: str) -> tuple[bytes | None, str]:
    """The profile, if it is sound and speaks of pixels of this Pillow mode, and a note if not."""
    if not icc:
        return None, ""
    try:
        space = icc_space(icc)
    except ValueError as error:
        return None, f"its ICC profile is damaged ({error}) and left out"
    gray = mode in ("1", "L", "LA", "La", "I", "F") or mode.startswith("I;16")
    wanted = {"CMYK": "CMYK", "LAB": "Lab"}.get(mode, "GRAY" if gray else "RGB")
    if space != wanted:
        return None, f"its ICC profile is for {space}, its pixels are {wanted}: left out"
    return icc, ""


def gray_to_srgb(image: Image.Image, icc: bytes) -> Image.Image:
    """L or LA in the gray profile `icc`, as L or LA in the tone curve of sRGB."""
    gray = ImageCms.profileToProfile(
        image.getchannel(0),
        ImageCms.ImageCmsProfile(io.BytesIO(icc)),
        ImageCms.ImageCmsProfile(io.BytesIO(srgb_profile())),
        outputMode="RGB",
    )
    assert gray is not None
    gray = gray.getchannel(1)
    return Image.merge("LA", (gray, image.getchannel(1))) if image.mode == "LA" else gray


def flatten(rgb: Tensor, alpha: Tensor) -> Tensor:
    """Colors on a white ground where they are transparent.

    Args:
        rgb: `(C, H, W)` in [0, 1].
        alpha: `(1, H, W)` in [0, 1], 1 = opaque.
    """
    return torch.lerp(torch.ones((), dtype=rgb.dtype), rgb, alpha)
