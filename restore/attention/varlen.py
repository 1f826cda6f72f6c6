"""Dense attention inside windows of unequal sizes: SeedVR2's adaptive windows, with shared text.

    video tokens --order--> windows one after another --attention in each--> --inverse--> video
    text tokens  ---------> joined to every window ----------------------> mean over the windows

Windows are dense, so no block lists are needed. On CUDA they go through variable-length attention
in one call; elsewhere windows of the same size are one batch.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

COUNTS = (4, 3, 3)
"""Windows along time, height and width of a 720p clip (SeedVR2's configuration)."""
AREA_720P = 45 * 80
"""Tokens of a 720p frame, 16 pixels a token; window sizes are chosen as if a frame had as many."""
MOST_FRAMES = 30
"""Latent frames beyond which windows grow no longer in time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Windows:
    """How the tokens of a clip fall into windows."""

    order: Tensor
    """`(N,)` int64: token numbers (time, row, column flattened), window after window."""
    shapes: tuple[tuple[int, int, int], ...]
    """Frames, rows and columns of each window."""

    @property
    def lengths(self) -> tuple[int, ...]:
        """Tokens of each window."""
        return tuple(math.prod(shape) for shape in self.shapes)

    @property
    def inverse(self) -> Tensor:
        """`(N,)`: where each token stands in `order`."""
        return self.order.argsort()


def adaptive_windows(
    frames: int,
    height: int,
    width: int,
    *,
    shifted: bool = False,
    counts: tuple[int, int, int] = COUNTS,
    device: torch.device | str | None = None,
) -> Windows:
    """SeedVR2's windows: of the shape that 4 x 3 x 3 windows have in 720p, whatever the size.

    With s = sqrt(45 * 80 / (h w)), a window has ceil(round(h s) / 3) rows, ceil(round(w s) / 3)
    columns and ceil(min(t, 30) / 4) frames; those at the end are smaller. Every other layer shifts
    them by half a window where there is more than one (Wang et al., SeedVR2, arXiv 2506.05301, and
    `window.py` of its code).

    Args:
        frames: latent frames.
        height: rows of tokens, 16 pixels each.
        width: columns of tokens.
        shifted: whether this layer shifts.
        counts: windows along time, height and width of a 720p clip.
        device: of `order`.
    """
    factor = math.sqrt(AREA_720P / (height * width))
    likened = (min(frames, MOST_FRAMES), round(height * factor), round(width * factor))
    spans = [
        _spans(length, math.ceil(like / count), shifted=shifted)
        for length, like, count in zip((frames, height, width), likened, counts, strict=True)
    ]
    numbers = torch.arange(frames * height * width).view(frames, height, width)
    parts, shapes = [], []
    for (x0, x1), (y0, y1), (t0, t1) in product(spans[2], spans[1], spans[0]):  # time is fastest
        parts.append(numbers[t0:t1, y0:y1, x0:x1].flatten())
        shapes.append((t1 - t0, y1 - y0, x1 - x0))
    return Windows(order=torch.cat(parts).to(device), shapes=tuple(shapes))


def _spans(length: int, size: int, *, shifted: bool) -> list[tuple[int, int]]:
    """Start and end of the windows along one axis."""
    shift = 0.5 if shifted and size < length else 0.0
    last = math.ceil(length / size) + 1
    cuts = [min(max(int((i - shift) * size), 0), length) for i in range(last + 1)]
    return [(a, b) for a, b in pairwise(cuts) if a < b]


def windows_attention(
    q: Tensor, k: Tensor, v: Tensor, lengths: Sequence[int], *, scale: float | None = None
) -> Tensor:
    """Attention where each token sees its own window.

    Args:
        q: `(B, H, N, D)`, window after window.
        k: the same shape.
        v: the same shape.
        lengths: tokens of each window; N together.
        scale: factor of the scores, by default 1 / sqrt(D).

    Returns:
        `(B, H, N, D)` in q's dtype.

    Raises:
        ValueError: the windows do not fill the tokens.
    """
    none = q[:, :, :0]
    return _attend((q, k, v), (none, none, none), lengths, scale)[0]


def joint_windows_attention(
    video: tuple[Tensor, Tensor, Tensor],
    text: tuple[Tensor, Tensor, Tensor],
    lengths: Sequence[int],
    *,
    scale: float | None = None,
) -> tuple[Tensor, Tensor]:
    """Attention in windows whose video tokens and all text tokens see each other.

    Args:
        video: q, k, v, each `(B, H, N, D)`, window after window.
        text: q, k, v, each `(B, H, L, D)`, the same for all windows.
        lengths: tokens of each window; N together.
        scale: factor of the scores, by default 1 / sqrt(D).

    Returns:
        Video `(B, H, N, D)`, and text `(B, H, L, D)`: the mean of what it got in each window.

    Raises:
        ValueError: the windows do not fill the tokens.
    """
    return _attend(video, text, lengths, scale)


def _attend(
    video: tuple[Tensor, Tensor, Tensor],
    text: tuple[Tensor, Tensor, Tensor],
    lengths: Sequence[int],
    scale: float | None,
) -> tuple[Tensor, Tensor]:
    q = video[0]
    if sum(lengths) != q.shape[2] or min(lengths, default=0) < 1:
        raise ValueError(f"windows of {list(lengths)} tokens do not fill {q.shape[2]} tokens")
    joined = tuple(torch.cat([a, b], 2) for a, b in zip(video, text, strict=True))
    fused = variable_length(q)
    if fused is not None:
        return _packed(fused, joined, tuple(lengths), scale)
    return _by_size(joined, tuple(lengths), scale)


def variable_length(q: Tensor) -> Callable[..., Any] | None:
    """PyTorch's variable-length attention where it can compute for such tensors."""
    if q.device.type != "cuda" or q.dtype not in (torch.float16, torch.bfloat16):
        return None
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:  # PyTorch 2.9
        return None
    return varlen_attn


def _packed(
    fused: Callable[..., Any],
    joined: tuple[Tensor, ...],
    lengths: tuple[int, ...],
    scale: float | None,
) -> tuple[Tensor, Tensor]:
    """All windows of the batch in one line, with the places where each starts."""
    batch, _, tokens, _ = joined[0].shape
    line = _line(lengths, tokens - sum(lengths), batch, joined[0].device)
    lines = [x.transpose(1, 2).index_select(1, line.order).flatten(0, 1) for x in joined]
    extra = {} if scale is None else {"scale": scale}
    out = fused(*lines, line.starts, line.starts, line.longest, line.longest, **extra)
    out = out.view(batch, -1, *out.shape[1:]).transpose(1, 2)  # (B, H, line, D)
    text = torch.unflatten(out.index_select(2, line.text.flatten()), 2, line.text.shape)
    return out.index_select(2, line.video), text.mean(2)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Line:
    """Windows one after another, each followed by the text; places count from the line's start."""

    order: Tensor
    """`(P,)`: number in (video, text) of each token of the line."""
    starts: Tensor
    """`(B * windows + 1,)` int32: where each window of each batch item starts, and the end."""
    video: Tensor
    """`(N,)`: places of the video's tokens."""
    text: Tensor
    """`(windows, L)`: places of the text's tokens."""
    longest: int
    """Tokens of the longest window with its text."""


@functools.lru_cache(maxsize=16)
def _line(lengths: tuple[int, ...], shared: int, batch: int, device: torch.device) -> _Line:
    total = sum(lengths)
    text = torch.arange(total, total + shared)
    video = torch.split(torch.arange(total), list(lengths))
    sizes = torch.tensor(lengths) + shared
    ends = sizes.cumsum(0)
    starts = torch.cat([torch.zeros(1, dtype=torch.int64), sizes.repeat(batch).cumsum(0)])
    texts = (ends - shared)[:, None] + torch.arange(shared)
    before = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths)) * shared
    return _Line(
        order=torch.cat([part for own in video for part in (own, text)]).to(device),
        starts=starts.to(device, torch.int32),
        video=(torch.arange(total) + before).to(device),
        text=texts.to(device),
        longest=max(lengths) + shared,
    )


def _by_size(
    joined: tuple[Tensor, ...], lengths: tuple[int, ...], scale: float | None
) -> tuple[Tensor, Tensor]:
    """Windows of the same size as one batch of scaled dot-product attention."""
    q = joined[0]
    total = sum(lengths)
    shared = q.shape[2] - total
    video = torch.empty_like(q[:, :, :total], memory_format=torch.contiguous_format)
    inner = torch.promote_types(q.dtype, torch.float32)
    text = q.new_zeros((*q.shape[:2], shared, q.shape[3]), dtype=inner)
    for own, tokens in _sizes(lengths, shared, q.device):
        picked = [  # (B, windows, H, tokens, D)
            torch.unflatten(x.index_select(2, tokens.flatten()), 2, tokens.shape).transpose(1, 2)
            for x in joined
        ]
        out = F.scaled_dot_product_attention(picked[0], picked[1], picked[2], scale=scale)
        out = out.transpose(1, 2)
        video = video.index_copy(2, tokens[:, :own].flatten(), out[:, :, :, :own].flatten(2, 3))
        text = text + out[:, :, :, own:].sum(2, dtype=inner)
    return video, (text / len(lengths)).to(q.dtype)


@functools.lru_cache(maxsize=16)
def _sizes(
    lengths: tuple[int, ...], shared: int, device: torch.device
) -> tuple[tuple[int, Tensor], ...]:
    """For each size of window: how many video tokens, and `(windows, size + L)` token numbers."""
    total = sum(lengths)
    text = torch.arange(total, total + shared)
    windows: dict[int, list[Tensor]] = {}
    for own in torch.split(torch.arange(total), list(lengths)):
        windows.setdefault(len(own), []).append(torch.cat([own, text]))
    return tuple((size, torch.stack(same).to(device)) for size, same in windows.items())
