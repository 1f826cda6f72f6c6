"""A clip in pieces: put together they are frame for frame what one run makes."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
from video.fakes import FakeRestorer, same_frames
from video.films import make_film

from restore.batch import clips
from restore.batch.pieces import OtherFramesError, frames_from, scan_clip, segment_ends
from restore.batch.store import WORK, open_store
from restore.batch.tasks import Piece
from restore.config import VideoConfig
from restore.engine import Restorer
from restore.video import restore_video
from restore.video.probe import probe

FRAMES, SHOT, SEGMENT = 57, 17, 4
CONFIG = VideoConfig(
    model="compact-x2",
    scale=2,
    preset="ultrafast",
    segment=SEGMENT,
    resume=True,
    overwrite=True,
)


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four shots with sound, uneven times and B-frames."""
    pts = [512 * i + 40 * (i % 3) for i in range(FRAMES)]
    return make_film(tmp_path_factory.mktemp("film") / "a.mp4", pts=pts, scene=SHOT)


class Engine(FakeRestorer):
    """With the side of its tiles, which all pieces must share."""

    tile = 64


def engine(**spec: Any) -> Restorer:
    return cast(Restorer, Engine(**spec))


def in_pieces(film: Path, target: Path, **spec: Any) -> tuple[Path, tuple[Piece, ...], int]:
    """Result of a clip whose pieces were made in reverse, each by a restorer of its own."""
    store = open_store(str(target))

    def opened() -> clips.Clip:
        return clips.open_clip(7, film, target / WORK / "clips" / "7", stem="b", config=CONFIG)

    clip, frames = opened(), 0
    pieces = clips.divide(clip, store, fake(spec), workers=2)
    for piece in reversed(pieces):
        restorer = Engine(**spec)
        scratch = target / f"scratch-{piece.number}"
        scratch.mkdir()
        scan = clips.load_scan(opened(), store, scratch)
        clips.restore_piece(opened(), piece, scan, store, cast(Restorer, restorer), scratch)
        frames += restorer.frames
    scratch = target / "join"
    clip = opened()
    scan = clips.load_scan(clip, store, scratch)
    answer = clips.join_pieces(clip, len(pieces), scan, store, fake(spec), scratch)
    assert answer.frames == FRAMES
    return clip.plan.path, pieces, frames


def fake(spec: dict[str, Any]) -> Restorer:
    return engine(**spec, on_frame=_not_run)


def _not_run(index: int) -> None:
    raise AssertionError(f"frame {index} was restored by who only plans or joins")


@pytest.mark.parametrize(
    "spec",
    [{"frames_before": 2, "frames_after": 3}, {"recurrent": True}],
    ids=["window", "recurrent"],
)
def test_pieces_joined_are_the_undisturbed_run(
    tmp_path: Path, film: Path, spec: dict[str, Any]
) -> None:
    whole = restore_video(film, tmp_path / "whole.mp4", config=CONFIG, restorer=engine(**spec))
    assert (whole.frames, whole.cuts) == (FRAMES, 3)
    joined, pieces, frames = in_pieces(film, tmp_path / "out", **spec)
    assert len(pieces) >= 3
    assert [piece.first for piece in pieces[1:]] == [piece.last for piece in pieces[:-1]]
    assert same_frames(joined, whole.path)
    # Sound, tags and the stamp about the job too: the same bytes.
    assert joined.read_bytes() == whole.path.read_bytes()
    assert frames <= 1.5 * FRAMES  # what leads in is little


def test_a_clip_whose_method_remembers_all_of_it_is_not_split(tmp_path: Path, film: Path) -> None:
    clip = clips.open_clip(1, film, tmp_path, stem="b", config=CONFIG)
    store = open_store(str(tmp_path))
    streaming = engine(streaming=True)
    assert clips.divide(clip, store, streaming, workers=2) == ()
    assert "no-temporal" in clips.why_whole(clip, streaming, workers=2)[0]
    assert clips.divide(clip, store, engine(), workers=1) == ()
    one_shot = make_film(tmp_path / "one.mp4", pts=[512 * i for i in range(30)])
    clip = clips.open_clip(1, one_shot, tmp_path, stem="c", config=CONFIG)
    assert len(clips.divide(clip, store, engine(recurrent=True), workers=2)) == 1
    assert len(clips.divide(clip, store, engine(), workers=2)) > 1


def test_frames_that_come_out_other_than_before_are_noticed(tmp_path: Path, film: Path) -> None:
    scan = scan_clip(probe(film), threshold=0.35)
    for seek in (True, False):
        found = [frame.index for frame in frames_from(probe(film), scan, 30, seek=seek)]
        assert found == list(range(30, FRAMES))
    other = make_film(tmp_path / "other.mp4", pts=scan.pts, scene=16)
    with pytest.raises(OtherFramesError, match=r"frame 3[0-3] is another"):
        list(frames_from(probe(other), scan, 30, seek=True))


def test_segments_end_after_groups() -> None:
    assert segment_ends(10, [], after=0, segment=4) == [4, 8, 10]
    assert segment_ends(8, [], after=0, segment=4) == [4, 8]
    # With two frames after, results of a shot's end come together: 6 and 7 with the cut at 8.
    assert segment_ends(12, [8], after=2, segment=7) == [8, 12]
    assert segment_ends(12, [], after=2, segment=7) == [7, 12]
