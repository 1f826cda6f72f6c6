"""Broken off at any moment and resumed, a job gives the frames of an undisturbed one."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fake_method import fake_restorer
from video.fakes import FRAMES, SEGMENT, FakeRestorer, at, fail, run_job, same_frames, video_frames
from video.films import make_film

from restore.config import VideoConfig
from restore.errors import OutputError
from restore.video import encode, job, mux, restore_video
from restore.video import journal as journals
from restore.video.journal import load
from restore.video.workfolder import WorkFolder

WINDOWS = [{}, {"frames_before": 2, "frames_after": 1}, {"frames_after": 1}, {"recurrent": True}]


@pytest.mark.parametrize("spec", WINDOWS, ids=["frame", "window", "ahead", "recurrent"])
def test_a_resumed_run_gives_the_frames_of_an_undisturbed_one(
    tmp_path: Path, spec: dict[str, Any]
) -> None:
    """Failing again and again changes nothing; nor do cuts and a flash near the seams."""
    times = [512 * i + i % 3 for i in range(17)]
    source = make_film(tmp_path / "a.mp4", pts=times, scene=6, flash=8)
    output = str(tmp_path / "whole.mp4")
    whole = run_job(source, FakeRestorer(**spec), output=output, segment=4)
    assert whole.cuts == 2
    torn = str(tmp_path / "torn.mp4")
    for number in (2, 4, 5, 9, 16):
        restorer = FakeRestorer(on_frame=at(number, fail(ZeroDivisionError())), **spec)
        with pytest.raises(ZeroDivisionError):
            run_job(source, restorer, output=torn, resume=True, segment=4)
    restorer = FakeRestorer(**spec)
    result = run_job(source, restorer, output=torn, resume=True, segment=4)
    assert result.resumed_frames >= 8
    assert restorer.frames <= 17 - result.resumed_frames + spec.get("frames_before", 0)
    assert result.frames == 17
    assert same_frames(result.path, whole.path)


def test_a_streaming_method_goes_on_after_its_last_whole_group(tmp_path: Path) -> None:
    """Segments end with groups; a run takes nothing again but the frames it had taken ahead."""
    source = make_film(tmp_path / "a.mp4", pts=[512 * i for i in range(40)], scene=17)
    whole = run_job(source, FakeRestorer(streaming=True), output=str(tmp_path / "whole.mp4"))
    assert whole.cuts >= 1
    torn = tmp_path / "torn.mp4"
    taken = []
    for number in (1, 14, 14, 3):
        restorer = FakeRestorer(streaming=True, on_frame=at(number, fail(ZeroDivisionError())))
        with pytest.raises(ZeroDivisionError):
            run_job(source, restorer, output=str(torn), resume=True)
        journal = load(WorkFolder(torn).path)
        taken.append(journal.frames if journal is not None else 0)
    assert taken == sorted(taken)
    restorer = FakeRestorer(streaming=True)
    result = run_job(source, restorer, output=str(torn), resume=True)
    assert result.resumed_frames == taken[-1] >= 7
    assert restorer.frames in (40 - taken[-1], 40 - taken[-1] - 2)
    assert same_frames(result.path, whole.path)


def _die(source: str, output: str, moment: str, spec: dict[str, Any]) -> None:
    """Body of a process that is killed at some moment of its job."""

    def kill(*_: Any, **__: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    on_frame = at(12, kill) if moment == "network" else lambda index: None
    restorer = FakeRestorer(on_frame=on_frame, **spec)
    if moment == "segment":
        save = journals.save  # the files are in their places, and the journal does not know it
        journals.save = lambda folder, new: kill() if new.segments else save(folder, new)
    if moment == "join":
        times = iter(range(30))
        plain = mux._seconds
        mux._seconds = lambda packet: plain(packet) if next(times, None) is not None else kill()
    if moment == "move":
        WorkFolder.remove = kill  # type: ignore[method-assign]
    run_job(Path(source), restorer, output=output, resume=True)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")
@pytest.mark.parametrize(
    ("spec", "moments", "left"),
    [({}, ["network", "join", "move"], 0), ({"recurrent": True}, ["segment", "network"], 14)],
    ids=["frame", "recurrent"],
)
def test_killed_again_and_again_and_resumed(
    tmp_path: Path, source: Path, spec: dict[str, Any], moments: list[str], left: int
) -> None:
    whole = run_job(source, FakeRestorer(**spec), output=str(tmp_path / "whole.mp4")).path
    output = tmp_path / "out.mp4"
    for moment in moments:
        process = multiprocessing.get_context("spawn").Process(
            target=_die, args=(str(source), str(output), moment, spec)
        )
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        assert output.exists() == (moment == "move")
    restorer = FakeRestorer(**spec)
    result = run_job(source, restorer, output=str(output), resume=True)
    # A kill among the frames may come before the segment ahead of it was recorded.
    assert restorer.frames in ({0} if left == 0 else {left, left + SEGMENT})
    assert (result.frames, result.resumed_frames) == (FRAMES, FRAMES - restorer.frames)
    assert same_frames(output, whole)
    assert {output, whole} == set(tmp_path.iterdir())


@pytest.mark.parametrize("codec", ["h264", "ffv1"])
def test_a_run_killed_after_all_was_done_is_told_so(
    tmp_path: Path, source: Path, codec: str
) -> None:
    settings: dict[str, Any] = {"codec": codec, "preset": None, "output": str(tmp_path / "out.mkv")}
    run_job(source, **settings)
    restorer = FakeRestorer()
    again = run_job(source, restorer, resume=True, **settings)
    assert (restorer.frames, again.frames, again.resumed_frames) == (0, FRAMES, FRAMES)
    other = make_film(tmp_path / "other.mp4", b_frames=0)
    for change in ({"scale": 3}, {"seed": 7}, {"end": "0.5"}, {"audio": False}):
        with pytest.raises(OutputError, match="already there"):
            run_job(source, resume=True, **{**settings, **change})
    with pytest.raises(OutputError, match="already there"):
        run_job(other, resume=True, **settings)
    with pytest.raises(OutputError, match="already there"):
        run_job(source, **settings)


def interrupted(
    source: Path, output: Path, spec: dict[str, Any] | None = None, **settings: Any
) -> None:
    restorer = FakeRestorer(on_frame=at(12, fail(KeyboardInterrupt())), **(spec or {}))
    with pytest.raises(KeyboardInterrupt):
        run_job(source, restorer, output=str(output), **settings)


def test_ctrl_c_leaves_work_to_resume(tmp_path: Path, source: Path, undisturbed: Path) -> None:
    output = tmp_path / "out.mp4"
    interrupted(source, output)
    journal = load(WorkFolder(output).path)
    assert journal is not None
    assert journal.frames == 10
    assert not output.exists()
    with pytest.raises(OutputError, match=r"--resume.*--overwrite"):
        run_job(source, output=str(output))
    result = run_job(source, output=str(output), resume=True)
    assert result.resumed_frames == 10
    assert same_frames(output, undisturbed)


RECURRENT = {"recurrent": True}


def test_a_recurrent_run_goes_on_from_its_last_result(tmp_path: Path, source: Path) -> None:
    """Without the state the frames after the seam would be others."""
    whole = run_job(source, FakeRestorer(**RECURRENT), output=str(tmp_path / "whole.mp4")).path
    alone = run_job(
        source, FakeRestorer(**RECURRENT), output=str(tmp_path / "alone.mp4"), temporal=False
    )
    assert not same_frames(alone.path, whole)
    output = tmp_path / "out.mp4"
    interrupted(source, output, RECURRENT)
    assert [path.name for path in WorkFolder(output).path.glob("*.state")] == ["000001.state"]
    restorer = FakeRestorer(**RECURRENT)
    assert run_job(source, restorer, output=str(output), resume=True).resumed_frames == 10
    assert restorer.frames == FRAMES - 10
    assert same_frames(output, whole)


@pytest.mark.parametrize("lost", ["000001.state", "000000.nut"])
def test_a_recurrent_run_whose_past_is_lost_starts_again(
    tmp_path: Path, source: Path, lost: str
) -> None:
    whole = run_job(source, FakeRestorer(**RECURRENT), output=str(tmp_path / "whole.mp4")).path
    output = tmp_path / "out.mp4"
    interrupted(source, output, RECURRENT)
    (WorkFolder(output).path / lost).write_bytes(b"damaged")
    result = run_job(source, FakeRestorer(**RECURRENT), output=str(output), resume=True)
    assert result.resumed_frames == 0
    assert same_frames(output, whole)


def test_a_run_from_before_there_were_states_has_other_settings(
    tmp_path: Path, source: Path
) -> None:
    output = tmp_path / "out.mp4"
    interrupted(source, output, RECURRENT)
    folder = WorkFolder(output).path
    journal = load(folder)
    assert journal is not None
    then = {key: value for key, value in journal.settings.items() if key != "temporal"}
    journals.save(folder, replace(journal, settings=then, state=None))
    with pytest.raises(OutputError, match="temporal was not set, is True"):
        run_job(source, FakeRestorer(**RECURRENT), output=str(output), resume=True)


def test_a_range_begins_without_a_past(tmp_path: Path, source: Path) -> None:
    """What the first frame of a range shows is that of a picture."""
    settings: dict[str, Any] = {"start": "0.4", "codec": "ffv1", "preset": None}
    paths = [
        run_job(
            source,
            FakeRestorer(**RECURRENT),
            output=str(tmp_path / f"{temporal}.mkv"),
            temporal=temporal,
            **settings,
        ).path
        for temporal in (True, False)
    ]
    steady, alone = (video_frames(path) for path in paths)
    assert np.array_equal(steady[0][1], alone[0][1])
    assert not np.array_equal(steady[3][1], alone[3][1])


def test_overwrite_starts_again(tmp_path: Path, source: Path) -> None:
    output = tmp_path / "out.mp4"
    interrupted(source, output)
    assert run_job(source, output=str(output), overwrite=True).resumed_frames == 0


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"scale": 3}, "height was 48, is 72"),
        ({"segment": 6}, "segment was 5, is 6"),
        ({"scene_threshold": 0}, "scene threshold was 0.35, is 0"),
        ({"crf": 30}, "encoder options was"),
        ({"restorer": FakeRestorer(recurrent=True)}, "temporal was False, is True"),
        ({"restorer": FakeRestorer(settings={"tile": 32})}, "tile was 64, is 32"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_resuming_with_another_setting_names_it(
    tmp_path: Path, source: Path, change: dict[str, Any], line: str
) -> None:
    output = tmp_path / "out.mp4"
    interrupted(source, output)
    with pytest.raises(OutputError, match=line) as caught:
        run_job(source, output=str(output), resume=True, **change)
    assert "\n" not in str(caught.value)
    assert run_job(source, output=str(output), resume=True).resumed_frames == 10


def test_resuming_with_another_input_is_refused(tmp_path: Path, source: Path) -> None:
    output = tmp_path / "out.mp4"
    interrupted(source, output)
    other = make_film(tmp_path / "other.mp4", b_frames=0)
    with pytest.raises(OutputError, match="another input"):
        run_job(other, output=str(output), resume=True)


def test_a_resumed_run_takes_the_tile_of_the_first(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The automatic tile depends on the memory that happens to be free."""
    output = tmp_path / "out.mp4"
    interrupted(source, output)
    asked: dict[str, Any] = {}

    def load_engine(**fields: Any) -> FakeRestorer:
        asked.update(fields)
        return FakeRestorer(settings={"tile": fields["tile"] or 32})

    import restore.engine

    monkeypatch.setattr(restore.engine, "load", load_engine)
    result = restore_video(
        source, output, resume=True, preset="ultrafast", segment=SEGMENT, scale=2
    )
    assert asked["tile"] == 64
    assert (asked["device"], asked["seed"]) == ("auto", 0)
    assert result.resumed_frames == 10


@pytest.mark.parametrize("name", ["write", "close"])
def test_a_full_disk_keeps_what_is_finished(
    tmp_path: Path, source: Path, undisturbed: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out.mp4"
    calls = {"write": 12, "close": 2}[name]
    plain = getattr(encode.SegmentWriter, name)

    def full(self: Any, *given: Any, **named: Any) -> Any:
        nonlocal calls
        calls -= 1
        if calls < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return plain(self, *given, **named)

    with monkeypatch.context() as patch, pytest.raises(OutputError, match=r"no space.*--resume"):
        patch.setattr(encode.SegmentWriter, name, full)
        run_job(source, output=str(output))
    result = run_job(source, output=str(output), resume=True)
    assert result.resumed_frames == 10
    assert same_frames(output, undisturbed)


def test_a_full_disk_during_the_join_keeps_all_segments(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out.mp4"
    with monkeypatch.context() as patch, pytest.raises(OutputError, match="no space"):
        patch.setattr(job, "join", fail(OSError(errno.ENOSPC, "No space left on device")))
        run_job(source, output=str(output))
    assert not output.exists()
    restorer = FakeRestorer()
    assert run_job(source, restorer, output=str(output), resume=True).frames == FRAMES
    assert restorer.frames == 0


def test_a_lost_segment_is_made_again(tmp_path: Path, source: Path, undisturbed: Path) -> None:
    output = tmp_path / "out.mp4"
    interrupted(source, output)
    last = sorted(WorkFolder(output).path.glob("0*"))[-1]
    last.write_bytes(last.read_bytes()[:-9])
    assert run_job(source, output=str(output), resume=True).resumed_frames == 5
    assert same_frames(output, undisturbed)


def test_points_of_resuming_are_closer_where_a_frame_takes_long(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    slow = fake_restorer(monkeypatch, tmp_path)
    assert job.segment_length(VideoConfig(), slow) == 24
    assert job.segment_length(VideoConfig(segment=7), slow) == 7
    slow.device = torch.device("cuda")
    assert job.segment_length(VideoConfig(), slow) == 120
    fast = fake_restorer(monkeypatch, tmp_path, spec={"segment_on_cpu": 90})
    assert job.segment_length(VideoConfig(), fast) == 90
