"""How blurred and how noisy a picture is, as two numbers.

Mou et al., "Metric Learning based Interactive Modulation for Real-World Super-Resolution", ECCV
2022 (MM-RealSR); S3Diff publishes weights for it with its own, `de_net.pth`. Each number has a
network of its own:

    picture (3, H, W) -> conv -> 6 residual blocks of 64 -> conv, half the size, 128 -> 2 blocks
                      -> mean over the picture -> linear -> ReLU -> linear -> sigmoid
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from restore.errors import WeightsError
from restore.nested_weights import check_finite, open_nested

DEGREES = 2
"""Blur and noise."""
CHANNELS, LAST_CHANNELS, HIDDEN = 64, 128, 512
STRIP = 512
"""Rows that are worked on at a time; even, because the network halves the size."""
REACH = 32
"""Rows beside a strip that it also sees: 14 layers reach 1 row each, and 4 reach 2. Even."""


class DegradationEstimator(nn.Module):
    """Pictures -> degrees of degradation; named as in the published file."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_first = nn.ModuleList(
            nn.Conv2d(3, CHANNELS, 3, padding=1) for _ in range(DEGREES)
        )
        self.body = nn.ModuleList(nn.Sequential(*_body()) for _ in range(DEGREES))
        self.fc_degree = nn.ModuleList(
            nn.Sequential(
                nn.Linear(LAST_CHANNELS, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 1), nn.Sigmoid()
            )
            for _ in range(DEGREES)
        )

    def forward(self, pictures: Tensor) -> Tensor:
        """Degrees `(B, 2)` in (0, 1) of pictures `(B, 3, H, W)` in [0, 1], as they came."""
        heads = zip(self.conv_first, self.body, self.fc_degree, strict=True)
        return torch.cat(
            [fc(_mean(nn.Sequential(first, body), pictures)) for first, body, fc in heads], dim=1
        )


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.relu(self.conv1(x)))


def _body() -> Iterator[nn.Module]:
    for _ in range(6):
        yield _Residual(CHANNELS)
    yield nn.Conv2d(CHANNELS, LAST_CHANNELS, 3, stride=2, padding=1)
    for _ in range(2):
        yield _Residual(LAST_CHANNELS)


def _mean(net: nn.Module, pictures: Tensor) -> Tensor:
    """Mean `(B, C)` of a network's features, taken strip by strip: the same, in less memory."""
    height = pictures.shape[-2]
    total, places = torch.zeros((), device=pictures.device), 0
    for top in range(0, height, STRIP):
        bottom = min(top + STRIP, height)
        first = max(0, top - REACH)
        features = net(pictures[..., first : bottom + REACH, :])
        core = features[..., (top - first) // 2 : (bottom - first + 1) // 2, :]
        total = total + core.sum((2, 3))
        places += core.shape[-2] * core.shape[-1]
    return total / places


def read_estimator(path: Path) -> DegradationEstimator:
    """The network with the weights of `de_net.pth`, or of a safetensors file with the same names.

    Raises:
        WeightsError: missing, damaged, unsafe, of another network, or with NaN in it.
    """
    state = open_nested(path)
    with torch.device("meta"):
        net = DegradationEstimator()
    expected = {name: tensor.shape for name, tensor in net.state_dict().items()}
    wrong = [
        name
        for name in sorted(expected.keys() | state.keys())
        if name not in expected or getattr(state.get(name), "shape", None) != expected[name]
    ]
    if wrong:
        what = "lacks" if wrong[0] not in state else "has an unknown or differently shaped"
        raise WeightsError(
            f"{path} {what} '{wrong[0]}' ({len(wrong)} such names); it is not the degradation "
            "estimator of S3Diff: get de_net.pth from its repository"
        )
    check_finite(path, state)
    net.load_state_dict({name: tensor.float() for name, tensor in state.items()}, assign=True)
    return net.eval().requires_grad_(False)
