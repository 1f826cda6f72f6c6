"""Decoding, network and encoding at the same time, joined by short queues.

    decode thread          main thread                 encode thread
    file -> frames, cuts -> [queue] -> FrameStream -> [queue] -> encoder -> segments

A queue holds a few frames at most, so memory does not grow with the clip. An error in any thread
stops the others, and comes out of `run` as it was raised; Ctrl-C does the same.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Generic, Protocol, TypeVar

from torch import Tensor

from restore.errors import DamagedTailError
from restore.video.decode import Frame

Item = TypeVar("Item")

QUEUE_FRAMES = 2
"""A queue holds at most this many frames: one being used next, one in reserve."""
QUEUE_BYTES = 256 << 20
"""A queue takes no further frame while it holds this much; one frame always passes."""

_POLL = 0.5  # seconds: Windows delivers Ctrl-C only between waits


class StoppedError(Exception):
    """Another thread has failed: whoever gets this stops silently."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Restored:
    """One frame of the result."""

    index: int
    """Number in the clip, from 0."""
    pts: int
    """Time stamp of the input's frame."""
    duration: int
    """How long it is shown, in the same units."""
    rgb: Tensor
    """RGB `(3, h, w)` in [0, 1]."""
    ends: bool = False
    """A segment ends with this frame."""
    state: Mapping[str, Tensor] = field(default_factory=dict)
    """What the stream kept after it, for going on there; empty = nothing."""

    @property
    def size(self) -> int:
        """Bytes that it holds in memory."""
        return sum(_bytes(tensor) for tensor in (self.rgb, *self.state.values()))


class Sink(Protocol):
    """Takes the frames of the result, on a thread of its own."""

    def write(self, frame: Restored) -> None:
        """Take the next frame."""
        ...

    def finish(self) -> None:
        """All frames were written."""
        ...

    def abort(self) -> None:
        """There will be no further frame; drop what is unfinished."""
        ...


class Stream(Protocol):
    """What the pipeline asks of `restore.streaming.FrameStream`."""

    def push(self, frame: Tensor, index: int) -> list[tuple[int, Tensor]]:
        """Add a frame; results that became ready."""
        ...

    def flush(self) -> list[tuple[int, Tensor]]:
        """Results still to come."""
        ...

    def reset(self) -> None:
        """Forget all frames."""
        ...

    def state(self) -> Mapping[str, Tensor]:
        """What it keeps after the latest result, not to be changed; empty = nothing."""
        ...


@dataclass(kw_only=True, slots=True)
class Outcome:
    """What a run of the pipeline did."""

    decoded: int = 0
    """Frames that came in, without those that only lead in."""
    restored: int = 0
    """Frames that went out."""
    cuts: int = 0
    """Scene cuts at which the stream was reset."""
    network_seconds: float = 0.0
    """Time spent in the restorer."""
    damaged: str | None = None
    """Where and why the input's data broke off."""


class Channel(Generic[Item]):
    """Hands items from one thread to another; the giver waits while it is full."""

    def __init__(self, *, items: int = QUEUE_FRAMES, size: int = QUEUE_BYTES) -> None:
        self._items: deque[tuple[Item, int]] = deque()
        self._most, self._size = items, size
        self._held = 0
        self._ended = False
        self._error: BaseException | None = None
        self._changed = threading.Condition()

    def put(self, item: Item, *, size: int) -> None:
        """Hand over an item of `size` bytes.

        Raises:
            BaseException: what `fail` was called with.
        """
        with self._changed:
            while self._error is None and self._items and self._is_full(size):
                self._changed.wait(_POLL)
            self._check()
            self._items.append((item, size))
            self._held += size
            self._changed.notify_all()

    def __iter__(self) -> Iterator[Item]:
        """Items until `end`, waiting for each; raises what `fail` was called with."""
        while True:
            with self._changed:
                while self._error is None and not self._items and not self._ended:
                    self._changed.wait(_POLL)
                self._check()
                if not self._items:
                    return
                item, size = self._items.popleft()
                self._held -= size
                self._changed.notify_all()
            yield item
            del item  # not to be kept alive while waiting for the next one

    def end(self) -> None:
        """No further item will come."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def fail(self, error: BaseException) -> None:
        """Stop both sides; items on the way are dropped."""
        with self._changed:
            self._error = self._error or error
            self._items.clear()
            self._changed.notify_all()

    def check(self) -> None:
        """Raise what `fail` was called with, if it was."""
        with self._changed:
            self._check()

    def _is_full(self, size: int) -> bool:
        return len(self._items) >= self._most or self._held + size > self._size

    def _check(self) -> None:
        if self._error is not None:
            raise self._error


def run(
    frames: Iterable[tuple[Frame, bool]],
    stream: Stream,
    sink: Sink,
    *,
    segment: int | None = None,
    first: int = 0,
    lead_in: int = 0,
    on_frame: Callable[[int], None] = lambda index: None,
) -> Outcome:
    """Restore frames and hand them to `sink`.

    Args:
        frames: frames in order, each with whether a new scene begins there; read on a thread of
            its own. DamagedTailError from it is an end like any other, noted in the outcome.
        stream: the method's state.
        sink: takes the results, on a thread of its own.
        segment: frames after which a segment ends, with the group that the last of them is in;
            None = no segment ends before the clip does.
        first: index of the first frame to restore; frames before it only lead in.
        lead_in: how many frames before `first` the stream is given.
        on_frame: called on this thread with the index of each frame that is restored.

    Returns:
        Counts and times.

    Raises:
        BaseException: what was raised first by any of the parts.
    """
    outcome = Outcome()
    decoded: Channel[tuple[Frame, bool]] = Channel()
    restored: Channel[Restored] = Channel()
    threads = [
        threading.Thread(target=_decode, args=(frames, decoded, outcome), name="restore-decode"),
        threading.Thread(target=_encode, args=(restored, sink), name="restore-encode"),
    ]
    for thread in threads:
        thread.daemon = True  # a second Ctrl-C leaves at once
        thread.start()
    try:
        for item in _restore(
            decoded, stream, outcome, segment=segment, first=first, lead_in=lead_in
        ):
            restored.put(item, size=item.size)
            on_frame(item.index)
        restored.end()
        _join(threads)
        restored.check()
    except BaseException:
        for channel in (decoded, restored):
            channel.fail(StoppedError())
        _join(threads)
        raise
    return outcome


def _decode(
    frames: Iterable[tuple[Frame, bool]], out: Channel[tuple[Frame, bool]], outcome: Outcome
) -> None:
    """Body of the decode thread."""
    _step_back()
    try:
        with contextlib.ExitStack() as stack:
            if isinstance(frames, Generator):
                stack.callback(frames.close)  # here, on the thread that read it
            for frame, cut in frames:
                out.put((frame, cut), size=_bytes(frame.rgb))
    except DamagedTailError as error:
        outcome.damaged = str(error)
    except BaseException as error:
        out.fail(error)
    finally:
        out.end()


def _restore(
    decoded: Iterable[tuple[Frame, bool]],
    stream: Stream,
    outcome: Outcome,
    *,
    segment: int | None,
    first: int,
    lead_in: int,
) -> Iterator[Restored]:
    """Frames of the result, as the stream gives them out."""
    times: dict[int, tuple[int, int]] = {}
    begun = first  # of the segment at work

    def timed(step: Callable[..., list[tuple[int, Tensor]]], *given: object) -> list[Restored]:
        nonlocal begun
        begin = time.perf_counter()
        results = step(*given)
        outcome.network_seconds += time.perf_counter() - begin
        kept = []
        for index, rgb in results:
            pts, duration = times.pop(index)
            if index >= first:
                kept.append(Restored(index=index, pts=pts, duration=duration, rgb=rgb))
        if segment and kept and kept[-1].index + 1 - begun >= segment:
            # Only after the last frame of a group is there a state that can be gone on from.
            begun = kept[-1].index + 1
            kept[-1] = replace(kept[-1], ends=True, state=stream.state())
        outcome.restored += len(kept)
        return kept

    for frame, cut in decoded:
        outcome.decoded += frame.index >= first
        if frame.index < first - lead_in:
            continue
        if cut:
            outcome.cuts += frame.index >= first
            yield from timed(stream.flush)
            stream.reset()
        times[frame.index] = frame.pts, frame.duration
        yield from timed(stream.push, frame.rgb, frame.index)
    yield from timed(stream.flush)


def _encode(restored: Channel[Restored], sink: Sink) -> None:
    """Body of the encode thread."""
    _step_back()
    try:
        for frame in restored:
            sink.write(frame)
        sink.finish()
    except BaseException as error:
        restored.fail(error)
        sink.abort()


def _step_back() -> None:
    """Let the network go first: it holds all cores in step, and one that is late delays them all.

    On Linux, where a niceness is a thread's own; the encoder's threads inherit it.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)


def _join(threads: Iterable[threading.Thread]) -> None:
    for thread in threads:
        while thread.is_alive():
            thread.join(_POLL)


def _bytes(picture: Tensor) -> int:
    return picture.numel() * picture.element_size()
