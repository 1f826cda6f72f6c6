"""The driver: everything once, nothing lost, one bad item stops nothing, memory stays flat."""

from __future__ import annotations

import itertools
import sqlite3
import tracemalloc
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest
from batch.pools import FakePool, drive, named

from restore.batch import read_status, restore_batch
from restore.batch.events import ItemFailed, ItemPlanned, ItemRetried
from restore.batch.listing import Found
from restore.batch.manifest import Manifest
from restore.batch.run import PREPARED
from restore.batch.store import Entry
from restore.batch.tasks import Answer, Piece, Task
from restore.errors import InputError, OptionError, OutputError


def tree(folder: Path, *names: str) -> Path:
    """Files that are no pictures, for workers that do not look."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return folder


def writer(target: Path) -> FakePool:
    """Workers that write the name of the source into the result."""

    def act(task: Task) -> Answer:
        path = target / (task.name if task.kind == "picture" else f"{task.name}.mp4")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(task.source)
        output = path.relative_to(target).as_posix()
        return Answer(verdict="done", output=output, seconds=0.5, frames=1)

    return FakePool(act)


def results(target: Path) -> dict[str, str]:
    """Result and the source that it was made of."""
    files = (path for path in target.rglob("*") if path.is_file())
    shown = (path for path in files if ".restore-batch" not in path.parts)
    return {path.relative_to(target).as_posix(): path.read_text() for path in shown}


def test_the_tree_is_mirrored_and_names_that_collide_get_their_suffix(tmp_path: Path) -> None:
    src, dst = tmp_path / "src", tmp_path / "dst"
    tree(src, "a.png", "a.bmp", "b.JPEG", "d/a.jpg", "d/v.mp4", "d/v.mkv", "w.mov", "x.txt")
    tree(src, ".hidden/a.png", "d/.b.png")
    report, _ = drive(src, dst, pool=writer(dst))
    assert results(dst) == {
        "a_png.png": "a.png",
        "a_bmp.png": "a.bmp",
        "b.JPEG": "b.JPEG",
        "d/a.jpg": "d/a.jpg",
        "d/v_mp4.mp4": "d/v.mp4",
        "d/v_mkv.mp4": "d/v.mkv",
        "w.mp4": "w.mov",
    }
    assert (report.done, report.failed) == (7, [])
    # A later file does not take the name of a result.
    tree(src, "b.jpg", "w.avi")
    drive(src, dst, pool=writer(dst))
    assert results(dst) | {"b.jpg": "b.jpg", "w_avi.mp4": "w.avi"} == results(dst)


def test_the_same_run_again_does_nothing_but_what_changed(tmp_path: Path) -> None:
    src, dst = tree(tmp_path / "src", "a.png", "b.png", "c.png"), tmp_path / "dst"
    drive(src, dst, pool=writer(dst))
    report, _ = drive(src, dst, pool=writer(dst))
    assert (report.done, report.skipped) == (0, 3)
    (src / "a.png").write_text("longer than before")
    (dst / "b.png").unlink()
    report, _ = drive(src, dst, pool=writer(dst))
    assert (report.done, report.skipped) == (2, 1)


def test_patterns_choose(tmp_path: Path) -> None:
    src, dst = tree(tmp_path / "src", "a.png", "b.jpg", "day1/c.jpg", "day2/d.jpg"), tmp_path / "x"
    drive(src, dst, pool=writer(dst), include=("*.jpg",), exclude=("day2/*",))
    assert set(results(dst)) == {"b.jpg", "day1/c.jpg"}


def test_a_driver_that_dies_leaves_what_was_done(tmp_path: Path) -> None:
    src, dst = tree(tmp_path / "src", *(f"{i:02}.png" for i in range(20))), tmp_path / "dst"
    pool, seen = writer(dst), Counter[str]()
    act = pool.act

    def dying(task: Task) -> Answer:
        if sum(seen.values()) == 9:
            raise KeyboardInterrupt
        seen[task.source] += 1
        return act(task)

    pool.act = dying
    with pytest.raises(KeyboardInterrupt):
        drive(src, dst, pool=pool)
    assert pool.closed
    status = read_status(dst)
    # One of two at work was finished, and is not in the manifest: it is done again.
    assert (status.done, status.left, status.running) == (8, 12, 0)
    report, _ = drive(src, dst, pool=writer(dst))
    assert (report.done, report.skipped) == (12, 8)
    assert len(results(dst)) == 20


def test_what_fails_is_listed_and_stops_nothing(tmp_path: Path) -> None:
    src, dst = tree(tmp_path / "src", *(f"{i}.png" for i in range(8))), tmp_path / "dst"
    pool, tries, at = writer(dst), Counter[str](), list[tuple[str, int]]()
    act = pool.act

    def failing(task: Task) -> Answer:
        tries[task.source] += 1
        if task.source == "2.png":
            return Answer(verdict="failed", error="damaged")
        if task.source == "5.png":
            at.append((task.source, next(n for n, t in pool.held.items() if t is task)))
            return Answer(verdict="lost", error="its worker was killed", again=True)
        if task.source == "6.png" and tries[task.source] == 1:
            return Answer(verdict="failed", error="no space", again=True)
        return act(task)

    pool.act = failing
    report, events = drive(src, dst, pool=pool, attempts=3)
    assert report.failed == [
        ("2.png", "damaged"),
        ("5.png", "its worker was killed (tried 3 times)"),
    ]
    assert (report.done, tries["5.png"], tries["6.png"], tries["2.png"]) == (6, 3, 2, 1)
    assert [worker for _, worker in at] in ([0, 1, 0], [1, 0, 1])  # another one each time
    assert len(named(events, ItemRetried)) == 3
    assert len(named(events, ItemFailed)) == 2
    assert read_status(dst).failures == tuple(report.failed)
    report, _ = drive(src, dst, pool=writer(dst))  # what failed is tried again
    assert (report.done, report.skipped, report.failed) == (2, 6, [])


def test_other_settings_need_to_be_said(tmp_path: Path) -> None:
    src, dst = tree(tmp_path / "src", "a.png"), tmp_path / "dst"
    drive(src, dst, pool=writer(dst))
    with pytest.raises(OutputError, match=r"crf was None, is 30.*--overwrite") as caught:
        drive(src, dst, pool=writer(dst), crf=30)
    assert "\n" not in str(caught.value)
    report, _ = drive(src, dst, pool=writer(dst), crf=30, overwrite=True)
    assert report.done == 1
    report, _ = drive(src, dst, pool=writer(dst), crf=30, workers=3, attempts=1)
    assert report.skipped == 1  # how the work is shared out changes no result


def test_files_of_others_are_not_replaced(tmp_path: Path) -> None:
    src, dst = tree(tmp_path / "src", "a.png", "v.mkv"), tree(tmp_path / "dst", "a.png", "v.mp4")
    report, _ = drive(src, dst, pool=writer(dst))
    assert [key for key, _ in report.failed] == ["a.png", "v.mkv"]
    assert "'v.*' is already there" in report.failed[1][1]
    report, _ = drive(src, dst, pool=writer(dst), overwrite=True)
    assert (report.done, report.failed) == (2, [])


def test_places_in_which_originals_could_be_lost_are_refused(tmp_path: Path) -> None:
    src = tree(tmp_path / "src", "a.png")
    for dst in (src, tmp_path):
        with pytest.raises(OptionError, match="overwritten"):
            restore_batch(src, dst)
    inside = src / "out"
    drive(src, inside, pool=writer(inside))
    report, _ = drive(src, inside, pool=writer(inside))
    assert (report.done, report.skipped) == (0, 1)  # results are no inputs


def test_a_dry_run_says_what_would_be_done_and_changes_nothing(tmp_path: Path) -> None:
    src, dst = tree(tmp_path / "src", "a.png", "v.mov"), tmp_path / "dst"
    events: list[object] = []
    report = restore_batch(src, dst, dry_run=True, on_event=events.append)
    assert events == [
        ItemPlanned(source="a.png", destination="a.png"),
        ItemPlanned(source="v.mov", destination="v.*"),
    ]
    assert (report.planned, dst.exists()) == (2, False)
    drive(src, dst, pool=writer(dst))
    report = restore_batch(src, dst, model="compact-fast", dry_run=True)
    assert (report.planned, report.skipped) == (0, 2)


def test_two_drivers_on_one_target_are_refused(tmp_path: Path) -> None:
    src, dst = tree(tmp_path / "src", "a.png"), tmp_path / "dst"
    pool = writer(dst)

    def again() -> None:
        with pytest.raises(OutputError, match="another run"):
            drive(src, dst, pool=writer(dst))

    pool.on_wait = again
    assert drive(src, dst, pool=pool)[0].done == 1


def test_pieces_come_first_and_a_join_when_all_are_done(tmp_path: Path) -> None:
    names = [f"{i}.png" for i in range(5)]
    src, dst = tree(tmp_path / "src", "v.mp4", "w.mp4", *names), tmp_path / "dst"
    pool, order = writer(dst), list[str]()
    act = pool.act

    def splitting(task: Task) -> Answer:
        order.append(f"{task.kind} {task.source}")
        if task.kind == "clip":
            cuts = [0, 4, 8, 12]
            pairs = enumerate(itertools.pairwise(cuts))
            pieces = tuple(Piece(number=n, first=a, last=b, begin=a) for n, (a, b) in pairs)
            return Answer(verdict="split", pieces=pieces)
        if task.kind == "piece" and task.source == "w.mp4":
            return Answer(verdict="failed", error="damaged")
        assert task.kind != "join" or task.pieces == 3
        return Answer(verdict="done", seconds=1) if task.kind == "piece" else act(task)

    pool.act = splitting
    report, _ = drive(src, dst, pool=pool)
    assert report.failed == [("w.mp4", "damaged")]
    assert order.count("piece v.mp4") == 3
    assert order.count("join v.mp4") == 1
    assert order.index("join v.mp4") < order.index("picture 4.png")
    with closing(sqlite3.connect(dst / ".restore-batch" / "manifest.sqlite")) as file:
        assert file.execute("SELECT count(*) FROM pieces").fetchone() == (0,)
        assert file.execute("SELECT seconds FROM items WHERE key = 'v.mp4'").fetchone() == (3.5,)


@pytest.mark.parametrize("items", [4_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_memory_and_queues_do_not_grow_with_the_items(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, items: int
) -> None:
    def listing(*_: object) -> object:
        return (
            Found(
                entry=Entry(key=f"{i:06}.png", size=1, stamp="1"),
                kind="picture",
                plain=f"{i:06}.png",
                full=f"{i:06}_png.png",
            )
            for i in range(items)
        )

    monkeypatch.setattr("restore.batch.run.find_items", listing)
    asked = list[int]()
    plain = Manifest.waiting_tasks

    def waiting(self: Manifest, limit: int) -> list[Task]:
        tasks = plain(self, limit)
        asked.append(len(tasks))
        return tasks

    monkeypatch.setattr(Manifest, "waiting_tasks", waiting)
    (tmp_path / "src").mkdir()
    pool = FakePool(lambda task: Answer(verdict="done", output=task.name), workers=8)
    tracemalloc.start()
    events = Counter[str]()
    from restore.batch.run import restore_items
    from restore.batch.store import open_store
    from restore.batch_config import BatchConfig

    report = restore_items(
        open_store(str(tmp_path / "src")),
        open_store(str(tmp_path / "dst")),
        BatchConfig(model="compact-fast"),
        lambda event: events.update([type(event).__name__]),
        pool_of=lambda *_, **__: (pool, 8),
    )
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (report.done, events["ItemDone"]) == (items, items)
    assert (pool.most, max(asked)) == (8, PREPARED)
    # A row of the listing is about 300 bytes: 1,000 are held while they are inserted. 100,000
    # at once would be 30 MB.
    assert peak < 4 << 20


def test_a_damaged_manifest_is_named_with_what_to_do(tmp_path: Path) -> None:
    manifest = tmp_path / ".restore-batch" / "manifest.sqlite"
    manifest.parent.mkdir()
    manifest.write_text("broken")
    with pytest.raises(InputError, match=r"move \.restore-batch/manifest\.sqlite away"):
        read_status(tmp_path)
