"""The result holds what the source held, at the times at which it held it."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest
from av.stream import Disposition
from video.fakes import increasing, packets, run_job, seconds, video_frames
from video.films import FONT, TITLE, make_film

from restore.video import VideoResult
from restore.video.containers import Route
from restore.video.passage import plain_text
from restore.video.segments import order_of_display

FAST = {"preset": "ultrafast", "segment": 7}


def run(source: Path, name: str | None = None, **settings: Any) -> VideoResult:
    dst = None if name is None else source.with_name(name)
    settings = {**FAST, **settings}
    if settings.get("codec") not in (None, "h264"):
        settings["preset"] = None
    return run_job(source, dst=dst, **settings)


def pts_of(path: Path) -> list[int]:
    return [pts for pts, _ in video_frames(path)]


def stream_of(container: Any, kind: str, number: int = 0) -> Any:
    return [stream for stream in container.streams if stream.type == kind][number]


VARIABLE = (0, 512, 1024, 1500, 1501, 4000, 4512, 5000, 9000, 9512, 20000, 20001, 20003)


@pytest.mark.parametrize("b_frames", [0, 3])
@pytest.mark.parametrize("segment", [1, 4, 100])
def test_variable_frame_times_are_exact_in_mp4(tmp_path: Path, b_frames: int, segment: int) -> None:
    source = make_film(tmp_path / "a.mp4", pts=VARIABLE, b_frames=b_frames)
    assert pts_of(source) == list(VARIABLE)
    result = run(source, segment=segment, preset="superfast", encoder_option=("bf=3",))
    assert pts_of(result.path) == list(VARIABLE)
    with av.open(str(result.path)) as container:
        times = [p.dts for p in container.demux(container.streams.video[0]) if p.size]
        assert container.streams.video[0].frames == len(VARIABLE)
        assert container.streams.video[0].time_base == Fraction(1, 12800)
    assert increasing(times)


def test_times_are_exact_to_the_millisecond_in_mkv(tmp_path: Path) -> None:
    source = make_film(tmp_path / "a.mp4", pts=[0, 512, 1500, 4000, 9000])
    result = run(source, "b.mkv")
    assert seconds(result.path) == pytest.approx(seconds(source), abs=0.000501)


@pytest.mark.parametrize("name", ["b.mp4", "b.mkv"])
@pytest.mark.parametrize(("video", "audio"), [(0.5, 0.2), (0.25, 0.0), (0.0, 0.5)])
def test_streams_begin_when_they_began(
    tmp_path: Path, name: str, video: float, audio: float
) -> None:
    begin = round(12800 * video)
    source = make_film(
        tmp_path / "a.mp4",
        pts=[begin + 512 * i for i in range(10)],
        audio=["flac"],
        audio_start=audio,
    )
    result = run(source, name)
    tolerance = 0.000501 if result.path.suffix == ".mkv" else 1e-6
    assert seconds(result.path) == pytest.approx(seconds(source), abs=tolerance)
    assert packets(result.path, "audio")[0][0] == pytest.approx(audio, abs=tolerance)


@pytest.mark.parametrize("name", ["b.mp4", "b.mkv"])
def test_the_samples_before_zero_stay_out_of_sight(tmp_path: Path, name: str) -> None:
    """AAC begins with samples that are not heard; sound must not move by them."""
    source = make_film(tmp_path / "a.mp4")
    result = run(source, name)
    assert seconds(result.path)[0] == 0
    with av.open(str(result.path)) as container:
        assert stream_of(container, "audio").start_time == 0
    heard = [(time, data) for time, _, data in packets(source, "audio") if time >= 0]
    copied = [(time, data) for time, _, data in packets(result.path, "audio") if time >= 0]
    assert [data for _, data in copied] == [data for _, data in heard]
    assert [t for t, _ in copied] == pytest.approx([t for t, _ in heard], abs=0.0006)


def test_sound_before_zero_moves_nothing_in_mkv(tmp_path: Path) -> None:
    """Copied from MP4 by a simple program, sound may begin before 0 without saying why."""
    with (
        av.open(str(make_film(tmp_path / "a.mp4"))) as mp4,
        av.open(
            str(tmp_path / "a.mkv"), "w", container_options={"avoid_negative_ts": "disabled"}
        ) as mkv,
    ):
        targets = {s: mkv.add_stream_from_template(s, opaque=True) for s in mp4.streams}
        for packet in mp4.demux():
            if packet.size:
                packet.stream = targets[packet.stream]
                mkv.mux(packet)
    source = tmp_path / "a.mkv"
    assert packets(source, "audio")[0][0] < 0
    result = run(source, "b.mkv")
    assert packets(result.path, "audio") == packets(source, "audio")
    assert seconds(result.path) == seconds(source)


def test_the_last_frame_is_shown_as_long_as_it_was(tmp_path: Path) -> None:
    source = make_film(tmp_path / "a.mp4", pts=[0, 512, 1024])
    result = run(source)
    with av.open(str(source)) as before, av.open(str(result.path)) as after:
        assert after.streams.video[0].duration == before.streams.video[0].duration


def test_tags_chapters_fonts_and_order_survive_in_mkv(tmp_path: Path) -> None:
    source = make_film(
        tmp_path / "a.mkv",
        audio=["aac", "flac"],
        subtitles="subrip",
        chapters=True,
        font=True,
        tags=[("title", TITLE), ("comment", "mine"), ("artist", "me")],
    )
    result = run(source, preset="veryfast")  # with frames out of order, unlike ultrafast
    assert result.path.name == "a_x2.mkv"
    with av.open(str(result.path)) as container:
        kinds = [stream.type for stream in container.streams]
        assert kinds == ["video", "audio", "audio", "subtitle", "attachment"]
        tags = {key.lower(): value for key, value in container.metadata.items()}
        assert (tags["title"], tags["comment"], tags["artist"]) == (TITLE, "mine", "me")
        assert "model=fake" in tags["description"]
        titles = [chapter["metadata"]["title"] for chapter in container.chapters()]
        assert titles == ["One", "Two"]
        assert [float(c["start"] * c["time_base"]) for c in container.chapters()] == [0, 0.5]
        video, english, german, text, font = container.streams
        assert (video.metadata["language"], video.metadata["title"]) == ("swe", "Bild")
        assert (english.metadata["language"], german.metadata["title"]) == ("eng", "Ton 1")
        assert not english.disposition & Disposition.default
        assert german.disposition & Disposition.default
        assert font.data == FONT
        assert font.name == "Käse.ttf"
        assert text.codec_context.codec.canonical_name == "subrip"
    assert packets(result.path, "subtitle") == packets(source, "subtitle")
    for number in (0, 1):  # the first one begins before 0
        assert packets(result.path, "audio", number) == packets(source, "audio", number)
    assert seconds(result.path) == seconds(source)


def test_tags_chapters_and_cover_survive_in_mp4(tmp_path: Path) -> None:
    source = make_film(
        tmp_path / "a.mp4",
        subtitles="mov_text",
        chapters=True,
        cover=True,
        tags=[("title", TITLE), ("creation_time", "2021-03-04T05:06:07.000000Z")],
    )
    result = run(source)
    with av.open(str(source)) as before, av.open(str(result.path)) as after:
        assert [s.type for s in after.streams] == [s.type for s in before.streams]
        assert after.metadata["title"] == TITLE
        assert after.metadata["comment"].startswith("restore ")
        assert after.metadata["creation_time"] == "2021-03-04T05:06:07.000000Z"
        assert after.chapters() == before.chapters()
        assert after.streams[0].metadata["language"] == "swe"
        assert after.streams[-1].disposition == Disposition.attached_pic
    texts = [data for _, _, data in packets(result.path, "subtitle") if len(data) > 2]
    assert [plain_text(data) for data in texts] == ["Guten Tag", "Käse?"]
    assert packets(result.path, "video", 1)[0][2] == packets(source, "video", 1)[0][2]


def test_mp4_subtitles_and_cover_become_text_and_attachment_in_mkv(tmp_path: Path) -> None:
    source = make_film(tmp_path / "a.mp4", subtitles="mov_text", cover=True)
    result = run(source, codec="ffv1")
    assert packets(result.path, "subtitle") == [
        (0.1, pytest.approx(0.3), b"Guten Tag"),
        (0.5, pytest.approx(0.4), "Käse?".encode()),
    ]
    (cover,) = packets(source, "video", 1)
    with av.open(str(result.path)) as container:
        covers = [s for s in container.streams if s.disposition & Disposition.attached_pic]
        assert [stream.name for stream in covers] == ["png"]
        assert [bytes(p) for p in container.demux(covers[0]) if p.size] == [cover[2]]


@pytest.mark.parametrize("codec", ["h264", "ffv1", "prores"])
def test_sound_of_another_age_is_encoded_anew_and_sounds_the_same(
    tmp_path: Path, codec: str
) -> None:
    source = make_film(tmp_path / "a.avi", audio=["adpcm_ms"], codec="mpeg4", b_frames=0)
    result = run(source, codec=codec)

    def sound(path: Path) -> Any:
        import numpy as np

        plain = av.AudioResampler(format="s16p", layout="mono")
        with av.open(str(path)) as container:
            frames = [part for f in container.decode(audio=0) for part in plain.resample(f)]
        return np.concatenate([frame.to_ndarray() for frame in frames], axis=1).astype(int)

    before, after = sound(source), sound(result.path)
    length = min(before.shape[1], after.shape[1])
    assert abs(before.shape[1] - after.shape[1]) < 4608  # one packet of FLAC
    assert (before[:, :length] == after[:, :length]).all()


def test_no_audio_leaves_it_out(tmp_path: Path) -> None:
    result = run(make_film(tmp_path / "a.mp4", audio=["aac", "aac"]), audio=False)
    with av.open(str(result.path)) as container:
        assert [stream.type for stream in container.streams] == ["video"]


def test_a_part_begins_at_zero_with_all_its_streams(tmp_path: Path) -> None:
    source = make_film(
        tmp_path / "a.mkv",
        pts=[512 * i for i in range(50)],
        audio=["flac"],
        audio_seconds=2.0,
        subtitles="subrip",
        chapters=True,
    )
    result = run(source, start="0.3", end="0.7")
    assert seconds(result.path) == pytest.approx([0.04 * i for i in range(10)], abs=0.001)
    sound = packets(result.path, "audio")
    assert 0 <= sound[0][0] <= 0.1  # within one packet
    original = packets(source, "audio")
    assert sound[0][2] in [data for _, _, data in original]
    place = [data for _, _, data in original].index(sound[0][2])
    assert original[place][0] - sound[0][0] == pytest.approx(0.32, abs=0.002)
    assert sound[-1][0] < 0.4
    # The first subtitle was on the screen already, the second one is cut by the end of the clip.
    shown = [(round(t, 2), data) for t, _, data in packets(result.path, "subtitle")]
    assert shown == [(0.0, b"Guten Tag"), (0.18, "Käse?".encode())]
    with av.open(str(result.path)) as container:
        times = [
            (float(c["start"] * c["time_base"]), float(c["end"] * c["time_base"]))
            for c in container.chapters()
        ]
    assert times == [(0, pytest.approx(0.18)), (pytest.approx(0.18), pytest.approx(0.4))]


def test_a_recording_whose_clock_began_hours_ago_begins_at_zero(tmp_path: Path) -> None:
    begin = 5 * 3600 * 90000
    source = make_film(
        tmp_path / "a.ts",
        time_base=Fraction(1, 90000),
        pts=[begin + 3600 * i for i in range(10)],
        audio_start=5 * 3600.0,
    )
    result = run(source)
    assert 0 <= seconds(result.path)[0] < 1
    distance = seconds(source)[0] - packets(source, "audio")[0][0]
    kept = seconds(result.path)[0] - packets(result.path, "audio")[0][0]
    assert kept == pytest.approx(distance, abs=0.001)


def test_the_index_of_mp4_comes_first(tmp_path: Path) -> None:
    data = run(make_film(tmp_path / "a.mp4")).path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


def test_decode_times_allow_for_the_order_of_display() -> None:
    stored = [0, 40, 20, 10, 30, 80, 60, 50, 70]
    timing = order_of_display(stored)
    assert timing.shown == tuple(sorted(stored))
    assert timing.delay == 2
    padded = [-2, -1, *timing.shown]
    assert all(padded[i] <= pts for i, pts in enumerate(stored))
    assert order_of_display([5, 6, 7]).delay == 0


def test_text_of_mp4_subtitles() -> None:
    assert plain_text(b"\x00\x02Hi" + b"\x00\x00\x00\x10styl") == "Hi"
    wide = "Hé".encode("utf-16-be")
    assert plain_text((len(wide) + 2).to_bytes(2, "big") + b"\xfe\xff" + wide) == "Hé"
    assert plain_text(b"\x00\x00") == ""
    assert plain_text(b"") == ""


def test_a_route_says_what_it_is_in_words(tmp_path: Path) -> None:
    result = run(make_film(tmp_path / "a.mp4"))
    (route,) = result.plan.container.routes
    assert route == Route(index=1, how="copy", kind="audio", label="stream 1 (audio, aac, eng)")
