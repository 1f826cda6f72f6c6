"""The network that ships in the package: a plain residual convolution net in pixel space.

    x ----------------------- bicubic x s ----------------------(+)--> y
    |                                                            |
    conv 3->C -> [conv - lrelu - conv (+)] x N -> conv C->3 s^2 -> pixel shuffle

It works at the input's resolution and shuffles channels into pixels at the end, as ESPCN does
(Shi et al., "Real-Time Single Image and Video Super-Resolution Using an Efficient Sub-Pixel
Convolutional Neural Network", CVPR 2016, section 3), with the residual blocks without
normalisation of EDSR (Lim et al., CVPRW 2017). Convolutions of one width in channels-last
layout are what a CPU does fastest.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from restore.errors import WeightsError
from restore.method import MethodSpec
from restore.weights import open_metadata, open_weights, packaged_weights

FORMAT = "restore.compact.v1"


@dataclass(frozen=True, kw_only=True, slots=True)
class CompactConfig:
    """Shape of the network; written into the weight file, so that a file builds its own net."""

    scale: int = 4
    """Output pixels per input pixel along each side."""
    width: int = 48
    """Channels of every hidden layer."""
    blocks: int = 8
    """Residual blocks of two convolutions each."""


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions around an identity path; nothing is normalised."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:  # (B, C, H, W)
        return x + self.conv2(F.leaky_relu(self.conv1(x), 0.1, inplace=True))


class CompactNet(nn.Module):
    """Low-resolution RGB `(B, 3, H, W)` in [0, 1] to `(B, 3, s H, s W)`, unclamped."""

    def __init__(self, config: CompactConfig) -> None:
        super().__init__()
        self.config = config
        self.head = nn.Conv2d(3, config.width, 3, padding=1)
        blocks = [ResidualBlock(config.width) for _ in range(config.blocks)]
        self.body = nn.Sequential(*blocks)
        self.tail = nn.Conv2d(config.width, 3 * config.scale**2, 3, padding=1)
        for block in blocks:
            # A small second convolution starts each block near the identity, which lets a deep
            # stack without normalisation train at a high rate.
            block.conv2.weight.data.mul_(0.1)
        self.tail.weight.data.mul_(0.1)

    def forward(self, x: Tensor) -> Tensor:
        detail = F.pixel_shuffle(self.tail(self.body(self.head(x))), self.config.scale)
        base = F.interpolate(x, scale_factor=self.config.scale, mode="bicubic", align_corners=False)
        return detail.add_(base) if not self.training else detail + base

    @property
    def receptive_radius(self) -> int:
        """Input pixels on each side of a pixel that can change its result."""
        return 2 * self.config.blocks + 2

    @property
    def macs_per_pixel(self) -> int:
        """Multiplications of the convolutions per input pixel."""
        c = self.config
        return 9 * (3 * c.width + 2 * c.blocks * c.width**2 + c.width * 3 * c.scale**2)


class Compact:
    """The default of `restore image` and `restore video`."""

    spec = MethodSpec(
        name="compact",
        summary="small network in the package: sharpens, denoises and enlarges x4 on any CPU",
        scale=4,
        overlap=18,
        dtypes=("fp32", "bf16", "fp16"),
        bytes_per_pixel=2600,
        source="this package; see restore/assets/compact.md",
    )

    def __init__(self, net: CompactNet) -> None:
        self.net = net.eval().requires_grad_(False)
        self.spec = spec_of(net.config)

    @classmethod
    def describe(cls, weights: Path | None) -> MethodSpec:
        """The spec with the scale and the receptive field of the network in `weights`."""
        path = packaged_weights(cls.spec.name) if weights is None else weights
        return spec_of(read_config(path, open_metadata(path)))

    @classmethod
    def load(cls, weights: Path | None, *, device: torch.device, dtype: torch.dtype) -> Compact:
        """Build the network that the weight file describes and fill it.

        Raises:
            WeightsError: the file is missing, damaged, unsafe, or of another model.
        """
        path = packaged_weights(cls.spec.name) if weights is None else weights
        state, config = read_compact(path)
        with torch.device("meta"):
            net = CompactNet(config)
        try:
            net.load_state_dict(state, strict=True, assign=True)
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            raise WeightsError(
                f"{path} does not fit the compact network it describes ({reason}); "
                "it is damaged: leave --weights out to use the weights in the package"
            ) from error
        return cls(net).to(device, dtype)

    def to(self, device: torch.device, dtype: torch.dtype) -> Compact:
        """Move the network to `device` and `dtype`, in the layout that is fastest there."""
        self.net = self.net.to(device, dtype).to(memory_format=torch.channels_last)
        return self

    def restore(self, frames: Tensor, *, generator: torch.Generator) -> Tensor:
        """`(B, 1, 3, H, W)` in [0, 1] to `(B, 1, 3, s H, s W)`; it draws nothing at random."""
        x = frames[:, 0].to(memory_format=torch.channels_last)
        return self.net(x).clamp_(0, 1)[:, None]


def spec_of(config: CompactConfig) -> MethodSpec:
    """The spec of a network of this shape."""
    with torch.device("meta"):
        radius = CompactNet(config).receptive_radius
    return replace(Compact.spec, scale=config.scale, overlap=radius)


def read_compact(path: Path) -> tuple[dict[str, Tensor], CompactConfig]:
    """Tensors and shape of the network in a weight file written by `restore train`.

    Raises:
        WeightsError: the file is missing, damaged, unsafe, or of another model.
    """
    state, metadata = open_weights(path)
    if "format" not in metadata:
        metadata = {"format": f"keys such as '{next(iter(state), 'none')}'"}
    return state, read_config(path, metadata)


def read_config(path: Path, metadata: dict[str, str]) -> CompactConfig:
    """Shape of the network from the text stored in its weight file.

    Raises:
        WeightsError: the text is of another model, or incomplete.
    """
    if metadata.get("format") != FORMAT:
        found = metadata.get("format", "no format is named")
        raise WeightsError(
            f"{path} holds weights of another model ({found}); 'compact' needs a file with "
            f"format '{FORMAT}' as 'restore train' writes it: choose the model with -n or "
            "leave --weights out"
        )
    try:
        return CompactConfig(
            scale=int(metadata["scale"]),
            width=int(metadata["width"]),
            blocks=int(metadata["blocks"]),
        )
    except (KeyError, ValueError) as error:
        raise WeightsError(
            f"{path} does not say the shape of its network ({error}); write it again with "
            "'restore train' or leave --weights out"
        ) from error
