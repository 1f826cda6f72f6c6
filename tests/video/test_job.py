"""A job gives every frame, keeps what is finished, and says in one line what is in the way."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from video.fakes import FakeRestorer, packets, same_frames, seconds, video_frames
from video.films import make_film, picture

from restore.errors import InputError, OptionError, OutputError, RestoreError
from restore.video import VideoProgress, VideoResult, encode, job, mux, restore_video
from restore.video.journal import load
from restore.video.workfolder import WorkFolder

FRAMES = 24
SEGMENT = 5


def run(source: Path, restorer: FakeRestorer | None = None, **settings: Any) -> VideoResult:
    settings = {"preset": "ultrafast", "segment": SEGMENT, **settings}
    return restore_video(source, restorer=restorer or FakeRestorer(), **settings)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_film(tmp_path_factory.mktemp("source") / "clip.mp4")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, source: Path) -> Path:
    return run(source, output=str(tmp_path_factory.mktemp("whole") / "whole.mp4")).path


def at(number: int, action: Callable[[], Any]) -> Callable[[int], None]:
    def on_frame(index: int) -> None:
        if index == number:
            action()

    return on_frame


def fail(error: BaseException) -> Callable[..., Any]:
    def raise_it(*_: Any, **__: Any) -> Any:
        raise error

    return raise_it


def test_every_frame_comes_out_enlarged_at_its_time(tmp_path: Path, source: Path) -> None:
    seen: list[VideoProgress] = []
    result = run(
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
    result = run(copy, **settings)
    assert result.path == tmp_path / name
    with av.open(str(result.path)) as container:
        video = container.streams.video[0]
        assert (video.width, video.height) == (result.width, result.height)


def test_a_dry_run_writes_nothing(tmp_path: Path, source: Path) -> None:
    restorer = FakeRestorer()
    result = run(source, restorer, output=str(tmp_path / "out.mp4"), dry_run=True)
    assert (result.frames, result.plan.frames, result.width) == (0, FRAMES, 64)
    assert restorer.frames == 0
    assert list(tmp_path.iterdir()) == []


def test_the_input_is_never_the_output(tmp_path: Path, source: Path) -> None:
    copy = tmp_path / "clip.mp4"
    copy.write_bytes(source.read_bytes())
    link = tmp_path / "link.mp4"
    link.symlink_to(copy)
    for name in ("clip.mp4", "./clip.mp4", "link.mp4"):
        with pytest.raises(OutputError, match="is the input itself"):
            run(copy, output=str(tmp_path / name), overwrite=True)
    assert copy.read_bytes() == source.read_bytes()


def test_a_result_that_is_there_stays_unless_told_otherwise(tmp_path: Path, source: Path) -> None:
    taken = tmp_path / "out.mp4"
    taken.write_bytes(b"precious")
    for more in ({}, {"resume": True}):
        with pytest.raises(OutputError, match=r"already there.*--overwrite"):
            run(source, output=str(taken), **more)
    assert taken.read_bytes() == b"precious"
    with pytest.raises(ZeroDivisionError):
        run(
            source,
            FakeRestorer(on_frame=at(12, fail(ZeroDivisionError()))),
            output=str(taken),
            overwrite=True,
        )
    assert taken.read_bytes() == b"precious"  # replaced at the very end only
    run(source, output=str(taken), overwrite=True)
    assert len(video_frames(taken)) == FRAMES


WINDOWS = [{}, {"frames_before": 2, "frames_after": 1}]


@pytest.mark.parametrize("spec", WINDOWS, ids=["frame", "window"])
def test_a_resumed_run_gives_the_frames_of_an_undisturbed_one(
    tmp_path: Path, spec: dict[str, Any]
) -> None:
    """Failing at any frame, again and again, changes nothing; nor do cuts near the seams."""
    source = make_film(tmp_path / "a.mp4", pts=[512 * i + i % 3 for i in range(17)])
    scenes = {"scene_threshold": 0.02, "segment": 4}  # the moving pattern gives cuts at this level
    whole = run(source, FakeRestorer(**spec), output=str(tmp_path / "whole.mp4"), **scenes)
    torn = str(tmp_path / "torn.mp4")
    for number in (2, 4, 5, 11, 16):
        restorer = FakeRestorer(on_frame=at(number, fail(ZeroDivisionError())), **spec)
        with pytest.raises(ZeroDivisionError):
            run(source, restorer, output=torn, resume=True, **scenes)
    restorer = FakeRestorer(**spec)
    result = run(source, restorer, output=torn, resume=True, **scenes)
    assert result.resumed_frames >= 8
    assert restorer.frames <= 17 - result.resumed_frames + spec.get("frames_before", 0)
    assert result.frames == 17
    assert same_frames(result.path, whole.path)


def _die(source: str, output: str, moment: str) -> None:
    """Body of a process that is killed at some moment of its job."""

    def kill(*_: Any, **__: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    restorer = FakeRestorer(on_frame=at(12, kill) if moment == "network" else lambda index: None)
    if moment == "join":
        times = iter(range(30))
        plain = mux._seconds
        mux._seconds = lambda packet: plain(packet) if next(times, None) is not None else kill()
    if moment == "move":
        WorkFolder.remove = kill  # type: ignore[method-assign]
    run(Path(source), restorer, output=output, resume=True)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")
def test_killed_three_times_and_resumed(tmp_path: Path, source: Path, undisturbed: Path) -> None:
    output = tmp_path / "out.mp4"
    for moment in ("network", "join", "move"):
        process = multiprocessing.get_context("spawn").Process(
            target=_die, args=(str(source), str(output), moment)
        )
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        assert output.exists() == (moment == "move")
    restorer = FakeRestorer()
    result = run(source, restorer, output=str(output), resume=True)
    assert restorer.frames == 0
    assert result.frames == result.resumed_frames == FRAMES
    assert same_frames(output, undisturbed)
    assert list(tmp_path.iterdir()) == [output]


@pytest.mark.parametrize("codec", ["h264", "ffv1"])
def test_a_run_killed_after_all_was_done_is_told_so(
    tmp_path: Path, source: Path, codec: str
) -> None:
    settings: dict[str, Any] = {"codec": codec, "preset": None, "output": str(tmp_path / "out.mkv")}
    run(source, **settings)
    restorer = FakeRestorer()
    again = run(source, restorer, resume=True, **settings)
    assert (restorer.frames, again.frames, again.resumed_frames) == (0, FRAMES, FRAMES)
    other = make_film(tmp_path / "other.mp4", b_frames=0)
    for change in ({"scale": 3}, {"seed": 7}, {"end": "0.5"}, {"audio": False}):
        with pytest.raises(OutputError, match="already there"):
            run(source, resume=True, **{**settings, **change})
    with pytest.raises(OutputError, match="already there"):
        run(other, resume=True, **settings)
    with pytest.raises(OutputError, match="already there"):
        run(source, **settings)


def interrupted(source: Path, output: Path, **settings: Any) -> None:
    restorer = FakeRestorer(on_frame=at(12, fail(KeyboardInterrupt())))
    with pytest.raises(KeyboardInterrupt):
        run(source, restorer, output=str(output), **settings)


def test_ctrl_c_leaves_work_to_resume(tmp_path: Path, source: Path, undisturbed: Path) -> None:
    output = tmp_path / "out.mp4"
    interrupted(source, output)
    journal = load(WorkFolder(output).path)
    assert journal is not None
    assert journal.frames == 10
    assert not output.exists()
    with pytest.raises(OutputError, match=r"--resume.*--overwrite"):
        run(source, output=str(output))
    result = run(source, output=str(output), resume=True)
    assert result.resumed_frames == 10
    assert same_frames(output, undisturbed)


def test_overwrite_starts_again(tmp_path: Path, source: Path) -> None:
    output = tmp_path / "out.mp4"
    interrupted(source, output)
    assert run(source, output=str(output), overwrite=True).resumed_frames == 0


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"scale": 3}, "height was 48, is 72"),
        ({"segment": 6}, "segment was 5, is 6"),
        ({"scene_threshold": 0}, "scene threshold was 0.35, is 0"),
        ({"crf": 30}, "encoder options was"),
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
        run(source, output=str(output), resume=True, **change)
    assert "\n" not in str(caught.value)
    assert run(source, output=str(output), resume=True).resumed_frames == 10


def test_resuming_with_another_input_is_refused(tmp_path: Path, source: Path) -> None:
    output = tmp_path / "out.mp4"
    interrupted(source, output)
    other = make_film(tmp_path / "other.mp4", b_frames=0)
    with pytest.raises(OutputError, match="another input"):
        run(other, output=str(output), resume=True)


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
        run(source, output=str(output))
    result = run(source, output=str(output), resume=True)
    assert result.resumed_frames == 10
    assert same_frames(output, undisturbed)


def test_a_full_disk_during_the_join_keeps_all_segments(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out.mp4"
    with monkeypatch.context() as patch, pytest.raises(OutputError, match="no space"):
        patch.setattr(job, "join", fail(OSError(errno.ENOSPC, "No space left on device")))
        run(source, output=str(output))
    assert not output.exists()
    restorer = FakeRestorer()
    assert run(source, restorer, output=str(output), resume=True).frames == FRAMES
    assert restorer.frames == 0


def test_a_lost_segment_is_made_again(tmp_path: Path, source: Path, undisturbed: Path) -> None:
    output = tmp_path / "out.mp4"
    interrupted(source, output)
    last = sorted(WorkFolder(output).path.glob("0*"))[-1]
    last.write_bytes(last.read_bytes()[:-9])
    assert run(source, output=str(output), resume=True).resumed_frames == 5
    assert same_frames(output, undisturbed)


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
    result = run(cut)
    assert result.damaged is not None
    assert 10 < result.frames < 50
    with pytest.raises(OutputError, match="already there"):
        run(cut, resume=True)  # not taken for finished
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
        run(cut)
    result = run(cut, resume=True)
    assert result.damaged is not None
    assert result.resumed_frames == result.frames


def test_a_range_without_a_frame_is_an_error(tmp_path: Path, source: Path) -> None:
    with pytest.raises(InputError, match="--start"):
        run(source, output=str(tmp_path / "out.mp4"), start="100")
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
        run(source, restorer, output=str(tmp_path / "out.mp4"))


def test_an_encoder_that_drops_frames_is_noticed(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = encode.SegmentWriter.write

    def lossy(self: Any, rgb: Any, *, pts: int, duration: int) -> None:
        if pts != 512 * 7:
            plain(self, rgb, pts=pts, duration=duration)

    monkeypatch.setattr(encode.SegmentWriter, "write", lossy)
    with pytest.raises(OutputError, match="did not keep the frames"):
        run(source, output=str(tmp_path / "out.mp4"))


def test_an_error_of_the_progress_callback_comes_out(tmp_path: Path, source: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        run(source, output=str(tmp_path / "out.mp4"), progress=fail(ZeroDivisionError()))


def test_unknown_settings_and_missing_files_are_one_line(tmp_path: Path, source: Path) -> None:
    with pytest.raises(OptionError, match="unknown setting 'scal'"):
        run(source, scal=4)
    with pytest.raises(InputError, match="does not exist"):
        run(tmp_path / "no.mp4")
    with pytest.raises(OutputError, match="cannot write"):
        run(source, output=str(tmp_path / "no" / "out.mp4"))
