"""Names, folders and patterns become files, and nothing is passed over in silence."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from restore.codec.plan import plan_files
from restore.codec_config import CompressConfig
from restore.data_config import DegradeConfig
from restore.degrading.plan import plan_degradation
from restore.inputs import Found, expand, identities, look_at, unique


def found_in(name: Path, *, output: Path | None = None, recursive: bool = True) -> list[Found]:
    return list(
        expand(
            str(name),
            recursive=recursive,
            output=output,
            is_known=lambda path: path.suffix == ".png" and not path.name.startswith("."),
            what="picture",
            looked_for="looked for .png",
        )
    )


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_hidden_files_and_the_output_folder_are_left_out(tmp_path: Path) -> None:
    shown = tmp_path / "deep" / "b.png"
    touch(shown, tmp_path / ".a.png", tmp_path / ".trash" / "c.png", tmp_path / "out" / "d.png")
    (tmp_path / "link").symlink_to("out")
    found = found_in(tmp_path, output=tmp_path / "link")
    assert [(item.path, item.root, item.problem) for item in found] == [(shown, tmp_path, "")]


def test_a_pattern_that_matches_nothing_is_one_failure(tmp_path: Path) -> None:
    touch(tmp_path / "a.txt")
    (item,) = found_in(tmp_path / "*.???")
    assert item.problem == "no picture matches this pattern; looked for .png"


def test_an_empty_folder_names_the_flag_for_folders_below(tmp_path: Path) -> None:
    touch(tmp_path / "deep" / "a.png")
    assert "--recursive" in found_in(tmp_path, recursive=False)[0].problem
    assert found_in(tmp_path)[0].problem == ""


def test_named_wins_over_found_and_the_first_place_stays(tmp_path: Path) -> None:
    touch(tmp_path / "a.png", tmp_path / "b.png")
    again = tmp_path / "x" / ".." / "a.png"
    (tmp_path / "x").mkdir()
    kept = unique([*found_in(tmp_path), *found_in(again)])
    assert [(item.path.name, item.named) for item in kept] == [("a.png", True), ("b.png", False)]


def test_a_result_that_is_an_input_by_another_name_is_seen(tmp_path: Path) -> None:
    source, other = tmp_path / "a.png", tmp_path / "b.png"
    touch(source)
    other.hardlink_to(source)
    originals = identities([source, tmp_path / "missing.png"])
    assert look_at(other, originals).original == source
    assert not look_at(tmp_path / "missing.png", originals).taken


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root reads every folder")
@pytest.mark.parametrize("command", ["compress", "degrade"])
def test_a_folder_that_cannot_be_read_fails_and_takes_no_name(tmp_path: Path, command: str) -> None:
    root, output = tmp_path / "in", str(tmp_path / "out")
    touch(root / "a.png")
    (root / "a").mkdir(mode=0o000)
    try:
        if command == "compress":
            jobs = plan_files([root], CompressConfig(output=output, recursive=True))
        else:
            jobs = plan_degradation([root], DegradeConfig(output=output, recursive=True))
    finally:
        (root / "a").chmod(0o700)
    good, bad = jobs
    assert good.destination is not None and good.destination.stem == "a"
    assert bad.verdict == "fail" and "cannot be read" in bad.reason
