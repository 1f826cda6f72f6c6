"""Three threads: nothing is lost, memory is bounded, and an error in any of them ends all."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from restore.errors import DamagedTailError, InputError
from restore.video.decode import Frame
from restore.video.pipeline import QUEUE_FRAMES, Channel, Outcome, Restored, StoppedError, run


def frames(count: int, *, first: int = 0, side: int = 2) -> Iterator[tuple[Frame, bool]]:
    for i in range(first, first + count):
        rgb = torch.full((3, side, side), float(i))
        yield Frame(index=i, pts=10 * i + i % 2, duration=10, rgb=rgb), False


class Window:
    """A stream with `before` past and `after` future frames: a result is the mean of the window."""

    def __init__(self, before: int = 0, after: int = 0) -> None:
        self.before, self.after = before, after
        self.seen: list[tuple[int, Tensor]] = []
        self.out = 0
        self.resets = 0
        self.number = -1

    def push(self, frame: Tensor, index: int) -> list[tuple[int, Tensor]]:
        self.seen.append((index, frame))
        return self._ready(len(self.seen) - self.after)

    def flush(self) -> list[tuple[int, Tensor]]:
        return self._ready(len(self.seen))

    def reset(self) -> None:
        self.seen, self.out = [], 0
        self.resets += 1

    def state(self) -> dict[str, Tensor]:
        return {"number": torch.tensor(self.number)}

    def _ready(self, until: int) -> list[tuple[int, Tensor]]:
        results = []
        for i in range(self.out, max(self.out, until)):
            window = self.seen[max(0, i - self.before) : i + self.after + 1]
            results.append((self.seen[i][0], torch.stack([f for _, f in window]).mean(0)))
            self.number = self.seen[i][0]
            self.out = i + 1
        return results


class Keep:
    """A sink that keeps what it gets."""

    def __init__(self) -> None:
        self.frames: list[Restored] = []
        self.finished = self.aborted = False

    def write(self, frame: Restored) -> None:
        self.frames.append(frame)

    def finish(self) -> None:
        self.finished = True

    def abort(self) -> None:
        self.aborted = True


def values(sink: Keep) -> list[tuple[int, float]]:
    return [(frame.index, float(frame.rgb[0, 0, 0])) for frame in sink.frames]


def in_time(what: Callable[[], object], limit: float = 10) -> None:
    """Run on a thread of its own, so that a deadlock fails the test instead of stopping it."""
    caught: list[BaseException] = []

    def body() -> None:
        try:
            what()
        except BaseException as error:
            caught.append(error)

    thread = threading.Thread(target=body, daemon=True)
    thread.start()
    thread.join(limit)
    assert not thread.is_alive(), "deadlock"
    assert not [t for t in threading.enumerate() if t.name.startswith("restore-")]
    if caught:
        raise caught[0]


@pytest.mark.parametrize(("before", "after"), [(0, 0), (2, 0), (0, 3), (1, 2)])
@pytest.mark.parametrize("count", [0, 1, 2, 9])
def test_every_frame_comes_out_with_its_own_times(before: int, after: int, count: int) -> None:
    sink = Keep()
    outcome = run(frames(count), Window(before, after), sink)
    assert [f.index for f in sink.frames] == list(range(count))
    assert [f.pts for f in sink.frames] == [10 * i + i % 2 for i in range(count)]
    assert (outcome.decoded, outcome.restored) == (count, count)
    assert sink.finished
    assert not sink.aborted


@pytest.mark.parametrize(("before", "after"), [(0, 0), (2, 0), (0, 3), (2, 1)])
def test_a_resumed_run_gives_the_same_frames(before: int, after: int) -> None:
    cuts = (4, 9)

    def clip(begin: int) -> Iterator[tuple[Frame, bool]]:
        return ((frame, frame.index in cuts) for frame, _ in frames(14 - begin, first=begin))

    whole = Keep()
    run(clip(0), Window(before, after), whole)
    for first in range(1, 14):
        rest = Keep()
        begin = max(0, first - before - 2)
        outcome = run(clip(begin), Window(before, after), rest, first=first, lead_in=before)
        assert values(rest) == values(whole)[first:]
        assert outcome.decoded == outcome.restored == 14 - first


def test_each_frame_brings_the_state_after_it() -> None:
    """The stream is frames ahead of a slow sink: what it keeps by then is another state."""

    class Slow(Keep):
        def write(self, frame: Restored) -> None:
            time.sleep(0.005)
            super().write(frame)

    sink = Slow()
    run(frames(12), Window(), sink, segment=1, first=2)
    assert [int(frame.state["number"]) for frame in sink.frames] == list(range(2, 12))


def test_a_segment_ends_with_the_group_that_its_last_frame_is_in() -> None:
    """In the middle of a group there is no state that could be gone on from."""

    class Groups(Window):
        def push(self, frame: Tensor, index: int) -> list[tuple[int, Tensor]]:
            self.seen.append((index, frame))
            return self._ready(len(self.seen) if len(self.seen) % 4 == 0 else 0)

    sink = Keep()
    run(frames(26), Groups(), sink, segment=6, first=1, lead_in=0)
    ends = [frame.index for frame in sink.frames if frame.ends]
    assert ends == [8, 16, 24]
    assert [int(frame.state["number"]) for frame in sink.frames if frame.ends] == ends
    assert not any(frame.state for frame in sink.frames if not frame.ends)


def test_nothing_crosses_a_cut() -> None:
    sink, stream = Keep(), Window(before=3, after=3)
    outcome = run(((f, f.index == 4) for f, _ in frames(8)), stream, sink)
    assert [value for _, value in values(sink)] == [1.5] * 4 + [5.5] * 4
    assert outcome.cuts == 1
    assert stream.resets == 1


def failing_at(number: int, error: BaseException) -> Iterator[tuple[Frame, bool]]:
    yield from frames(number)
    raise error


@pytest.mark.parametrize("number", [0, 1, 7])
@pytest.mark.parametrize("error", [InputError("odd"), MemoryError(), KeyboardInterrupt()])
def test_an_error_while_decoding_ends_all(number: int, error: BaseException) -> None:
    sink = Keep()
    with pytest.raises(type(error)) as caught:
        in_time(lambda: run(failing_at(number, error), Window(), sink))
    assert caught.value is error
    assert sink.aborted
    assert not sink.finished


@pytest.mark.parametrize("error", [ValueError("odd"), KeyboardInterrupt()])
@pytest.mark.parametrize("number", [0, 5, 99])
def test_an_error_in_the_network_ends_all(number: int, error: BaseException) -> None:
    class Broken(Window):
        def push(self, frame: Tensor, index: int) -> list[tuple[int, Tensor]]:
            if index == number:
                raise error
            return super().push(frame, index)

    sink = Keep()
    with pytest.raises(type(error)) as caught:
        in_time(lambda: run(frames(100), Broken(), sink))
    assert caught.value is error
    assert sink.aborted


@pytest.mark.parametrize("number", [0, 5, 99])
def test_an_error_while_encoding_ends_all(number: int) -> None:
    error = OSError(28, "No space left on device")

    class Full(Keep):
        def write(self, frame: Restored) -> None:
            if frame.index == number:
                raise error
            super().write(frame)

    sink = Full()
    with pytest.raises(OSError, match="No space") as caught:
        in_time(lambda: run(frames(100), Window(), sink))
    assert caught.value is error
    assert sink.aborted


def test_an_error_at_the_very_end_of_encoding_is_not_lost() -> None:
    class Late(Keep):
        def finish(self) -> None:
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        in_time(lambda: run(frames(3), Window(), Late()))


def test_an_error_of_the_progress_callback_ends_all() -> None:
    def tell(index: int) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        in_time(lambda: run(frames(50), Window(), Keep(), on_frame=tell))


def test_a_damaged_tail_is_an_end_with_a_note() -> None:
    sink = Keep()
    outcome = run(failing_at(5, DamagedTailError("ends at 0.2 s")), Window(after=2), sink)
    assert len(sink.frames) == 5
    assert sink.finished
    assert outcome.damaged == "ends at 0.2 s"


def test_an_error_while_closing_the_decoder_is_not_a_deadlock() -> None:
    def clip() -> Iterator[tuple[Frame, bool]]:
        try:
            yield from frames(100)
        finally:
            raise InputError("the share is gone")

    class Broken(Window):
        def push(self, frame: Tensor, index: int) -> list[tuple[int, Tensor]]:
            raise ValueError("odd")

    with pytest.raises(ValueError, match="odd"):
        in_time(lambda: run(clip(), Broken(), Keep()))
    with pytest.raises(InputError, match="the share is gone"):
        in_time(lambda: run(clip(), Window(), Keep()))


def test_the_decoder_is_closed_on_an_error() -> None:
    closed = threading.Event()

    def clip() -> Iterator[tuple[Frame, bool]]:
        try:
            yield from frames(100)
        finally:
            closed.set()

    class Broken(Window):
        def push(self, frame: Tensor, index: int) -> list[tuple[int, Tensor]]:
            raise ValueError

    with pytest.raises(ValueError):
        in_time(lambda: run(clip(), Broken(), Keep()))
    assert closed.is_set()


@pytest.mark.parametrize("slow", ["network", "encoder"])
def test_the_fast_parts_wait_for_the_slow_one(slow: str) -> None:
    decoded, encoded = [0], [0]
    most = [0]

    def clip() -> Iterator[tuple[Frame, bool]]:
        for item in frames(30):
            decoded[0] += 1
            most[0] = max(most[0], decoded[0] - encoded[0])
            yield item

    class Slow(Window):
        def push(self, frame: Tensor, index: int) -> list[tuple[int, Tensor]]:
            time.sleep(0.005 * (slow == "network"))
            return super().push(frame, index)

    class Count(Keep):
        def write(self, frame: Restored) -> None:
            time.sleep(0.005 * (slow == "encoder"))
            encoded[0] += 1

    run(clip(), Slow(), Count())
    # Two queues, and one frame in the hands of each of the three threads.
    assert most[0] <= 2 * QUEUE_FRAMES + 3


def test_a_channel_is_bounded_by_bytes_but_always_passes_one() -> None:
    channel: Channel[int] = Channel(items=10, size=100)
    channel.put(1, size=1000)
    second = threading.Thread(target=channel.put, args=(2,), kwargs={"size": 1}, daemon=True)
    second.start()
    second.join(0.1)
    assert second.is_alive()
    items = iter(channel)
    assert next(items) == 1
    second.join(5)
    assert not second.is_alive()
    channel.end()
    assert list(items) == [2]


def test_a_stopped_channel_wakes_both_sides() -> None:
    channel: Channel[int] = Channel(items=1)
    channel.put(1, size=1)
    outcomes: list[str] = []

    def give() -> None:
        try:
            channel.put(2, size=1)
        except StoppedError:
            outcomes.append("giver")

    giver = threading.Thread(target=give, daemon=True)
    giver.start()
    channel.fail(StoppedError())
    giver.join(5)
    with pytest.raises(StoppedError):
        next(iter(channel))
    assert outcomes == ["giver"]


def test_the_network_time_is_counted_alone() -> None:
    class Slow(Window):
        def push(self, frame: Tensor, index: int) -> list[tuple[int, Tensor]]:
            time.sleep(0.01)
            return super().push(frame, index)

    class SlowSink(Keep):
        def write(self, frame: Restored) -> None:
            time.sleep(0.02)

    outcome: Outcome = run(frames(5), Slow(), SlowSink())
    assert 0.05 <= outcome.network_seconds < 0.1
