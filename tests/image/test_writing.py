"""Writing pictures: what goes in comes out, whole or not at all."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from image.samples import HEIGHT, LIMIT, WIDTH, exif_block, gray_profile, picture, planes
from PIL import Image, features

import restore.image.files as image_room
from restore.errors import OptionError, OutputError
from restore.image.color import srgb_profile
from restore.image.files import Picture, read_image, write_image
from restore.image.metadata import clean_exif, exif_orientation

LOSSLESS = [("png", 8), ("png", 16), ("tiff", 8), ("tiff", 16)]


@pytest.mark.parametrize("alpha", [False, True], ids=["opaque", "alpha"])
@pytest.mark.parametrize("gray", [False, True], ids=["rgb", "gray"])
@pytest.mark.parametrize(("name", "depth"), LOSSLESS)
def test_lossless_formats_give_back_every_value_and_what_belongs_to_it(
    tmp_path: Path, name: str, depth: int, gray: bool, alpha: bool
) -> None:
    if (name, depth, gray, alpha) == ("tiff", 16, True, True):
        pytest.skip("neither Pillow nor OpenCV reads it; see the next test but one")
    icc = gray_profile() if gray else srgb_profile()
    exif = clean_exif(exif_block(), width=WIDTH, height=HEIGHT)
    source = picture(depth=depth, gray=gray, alpha=alpha, icc=icc, exif=exif, dpi=(300.0, 150.0))
    path = tmp_path / f"result.{name}"
    assert write_image(source, path) == ()
    result = read_image(path, max_pixels=LIMIT)
    assert torch.equal(result.rgb, source.rgb)
    assert (result.alpha is None) == (not alpha)
    if alpha:
        assert result.alpha is not None and torch.equal(result.alpha, planes(depth)[3:])
    assert (result.gray, result.bit_depth, result.format) == (gray, depth, name)
    assert result.icc == icc and result.notes == ()
    assert result.exif is not None and b"maker\0notes\xff" in result.exif
    assert result.dpi == pytest.approx((300, 150), abs=0.02)  # PNG counts pixels per meter


@pytest.mark.parametrize(("name", "depth"), LOSSLESS)
@pytest.mark.parametrize(("gray", "alpha"), [(False, False), (False, True), (True, False)])
def test_another_reader_sees_the_same_pixels(
    tmp_path: Path, name: str, depth: int, gray: bool, alpha: bool
) -> None:
    source = picture(depth=depth, gray=gray, alpha=alpha)
    path = tmp_path / f"result.{name}"
    write_image(source, path)
    with Image.open(path) as image:
        seen = np.asarray(image).reshape(HEIGHT, WIDTH, -1)
    values = torch.cat([source.rgb[:1] if gray else source.rgb, *([planes(depth)[3:]] * alpha)])
    wanted = (values * (2**depth - 1)).round().permute(1, 2, 0).numpy().astype(int)
    # Pillow keeps 16 bits of gray and cuts those of color to their high bytes.
    assert np.array_equal(seen, wanted if depth == 8 or gray else wanted >> 8)


def test_16_bit_gray_with_alpha_in_a_tiff_is_read_by_ffmpeg(tmp_path: Path) -> None:
    write_image(picture(depth=16, gray=True, alpha=True), tmp_path / "a.tiff")
    with av.open(str(tmp_path / "a.tiff")) as container:
        frame = next(container.decode(video=0))
    assert frame.format.name == "ya16le"
    rows = np.frombuffer(bytes(frame.planes[0]), "<u2").reshape(HEIGHT, -1)[:, : 2 * WIDTH]
    wanted = (planes(16)[[0, 3]] * 65535).round().permute(1, 2, 0).numpy()
    assert np.array_equal(rows.reshape(HEIGHT, WIDTH, 2), wanted)


@pytest.mark.parametrize("gray", [False, True], ids=["rgb", "gray"])
@pytest.mark.parametrize("name", ["jpg", "webp", "avif"])
def test_lossy_formats_come_close_and_keep_what_belongs_to_it(
    tmp_path: Path, name: str, gray: bool
) -> None:
    if name == "avif" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    exif = clean_exif(exif_block(), width=WIDTH, height=HEIGHT)
    icc = None if gray else srgb_profile()
    source = picture(gray=gray, icc=icc, exif=exif, xmp=b"<x:xmpmeta>kept</x:xmpmeta>")
    path = tmp_path / f"result.{name}"
    assert write_image(source, path, quality=95) == ()
    result = read_image(path, max_pixels=LIMIT)
    # Smooth content at quality 95 is off by a few of 255; 4:2:0 of WebP costs some more.
    assert float((result.rgb - source.rgb).abs().mean()) < 4 / 255
    assert result.icc == icc and result.xmp == source.xmp
    assert result.exif is not None and b"maker\0notes\xff" in result.exif
    assert result.gray == gray or name == "webp"  # WebP has no gray


@pytest.mark.parametrize("name", ["webp", "avif"])
def test_lossy_formats_with_alpha_keep_it(tmp_path: Path, name: str) -> None:
    if name == "avif" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    path = tmp_path / f"result.{name}"
    write_image(picture(alpha=True), path)
    result = read_image(path, max_pixels=LIMIT)
    assert result.alpha is not None
    assert float((result.alpha - planes()[3:]).abs().max()) < 6 / 255


def test_jpeg_puts_transparency_on_white_and_says_so(tmp_path: Path) -> None:
    source = Picture(rgb=torch.zeros(3, 8, 8), alpha=torch.full((1, 8, 8), 0.25))
    notes = write_image(source, tmp_path / "a.jpg")
    assert "stands on white" in notes[0]
    result = read_image(tmp_path / "a.jpg", max_pixels=LIMIT)
    assert result.alpha is None
    assert torch.allclose(result.rgb, torch.tensor(0.75), atol=2 / 255)


def test_webp_at_quality_100_is_lossless(tmp_path: Path) -> None:
    write_image(picture(), tmp_path / "a.webp", quality=100)
    assert torch.equal(read_image(tmp_path / "a.webp", max_pixels=LIMIT).rgb, picture().rgb)


@pytest.mark.parametrize("order", ["<", ">"])
def test_exif_is_changed_only_where_it_would_lie(order: str) -> None:
    before = exif_block(6, order=order)
    after = clean_exif(before, width=70_000, height=300)
    assert exif_orientation(before) == 6 and exif_orientation(after) == 1
    assert b"thumbnail" not in after
    assert after.index(b"maker\0notes\xff") == before.index(b"maker\0notes\xff")
    block = Image.Exif()
    block.load(b"Exif\0\0" + after)
    assert block.get_ifd(0x8769)[0xA002] == 70_000  # more than its SHORT could hold
    assert block.get_ifd(0x8769)[0xA003] == 300
    assert not block.get_ifd(1)  # no directory of a thumbnail


def test_exif_too_long_for_a_jpeg_is_left_out_with_a_note(tmp_path: Path) -> None:
    source = picture(exif=exif_block() + bytes(70_000))
    assert "too long" in write_image(source, tmp_path / "a.jpg")[0]
    assert read_image(tmp_path / "a.jpg", max_pixels=LIMIT).exif is None


def test_a_gray_profile_is_applied_where_the_format_has_no_gray(tmp_path: Path) -> None:
    source = Picture(rgb=torch.full((3, 8, 8), 0.5), gray=True, icc=gray_profile())
    write_image(source, tmp_path / "a.webp", quality=100)
    result = read_image(tmp_path / "a.webp", max_pixels=LIMIT)
    assert result.icc is None
    # Half the light is 188 of 255 in sRGB (IEC 61966-2-1).
    assert torch.allclose(result.rgb, torch.tensor(188 / 255), atol=1.5 / 255)


def test_texts_and_color_chunks_of_a_png_stay(tmp_path: Path) -> None:
    more: dict[str, Any] = {
        "text": (("parameters", "a cat, 20 steps"), ("Title", "caf\u00e9 \u8a9e")),
        "color_chunks": ((b"gAMA", struct.pack(">I", 100_000)),),
        "xmp": b"<x:xmpmeta/>",
    }
    for depth in (8, 16):
        write_image(picture(depth=depth, **more), tmp_path / "a.png")
        result = read_image(tmp_path / "a.png", max_pixels=LIMIT)
        assert {name: getattr(result, name) for name in more} == more


def test_names_with_any_letters_and_of_full_length_are_read_and_written(tmp_path: Path) -> None:
    folder = tmp_path / "\u0444\u043e\u0442\u043e \u5199\u771f \U0001f600"
    for _ in range(12):
        folder /= "d" * 80
    folder.mkdir(parents=True)
    name = "\u00fc" * 125 + ".png"  # 254 bytes of the 255 that a name may have
    write_image(picture(depth=16), folder / name)
    assert torch.equal(read_image(folder / name, max_pixels=LIMIT).rgb, planes(16)[:3])


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_write_that_breaks_off_leaves_no_file_and_the_old_one_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    (tmp_path / "old.png").write_bytes(b"old")

    def break_off(_: Any, stream: Any) -> None:
        stream.write(b"half a picture")
        raise error

    monkeypatch.setattr(image_room, "encode", break_off)
    for name in ("old.png", "new.png"):
        kind = OutputError if isinstance(error, OSError) else KeyboardInterrupt
        with pytest.raises(kind) as caught:
            write_image(picture(), tmp_path / name)
        if kind is OutputError:
            assert "No space left on device; free some space" in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["old.png"]
    assert (tmp_path / "old.png").read_bytes() == b"old"


def test_a_result_gets_the_mode_that_new_files_get(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    write_image(picture(), tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_picture_too_large_for_the_format_is_refused(tmp_path: Path) -> None:
    wide = Picture(rgb=torch.zeros(3, 1, 16_384))
    with pytest.raises(OutputError, match=r"16383 pixels a side.*--ext png"):
        write_image(wide, tmp_path / "a.webp")
    with pytest.raises(OptionError, match=r"\.bmp|use one of"):
        write_image(picture(), tmp_path / "a.bmp")


def test_streams_are_read_and_written() -> None:
    buffer = io.BytesIO()
    write_image(picture(), buffer, format="png")
    buffer.seek(0)
    assert torch.equal(read_image(buffer, max_pixels=LIMIT).rgb, planes()[:3])
