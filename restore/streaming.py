"""A clip as a stream of frames: `push` one in, take out what is ready, `flush` at the end.

A method may need past and future frames beside the one it restores: the stream keeps that window,
and repeats the first and the last frame where the clip has none. A recurrent method goes on from
its own last result: the stream keeps that and the frame it was made of, and moves it along the
motion. A streaming method keeps its own past and gives its frames in groups. `reset` starts
afresh, so that nothing of one scene reaches the next.

What is kept of a recurrent or streaming method can be taken out with `state` and put back with
`restore_state`. For a recurrent one it is held in half precision, so that what is stored is
exactly what is held.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from restore.clips import RunningClip
from restore.engine import Restorer
from restore.flow import follow
from restore.resampling import resample

State = Mapping[str, Tensor]
"""What a stream keeps from one frame to the next, by name; empty = nothing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Last:
    """The latest frame of a recurrent stream."""

    frame: Tensor
    """As it came in, `(3, H, W)`, fp16."""
    result: Tensor
    """What was made of it, at the method's scale `(3, s H, s W)`, fp16."""


class FrameStream:
    """Frames in, restored frames out, in the same order and number."""

    def __init__(
        self, restorer: Restorer, *, size: tuple[int, int] | None = None, temporal: bool = True
    ) -> None:
        """Open a stream.

        Args:
            restorer: the engine with its method.
            size: width and height of the results; None = the method's scale.
            temporal: let a recurrent or streaming method go on from the frames before; False =
                restore each frame by itself.
        """
        self._restorer = restorer
        self._size = size
        self._before = restorer.spec.frames_before
        self._after = restorer.spec.frames_after
        self._window: deque[tuple[int, Tensor]] = deque(maxlen=self._before + 1 + self._after)
        self._waiting = 0  # pushed frames whose result is not out yet
        self._recurrent = temporal and restorer.spec.recurrent
        self._last: _Last | None = None
        self._streaming = temporal and restorer.spec.streaming
        self._clip: RunningClip | None = None

    def push(self, frame: Tensor, index: int) -> list[tuple[int, Tensor]]:
        """Add a frame.

        Args:
            frame: RGB `(3, H, W)` in [0, 1].
            index: number of the frame in the clip; it seeds the frame's random draws.

        Returns:
            Results that became ready: index and RGB `(3, h, w)`; none or one, and of a streaming
            method a group of them now and then.
        """
        if self._streaming:
            if self._clip is None:
                self._clip = RunningClip(self._restorer, size=self._size)
            return self._clip.push(frame, index)
        if self._recurrent:
            return [(index, self._go_on(frame, index))]
        if not self._window:
            self._window.extend([(index, frame)] * self._before)
        self._window.append((index, frame))
        self._waiting += 1
        if self._waiting <= self._after:
            return []
        return [self._restore()]

    def flush(self) -> list[tuple[int, Tensor]]:
        """The results still to come, as if the last frame went on; the stream is then reset."""
        results = [] if self._clip is None else self._clip.finish()
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
        self._last = None
        self._clip = None

    def state(self) -> State:
        """What the stream would go on from after the latest result.

        For a recurrent method `frame` and `result` in fp16, not copied; for a streaming one what
        the method says, asked for only just after a `push` that gave frames. Empty before the
        first frame, after `reset`, and for other methods: their window is refilled by pushing the
        frames again.
        """
        if self._clip is not None:
            return self._clip.state()
        if self._last is None:
            return {}
        return {"frame": self._last.frame, "result": self._last.result}

    def restore_state(self, state: State) -> None:
        """Go on as the stream would have that `state` was taken from.

        The next frame to push is the one after the latest result, whether the method had taken it
        already or not.

        Raises:
            ValueError: it is not a state of such a stream.
        """
        self.reset()
        if not state:
            return
        if self._streaming:
            self._clip = RunningClip(self._restorer, size=self._size, state=state)
            return
        if not self._recurrent:
            raise ValueError("a stream that carries nothing over has no state to go on from")
        frame, result = state.get("frame"), state.get("result")
        scale = self._restorer.spec.scale
        if frame is None or result is None or frame.ndim != 3:
            raise ValueError(f"a state has 'frame' and 'result', this one {sorted(state)}")
        if result.shape != (3, scale * frame.shape[1], scale * frame.shape[2]):
            raise ValueError(
                f"the result has the shape {tuple(result.shape)}, its frame {tuple(frame.shape)}; "
                f"the method enlarges by {scale}"
            )
        self._last = _Last(frame=frame.half(), result=result.half())

    @torch.inference_mode()
    def _restore(self) -> tuple[int, Tensor]:
        index, _ = self._window[self._before]
        frames = torch.stack([frame for _, frame in self._window])[None]  # (1, T, 3, H, W)
        result = self._restorer.restore_frames(frames, size=self._size, index=index)
        self._waiting -= 1
        return index, result[0, 0]

    @torch.inference_mode()
    def _go_on(self, frame: Tensor, index: int) -> Tensor:
        """Restore a frame from itself and the last result, and keep what the next one needs."""
        previous = trust = None
        if self._last is not None and self._last.frame.shape == frame.shape:
            previous, trust = self._carried(self._last, frame)
        # At the method's own scale: resampled results would lose some detail with every frame.
        result = self._restorer.restore_frames(
            frame[None, None], index=index, previous=previous, trust=trust
        )[0, 0]
        self._last = _Last(frame=frame.half(), result=result.half())
        if self._size is None or self._size == (result.shape[2], result.shape[1]):
            return result
        return resample(result, self._size)

    def _carried(self, last: _Last, frame: Tensor) -> tuple[Tensor, Tensor]:
        """The last result moved to this frame, and how far it can be relied on."""
        # On a GPU moving costs little; other devices lack the interpolation, or are the CPU.
        device = self._restorer.device
        target = device if device.type == "cuda" else torch.device("cpu")
        return follow(
            # Rounded as the frame before is, so that a still scene stands exactly still.
            frame.half().to(target).float(),
            previous=last.frame.to(target).float(),
            result=last.result.to(target).float(),
            scale=self._restorer.spec.scale,
        )
