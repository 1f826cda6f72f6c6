"""Real workers: pictures, clips, stores elsewhere, deaths, a folder that is watched."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from batch.pools import FakePool, drive, named, real_worker
from PIL import Image
from video.fakes import same_frames
from video.films import make_film

from restore.batch import BatchReport, read_status, restore_batch
from restore.batch.events import BatchEvent, Given, ItemDone, Split, WorkerLost, WorkerStarted
from restore.batch.store import WORK
from restore.batch_config import BatchConfig
from restore.config import VideoConfig
from restore.errors import OptionError, WeightsError
from restore.image.job import restore_images
from restore.video import restore_video

MODEL = "compact-fast"
LINE = {"preset": "ultrafast", "segment": 4, "temporal": False}


@pytest.fixture(scope="module")
def src(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures, one of which is none, and a clip."""
    folder = tmp_path_factory.mktemp("src")
    (folder / "d").mkdir()
    for number in range(4):
        values = np.random.default_rng(number).integers(0, 255, (9, 8, 3), np.uint8)
        Image.fromarray(values).save(folder / f"d/{number}.png")
    (folder / "bad.png").write_bytes(b"no picture")
    make_film(folder / "film.mp4", size=(16, 16))
    return folder


@pytest.fixture(scope="module")
def wanted(src: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `restore image` and `restore video` make of them."""
    folder = tmp_path_factory.mktemp("wanted")
    restore_images(src / "d", model=MODEL, output=str(folder / "d"))
    config = VideoConfig(model=MODEL, **LINE)
    restore_video(src / "film.mp4", folder / "film.mp4", config=config)
    return folder


def check(dst: Path, wanted: Path) -> None:
    """Every result is there once, as each command alone makes it, and nothing else is."""
    for picture in (wanted / "d").iterdir():
        assert (dst / "d" / picture.name).read_bytes() == picture.read_bytes()
    assert same_frames(dst / "film.mp4", wanted / "film.mp4")
    files = {path.relative_to(dst).as_posix() for path in dst.rglob("*") if path.is_file()}
    expected = {path.relative_to(wanted).as_posix() for path in wanted.rglob("*.*")}
    assert files - expected <= {f"{WORK}/manifest.sqlite"}
    assert expected <= files


class Killer:
    """Kills a worker's process once, when an event is the one that is waited for."""

    def __init__(self, when: Callable[[Given], bool]) -> None:
        self.when, self.events = when, list[BatchEvent]()
        self.pids: dict[int, int] = {}
        self.killed: Given | None = None

    def __call__(self, event: BatchEvent) -> None:
        self.events.append(event)
        if isinstance(event, WorkerStarted):
            self.pids[event.worker] = event.pid
        if isinstance(event, Given) and self.killed is None and self.when(event):
            self.killed = event
            os.kill(self.pids[event.worker], signal.SIGKILL)


def run_and_check(src: Path, dst: Path, wanted: Path, killer: Killer, **settings: Any) -> None:
    report = restore_batch(src, dst, model=MODEL, on_event=killer, **LINE, **settings)
    assert killer.killed is not None
    lost = named(killer.events, WorkerLost)
    assert [event.worker for event in lost] == [killer.killed.worker]
    assert [key for key, _ in report.failed] == ["bad.png"]
    assert (report.done, report.workers_lost) == (5, 1)
    assert sorted(event.source for event in named(killer.events, ItemDone)) == [
        *(f"d/{number}.png" for number in range(4)),
        "film.mp4",
    ]
    check(dst, wanted)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")
def test_processes_of_which_one_is_killed(tmp_path: Path, src: Path, wanted: Path) -> None:
    killer = Killer(lambda event: event.task == "piece" and event.piece == 2)
    run_and_check(src, tmp_path / "dst", wanted, killer, workers=2)
    assert named(killer.events, Split)[0].pieces > 2


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")
def test_ray_actors_of_which_one_is_killed(
    tmp_path: Path, src: Path, wanted: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("ray")
    before = signal.getsignal(signal.SIGTERM)
    killer = Killer(lambda event: event.task == "picture" and event.source != "bad.png")
    run_and_check(src, tmp_path / "dst", wanted, killer, workers=1, engine="ray")
    assert signal.getsignal(signal.SIGTERM) is before
    assert capfd.readouterr().out == ""  # of --json


@pytest.fixture
def memory() -> Iterator[str]:
    """An empty store in memory."""
    files = fsspec.filesystem("memory")
    files.store.clear()
    yield "memory://bucket"
    files.store.clear()


def test_a_store_elsewhere_works_like_a_folder(
    tmp_path: Path, src: Path, wanted: Path, memory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platformdirs.user_state_dir", lambda *_: str(tmp_path / "first"))
    files = fsspec.filesystem("memory")
    source, target = f"{memory}/in", f"{memory}/out"
    for path in src.rglob("*.*"):
        files.pipe(f"/bucket/in/{path.relative_to(src).as_posix()}", path.read_bytes())
    report, events = drive(source, target, **LINE)
    assert named(events, Split)
    assert ([key for key, _ in report.failed], report.done) == (["bad.png"], 5)
    copied = tmp_path / "copied"
    files.get("/bucket/out", str(copied), recursive=True)
    check(copied, wanted)
    # Another machine goes on from the copy of the manifest.
    monkeypatch.setattr("platformdirs.user_state_dir", lambda *_: str(tmp_path / "second"))
    assert read_status(target).done == 5
    report, _ = drive(source, target, **LINE)
    assert (report.done, report.skipped) == (0, 5)


def test_what_a_dead_worker_had_of_a_clip_is_gone_on_with(
    tmp_path: Path, src: Path, wanted: Path
) -> None:
    dst = tmp_path / "dst"
    settings: dict[str, Any] = {**LINE, "include": ("film.mp4",)}
    act = real_worker(src, dst, BatchConfig(model=MODEL, **settings), workers=1)
    stopped = []

    def dying(task: Any) -> Any:
        """Stops within the clip, as a kill would, and leaves the lock of a living process."""
        from restore.video.workfolder import WorkFolder

        plain = WorkFolder.add

        def add(self: Any, *given: Any) -> None:
            plain(self, *given)
            if not stopped and self.journal.frames >= 8:
                stopped.append(self.journal.frames)
                raise KeyboardInterrupt

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(WorkFolder, "add", add)
            patch.setattr("restore.folder_lock.FolderLock.release", lambda self: None)
            return act(task)

    with pytest.raises(KeyboardInterrupt):
        drive(src, dst, dying, **settings)
    taken: list[int] = []
    plain = restore_video

    def counted(*given: Any, **named: Any) -> Any:
        result = plain(*given, **named)
        taken.append(result.resumed_frames)
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("restore.batch.clips.restore_video", counted)
        report, _ = drive(src, dst, act, **settings)
    assert (report.done, taken) == (1, stopped)
    assert same_frames(dst / "film.mp4", wanted / "film.mp4")


def test_a_watched_folder_is_left_in_order(tmp_path: Path, src: Path) -> None:
    inbox, dst = tmp_path / "inbox", tmp_path / "dst"
    inbox.mkdir()
    picture = (src / "d/0.png").read_bytes()
    pool = FakePool(real_worker(inbox, dst, BatchConfig(model=MODEL, watch=True)), workers=1)
    grown, waits = inbox / "late.png", 0

    def live() -> None:
        """A file that grows from look to look, and then stands still."""
        nonlocal waits
        waits += 1
        if waits <= 6:
            grown.write_bytes(picture[: waits * len(picture) // 6])
        if (dst / "late.png").exists():
            raise KeyboardInterrupt
        assert waits < 200
        time.sleep(0.01)

    pool.on_wait = live
    with pytest.raises(KeyboardInterrupt):
        drive(inbox, dst, pool=pool, watch=True, poll=0.02)
    assert pool.closed
    status = read_status(dst)
    assert (status.items, status.failed, status.running) == (1, 0, 0)
    assert [path.name for path in (dst / WORK).iterdir()] == ["manifest.sqlite"]
    report: BatchReport = drive(inbox, dst)[0]
    assert (report.done + report.skipped, report.failed) == (1, [])


def test_what_no_worker_can_do_ends_the_run_with_one_line(tmp_path: Path, src: Path) -> None:
    weights = tmp_path / "x.safetensors"
    weights.write_bytes(b"nothing")
    with pytest.raises(WeightsError, match=r"x\.safetensors"):
        restore_batch(src, tmp_path / "dst", model=MODEL, weights=str(weights))
    assert multiprocessing.active_children() == []
    with pytest.raises(OptionError, match="cuda:99"):  # found out by the worker
        restore_batch(src, tmp_path / "dst", model=MODEL, device="cuda:99")
    assert multiprocessing.active_children() == []
    assert read_status(tmp_path / "dst").left == 6
