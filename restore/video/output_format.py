"""Pixel format and colours of a result: those of the clip, as far as the encoder can."""

from __future__ import annotations

import logging
from dataclasses import replace

import av

from restore.config import VideoConfig
from restore.errors import OptionError
from restore.video.encoders import Encoder
from restore.video.pixel_formats import PixelLayout, format_layout
from restore.video.pixels import (
    FULL_RANGE,
    LIMITED_RANGE,
    RGB_MATRIX,
    UNSPECIFIED,
    PixelCoding,
    guess_matrix,
)
from restore.video.probe import ClipInfo, ColorTags

log = logging.getLogger("restore.video")

_LEFT = 1


def choose_pixel_format(encoder: Encoder, config: VideoConfig, info: ClipInfo) -> str:
    """The user's pixel format, or the one that keeps most of the clip's and adds least to it.

    Raises:
        OptionError: the encoder does not take the user's.
    """
    formats = encoder_formats(encoder)
    if config.pix_fmt is not None:
        name = config.pix_fmt.replace("yuvj", "yuv")
        if name not in formats:
            raise OptionError(
                f"pixel format '{config.pix_fmt}' is not possible with {encoder.name}; "
                f"allowed: {', '.join(formats)}; leave --pix-fmt out to keep the clip's"
            )
        return name
    source = format_layout(info.pix_fmt)
    usable = {
        name: layout
        for name, layout in formats.items()
        if layout.model != "rgb" or (source.model == "rgb" and encoder.keeps_rgb)
    }
    name = min(usable, key=lambda name: _loss(source, usable[name]))
    lost_chroma, lost_bits, *_ = _loss(source, usable[name])
    if lost_chroma or lost_bits:
        log.warning(
            "%s cannot hold all of %s; the result is %s (--codec ffv1 keeps all)",
            *(encoder.name, info.pix_fmt, name),
        )
    if encoder.codec == "h264" and usable[name].chroma in ("422", "444"):
        log.info("%s in H.264 is not played everywhere; --pix-fmt yuv420p is", name)
    return name


def encoder_formats(encoder: Encoder) -> dict[str, PixelLayout]:
    """Pixel formats that an encoder takes and `rgb_to_frame` makes, by name."""
    names = encoder.formats
    if not names:
        names = tuple(form.name for form in av.Codec(encoder.name, "w").video_formats or ())
    return {name: format_layout(name) for name in names if _is_writable(name)}


def output_colors(
    encoder: Encoder,
    info: ClipInfo,
    layout: PixelLayout,
    width: int,
    height: int,
    *,
    wants_full: bool = False,
) -> tuple[ColorTags, PixelCoding]:
    """Colour tags of the result, and how RGB becomes its codes.

    What the clip does not say the result does not say either, as long as both are read alike: a
    nameless SD clip is BT.601 to every player, and its nameless result in HD size would be BT.709.

    Args:
        encoder: what it can say.
        info: the clip.
        layout: pixel format of the result.
        width: width of the result, which players guess from.
        height: height of it.
        wants_full: the user asked for a full-range format (yuvj420p).
    """
    source = format_layout(info.pix_fmt)
    if layout.model == "rgb":
        color = replace(info.color, matrix=RGB_MATRIX, chroma_location=0)
        full = color.range != LIMITED_RANGE
        return color, PixelCoding(matrix=RGB_MATRIX, full_range=full)
    matrix, tag = info.coding.matrix, info.color.matrix
    if source.model == "rgb":
        matrix = tag = guess_matrix(width, height)
    elif tag in (UNSPECIFIED, RGB_MATRIX):
        tag = UNSPECIFIED if matrix == guess_matrix(width, height) else matrix
    full, named = _range(encoder, info, same_model=layout.model == source.model)
    if wants_full and encoder.full_range:
        full, named = True, FULL_RANGE
    location = _chroma_location(encoder, info, source, layout)
    color = replace(info.color, matrix=tag, range=named, chroma_location=location)
    return color, PixelCoding(matrix=matrix, full_range=full, chroma_location=location)


def _range(encoder: Encoder, info: ClipInfo, *, same_model: bool) -> tuple[bool, int]:
    """(codes go from 0 to the largest, what the result says about it)."""
    full = info.coding.full_range and encoder.full_range
    if format_layout(info.pix_fmt).model == "rgb":
        full = False  # as all video is, unless the user asks for yuvj420p
    nameless_gray = format_layout(info.pix_fmt).model == "gray" and not info.color.range
    # Gray is full range for FFmpeg, but H.264 turns it into YUV, which is limited when nameless.
    if same_model and full == info.coding.full_range and not nameless_gray:
        return full, info.color.range
    return full, FULL_RANGE if full else LIMITED_RANGE


def _chroma_location(
    encoder: Encoder, info: ClipInfo, source: PixelLayout, layout: PixelLayout
) -> int:
    if layout.chroma != "420":
        return 0
    location = info.color.chroma_location if source.chroma == "420" else _LEFT
    return location if not location or location in encoder.chroma_locations else _LEFT


def _is_writable(name: str) -> bool:
    form = av.VideoFormat(name)
    layout = format_layout(name)
    opaque = not any(part.is_alpha for part in form.components)
    whole = not name.startswith(("gbrpf", "grayf")) and not form.has_palette
    simple = not (layout.jpeg or form.is_big_endian) and layout.chroma not in ("410", "411")
    return opaque and whole and simple


def _loss(source: PixelLayout, target: PixelLayout) -> tuple[int, int, bool, int, int]:
    """Sort key of pixel formats for a result: what is lost first, then what is added.

    Returns:
        (chroma lost, bits lost, another colour model, chroma added, bits added).
    """
    lost = added = 0
    if source.model != "gray":
        pairs = list(zip(source.ratios, target.ratios, strict=True))
        lost = sum(max(0, theirs - ours) for ours, theirs in pairs)
        lost += 8 * (target.model == "gray")
        added = sum(max(0, ours - theirs) for ours, theirs in pairs)
    elif target.model != "gray":
        added = 8 // (target.ratios[0] * target.ratios[1])
    bits = source.bits - target.bits
    return lost, max(0, bits), source.model != target.model, added, max(0, -bits)
