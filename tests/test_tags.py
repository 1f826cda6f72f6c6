"""Tags from files."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import pytest

from restore.config import ImageConfig
from restore.errors import InputError, OptionError
from restore.method import MethodSpec
from restore.tags import read_tags, tags_of


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_all_forms_say_the_same(tmp_path: Path) -> None:
    folder = tmp_path / "txt"
    folder.mkdir()
    write(folder / "one.txt", "cat, red car")
    write(folder / "two.txt", "")
    forms = [
        folder,
        write(tmp_path / "a.json", json.dumps({"one": "cat, red car", "two": ""})),
        write(tmp_path / "b.json", json.dumps({"one": ["cat", "red car"], "two": []})),
        write(tmp_path / "c.tsv", "one\tcat, red car\n\ntwo\t\n"),
        write(tmp_path / "d.txt", "\ufeffone\tcat, red car\r\ntwo\t\r\n"),
    ]
    for path in forms:
        assert read_tags(path).by_stem == {"one": "cat, red car", "two": ""}, path


@pytest.mark.parametrize(
    ("saved", "tags"),
    [("cat, red car, ,", "cat, red car"), ("cat, at night,", "cat, at night"), (", ,", "")],
)
def test_prompts_that_osediff_saved_are_tags_again(tmp_path: Path, saved: str, tags: str) -> None:
    write(tmp_path / "one.txt", saved)
    assert read_tags(tmp_path).of("one") == tags


def test_names_with_accents_are_found_in_either_spelling(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", json.dumps({unicodedata.normalize("NFD", "été"): "sun"}))
    assert read_tags(path).of(unicodedata.normalize("NFC", "été")) == "sun"


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.json", "{", "not JSON"),
        ("a.json", "[]", "no JSON object"),
        ("a.json", '{"one": 3}', "'one' are no text"),
        ("a.json", '{"one": {"two": "b"}}', "'one' are no text"),
        ("a.json", '{"one": "a", "one": "b"}', "'one' twice"),
        ("a.json", "{}", "holds no tags"),
        ("a.tsv", "one\ta\ntwo b\n", "line 2: no tab"),
        ("a.tsv", "one\ta\none\tb\n", "'one' twice"),
        ("a.tsv", "\n", "holds no tags"),
        ("a.csv", "one,a\n", "no tags file by its name"),
    ],
)
def test_errors_are_one_line_and_name_the_file(
    tmp_path: Path, name: str, text: str, says: str
) -> None:
    path = write(tmp_path / name, text)
    with pytest.raises(InputError) as caught:
        read_tags(path)
    assert says in str(caught.value)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no tags at .*nowhere\.json"):
        read_tags(tmp_path / "nowhere.json")
    with pytest.raises(InputError, match="holds no tags"):
        read_tags(tmp_path)
    (tmp_path / "a.tsv").write_bytes(b"one\t\xff\xfe\n")
    with pytest.raises(InputError, match="not text in UTF-8"):
        read_tags(tmp_path / "a.tsv")
    tags = read_tags(write(tmp_path / "b.tsv", "one\ta\ntwo\tb\n"))
    with pytest.raises(InputError, match=r"no tags for 'three' .* 'one', 'two' \(2 in all\)"):
        tags.of("three")


def test_only_a_model_that_takes_tags_gets_them(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", "one\ta\n")
    plain = MethodSpec(name="plain", summary="", scale=4, overlap=0)
    wordy = MethodSpec(name="wordy", summary="", scale=4, overlap=0, options=("tags",))
    config = ImageConfig(tags_file=str(path))
    with pytest.raises(OptionError, match="plain"):
        tags_of(config, plain)
    tags = tags_of(config, wordy)
    assert tags is not None
    assert tags.of("one") == "a"
    assert tags_of(ImageConfig(), plain) is None
