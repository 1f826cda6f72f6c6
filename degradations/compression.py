"""Lossy image compression, with the real encoder."""

from __future__ import annotations

import cv2
import torch
from torch import Tensor

from restore.degradations.draw import uniform


def random_jpeg(
    pictures: Tensor, generator: torch.Generator, *, quality: tuple[float, float]
) -> Tensor:
    """Write each picture as a JPEG of its own quality and read it back.

    Args:
        pictures: RGB `(B, 3, H, W)` in [0, 1]; values outside are clamped.
        quality: range of the JPEG quality, within 1 to 100.

    Returns:
        The same shape on the same device, in steps of 1/255.
    """
    qualities = uniform(len(pictures), *quality, generator=generator).round().int().tolist()
    steps = pictures.detach().clamp(0, 1).mul(255).round().to(torch.uint8).cpu()
    results = []
    for picture, chosen in zip(steps, qualities, strict=True):
        bgr = picture.flip(0).permute(1, 2, 0).contiguous().numpy()  # (H, W, 3)
        _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, chosen])
        decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)
        results.append(torch.from_numpy(decoded).permute(2, 0, 1).flip(0))
    return torch.stack(results).to(pictures) / 255
