"""A restorer for tests: enlarges without a network, and fails on demand."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
import torch
import torch.nn.functional as F
from fake_method import FakeClip
from torch import Tensor

from restore.engine import Restorer
from restore.method import MethodSpec
from restore.video import VideoResult, restore_video

SPEC = MethodSpec(name="fake", summary="for tests", scale=2, overlap=0)


class FakeRestorer:
    """The mean of the window, each pixel made a square; has what the video room asks of a Restorer.

    With `recurrent=True` most of the moved previous result is mixed in; with `streaming=True` the
    clip is that of `fake_method`.

    Args:
        spec: fields of the method's spec to change.
        settings: what `settings` says on top of the usual.
        on_frame: called with the index of each frame before it is restored.
    """

    def __init__(
        self,
        *,
        settings: dict[str, object] | None = None,
        on_frame: Callable[[int], None] = lambda index: None,
        **spec: Any,
    ) -> None:
        self.spec = replace(SPEC, **spec)
        self.frames = 0
        self.device = torch.device("cpu")
        self._settings = {"model": "fake", "tile": 64, "seed": 0, **(settings or {})}
        self._on_frame = on_frame
        self.color_fix = "none"

    def open_clip(self, height: int, width: int) -> CountingClip:
        """A scene whose frames are told and counted as they are taken."""
        return CountingClip(self, height, width, scale=self.spec.scale, seed=0)

    def take(self) -> None:
        """A frame has come."""
        self._on_frame(self.frames)
        self.frames += 1

    def settings(self) -> dict[str, object]:
        return self._settings

    def restore_frames(
        self,
        frames: Tensor,
        *,
        size: tuple[int, int] | None = None,
        index: int = 0,
        previous: Tensor | None = None,
        trust: Tensor | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Tensor:
        self._on_frame(index)
        self.frames += 1
        assert frames.shape[1] == self.spec.frames_before + 1 + self.spec.frames_after
        large = F.interpolate(frames.mean(1), scale_factor=self.spec.scale, mode="nearest")
        if previous is not None and trust is not None:
            # Much of the past, trusted or not: a state that is lost shows in every later frame.
            large = large + (0.6 + 0.2 * trust.mean()) * (previous - large)
        if size is not None:
            large = F.interpolate(large, (size[1], size[0]), mode="nearest")
        return large[:, None]


class CountingClip(FakeClip):
    """Tells its restorer of each frame."""

    def __init__(self, restorer: FakeRestorer, height: int, width: int, **given: Any) -> None:
        super().__init__(height, width, **given)
        self.restorer = restorer

    def push(self, frame: Tensor) -> Tensor:
        self.restorer.take()
        return super().push(frame)


FRAMES = 24
"""Frames of the usual film."""
SEGMENT = 5
"""Frames of its segments."""


def run_job(
    source: Path,
    restorer: FakeRestorer | None = None,
    *,
    dst: Path | None = None,
    **settings: Any,
) -> VideoResult:
    """`restore_video` with short segments and a quick encoder."""
    settings = {"preset": "ultrafast", "segment": SEGMENT, **settings}
    restorer = restorer or FakeRestorer()
    return restore_video(source, dst, restorer=cast(Restorer, restorer), **settings)


def at(number: int, action: Callable[[], Any]) -> Callable[[int], None]:
    """For `on_frame`: do something when it is the turn of frame `number`."""

    def on_frame(index: int) -> None:
        if index == number:
            action()

    return on_frame


def fail(error: BaseException) -> Callable[..., Any]:
    """A function that raises `error`, whatever it is called with."""

    def raise_it(*_: Any, **__: Any) -> Any:
        raise error

    return raise_it


def video_frames(path: Path) -> list[tuple[int, np.ndarray[Any, Any]]]:
    """Time stamp and decoded samples of each frame."""
    with av.open(str(path)) as container:
        frames = container.decode(container.streams.video[0])
        return [(frame.pts, frame.to_ndarray()) for frame in frames]


def seconds(path: Path) -> list[float]:
    """Time of each frame in seconds."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return [float(frame.pts * stream.time_base) for frame in container.decode(stream)]


def packets(path: Path, kind: str, number: int = 0) -> list[tuple[float, float, bytes]]:
    """Time, duration in seconds and bytes of each packet of a stream, found by its type."""
    with av.open(str(path)) as container:
        stream = [stream for stream in container.streams if stream.type == kind][number]
        return [
            (float((p.pts or 0) * p.time_base), float((p.duration or 0) * p.time_base), bytes(p))
            for p in container.demux(stream)
            if p.size
        ]


def same_frames(first: Path, second: Path) -> bool:
    """Whether two files decode to the same frames at the same times."""
    pairs = list(zip(video_frames(first), video_frames(second), strict=True))
    return all(a[0] == b[0] and np.array_equal(a[1], b[1]) for a, b in pairs)


def increasing(values: Sequence[float]) -> bool:
    """Whether each value is greater than the one before."""
    return all(a < b for a, b in itertools.pairwise(values))
