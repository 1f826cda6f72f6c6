"""Time stamps of decoded frames: found where they are missing, made to increase where they do not.

Every frame must come out, so every frame needs a time stamp of its own, later than the one before.
Files without them (raw H.264), with decode times only (AVI), with doubled ones, and recordings
whose clock jumps back all exist.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction

import av

log = logging.getLogger("restore.video")

_JUMP = 1  # seconds back that are a new clock and not two frames in the wrong order


@dataclass(frozen=True, kw_only=True, slots=True)
class Timed:
    """A decoded frame with its time."""

    frame: av.VideoFrame
    """The frame as it was decoded."""
    pts: int
    """Time stamp in the stream's unit; greater than that of the frame before."""
    duration: int
    """Time until the next frame, in the same unit, 1 or more."""


class Clock:
    """Gives each frame of a stream its time stamp, one after the other."""

    def __init__(self, time_base: Fraction, frame_rate: Fraction | None) -> None:
        """Start before the first frame.

        Args:
            time_base: unit of the time stamps, in seconds.
            frame_rate: frames per second, for frames without a time stamp; None = unknown.
        """
        self._time_base = time_base
        self._step = max(Fraction(1), 1 / (frame_rate * time_base)) if frame_rate else Fraction(1)
        self._last: int | None = None
        self._known, self._since = Fraction(0), 0  # last stamp that was given, frames since then
        self._offset = 0
        self._last_pts: int | None = None
        self._last_dts: int | None = None
        self._bad_pts = self._bad_dts = 0
        self._reported: set[str] = set()

    @property
    def step(self) -> int:
        """Nominal time of a frame, in the stream's unit."""
        return max(1, round(self._step))

    def stamp(self, pts: int | None, dts: int | None) -> int:
        """Time stamp of the next frame in presentation order.

        Args:
            pts: what the stream says, None = nothing.
            dts: decode time of the packet that completed it; a substitute in files without pts.
        """
        given = self._more_trusted(pts, dts)
        if given is None:
            stamp = self._derived()
        else:
            stamp = self._increasing(given + self._offset, given)
            self._known, self._since = Fraction(stamp), 0
        self._last = stamp
        return stamp

    def _more_trusted(self, pts: int | None, dts: int | None) -> int | None:
        """Whichever of the two has gone backwards less often so far, pts if in doubt."""
        if dts is not None:
            self._bad_dts += self._last_dts is not None and dts <= self._last_dts
            self._last_dts = dts
        if pts is not None:
            self._bad_pts += self._last_pts is not None and pts <= self._last_pts
            self._last_pts = pts
        if pts is None or (dts is not None and self._bad_pts > self._bad_dts):
            return dts
        return pts

    def _derived(self) -> int:
        """Stamp of a frame that has none: as many steps after the last known one as fit."""
        if self._last is None:
            return 0
        self._report("frames without a time stamp", "theirs follow from the frame rate")
        self._since += 1
        return max(self._last + 1, round(self._known + self._since * self._step))

    def _increasing(self, stamp: int, given: int) -> int:
        """`stamp`, or a later one when it is not after the last."""
        if self._last is None or stamp > self._last:
            return stamp
        if (self._last - stamp) * self._time_base > _JUMP:
            self._report("a clock that jumps back", "time goes on from there")
            self._offset = self._last + self.step - given
            return self._last + self.step
        self._report("frames that share a time stamp", "each is moved by one tick")
        return self._last + 1

    def _report(self, what: str, remedy: str) -> None:
        if what not in self._reported:
            self._reported.add(what)
            near = float((self._last or 0) * self._time_base)
            log.warning("the clip has %s (first near %.2f s): %s", what, near, remedy)


def timed(frames: Iterable[av.VideoFrame], clock: Clock) -> Iterator[Timed]:
    """Give frames their time stamps and durations; one frame is held back to know its end.

    When `frames` raises, the frame held back is yielded first.
    """
    held: tuple[av.VideoFrame, int] | None = None
    source, failure = iter(frames), None
    while True:
        try:
            frame = next(source, None)
        except Exception as error:
            frame, failure = None, error
        if frame is None:
            break
        pts = clock.stamp(frame.pts, frame.dts)
        if held is not None:
            yield Timed(frame=held[0], pts=held[1], duration=pts - held[1])
        held = (frame, pts)
    if held is not None:
        yield Timed(frame=held[0], pts=held[1], duration=_own_duration(held[0]) or clock.step)
    if failure is not None:
        raise failure


def _own_duration(frame: av.VideoFrame) -> int | None:
    """What the decoder says; older PyAV does not show it."""
    duration = getattr(frame, "duration", None)
    return int(duration) if duration else None
