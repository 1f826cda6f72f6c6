"""The network of `compact`: a residual convolution net at the input's size and at half of it.

    previous result, moved to this frame (clips only)
        |
        v                                   half size
    [state]                    +--> conv 2x2 /2 -> [block] x M -> conv 1x1, shuffle x2 --+
        |                      |                                                         v
    x ->(+)<- [head] -> [block] x N ------------------------------------------------->  (+)
    |                                                                                    |
    |                                                                          [block] x N
    |                                                                                    |
    +------------- bicubic x s ----------------------(+)<- shuffle x s <- [tail] <-------+
                                                      |
                                                      v  y

The result is made by shuffling channels into pixels, as ESPCN does (Shi et al., "Real-Time Single
Image and Video Super-Resolution Using an Efficient Sub-Pixel Convolutional Neural Network", CVPR
2016, section 3), from residual blocks without normalisation (EDSR, Lim et al., CVPRW 2017). Most
of the work is done at half size, where a convolution costs a quarter and sees twice as far; the
fast variant (`width` 0) works there alone.

In a clip the previous result comes back, moved along the motion: the detail that it has over the
bicubic enlargement goes in as features, and a gate, predicted for each pixel, says how much of it
is kept. Where `trust` is 0 (a picture, the first frame of a scene, uncovered ground) the network
is that of a single picture.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from restore.errors import OptionError


@dataclass(frozen=True, kw_only=True, slots=True)
class CompactConfig:
    """Shape of the network; written into the weight file, so that a file builds its own net."""

    scale: int = 4
    """Output pixels per input pixel along each side: 1 to 8."""
    width: int = 48
    """Channels at the input's size; 0 = nothing is done there, the input is shuffled to half."""
    outer: int = 1
    """Residual blocks at the input's size, before and after those at half size."""
    deep: int = 96
    """Channels at half size."""
    inner: int = 6
    """Residual blocks at half size."""

    def __post_init__(self) -> None:
        limits = {"scale": (1, 8), "width": (0, 512), "outer": (0, 64)}
        limits |= {"deep": (1, 1024), "inner": (0, 256)}
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise OptionError(f"network.{name} is {value}; give {low} to {high}")
        if self.width == 0 and self.outer:
            raise OptionError("network.outer needs a width above 0; give outer: 0 or a width")


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions around an identity path; nothing is normalised."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        # A small second convolution starts each block near the identity, which lets a deep stack
        # without normalisation train at a high rate.
        self.conv2.weight.data.mul_(0.1)

    def forward(self, x: Tensor) -> Tensor:  # (B, C, H, W)
        return x + self.conv2(F.leaky_relu(self.conv1(x), 0.1, inplace=True))


class HalfSize(nn.Module):
    """The blocks at half size, between a way down and a way up."""

    def __init__(self, config: CompactConfig) -> None:
        super().__init__()
        self.down = nn.Conv2d(config.width, config.deep, 2, stride=2)
        self.blocks = nn.Sequential(*[ResidualBlock(config.deep) for _ in range(config.inner)])
        self.up = nn.Conv2d(config.deep, 4 * config.width, 1)

    def forward(self, x: Tensor) -> Tensor:  # (B, C, H, W), H and W even
        return x + F.pixel_shuffle(self.up(self.blocks(self.down(x))), 2)


class CompactNet(nn.Module):
    """Low-resolution RGB `(B, 3, H, W)` in [0, 1] to `(B, 3, s H, s W)`, unclamped; H, W even."""

    def __init__(self, config: CompactConfig) -> None:
        super().__init__()
        self.config = config
        self.fold = 1 if config.width else 2
        """Side of the squares of input pixels that are one pixel of the outermost features."""
        width = config.width or config.deep
        result = 3 * (config.scale * self.fold) ** 2
        self.head = nn.Conv2d(3 * self.fold**2, width, 3, padding=1)
        self.state = nn.Conv2d(result, width, 3, padding=1, bias=False)
        self.body: nn.Module
        if config.width:
            before = [ResidualBlock(width) for _ in range(config.outer)]
            after = [ResidualBlock(width) for _ in range(config.outer)]
            self.body = nn.Sequential(*before, HalfSize(config), *after)
        else:
            self.body = nn.Sequential(*[ResidualBlock(width) for _ in range(config.inner)])
        self.tail = nn.Conv2d(width, result, 3, padding=1)
        # Neither a parameter nor a buffer: it never takes the format of the weights.
        self._enlarger = bicubic_kernel(config.scale, self.fold)
        self.gate = nn.Conv2d(width, self.fold**2, 3, padding=1)
        self.tail.weight.data.mul_(0.1)
        # Before it is trained on clips, a network keeps half of what it trusts.
        for weight in (self.state.weight, self.gate.weight, self.gate.bias):
            nn.init.zeros_(weight)  # type: ignore[arg-type]

    def forward(
        self, x: Tensor, previous: Tensor | None = None, trust: Tensor | None = None
    ) -> Tensor:
        """Restore frames.

        Args:
            x: `(B, 3, H, W)` in [0, 1], H and W even.
            previous: result of the frame before, moved to this one, `(B, 3, s H, s W)`; None for
                pictures.
            trust: how far `previous` can be relied on, `(B, 1, H, W)` in [0, 1].

        Returns:
            `(B, 3, s H, s W)`, unclamped.
        """
        # Everything stays folded, as channels of the features' size (R = 3 (s fold)^2 of them),
        # up to one shuffle at the end. The convolutions run in the format of their weights; the
        # rest in that of `x`.
        kind, side = self.head.weight.dtype, self.config.scale * self.fold
        base = self._bicubic(x)  # (B, R, h, w)
        features = self.head(_channels_last(F.pixel_unshuffle(x, self.fold).to(kind)))
        if previous is None or trust is None:
            result = base.add_(self.tail(self.body(features)))
            return F.pixel_shuffle(result, side)
        before = _channels_last(F.pixel_unshuffle(previous, side))
        kept = self._weigh(before - base, trust)  # detail that the previous result had
        features = self.body(features + self.state(kept.to(kind)))
        result = base.add_(self.tail(features))
        gate = F.pixel_shuffle(torch.sigmoid(self.gate(features)), self.fold)  # (B, 1, H, W)
        result = result + self._weigh(before - result, gate.to(x.dtype) * trust)
        return F.pixel_shuffle(result, side)

    def _bicubic(self, x: Tensor) -> Tensor:
        """`x` enlarged as `F.interpolate` does it in the mode "bicubic", folded: `(B, R, h, w)`.

        As a convolution, because the runtimes' own enlarging takes up to half of a frame's time.
        """
        padded = _channels_last(F.pad(x, (2, 2, 2, 2), mode="replicate"))
        kernel = self._enlarger.to(x.device, x.dtype, non_blocking=True)
        if torch.is_autocast_enabled(x.device.type):  # the picture itself keeps all its bits
            with torch.autocast(x.device.type, enabled=False):
                return F.conv2d(padded, kernel, stride=self.fold)
        return F.conv2d(padded, kernel, stride=self.fold)

    def _weigh(self, result: Tensor, weight: Tensor) -> Tensor:
        """Multiply a folded result `(B, R, h, w)` with a weight per input pixel `(B, 1, H, W)`."""
        if self.fold > 1:
            weight = F.interpolate(weight, scale_factor=self.config.scale, mode="nearest")
            weight = F.pixel_unshuffle(weight, self.config.scale * self.fold)
        return (torch.unflatten(result, 1, (3, -1)) * weight[:, None]).flatten(1, 2)

    @property
    def receptive_radius(self) -> int:
        """Input pixels on each side of a pixel that can change its result."""
        c = self.config
        if not c.width:  # every convolution reaches 1 pixel of half size; the fold 1 more
            return 2 * (2 * c.inner + 2) + 1
        return 4 * c.outer + 2 + 4 * c.inner + 1

    @property
    def macs_per_pixel(self) -> int:
        """Multiplications of the convolutions per input pixel, those of the state included."""
        c, area = self.config, self.fold**2
        width, result = c.width or c.deep, 3 * (c.scale * self.fold) ** 2
        ends = 9 * width * (3 * area + 2 * result + area) // area
        deep = 2 * 9 * c.inner * c.deep**2 // 4
        if not c.width:
            return ends + deep
        return ends + deep + 2 * 2 * 9 * c.outer * c.width**2 + 2 * c.width * c.deep


def bicubic_kernel(scale: int, fold: int) -> Tensor:
    """Convolution that enlarges bicubically and folds: `(3 (s fold)^2, 3, 4 + fold, 4 + fold)`.

    Its stride is `fold`, over a picture whose border is repeated by 2. The cubic pieces are those
    of Keys, "Cubic Convolution Interpolation for Digital Image Processing", IEEE Trans. ASSP 1981,
    with the free constant a = -0.75 that PyTorch takes.
    """
    side, reach = scale * fold, 4 + fold
    # On the CPU whatever the default device is: a network on "meta" still has these numbers.
    place = (torch.arange(side, dtype=torch.float64, device="cpu") + 0.5) / scale - 0.5
    taps = torch.arange(-2, 2 + fold, dtype=torch.float64, device="cpu")
    d, a = (place[:, None] - taps).abs(), -0.75  # (side, reach)
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    weights = torch.where(d <= 1, near, torch.where(d < 2, far, 0.0))
    plane = torch.einsum("ik,jl->ijkl", weights, weights).reshape(side * side, reach, reach)
    kernel = torch.zeros(3, side * side, 3, reach, reach, device="cpu")
    for color in range(3):
        kernel[color, :, color] = plane
    return _channels_last(kernel.flatten(0, 1))


def _channels_last(x: Tensor) -> Tensor:
    """The layout in which CPUs convolve fastest."""
    return x.contiguous(memory_format=torch.channels_last)
