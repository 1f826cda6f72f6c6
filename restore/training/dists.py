"""DISTS, a distance of pictures that forgives other texture of the same kind.

Ding et al., "Image Quality Assessment: Unifying Structure and Texture Similarity", IEEE TPAMI 2022:
means and covariances of the features of VGG-16, whose pooling is the root of the squares under a
Hann window, compared as in SSIM.
"""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from restore.weights import open_weights

log = logging.getLogger("restore.training")

VGG_FILE = "checkpoints/vgg16-397923af.pth"
"""Weights of torchvision, below torch.hub's folder."""
DISTS_FILES = ("pyiqa/DISTS_weights-f5e65c96.pth", "checkpoints/dists.pt")
"""Alpha and beta, as pyiqa puts them there; or the authors' `weights.pt` under another name."""
STAGES = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))
"""Numbers of the convolutions of torchvision's VGG-16."""
WIDTHS = (64, 128, 256, 512, 512)
_SMALL = 1e-6


class Dists(nn.Module):
    """Distance of pictures in [0, 1]: 0 = alike."""

    mean: Tensor
    deviation: Tensor
    window: Tensor

    def __init__(self, widths: tuple[int, ...] = WIDTHS) -> None:
        super().__init__()
        self.stages = nn.ModuleList()
        before = 3
        for numbers, width in zip(STAGES, widths, strict=True):
            stage = nn.ModuleDict()
            for number in numbers:
                stage[str(number)] = nn.Conv2d(before, width, 3, padding=1)
                before = width
            self.stages.append(stage)
        count = 3 + sum(widths)
        self.alpha = nn.Parameter(torch.full((1, count, 1, 1), 0.1))
        self.beta = nn.Parameter(torch.full((1, count, 1, 1), 0.1))
        self.sizes = [3, *widths]
        hann = torch.from_numpy(np.hanning(5)[1:-1]).float()
        window = torch.outer(hann, hann)
        self.register_buffer("window", (window / window.sum())[None, None], persistent=False)
        mean, deviation = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]  # of ImageNet
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("deviation", torch.tensor(deviation)[:, None, None], persistent=False)

    def features(self, x: Tensor) -> list[Tensor]:
        """The picture itself, then what each stage sees."""
        found = [x]
        h = (x - self.mean) / self.deviation
        for i, stage in enumerate(self.stages):
            if i:  # pooling
                window = self.window.expand(h.shape[1], -1, -1, -1)
                h = F.conv2d(h**2, window, stride=2, padding=1, groups=h.shape[1])
                h = (h + 1e-12).sqrt()
            for conv in stage.values():  # type: ignore[operator]
                h = F.relu(conv(h))
            found.append(h)
        return found

    def forward(self, result: Tensor, target: Tensor) -> Tensor:
        """The mean distance over a batch `(B, 3, H, W)`."""
        total = self.alpha.sum() + self.beta.sum()
        alphas = torch.split(self.alpha / total, self.sizes, dim=1)
        betas = torch.split(self.beta / total, self.sizes, dim=1)
        likeness = result.new_zeros(len(result))
        pairs = zip(self.features(result), self.features(target), alphas, betas, strict=True)
        for x, y, alpha, beta in pairs:
            mean_x, mean_y = (f.mean((2, 3), keepdim=True) for f in (x, y))
            spread = ((x - mean_x) ** 2 + (y - mean_y) ** 2).mean((2, 3), keepdim=True)
            joint = (x * y).mean((2, 3), keepdim=True) - mean_x * mean_y
            texture = (2 * mean_x * mean_y + _SMALL) / (mean_x**2 + mean_y**2 + _SMALL)
            structure = (2 * joint + _SMALL) / (spread + _SMALL)
            likeness = likeness + (alpha * texture + beta * structure).sum((1, 2, 3))
        return (1 - likeness).mean()


def load_dists(*, device: torch.device) -> Dists | None:
    """DISTS with its weights, or None where they are not in torch.hub's folder.

    Nothing is downloaded.
    """
    folder = Path(torch.hub.get_dir())
    learned = next((folder / name for name in DISTS_FILES if (folder / name).is_file()), None)
    missing = folder / DISTS_FILES[0] if learned is None else folder / VGG_FILE
    if learned is None or not missing.is_file():
        log.warning(
            "training goes on without DISTS: %s is missing; put it there, or set dists_weight: 0 "
            "and edge_weight: 0",
            missing,
        )
        return None
    network = Dists()
    convolutions, _ = open_weights(folder / VGG_FILE)
    own, _ = open_weights(learned)
    state = {"alpha": own["alpha"], "beta": own["beta"]}
    for i, numbers in enumerate(STAGES):
        for number in numbers:
            for kind in ("weight", "bias"):
                state[f"stages.{i}.{number}.{kind}"] = convolutions[f"features.{number}.{kind}"]
    network.load_state_dict(state, strict=True)
    return network.to(device).eval().requires_grad_(False)


def edges(pictures: Tensor) -> Tensor:
    """Strength of the edges by Sobel's filters: `(B, 3, H, W)`, three times the same channel."""
    weights = pictures.new_tensor([0.2989, 0.587, 0.114]).view(1, 3, 1, 1)
    gray = (pictures * weights).sum(1, keepdim=True)
    across = pictures.new_tensor([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]])[None, None]
    sobel = torch.cat([across, across.mT])
    strength = (F.conv2d(gray, sobel, padding=1).square().sum(1, keepdim=True) + 1e-6).sqrt()
    return strength.expand(-1, 3, -1, -1)
