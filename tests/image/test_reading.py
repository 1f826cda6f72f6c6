"""Reading pictures: every kind that can be read, and nothing that is damaged."""

from __future__ import annotations

import io
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import pytest
import torch
from image.samples import (
    HEIGHT,
    LIMIT,
    WIDTH,
    cmyk_profile,
    cv_encoded,
    exif_block,
    gray_profile,
    pillow,
    planes,
    png_header,
    saved,
    turned_tiff,
)
from PIL import Image, ImageCms, ImageOps, features

import restore.image.files as image_room
from restore.errors import InputError
from restore.image.color import srgb_profile
from restore.image.files import Picture, _sound_dpi, read_header, read_image
from restore.image.metadata import exif_orientation


def read(data: bytes) -> Picture:
    return read_image(data, max_pixels=LIMIT)


BAD = {
    "empty": (b"", "empty"),
    "text": (b"hello, this is a letter\n", "not a picture"),
    "heic": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "heif-convert"),
    "jxl": (b"\xff\x0a" + bytes(40), "djxl"),
    "pdf": (b"%PDF-1.7\n", "pdfimages"),
    "web page": (b"\n<!DOCTYPE html><title>404</title>", "web page"),
    "svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
    "clip": (b"\0\0\0\x18ftypisom\0\0\2\0isomiso2", "restore video"),
    "no height": (png_header(40, 0), "damaged|holds no picture"),
    "png header": (b"\x89PNG\r\n\x1a\n", "png"),
    "jpg header": (b"\xff\xd8\xff\xe0" + bytes(60), "jpg"),
    "tiff header": (b"II*\0\x08\0\0\0", "TIFF"),
    "bad crc": (saved(pillow(), "PNG").replace(b"IDAT", b"IDAT\x55", 1), "damaged"),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_is_no_whole_picture_is_refused_in_one_line_that_says_why(kind: str) -> None:
    data, why = BAD[kind]
    with pytest.raises(InputError, match=why) as caught:
        read(data)
    assert "\n" not in str(caught.value) and str(caught.value).startswith("the given data: ")


def test_what_is_no_file_is_refused_in_one_line_that_says_why(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    for name, why in (("no.png", "no such file"), (".", "folder"), ("pipe.png", "regular file")):
        with pytest.raises(InputError, match=why):
            read_image(tmp_path / name, max_pixels=LIMIT)


def test_a_file_that_may_not_be_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.png").write_bytes(saved(pillow(), "PNG"))

    def refuse(*_: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)  # modes mean nothing to root
    with pytest.raises(InputError, match="no permission"):
        read_image(tmp_path / "a.png", max_pixels=LIMIT)


WHOLE = {
    "png": lambda: saved(pillow(), "PNG"),
    "png16": lambda: cv_encoded(".png"),
    "jpg": lambda: saved(pillow(), "JPEG"),
    "progressive jpg": lambda: saved(pillow(), "JPEG", progressive=True),
    "webp": lambda: saved(pillow(), "WEBP"),
    "avif": lambda: saved(pillow(), "AVIF"),
    "tiff": lambda: saved(pillow(), "TIFF"),
    "deflated tiff": lambda: saved(pillow(), "TIFF", compression="tiff_adobe_deflate"),
    "tiff16": lambda: cv_encoded(".tiff"),
    "gif": lambda: saved(pillow().quantize(16), "GIF"),
    "bmp": lambda: saved(pillow(), "BMP"),
    "ppm": lambda: saved(pillow(), "PPM"),
}


@pytest.mark.parametrize("part", [0.3, 0.5, 0.9])
@pytest.mark.parametrize("kind", WHOLE)
def test_half_a_picture_is_refused(kind: str, part: float) -> None:
    if kind == "avif" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    data = WHOLE[kind]()
    assert read(data).size == (WIDTH, HEIGHT)
    with pytest.raises(InputError):
        read(data[: int(len(data) * part)])


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_filled_up_with_zeros_is_refused_and_one_padded_with_them_is_not(
    progressive: bool,
) -> None:
    # Noise makes the scan fill most of the file; behind the scan lies a second picture.
    levels = np.random.default_rng(0).normal(128, 90, (64, 64)).clip(0, 255)
    noise = Image.fromarray(levels.astype(np.uint8))
    data = saved(noise, "JPEG", quality=95, progressive=progressive)
    cut = data[: len(data) * 2 // 3]
    with pytest.raises(InputError, match=r"filled with zeros|cut off"):
        read(cut + bytes(len(data) // 2))
    assert read(data + bytes(512)).size == (64, 64)
    assert read(data[:-2] + b"\xff\xd9" + data + bytes(99)).size == (64, 64)


def test_a_bomb_is_refused_by_its_header_before_a_pixel_is_decoded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def explode(*_: Any) -> None:
        raise AssertionError("a pixel was decoded")

    monkeypatch.setattr(image_room, "decode", explode)
    before = Image.MAX_IMAGE_PIXELS
    with pytest.raises(InputError, match="60000x60000, 3600000000 pixels, above the limit of 500"):
        read_image(png_header(60_000, 60_000), max_pixels=500_000_000)
    assert before == Image.MAX_IMAGE_PIXELS


def test_our_limit_counts_and_not_that_of_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert read(saved(pillow(), "PNG")).size == (WIDTH, HEIGHT)
    with pytest.raises(InputError, match="above the limit of 700"):
        read_image(saved(pillow(), "PNG"), max_pixels=700)


MODES: dict[str, tuple[bytes, bool, bool, int]] = {
    # what the file holds: (gray, alpha, depth)
    "1": (saved(pillow("1"), "PNG"), True, False, 8),
    "L": (saved(pillow("L"), "PNG"), True, False, 8),
    "LA": (saved(pillow("LA"), "PNG"), True, True, 8),
    "P": (saved(pillow().quantize(64), "PNG"), False, False, 8),
    "P of grays": (saved(pillow("L").quantize(64), "PNG"), True, False, 8),
    "P with a hole": (saved(pillow().quantize(64), "PNG", transparency=0), False, True, 8),
    "PA": (saved(pillow("RGBA").convert("PA"), "TIFF"), False, True, 8),
    "L with a hole": (saved(pillow("L"), "PNG", transparency=9), True, True, 8),
    "RGB with a hole": (saved(pillow(), "PNG", transparency=(1, 2, 3)), False, True, 8),
    "I;16": (saved(Image.fromarray(np.full((9, 9), 700, np.uint16)), "PNG"), True, False, 16),
    "I;16B": (saved(Image.fromarray(np.full((9, 9), 700, ">u2")), "TIFF"), True, False, 16),
    "I": (saved(Image.fromarray(np.full((9, 9), 700, np.int32)), "TIFF"), True, False, 16),
    "F": (saved(Image.fromarray(np.full((9, 9), 0.5, np.float32)), "TIFF"), True, False, 16),
    "PGM of 16 bits": (
        saved(Image.fromarray(np.full((9, 9), 700, np.uint16)), "PPM"), True, False, 16,
    ),
    "YCbCr": (saved(pillow("YCbCr"), "TIFF"), False, False, 8),
}  # fmt: skip
if int(PIL.__version__.split(".")[0]) < 13:
    del MODES["YCbCr"]  # Pillow 12 cannot read what it writes


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_is_read_as_gray_or_rgb(mode: str) -> None:
    data, gray, alpha, depth = MODES[mode]
    result = read(data)
    assert (result.gray, result.alpha is not None, result.bit_depth) == (gray, alpha, depth)
    if mode not in ("1", "F", "I", "I;16", "I;16B", "PGM of 16 bits"):
        with Image.open(io.BytesIO(data)) as image:
            wanted = np.asarray(image.convert("RGBA" if alpha else "RGB"), dtype=np.float32)
        assert np.allclose(result.rgb.permute(1, 2, 0), wanted[:, :, :3] / 255, atol=1e-6)
    elif mode not in ("1", "F"):
        assert torch.allclose(result.rgb, torch.tensor(700 / 65535))


@pytest.mark.parametrize("values", [np.full((9, 9), -1, np.int32), np.full((9, 9), 2, np.float32)])
def test_values_without_a_fixed_white_are_refused(values: Any) -> None:
    with pytest.raises(InputError, match="save it with 8 or 16 bits"):
        read(saved(Image.fromarray(values), "TIFF"))


def test_white_is_zero_in_16_bits_is_turned_round() -> None:
    data = saved(Image.fromarray(np.full((9, 9), 65535, np.uint16)), "TIFF")
    tag = struct.pack("<HHI", 262, 3, 1)
    at = data.index(tag) + 8
    assert data[at] == 1
    assert float(read(data[:at] + b"\0" + data[at + 1 :]).rgb.max()) == 0


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP", "TIFF"])
def test_of_several_pictures_the_first_is_read_with_a_note(format: str) -> None:
    other = Image.new("RGB", (WIDTH, HEIGHT), "red")
    lossless = {"lossless": True} if format == "WEBP" else {}
    data = saved(pillow(), format, save_all=True, append_images=[other], **lossless)
    result = read(data)
    assert "2 pictures and only the first" in result.notes[0]
    assert float((result.rgb - planes()[:3]).abs().mean()) < 0.05  # a GIF has 256 colors


def test_xmp_says_upright_too_and_makes_no_promises() -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    xmp = b'<x:xmpmeta tiff:Orientation="6"/>'
    assert read(saved(pillow(), "JPEG", exif=turned, xmp=xmp)).xmp == xmp.replace(b"6", b"1")
    assert read(saved(pillow(), "JPEG", xmp=b"<x GCamera:MotionPhoto='1'/>")).xmp is None


@pytest.mark.parametrize("kind", ["png", "png16", "jpg", "tiff", "tiff16"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pixels_stand_upright_as_pillow_turns_them(orientation: int, kind: str) -> None:
    plain = pillow()
    exif = Image.Exif()
    exif[0x0112] = orientation
    if kind == "png16":
        data = cv_encoded(".png", exif.tobytes()[6:])
    elif kind == "tiff16":
        data = turned_tiff(cv_encoded(".tiff"), orientation)
    else:
        format = {"jpg": "JPEG"}.get(kind, kind.upper())
        data = saved(plain, format, exif=exif, **({"quality": 100} if kind == "jpg" else {}))
    with Image.open(io.BytesIO(data)) as opened:
        wanted = np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))
    result = read(data)
    got = (result.rgb.permute(1, 2, 0).numpy() * 255).round().astype(int)
    assert np.array_equal(got, wanted)
    assert result.bit_depth == (16 if kind.endswith("16") else 8)
    assert result.exif is None or exif_orientation(result.exif) == 1
    assert read_header(data, max_pixels=LIMIT).size == result.size


@pytest.mark.parametrize("exif", [b"II*\0\xff\xff\xff\x7f", b"nonsense", exif_block()[:20]])
def test_damaged_exif_is_left_out_with_a_note(exif: bytes) -> None:
    result = read(saved(pillow(), "JPEG", exif=b"Exif\0\0" + exif))
    assert result.exif is None
    assert "EXIF is damaged" in result.notes[0] and "\n" not in result.notes[0]


@pytest.mark.parametrize("icc", [b"x" * 200, srgb_profile()[:150], gray_profile()])
def test_a_damaged_or_foreign_profile_is_left_out_with_a_note(icc: bytes) -> None:
    result = read(saved(pillow(), "PNG", icc_profile=icc))
    assert result.icc is None and "ICC profile" in result.notes[0]


@pytest.mark.parametrize("dpi", [(1, 1), (0, 0), (float("nan"), 300)])
def test_a_resolution_that_is_none_is_not_kept(dpi: tuple[float, float]) -> None:
    assert _sound_dpi(dpi) is None
    assert _sound_dpi((72, 300)) == (72, 300)


def test_cmyk_goes_through_its_profile_also_where_adobe_stores_it_inverted() -> None:
    cyan = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    for data in (
        saved(cyan, "TIFF", icc_profile=cmyk_profile()),
        saved(cyan, "JPEG", icc_profile=cmyk_profile(), quality=100),  # Pillow writes Adobe's
    ):
        result = read(data)
        # L = 50 without chroma is 119 of 255 in sRGB.
        assert torch.allclose(result.rgb, torch.tensor(119 / 255), atol=4 / 255)
        assert result.icc == srgb_profile() and not result.gray and result.notes == ()


def test_cmyk_without_a_profile_is_read_with_a_note() -> None:
    result = read(saved(Image.new("CMYK", (16, 16), (255, 0, 0, 0)), "TIFF"))
    assert result.rgb[:, 0, 0].tolist() == [0, 1, 1]
    assert "without a profile" in result.notes[0] and result.icc == srgb_profile()


def test_lab_becomes_srgb() -> None:
    lab = ImageCms.profileToProfile(
        pillow(), ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    assert lab is not None
    result = read(saved(lab, "TIFF"))
    assert float((result.rgb - planes()[:3]).abs().mean()) < 3 / 255  # 8-bit Lab is coarse
