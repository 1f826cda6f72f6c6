"""Scene cuts: where one shot ends and the next begins.

Each frame is reduced to a thumbnail of 32x18 colours. The change between two thumbnails a and b is
their squared difference over their own variances,

    change(a, b) = mean((a - b)^2) / (var(a) + var(b) + floor),

which is 0 for equal frames and about 1 for unrelated ones, in bright and in dark scenes alike
(with equal means it is 1 - the correlation). Frame t begins a shot when three things hold:

- change(t-1, t) reaches the threshold;
- change(t-1, t+1) and change(t-2, t) reach it too: around a flash of one frame the old picture
  comes back;
- change(t-1, t) is twice the mean of its neighbours change(t-2, t-1) and change(t, t+1): a fast
  pan changes as much from frame to frame, but goes on doing so.

Gradual transitions (fades, dissolves) are no cuts: every frame in them still resembles the last.
The verdict on a frame depends on four frames only, so that a resumed run that is fed
`LOOKBACK` earlier frames decides as an undisturbed one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar, cast

import cv2
import numpy as np
import numpy.typing as npt
from torch import Tensor

from restore.errors import DamagedTailError

LOOKBACK = 2
"""Frames before a frame that its verdict depends on."""

_THUMBNAIL = (18, 32)  # rows, columns
_FLOOR = 0.003  # variance of noise: below a standard deviation of 0.05, nothing is a change
_PEAK = 2.0  # a cut stands out from its neighbours by this factor

Item = TypeVar("Item")
Thumbnail = npt.NDArray[np.float32]


def thumbnail(rgb: Tensor) -> Thumbnail:
    """Small copy of a frame `(3, H, W)` in [0, 1]: `(18, 32, 3)`, each value a local mean."""
    rows, columns = _THUMBNAIL
    # Five samples a cell along each side are enough for its mean; reading every pixel of a large
    # frame would take longer than the rest of the detector. NumPy and OpenCV run on this thread
    # alone, while PyTorch would take turns with the network on its threads.
    step = max(1, min(rgb.shape[1] // (5 * rows), rgb.shape[2] // (5 * columns)))
    samples = np.ascontiguousarray(rgb[:, ::step, ::step].permute(1, 2, 0).numpy())
    small = cv2.resize(samples, (columns, rows), interpolation=cv2.INTER_AREA)
    return cast(Thumbnail, small)


def change(a: Thumbnail, b: Thumbnail) -> float:
    """How different two thumbnails are: 0 for equal ones, about 1 for unrelated ones."""
    return float(np.square(a - b).mean() / (a.var() + b.var() + _FLOOR))


def is_cut(window: list[Thumbnail | None], threshold: float) -> bool:
    """Whether `window[2]` begins a shot.

    Args:
        window: thumbnails of four frames in a row, t-2 to t+1; None where the clip has no frame.
        threshold: change that counts as a cut, above 0.
    """
    before, last, this, after = window
    if last is None or this is None:
        return False
    jump = change(last, this)
    across = [(before, this), (last, after)]
    beside = [(before, last), (this, after)]
    if any(value < threshold for value in (jump, *_changes(across))):
        return False
    around = _changes(beside)
    return not around or jump >= _PEAK * sum(around) / len(around)


def may_be_cut(
    before: Thumbnail | None, last: Thumbnail | None, this: Thumbnail | None, threshold: float
) -> bool:
    """Whether `this` may still turn out to begin a shot, whatever the frame after it shows.

    A no is final: it is the verdict on a frame after that is at its most willing, which differs
    from `last` as much as can be and not at all from `this`.
    """
    if last is None or this is None:
        return False
    jump = change(last, this)
    if before is None:
        return jump >= threshold
    calm = change(before, last) / 2  # mean of it and of no change at all
    return jump >= max(threshold, _PEAK * calm) and change(before, this) >= threshold


def _changes(pairs: list[tuple[Thumbnail | None, Thumbnail | None]]) -> list[float]:
    """Changes of the pairs that exist."""
    return [change(a, b) for a, b in pairs if a is not None and b is not None]


def mark_cuts(
    items: Iterable[Item], frame_of: Callable[[Item], Tensor], *, threshold: float
) -> Iterator[tuple[Item, bool]]:
    """Each item with whether its frame begins a new shot; the first one never does.

    An item that may begin one is held back, as that verdict needs the frame after it; all others
    come out at once, which is what a live stream waits for. With threshold 0 nothing is looked at.

    Args:
        items: frames in order.
        frame_of: picture `(3, H, W)` in [0, 1] of an item.
        threshold: change that counts as a cut, 0 to 1; 0 = never.
    """
    if threshold <= 0:
        for item in items:
            yield item, False
        return
    window: list[Thumbnail | None] = [None] * 4
    held: list[Item] = []
    broken: DamagedTailError | None = None
    try:
        for item in items:
            window = [*window[1:], thumbnail(frame_of(item))]
            if held:
                yield held.pop(), is_cut(window, threshold)
            if may_be_cut(window[1], window[2], window[3], threshold):
                held.append(item)
            else:
                yield item, False
    except DamagedTailError as error:
        broken = error  # the frame that is held was good, and comes out first
    if held:
        yield held.pop(), is_cut([*window[1:], None], threshold)
    if broken is not None:
        raise broken
