"""A shot on its way through DLoRAL: each frame with what is kept of the one before.

    frame 0   itself as the frame before      -> result 0, kept: latent 0, small picture 0
    frame t   latent and picture of t - 1     -> result t, kept: those of t

The published code gives no frame 0. Here it is what that code gives for the second frame of a clip
whose first frame stands twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """What a frame leaves for the next one."""

    latent: Tensor
    """`(1, 4, h, w)`, scaled, float32."""
    small: Tensor
    """The frame at the size of its latent, for the motion, `(1, 3, h, w)` in [-1, 1], float32."""


class Networks(Protocol):
    """What a clip runs through."""

    device: torch.device
    scale: int

    def enlarge(self, picture: Tensor) -> Tensor:
        """`(1, 3, H, W)` in [0, 1] to the size that the network works at."""
        ...

    def words(self, large: Tensor) -> str:
        """Prompt of an enlarged picture."""
        ...

    def look(self, large: Tensor, *, generator: torch.Generator) -> Seen:
        """What is to be known of an enlarged frame."""
        ...

    def follow(self, now: Seen, before: Seen, words: str, *, size: tuple[int, int]) -> Tensor:
        """The result `(1, 3, s H, s W)` of a frame, in [0, 1]; `size` is H and W."""
        ...


class DLoRALClip:
    """One shot; a `restore.method.ClipStream`. Every frame comes out at once."""

    ahead = 0

    def __init__(self, nets: Networks, height: int, width: int, *, seed: int) -> None:
        self._nets, self._size, self._seed = nets, (height, width), seed
        self._count = 0
        self._words: str | None = None  # of the first frame, for all
        self._before: Seen | None = None

    @torch.inference_mode()
    def push(self, frame: Tensor) -> Tensor:
        """Take `(3, H, W)` in [0, 1]; its result `(1, 3, s H, s W)`."""
        large = self._nets.enlarge(frame[None])
        if self._words is None:
            self._words = self._nets.words(large)
        generator = frame_generator(self._seed, self._count, self._nets.device)
        now = self._nets.look(large, generator=generator)
        result = self._nets.follow(now, self._before or now, self._words, size=self._size)
        self._before = now
        self._count += 1
        return result

    def finish(self) -> Tensor:
        """Nothing: no frame is held back."""
        height, width = (self._nets.scale * side for side in self._size)
        return torch.empty(0, 3, height, width, device=self._nets.device)

    def state(self) -> dict[str, Tensor]:
        """Everything needed to go on, copied; some 60 bytes for each place of a latent."""
        if self._before is None:
            return {"count": torch.tensor(0)}
        return {
            "count": torch.tensor(self._count),
            "words": torch.tensor([*(self._words or "").encode()], dtype=torch.uint8),
            "latent": self._before.latent.clone(),
            "small": self._before.small.clone(),
        }

    def restore_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on as the clip would have that `state` was taken from.

        Raises:
            ValueError: it is not the state of such a clip.
        """
        try:
            count = int(state["count"])
            words = bytes(state["words"].tolist()).decode() if count else None
            kept = [state[name].to(self._nets.device) for name in ("latent", "small") if count]
        except (KeyError, ValueError) as error:
            raise ValueError(f"not the state of a clip of DLoRAL: {error}") from error
        self._count, self._words = count, words
        self._before = Seen(latent=kept[0].clone(), small=kept[1].clone()) if kept else None


def frame_generator(seed: int, number: int, device: torch.device) -> torch.Generator:
    """Generator of one frame: what it draws depends on the seed and the frame's number alone."""
    kind = device if device.type == "cuda" else torch.device("cpu")
    return torch.Generator(kind).manual_seed(hash((seed, number)) % 2**63)
