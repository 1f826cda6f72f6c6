"""From an open picture file to planes of numbers: which decoder, how many bits, which way up."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import cv2
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from restore.errors import InputError
from restore.image.color import fitting_icc, to_plain_mode
from restore.image.metadata import (
    clean_exif,
    ends_in_zeros,
    exif_of_tiff,
    exif_orientation,
    sniff_format,
)

# Pillow's decoders that are tried: no EPS (it runs Ghostscript), and none that guesses.
_DECODERS = ("PNG", "JPEG", "WEBP", "TIFF", "AVIF", "GIF", "BMP", "PPM")
_READABLE = "PNG, JPEG, WebP, TIFF, AVIF, GIF, BMP and PPM can be read"
_ADVICE = {
    "heic": "HEIC cannot be read; convert it first, such as: heif-convert photo.heic photo.png",
    "jxl": "JPEG XL cannot be read; convert it first, such as: djxl photo.jxl photo.png",
    "jp2": "JPEG 2000 cannot be read; convert it to PNG or TIFF first",
    "psd": "a Photoshop file cannot be read; save a flat copy as TIFF or PNG first",
    "html": "it is a web page, as a failed download leaves; fetch the picture itself",
    "svg": "SVG is a drawing, not pixels; render it as large as you need it",
    "pdf": "PDF cannot be read; take its pictures out first, such as: pdfimages -all in.pdf out",
    "video": "this is a clip, not a picture; use: restore video",
}
_FORMATS = {"JPEG": "jpg", "MPO": "jpg"}

_SUBFILE, _BITS, _PHOTOMETRIC, _ORIENTATION, _SAMPLES = 254, 258, 262, 274, 339
_EXTRA_SAMPLES, _DNG_VERSION = 338, 50706
_PREMULTIPLIED = 1
_PNG_GRAY_ALPHA = 4
_ROWS = 256

_limit_lock = threading.Lock()


@dataclass(frozen=True, kw_only=True, slots=True)
class Decoded:
    """Pixels of a picture, upright, and what they mean."""

    planes: Tensor
    """`(C, H, W)` float32 in [0, 1]: gray, gray and alpha, RGB, or RGB and alpha."""
    deep: bool
    """16 bits a channel in the file."""
    icc: bytes | None
    """Profile that the values are in."""
    exif: bytes | None
    """EXIF block for the upright picture."""
    turned: bool
    """The file had its pixels in another orientation."""
    notes: tuple[str, ...]
    """What the user should know."""


def open_picture(stream: BinaryIO, *, max_pixels: int) -> Image.Image:
    """Find the decoder and read the header; no pixel is decoded.

    Raises:
        InputError: empty, of a kind that is not read, zero-sized, or above `max_pixels`.
    """
    head = stream.read(64)
    stream.seek(0)
    if not head:
        raise InputError("it is empty (0 bytes); get a whole copy")
    kind = sniff_format(head)
    if kind in _ADVICE:
        raise InputError(_ADVICE[kind])
    try:
        image = _open(stream)
    except UnidentifiedImageError as error:
        raise InputError(_unidentified(kind)) from error
    width, height = image.size
    if width < 1 or height < 1:
        raise InputError(f"it says it is {width}x{height} pixels; it holds no picture")
    if width * height > max_pixels:
        raise InputError(
            f"it says it is {width}x{height}, {width * height} pixels, above the limit of "
            f"{max_pixels}; if you trust it, raise --max-pixels"
        )
    if image.format == "TIFF" and _is_camera_raw(image):
        raise InputError("camera raw cannot be read; develop it to TIFF or PNG first")
    return image


@contextlib.contextmanager
def unlimited() -> Iterator[None]:
    """Without Pillow's own limit of pixels, which is global, below ours, and often asked."""
    with _limit_lock:
        limit = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _open(stream: BinaryIO) -> Image.Image:
    Image.init()
    known = [name for name in _DECODERS if name in Image.OPEN]  # AVIF is not in every build
    return Image.open(stream, formats=known)


def _unidentified(kind: str | None) -> str:
    if kind is None:
        return f"it is not a picture that is known here; {_READABLE}"
    if kind == "tiff":
        return (
            "a damaged TIFF, or one of a rare kind (float color, 16-bit gray with alpha); "
            "save it again as 8-bit or 16-bit RGB"
        )
    return f"its {kind} header is damaged or of a kind that is not read; save or fetch it again"


def _is_camera_raw(image: Image.Image) -> bool:
    """Raw files are TIFF outside, and what their first directory shows is a thumbnail."""
    tags = _tiff_tags(image)
    return _DNG_VERSION in tags or bool(int(tags.get(_SUBFILE, 0)) & 1)


def _tiff_tags(image: Image.Image) -> Any:
    return image.tag_v2  # type: ignore[attr-defined]


def format_name(image: Image.Image) -> str:
    """`"png"`, `"jpg"`, ... of an opened picture."""
    assert image.format is not None
    return _FORMATS.get(image.format, image.format.lower())


def frame_count(image: Image.Image) -> int:
    """Pictures in the file: frames of an animation or pages; previews of a camera do not count."""
    if image.format == "MPO":
        return 1
    try:
        return int(getattr(image, "n_frames", 1))
    except Exception:  # a damaged later frame does not harm the first
        return 1


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Width and height of an opened, not yet decoded picture after its orientation is applied."""
    width, height = image.size
    if image.format == "TIFF":  # some versions of Pillow have swapped `size` already
        tags = _tiff_tags(image)
        width, height, orientation = tags[256], tags[257], _tiff_orientation(image)
    else:
        orientation = _raw_exif(image)[1]
    return (height, width) if orientation >= 5 else (width, height)


def decode(image: Image.Image, stream: BinaryIO) -> Decoded:
    """Decode all pixels of an opened picture.

    Raises:
        InputError: its values have no fixed white.
        Exception: anything, from Pillow's decoders, where the data are damaged or cut off.
    """
    # Pillow calls 16-bit gray with alpha RGBA.
    mode = "LA" if _is_deep_gray_alpha(image, stream) else image.mode
    icc, note = fitting_icc(image.info.get("icc_profile"), mode)
    notes = [note]
    orientation = _tiff_orientation(image)
    deep = _has_deep_color(image, stream)
    image.load()  # of 16-bit color too: it finds out whether the file is whole
    if image.format == "JPEG" and _ends_in_zeros(stream):
        raise InputError("its end is filled with zeros, as after a broken copy; get a whole copy")
    planes = _decode_deep(image, stream, orientation) if deep else None
    if planes is None:
        if deep:
            notes.append("its kind of 16 bits cannot be read; it was read with 8 bits")
        plain, icc, note = to_plain_mode(image, icc)
        notes.append(note)
        planes = _planes_of(plain)
        deep = plain.mode.startswith("I;16")
        orientation = _tiff_orientation(image)  # Pillow turns a TIFF and then drops the tag
    exif, turn, note = _raw_exif(image)
    notes.append(note)
    orientation = turn if image.format != "TIFF" else orientation
    planes = turn_upright(planes, orientation)
    if exif is not None:
        exif = clean_exif(exif, width=planes.shape[2], height=planes.shape[1])
    return Decoded(
        planes=planes,
        deep=deep,
        icc=icc,
        exif=exif,
        turned=orientation != 1,
        notes=tuple(note for note in notes if note),
    )


def _ends_in_zeros(stream: BinaryIO) -> bool:
    stream.seek(0)
    return ends_in_zeros(stream.read())


def _tiff_orientation(image: Image.Image) -> int:
    """Orientation that the tags of a TIFF still ask for; 1 for any other format."""
    value = _tiff_tags(image).get(_ORIENTATION, 1) if image.format == "TIFF" else 1
    return int(value) if value in range(1, 9) else 1


def _has_deep_color(image: Image.Image, stream: BinaryIO) -> bool:
    """Whether the file has 16-bit samples that Pillow would cut to 8; of gray it keeps all 16."""
    if image.format == "PNG":
        depth, color_type = _png_kind(stream)
        return depth == 16 and color_type in (2, _PNG_GRAY_ALPHA, 6)
    if image.format != "TIFF" or image.mode not in ("RGB", "RGBA"):
        return False
    tags = _tiff_tags(image)
    bits, kinds = tags.get(_BITS, ()), tags.get(_SAMPLES, (1,))
    return set(bits) == {16} and tags.get(_PHOTOMETRIC) == 2 and set(kinds) == {1}


def _is_deep_gray_alpha(image: Image.Image, stream: BinaryIO) -> bool:
    return image.format == "PNG" and _png_kind(stream) == (16, _PNG_GRAY_ALPHA)


def _png_kind(stream: BinaryIO) -> tuple[int, int]:
    """Bit depth and color type in the header of a PNG; the position in the stream stays."""
    position = stream.tell()
    stream.seek(24)
    depth, color_type = stream.read(2)
    stream.seek(position)
    return depth, color_type


def _decode_deep(image: Image.Image, stream: BinaryIO, orientation: int) -> Tensor | None:
    """Planes of 16-bit color, not turned, by OpenCV; None where it cannot."""
    width, height = image.size
    if image.format == "TIFF":
        width, height = _tiff_tags(image)[256], _tiff_tags(image)[257]
    stream.seek(0)
    data = stream.read()
    if orientation != 1:
        # OpenCV turns a TIFF in some versions and not in others: take the wish away.
        try:
            data = clean_exif(data, width=width, height=height)
        except ValueError:  # BigTIFF
            return None
    pixels = _decode_cv(data)
    if pixels is None or pixels.dtype != np.uint16 or pixels.shape[:2] != (height, width):
        return None
    if pixels.ndim != 3 or pixels.shape[2] not in (3, 4):
        return None
    order = [2, 1, 0, 3][: pixels.shape[2]]  # from BGR(A)
    if image.mode == "RGB" and not image.has_transparency_data:
        order = order[:3]  # a fourth sample that the file does not call alpha
    planes = _to_planes(lambda top, end: pixels[top:end][:, :, order], height, width, 65535)
    if _is_deep_gray_alpha(image, stream):
        return planes[[0, 3]]
    if image.format == "TIFF" and _extra_samples(image) == _PREMULTIPLIED:
        planes[:3] /= planes[3:].clamp_min(1 / 65535)
        planes.clamp_(0, 1)
    return planes


def _decode_cv(data: bytes) -> npt.NDArray[Any] | None:
    """Pixels as they are in the file, channels in the order BGR(A); None where OpenCV gives up."""
    level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        return None
    finally:
        cv2.utils.logging.setLogLevel(level)


def _extra_samples(image: Image.Image) -> int | None:
    value = _tiff_tags(image).get(_EXTRA_SAMPLES)
    first = value[0] if isinstance(value, tuple) else value
    return None if first is None else int(first)


def _planes_of(image: Image.Image) -> Tensor:
    """Planes of an L, LA, RGB, RGBA or I;16 picture."""
    width, height = image.size
    if not image.mode.startswith("I;16"):

        def rows(top: int, end: int) -> npt.NDArray[Any]:
            return np.asarray(image.crop((0, top, width, end)))

        return _to_planes(rows, height, width, 255)
    values = np.asarray(image)
    planes = _to_planes(lambda top, end: values[top:end], height, width, 65535)
    if image.format == "TIFF" and _tiff_tags(image).get(_PHOTOMETRIC) == 0:  # white is zero
        planes = planes.neg_().add_(1)
    hole = image.info.get("transparency")
    if isinstance(hole, int):
        seen = torch.from_numpy((values != hole).astype(np.float32))
        planes = torch.cat([planes, seen[None]])
    return planes


def _to_planes(
    rows: Callable[[int, int], npt.NDArray[Any]], height: int, width: int, peak: int
) -> Tensor:
    """`(C, H, W)` float32 in [0, 1] from bands of rows `(N, W)` or `(N, W, C)`, 0 to `peak`."""
    planes: Tensor | None = None
    for top in range(0, height, _ROWS):
        end = min(height, top + _ROWS)
        band = rows(top, end).reshape(end - top, width, -1)
        values = np.divide(band, np.float32(peak), dtype=np.float32)
        if planes is None:
            planes = torch.empty(values.shape[2], height, width)
        planes[:, top:end] = torch.from_numpy(values).permute(2, 0, 1)
    assert planes is not None
    return planes


def turn_upright(planes: Tensor, orientation: int) -> Tensor:
    """Pixels `(C, H, W)` as EXIF orientation 1 to 8 wants them shown (EXIF 2.32, 4.6.4 A)."""
    if orientation in (5, 6, 7, 8):
        planes = planes.transpose(1, 2)
    flips = {2: [2], 3: [1, 2], 4: [1], 6: [2], 7: [1, 2], 8: [1]}.get(orientation, [])
    return planes.flip(flips).contiguous() if flips else planes.contiguous()


def _raw_exif(image: Image.Image) -> tuple[bytes | None, int, str]:
    """EXIF block from its byte order mark on, its orientation, and a note if it is damaged."""
    try:
        if image.format == "TIFF":
            return exif_of_tiff(image.getexif()), 1, ""
        data = image.info.get("exif")
        if data is None and (text := image.info.get("Raw profile type exif")):
            # How older programs put EXIF into a PNG: a name, a length, and hexadecimal digits.
            data = bytes.fromhex("".join(text.split("\n")[3:]))
        if not data:
            return None, 1, ""
        data = data.removeprefix(b"Exif\0\0")
        width, height = image.size
        clean_exif(data, width=width, height=height)
        return data, exif_orientation(data), ""
    except Exception as error:  # Pillow reads a TIFF's tags and can raise anything
        return None, 1, f"its EXIF is damaged ({error}) and left out"
