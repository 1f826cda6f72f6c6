"""Streams find their way into a container, or the user is told why not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from video.films import make_film

from restore.errors import OptionError
from restore.video.containers import ContainerPlan, plan_container


def plan(source: Path, codec: Any = "h264", name: str | None = None, **more: Any) -> ContainerPlan:
    asked = None if name is None else source.with_name(name)
    return plan_container(source, video=0, codec=codec, name=asked, **more)


def ways(found: ContainerPlan) -> list[str]:
    return [route.how for route in found.routes]


@pytest.mark.parametrize(
    ("codec", "form"),
    [("h264", "mp4"), ("hevc", "mp4"), ("av1", "mp4"), ("ffv1", "matroska"), ("prores", "mov")],
)
def test_each_codec_has_its_container(tmp_path: Path, codec: str, form: str) -> None:
    found = plan(make_film(tmp_path / "a.mp4"), codec)
    assert (found.format, ways(found), found.warnings) == (form, ["copy"], ())


@pytest.mark.parametrize("suffix", [".mp4", ".m4v", ".mov", ".mkv", ".MKV"])
def test_the_name_decides_when_there_is_one(tmp_path: Path, suffix: str) -> None:
    found = plan(make_film(tmp_path / "a.mp4"), name=f"b{suffix}")
    assert found.suffix == suffix
    assert found.format == {".mkv": "matroska", ".mov": "mov"}.get(suffix.lower(), "mp4")


@pytest.mark.parametrize(
    ("name", "fields", "label"),
    [
        ("a.mkv", {"subtitles": "subrip"}, "stream 2 (subtitle, subrip)"),
        ("a.mkv", {"font": True}, "stream 2 (attachment, Käse.ttf)"),
        ("a.mov", {"audio": ["aac", "pcm_s16le"]}, "stream 2 (audio, pcm_s16le"),
    ],
)
def test_a_stream_that_does_not_fit_mp4_makes_it_mkv_or_an_error(
    tmp_path: Path, name: str, fields: dict[str, Any], label: str
) -> None:
    source = make_film(tmp_path / name, **fields)
    found = plan(source)
    assert found.format == "matroska"
    assert set(ways(found)) == {"copy"}
    assert label in found.warnings[0]
    with pytest.raises(OptionError) as caught:
        plan(source, name="wanted.mp4")
    assert label in str(caught.value)
    assert "wanted.mkv" in str(caught.value)
    assert plan(source, name="wanted.mkv").warnings == ()


def test_flac_and_opus_fit_mp4(tmp_path: Path) -> None:
    found = plan(make_film(tmp_path / "a.mkv", audio=["flac", "libopus"]))
    assert (found.format, ways(found)) == ("mp4", ["copy", "copy"])


def test_without_sound_its_codec_does_not_matter(tmp_path: Path) -> None:
    source = make_film(tmp_path / "a.mov", audio=["pcm_s16le"])
    found = plan(source, name="b.mp4", audio=False)
    assert (found.format, found.routes) == ("mp4", ())


def test_mp4_subtitles_and_covers_find_a_way_into_mkv(tmp_path: Path) -> None:
    source = make_film(tmp_path / "a.mp4", subtitles="mov_text", cover=True, chapters=True)
    assert ways(plan(source)) == ["copy", "copy", "copy"]  # and no chapter track among them
    found = plan(source, "ffv1")
    assert ways(found) == ["copy", "text", "cover"]
    assert "plain text" in found.warnings[0]


@pytest.mark.parametrize(("codec", "form"), [("h264", "mp4"), ("ffv1", "matroska")])
def test_sound_that_fits_nowhere_is_encoded_anew(tmp_path: Path, codec: str, form: str) -> None:
    source = make_film(tmp_path / "a.avi", audio=["adpcm_ms"], codec="mpeg4", b_frames=0)
    found = plan(source, codec)
    assert (found.format, ways(found)) == (form, ["recode"])
    assert "stream 1 (audio, adpcm_ms" in found.warnings[0]


@pytest.mark.parametrize("name", ["b.webm", "b", "b.mp4.part"])
def test_an_unknown_suffix_names_the_known_ones(tmp_path: Path, name: str) -> None:
    with pytest.raises(OptionError, match=r"\.mp4, \.m4v, \.mov, \.mkv"):
        plan(make_film(tmp_path / "a.mp4"), name=name)


@pytest.mark.parametrize(
    ("codec", "name", "advice"),
    [("ffv1", "b.mp4", "b.mkv"), ("prores", "b.mp4", "b.mov"), ("av1", "b.mov", "b.mp4")],
)
def test_a_codec_that_the_named_container_cannot_hold(
    tmp_path: Path, codec: str, name: str, advice: str
) -> None:
    with pytest.raises(OptionError, match=advice):
        plan(make_film(tmp_path / "a.mp4"), codec, name)
