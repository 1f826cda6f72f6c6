"""What was drawn from a recipe for some pictures or clips: run it, and tell it.

For clips it is run on one stretch of frames after the other; numbers that drift go on where the
stretch before left them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from restore.degradations.codec import Codec
from restore.degradations.draw import uniform, wander
from restore.degradations.resize import random_mode, resize
from restore.degradations.step import Draws, Kind, Scene, rows_of
from restore.degradations.steps import Step, drawn_order

Record = dict[str, Any]
"""What was drawn for one picture or clip, as plain values that JSON takes."""


@dataclass(kw_only=True, slots=True)
class _Part:
    """One step of a plan."""

    name: str
    kind: Kind
    active: Tensor
    """Which pictures or clips it is done to, `(B,)`."""
    draws: Draws
    """Its numbers, `(B,)`."""
    now: Draws | None = None
    """Those of the last frame so far; None = no frame yet."""
    history: dict[str, list[list[float]]] = field(default_factory=dict)
    """Values of what drifts, frame by frame, for each clip."""
    size: tuple[int, int] | None = None
    """Width and height after it, where it changed them."""


class Plan:
    """A recipe with all its choices made, for a batch of pictures or clips."""

    def __init__(
        self,
        steps: Sequence[Step],
        generator: torch.Generator,
        *,
        count: int,
        good: tuple[int, int],
        scale: int,
        base: int | None = None,
        is_clip: bool = False,
    ) -> None:
        """Draw everything but the noise itself.

        Args:
            steps: of a recipe.
            generator: source of every draw, those of `run` too.
            count: pictures, or clips, B.
            good: height and width of the good pictures, multiples of `scale`.
            scale: factor between the good and the bad pictures.
            base: factor that the recipe works towards, the result being resampled from there;
                None = `scale`.
            is_clip: there are clips, not pictures.

        Raises:
            ValueError: the size does not divide by the scale.
        """
        height, width = good
        if scale < 1 or height % scale or width % scale:
            raise ValueError(
                f"{width}x{height} pictures do not divide by the scale {scale}; cut them first"
            )
        inner = base or scale
        self.good, self.result = good, (height // scale, width // scale)
        self.scale, self.frames = scale, 0
        bad = max(1, height // inner), max(1, width // inner)
        self._scene = Scene(good=good, bad=bad, is_clip=is_clip)
        self._generator = generator
        self._parts = [
            _draw(name, kind, count, generator)
            for name, kind in drawn_order(steps, generator)
            if is_clip or not (isinstance(kind, Codec) and kind.clips_only)
        ]
        self._mode = random_mode(generator)

    def run(self, frames: Tensor) -> Tensor:
        """Degrade the next frames.

        Args:
            frames: RGB `(B, T, 3, H, W)` in [0, 1], of the size that was planned.

        Returns:
            `(B, T, 3, H / scale, W / scale)` in [0, 1], in steps of 1/255 as from a file.
        """
        count, length = frames.shape[:2]
        scene = replace(self._scene, frames=length)
        pictures = frames.flatten(0, 1)
        for part in self._parts:
            size = pictures.shape[-2:]
            pictures = _apply(part, pictures, self._generator, scene)
            if pictures.shape[-2:] != size and part.size is None:
                part.size = int(pictures.shape[-1]), int(pictures.shape[-2])
        self.frames += length
        pictures = resize(pictures, *self.result, self._mode, antialias=False)
        # NaN cannot come out of the steps; a NaN that came in would spread through a network.
        pictures = pictures.nan_to_num(0).clamp(0, 1).mul(255).round().div(255)
        return pictures.reshape(count, length, *pictures.shape[1:])

    def record(self, index: int) -> Record:
        """What was drawn for picture or clip `index`, in the order of the steps."""
        record: Record = {
            "scale": self.scale,
            "good": list(self.good[::-1]),
            "bad": list(self.result[::-1]),
        }
        if self._scene.is_clip:
            record["frames"] = self.frames
        record["steps"] = [_told(part, index) for part in self._parts if bool(part.active[index])]
        return record


def _draw(name: str, kind: Kind, count: int, generator: torch.Generator) -> _Part:
    own = 1 if kind.shared else count
    active = uniform(own, 0, 1, generator=generator) < kind.prob
    draws = kind.draw(own, generator)
    return _Part(
        name=name,
        kind=kind,
        active=active.expand(count),
        draws={key: values.expand(count) for key, values in draws.items()},
    )


def _apply(part: _Part, pictures: Tensor, generator: torch.Generator, scene: Scene) -> Tensor:
    draws = _of_frames(part, generator, scene)
    active = part.active.repeat_interleave(scene.frames)
    if bool(active.all()):
        return part.kind.apply(pictures, draws, generator, scene)
    rows = active.nonzero()[:, 0]
    if len(rows) == 0:
        return pictures
    there = rows.to(pictures.device)
    result = pictures.clone()
    result[there] = part.kind.apply(pictures[there], rows_of(draws, rows), generator, scene)
    return result


def _of_frames(part: _Part, generator: torch.Generator, scene: Scene) -> Draws:
    """The draws of each frame, `(B T,)`; what drifts has moved on."""
    first, frames = part.now is None, scene.frames
    drifts = {} if not scene.is_clip else part.kind.drifts()
    before = part.draws if part.now is None else part.now
    walked: Draws = {}
    for name, values in before.items():
        drift = drifts.get(name)
        if drift is None or drift.step == 0:
            walked[name] = values[:, None].expand(-1, frames)
            continue
        # All clips of a batch share the walk of what they share.
        own = values[:1] if part.kind.shared else values
        path = wander(
            own,
            frames,
            step=drift.step,
            low=drift.low,
            high=drift.high,
            generator=generator,
            first=first,
        ).expand(len(values), -1)
        walked[name] = path
        kept = part.history.setdefault(name, [[] for _ in range(len(values))])
        for history, row in zip(kept, path.tolist(), strict=True):
            history += row
    part.now = {name: values[:, -1] for name, values in walked.items()}
    return {name: values.flatten() for name, values in walked.items()}


def _told(part: _Part, index: int) -> Record:
    plain: dict[str, Any] = {}
    for name, values in part.draws.items():
        path = part.history.get(name)
        if path is None:
            plain[name] = _short(float(values[index]))
        else:
            plain[name] = [_short(value) for value in path[index]]
    told = {"step": part.name, **part.kind.told(plain)}
    return told if part.size is None else {**told, "size": list(part.size)}


def _short(value: float) -> float:
    """Six digits: more than a record needs, fewer than float32 has."""
    return float(f"{value:.6g}")
