"""A job gives every frame at its time, and says in one line what is in the way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from video.fakes import (
    FRAMES,
    FakeRestorer,
    at,
    fail,
    packets,
    run_job,
    seconds,
    video_frames,
)
from video.films import make_film, picture

from restore.errors import InputError, OptionError, OutputError, RestoreError
from restore.video import VideoProgress, encode, job


def test_every_frame_comes_out_enlarged_at_its_time(tmp_path: Path, source: Path) -> None:
    seen: list[VideoProgress] = []
    result = run_job(
        source, output=str(tmp_path / "out.mkv"), codec="ffv1", preset=None, progress=seen.append
    )
    assert (result.frames, result.width, result.height) == (FRAMES, 64, 48)
    assert seconds(result.path) == pytest.approx(seconds(source), abs=0.000501)
    with av.open(str(result.path)) as container:
        frames = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
    for index, frame in enumerate(frames):
        expected = np.kron(picture(index, 32, 24), np.ones((2, 2, 1)))
        # 4:2:0 twice and a lossy source: the picture is the same one, no pixel is exact.
        assert np.abs(frame - expected).mean() < 30
        others = [np.abs(frame - other).mean() for other in frames]
        assert np.argmin(others) == index
    assert [step.frames_done for step in seen if step.stage == "restore"] == [*range(1, FRAMES + 1)]
    assert {step.frames_total for step in seen} == {FRAMES}
    assert [step.stage for step in seen[-2:]] == ["join", "join"]
    assert all(step.eta_seconds is not None for step in seen[2:])
    assert 0 < result.network_seconds < result.seconds
    assert list(tmp_path.iterdir()) == [result.path]


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({}, "clip_x2.mp4"),
        ({"scale": 1.5}, "clip_x1.5.mp4"),
        ({"target": "100x60"}, "clip_100x60.mp4"),
        ({"codec": "ffv1", "preset": None}, "clip_x2.mkv"),
        ({"output": "."}, "clip_x2.mp4"),
    ],
)
def test_the_name_says_what_was_done(
    tmp_path: Path, source: Path, settings: dict[str, Any], name: str
) -> None:
    copy = tmp_path / "clip.mp4"
    copy.write_bytes(source.read_bytes())
    if "output" in settings:
        settings = {"output": str(tmp_path)}
    result = run_job(copy, **settings)
    assert result.path == tmp_path / name
    with av.open(str(result.path)) as container:
        video = container.streams.video[0]
        assert (video.width, video.height) == (result.width, result.height)


def test_a_dry_run_writes_nothing(tmp_path: Path, source: Path) -> None:
    restorer = FakeRestorer()
    result = run_job(source, restorer, output=str(tmp_path / "out.mp4"), dry_run=True)
    assert (result.frames, result.plan.frames, result.width) == (0, FRAMES, 64)
    assert restorer.frames == 0
    assert list(tmp_path.iterdir()) == []


def test_the_frames_of_a_range_are_counted_before_it_is_done(tmp_path: Path) -> None:
    film = make_film(tmp_path / "a.mp4", pts=[512 * i for i in range(40)])  # 25 a second
    for end in ("0.12", "0.13", "0.16", "0.17", "1.6", "9"):
        output = str(tmp_path / "out.mp4")
        settings: dict[str, Any] = {"output": output, "end": end, "overwrite": True}
        told = run_job(film, dry_run=True, **settings).plan.frames
        assert told == run_job(film, **settings).frames, end


def test_the_input_is_never_the_output(tmp_path: Path, source: Path) -> None:
    copy = tmp_path / "clip.mp4"
    copy.write_bytes(source.read_bytes())
    link = tmp_path / "link.mp4"
    link.symlink_to(copy)
    for name in ("clip.mp4", "./clip.mp4", "link.mp4"):
        with pytest.raises(OutputError, match="is the input itself"):
            run_job(copy, output=str(tmp_path / name), overwrite=True)
    assert copy.read_bytes() == source.read_bytes()


def test_a_result_that_is_there_stays_unless_told_otherwise(tmp_path: Path, source: Path) -> None:
    taken = tmp_path / "out.mp4"
    taken.write_bytes(b"precious")
    for more in ({}, {"resume": True}):
        with pytest.raises(OutputError, match=r"already there.*--overwrite"):
            run_job(source, output=str(taken), **more)
    assert taken.read_bytes() == b"precious"
    with pytest.raises(ZeroDivisionError):
        run_job(
            source,
            FakeRestorer(on_frame=at(12, fail(ZeroDivisionError()))),
            output=str(taken),
            overwrite=True,
        )
    assert taken.read_bytes() == b"precious"  # replaced at the very end only
    run_job(source, output=str(taken), overwrite=True)
    assert len(video_frames(taken)) == FRAMES


def test_a_damaged_tail_keeps_what_came_before(tmp_path: Path) -> None:
    whole = make_film(
        tmp_path / "whole.mp4",
        pts=[512 * i for i in range(50)],
        audio_seconds=2.0,
        options=[("movflags", "faststart")],
    )
    data = whole.read_bytes()
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(data[: len(data) * 2 // 3])
    result = run_job(cut)
    assert result.damaged is not None
    assert 10 < result.frames < 50
    with pytest.raises(OutputError, match="already there"):
        run_job(cut, resume=True)  # not taken for finished
    times = seconds(result.path)
    # At the very end frames may be missing whose neighbours in time were stored before them.
    assert times[:-3] == seconds(whole)[: len(times) - 3]
    assert set(times) <= set(seconds(whole))
    end = times[-1] + 0.04
    assert 0 < packets(result.path, "audio")[-1][0] < end


def test_a_damaged_tail_is_remembered_over_a_crash_in_the_join(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = make_film(tmp_path / "whole.mp4", options=[("movflags", "faststart")])
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole.read_bytes()[:-2000])
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr(job, "join", fail(ZeroDivisionError()))
        run_job(cut)
    result = run_job(cut, resume=True)
    assert result.damaged is not None
    assert result.resumed_frames == result.frames


def test_a_range_without_a_frame_is_an_error(tmp_path: Path, source: Path) -> None:
    with pytest.raises(InputError, match="--start"):
        run_job(source, output=str(tmp_path / "out.mp4"), start="100")
    assert list(tmp_path.iterdir()) == []


def test_frames_that_go_missing_are_noticed(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Lossy(job.FrameStream):
        def flush(self) -> Any:
            return super().flush()[:-1]

    monkeypatch.setattr(job, "FrameStream", Lossy)
    restorer = FakeRestorer(frames_after=2)
    with pytest.raises(RestoreError, match="24 frames came in, but 23"):
        run_job(source, restorer, output=str(tmp_path / "out.mp4"))


def test_an_encoder_that_drops_frames_is_noticed(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = encode.SegmentWriter.write

    def lossy(self: Any, rgb: Any, *, pts: int, duration: int) -> None:
        if pts != 512 * 7:
            plain(self, rgb, pts=pts, duration=duration)

    monkeypatch.setattr(encode.SegmentWriter, "write", lossy)
    with pytest.raises(OutputError, match="did not keep the frames"):
        run_job(source, output=str(tmp_path / "out.mp4"))


def test_an_error_of_the_progress_callback_comes_out(tmp_path: Path, source: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        run_job(source, output=str(tmp_path / "out.mp4"), progress=fail(ZeroDivisionError()))


def test_unknown_settings_and_missing_files_are_one_line(tmp_path: Path, source: Path) -> None:
    with pytest.raises(OptionError, match="unknown setting 'scal'"):
        run_job(source, scal=4)
    with pytest.raises(InputError, match="does not exist"):
        run_job(tmp_path / "no.mp4")
    with pytest.raises(OutputError, match="cannot write"):
        run_job(source, output=str(source / "out.mp4"))
