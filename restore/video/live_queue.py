"""What bounds the delay of a live run, and what measures it.

    reader -> [FrameQueue] -> network -> [Channel] -> writer -> Delays

Without dropping, a full queue makes the reader wait, and with it the pipe and who fills it. With
dropping the reader never waits: before a frame goes to the network, those are left out that would
come out too late.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass

from restore.video.live_input import LiveFrame
from restore.video.pipeline import QUEUE_BYTES

DEPTH = 1
"""Frames that wait for the network; the reader holds one more."""

_LATEST = 8  # frames whose way to the output tells how long that of the next one will be
_POLL = 0.5  # seconds: Windows delivers Ctrl-C only between waits


@dataclass(frozen=True, kw_only=True, slots=True)
class Delay:
    """From the arrival of a frame's data to its last byte going out."""

    median_ms: float
    """Of all frames, in milliseconds, to 1 %."""
    worst_ms: float
    """Of all frames, in milliseconds."""
    median_frames: int
    """Frames that had come after it by then."""
    worst_frames: int
    """The most that had."""


class Delays:
    """Counts delays in memory that does not grow with the stream."""

    def __init__(self) -> None:
        self._seconds: Counter[int] = Counter()
        self._frames: Counter[int] = Counter()
        self._worst = 0.0

    def add(self, seconds: float, frames: int) -> None:
        """One frame that went out."""
        self._seconds[_class_of(seconds)] += 1
        self._frames[frames] += 1
        self._worst = max(self._worst, seconds)

    def so_far(self) -> Delay:
        """Summary; zeros before the first frame."""
        return Delay(
            median_ms=min(self._worst, _seconds_of(_median(self._seconds))) * 1000,
            worst_ms=self._worst * 1000,
            median_frames=_median(self._frames),
            worst_frames=max(self._frames, default=0),
        )


class FrameQueue:
    """Frames on their way to the network.

    Args:
        limit: seconds of delay beyond which frames are left out; None = the giver waits instead.

    Attributes:
        dropped: frames that were left out.
    """

    def __init__(self, *, limit: float | None = None) -> None:
        self.dropped = 0
        self._limit = limit
        self._frames: deque[tuple[LiveFrame, bool]] = deque()
        self._held = 0
        self._costs: deque[float] = deque(maxlen=_LATEST)
        self._ended = False
        self._error: BaseException | None = None
        self._changed = threading.Condition()

    def put(self, frame: LiveFrame, *, cut: bool) -> None:
        """Add a frame; `cut` = a new scene begins with it.

        Raises:
            BaseException: what `fail` was called with.
        """
        size = _bytes(frame)
        with self._changed:
            while self._limit is None and self._error is None and len(self._frames) >= DEPTH:
                self._changed.wait(_POLL)
            self._check()
            self._frames.append((frame, cut))
            self._held += size
            self._drop_late()
            while self._limit is not None and self._held > QUEUE_BYTES and len(self._frames) > 1:
                self._drop_first()
            self._changed.notify_all()

    def __iter__(self) -> Iterator[tuple[LiveFrame, bool]]:
        """Frames until `end`, waiting for each; raises what `fail` was called with."""
        while True:
            with self._changed:
                while self._error is None and not self._frames and not self._ended:
                    self._changed.wait(_POLL)
                self._check()
                if not self._frames:
                    return
                self._drop_late()
                item = self._frames.popleft()
                self._held -= _bytes(item[0])
                self._changed.notify_all()
            yield item
            del item  # not to be kept alive while waiting for the next one

    def note_cost(self, seconds: float) -> None:
        """A frame went out this long after it was taken from here."""
        with self._changed:
            self._costs.append(seconds)

    def end(self) -> None:
        """No further frame will come."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def fail(self, error: BaseException) -> None:
        """Stop both sides; frames on the way are dropped."""
        with self._changed:
            self._error = self._error or error
            self._frames.clear()
            self._changed.notify_all()

    def _drop_late(self) -> None:
        """Leave out frames that would come out too late, but never the newest one.

        Where the network alone takes longer than the limit, it so gets what is newest.
        """
        if self._limit is None:
            return
        cost = max(self._costs, default=0.0)
        now = time.perf_counter()
        while len(self._frames) > 1:
            if now - self._frames[0][0].arrival.seconds + cost <= self._limit:
                return
            self._drop_first()

    def _drop_first(self) -> None:
        frame, cut = self._frames.popleft()
        self._held -= _bytes(frame)
        self.dropped += 1
        if cut:  # the scene begins with the next one then
            self._frames[0] = (self._frames[0][0], True)

    def _check(self) -> None:
        if self._error is not None:
            raise self._error


def _bytes(item: LiveFrame) -> int:
    return item.frame.rgb.numel() * item.frame.rgb.element_size()


def _class_of(seconds: float) -> int:
    """Number of a class of delays: milliseconds up to 100, of 1 % width above."""
    ms = round(1000 * max(0.0, seconds))
    digits = max(0, len(str(ms)) - 3)
    return ms // 10**digits * 10**digits


def _seconds_of(number: int) -> float:
    return number / 1000


def _median(counts: Counter[int]) -> int:
    """The lower median of values that were counted."""
    half = (counts.total() + 1) // 2
    for value in sorted(counts):
        half -= counts[value]
        if half <= 0:
            return value
    return 0
