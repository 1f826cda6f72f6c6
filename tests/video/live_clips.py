"""Streams for the tests of the live mode, and the two ends of a pipe to send them through."""

from __future__ import annotations

import contextlib
import io
import os
import select
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
from video.fakes import FakeRestorer

from restore.engine import Restorer
from restore.video import LiveResult, restore_stream

RAW = {"raw_input": "rgb24", "raw_size": "24x16", "raw_fps": "25"}
"""Settings of the raw frames that `raw_frame` makes."""


def raw_frame(index: int) -> bytes:
    """A frame of 24x16 in rgb24, a little different from the one before."""
    still = np.random.default_rng(0).integers(0, 60, (16, 24, 3), np.uint8)
    return bytes(still + np.uint8(100 + abs(index % 100 - 50)))  # up and down: never a cut


def enlarged(frame: bytes) -> bytes:
    """What `FakeRestorer` makes of a raw frame."""
    picture = np.frombuffer(frame, np.uint8).reshape(16, 24, 3)
    return picture.repeat(2, axis=0).repeat(2, axis=1).tobytes()


def run_live(
    source: Any, target: Any, restorer: FakeRestorer | None = None, **settings: Any
) -> Any:
    """`restore_stream` with a fake restorer."""
    restorer = restorer or FakeRestorer()
    return restore_stream(source, target, restorer=cast(Restorer, restorer), **settings)


def piped(
    path: Path, restorer: FakeRestorer | None = None, **settings: Any
) -> tuple[LiveResult, bytes]:
    """Send a file through a pipe; the result and what was written."""
    target = io.BytesIO()
    with feeding(path.read_bytes()) as source:
        result = run_live(source, target, restorer, **settings)
    return result, target.getvalue()


@contextlib.contextmanager
def feeding(data: bytes) -> Iterator[Any]:
    """The reading end of a pipe into which a thread writes `data`."""
    reading, writing = os.pipe()

    def feed() -> None:
        with contextlib.suppress(BrokenPipeError), os.fdopen(writing, "wb", buffering=0) as end:
            end.write(data)

    thread = threading.Thread(target=feed)
    thread.start()
    with os.fdopen(reading, "rb", buffering=0) as source:
        yield source
    thread.join(10)
    assert not thread.is_alive()


class Through:
    """A live run on a thread of its own between two pipes: `give` frames, `take` results."""

    def __init__(self, restorer: FakeRestorer | None = None, **settings: Any) -> None:
        self._in, self._out = os.pipe(), os.pipe()
        self.giver: Any = os.fdopen(self._in[1], "wb", buffering=0)
        self.taker: Any = os.fdopen(self._out[0], "rb")
        self.result: LiveResult | None = None
        self.error: BaseException | None = None
        self._work = restorer, settings
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Through:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.giver.close()
        self.taker.close()
        self._thread.join(20)
        assert not self._thread.is_alive()

    def take(self, size: int) -> bytes:
        """The next `size` bytes; fails when they do not come."""
        data = b""
        while len(data) < size:
            if not select.select([self.taker], [], [], 20)[0]:
                raise AssertionError(f"{len(data)} of {size} bytes came")
            part = os.read(self.taker.fileno(), size - len(data))
            if not part:
                raise AssertionError(f"the output ended after {len(data)} of {size} bytes")
            data += part
        return data

    def ended(self) -> LiveResult:
        """Wait for the end."""
        self._thread.join(20)
        assert self.result is not None, self.error
        return self.result

    def _run(self) -> None:
        restorer, settings = self._work
        try:
            with (
                os.fdopen(self._in[0], "rb", buffering=0) as source,
                os.fdopen(self._out[1], "wb", buffering=0) as target,
            ):
                self.result = run_live(source, target, restorer, **settings)
        except BaseException as error:
            self.error = error


def frames_of(data: bytes) -> list[tuple[float, np.ndarray[Any, Any]]]:
    """Time and samples of each frame of a coded stream."""
    with av.open(io.BytesIO(data)) as container:
        stream = container.streams.video[0]
        return [(float(f.pts * f.time_base), f.to_ndarray()) for f in container.decode(stream)]


def sound_of(data: bytes) -> list[tuple[float, bytes]]:
    """Time and bytes of each packet of sound."""
    with av.open(io.BytesIO(data)) as container:
        packets = container.demux(container.streams.audio[0])
        return [(float(p.pts * p.time_base), bytes(p)) for p in packets if p.size]


def slow(seconds: float) -> Callable[[int], None]:
    """For `FakeRestorer`: take this long for each frame."""
    return lambda _: time.sleep(seconds)
