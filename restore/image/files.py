"""Reading and writing pictures: file <-> RGB tensor, with all that belongs to the picture.

Values stay as the file has them, in the file's own color profile; only CMYK and Lab are converted.
What the user should know of a reading is collected in `Picture.notes`.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import secrets
import stat
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image
from torch import Tensor

from restore.errors import InputError, OptionError, OutputError, RestoreError
from restore.image.color import flatten
from restore.image.decode import (
    decode,
    format_name,
    frame_count,
    open_picture,
    unlimited,
    upright_size,
)
from restore.image.encode import (
    SUFFIXES,
    WITH_ALPHA,
    WITH_SIXTEEN_BITS,
    Sheet,
    WritableFormat,
    check_writable,
    encode,
    pack_pixels,
)
from restore.image.metadata import clean_exif, png_color_chunks, upright_xmp, xmp_to_keep

Source = Path | BinaryIO | bytes

NO_ALPHA = "{} holds no transparency: it stands on white now"
"""Note on a picture with alpha that goes into a format without."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """One picture, upright, and what belongs to it."""

    rgb: Tensor
    """`(3, H, W)` float32 in [0, 1], values as in the file; gray has three equal channels."""
    alpha: Tensor | None = None
    """`(1, H, W)` float32, 1 = opaque; colors are not multiplied by it. None = no alpha."""
    gray: bool = False
    """The file holds gray, and a result should too."""
    bit_depth: int = 8
    """8 or 16 bits a channel in the file."""
    format: str = "png"
    """`png`, `jpg`, `webp`, `tiff`, `avif`, `gif`, `bmp` or `ppm`, by content."""
    icc: bytes | None = None
    """ICC profile of `rgb`: of RGB, or of gray where `gray` is set."""
    exif: bytes | None = None
    """EXIF block from its byte order mark on: orientation 1, without thumbnail."""
    xmp: bytes | None = None
    """XMP packet."""
    dpi: tuple[float, float] | None = None
    """Pixels per inch along x and y."""
    text: tuple[tuple[str, str], ...] = ()
    """Texts in a PNG: keyword and value."""
    comment: bytes | None = None
    """Comment in a JPEG."""
    color_chunks: tuple[tuple[bytes, bytes], ...] = ()
    """Chunks of a PNG, beside the ICC profile, that say what its values mean."""
    notes: tuple[str, ...] = ()
    """What the user should know of the reading, one line each."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return int(self.rgb.shape[-1]), int(self.rgb.shape[-2])


@dataclass(frozen=True, kw_only=True, slots=True)
class Header:
    """What a file says of its picture before a pixel is decoded."""

    format: str
    """By content, as in `Picture.format`."""
    size: tuple[int, int]
    """Width and height of the upright picture in pixels."""


def read_header(source: Source, *, max_pixels: int) -> Header:
    """Format and size of a picture, without decoding it.

    Raises:
        InputError: as `read_image`, as far as the header tells.
    """
    with _opened(source) as (stream, name), _teaching(name), unlimited():
        image = open_picture(stream, max_pixels=max_pixels)
        return Header(format=format_name(image), size=upright_size(image))


def read_image(source: Source, *, max_pixels: int) -> Picture:
    """Read a picture; of an animation or a document of several pages, the first.

    Args:
        source: a file, an open binary stream, or the content of a file.
        max_pixels: refuse more pixels than this, before they are decoded.

    Returns:
        The picture, turned as its orientation says.

    Raises:
        InputError: missing, unreadable, empty, cut off, damaged, too large, or of a kind that
            is not read; the one line says which.
    """
    with _opened(source) as (stream, name), _teaching(name), unlimited():
        image = open_picture(stream, max_pixels=max_pixels)
        count = frame_count(image)
        decoded = decode(image, stream)
        notes = list(decoded.notes)
        if count > 1:
            notes.append(
                f"it holds {count} pictures and only the first is restored; "
                "for an animation make a clip of it and use 'restore video'"
            )
        gray = len(decoded.planes) < 3
        planes = decoded.planes
        xmp = xmp_to_keep(image.info.get("xmp"))
        return Picture(
            rgb=planes[:1].expand(3, -1, -1) if gray else planes[:3],
            alpha=planes[-1:] if len(planes) in (2, 4) else None,
            gray=gray,
            bit_depth=16 if decoded.deep else 8,
            format=format_name(image),
            icc=decoded.icc,
            exif=decoded.exif,
            xmp=upright_xmp(xmp) if xmp and decoded.turned else xmp,
            dpi=_sound_dpi(image.info.get("dpi")),
            text=_png_text(image),
            comment=image.info.get("comment") if image.format in ("JPEG", "MPO") else None,
            color_chunks=_color_chunks(image, stream),
            notes=tuple(notes),
        )


@contextlib.contextmanager
def _opened(source: Source) -> Iterator[tuple[BinaryIO, str]]:
    """A stream that can seek, and what to call it in a message."""
    if isinstance(source, bytes):
        yield io.BytesIO(source), "the given data"
    elif isinstance(source, Path):
        name = f"'{source}'"
        with _teaching(name):
            stream = _open_regular(source)
        with stream:
            yield stream, name
    else:
        name = "standard input" if getattr(source, "name", "") == "<stdin>" else "the given data"
        yield io.BytesIO(source.read()), name


def _open_regular(path: Path) -> BinaryIO:
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise InputError("it is a folder; give a picture file")
        if not stat.S_ISREG(mode):
            raise InputError("it is not a regular file; give a picture file, or - for stdin")
        return path.open("rb")
    except FileNotFoundError as error:
        raise InputError("there is no such file; check the name") from error
    except PermissionError as error:
        raise InputError("no permission to read it; check its owner and mode") from error


@contextlib.contextmanager
def _teaching(name: str) -> Iterator[None]:
    """Turn what the decoders raise into one line that starts with the name of the input."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, on odd files; what matters is in the notes
            yield
    except MemoryError:
        raise
    except RestoreError as error:
        line = str(error)
        raise InputError(line if line.startswith(name) else f"{name}: {line}") from error
    except OSError as error:
        if error.errno is None:  # from Pillow, not from the system
            raise InputError(_damaged(name, error)) from error
        raise InputError(
            f"{name} cannot be read ({error.strerror}); check disk and name"
        ) from error
    except Exception as error:  # Pillow's decoders raise anything on damaged data
        raise InputError(_damaged(name, error)) from error


def _damaged(name: str, error: Exception) -> str:
    reason = " ".join(str(error).split()) or type(error).__name__
    return f"{name}: it is damaged or cut off ({reason}); get a whole copy"


def _sound_dpi(dpi: Any) -> tuple[float, float] | None:
    """Pixels per inch, unless they are no numbers, or a mere ratio such as 1 to 1."""
    try:
        x, y = (float(value) for value in dpi)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return (x, y) if 2 <= x < 1e6 and 2 <= y < 1e6 else None


def _png_text(image: Image.Image) -> tuple[tuple[str, str], ...]:
    """Texts of a PNG, without those that hold XMP, EXIF or a profile."""
    texts = getattr(image, "text", {}) if image.format == "PNG" else {}
    return tuple(
        (key, str(value))
        for key, value in texts.items()
        if key and not key.startswith(("XML:com.adobe.xmp", "Raw profile type"))
    )


def _color_chunks(image: Image.Image, stream: BinaryIO) -> tuple[tuple[bytes, bytes], ...]:
    if image.format != "PNG":
        return ()
    stream.seek(0)
    return png_color_chunks(stream.read())


def format_of(destination: Path) -> WritableFormat:
    """Format that a file name asks for.

    Raises:
        OptionError: its suffix is not that of a format that can be written.
    """
    try:
        return SUFFIXES[destination.suffix.lower()]
    except KeyError:
        raise OptionError(
            f"'{destination.name}' does not end like a format that can be written; "
            f"use one of {', '.join(SUFFIXES)}"
        ) from None


def write_image(
    picture: Picture,
    destination: Path | BinaryIO,
    *,
    format: WritableFormat | None = None,
    quality: int = 95,
) -> tuple[str, ...]:
    """Write a picture, whole or not at all: a file appears under its name when it is complete.

    Args:
        picture: what to write; what the format can hold of it is kept.
        destination: a file, replaced if it exists, or a binary stream.
        format: default: what the file name says, or PNG.
        quality: 1 to 100, for JPEG, WebP and AVIF; from 90 on with full color resolution; WebP
            is lossless at 100.

    Returns:
        What the format could not hold, one line each.

    Raises:
        OutputError: no space, no permission, too large for the format.
    """
    if format is None:
        format = format_of(destination) if isinstance(destination, Path) else "png"
    return write_sheet(make_sheet(picture, format=format, quality=quality), destination)


def make_sheet(picture: Picture, *, format: WritableFormat, quality: int = 95) -> Sheet:
    """The first half of `write_image`: after it the picture and its floats can be let go.

    Raises:
        OutputError: the picture is too large for the format.
    """
    check_writable(format, *picture.size)
    notes = []
    if picture.alpha is not None and format not in WITH_ALPHA:
        picture = flattened(picture)
        notes.append(NO_ALPHA.format(format))
    width, height = picture.size
    planes = tuple(picture.rgb[:1] if picture.gray else picture.rgb)
    planes += () if picture.alpha is None else tuple(picture.alpha)
    sixteen = picture.bit_depth == 16 and format in WITH_SIXTEEN_BITS
    return Sheet(
        format=format,
        size=picture.size,
        pixels=pack_pixels(planes, name=format, sixteen=sixteen),
        sixteen=sixteen,
        quality=quality,
        icc=picture.icc,
        exif=picture.exif and clean_exif(picture.exif, width=width, height=height),
        xmp=picture.xmp,
        dpi=picture.dpi,
        text=picture.text,
        comment=picture.comment,
        color_chunks=picture.color_chunks,
        notes=tuple(notes),
    )


def write_sheet(sheet: Sheet, destination: Path | BinaryIO) -> tuple[str, ...]:
    """The second half of `write_image`: same promises, results and errors."""
    name = f"'{destination}'" if isinstance(destination, Path) else "the output stream"
    with _teaching_output(name):
        if isinstance(destination, Path):
            with atomic(destination) as stream:
                return sheet.notes + encode(sheet, stream)
        buffer = io.BytesIO()
        notes = encode(sheet, buffer)
        destination.write(buffer.getbuffer())
        destination.flush()
        return sheet.notes + notes


def flattened(picture: Picture) -> Picture:
    """The picture on white, without alpha."""
    if picture.alpha is None:
        return picture
    if picture.gray:
        rgb = flatten(picture.rgb[:1], picture.alpha).expand(3, -1, -1)
    else:
        rgb = flatten(picture.rgb, picture.alpha)
    return replace(picture, rgb=rgb, alpha=None)


@contextlib.contextmanager
def atomic(destination: Path) -> Iterator[BinaryIO]:
    """A file under a temporary name in the same folder, moved into place when it is complete."""
    # The name is short and starts with a dot: a long name has no room for an addition, and a run
    # over the folder must not take it for a picture.
    temporary = destination.with_name(f".restore-{secrets.token_hex(6)}.tmp")
    stream = temporary.open("xb")
    try:
        with stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(destination)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def _teaching_output(name: str) -> Iterator[None]:
    """Turn what goes wrong while writing into one line that starts with the name of the output."""
    try:
        yield
    except OSError as error:
        raise OutputError(f"{name} cannot be written: {output_reason(error)}") from error
    except ValueError as error:
        raise OutputError(f"{name} cannot be written: {error}; choose --ext png") from error


def output_reason(error: OSError) -> str:
    """Why the system or an encoder refused to write, and what to do."""
    advice = {
        errno.ENOSPC: "free some space or choose another folder with -o",
        errno.EDQUOT: "free some space or choose another folder with -o",
        errno.ENAMETOOLONG: "choose a shorter name with -o",
    }
    reason = error.strerror or " ".join(str(error).split())
    return f"{reason}; {advice.get(error.errno or 0, 'choose another folder with -o')}"
