"""`restore degrade`: the same bytes for the same seed, a record beside each result, one bad input
never stops the others."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from video.films import make_film

from restore.cli.commands import app
from restore.data_config import DegradeConfig
from restore.degradations.presets import recipe_named
from restore.degradations.recipe import ClipDegrader
from restore.degrading import clip as clip_room
from restore.degrading.job import degrade_files, file_generator
from restore.errors import InputError, OptionError
from restore.image.events import Event
from restore.video.decode import decode
from restore.video.probe import probe

Make = Callable[..., Any]


@pytest.fixture
def photos(tmp_path: Path, make_picture: Make) -> Path:
    """Three pictures, one of them a folder deeper."""
    folder = tmp_path / "photos"
    (folder / "deep").mkdir(parents=True)
    Image.fromarray(make_picture(48, 40)).save(folder / "a.png")
    Image.fromarray(make_picture(50, 41)).save(folder / "b.jpg", quality=95)
    Image.fromarray(make_picture(32, 32)).save(folder / "deep" / "c.png")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """All files below a folder."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def opened(path: Path) -> np.ndarray[Any, Any]:
    with Image.open(path) as image:
        return np.asarray(image)


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(
    photos: Path, tmp_path: Path
) -> None:
    for name, seed in (("first", 7), ("again", 7), ("other", 8)):
        report = degrade_files(photos, output=str(tmp_path / name), seed=seed, recipe="bsrgan")
        assert len(report.done) == 2
    first, again, other = (contents(tmp_path / name) for name in ("first", "again", "other"))
    assert set(first) == {"a.png", "a.json", "b.png", "b.json"}
    assert first == again
    assert all(first[name] != other[name] for name in first)


def test_what_else_is_degraded_changes_nothing(photos: Path, tmp_path: Path) -> None:
    degrade_files(photos, output=str(tmp_path / "all"), recursive=True)
    degrade_files(photos / "b.jpg", output=str(tmp_path / "one"))
    one, together = contents(tmp_path / "one"), contents(tmp_path / "all")
    assert set(together) == {*one, "a.png", "a.json", "deep/c.png", "deep/c.json"}
    assert one == {name: together[name] for name in one}


@pytest.mark.parametrize(("scale", "size"), [(4, (12, 10)), (1, (50, 41)), (3, (16, 13))])
def test_results_are_smaller_by_the_scale_and_the_record_says_all(
    photos: Path, tmp_path: Path, scale: int, size: tuple[int, int]
) -> None:
    report = degrade_files(
        photos / "b.jpg", output=str(tmp_path), scale=scale, seed=3, recipe="compact"
    )
    (done,) = report.done
    assert (done.size_in, done.size_out) == ((50, 41), size)
    with Image.open(tmp_path / "b.png") as image:
        assert (image.size, image.mode) == (size, "RGB")
    record = json.loads((tmp_path / "b.json").read_text())
    assert (record["input"], record["seed"], record["scale"]) == ("b.jpg", 3, scale)
    assert record["recipe"] in ("compact, light", "compact, heavy")
    assert record["bad"] == list(size)
    assert record["steps"]
    assert str(tmp_path) not in json.dumps(record)


def test_one_bad_input_does_not_stop_the_others(photos: Path, tmp_path: Path) -> None:
    (photos / "a.png").write_bytes((photos / "a.png").read_bytes()[:200])
    inputs = [photos / "a.png", tmp_path / "missing.png", photos / "b.jpg"]
    told: list[Event] = []
    report = degrade_files(inputs, output=str(tmp_path / "out"), on_event=told.append)
    assert [Path(name).name for name, _ in report.failed] == ["a.png", "missing.png"]
    assert "damaged or cut off" in report.failed[0][1]
    assert "no such file" in report.failed[1][1]
    assert set(contents(tmp_path / "out")) == {"b.png", "b.json"}
    names = [type(event).__name__ for event in told]
    assert names == ["Started", "Failed", "Started", "Failed", "Started", "Done"]


def test_results_that_are_there_are_kept_skipped_or_replaced(photos: Path, tmp_path: Path) -> None:
    def run(**settings: Any) -> Any:
        return degrade_files(photos / "a.png", output=str(tmp_path / "out"), **settings)

    run()
    before = contents(tmp_path / "out")
    assert "add --skip-existing or --overwrite" in run(seed=1).failed[0][1]
    assert len(run(seed=1, skip_existing=True).skipped) == 1
    assert contents(tmp_path / "out") == before
    assert len(run(seed=1, overwrite=True).done) == 1
    assert contents(tmp_path / "out") != before
    (tmp_path / "out" / "a.png").unlink()  # a record alone is in the way as well
    assert len(run().failed) == 1


def test_originals_are_never_written_over(photos: Path) -> None:
    before = contents(photos)
    report = degrade_files(photos / "a.png", output=str(photos), overwrite=True)
    assert "would overwrite an input" in report.failed[0][1]
    assert contents(photos) == before


def test_a_dry_run_writes_nothing(photos: Path, tmp_path: Path) -> None:
    make_film(photos / "film.mp4", size=(64, 48), audio=())
    report = degrade_files(photos, output=str(tmp_path / "out"), dry_run=True)
    assert [planned.size_out for planned in report.planned] == [(12, 10), (12, 10), (16, 12)]
    assert not (tmp_path / "out").exists()


def test_inputs_of_one_name_keep_their_suffix(photos: Path, tmp_path: Path) -> None:
    Image.open(photos / "a.png").save(photos / "a.jpg")
    report = degrade_files(photos, output=str(tmp_path / "out"))
    assert len(report.done) == 3
    pictures = {name for name in contents(tmp_path / "out") if name.endswith(".png")}
    assert pictures == {"a_png.png", "a_jpg.png", "b.png"}
    twins = [photos / "deep" / "c.png", tmp_path / "c.png"]
    Image.open(twins[0]).save(twins[1])
    with pytest.raises(OptionError, match="would both become"):
        degrade_files(twins, output=str(tmp_path / "out"))


def test_gray_stays_gray_and_transparency_stands_on_white(
    tmp_path: Path, make_picture: Make
) -> None:
    Image.fromarray(make_picture(32, 32, 1)).save(tmp_path / "gray.png")
    clear = np.zeros((32, 32, 4), np.uint8)
    Image.fromarray(clear).save(tmp_path / "clear.png")
    recipe = tmp_path / "plain.yaml"
    recipe.write_text("recipe: {steps: [{resize: {to: bad}}]}")
    report = degrade_files(
        [tmp_path / "gray.png", tmp_path / "clear.png"],
        output=str(tmp_path / "out"),
        recipe=str(recipe),
    )
    assert opened(tmp_path / "out" / "gray.png").shape == (8, 8)
    assert opened(tmp_path / "out" / "clear.png").tolist() == np.full((8, 8, 3), 255).tolist()
    assert "stands on white" in report.done[1].notes[0]


def test_a_recipe_can_come_out_of_a_file(photos: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "phone.yaml"
    recipe.write_text(
        "recipe:\n"
        "  name: phone\n"
        "  steps:\n"
        "  - blur: {kinds: [shake, defocus], weights: [1, 1]}\n"
        "  - camera: {prob: 1}\n"
        "  - resize: {to: bad, antialias: true}\n"
        "  - webp: {quality: [20, 40]}\n"
    )
    degrade_files(photos / "a.png", output=str(tmp_path / "out"), recipe=str(recipe))
    record = json.loads((tmp_path / "out" / "a.json").read_text())
    assert record["recipe"] == "phone"
    assert [step["step"] for step in record["steps"]] == ["blur", "camera", "resize", "webp"]
    recipe.write_text("preset: realesrgan\nchange: {jpeg2: {quality: [11, 11]}}\n")
    degrade_files(photos / "b.jpg", output=str(tmp_path / "out"), recipe=str(recipe))
    steps = json.loads((tmp_path / "out" / "b.json").read_text())["steps"]
    assert {"step": "jpeg2", "quality": 11} in steps


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"recipe": "esrgan"}, "recipe 'esrgan' is unknown; allowed: realesrgan"),
        ({"recipe": "nowhere.yaml"}, "cannot be read .* give a YAML file"),
        ({"output": None}, "no output was given"),
        ({"output": "bad.jpg"}, r"'bad.jpg' does not end in .png"),
    ],
)
def test_wrong_settings_are_said_before_any_work(
    photos: Path, settings: dict[str, Any], said: str
) -> None:
    with pytest.raises((OptionError, InputError), match=said):
        degrade_files(photos / "a.png", **{"output": "out", **settings})
    with pytest.raises(OptionError, match="is a file, the input can be many"):
        degrade_files(photos, output=str(photos / "a.png"))


def test_a_file_name_is_taken_for_a_single_result(photos: Path, tmp_path: Path) -> None:
    degrade_files(photos / "a.png", output=str(tmp_path / "x" / "bad.jpg"), ext="jpg")
    assert set(contents(tmp_path / "x")) == {"bad.jpg", "bad.json"}
    with Image.open(tmp_path / "x" / "bad.jpg") as image:
        assert image.format == "JPEG"


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip with uneven time stamps and sound."""
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    stamps = [512 * (n + n % 3) for n in range(0, 33, 3)]
    return make_film(path, size=(70, 50), pts=tuple(sorted(set(stamps))))


@pytest.mark.parametrize("codec", ["h264", "ffv1"])
def test_a_clip_keeps_its_frames_and_times_and_repeats_its_bytes(
    film: Path, tmp_path: Path, codec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clip_room, "LONGEST", 4)  # three stretches
    for name in ("first", "again"):
        report = degrade_files(
            film, output=str(tmp_path / name), scale=2, recipe="realbasicvsr", codec=codec, seed=7
        )
        assert not report.failed
    first = contents(tmp_path / "first")
    assert first == contents(tmp_path / "again")
    suffix = {"h264": ".mp4", "ffv1": ".nut"}[codec]
    assert set(first) == {"film" + suffix, "film.json"}
    before, after = probe(film), probe(tmp_path / "first" / f"film{suffix}")
    assert (after.width, after.height) == ((34, 24) if codec == "h264" else (35, 25))
    times = [frame.pts * before.time_base for frame in decode(before)]
    assert [frame.pts * after.time_base for frame in decode(after)] == times
    record = json.loads(first["film.json"])
    assert record["frames"] == len(times) == 11
    assert {step["step"] for step in record["steps"]} >= {"codec1", "codec2", "noise1"}


def test_a_lossless_clip_holds_what_was_made(film: Path, tmp_path: Path) -> None:
    degrade_files(film, output=str(tmp_path), scale=2, recipe="compact", codec="ffv1", seed=2)
    good = torch.stack([frame.rgb for frame in decode(probe(film))])
    generator = file_generator(2, "compact", "film.mp4")
    recipe = recipe_named("compact", scale=2)
    degrader = ClipDegrader(recipe, generator, size=(50, 70), scale=2)
    expected = degrader.push(good)
    written = torch.stack([frame.rgb for frame in decode(probe(tmp_path / "film.nut"))])
    torch.testing.assert_close(written, expected, atol=1e-5, rtol=0)


def test_a_clip_that_is_cut_off_is_kept_as_far_as_it_goes_and_listed(tmp_path: Path) -> None:
    whole = make_film(tmp_path / "film.mkv", size=(64, 48), audio=(), b_frames=0)
    data = whole.read_bytes()
    (tmp_path / "cut.mkv").write_bytes(data[: len(data) * 2 // 3])
    report = degrade_files(tmp_path / "cut.mkv", output=str(tmp_path / "out"), recipe="compact")
    assert len(report.failed) == 1
    record = json.loads((tmp_path / "out" / "cut.json").read_text())
    kept = len(list(decode(probe(tmp_path / "out" / "cut.mp4"))))
    assert 0 < kept == record["frames"] < 24


def test_the_command_line_tells_and_counts(photos: Path, tmp_path: Path) -> None:
    def run(*arguments: str) -> Any:
        return CliRunner().invoke(app, ["degrade", *arguments])

    broken = tmp_path / "broken.png"
    broken.write_bytes(b"nothing")
    out = str(tmp_path / "out")
    result = run(str(photos / "a.png"), str(broken), "-o", out, "--recipe", "osediff")
    assert result.exit_code == 1
    assert "(48x40 -> 12x10" in result.stderr
    assert "1 degraded, 1 failed" in result.stderr
    result = run(str(photos / "a.png"), "-o", out, "--skip-existing", "--json")
    assert result.exit_code == 0
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["event"] for line in lines] == ["skipped", "summary"]
    result = run(str(photos / "a.png"), "-o", out, "--recipe", "none")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "recipe 'none' is unknown" in result.stderr
    assert run("-o", out).exit_code == 2


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"scale": 0}, "scale 0 is not possible; give 1 to 16"),
        ({"seed": -1}, "seed -1 is negative"),
        ({"quality": 0}, "quality 0 is not possible"),
        ({"codec": "av1"}, "codec 'av1' is unknown; allowed: h264, ffv1"),
        ({"skip_existing": True, "overwrite": True}, "give one of them"),
    ],
)
def test_settings_outside_their_range_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        DegradeConfig(**settings)


def test_a_real_picture_is_bad_but_the_same_after_each_recipe(
    shared_data: Path, tmp_path: Path
) -> None:
    picture = shared_data / "realsr" / "hr" / "Canon_001_LR4.png"
    for name in ("realesrgan", "osediff", "bsrgan", "realbasicvsr", "compact"):
        report = degrade_files(picture, output=str(tmp_path / name), recipe=name, seed=7)
        assert [done.size_out for done in report.done] == [(128, 128)]
        # Still the same picture, however bad: its tones go along with those of the original.
        bad = opened(tmp_path / name / "Canon_001_LR4.png").astype(float)
        with Image.open(picture) as image:
            good = np.asarray(image.convert("RGB").resize((128, 128), Image.Resampling.BOX))
        assert np.corrcoef(bad.ravel(), good.ravel().astype(float))[0, 1] > 0.8


def test_a_recipe_that_softens_targets_is_refused(photos: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "soft.yaml"
    recipe.write_text("preset: compact\nsoft_prob: 0.5\n")
    with pytest.raises(OptionError, match=r"soft_prob .* only a trainer does; take it out"):
        degrade_files(photos, recipe=str(recipe), output=str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()
