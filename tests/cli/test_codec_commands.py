"""compress, decompress and info: flags reach the settings, events become lines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from codec.fake_codec import FakeCodec, fake, weights
from PIL import Image

from restore.cli.commands import app
from restore.cli.model_lines import codec_lines
from restore.codec_config import CompressConfig, DecompressConfig, parse_bytes, parse_quality
from restore.errors import OptionError
from restore.inventory import describe_codec
from restore.registry import CODECS, codec_class

__all__ = ["fake", "weights"]


def run(*arguments: str, **settings: Any) -> Result:
    return CliRunner().invoke(app, arguments, **settings)


@pytest.fixture
def photo(
    fake: type[FakeCodec],
    weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """A picture in the current folder, and the fake codec by its name."""
    monkeypatch.setattr("restore.registry.codec_class", lambda name: fake)
    monkeypatch.setattr("restore.inventory.codec_class", lambda name: fake)
    monkeypatch.setattr("restore.inventory.locate_weights", lambda name: weights)
    monkeypatch.chdir(tmp_path)
    Image.effect_noise((100, 80), 50).convert("RGB").save("photo.png")
    return Path("photo.png")


def test_there_and_back_says_true_bits_per_pixel(photo: Path) -> None:
    result = run("compress", str(photo), "-n", "fake", "--bpp", "0.0313")
    size = Path("photo.rsc").stat().st_size
    assert result.exit_code == 0
    assert f"photo.png -> photo.rsc (100x80, {size} bytes, {8 * size / 8000:.4f} bpp, " in (
        result.stderr
    )
    assert "fake at 0.03125 bpp" in result.stderr
    result = run("decompress", "photo.rsc", "-o", "out.webp", "--quality", "80")
    assert result.exit_code == 0 and "photo.rsc -> out.webp (100x80, " in result.stderr
    assert Image.open("out.webp").size == (100, 80)


def test_json_tells_the_same(photo: Path) -> None:
    result = run("compress", str(photo), "-n", "fake", "--json")
    events = [json.loads(line) for line in result.stdout.splitlines()]
    assert [event["event"] for event in events] == ["started", "done", "summary"]
    assert events[1]["bytes"] == Path("photo.rsc").stat().st_size
    assert events[1]["bpp"] == 8 * events[1]["bytes"] / 8000


def test_info_says_the_header_and_decodes_nothing(photo: Path, fake: type[FakeCodec]) -> None:
    run("compress", str(photo), "-n", "fake", "--bpp", "0.003")
    fake.decode = None  # type: ignore[assignment, method-assign]
    result = run("info", "photo.rsc")
    assert result.exit_code == 0
    assert "photo.rsc: 100x80" in result.stdout
    assert "codec: fake, rate 0 (0.00390625 bpp)" in result.stdout
    values = json.loads(run("info", "photo.rsc", "--json").stdout)
    assert (values["codec"], values["width"], values["height"]) == ("fake", 100, 80)
    assert values["bytes"] == Path("photo.rsc").stat().st_size


def test_info_of_other_files_is_one_line_each(photo: Path) -> None:
    result = run("info", str(photo), "none.rsc")
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 2
    assert "not a picture of 'restore compress'" in result.stderr
    assert "no such file" in result.stderr
    assert run("info").exit_code == 2


def test_failures_are_listed_and_the_status_is_1(photo: Path) -> None:
    Path("bad.rsc").write_bytes(b"\x8fRSC damaged, all of it, to the very end")
    result = run("decompress", "bad.rsc")
    assert result.exit_code == 1
    assert "restore: failed: bad.rsc: it has version 32" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--bpp", "0.1", "--size", "9kB"), "both --bpp and --size were given"),
        (("--bpp", "0"), "bpp 0 is not possible"),
        (("--size", "big"), "size 'big' is not possible"),
        (("--quality", "ssim=2"), "quality 'ssim=2' is not possible"),
        (("--overwrite", "--skip-existing"), "give one of them"),
        (("--tile", "3"), "tile 3 is too small"),
        (("--seed", "-1"), "seed -1 is negative"),
        (("--max-pixels", "0"), "max pixels 0"),
    ],
)
def test_settings_that_cannot_be_are_one_line(
    photo: Path, arguments: tuple[str, ...], message: str
) -> None:
    result = run("compress", str(photo), *arguments)
    assert result.exit_code == 2 and message in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_an_unknown_codec_is_named_with_those_that_are_known(fake: type[FakeCodec]) -> None:
    with pytest.raises(OptionError, match="unknown codec 'fate'; did you mean 'fake'"):
        codec_class("fate")


def test_sizes_and_qualities_are_read() -> None:
    texts = ["900", "20kB", "64KiB", "1.5MB", "2 m"]
    assert [parse_bytes(text) for text in texts] == [900, 20_000, 65_536, 1_500_000, 2_000_000]
    assert parse_quality("SSIM=0.9") == ("ssim", 0.9) and parse_quality("psnr=30.5")[1] == 30.5
    for text in ("", "-1", "0", "9 GB", "kB"):
        with pytest.raises(OptionError):
            parse_bytes(text)
    for text in ("vmaf=90", "ssim", "psnr=nan", "lpips=-1"):
        with pytest.raises(OptionError):
            parse_quality(text)
    assert CompressConfig().max_pixels == DecompressConfig().max_pixels
    with pytest.raises(OptionError, match="quality 0"):
        DecompressConfig(quality=0)


def test_models_list_shows_codecs(photo: Path) -> None:
    entry = describe_codec("fake")
    assert entry.kind == "codec" and entry.ready and entry.commercial_use
    assert "rates in bits per pixel: 0.00390625 0.03125 0.140625 0.46875" in "\n".join(
        codec_lines(entry)
    )
    assert "fake" in CODECS
    text = run("models", "list").stdout
    assert "Codecs for 'restore compress':" in text and "fake (codec): for tests" in text
    lines = [json.loads(line) for line in run("models", "list", "--json").stdout.splitlines()]
    assert [line["name"] for line in lines if line["kind"] == "codec" and line["name"] == "fake"]
    assert "fake (codec): for tests" in run("models", "info", "fake").stdout
