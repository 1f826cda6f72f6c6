"""A clip as a stream of frames: `push` one in, take out what is ready, `flush` at the end.

A method may need past and future frames beside the one it restores. The stream keeps that window,
repeats the first and the last frame where the clip has none, and starts afresh after `reset`, so
that nothing of one scene reaches the next.
"""

from __future__ import annotations

from collections import deque

import torch
from torch import Tensor

from restore.engine import Restorer


class FrameStream:
    """Frames in, restored frames out, in the same order and number."""

    def __init__(self, restorer: Restorer, *, size: tuple[int, int] | None = None) -> None:
        """Open a stream.

        Args:
            restorer: the engine with its method.
            size: width and height of the results; None = the method's scale.
        """
        self._restorer = restorer
        self._size = size
        self._before = restorer.spec.frames_before
        self._after = restorer.spec.frames_after
        self._window: deque[tuple[int, Tensor]] = deque(maxlen=self._before + 1 + self._after)
        self._waiting = 0  # pushed frames whose result is not out yet

    def push(self, frame: Tensor, index: int) -> list[tuple[int, Tensor]]:
        """Add a frame.

        Args:
            frame: RGB `(3, H, W)` in [0, 1].
            index: number of the frame in the clip; it seeds the frame's random draws.

        Returns:
            Results that became ready: index and RGB `(3, h, w)`; none or one.
        """
        if not self._window:
            self._window.extend([(index, frame)] * self._before)
        self._window.append((index, frame))
        self._waiting += 1
        if self._waiting <= self._after:
            return []
        return [self._restore()]

    def flush(self) -> list[tuple[int, Tensor]]:
        """The results still to come, as if the last frame went on; the stream is then reset."""
        results = []
        while self._waiting:
            missing = self._before + 1 + self._after - len(self._window)
            self._window.extend([self._window[-1]] * max(1, missing))
            results.append(self._restore())
        self.reset()
        return results

    def reset(self) -> None:
        """Forget all frames."""
        self._window.clear()
        self._waiting = 0

    def _restore(self) -> tuple[int, Tensor]:
        index, _ = self._window[self._before]
        frames = torch.stack([frame for _, frame in self._window])[None]  # (1, T, 3, H, W)
        result = self._restorer.restore_frames(frames, size=self._size, index=index)
        self._waiting -= 1
        return index, result[0, 0]
