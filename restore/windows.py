"""What a method sees of a clip at a time: some frames, and what the frame before left behind."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """A rectangle of consecutive frames."""

    frames: Tensor
    """RGB `(B, T, 3, H, W)` in [0, 1]."""
    index: int
    """Number of the frame to restore in its clip."""
    scale: int
    """Pixels of `previous` per pixel of `frames`."""
    previous: Tensor | None = None
    """Result of the frame before, moved to this one, `(B, 3, s H, s W)`; None = there is none."""
    trust: Tensor | None = None
    """How far `previous` can be relied on, `(B, 1, H, W)` in [0, 1]; None when that is."""

    def __post_init__(self) -> None:
        batch, _, _, height, width = self.frames.shape
        large = (batch, 3, self.scale * height, self.scale * width)
        for name, tensor, shape in (
            ("previous", self.previous, large),
            ("trust", self.trust, (batch, 1, height, width)),
        ):
            if (tensor is None) != (self.previous is None):
                raise ValueError("previous and trust belong together; give both or neither")
            if tensor is not None and tensor.shape != shape:
                raise ValueError(f"{name} has the shape {tuple(tensor.shape)}; it must be {shape}")

    def padded(self, *, smallest: int, multiple: int) -> Window:
        """With the border repeated up to a smallest side and a multiple of `multiple`."""
        height, width = self.frames.shape[-2:]
        down = -(-max(height, smallest) // multiple) * multiple - height
        right = -(-max(width, smallest) // multiple) * multiple - width
        if not down and not right:
            return self
        flat = _extended(self.frames.flatten(0, 1), right, down)
        frames = flat.reshape(*self.frames.shape[:3], *flat.shape[-2:])
        if self.previous is None or self.trust is None:
            return replace(self, frames=frames)
        previous = _extended(self.previous, self.scale * right, self.scale * down)
        trust = _extended(self.trust, right, down)
        return replace(self, frames=frames, previous=previous, trust=trust)

    def part(self, rows: tuple[int, int], columns: tuple[int, int]) -> Window:
        """The rectangle from the first to before the last of each, in input pixels."""
        (top, bottom), (left, right) = rows, columns
        frames = self.frames[..., top:bottom, left:right]
        if self.previous is None or self.trust is None:
            return replace(self, frames=frames)
        s = self.scale
        previous = self.previous[..., s * top : s * bottom, s * left : s * right]
        trust = self.trust[..., top:bottom, left:right]
        return replace(self, frames=frames, previous=previous, trust=trust)

    def on(self, device: torch.device) -> Window:
        """In float32 on a device."""
        frames = self.frames.to(device, torch.float32)
        if self.previous is None or self.trust is None:
            return replace(self, frames=frames)
        previous = self.previous.to(device, torch.float32)
        trust = self.trust.to(device, torch.float32)
        return replace(self, frames=frames, previous=previous, trust=trust)


def _extended(x: Tensor, right: int, down: int) -> Tensor:
    return F.pad(x, (0, right, 0, down), mode="replicate")
