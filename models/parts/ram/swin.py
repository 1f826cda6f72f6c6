"""Swin Transformer (Liu et al., ICCV 2021), the image encoder of RAM.

Modules are named as in the published weights, which are then read as they are: transformers' own
Swin would need a map to names that have changed between its versions.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

PATCH = 4


class WindowAttention(nn.Module):
    """Self-attention inside windows, with a learned bias for each relative position (eq. 4)."""

    def __init__(self, width: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))

    def forward(self, windows: Tensor, positions: Tensor, mask: Tensor) -> Tensor:
        """Attend.

        Args:
            windows: `(B, W, N, C)`, W windows of N tokens.
            positions: `(N, N)`, row of the table for each pair of tokens.
            mask: `(W, 1, N, N)` or `(1, 1, N, N)`, added to the scores.
        """
        b, w, n, c = windows.shape
        qkv = self.qkv(windows).view(b, w, n, 3, self.heads, c // self.heads)
        # Windows stand beside heads: fused kernels take four dimensions.
        q, k, v = qkv.permute(3, 0, 1, 4, 2, 5).flatten(2, 3)  # each (B, W * heads, N, D)
        bias = self.relative_position_bias_table[positions].permute(2, 0, 1)  # (heads, N, N)
        scores = (bias + mask).expand(w, -1, -1, -1).flatten(0, 1)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=scores.unsqueeze(0))
        mixed = mixed.view(b, w, self.heads, n, -1).transpose(2, 3)
        return self.proj(mixed.reshape(b, w, n, c))


class Mlp(nn.Module):
    """Two layers with an exact GELU between them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """Attention in windows, moved by half a window in every second block; then an MLP (eq. 3)."""

    def __init__(self, width: int, heads: int, window: int, shift: int) -> None:
        super().__init__()
        self.window = window
        self.shift = shift
        self.norm1 = nn.LayerNorm(width)
        self.attn = WindowAttention(width, heads, window)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width)

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        """`x` is `(B, S, S, C)`, and so is the result."""
        side = x.shape[1]
        mask = shift_mask(side, self.window, self.shift, like=x)
        y = torch.roll(self.norm1(x), (-self.shift, -self.shift), (1, 2))
        y = self.attn(to_windows(y, self.window), positions, mask)
        x = x + torch.roll(from_windows(y, side), (self.shift, self.shift), (1, 2))
        return x + self.mlp(self.norm2(x))


class PatchMerging(nn.Module):
    """Four neighbours become one token of twice the width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * width)
        self.reduction = nn.Linear(4 * width, 2 * width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, S, S, C)` to `(B, S / 2, S / 2, 2 C)`."""
        quarters = [x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
        return self.reduction(self.norm(torch.cat(quarters, dim=-1)))


class Stage(nn.Module):
    """Blocks at one resolution, and the step to the next one."""

    def __init__(
        self, width: int, *, depth: int, heads: int, window: int, side: int, last: bool
    ) -> None:
        super().__init__()
        shift = window // 2 if side > window else 0
        self.blocks = nn.ModuleList(
            Block(width, heads, window, shift if index % 2 else 0) for index in range(depth)
        )
        self.downsample = None if last else PatchMerging(width)

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x, positions)
        return x if self.downsample is None else self.downsample(x)


class PatchEmbedding(nn.Module):
    """Squares of 4x4 pixels become tokens."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, PATCH, PATCH)
        self.norm = nn.LayerNorm(width)

    def forward(self, pictures: Tensor) -> Tensor:
        """`(B, 3, H, W)` to `(B, H / 4, W / 4, C)`."""
        return self.norm(self.proj(pictures).permute(0, 2, 3, 1))


class Swin(nn.Module):
    """The whole encoder."""

    def __init__(
        self, width: int, *, depths: Sequence[int], heads: Sequence[int], window: int, side: int
    ) -> None:
        super().__init__()
        self.window = window
        self.patch_embed = PatchEmbedding(width)
        self.layers = nn.ModuleList(
            Stage(
                width << index,
                depth=depths[index],
                heads=heads[index],
                window=window,
                side=side // PATCH >> index,
                last=index == len(depths) - 1,
            )
            for index in range(len(depths))
        )
        self.norm = nn.LayerNorm(width << (len(depths) - 1))

    def forward(self, pictures: Tensor) -> Tensor:
        """Encode.

        Args:
            pictures: `(B, 3, side, side)`, normalised.

        Returns:
            `(B, 1 + N, C)`: the mean of the N tokens, then the tokens.
        """
        positions = relative_positions(self.window, pictures.device)
        x = self.patch_embed(pictures)
        for layer in self.layers:
            x = layer(x, positions)
        x = self.norm(x).flatten(1, 2)
        return torch.cat([x.mean(dim=1, keepdim=True), x], dim=1)


def to_windows(x: Tensor, window: int) -> Tensor:
    """`(B, S, S, C)` to `(B, W, N, C)`: W windows of N = window * window tokens, row by row."""
    b, side, _, c = x.shape
    n = side // window
    return x.view(b, n, window, n, window, c).transpose(2, 3).reshape(b, n * n, window**2, c)


def from_windows(x: Tensor, side: int) -> Tensor:
    """What `to_windows` was given."""
    b, w, n, c = x.shape
    count, window = round(w**0.5), round(n**0.5)
    return x.view(b, count, count, window, window, c).transpose(2, 3).reshape(b, side, side, c)


def relative_positions(window: int, device: torch.device) -> Tensor:
    """`(N, N)`: for each pair of tokens of a window, the row of the bias table.

    The table holds the offsets from -(window - 1) to window - 1, rows first.
    """
    steps = torch.arange(window, device=device)
    rows, columns = (axis.flatten() for axis in torch.meshgrid(steps, steps, indexing="ij"))
    down = rows[:, None] - rows[None, :] + window - 1
    right = columns[:, None] - columns[None, :] + window - 1
    return down * (2 * window - 1) + right


def shift_mask(side: int, window: int, shift: int, *, like: Tensor) -> Tensor:
    """`(W, 1, N, N)`: -100 between tokens that only the roll has brought into one window.

    The paper masks; its code adds -100 to the score, which the weights were trained with. Without
    a shift it is one zero, `(1, 1, 1, 1)`.
    """
    if shift == 0:
        return like.new_zeros(1, 1, 1, 1)
    step = torch.arange(side, device=like.device)
    region = (step >= side - window).long() + (step >= side - shift).long()
    regions = to_windows((3 * region[:, None] + region)[None, :, :, None], window)[0, :, :, 0]
    apart = regions[:, None, :, None] != regions[:, None, None, :]  # (W, 1, N, N)
    return apart.to(like.dtype) * -100
