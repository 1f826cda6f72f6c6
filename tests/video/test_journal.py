"""What a killed run leaves is either finished and recorded, or thrown away."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from restore.errors import OutputError
from restore.folder_lock import LOCK, FolderLock
from restore.video import journal as journals
from restore.video.journal import (
    Ending,
    Journal,
    Result,
    Segment,
    StateFile,
    describe_state,
    differences,
    fingerprint,
    intact,
)
from restore.video.workfolder import WorkFolder, writing

SOURCE = {"size": 3, "sha256_ends": "00"}
SETTINGS = {"model": "compact", "width": 64}


def segment(number: int, *, frames: int = 5, size: int = 4) -> Segment:
    return Segment(
        file=f"{number:06d}.nut",
        size=size,
        first=5 * number,
        frames=frames,
        first_pts=50 * number,
        last_pts=50 * number + 10 * (frames - 1),
        last_duration=10,
        delay=2,
    )


def add(work: WorkFolder, number: int, *, state: bool = False) -> None:
    work.part(segment(number).file).write_bytes(b"data")
    work.add(segment(number), {"last": torch.tensor(number)} if state else None)


def begin(work: WorkFolder, previous: Journal | None = None, **changes: Any) -> None:
    work.begin(source=SOURCE, settings={**SETTINGS, **changes}, previous=previous)


@pytest.fixture
def result(tmp_path: Path) -> Path:
    return tmp_path / "clip_x2.mp4"


def test_a_journal_is_read_as_it_was_written(tmp_path: Path) -> None:
    written = Journal(
        source=SOURCE,
        settings={"start": None, "scene_threshold": 0.35, "weights": "Gewichte ü"},
        segments=(segment(0), segment(1, frames=2)),
        state=StateFile(file="000001.state", size=8, sha256="0f"),
        ending=Ending(frames=7, damaged="ends at 3.2 s"),
        result=Result(size=12, mtime_ns=1_700_000_000_123_456_789),
    )
    journals.save(tmp_path, written)
    assert journals.load(tmp_path) == written
    assert [path.name for path in tmp_path.iterdir()] == [journals.JOURNAL]


def test_no_journal_is_no_error(tmp_path: Path) -> None:
    assert journals.load(tmp_path) is None


def test_a_journal_cut_off_anywhere_is_recognised(tmp_path: Path) -> None:
    journals.save(tmp_path, Journal(source=SOURCE, settings=SETTINGS, segments=(segment(0),)))
    path = tmp_path / journals.JOURNAL
    whole = path.read_bytes()
    for length in range(0, len(whole) - 1, 7):
        path.write_bytes(whole[:length])
        with pytest.raises(OutputError, match=r"damaged.*--overwrite"):
            journals.load(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"segments": [{"file": "x"}]},
        {"segments": 3},
        {"segments": [{**journals.asdict(segment(1))}]},
        {"segments": [{**journals.asdict(segment(0)), "file": "../../etc/passwd"}]},
        {"ending": {"frames": 99, "damaged": None}},
        {"state": {"file": "000000.state", "size": 1, "sha256": "00"}},
        {"settings": []},
        {"source": None},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_journal_that_contradicts_itself_is_damaged(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    journals.save(tmp_path, Journal(source=SOURCE, settings=SETTINGS))
    path = tmp_path / journals.JOURNAL
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(OutputError, match="damaged"):
        journals.load(tmp_path)


def test_a_journal_of_another_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / journals.JOURNAL).write_text('{"format": 99}')
    with pytest.raises(OutputError, match="another version"):
        journals.load(tmp_path)


def test_a_missing_or_changed_segment_ends_what_is_kept(tmp_path: Path) -> None:
    journal = Journal(
        source=SOURCE,
        settings=SETTINGS,
        segments=tuple(segment(i) for i in range(4)),
        ending=Ending(frames=20),
    )
    for i in range(4):
        (tmp_path / segment(i).file).write_bytes(b"data")
    assert intact(journal, tmp_path) is journal
    (tmp_path / segment(2).file).write_bytes(b"dat")
    kept = intact(journal, tmp_path)
    assert kept.segments == journal.segments[:2]
    assert kept.ending is None
    (tmp_path / segment(0).file).unlink()
    assert intact(journal, tmp_path).segments == ()


def test_what_was_made_with_a_state_is_of_no_use_without_it(tmp_path: Path) -> None:
    """Later frames would differ from those of an undisturbed run, so there are none to keep."""
    for i in range(3):
        (tmp_path / segment(i).file).write_bytes(b"data")
    state = tmp_path / "000002.state"
    state.write_bytes(b"kept")
    journal = Journal(
        source=SOURCE,
        settings=SETTINGS,
        segments=tuple(segment(i) for i in range(3)),
        state=describe_state(state),
    )
    assert intact(journal, tmp_path) is journal
    state.write_bytes(b"kepT")
    assert intact(journal, tmp_path) == Journal(source=SOURCE, settings=SETTINGS)
    finished = replace(journal, ending=Ending(frames=15))
    assert intact(finished, tmp_path) is finished  # nothing comes after it
    state.unlink()
    assert intact(journal, tmp_path).segments == ()
    (tmp_path / segment(1).file).unlink()
    assert intact(finished, tmp_path) == Journal(source=SOURCE, settings=SETTINGS)


def test_only_the_state_after_the_last_segment_is_kept(result: Path) -> None:
    with WorkFolder(result) as work:
        begin(work)
        assert work.state() == {}
        for number in range(3):
            add(work, number, state=True)
            assert int(work.state()["last"]) == number
        assert [path.name for path in work.path.glob("*.state")] == ["000002.state"]
        (work.path / "000003.state").write_bytes(b"killed before the journal named it")
    with WorkFolder(result) as work:
        begin(work, work.previous(resume=True, overwrite=False))
        assert work.journal.frames == 15
        assert int(work.state()["last"]) == 2
        assert [path.name for path in work.path.glob("*.state")] == ["000002.state"]


def test_the_fingerprint_tells_files_apart_and_ignores_their_dates(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    data = os.urandom(3 << 20)
    first.write_bytes(data)
    second.write_bytes(data)
    os.utime(second, (1, 1))
    assert fingerprint(first) == fingerprint(second)
    for position in (0, len(data) - 1):
        changed = bytearray(data)
        changed[position] ^= 1
        second.write_bytes(changed)
        assert fingerprint(first) != fingerprint(second)
    second.write_bytes(data + b"x")
    assert fingerprint(first) != fingerprint(second)


def test_differences_name_the_setting() -> None:
    now = {"tile": 128, "pixel_format": "yuv420p", "seed": 0}
    assert differences({"tile": 64, "pixel_format": "yuv420p"}, now) == [
        "seed was not set, is 0",
        "tile was 64, is 128",
    ]


def test_finished_segments_are_taken_over_and_strays_thrown_away(result: Path) -> None:
    with WorkFolder(result) as work:
        begin(work)
        add(work, 0)
        work.part("000001.nut").write_bytes(b"half")  # killed while it was written
        (work.path / "000001.nut").write_bytes(b"data")  # killed before it was recorded
    with WorkFolder(result) as work:
        previous = work.previous(resume=True, overwrite=False)
        begin(work, previous)
        assert work.journal.frames == 5
        names = {path.name for path in work.path.iterdir()}
    assert names == {"000000.nut", journals.JOURNAL, LOCK}


@pytest.mark.parametrize("state", [False, True])
@pytest.mark.parametrize("moment", range(14))
def test_a_run_killed_at_any_step_leaves_a_true_journal(
    result: Path, moment: int, state: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each system call that changes the folder may be the last one of a run."""

    class KilledError(BaseException):
        pass

    calls = 0

    def may_be_killed(what: Any) -> Any:
        def call(*given: Any, **named: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls > moment:
                raise KilledError
            return what(*given, **named)

        return call

    with WorkFolder(result) as work:
        begin(work)
        add(work, 0, state=state)
        with monkeypatch.context() as patch, pytest.raises(KilledError):
            patch.setattr(Path, "replace", may_be_killed(Path.replace))
            patch.setattr(Path, "unlink", may_be_killed(Path.unlink))
            patch.setattr(os, "fsync", may_be_killed(os.fsync))
            while True:
                add(work, len(work.journal.segments), state=state)
    found = journals.load(work.path)
    assert found is not None
    assert found == intact(found, work.path)
    assert found.segments[0] == segment(0)
    if state:
        with WorkFolder(result) as work:
            begin(work, work.previous(resume=True, overwrite=False))
            assert int(work.state()["last"]) == len(work.journal.segments) - 1


def test_resuming_with_another_setting_or_input_is_refused(result: Path) -> None:
    with WorkFolder(result) as work:
        begin(work)
        add(work, 0)
    with WorkFolder(result) as work:
        previous = work.previous(resume=True, overwrite=False)
        with pytest.raises(OutputError, match="width was 64, is 128"):
            begin(work, previous, width=128)
        with pytest.raises(OutputError, match="another input"):
            work.begin(source={"size": 4}, settings=SETTINGS, previous=previous)
    assert (work.path / "000000.nut").exists()


def test_unfinished_work_is_neither_taken_nor_lost_without_a_word(result: Path) -> None:
    with WorkFolder(result) as work:
        begin(work)
        add(work, 0)
    with WorkFolder(result) as work, pytest.raises(OutputError, match=r"--resume.*--overwrite"):
        work.previous(resume=False, overwrite=False)
    with WorkFolder(result) as work:
        assert work.previous(resume=False, overwrite=True) is None
        assert work.previous(resume=True, overwrite=True) is not None
        begin(work)
        assert not (work.path / "000000.nut").exists()


def test_resume_without_earlier_work_starts(result: Path) -> None:
    with WorkFolder(result) as work:
        assert work.previous(resume=True, overwrite=False) is None
        begin(work)
    assert not work.path.exists()  # nothing was finished: nothing stays


def test_the_result_is_moved_into_place_and_the_folder_goes(result: Path) -> None:
    with WorkFolder(result) as work:
        begin(work)
        add(work, 0)
        part = work.part("result.mp4")
        part.write_bytes(b"film")
        work.deliver(part)
    assert result.read_bytes() == b"film"
    assert list(result.parent.iterdir()) == [result]


def test_a_run_killed_after_the_move_is_known_to_be_done(result: Path) -> None:
    with WorkFolder(result) as work:
        begin(work)
        add(work, 0)
        part = work.part("result.mp4")
        part.write_bytes(b"film")
        with pytest.MonkeyPatch.context() as patch, pytest.raises(RuntimeError):
            patch.setattr(work, "remove", lambda: (_ for _ in ()).throw(RuntimeError()))
            work.deliver(part)
    with WorkFolder(result) as work:
        previous = work.previous(resume=True, overwrite=False)
        assert previous is not None
        assert work.delivered(previous)
        result.write_bytes(b"another")
        assert not work.delivered(previous)
        assert not work.delivered(replace(previous, result=None))


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES])
def test_a_write_error_is_one_line_with_the_path(tmp_path: Path, code: int) -> None:
    with pytest.raises(OutputError, match=r"out\.mp4") as caught, writing(tmp_path / "out.mp4"):
        raise OSError(code, os.strerror(code))
    assert "\n" not in str(caught.value)
    assert ("--resume" in str(caught.value)) == (code == errno.ENOSPC)


def test_a_missing_folder_is_made_and_an_impossible_one_is_an_error(tmp_path: Path) -> None:
    with WorkFolder(tmp_path / "new" / "deep" / "a.mp4") as work:
        assert work.path.is_dir()
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot write"), WorkFolder(tmp_path / "file" / "a.mp4"):
        pass


def test_a_second_run_is_refused_while_the_first_is_at_work(result: Path) -> None:
    with WorkFolder(result):
        code = (
            "import sys; from pathlib import Path; from restore.folder_lock import FolderLock\n"
            "FolderLock(Path(sys.argv[1])).acquire()"
        )
        folder = WorkFolder(result).path
        done = subprocess.run(
            [sys.executable, "-c", code, str(folder)], capture_output=True, text=True, timeout=60
        )
        assert f"process {os.getpid()} on" in done.stderr
        with pytest.raises(OutputError, match="at work"):
            FolderLock(folder).acquire()
    FolderLock(result.parent).acquire()


def _hold(folder: str) -> None:
    FolderLock(Path(folder)).acquire()
    time.sleep(60)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="the state is not told here")
def test_the_lock_of_a_killed_process_is_taken_over(tmp_path: Path) -> None:
    holder = multiprocessing.get_context("spawn").Process(target=_hold, args=(str(tmp_path),))
    holder.start()
    while not (tmp_path / LOCK).exists() or not (tmp_path / LOCK).read_text():
        time.sleep(0.01)
    with pytest.raises(OutputError, match=f"process {holder.pid} on"):
        FolderLock(tmp_path).acquire()
    holder.kill()
    # It is not waited for, and so stays in the table of processes: that does not count as alive.
    os.waitid(os.P_PID, holder.pid or 0, os.WEXITED | os.WNOWAIT)
    FolderLock(tmp_path).acquire()
    assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()
    holder.join()


def _lock_text(**changes: Any) -> str:
    return json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "born": 1, **changes})


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no start times here")
def test_a_number_that_another_process_got_later_is_no_owner(tmp_path: Path) -> None:
    (tmp_path / LOCK).write_text(_lock_text(born=1))
    FolderLock(tmp_path).acquire()
    assert json.loads((tmp_path / LOCK).read_text())["born"] != 1  # the new owner's own


def test_a_lock_from_another_machine_is_respected(tmp_path: Path) -> None:
    (tmp_path / LOCK).write_text(_lock_text(host="elsewhere", pid=1))
    with pytest.raises(OutputError, match=r"on elsewhere.*delete"):
        FolderLock(tmp_path).acquire()


def test_a_lock_without_content_is_stale_when_it_is_old(tmp_path: Path) -> None:
    (tmp_path / LOCK).write_text("")
    with pytest.raises(OutputError, match="at work"):
        FolderLock(tmp_path).acquire()
    os.utime(tmp_path / LOCK, (1, 1))
    FolderLock(tmp_path).acquire()


def test_a_lock_is_not_stolen_from_who_took_it_over_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two runs find the same stale lock; the slower one must not remove the faster one's."""
    (tmp_path / LOCK).write_text(_lock_text(host="gone", pid=1))
    slow = FolderLock(tmp_path)
    stale = json.loads((tmp_path / LOCK).read_text())
    fresh = _lock_text(host="elsewhere", pid=2)
    (tmp_path / LOCK).write_text(fresh)  # the faster run took over in between
    slow._discard(stale)
    assert (tmp_path / LOCK).read_text() == fresh
