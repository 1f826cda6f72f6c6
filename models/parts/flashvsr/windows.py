"""Tokens in the order of FlashVSR's windows: 2 latents of 8x8 tokens make a block of attention.

The whole network works in that order. All of it but the attention treats tokens one by one, so
they are brought into it once before the first layer, and back once after the last.
"""

from __future__ import annotations

from torch import Tensor

TIME, SIDE = 2, 8
"""Latents, and tokens along each side, of a window."""
BLOCK = TIME * SIDE * SIDE


def to_windows(x: Tensor) -> Tensor:
    """`(f, h, w, C)` to `(f h w, C)`; windows by time, row, column, and so their tokens."""
    frames, rows, columns, channels = x.shape
    x = x.reshape(frames // TIME, TIME, rows // SIDE, SIDE, columns // SIDE, SIDE, channels)
    return x.permute(0, 2, 4, 1, 3, 5, 6).reshape(-1, channels)


def from_windows(x: Tensor, frames: int, rows: int, columns: int) -> Tensor:
    """The inverse of `to_windows`: `(f h w, C)` to `(f, h, w, C)`."""
    x = x.reshape(frames // TIME, rows // SIDE, columns // SIDE, TIME, SIDE, SIDE, -1)
    return x.permute(0, 3, 1, 4, 2, 5, 6).reshape(frames, rows, columns, -1)
