"""From pictures to tags."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from restore.models.parts.ram.labels import read_labels
from restore.models.parts.ram.net import RamNet
from restore.models.parts.ram.weights import load_net

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_DEVIATION = (0.229, 0.224, 0.225)


class Tagger:
    """RAM, with or without DAPE, ready to tag."""

    def __init__(self, net: RamNet, *, side: int) -> None:
        """`net` is loaded; `side` is that of the square pictures that it takes."""
        self.net = net
        self.side = side
        self.names, thresholds = read_labels()
        self._thresholds = torch.tensor(thresholds)

    @classmethod
    def load(
        cls, ram: Path, dape: Path | None = None, *, device: torch.device, dtype: torch.dtype
    ) -> Tagger:
        """Read published weights.

        Args:
            ram: `ram_swin_large_14m.pth`, or the safetensors file made of it.
            dape: `DAPE.pth` likewise; None = RAM alone, for pictures that are not degraded.
            device: where it runs.
            dtype: what it computes in; the authors' scripts take float16.

        Raises:
            WeightsError: a file is missing, damaged, unsafe or of another model, or holds NaN.
        """
        net, config = load_net(ram, dape, dtype=dtype)
        return cls(net.to(device), side=config.side)

    def to(self, device: torch.device, dtype: torch.dtype) -> Tagger:
        """Move the network."""
        self.net.to(device=device, dtype=dtype)
        return self

    @torch.inference_mode()
    def logits(self, pictures: Tensor) -> Tensor:
        """Scores `(B, 4585)` in float32 of RGB pictures `(B, 3, H, W)` in [0, 1] of any size."""
        inputs = prepare(pictures.float(), self.side).to(self.net.label_embed)
        return self.net(inputs).float()

    def tags(self, pictures: Tensor) -> list[list[str]]:
        """Names of what the pictures show, in the order of the label list; there may be none.

        Args:
            pictures: RGB `(B, 3, H, W)` in [0, 1]. The one-step methods give the input picture
                enlarged to the size of the result.
        """
        given = self.logits(pictures).sigmoid().cpu() > self._thresholds
        return [[self.names[index] for index in row.nonzero().flatten()] for row in given]


def prepare(pictures: Tensor, side: int) -> Tensor:
    """Squash to a square and normalise: `(B, 3, side, side)`.

    Bilinear without antialiasing, as torchvision 0.15 resized tensors when the thresholds and the
    published tags were made; later versions smooth first, and give other tags.
    """
    small = F.interpolate(
        pictures, (side, side), mode="bilinear", align_corners=False, antialias=False
    )
    mean, deviation = (
        small.new_tensor(v).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_DEVIATION)
    )
    return (small - mean) / deviation
