"""One scene on its way through a streaming method: sizes, devices, colours, faults of its frames.

A streaming method takes frames as they come and gives them back in groups (`method.ClipStream`).
What every method is spared is done here: padding to the size that it can take, the way to the
device and back, the colours of the input, the size that was asked for, and errors in one line.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from torch import Tensor

from restore.color import fix_colors
from restore.engine import Restorer
from restore.errors import RestoreError
from restore.memory import is_out_of_memory
from restore.method import ClipStream
from restore.resampling import resample
from restore.windows import Window

Given = TypeVar("Given")

_SHAPE = "engine.frame_size"  # name of the frames' height and width among a method's state


class RunningClip:
    """Frames of one scene in, restored frames out, in the same order and number."""

    def __init__(
        self,
        restorer: Restorer,
        *,
        size: tuple[int, int] | None = None,
        state: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Begin a scene.

        Args:
            restorer: the engine with a streaming method.
            size: width and height of the results; None = the method's scale.
            state: what `state` gave of a clip to go on with; None = from its first frame.

        Raises:
            ValueError: the state is not one of this method.
        """
        self._restorer = restorer
        self._size = size
        self._waiting: deque[tuple[int, Tensor]] = deque()  # pushed, result not out yet
        self._clip: ClipStream | None = None
        self._shape: tuple[int, int] | None = None
        self._taken = 0  # frames to come that the method has already
        if state is not None:
            own = dict(state)
            shape = own.pop(_SHAPE, None)
            if shape is None:
                raise ValueError(f"the state of a clip has '{_SHAPE}', this one {sorted(state)}")
            self._shape = (int(shape[0]), int(shape[1]))
            self._clip = self._opened(*self._shape)
            self._clip.restore_state(own)
            self._taken = self._clip.ahead

    @torch.inference_mode()
    def push(self, frame: Tensor, index: int) -> list[tuple[int, Tensor]]:
        """Add a frame, RGB `(3, H, W)` in [0, 1]; results that became ready.

        Raises:
            RestoreError: memory does not suffice, or the network gives NaN.
            ValueError: the frame has another size than those before it.
        """
        shape = (frame.shape[1], frame.shape[2])
        if self._clip is None:
            self._shape, self._clip = shape, self._opened(*shape)
        if shape != self._shape:
            raise ValueError(f"a frame of {shape} in a clip of {self._shape}")
        self._waiting.append((index, frame))
        if self._taken:
            self._taken -= 1
            return []
        clip, padded = self._clip, self._padded(frame)
        return self._results(self._guarded(lambda: clip.push(padded)))

    @torch.inference_mode()
    def finish(self) -> list[tuple[int, Tensor]]:
        """The results still to come."""
        if self._clip is None or not self._waiting:
            return []
        clip = self._clip
        results = self._results(self._guarded(clip.finish))
        if self._waiting:
            raise RestoreError(
                f"model '{self._restorer.spec.name}' kept {len(self._waiting)} frames: this is an "
                "error of restore; please report it with the clip"
            )
        return results

    def state(self) -> dict[str, Tensor]:
        """What a clip goes on from after the latest result; empty before the first frame."""
        if self._clip is None:
            return {}
        return {_SHAPE: torch.tensor(self._shape), **self._clip.state()}

    def _opened(self, height: int, width: int) -> ClipStream:
        padded = self._padded(torch.empty(3, height, width, device="meta"), device="meta")
        return self._guarded(lambda: self._restorer.open_clip(*padded.shape[-2:]))

    def _padded(self, frame: Tensor, *, device: str | torch.device | None = None) -> Tensor:
        """In the size that the method can take, on its device."""
        spec = self._restorer.spec
        window = Window(frames=frame[None, None], index=0, scale=spec.scale)
        window = window.padded(smallest=spec.min_size, multiple=spec.size_multiple)
        return window.on(torch.device(device or self._restorer.device)).frames[0, 0]

    def _results(self, frames: Tensor) -> list[tuple[int, Tensor]]:
        """A group `(n, 3, h, w)` of the method as it leaves the engine, with numbers."""
        spec, restorer = self._restorer.spec, self._restorer
        results = []
        for result in frames:
            index, source = self._waiting.popleft()
            height, width = (spec.scale * side for side in source.shape[-2:])
            result = result[None, :, :height, :width].float()
            if restorer.color_fix != "none":  # where the result is: on a GPU it costs little
                own = source[None].to(result.device, torch.float32)
                result = fix_colors(result, own, restorer.color_fix)
            result = result.cpu()
            if not bool(torch.isfinite(result).all()):
                raise RestoreError(
                    f"the network gave NaN in frame {index}; try --dtype fp32, "
                    "or fetch the weights again"
                )
            if self._size is not None and self._size != (width, height):
                result = resample(result, self._size)
            results.append((index, result[0].clamp(0, 1)))
        return results

    def _guarded(self, step: Callable[[], Given]) -> Given:
        """What `step` gives, in smaller tiles where memory runs out, or that as one line."""
        while True:
            try:
                return step()
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if self._restorer.spec.own_tiles:
                    self._restorer.halve_tiles(error)
                    continue
                raise RestoreError(
                    f"memory on {self._restorer.device} does not suffice for frames of this size "
                    f"with '{self._restorer.spec.name}'; shrink the clip first, close other "
                    "programs, or choose another model with -n"
                ) from error
