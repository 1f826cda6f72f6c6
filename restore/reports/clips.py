"""Numbers of one pair of clips: frame by frame, by time stamp.

    restored  --decode--+
                        +--> pairs of frames --> metrics of pictures, then of two pairs in a row
    reference --decode--+

Two frames of each clip are held, besides what the decoders hold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
from torch import Tensor

from restore.errors import InputError, RestoreError
from restore.image.batch import one_line
from restore.metrics import temporal
from restore.reports.catalogue import Metric
from restore.reports.config import ReportConfig
from restore.reports.measure import add_sizes, value_of
from restore.reports.pairing import Pair
from restore.reports.reading import frame_array
from restore.reports.results import Result, Series
from restore.reports.statistics import counted
from restore.resampling import resample
from restore.video.decode import Frame, decode
from restore.video.probe import ClipInfo, probe

_ALIGNED = Fraction(3, 4)
"""Clips whose first frames are less than this share of a frame apart begin together: containers
shift a clip by the delay of its sound. A first frame that is lost is a whole frame."""
_STILL_FRAME = Fraction(1, 25)
_OTHER_CLOCK = Fraction(1, 2)
"""Seconds between the beginnings of two files above which their clocks are different ones (an MPEG
stream counts from any number); below that time stamps are taken as they are, so that a file whose
first frames are lost is found out."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FramePair:
    """Two frames that are shown at one time."""

    time: float
    """Seconds from the clip's beginning."""
    own_time: float
    """The same by the clock of the result."""
    restored: Tensor
    """RGB `(3, H, W)` in [0, 1]."""
    reference: Tensor | None
    """The same of the reference."""
    follows: bool
    """The pair before is of the frames right before these, in both clips."""


def measure_clip(
    pair: Pair,
    metrics: Sequence[Metric],
    config: ReportConfig,
    on_frames: Callable[[int], None],
) -> Result:
    """Decode a pair of clips side by side and compute all that looks at frames.

    Raises:
        InputError: one cannot be read to its end, the sizes differ, or no frame has a counterpart.
    """
    walk = FrameWalk(pair, config)
    series = Series(values={m.spec.name: [] for m in metrics if m.spec.kind in ("picture", "clip")})
    result = Result(pair=pair, series=series, bytes=pair.restored.stat().st_size)
    before: FramePair | None = None
    for now in walk.pairs():
        series.times.append(now.time)
        series.own_times.append(now.own_time)
        _add_frame(result, now, metrics)
        _add_step(result, now, before if now.follows else None, metrics)
        before = now
        on_frames(len(series.times))
    if before is None:
        raise InputError("no frame of it has a counterpart at its time in the reference")
    result.size = (before.restored.shape[2], before.restored.shape[1])
    result.stray = walk.stray
    result.notes = walk.notes()
    units = {metric.spec.name: metric.spec.unit for metric in metrics}
    for name, values in series.values.items():
        found = [value for value in values if value is not None]
        result.values[name] = _mean(found, unit=units[name])
        if not found:
            result.problems.setdefault(name, "it has no value for any frame of this clip")
    pixels = walk.restored.width * walk.restored.height
    if walk.reference is not None:
        pixels = walk.reference.width * walk.reference.height
    add_sizes(result, metrics, pixels * len(series.times))
    return result


def _mean(values: Sequence[float], *, unit: str) -> float | None:
    """Mean over frames; equal frames count as in `restore.reports.statistics`."""
    if not values:
        return None
    return float("inf") if np.isinf(values).all() else float(counted(values, unit=unit).mean())


def _add_frame(result: Result, now: FramePair, metrics: Sequence[Metric]) -> None:
    assert result.series is not None
    image = frame_array(now.restored)
    true = None if now.reference is None else frame_array(now.reference)
    for metric in metrics:
        if metric.compute is None:
            continue
        name, value = metric.spec.name, None
        try:
            value = value_of(metric, image, true)
        except RestoreError as error:
            result.problems.setdefault(name, one_line(str(error)))
        result.series.values[name].append(value)


def _add_step(
    result: Result, now: FramePair, before: FramePair | None, metrics: Sequence[Metric]
) -> None:
    assert result.series is not None
    wanted = [metric.spec.name for metric in metrics if metric.spec.kind == "clip"]
    values = dict[str, float]()
    if before is not None and wanted:
        values = _steps(now, before, wanted)
    for name in wanted:
        value = values.get(name, float("nan"))
        result.series.values[name].append(None if value != value else value)


def _steps(now: FramePair, before: FramePair, wanted: Sequence[str]) -> dict[str, float]:
    """Metrics of two pairs of frames in a row."""
    values = {}
    if "warping-error" in wanted:
        moving = (now.restored, before.restored)
        if now.reference is not None and before.reference is not None:
            moving = (now.reference, before.reference)
        motion = temporal.motion_between(*moving)
        values["warping-error"] = 1e4 * temporal.warping_step(now.restored, before.restored, motion)
    if now.reference is not None and before.reference is not None:
        frames = (now.restored, before.restored, now.reference, before.reference)
        values["frame-difference"] = temporal.frame_difference_step(*frames)
        values["tlp-like"] = temporal.tlp_like_step(*frames)
    return values


@dataclass
class FrameWalk:
    """Walks through two clips at once, and counts what has no counterpart."""

    pair: Pair
    config: ReportConfig
    restored: ClipInfo = field(init=False)
    reference: ClipInfo | None = field(init=False)
    stray_restored: int = 0
    stray_reference: int = 0

    def __post_init__(self) -> None:
        self.restored = probe(self.pair.restored)
        self.reference = None if self.pair.reference is None else probe(self.pair.reference)
        if self.reference is not None and self.config.fit == "fail":
            own, true = self.restored, self.reference
            if (own.width, own.height) != (true.width, true.height):
                raise InputError(
                    f"the result has {own.width}x{own.height} pixels, its reference "
                    f"{true.width}x{true.height}; make them alike, or give --fit crop or --fit "
                    "resize"
                )

    @property
    def stray(self) -> int:
        """Frames without a counterpart."""
        return self.stray_restored + self.stray_reference

    def notes(self) -> tuple[str, ...]:
        """What the user should know, one line each."""
        counts = {"the result": self.stray_restored, "the reference": self.stray_reference}
        return tuple(
            f"{count} frame{'s' if count > 1 else ''} of {whose} without a counterpart"
            for whose, count in counts.items()
            if count
        )

    def pairs(self) -> Iterator[FramePair]:
        """Frames that belong together, in order.

        Raises:
            InputError: a clip cannot be read to its end.
        """
        zero, true_zero = self._zeros()
        own = _timed(self.restored, zero)
        if self.reference is None:
            for index, (time, frame) in enumerate(own):
                yield self._pair((time, frame), None, follows=index > 0)
            return
        # Drawn to its end, also where the result is shorter: a cut file is to be found out.
        last = (-2, -2)
        for a, b in self._matched(own, _timed(self.reference, true_zero)):
            if a is None or b is None:
                self.stray_restored += a is not None
                self.stray_reference += b is not None
                continue
            indices = (a[1].index, b[1].index)
            follows = indices == (last[0] + 1, last[1] + 1)
            last = indices
            yield self._pair(a, b, follows=follows)

    def at(self, time: float, own_time: float) -> FramePair:
        """The frames of a pair that `pairs` gave, found by its times.

        Raises:
            InputError: they are not there any more.
        """
        found: list[_Moment] = []
        wanted = zip((self.restored, self.reference), (own_time, time), self._zeros(), strict=True)
        for info, seconds, zero in wanted:
            if info is not None:
                begin = seconds - float(_frame_time(info)) / 4
                found.append(next(_timed(info, zero, start=begin), None))
        if found[0] is None:
            raise InputError(f"it has no frame at {own_time:.2f} s any more")
        return self._pair(found[0], found[1] if len(found) > 1 else None, follows=False)

    def _zeros(self) -> tuple[Fraction, Fraction]:
        """Time stamps, in seconds, that count as 0 in the result and in the reference."""
        own = _start(self.restored)
        true = own if self.reference is None else _start(self.reference)
        return (true if abs(own - true) <= _OTHER_CLOCK else own), true

    def _matched(self, own: _Timed, true: _Timed) -> Iterator[tuple[_Moment, _Moment]]:
        """Pairs of moments at one time; a moment with None has no counterpart."""
        assert self.reference is not None
        step = _frame_time(self.reference)
        a, b = next(own, None), next(true, None)
        shift = Fraction(0)
        if a is not None and b is not None and abs(a[0] - b[0]) < _ALIGNED * step:
            shift = a[0] - b[0]
        while a is not None or b is not None:
            gap = None if a is None or b is None else a[0] - shift - b[0]
            if gap is not None and abs(gap) <= step / 2:
                yield a, b
                a, b = next(own, None), next(true, None)
            elif b is None or (gap is not None and gap < 0):
                yield a, None
                a = next(own, None)
            else:
                yield None, b
                b = next(true, None)

    def _pair(self, own: tuple[Fraction, Frame], true: _Moment, *, follows: bool) -> FramePair:
        first, second = own[1].rgb, None if true is None else true[1].rgb
        if second is not None and first.shape != second.shape:
            first, second = self._fitted(first, second)
        border = self.config.crop_border
        if border and 2 * border >= min(first.shape[1:]):
            raise InputError(f"a crop border of {border} leaves nothing of its frames; give less")
        return FramePair(
            time=float((true or own)[0]),
            own_time=float(own[0]),
            restored=_cropped(first, border),
            reference=None if second is None else _cropped(second, border),
            follows=follows,
        )

    def _fitted(self, own: Tensor, true: Tensor) -> tuple[Tensor, Tensor]:
        if self.config.fit == "resize":
            return resample(own, (true.shape[2], true.shape[1])), true
        rows, columns = (min(own.shape[i], true.shape[i]) for i in (1, 2))
        return own[:, :rows, :columns], true[:, :rows, :columns]


_Moment = tuple[Fraction, Frame] | None
_Timed = Iterator[tuple[Fraction, Frame]]


def _start(info: ClipInfo) -> Fraction:
    """Time stamp of the file's beginning, in seconds."""
    return Fraction(info.start_time).limit_denominator(10**6)


def _timed(info: ClipInfo, zero: Fraction, *, start: float | None = None) -> _Timed:
    """Frames with their seconds after `zero`, from `start` on."""
    if start is not None:
        start = max(0.0, start + float(zero - _start(info)))
    for frame in decode(info, start=start):
        yield frame.pts * info.time_base - zero, frame


def _frame_time(info: ClipInfo) -> Fraction:
    """Seconds that a frame is shown, nominally."""
    return 1 / info.frame_rate if info.frame_rate else _STILL_FRAME


def _cropped(frame: Tensor, border: int) -> Tensor:
    height, width = frame.shape[1:]
    return frame[:, border : height - border, border : width - border].contiguous()
