"""Results find their references by name and folder; what does not fit is listed, never guessed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from restore.errors import InputError, OptionError
from restore.reports.pairing import Method, core, parse_methods, plan_pairs


def make(folder: Path, *names: str) -> Path:
    """A folder of empty files."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return folder


def plan(tmp_path: Path, results: list[str], truth: list[str]) -> tuple[dict[str, str], list[str]]:
    """Reference of each result, and the names of what is left."""
    own = make(tmp_path / "own", *results)
    true = make(tmp_path / "true", *truth)
    pairs, left = plan_pairs([Method(name="own", root=own)], true)
    found = {}
    for pair in pairs:
        assert pair.reference is not None
        result = pair.restored.relative_to(own).as_posix()
        found[result] = pair.reference.relative_to(true).as_posix()
    return found, sorted(f"{one.where}: {one.name}" for one in left)


def test_pairs_are_made_by_name_and_not_by_position(tmp_path: Path) -> None:
    found, left = plan(tmp_path, ["a.png", "c.jpg"], ["a.png", "b.png", "c.png"])
    assert found == {"a.png": "a.png", "c.jpg": "c.png"}
    assert left == ["reference: b.png"]


def test_folders_inside_pair_by_their_path(tmp_path: Path) -> None:
    found, left = plan(tmp_path, ["x/a.png", "y/a.png"], ["x/a.png", "z/a.png"])
    assert found == {"x/a.png": "x/a.png"}
    assert left == ["own: y/a.png", "reference: z/a.png"]


@pytest.mark.parametrize(
    ("results", "truth", "pairs"),
    [
        (["a_x4.png", "b_x2.5.png"], ["a.png", "b.png"], {"a_x4.png": "a.png"}),
        (["a_b_x4.png"], ["a.png", "a_b.png"], {"a_b_x4.png": "a_b.png"}),  # the longest
        (["a_out_x4.png"], ["a.png"], {"a_out_x4.png": "a.png"}),
        (["a_LR4_x4.png"], ["a_HR.png"], {"a_LR4_x4.png": "a_HR.png"}),
        (["a_LR4.png"], ["a_LR4.png", "a_HR.png"], {"a_LR4.png": "a_LR4.png"}),
        (["a-mine.png", "b-mine.png"], ["a.png", "b.png"], {"b-mine.png": "b.png"}),
        (["café.png"], ["café.png"], {"café.png": "café.png"}),
    ],
)
def test_endings_that_programs_add_are_seen_through(
    tmp_path: Path, results: list[str], truth: list[str], pairs: dict[str, str]
) -> None:
    found, _ = plan(tmp_path, results, truth)
    assert pairs.items() <= found.items()


@pytest.mark.parametrize(
    ("results", "truth", "left"),
    [
        # A number is a name of its own: 10 is not the result of img.
        (["img_10.png", "img.png"], ["img.png"], ["own: img_10.png"]),
        # Two endings that nobody knows: which one is an ending, and which is a name?
        (["a.png", "a_dog.png", "b_cat.png"], ["a.png", "b.png"], None),
        (["a.png", "a_x4.png"], ["a.png"], ["own: a_x4.png"]),
        (["a_x2.png", "a_x4.png", "b.png"], ["a.png", "b.png"], None),
        (["a.png", "a.jpg", "b.png"], ["a.png", "b.png"], None),
        (["a.mp4", "b.png"], ["a.png", "b.png"], ["own: a.mp4"]),
    ],
)
def test_what_fits_twice_or_not_at_all_is_listed(
    tmp_path: Path, results: list[str], truth: list[str], left: list[str] | None
) -> None:
    found, others = plan(tmp_path, results, truth)
    unpaired = {name for name in results if f"own: {name}" in others}
    assert set(found) | unpaired == set(results)
    assert unpaired
    if left is not None:
        assert others == left


def test_names_without_a_common_one_are_refused_with_examples(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"such as one\.png and two\.png"):
        plan(tmp_path, ["one.png"], ["two.png"])


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    empty = make(tmp_path / "empty", ".hidden.png", "notes.txt")
    with pytest.raises(InputError, match="holds no picture"):
        plan_pairs([Method(name="own", root=empty)], None)


def test_a_folder_that_cannot_be_read_is_not_left_out_of_the_means(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = make(tmp_path / "own", "a.png", "closed/b.png")
    real = os.scandir

    def scandir(path: str) -> Any:
        if Path(path).name == "closed":  # the mode of a folder does not keep root out
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(InputError, match="closed' cannot be read"):
        plan_pairs([Method(name="own", root=own)], None)


def test_two_files_pair_whatever_they_are_called(tmp_path: Path) -> None:
    folder = make(tmp_path, "one.png", "two.jpg", "three.mp4")
    own = [Method(name="own", root=folder / "one.png")]
    pairs, left = plan_pairs(own, folder / "two.jpg")
    assert [(p.restored.name, p.reference and p.reference.name) for p in pairs] == [
        ("one.png", "two.jpg")
    ]
    assert not left
    with pytest.raises(InputError, match="two of a kind"):
        plan_pairs(own, folder / "three.mp4")


def test_without_references_methods_share_plain_names(tmp_path: Path) -> None:
    a = Method(name="a", root=make(tmp_path / "a", "x_x4.png", "y_x2.png", "y_x4.png"))
    b = Method(name="b", root=make(tmp_path / "b", "x.png"))
    pairs, left = plan_pairs([a, b], None)
    assert [(p.method, p.key) for p in pairs] == [
        ("a", "x"),
        ("a", "y_x2"),
        ("a", "y_x4"),
        ("b", "x"),
    ]
    assert not left


def test_methods_have_names_of_their_own(tmp_path: Path) -> None:
    make(tmp_path / "a=b", "x.png")
    make(tmp_path / "c", "x.png")
    found = parse_methods([str(tmp_path / "a=b"), f"other={tmp_path / 'c'}"])
    assert [m.name for m in found] == ["a=b", "other"]
    with pytest.raises(OptionError, match="two sets"):
        parse_methods([str(tmp_path / "c"), f"c={tmp_path / 'c'}"])
    with pytest.raises(InputError, match="does not exist"):
        parse_methods([str(tmp_path / "d")])
    with pytest.raises(OptionError, match="nothing to measure"):
        parse_methods([])


def test_a_name_is_never_all_ending() -> None:
    assert core("hr") == "hr"
    assert core("a/b_HR") == "a/b"
    assert core("a/_hr") == "a/_hr"
