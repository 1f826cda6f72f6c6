"""Where a prompt's words come from: options, a file of tags for each picture, the tagger."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from published import picture
from published_ram import write_tiny

import restore
from restore.config import ImageConfig
from restore.errors import InputError, OptionError, WeightsError
from restore.models.osediff import OSEDiff
from restore.models.parts.tagging import Tagging


@pytest.fixture
def settings(
    tiny_base: Path, osediff_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Any]:
    """OSEDiff with small pictures and no tagger about."""
    monkeypatch.setattr(OSEDiff, "smallest", 64)
    monkeypatch.setenv("RESTORE_CACHE", str(tmp_path / "cache"))
    return {
        "model": "osediff",
        "weights": str(osediff_file),
        "base": str(tiny_base),
        "device": "cpu",
        "posterior": "mode",
    }


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("one", "two"):
        array = (picture(16, 20, 5)[0].permute(1, 2, 0) * 255).byte().numpy()
        Image.fromarray(array).save(folder / f"{name}.png")
    return folder


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every prompt that was embedded."""
    from restore.models.parts.prompts import Prompts

    prompts: list[str] = []
    embed = Prompts.embed

    def remember(self: Prompts, text: str) -> Any:
        prompts.append(text)
        return embed(self, text)

    monkeypatch.setattr(Prompts, "embed", remember)
    return prompts


def run(pictures: Path, settings: dict[str, Any], **more: Any) -> restore.ImageReport:
    config = ImageConfig(**settings, output=str(pictures.parent / "out"), **more)
    return restore.restore_images(pictures, config=config)


def test_each_picture_gets_its_own_tags(
    pictures: Path, settings: dict[str, Any], asked: list[str]
) -> None:
    tags = pictures.parent / "tags.json"
    tags.write_text(json.dumps({"one": "a dog, grass", "two": ["a cat"]}))
    report = run(pictures, settings, tags_file=str(tags), prompt="old photo")
    assert not report.failed
    assert asked == ["a dog, grass, old photo,", "a cat, old photo,"]


def test_a_picture_without_tags_fails_alone(
    pictures: Path, settings: dict[str, Any], asked: list[str]
) -> None:
    tags = pictures.parent / "tags.tsv"
    tags.write_text("two\ta cat\n")
    report = run(pictures, settings, tags_file=str(tags))
    assert [Path(name).stem for name, _ in report.failed] == ["one"]
    assert "no tags for 'one'" in report.failed[0][1]
    assert asked == ["a cat, ,"]


def test_a_file_of_tags_that_cannot_be_read_or_used_stops_before_any_work(
    pictures: Path, settings: dict[str, Any]
) -> None:
    with pytest.raises(InputError, match="no tags at"):
        run(pictures, settings, tags_file="nowhere.json")
    tags = pictures.parent / "tags.tsv"
    tags.write_text("two\ta cat\n")
    with pytest.raises(OptionError, match="'compact' takes no tags"):
        run(pictures, {"device": "cpu"}, tags_file=str(tags))


def test_the_tagger_finds_tags_and_remembers_them(
    pictures: Path,
    settings: dict[str, Any],
    asked: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ram, dape = write_tiny(tmp_path)
    tagger = {"tagger": str(ram), "tagger_adapter": str(dape)}
    assert not run(pictures, settings, **tagger).failed
    assert len(asked) == 2
    assert asked[0] == asked[1]  # the same picture twice
    assert asked[0].endswith(", ,")
    first = list(asked)
    from restore.models.parts.ram.tagger import Tagger

    monkeypatch.delattr(Tagger, "load")  # not needed again, in another run
    assert not run(pictures, settings, overwrite=True, **tagger).failed
    assert asked[2:] == first


def test_a_missing_tagger_is_said_before_any_work(
    pictures: Path, settings: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(WeightsError, match="no weight file"):
        run(pictures, settings, tagger=str(tmp_path / "none.pth"))


def test_restoring_without_words_is_said_once(
    settings: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        restore.load(**settings)
    assert [r.message for r in caplog.records if "restores better with tags" in r.message]
    caplog.clear()
    restore.load(**settings, tagger="none", prompt="a dog")
    assert not caplog.records


@pytest.mark.parametrize(
    ("words", "prompt"),
    [
        ({}, ""),
        ({"prompt": "a dog"}, "a dog"),
        ({"tags": "a, b"}, "a, b, ,"),
        ({"tags": "a, b", "prompt": "c"}, "a, b, c,"),
        ({"tags": ""}, ""),
    ],
)
def test_the_prompt_is_written_as_osediff_writes_it(words: dict[str, str], prompt: str) -> None:
    tagging = Tagging()
    tagging.tune(**words)
    assert tagging.prompts(picture(8, 8, 1)) == [prompt]
