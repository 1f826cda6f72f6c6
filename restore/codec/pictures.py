"""A picture with all that belongs to it, as chunks of a container and back."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import torch
from PIL import Image, ImageCms
from torch import Tensor

from restore.bitstream import ALPHA, CICP, DAMAGED, EXIF, ICC, XMP, Container
from restore.codec_config import MetadataChoice
from restore.errors import InputError
from restore.image.color import fitting_icc
from restore.image.decode import turn_upright
from restore.image.files import Picture, read_image
from restore.image.metadata import clean_exif

EIGHT_BITS = "it has 16 bits a channel, and will be decoded with 8"
"""Note on a picture that holds more than the result."""


def chunks_of(picture: Picture, metadata: MetadataChoice) -> dict[int, bytes]:
    """What is written beside the pixels: alpha without loss, and as much else as is asked for.

    Alpha that is opaque everywhere is left out, and so is a profile that says sRGB, which is what a
    file without one means.
    """
    chunks: dict[int, bytes] = {}
    if picture.alpha is not None and bool((picture.alpha < 1).any()):
        plane = (255 * picture.alpha[0]).round().byte().numpy()
        buffer = io.BytesIO()
        Image.fromarray(plane).save(buffer, "PNG", optimize=True)
        chunks[ALPHA] = buffer.getvalue()
    if metadata == "none":
        return chunks
    if picture.icc is not None and not _says_srgb(picture.icc):
        chunks[ICC] = picture.icc
    cicp = dict(picture.color_chunks).get(b"cICP", b"")
    if len(cicp) == 4:
        chunks[CICP] = cicp
    if metadata == "all":
        found = {EXIF: picture.exif, XMP: picture.xmp}
        chunks |= {kind: data for kind, data in found.items() if data}
    return chunks


def picture_of(file: Container, rgb: Tensor) -> Picture:
    """The picture of a file, upright.

    Args:
        file: where it comes from.
        rgb: its decoded pixels `(3, H, W)` in [0, 1].

    Raises:
        InputError: a chunk is damaged.
    """
    notes: list[str] = []
    if file.gray:
        rgb = rgb.mean(0, keepdim=True).expand(3, -1, -1)
    rgb = turn_upright(rgb, file.orientation)
    alpha = None
    if ALPHA in file.chunks:
        alpha = turn_upright(_read_alpha(file.chunks[ALPHA], file), file.orientation)
    icc, note = fitting_icc(file.chunks.get(ICC), "L" if file.gray else "RGB")
    notes.append(note)
    exif = file.chunks.get(EXIF)
    if exif is not None:
        try:
            exif = clean_exif(exif, width=rgb.shape[2], height=rgb.shape[1])
        except Exception:  # struct's and ours, on odd blocks
            exif = None
            notes.append("its EXIF is damaged and left out")
    cicp = file.chunks.get(CICP)
    if cicp is not None and len(cicp) != 4:
        raise InputError(f"its cicp has {len(cicp)} bytes instead of 4; {DAMAGED}")
    return Picture(
        rgb=rgb,
        alpha=alpha,
        gray=file.gray,
        icc=icc,
        exif=exif,
        xmp=file.chunks.get(XMP),
        color_chunks=((b"cICP", cicp),) if cicp else (),
        notes=tuple(note for note in notes if note),
    )


def check_alpha(file: Container) -> None:
    """Raise InputError where the alpha of a file cannot be read; before the network runs."""
    if ALPHA in file.chunks:
        _read_alpha(file.chunks[ALPHA], file)


def _read_alpha(data: bytes, file: Container) -> Tensor:
    """Alpha `(1, H, W)` in [0, 1]."""
    try:
        alpha = read_image(data, max_pixels=file.pixels)
    except InputError as error:
        raise InputError(f"its alpha cannot be read; {DAMAGED}") from error
    if alpha.format != "png" or not alpha.gray or alpha.size != (file.width, file.height):
        raise InputError(
            f"its alpha is no gray PNG of {file.width}x{file.height} pixels; {DAMAGED}"
        )
    return torch.as_tensor(alpha.rgb[:1])


def shrunk(pixels: Tensor, multiple: int) -> Tensor:
    """A picture `(1, 3, H, W)` in [0, 1], made smaller up to multiples with Pillow's Lanczos.

    That is how the authors of codecs prepare theirs; a side below the multiple grows to it.
    """
    height, width = (max(multiple, side // multiple * multiple) for side in pixels.shape[-2:])
    if (height, width) == tuple(pixels.shape[-2:]):
        return pixels
    array = (255 * pixels[0].clamp(0, 1)).round().byte().permute(1, 2, 0).cpu().numpy()
    image = Image.fromarray(array).resize((width, height), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 255


def _says_srgb(icc: bytes) -> bool:
    """Whether a profile calls itself sRGB."""
    with contextlib.suppress(ImageCms.PyCMSError, OSError, ValueError, TypeError):
        profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        return ImageCms.getProfileDescription(profile).strip().lower().startswith("srgb")
    return False
