"""Every frame comes out once, upright and with its own time; damage costs only what it hit."""

from __future__ import annotations

import itertools
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from video.clips import (
    CLOCK,
    FRAME,
    cut,
    damage,
    fill_codes,
    fill_grain,
    level,
    samples,
    turn_mp4,
    write_clip,
)

from restore.errors import DamagedTailError, InputError
from restore.video.decode import Frame, decode
from restore.video.probe import probe
from restore.video.timestamps import Clock

B_FRAMES = {"bf": "3", "g": "12", "crf": "4"}


def levels(frames: list[Frame]) -> list[int]:
    """Luma code of each frame, as it was written by `fill_gray`."""
    return [round(float(frame.rgb.mean()) * 219 + 16) for frame in frames]


def read_until_damage(path: Path) -> tuple[list[Frame], str | None]:
    """Frames of a clip, and what was said when it ended early."""
    frames = []
    try:
        for frame in decode(probe(path)):
            frames.append(frame)
    except DamagedTailError as error:
        return frames, str(error)
    return frames, None


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".ts", ".nut"])
def test_every_frame_comes_once_in_order_with_its_time(tmp_path: Path, suffix: str) -> None:
    """B-frames, a variable rate and a late start, in containers with different clocks."""
    gaps = [1, 1, 2, 1, 5, 1, 1, 1, 3, 1, 1, 2, 1, 1, 1, 1]
    times = [FRAME * t for t in itertools.accumulate([50, *gaps])]
    info = probe(write_clip(tmp_path / f"clip{suffix}", times=times, options=B_FRAMES))
    frames = list(decode(info))
    assert levels(frames) == [level(i) for i in range(len(times))]
    assert [frame.index for frame in frames] == list(range(len(times)))
    seconds = [float(frame.pts * info.time_base) for frame in frames]
    written = [t / 90_000 for t in times]
    delay = seconds[0] - written[0]  # TS files begin with a delay of the muxer's
    assert seconds == pytest.approx([t + delay for t in written], abs=0.001)
    ends = [frame.pts + frame.duration for frame in frames[:-1]]
    assert ends == [frame.pts for frame in frames[1:]]
    assert frames[-1].duration * info.time_base == pytest.approx(1 / 25, abs=0.002)


def test_raw_stream_gets_times_from_the_frame_rate(tmp_path: Path) -> None:
    info = probe(write_clip(tmp_path / "clip.h264", frames=12, options=B_FRAMES))
    frames = list(decode(info))
    assert levels(frames) == [level(i) for i in range(12)]
    assert [frame.pts * info.time_base for frame in frames] == [Fraction(i, 25) for i in range(12)]


def test_avi_with_b_frames_has_rising_times(tmp_path: Path) -> None:
    path = write_clip(
        tmp_path / "clip.avi",
        codec="mpeg4",
        time_base=Fraction(1, 25),
        frames=12,
        options={"bf": "2", "qscale": "2"},
    )
    frames = list(decode(probe(path)))
    assert np.abs(np.diff([levels(frames), [level(i) for i in range(12)]], axis=0)).max() <= 3
    assert np.all(np.diff([frame.pts for frame in frames]) == 1)


def test_clock_repairs_what_is_missing_doubled_or_set_back() -> None:
    rate = Fraction(25)
    doubled = Clock(Fraction(1, 1000), rate)
    assert [doubled.stamp(t, None) for t in (0, 40, 40, 40, 80)] == [0, 40, 41, 42, 80]
    absent = Clock(Fraction(1, 1000), Fraction(30))
    assert [absent.stamp(None, None) for _ in range(4)] == [0, 33, 67, 100]  # does not drift
    partly = Clock(Fraction(1, 1000), rate)
    assert [partly.stamp(t, None) for t in (500, None, None, 620)] == [500, 540, 580, 620]
    back = Clock(Fraction(1, 1000), rate)
    times = [back.stamp(t, None) for t in (90_000, 90_040, 0, 40, 80)]
    assert times == [90_000, 90_040, 90_080, 90_120, 90_160]
    decode_times = Clock(Fraction(1, 25), rate)
    assert [decode_times.stamp(None, t) for t in (3, 4, 5)] == [3, 4, 5]
    negative = Clock(Fraction(1, 25), rate)
    assert [negative.stamp(t, None) for t in (-2, -1, 0)] == [-2, -1, 0]
    rateless = Clock(Fraction(1, 25), None)
    assert [rateless.stamp(None, None) for _ in range(3)] == [0, 1, 2]


@pytest.mark.parametrize(
    ("matrix", "turned"),
    [
        ((0, 1, -1, 0), lambda x: torch.rot90(x, -1, (1, 2))),  # the phone was held upright
        ((-1, 0, 0, -1), lambda x: torch.rot90(x, 2, (1, 2))),
        ((0, -1, 1, 0), lambda x: torch.rot90(x, 1, (1, 2))),
        ((-1, 0, 0, 1), lambda x: x.flip(2)),
        ((1, 0, 0, -1), lambda x: x.flip(1)),
        ((0, 1, 1, 0), lambda x: x.transpose(1, 2)),
    ],
)
def test_turned_clips_come_out_upright(tmp_path: Path, matrix, turned) -> None:  # type: ignore[no-untyped-def]
    def fill(_index: int, frame: av.VideoFrame) -> None:
        fill_codes(40, 90, 160)(0, frame)
        samples(frame.planes[0], 8)[:10, :20] = 200  # top left
        samples(frame.planes[0], 8)[30:, 50:] = 120  # bottom right

    plain = write_clip(tmp_path / "clip.mp4", fill=fill, frames=1)
    coded = next(decode(probe(plain))).rgb
    info = probe(turn_mp4(plain, matrix))
    frame = next(decode(info))
    assert frame.rgb.shape == (3, info.height, info.width)
    assert torch.equal(frame.rgb, turned(coded))
    assert frame.rgb.is_contiguous()


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv422p10le", "yuv444p12le", "gray", "gbrp10le"])
def test_odd_sizes_and_deep_formats_are_decoded(tmp_path: Path, pix_fmt: str) -> None:
    size = (31, 17)
    fill = fill_codes(*[300] * 3) if pix_fmt == "gbrp10le" else None
    path = write_clip(
        tmp_path / "clip.mkv",
        codec="ffv1",
        pix_fmt=pix_fmt,
        size=size,
        frames=2,
        **({"fill": fill} if fill else {}),
    )
    for frame in decode(probe(path)):
        assert frame.rgb.shape == (3, 17, 31) and frame.rgb.dtype == torch.float32
        assert frame.rgb.max() - frame.rgb.min() < 0.001


def test_start_and_end_choose_frames_by_time(tmp_path: Path) -> None:
    """The same frames as those of a whole reading, in a file that can be sought in and in one not.

    12 seconds, so that the start lies beyond the part that is read anyway.
    """
    for name in ("clip.mp4", "clip.ts", "clip.h264"):
        info = probe(write_clip(tmp_path / name, frames=300, options={**B_FRAMES, "crf": "20"}))
        whole = list(decode(info))
        for start, end in ((0.0, 0.2), (5.02, 5.5), (11.9, None), (50.0, None)):
            part = list(decode(info, start=start, end=end))
            limits = [info.start_time + t if t is not None else 99.0 for t in (start, end)]
            low, high = (round(limit / info.time_base) for limit in limits)
            wanted = [frame for frame in whole if low <= frame.pts < high]
            assert [(f.pts, f.duration) for f in part] == [(f.pts, f.duration) for f in wanted]
            assert [frame.index for frame in part] == list(range(len(wanted)))
            assert all(torch.equal(a.rgb, b.rgb) for a, b in zip(part, wanted, strict=True))


def test_resuming_sees_the_frames_of_the_first_run(tmp_path: Path) -> None:
    info = probe(write_clip(tmp_path / "clip.mp4", frames=20, options=B_FRAMES))
    whole = list(decode(info, start=0.2))
    later = list(decode(info, start=0.2, skip_until_pts=whole[6].pts + 1, first_index=7))
    assert [(f.index, f.pts) for f in later] == [(f.index, f.pts) for f in whole[7:]]
    assert all(torch.equal(a.rgb, b.rgb) for a, b in zip(later, whole[7:], strict=True))


def test_frames_are_read_one_by_one(tmp_path: Path) -> None:
    """An abandoned reading leaves the rest of the file unread and lets go of it."""
    path = write_clip(tmp_path / "clip.mp4", frames=40)
    frames = decode(probe(path))
    first = next(frames)
    before = first.rgb.clone()
    second = next(frames)
    assert torch.equal(first.rgb, before)  # its memory is not used again
    assert not torch.equal(first.rgb, second.rgb)
    frames.close()  # type: ignore[attr-defined]
    path.unlink()  # Windows refuses this while the file is open
    with pytest.raises(InputError):
        next(decode(probe(write_clip(path)).__class__(**fields_of_missing(path))))


def fields_of_missing(path: Path) -> dict[str, object]:
    """Fields of a clip whose file has gone since it was looked at."""
    info = probe(path)
    path.unlink()
    return {name: getattr(info, name) for name in info.__slots__}


def test_change_of_size_on_the_way_is_levelled(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = write_clip(tmp_path / "a.ts", size=(64, 48), frames=5)
    second = write_clip(
        tmp_path / "b.ts", size=(96, 64), times=[FRAME * t for t in range(5, 10)], frames=5
    )
    first.write_bytes(first.read_bytes() + second.read_bytes())
    frames = list(decode(probe(first)))
    assert len(frames) == 10
    assert {tuple(frame.rgb.shape) for frame in frames} == {(3, 48, 64)}
    assert caplog.text.count("changes its size") == 1


def test_opacity_is_left_out_and_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_clip(tmp_path / "clip.mkv", codec="ffv1", pix_fmt="yuva420p", frames=3)
    assert levels(list(decode(probe(path)))) == [level(i) for i in range(3)]
    assert caplog.text.count("opacity") == 1


def grainy_clip(path: Path, *, key_every: int = 10) -> Path:
    """Two seconds and a half whose bytes are mostly pictures, the index first."""
    avi, mp4 = path.suffix == ".avi", path.suffix == ".mp4"
    return write_clip(
        path,
        codec="ffv1" if avi else "libx264",
        time_base=Fraction(1, 25) if avi else CLOCK,
        frames=60,
        fill=fill_grain,
        container={"movflags": "faststart"} if mp4 else {},
        options={"g": str(key_every), **({} if avi else {"bf": "0", "crf": "10"})},
    )


@pytest.mark.parametrize("suffix", [".mp4", ".ts", ".avi"])
def test_damage_in_the_middle_is_passed_over(
    tmp_path: Path, suffix: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = damage(grainy_clip(tmp_path / f"clip{suffix}"), 0.50, 0.56)
    frames, ending = read_until_damage(path)
    assert ending is None
    assert 45 <= len(frames) <= 60
    found = levels(frames)
    assert abs(found[0] - level(0) - 4) < 3 and abs(found[-1] - level(59) - 4) < 3
    assert np.all(np.diff([frame.pts for frame in frames]) > 0)
    again, _ = read_until_damage(path)
    assert all(torch.equal(a.rgb, b.rgb) for a, b in zip(frames, again, strict=True))
    if len(frames) < 60 and suffix == ".mp4":
        assert "is damaged near" in caplog.text


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
@pytest.mark.parametrize("keep", [0.5, 0.96])
def test_cut_file_gives_what_is_there_and_then_says_so(
    tmp_path: Path, suffix: str, keep: float
) -> None:
    path = cut(grainy_clip(tmp_path / f"clip{suffix}"), keep)
    frames, ending = read_until_damage(path)
    assert 60 * keep - 12 <= len(frames) < 60
    assert ending is not None and "bytes are missing" in ending and "\n" not in ending
    for index, found in enumerate(levels(frames)[:-1]):
        assert abs(found - level(index) - 4) < 3


def test_spoiled_last_packets_are_an_early_end(tmp_path: Path) -> None:
    path = damage(grainy_clip(tmp_path / "clip.mp4"), 0.9, 1.0)
    frames, ending = read_until_damage(path)
    assert 45 <= len(frames) < 60
    assert ending is not None and "cannot be decoded" in ending


def test_what_a_reader_gives_up_on_is_an_early_end(tmp_path: Path) -> None:
    """Matroska: its reader looks for the next whole element, and ends quietly without one."""
    path = damage(grainy_clip(tmp_path / "clip.mkv", key_every=99), 0.2, 0.9)
    frames, ending = read_until_damage(path)
    assert 8 <= len(frames) < 20
    assert ending is not None and "behind that cannot be read" in ending


def test_still_last_picture_is_no_damage(tmp_path: Path) -> None:
    """Sound that goes on for long behind the last frame is as it was made."""
    times = [0, FRAME, 2 * FRAME]
    for suffix in (".mkv", ".mov"):
        path = write_clip(tmp_path / f"clip{suffix}", times=times, audio=True, seconds=4)
        frames, ending = read_until_damage(path)
        assert len(frames) == 3 and ending is None
