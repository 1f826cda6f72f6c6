"""Clips: frames pair by time, lost ones are counted, and a cut file is told."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from statistics import fmean

import av
import numpy as np
import numpy.typing as npt
import pytest
import torch

from restore.metrics import psnr
from restore.metrics.temporal import (
    frame_difference_step,
    motion_between,
    tlp_like_step,
    warping_step,
)
from restore.reports.config import ReportConfig
from restore.reports.events import Advanced, ReportEvent
from restore.reports.job import run
from restore.reports.report import Report

Pixels = npt.NDArray[np.uint8]
SIZE = (64, 48)


def moving(number: int, *, noise: float = 0) -> Pixels:
    """Frame of a smooth texture that moves two pixels to the right each time."""
    y, x = np.mgrid[0 : SIZE[1], 0 : SIZE[0]].astype(np.float64)
    x = x - 2 * number
    planes = [
        128 + 60 * np.sin(x / 4 + c) * np.cos(y / 5 + c) + 30 * np.sin(x / 11) for c in (0, 1, 2)
    ]
    draw = np.random.default_rng(number).normal(0, noise, (*x.shape, 3)) if noise else 0
    return np.clip(np.stack(planes, -1) + draw, 0, 255).round().astype(np.uint8)


def write(path: Path, frames: Sequence[Pixels], times: Sequence[int], *, rate: int = 25) -> Path:
    """A lossless clip with these time stamps, in frames."""
    path.parent.mkdir(exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=rate)
        stream.width, stream.height = SIZE
        stream.pix_fmt = "bgr0"
        stream.codec_context.time_base = Fraction(1, rate)
        for pixels, time in zip(frames, times, strict=True):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format="bgr0")
            frame.pts, frame.time_base = time, Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def measured(own: Path, true: Path | None, *metrics: str) -> Report:
    reference = None if true is None else str(true)
    return run(ReportConfig(restored=(str(own),), reference=reference, metric=metrics))


def tensor(pixels: Pixels) -> torch.Tensor:
    return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255


def test_frames_pair_by_time_and_lost_ones_are_counted(tmp_path: Path) -> None:
    true = [moving(n) for n in range(10)]
    own = [moving(n, noise=5) for n in range(10)]
    kept = [0, 1, 2, 3, 6, 7, 8, 9]
    write(tmp_path / "hr" / "c.mkv", true, range(10))
    write(tmp_path / "own" / "c_x4.mkv", [own[n] for n in kept], kept)
    report = measured(tmp_path / "own", tmp_path / "hr", "psnr", "frame-difference")
    (result,) = report.results
    assert result.failed is None
    assert result.series is not None
    assert result.series.times == pytest.approx([n / 25 for n in kept], abs=1e-3)
    expected = [psnr(own[n], true[n]) for n in kept]
    # The frames are decoded without loss; float32 rounds the last digits.
    assert result.series.values["psnr"] == pytest.approx(expected, abs=1e-4)
    assert result.values["psnr"] == pytest.approx(np.mean(expected), abs=1e-4)
    assert result.stray == 2
    assert "2 frames of the reference" in result.notes[0]
    assert not report.ok
    # No step goes over the gap.
    steps = result.series.values["frame-difference"]
    assert [n for n, value in enumerate(steps) if value is None] == [0, 4]


def test_a_lost_first_frame_shifts_nothing(tmp_path: Path) -> None:
    frames = [moving(n) for n in range(6)]
    write(tmp_path / "hr" / "c.mkv", frames, range(6))
    write(tmp_path / "own" / "c.nut", frames[1:], range(1, 6))
    (result,) = measured(tmp_path / "own" / "c.nut", tmp_path / "hr" / "c.mkv", "psnr").results
    assert result.series is not None
    assert result.series.values["psnr"] == [float("inf")] * 5
    assert result.stray == 1


def test_a_clock_that_starts_elsewhere_shifts_nothing(tmp_path: Path) -> None:
    frames = [moving(n) for n in range(6)]
    write(tmp_path / "hr" / "c.mkv", frames, range(6))
    write(tmp_path / "own" / "c.nut", frames, range(100, 106))
    (result,) = measured(tmp_path / "own" / "c.nut", tmp_path / "hr" / "c.mkv", "psnr").results
    assert result.series is not None
    assert result.series.values["psnr"] == [float("inf")] * 6
    assert result.stray == 0


def test_a_clip_that_equals_its_reference(tmp_path: Path) -> None:
    frames = [moving(n) for n in range(5)]
    write(tmp_path / "hr" / "c.mkv", frames, range(5))
    write(tmp_path / "own" / "c.mkv", frames, range(5))
    names = ("psnr", "warping-error", "frame-difference", "tlp-like")
    report = measured(tmp_path / "own", tmp_path / "hr", *names)
    assert report.ok
    values = report.results[0].values
    assert values["psnr"] == float("inf")
    assert values["frame-difference"] == 0
    assert values["tlp-like"] == 0
    assert values["warping-error"] is not None
    assert values["warping-error"] < 5  # interpolation and rounding: a level of 255 is 0.15


def test_without_reference_the_motion_is_its_own(tmp_path: Path) -> None:
    write(tmp_path / "own" / "c.mkv", [moving(n) for n in range(4)], range(4))
    report = measured(tmp_path / "own", None, "warping-error")
    assert report.ok
    assert report.results[0].values["warping-error"] is not None


def test_a_cut_clip_fails_and_the_others_go_on(tmp_path: Path) -> None:
    frames = [moving(n, noise=20) for n in range(50)]
    for name in ("a", "b"):
        write(tmp_path / "hr" / f"{name}.mkv", frames, range(50))
        write(tmp_path / "own" / f"{name}.mkv", frames, range(50))
    data = (tmp_path / "own" / "a.mkv").read_bytes()
    (tmp_path / "own" / "a.mkv").write_bytes(data[: len(data) // 2])
    report = measured(tmp_path / "own", tmp_path / "hr", "psnr")
    failed = {r.pair.key: r.failed for r in report.results}
    assert failed["b"] is None
    assert failed["a"] is not None
    assert "ends early" in failed["a"] or "cut short" in failed["a"]
    assert str(tmp_path) not in failed["a"]


def test_breaking_off_does_not_wait_for_the_clip(tmp_path: Path) -> None:
    write(tmp_path / "own" / "c.mkv", [moving(n) for n in range(120)], range(120))
    frames: list[int] = []

    def cancel(event: ReportEvent) -> None:
        assert isinstance(event, Advanced)  # and never that it is finished
        frames.append(event.frames)
        raise KeyboardInterrupt

    config = ReportConfig(restored=(str(tmp_path / "own"),), metric=("warping-error",))
    with pytest.raises(KeyboardInterrupt):
        run(config, cancel)
    assert len(frames) == 1


def test_all_formats_hold_clips(tmp_path: Path) -> None:
    true = [moving(n) for n in range(6)]
    write(tmp_path / "hr" / "c.mkv", true, range(6))
    write(tmp_path / "own" / "c.mkv", [moving(n, noise=8) for n in range(6)], range(6))
    report = measured(tmp_path / "own", tmp_path / "hr", "psnr", "warping-error")
    for suffix in ("html", "csv", "json", "md"):
        report.write(tmp_path / f"r.{suffix}")
    page = (tmp_path / "r.html").read_text()
    assert "<polyline" in page
    assert "data:image/jpeg" in page


def test_flicker_raises_the_warping_error_and_motion_does_not() -> None:
    frames = [tensor(moving(n)) for n in range(5)]
    motions = [motion_between(frames[n], frames[n - 1]) for n in range(1, 5)]

    def error(clip: list[torch.Tensor]) -> float:
        steps = zip(pairwise(clip), motions, strict=True)
        return 1e4 * fmean(warping_step(now, last, motion) for (last, now), motion in steps)

    steady = error(frames)
    flicker = error([frame * (1 - 0.1 * (n % 2)) for n, frame in enumerate(frames)])
    still = error([frames[0]] * 5)  # does not move along
    assert steady < 5
    # A tenth of a mean square of about (0.5^2 + 0.17^2) is (0.1)^2 of it, times 10,000.
    assert flicker == pytest.approx(28, rel=0.3)
    assert still > 20 * steady


def test_larger_results_move_by_the_same_motion() -> None:
    frames = [tensor(moving(n)) for n in range(2)]
    motion = motion_between(frames[1], frames[0])
    large = [
        torch.nn.functional.interpolate(f[None], scale_factor=2.0, mode="bilinear")[0]
        for f in frames
    ]
    small_error = warping_step(frames[1], frames[0], motion)
    assert warping_step(large[1], large[0], motion, scale=2) < 2 * small_error + 1e-3


def test_nothing_visible_is_no_number() -> None:
    frame = tensor(moving(0))
    motion = motion_between(frame, frame)
    hidden = type(motion)(flow=motion.flow, visible=torch.zeros_like(motion.visible))
    assert np.isnan(warping_step(frame, frame, hidden))


def test_differences_of_changes_have_known_values() -> None:
    zero, one = torch.zeros(3, 4, 4), torch.full((3, 4, 4), 1 / 255)
    # The result gets one level brighter where the reference gets two levels darker.
    assert frame_difference_step(one, zero, zero, 2 * one) == pytest.approx(3, abs=1e-4)
    assert tlp_like_step(one, zero, zero, 2 * one) == pytest.approx(1, abs=1e-4)
    assert tlp_like_step(one, zero, zero, one) == pytest.approx(0, abs=1e-6)
