"""Which pictures a run takes, and where each result goes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from image.samples import pillow, saved

from restore.config import ImageConfig
from restore.errors import OptionError
from restore.image.plan import Job, plan_images

PNG = saved(pillow(), "PNG")
JPG = saved(pillow(), "JPEG")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Each test works in an empty folder of its own, with relative names."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def put(*names: str, data: bytes = PNG) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(JPG if name.lower().endswith((".jpg", ".jpeg")) else data)


def plan(*inputs: str, **settings: Any) -> list[Job]:
    return plan_images(inputs, ImageConfig(**settings), method_scale=4)


def moves(*inputs: str, **settings: Any) -> dict[str, str]:
    """Inputs that would be restored, and where their results go."""
    jobs = plan(*inputs, **settings)
    return {str(j.source): str(j.destination) for j in jobs if j.verdict == "run"}


def verdicts(*inputs: str, **settings: Any) -> dict[str, tuple[str, str]]:
    return {str(j.source): (j.verdict, j.reason) for j in plan(*inputs, **settings)}


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({}, "a_x4.png"),
        ({"scale": 2.5}, "a_x2.5.png"),
        ({"target": "3840x2160"}, "a_3840x2160.png"),
        ({"target": "1080P"}, "a_1080p.png"),
        ({"suffix": "-big"}, "a-big.png"),
        ({"ext": "webp"}, "a_x4.webp"),
        ({"output": "out"}, "out/a.png"),
        ({"output": "out", "suffix": "_x"}, "out/a_x.png"),
        ({"output": "out/"}, "out/a.png"),
        ({"output": "b.tif"}, "b.tif"),
        ({"output": "new/deep/b.jpg"}, "new/deep/b.jpg"),
        ({"output": "."}, "a_x4.png"),  # the folder of the input itself
        ({"output": "v1.2/"}, "v1.2/a.png"),
    ],
)
def test_the_name_of_a_result_follows_from_the_settings(
    settings: dict[str, Any], name: str
) -> None:
    put("a.png")
    assert moves("a.png", **settings) == {"a.png": name}


@pytest.mark.parametrize(
    ("name", "data", "result"),
    [
        ("a.JPEG", JPG, "a_x4.JPEG"),
        ("a.jpg", PNG, "a_x4.png"),  # the content decides
        ("a.png", JPG, "a_x4.jpg"),
        ("a", PNG, "a_x4.png"),
        ("a.b.tif", saved(pillow(), "TIFF"), "a.b_x4.tif"),
        ("a.gif", saved(pillow().quantize(8), "GIF"), "a_x4.png"),  # cannot be written
        ("a.bmp", saved(pillow(), "BMP"), "a_x4.png"),
    ],
)
def test_auto_keeps_the_format_of_the_content(name: str, data: bytes, result: str) -> None:
    Path(name).write_bytes(data)
    assert moves(name) == {name: result}


def test_a_folder_is_taken_sorted_without_hidden_and_other_files() -> None:
    put("in/b.png", "in/a.jpg", "in/.hidden.png", "in/notes.txt", "in/sub/c.png", "in/C.PNG")
    assert list(moves("in")) == ["in/C.PNG", "in/a.jpg", "in/b.png"]


def test_recursion_mirrors_the_tree_and_leaves_out_hidden_folders_and_the_output() -> None:
    put("in/a.png", "in/sub/a.png", "in/.git/a.png", "in/out/old.png", "in/sub/deep/b.jpg")
    assert moves("in", recursive=True, output="in/out") == {
        "in/a.png": "in/out/a.png",
        "in/sub/a.png": "in/out/sub/a.png",
        "in/sub/deep/b.jpg": "in/out/sub/deep/b.jpg",
    }


def test_a_link_that_leads_round_ends() -> None:
    put("in/sub/a.png")
    Path("in/sub/round").symlink_to(Path("in").absolute())
    assert list(moves("in", recursive=True)) == ["in/sub/a.png"]


def test_patterns_mirror_from_their_fixed_part_and_take_pictures_only() -> None:
    put("p/one/a.png", "p/two/b.jpg", "p/two/b.txt", "p/two/.c.png")
    assert moves("p/**/*", output="out") == {
        "p/one/a.png": "out/one/a.png",
        "p/two/b.jpg": "out/two/b.jpg",
    }
    assert list(moves("p/*/?.png")) == ["p/one/a.png"]


def test_a_name_with_brackets_is_a_name_where_it_exists() -> None:
    put("a[1].png", "a1.png")
    assert list(moves("a[1].png")) == ["a[1].png"]


def test_a_pattern_or_folder_without_pictures_fails_and_says_what_was_looked_for() -> None:
    put("in/readme.txt", "in/sub/a.png")
    for name in ("in", "*.jpg"):
        verdict, reason = verdicts(name)[name]
        assert verdict == "fail" and ".webp" in reason
    assert "--recursive" in verdicts("in")["in"][1]


def test_an_input_given_twice_is_taken_once() -> None:
    put("in/a.png")
    assert len(plan("in/a.png", "./in/a.png", "in", "in/*.png", "in/../in/a.png")) == 1


def test_a_file_that_is_named_is_always_tried() -> None:
    put("notes.txt", ".a.png")
    assert set(moves("notes.txt", ".a.png", "missing.png")) == {
        "notes.txt", ".a.png", "missing.png",
    }  # fmt: skip


def test_earlier_results_are_not_taken_for_inputs() -> None:
    put("in/a.png", "in/a_x4.png", "in/b.JPG", "in/b_x4.JPG", "in/alone_x4.png", "in/_x4.png")
    put("in/c.jpg", "in/c_jpg_x4.png", "in/a_x2.5.webp", "in/a_1080p.png", "in/a_new.png")
    found = verdicts("in", overwrite=True)
    skipped = {name for name, (verdict, _) in found.items() if verdict == "skip"}
    of_this_run = {"in/a_x4.png", "in/b_x4.JPG", "in/c_jpg_x4.png"}
    assert skipped == of_this_run | {"in/a_x2.5.webp", "in/a_1080p.png"}
    found = verdicts("in", overwrite=True, suffix="_new")
    assert found["in/a_new.png"][0] == "skip"
    assert "earlier result of 'a.png'" in found["in/a_x4.png"][1]
    assert "in/a_x4.png" in moves("in/a_x4.png")  # unless it is named


def test_a_second_run_over_a_folder_has_nothing_to_do() -> None:
    put("in/a.png", "in/a.jpg")
    for _ in range(2):
        for job in plan("in", ext="png", skip_existing=True):
            if job.verdict == "run" and job.destination is not None:
                put(str(job.destination))
    assert {v for v, _ in verdicts("in", ext="png", skip_existing=True).values()} == {"skip"}
    assert len(list(Path("in").iterdir())) == 4


def test_results_that_would_share_a_name_keep_the_suffix_of_their_inputs() -> None:
    put("a.png", "a.jpg", "b.png")
    assert moves("a.png", "a.jpg", "b.png", ext="png") == {
        "a.png": "a_png_x4.png",
        "a.jpg": "a_jpg_x4.png",
        "b.png": "b_x4.png",
    }
    assert moves("a.png", "a.jpg", output="out") == {"a.png": "out/a.png", "a.jpg": "out/a.jpg"}


def test_results_that_share_a_name_all_the_same_are_refused() -> None:
    put("one/a.png", "two/a.png")
    with pytest.raises(OptionError, match=r"'one/a.png' and 'two/a.png' would both become"):
        plan("one", "two", output="out")


@pytest.mark.parametrize("output", ["a.png", "sub/../a.png"])
def test_an_input_is_not_the_place_of_its_own_result(output: str) -> None:
    put("a.png", "sub/b.png")
    verdict, reason = verdicts("a.png", output=output, overwrite=True)["a.png"]
    assert verdict == "fail" and "would overwrite the input 'a.png'" in reason


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_a_link_to_an_input_is_not_the_place_of_a_result(link: Callable[..., None]) -> None:
    put("a.png", "b.png")
    Path("out").mkdir()
    link(Path("b.png").absolute(), "out/a.png")
    found = verdicts("a.png", "b.png", output="out", overwrite=True)
    assert found["a.png"][0] == "fail" and "overwrite the input 'b.png'" in found["a.png"][1]
    assert found["b.png"][0] == "run"


def test_the_result_of_one_input_does_not_replace_another_input() -> None:
    put("a.png", "a_x4.png")
    found = verdicts("a.png", "a_x4.png", overwrite=True)
    assert found["a.png"][0] == "fail" and found["a_x4.png"][0] == "run"


def test_what_exists_is_kept_unless_the_user_says_otherwise() -> None:
    put("a.png", "out/a.png")
    assert verdicts("a.png", output="out")["a.png"][0] == "fail"
    assert "--overwrite" in verdicts("a.png", output="out")["a.png"][1]
    assert verdicts("a.png", output="out", skip_existing=True)["a.png"][0] == "skip"
    assert verdicts("a.png", output="out", overwrite=True)["a.png"][0] == "run"


def test_a_name_with_no_room_for_the_suffix_fails_before_any_work() -> None:
    name = "a" * 251 + ".png"
    put(name)
    verdict, reason = verdicts(name)[name]
    assert verdict == "fail" and "shorter name" in reason


@pytest.mark.parametrize(
    ("inputs", "settings", "why"),
    [
        ((), {}, "no input"),
        (("a.png", "b.png"), {"output": "one.png"}, "give a folder"),
        (("in",), {"output": "one.png"}, "give a folder"),
        (("a.png",), {"output": "b.xyz"}, "use one of"),
        (("a.png",), {"output": "b.png", "ext": "jpg"}, "disagree"),
        (("a.png",), {"suffix": "../x"}, "holds a path"),
        (("-", "a.png"), {}, "give it alone"),
        (("-",), {"output": "out/"}, "not a file name"),
        (("-",), {"output": "-", "json": True}, "both the picture and --json"),
        (("a.png", "b.png"), {"output": "-"}, "one picture"),
    ],
)
def test_an_output_that_does_not_go_with_the_inputs_is_refused(
    inputs: tuple[str, ...], settings: dict[str, Any], why: str
) -> None:
    put("a.png", "b.png", "in/c.png")
    with pytest.raises(OptionError, match=why):
        plan(*inputs, **settings)


def test_streams_have_no_names() -> None:
    put("a.png")
    assert plan("-") == [Job(source=None, destination=None, format=None)]
    assert plan("-", output="b.webp")[0].destination == Path("b.webp")
    assert plan("a.png", output="-", ext="jpg")[0].format == "jpg"
