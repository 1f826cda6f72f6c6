"""Codes become the right colours and colours the right codes, for every matrix, range and depth."""

from __future__ import annotations

import itertools

import av
import numpy as np
import pytest
import torch
from video.clips import fill_codes, samples

from restore.errors import InputError
from restore.video.pixel_formats import pixel_layout, planar_format
from restore.video.pixels import (
    PixelCoding,
    frame_to_rgb,
    guess_matrix,
    known_matrix,
    rgb_to_frame,
)

RED, GREEN, BLUE = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)

# Y'CbCr codes of full red, green and blue: the tables of BT.601, BT.709 and JFIF; for BT.2020 the
# formulas of its table 4 worked out by hand.
PRIMARIES = [
    (6, False, 8, ((81, 90, 240), (145, 54, 34), (41, 240, 110))),
    (5, False, 8, ((81, 90, 240), (145, 54, 34), (41, 240, 110))),
    (1, False, 8, ((63, 102, 240), (173, 42, 26), (32, 240, 118))),
    (6, True, 8, ((76, 85, 255), (150, 44, 21), (29, 255, 107))),
    (9, False, 10, ((294, 387, 960), (658, 189, 100), (116, 960, 476))),
]


def flat(color: tuple[float, float, float], width: int = 8, height: int = 6) -> torch.Tensor:
    return torch.tensor(color)[:, None, None].expand(3, height, width).contiguous()


def planes(frame: av.VideoFrame) -> list[np.ndarray]:
    bits = frame.format.components[0].bits
    return [samples(plane, bits).astype(int) for plane in frame.planes]


def smooth_picture(width: int, height: int) -> torch.Tensor:
    """Ramps of full contrast in all colours, without edges: subsampling must not hurt them."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    red, green = x / (width - 1), y / (height - 1)
    return torch.from_numpy(np.stack([red, green, 1 - (red + green) / 2]))


@pytest.mark.parametrize(("matrix", "full_range", "bits", "codes"), PRIMARIES)
def test_primaries_have_the_codes_of_the_standards(
    matrix: int, full_range: bool, bits: int, codes: tuple[tuple[int, int, int], ...]
) -> None:
    coding = PixelCoding(matrix=matrix, full_range=full_range)
    pix_fmt = "yuv420p" if bits == 8 else f"yuv420p{bits}le"
    for color, expected in zip((RED, GREEN, BLUE), codes, strict=True):
        frame = rgb_to_frame(flat(color), pix_fmt, coding=coding)
        for plane, code in zip(planes(frame), expected, strict=True):
            assert np.all(abs(plane - code) <= 0.5 + 1e-6), (color, code, plane[0, 0])
        read = av.VideoFrame(8, 6, pix_fmt)
        fill_codes(*expected)(0, read)
        rgb = frame_to_rgb(read, coding)
        # Codes are rounded: half a code of luma and of chroma times its largest coefficient.
        assert torch.allclose(rgb, flat(color), atol=1.7 / (219 << (bits - 8)))


@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("bits", [8, 10, 16])
def test_black_and_white_are_exact(full_range: bool, bits: int) -> None:
    depth = "" if bits == 8 else f"{bits}le"
    black, white = (0, 2**bits - 1) if full_range else (16 << bits - 8, 235 << bits - 8)
    for family in ("gray", "yuv420p", "yuv444p", "gbrp"):
        coding = PixelCoding(matrix=0 if family == "gbrp" else 1, full_range=full_range)
        for value, code in ((0.0, black), (1.0, white)):
            frame = rgb_to_frame(flat((value,) * 3), family + depth, coding=coding)
            assert np.all(planes(frame)[0] == code)
            assert torch.allclose(frame_to_rgb(frame, coding), flat((value,) * 3), atol=1e-6)


@pytest.mark.parametrize(
    ("family", "bits"),
    [
        *itertools.product(("yuv420p", "yuv422p", "yuv444p", "gbrp"), (8, 10, 12, 16)),
        *itertools.product(("yuv440p",), (8, 10, 12)),
    ],
)
@pytest.mark.parametrize("full_range", [False, True])
def test_ramps_come_back_within_a_code(family: str, bits: int, full_range: bool) -> None:
    picture = smooth_picture(64, 48)
    pix_fmt = family if bits == 8 else f"{family}{bits}le"
    steps = (2**bits - 1) if full_range else 219 << (bits - 8)
    for matrix in (0,) if family == "gbrp" else (1, 4, 5, 6, 7, 9):
        coding = PixelCoding(matrix=matrix, full_range=full_range)
        back = frame_to_rgb(rgb_to_frame(picture, pix_fmt, coding=coding), coding)
        error = (back - picture).abs()[:, 2:-2, 2:-2]  # at the border chroma has one neighbour
        # Half a code of luma plus half a code of chroma, times at most 1.9 (blue).
        assert error.max() <= 1.5 / steps
        assert abs((back - picture)[:, 2:-2, 2:-2].mean()) <= 0.1 / steps  # rounding, not flooring


@pytest.mark.parametrize("location", [0, 1, 2, 3, 4, 5, 6])
def test_chroma_stays_in_its_place(location: int) -> None:
    """A sharp edge, written and read with the same location, does not wander."""
    picture = torch.zeros(3, 32, 32)
    picture[0, :, 16:], picture[2, 16:] = 1, 1
    coding = PixelCoding(matrix=1, full_range=True, chroma_location=location)
    back = frame_to_rgb(rgb_to_frame(picture, "yuv420p", coding=coding), coding)
    weights = torch.arange(32.0)
    for channel, dimension in ((0, 1), (2, 0)):  # centre of the area that is lit
        lit, wanted = back[channel].mean(dimension - 1), picture[channel].mean(dimension - 1)
        shift = (lit * weights).sum() / lit.sum() - (wanted * weights).sum() / wanted.sum()
        assert abs(shift) < 0.25


def test_left_and_centre_differ_by_half_a_sample() -> None:
    """The chroma row of a ramp: sited at 0, 2, 4 ... or at 0.5, 2.5 ..."""
    ramp = (torch.arange(16.0) / 15).expand(3, 4, 16).clone()
    ramp[1:] = 0
    left, centre = (
        planes(
            rgb_to_frame(
                ramp,
                "yuv422p16le",
                coding=PixelCoding(matrix=1, full_range=True, chroma_location=location),
            )
        )[2][0]
        for location in (1, 2)
    )
    per_pixel = (left[4] - left[3]) / 2
    assert (centre - left)[1:-1] == pytest.approx(per_pixel / 2, rel=0.01)


def test_odd_sizes_keep_every_pixel() -> None:
    picture = smooth_picture(31, 17)
    for pix_fmt, matrix in itertools.product(("yuv420p10le", "yuv422p10le"), (1, 6)):
        coding = PixelCoding(matrix=matrix, full_range=False)
        frame = rgb_to_frame(picture, pix_fmt, coding=coding)
        back = frame_to_rgb(frame, coding)
        assert back.shape == picture.shape
        error = (back - picture).abs()
        assert error[:, 2:-2, 2:-2].max() < 0.002
        assert error.max() < 0.05  # at the border chroma has neighbours on one side only


def test_result_does_not_depend_on_how_rows_are_shared_out() -> None:
    """A picture of several strips equals its parts; chroma needs the rows beyond the seam."""
    picture = torch.rand(3, 160, 2048)
    for location in (1, 3, 5):
        coding = PixelCoding(matrix=9, full_range=False, chroma_location=location)
        whole = planes(rgb_to_frame(picture, "yuv420p10le", coding=coding))
        top = planes(rgb_to_frame(picture[:, :84], "yuv420p10le", coding=coding))
        for all_rows, some in zip(whole, top, strict=True):
            assert np.array_equal(all_rows[: len(some) - 1], some[:-1])


def test_values_outside_the_range_are_clipped_and_do_not_wrap() -> None:
    for pix_fmt in ("yuv420p", "yuv444p", "gray", "gbrp", "yuv444p16le"):
        for full_range in (False, True):
            coding = PixelCoding(matrix=0 if pix_fmt == "gbrp" else 1, full_range=full_range)
            wild = flat((1.7, -0.6, 1.2))
            tame = flat((1.0, 0.0, 1.0))
            for got, wanted in zip(
                planes(rgb_to_frame(wild, pix_fmt, coding=coding)),
                planes(rgb_to_frame(tame, pix_fmt, coding=coding)),
                strict=True,
            ):
                assert np.array_equal(got, wanted)
    read = av.VideoFrame(8, 6, "yuv420p")
    fill_codes(255, 255, 255)(0, read)  # whiter than white, out of gamut
    rgb = frame_to_rgb(read, PixelCoding(matrix=1, full_range=False))
    assert rgb.min() >= 0 and rgb.max() <= 1


@pytest.mark.parametrize(
    ("pix_fmt", "planar"),
    [
        ("nv12", "yuv420p"),
        ("nv21", "yuv420p"),
        ("nv16", "yuv422p"),
        ("yuyv422", "yuv422p"),
        ("uyvy422", "yuv422p"),
        ("p010le", "yuv420p10le"),
        ("p210le", "yuv422p10le"),
        ("rgb24", "gbrp"),
        ("bgra", "gbrp"),
        ("rgb48le", "gbrp16le"),
        ("ya8", "gray"),
        ("pal8", "gbrp"),
    ],
)
def test_packed_formats_are_unpacked_without_a_change(pix_fmt: str, planar: str) -> None:
    assert planar_format(pix_fmt) == planar
    if pix_fmt in ("pal8", "ya8"):
        return  # nothing writes these
    coding = PixelCoding(matrix=0 if planar.startswith("gbrp") else 6, full_range=False)
    picture = torch.rand(3, 12, 16)
    direct = rgb_to_frame(picture, planar, coding=coding)
    packed = direct.reformat(format=pix_fmt)
    assert packed.format.name == pix_fmt
    assert torch.equal(frame_to_rgb(packed, coding), frame_to_rgb(direct, coding))
    if not any(part.is_alpha for part in packed.format.components):
        written = rgb_to_frame(picture, pix_fmt, coding=coding)
        assert torch.equal(frame_to_rgb(written, coding), frame_to_rgb(direct, coding))


def test_big_endian_and_alpha_are_read() -> None:
    coding = PixelCoding(matrix=6, full_range=False)
    little = rgb_to_frame(torch.rand(3, 12, 16), "yuv444p10le", coding=coding)
    big = little.reformat(format="yuv444p10be")
    assert torch.equal(frame_to_rgb(big, coding), frame_to_rgb(little, coding))
    clear = av.VideoFrame(8, 6, "yuva420p")
    fill_codes(81, 90, 240, 0)(0, clear)
    assert torch.allclose(frame_to_rgb(clear, coding), flat(RED), atol=0.01)


def test_gray_is_its_own_matrix() -> None:
    """Gray pictures have the same codes whatever the matrix is called."""
    coding = PixelCoding(matrix=9, full_range=True)
    ramp = (torch.arange(256.0) / 255).expand(3, 2, 256)
    frame = rgb_to_frame(ramp, "gray", coding=coding)
    assert np.array_equal(planes(frame)[0][0], np.arange(256))
    assert torch.allclose(frame_to_rgb(frame, coding), ramp, atol=1e-6)


@pytest.mark.parametrize("name", ["yuvj420p", "gbrap12le", "gray10be", "yuva444p16le", "yuv411p"])
def test_names_are_taken_apart_as_ffmpeg_means_them(name: str) -> None:
    layout, known = pixel_layout(name), av.VideoFormat(name)
    assert layout is not None
    assert layout.bits == known.components[0].bits
    assert layout.big_endian == known.is_big_endian
    assert layout.alpha == any(part.is_alpha for part in known.components)
    assert layout.jpeg == name.startswith("yuvj")
    ratios = (64 // known.chroma_width(64), 64 // known.chroma_height(64))
    assert layout.model == "gray" or layout.ratios == ratios


def test_unknown_things_are_said(caplog: pytest.LogCaptureFixture) -> None:
    assert pixel_layout("nv12") is None and pixel_layout("gbrpf32le") is None
    with pytest.raises(InputError, match="cannot be read"):
        planar_format("cuda")
    assert known_matrix(14) == 9 and "matrix 14" in caplog.text
    assert [guess_matrix(*size) for size in ((720, 576), (1280, 534), (640, 720))] == [6, 1, 1]
