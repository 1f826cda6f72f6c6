"""Lossy compression of pictures, with the encoders that the world uses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import cv2
import torch
from torch import Tensor

from restore.degradations.draw import uniform
from restore.degradations.jpeg import jpeg
from restore.degradations.step import Draws, Drift, Scene, check_prob, check_range

_FLAGS = {".jpg": cv2.IMWRITE_JPEG_QUALITY, ".webp": cv2.IMWRITE_WEBP_QUALITY}


@dataclass(frozen=True, kw_only=True, slots=True)
class Jpeg:
    """Written as a JPEG, colours at half resolution, and read back."""

    prob: float = 1.0
    """Probability, for each picture."""
    quality: tuple[float, float] = (30, 95)
    """Quality, within 1 to 100, rounded to a whole number."""
    method: Literal["file", "formula"] = "file"
    """file = the real encoder, libjpeg-turbo, one picture after the other on the CPU; formula = the
    standard's arithmetic in torch, a batch at a time on its own device."""
    quality_step: float = 0.0
    """Largest change of the quality from frame to frame in a clip."""

    def __post_init__(self) -> None:
        check_prob("jpeg prob", self.prob)
        check_range("jpeg quality", self.quality, low=1, high=100)

    @property
    def shared(self) -> bool:
        """Each picture has draws of its own."""
        return False

    def draw(self, count: int, generator: torch.Generator) -> Draws:
        """The quality."""
        return {"quality": uniform(count, *self.quality, generator=generator)}

    def drifts(self) -> dict[str, Drift]:
        """The quality moves."""
        return {"quality": Drift(self.quality_step, *self.quality)}

    def apply(
        self, pictures: Tensor, draws: Draws, generator: torch.Generator, scene: Scene
    ) -> Tensor:
        """Compress RGB `(N, 3, H, W)`."""
        if self.method == "formula":
            return jpeg(pictures, draws["quality"])
        return through_file(pictures, draws["quality"], ".jpg")

    def told(self, draws: dict[str, Any]) -> dict[str, Any]:
        """What a record says of one picture."""
        return {"quality": _whole(draws["quality"])}


@dataclass(frozen=True, kw_only=True, slots=True)
class WebP:
    """Written as a lossy WebP and read back."""

    prob: float = 1.0
    """Probability, for each picture."""
    quality: tuple[float, float] = (30, 95)
    """Quality, within 1 to 100, rounded to a whole number."""

    def __post_init__(self) -> None:
        check_prob("webp prob", self.prob)
        check_range("webp quality", self.quality, low=1, high=100)

    @property
    def shared(self) -> bool:
        """Each picture has draws of its own."""
        return False

    def draw(self, count: int, generator: torch.Generator) -> Draws:
        """The quality."""
        return {"quality": uniform(count, *self.quality, generator=generator)}

    def drifts(self) -> dict[str, Drift]:
        """Nothing moves: there are no clips of WebP pictures."""
        return {}

    def apply(
        self, pictures: Tensor, draws: Draws, generator: torch.Generator, scene: Scene
    ) -> Tensor:
        """Compress RGB `(N, 3, H, W)`."""
        return through_file(pictures, draws["quality"], ".webp")

    def told(self, draws: dict[str, Any]) -> dict[str, Any]:
        """What a record says of one picture."""
        return {"quality": _whole(draws["quality"])}


def through_file(pictures: Tensor, quality: Tensor, suffix: Literal[".jpg", ".webp"]) -> Tensor:
    """Write each picture into memory in a format and read it back.

    Args:
        pictures: RGB `(B, 3, H, W)`; values outside [0, 1] are clamped.
        quality: of each picture, `(B,)`, rounded and kept within 1 to 100: WebP is lossless above.
        suffix: the format.

    Returns:
        The same shape on the same device, in steps of 1/255.
    """
    qualities = quality.round().clamp(1, 100).int().tolist()
    steps = pictures.detach().clamp(0, 1).mul(255).round().to(torch.uint8).cpu()
    results = []
    for picture, chosen in zip(steps, qualities, strict=True):
        bgr = picture.flip(0).permute(1, 2, 0).contiguous().numpy()  # (H, W, 3)
        _, data = cv2.imencode(suffix, bgr, [_FLAGS[suffix], chosen])
        decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)
        results.append(torch.from_numpy(decoded).permute(2, 0, 1).flip(0))
    return torch.stack(results).to(pictures) / 255


def _whole(quality: Any) -> Any:
    return [round(value) for value in quality] if isinstance(quality, list) else round(quality)
