"""The enlarged input as tokens for FlashVSR's network: two causal convolutions over time.

    pixels -unshuffle 16x16-> 768 -conv1, RMS, SiLU-> 2048 -conv2, RMS, SiLU-> 3072 -linear-> tokens

Each convolution halves time, with a kernel of 4x3x3 and edges repeated. Four frames make one latent
step of tokens; the very first frame counts as four, whose tokens are not used.

The two published versions have the same weights by name and shape, and differ in what a group of
four frames sees of the past. In 1.1 it is the two frames before them; in 1, because its cache is
overwritten too early, their own last two frames.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Version = Literal["1", "1.1"]

FACTOR = 16
"""Pixels per token along each side."""
GROUP = 4
"""Frames that make one step of tokens."""
PAST = 2
"""Frames before its own that a convolution sees."""
KERNEL = (4, 3, 3)
BUDGET = 2**28
"""Numbers in the matrix of patches that a convolution on a GPU writes out at a time."""

LQCache = dict[str, Tensor]
"""What version 1.1 keeps between chunks: the last two inputs of each convolution."""


class ChannelNorm(nn.Module):
    """x / |x| sqrt(C) gamma over the channels; the published shape of gamma."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(channels, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:  # (..., C)
        return F.normalize(x, dim=-1) * x.shape[-1] ** 0.5 * self.gamma.flatten()


class LQProjection(nn.Module):
    """`LQ_proj_in.ckpt`; its only layer is added to the tokens before the first block."""

    def __init__(self, widths: tuple[int, int, int] = (2048, 3072, 1536), *, version: Version):
        """Build it.

        Args:
            widths: channels after each convolution and after the linear layer.
            version: which of the two published ones the weights are of.
        """
        super().__init__()
        first, second, out = widths
        self.version = version
        self.conv1 = nn.Conv3d(3 * FACTOR**2, first, KERNEL, stride=(2, 1, 1))
        self.norm1 = ChannelNorm(first)
        self.conv2 = nn.Conv3d(first, second, KERNEL, stride=(2, 1, 1))
        self.norm2 = ChannelNorm(second)
        self.linear_layers = nn.ModuleList([nn.Linear(second, out)])

    @staticmethod
    def widths(state: Mapping[str, Tensor]) -> tuple[int, int, int]:
        """The widths that a state dict was made with."""
        names = ("conv1.weight", "conv2.weight", "linear_layers.0.weight")
        first, second, out = (state[name].shape[0] for name in names)
        return first, second, out

    def forward(self, frames: Tensor, cache: LQCache | None) -> tuple[Tensor, LQCache]:
        """Tokens of whole groups of frames.

        Args:
            frames: `(T, 3, H, W)` in [-1, 1], H and W multiples of 16; T = 1 + 4 n at the
                beginning of a clip, 4 n after it.
            cache: what the last call gave; None at the beginning of a clip.

        Returns:
            Tokens `(n, H / 16, W / 16, C)`, and what the next call needs.
        """
        x = unshuffle(frames)
        if self.version == "1":
            return self._by_itself(x if cache is not None else x[1:]), {}
        if cache is None:  # the first frame stands for a group, and for the two before that
            x = torch.cat((x[:1].expand(PAST + GROUP - 1, *x.shape[1:]), x))
        else:
            x = torch.cat((cache["conv1"], x))
        y = self._layer(self.conv1, self.norm1, x[None])[0]
        # The first group has tokens of the first convolution only, as the past of the second.
        y = y if cache is None else torch.cat((cache["conv2"], y))
        tokens = self._layer(self.conv2, self.norm2, y[None])[0]
        kept = {"conv1": x[-PAST:].clone(), "conv2": y[-PAST:].clone()}
        return self.linear_layers[0](tokens), kept

    def _by_itself(self, x: Tensor) -> Tensor:
        """Version 1: every group, `(4 n, h, w, C)`, with its own end as its past."""
        x = x.reshape(-1, GROUP, *x.shape[1:])
        for conv, norm in ((self.conv1, self.norm1), (self.conv2, self.norm2)):
            x = self._layer(conv, norm, torch.cat((x[:, -PAST:], x), 1))
        return self.linear_layers[0](x[:, 0])

    def channels_last(self) -> None:
        """Lay the kernels out as `as_product` wants them; names, shapes and numbers stay."""
        for conv in (self.conv1, self.conv2):
            weight = conv.weight.data.contiguous(memory_format=torch.channels_last_3d)
            conv.weight = nn.Parameter(weight, requires_grad=False)

    @staticmethod
    def _layer(conv: nn.Module, norm: nn.Module, x: Tensor) -> Tensor:
        """`(n, T, h, w, C)` to `(n, T / 2 - 1, h, w, C')`."""
        assert isinstance(conv, nn.Conv3d) and conv.bias is not None
        run = as_product if x.is_cuda and x.element_size() == 2 else as_convolution
        return F.silu(norm(run(x, conv.weight, conv.bias)))


def unshuffle(frames: Tensor) -> Tensor:
    """`(T, 3, H, W)` to `(T, H / 16, W / 16, 768)`; channels by colour, row, column."""
    time, colours, height, width = frames.shape
    x = frames.reshape(time, colours, height // FACTOR, FACTOR, width // FACTOR, FACTOR)
    return x.permute(0, 2, 4, 1, 3, 5).reshape(time, height // FACTOR, width // FACTOR, -1)


def padded(x: Tensor) -> Tensor:
    """`(n, T, h, w, C)` with the edges of each picture repeated once."""
    rows = torch.cat((x[:, :, :1], x, x[:, :, -1:]), 2)
    return torch.cat((rows[:, :, :, :1], rows, rows[:, :, :, -1:]), 3)


def as_convolution(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The plain twin: PyTorch's convolution, `(n, T, h, w, C)` to `(n, T', h, w, C')`."""
    first = padded(x).permute(0, 4, 1, 2, 3)
    return F.conv3d(first, weight, bias, stride=(2, 1, 1)).permute(0, 2, 3, 4, 1)


def as_product(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The same as one matrix product of all patches with all kernels.

    On a GPU in half precision that is many times faster than cuDNN's convolution of this shape
    (152 against 8.4 ms were reported of a GH200), since time is short and channels are many. The
    patches are written out with the channels last, some rows of a picture at a time.
    """
    time, down, along = KERNEL
    size = time * down * along * x.shape[-1]
    # A view, no copy, where the weights lie with their channels last, see `channels_last`.
    kernels = weight.permute(2, 3, 4, 1, 0).reshape(size, -1)
    x = padded(x)
    views = x.unfold(1, time, 2).unfold(2, down, 1).unfold(3, along, 1)
    views = views.permute(0, 1, 2, 3, 5, 6, 7, 4)  # (n, T', h, w, 4, 3, 3, C)
    count, steps, rows, columns = views.shape[:4]
    result = x.new_empty(count, steps, rows, columns, weight.shape[0])
    at_once = max(1, BUDGET // (columns * size))
    for i in range(count):
        for t in range(steps):
            for row in range(0, rows, at_once):
                patches = views[i, t, row : row + at_once].reshape(-1, size)
                product = torch.addmm(bias, patches, kernels)
                result[i, t, row : row + at_once] = product.view(-1, columns, len(bias))
    return result
