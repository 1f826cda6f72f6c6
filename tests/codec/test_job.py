"""Compressing files: what belongs to a picture comes back, one bad file stops nobody."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from codec.fake_codec import RATES, coder
from image.samples import HEIGHT, LIMIT, WIDTH, exif_block, gray_profile, picture, pillow, saved
from PIL import Image, ImageCms

import restore
from restore.bitstream import CHUNK_NAMES, read_container, write_container
from restore.codec.job import CodecDone, compress_images, decompress_images
from restore.errors import InputError, OptionError
from restore.image.events import Event, Failed, ImageReport, Skipped, Started
from restore.image.files import read_image, write_image

pytestmark = pytest.mark.usefixtures("fake")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    return here


def compress(*inputs: str, **settings: Any) -> ImageReport:
    return compress_images(list(inputs), coder=coder(), **settings)


def decompress(*inputs: str, **settings: Any) -> ImageReport:
    return decompress_images(list(inputs), coder=coder(), **settings)


def chunks(name: str) -> list[str]:
    return [CHUNK_NAMES[kind] for kind in read_container(Path(name).read_bytes()).chunks]


def both_ways(data: bytes, **settings: Any) -> restore.image.files.Picture:  # type: ignore[name-defined]
    """The picture that comes out of a file's bytes at the highest rate."""
    Path("in.bin").write_bytes(data)
    settings = {"bpp": 24, "metadata": "all", **settings}
    assert not compress("in.bin", output="x.rsc", overwrite=True, **settings).failed
    assert not decompress("x.rsc", output="x.png", overwrite=True).failed
    return read_image(Path("x.png"), max_pixels=LIMIT)


@pytest.mark.parametrize("mode", ["L", "RGB", "LA", "RGBA"])
def test_gray_stays_gray_and_alpha_is_exact(mode: str) -> None:
    data = saved(pillow(mode), "PNG")
    before, after = read_image(data, max_pixels=LIMIT), both_ways(data)
    assert after.size == (WIDTH, HEIGHT) and after.bit_depth == 8
    assert after.gray == mode.startswith("L")
    assert ("alpha" in chunks("x.rsc")) == mode.endswith("A")
    if before.alpha is None:
        assert after.alpha is None
    else:
        assert torch.equal(after.alpha, before.alpha)  # type: ignore[arg-type]
    assert (after.rgb - before.rgb).abs().mean() < 0.1


def test_alpha_that_is_opaque_everywhere_takes_no_bytes() -> None:
    image = pillow("RGB").convert("RGBA")
    assert both_ways(saved(image, "PNG")).alpha is None
    assert chunks("x.rsc") == []


def test_sixteen_bits_come_out_as_eight_and_it_is_said() -> None:
    write_image(picture(depth=16, alpha=True), Path("deep.png"))
    report = compress("deep.png")
    assert "16 bits" in report.done[0].notes[0]
    assert not decompress("deep.rsc", output="out").failed
    assert read_image(Path("out/deep.png"), max_pixels=LIMIT).bit_depth == 8


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_a_turned_photo_comes_out_upright(orientation: int) -> None:
    data = saved(pillow(), "JPEG", exif=b"Exif\0\0" + exif_block(orientation), quality=95)
    before, after = read_image(data, max_pixels=LIMIT), both_ways(data)
    assert after.size == before.size
    assert after.size == ((HEIGHT, WIDTH) if orientation > 4 else (WIDTH, HEIGHT))
    assert after.exif == before.exif and "exif" in chunks("x.rsc")
    assert (after.rgb - before.rgb).abs().mean() < 0.1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_of_a_file_is_obeyed(orientation: int) -> None:
    """Writers that keep the pixels of the camera as they are may say how they are turned."""
    from dataclasses import replace

    from restore.image.decode import turn_upright

    upright = both_ways(saved(pillow("RGBA"), "PNG"))
    file = read_container(Path("x.rsc").read_bytes())
    Path("x.rsc").write_bytes(write_container(replace(file, orientation=orientation)))
    assert not decompress("x.rsc", output="y.png", overwrite=True).failed
    turned = read_image(Path("y.png"), max_pixels=LIMIT)
    assert torch.equal(turned.rgb, turn_upright(upright.rgb, orientation))
    assert torch.equal(turned.alpha, turn_upright(upright.alpha, orientation))  # type: ignore


def test_profiles_are_kept_unless_they_say_srgb() -> None:
    wide = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert both_ways(saved(pillow(), "PNG", icc_profile=srgb)).icc is None
    assert chunks("x.rsc") == []
    gray = gray_profile()
    assert both_ways(saved(pillow("L"), "PNG", icc_profile=gray)).icc == gray
    assert both_ways(saved(pillow("L"), "PNG", icc_profile=gray), metadata="none").icc is None
    assert both_ways(saved(pillow(), "PNG", icc_profile=wide)).icc is None  # not for RGB


def test_metadata_is_what_is_asked_for() -> None:
    data = saved(pillow(), "JPEG", exif=b"Exif\0\0" + exif_block(1))
    Path("a.jpg").write_bytes(data)
    for choice, found in (("none", []), ("icc", []), ("all", ["exif"])):
        compress("a.jpg", metadata=choice, overwrite=True)
        assert chunks("a.rsc") == found


def test_true_bits_per_pixel_are_those_of_the_file() -> None:
    Image.effect_noise((200, 100), 60).convert("RGB").save("a.png")
    done = compress("a.png", bpp=0.03).done[0]
    assert isinstance(done, CodecDone)
    assert done.bytes == Path("a.rsc").stat().st_size
    assert done.bpp == 8 * done.bytes / 20_000 and done.nominal_bpp == 8 / 256
    assert done.codec == "fake" and done.rate == 1
    back = decompress("a.rsc", output="b.png").done[0]
    assert isinstance(back, CodecDone)
    assert (back.bytes, back.bpp, back.rate) == (done.bytes, done.bpp, 1)


def test_one_bad_file_does_not_stop_the_others() -> None:
    for name in ("c", "a"):
        Path(f"{name}.png").write_bytes(saved(pillow(), "PNG"))
    Path("b.png").write_bytes(b"")
    Path("d.rsc").write_bytes(b"")
    Path("d.png").write_bytes(saved(pillow(), "PNG"))
    events: list[Event] = []
    report = compress(".", skip_existing=True, on_event=events.append)
    kinds = [Started, CodecDone, Started, Failed, Started, CodecDone, Skipped]
    assert [type(event) for event in events] == kinds
    assert report.failed == [("b.png", "it is empty (0 bytes); get a whole copy")]
    assert sorted(path.name for path in Path().glob("*.rsc")) == ["a.rsc", "c.rsc", "d.rsc"]
    report = decompress(".", output="out")
    assert [Path(done.destination).name for done in report.done] == ["a.png", "c.png"]
    assert report.failed == [("d.rsc", "it is empty (0 bytes); get a whole copy")]
    assert not list(Path().rglob("*.tmp"))


def test_a_tree_is_mirrored_and_names_do_not_clash() -> None:
    for name in ("in/x.png", "in/deep/x.jpg", "in/deep/x.png", "in/.hidden.png"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(saved(pillow(), "PNG"))
    compress("in", output="out", recursive=True)
    found = sorted(str(path) for path in Path("out").rglob("*.rsc"))
    assert found == ["out/deep/x_jpg.rsc", "out/deep/x_png.rsc", "out/x.rsc"]
    assert not compress("in/**/*.png", output="flat").failed


def test_results_are_never_written_over_unless_it_is_asked_for() -> None:
    Path("a.png").write_bytes(saved(pillow(), "PNG"))
    compress("a.png")
    before = Path("a.rsc").read_bytes()
    report = compress("a.png", bpp=24)
    assert "add --skip-existing or --overwrite" in report.failed[0][1]
    assert Path("a.rsc").read_bytes() == before
    compress("a.png", bpp=24, overwrite=True)
    assert Path("a.rsc").read_bytes() != before
    assert "already there" in decompress("a.rsc").failed[0][1]
    with pytest.raises(OptionError, match="a picture's name"):
        compress("a.png", output="a.png")
    Path("b.rsc").symlink_to("a.png")
    assert "overwrite an input" in compress("a.png", output="b.rsc", overwrite=True).failed[0][1]


def test_pictures_that_cannot_be_are_one_line() -> None:
    file = read_container(coder().compress(torch.rand(1, 3, 9, 9))["strings"][0][0])
    from dataclasses import replace

    for name, change, message in (
        ("big", {"width": 1 << 20, "height": 1 << 20}, "above the limit"),
        ("alpha", {"chunks": {2: b"no png"}}, "alpha cannot be read"),
        ("small", {"chunks": {2: saved(pillow("L"), "PNG")}}, "alpha cannot be read|no gray PNG"),
        ("color", {"chunks": {2: saved(pillow().crop((0, 0, 9, 9)), "PNG")}}, "no gray PNG of 9x9"),
        ("cicp", {"chunks": {3: b"abc"}}, "cicp has 3 bytes"),
    ):
        Path("x.rsc").write_bytes(write_container(replace(file, **change)))  # type: ignore[arg-type]
        ((_, said),) = decompress("x.rsc", output="x.png", overwrite=True).failed
        assert any(part in said for part in message.split("|")), name
        assert "\n" not in said
    odd = replace(file, chunks={1: b"no profile", 0x81: b"II*\0 no exif", 0x82: b"<x/>"})
    Path("x.rsc").write_bytes(write_container(odd))
    (done,) = decompress("x.rsc", output="x.png", overwrite=True).done
    assert len(done.notes) == 2


def test_streams_go_through_stdin_and_stdout(monkeypatch: pytest.MonkeyPatch) -> None:
    def streams(content: bytes) -> io.BytesIO:
        out = io.BytesIO()
        for name, buffer in (("stdin", io.BytesIO(content)), ("stdout", out)):
            fake = SimpleNamespace(buffer=buffer, isatty=lambda: False)
            monkeypatch.setattr(sys, name, fake)
        return out

    coded = streams(saved(pillow(), "JPEG"))
    assert compress("-", output="-").done[0].source == "-"
    decoded = streams(coded.getvalue())
    assert not decompress("-", output="-", ext="webp").failed
    result = read_image(decoded.getvalue(), max_pixels=LIMIT)
    assert result.format == "webp" and result.size == (WIDTH, HEIGHT)
    with pytest.raises(OptionError, match="want stdout"):
        compress("-", json=True)
    with pytest.raises(OptionError, match="one stream"):
        compress("-", "a.png")


def test_size_and_quality_choose_the_rate() -> None:
    Image.effect_noise((160, 160), 60).convert("RGB").save("a.png")
    sizes = []
    for rate in RATES:
        done = compress("a.png", bpp=rate.bpp, overwrite=True).done[0]
        assert isinstance(done, CodecDone)
        sizes.append(done.bytes)
    done = compress("a.png", size=f"{sizes[2] / 1000:.3f}kB", overwrite=True).done[0]
    assert isinstance(done, CodecDone) and done.bytes == sizes[2]
    assert "its smallest file" in compress("a.png", size="9", overwrite=True).failed[0][1]
    done = compress("a.png", quality="psnr=1", overwrite=True).done[0]
    assert isinstance(done, CodecDone) and done.rate == 0
    assert "has ssim" in compress("a.png", quality="ssim=1", overwrite=True).failed[0][1]


def test_the_report_is_what_compressais_plot_reads() -> None:
    for i in range(2):
        Image.effect_noise((64, 64), 60 + i).convert("RGB").save(f"{i}.png")
    done = compress(".", report="curve.json", bpp=0.1).done
    content = json.loads(Path("curve.json").read_text())
    assert content["name"] == "fake"
    results = content["results"]
    assert {"bpp", "psnr-rgb", "ssim-y", "encoding_time", "decoding_time"} <= set(results)
    assert all(len(values) == 1 for values in results.values())
    assert results["bpp"][0] == pytest.approx(np.mean([d.bpp for d in done]))  # type: ignore


def test_a_coder_makes_and_reads_single_files() -> None:
    Path("a.png").write_bytes(saved(pillow(), "PNG"))
    engine = restore.load_codec("fake", device="cpu")
    assert engine.encode_file("a.png", "a.rsc", bpp=0.4).bytes == Path("a.rsc").stat().st_size
    assert engine.decode_file("a.rsc", "b.png").size_out == (WIDTH, HEIGHT)
    with pytest.raises(InputError, match="no such file"):
        engine.decode_file("none.rsc", "b.png")
    with pytest.raises(OptionError, match="unknown setting 'scale'"):
        restore.load_codec("fake", scale=2)
