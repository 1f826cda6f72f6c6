"""FlashVSR's network: Wan2.1's transformer, one step, causal in time, with sparse attention.

    noise -patch-> (+ LQ tokens) -> 30 x block -> head -> v;   x0 = noise - v

    block:  x + g_1 A(m_1(x))  ->  + C(x, text)  ->  + g_2 MLP(m_2(x)),   m(x) = norm(x) (1 + a) + b

A chunk is a few groups of two latents: three groups at the beginning of a clip, which see each
other, then one at a time, which sees itself and the three before it. Their keys are kept with their
rotation in a ring (`restore.attention.ring`). Tokens are in the order of the windows all the way.
The text and the time step (1000) never change, so what they contribute is computed once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from restore.attention import (
    RingCache,
    block_sparse_attention,
    flat_topk,
    from_mask,
    local_window,
    pooled,
    to_slots,
)
from restore.models.parts.flashvsr.rope import Rotation, axis_channels
from restore.models.parts.flashvsr.windows import BLOCK, SIDE, TIME, from_windows, to_windows

TIME_STEP = 1000.0
EPS = 1e-6
LATENTS, PATCH = 16, 2
CACHED = 3
"""Groups of the past that a group sees (`kv_ratio`)."""
BASE_AREA = 768 * 1280
"""Pixels for which `sparse_ratio` counts blocks of keys as multiples of the picture's blocks."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DitShape:
    """Sizes of the network; the defaults are the published ones, those of Wan2.1-T2V-1.3B."""

    dim: int = 1536
    """Channels of a token."""
    layers: int = 30
    """Blocks."""
    heads: int = 12
    """Attention heads."""
    ffn: int = 8960
    """Channels inside the MLP."""
    text: int = 4096
    """Channels of the prompt's embedding."""
    freq: int = 256
    """Channels of the time step's embedding."""

    def __post_init__(self) -> None:
        if self.dim % self.heads:
            raise ValueError(f"{self.dim} channels cannot be split into {self.heads} heads")
        axis_channels(self.dim // self.heads)


@dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """Which blocks a query block may see, and how many pairs of blocks are kept."""

    local: Tensor
    """`(n, n)` bool: blocks of a group near enough to each other."""
    topk: int
    """Pairs of blocks kept for each head and group of queries."""

    @classmethod
    def of(
        cls,
        rows: int,
        columns: int,
        *,
        sparse_ratio: float,
        local_range: int,
        device: torch.device,
    ) -> Selection:
        """That of pictures of so many tokens, by the published formulas.

        Args:
            rows: of tokens, a multiple of 8.
            columns: likewise.
            sparse_ratio: about 60 times this many key blocks are seen by each query block.
            local_range: side of the window in blocks; an odd number is symmetric.
            device: where the attention runs.
        """
        down, along = rows // SIDE, columns // SIDE
        pixels = (16 * rows) * (16 * columns)
        return cls(
            local=local_window(down, along, local_range, device),
            topk=int((down * along) ** 2 * (sparse_ratio * BASE_AREA / pixels)) - 1,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Condition:
    """What text and time step contribute, for each block."""

    modulation: tuple[Tensor, ...]
    """`(6, dim)` each: shift, scale and gate of the attention, then of the MLP."""
    head: Tensor
    """`(2, dim)`: shift and scale before the last layer."""
    text: tuple[tuple[Tensor, Tensor], ...]
    """Keys and values of the prompt, `(1, H, n, D)` each."""


class RMSNorm(nn.Module):
    """Zhang and Sennrich, 2019, over all heads at once; computed in float32."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x.float(), x.shape[-1:], eps=EPS).to(x.dtype) * self.weight


class Attention(nn.Module):
    """The layers round an attention, whichever it is."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.o = (nn.Linear(dim, dim) for _ in range(4))
        self.norm_q, self.norm_k = RMSNorm(dim), RMSNorm(dim)

    def split(self, x: Tensor) -> Tensor:
        """`(N, dim)` to `(N, H, D)`."""
        return x.view(x.shape[0], self.heads, -1)


class Block(nn.Module):
    """One layer, in two parts: what comes before its attention, and what comes after."""

    def __init__(self, shape: DitShape) -> None:
        super().__init__()
        self.dim = shape.dim
        self.self_attn = Attention(shape.dim, shape.heads)
        self.cross_attn = Attention(shape.dim, shape.heads)
        self.norm3 = nn.LayerNorm(shape.dim, eps=EPS)
        self.ffn = nn.Sequential(
            nn.Linear(shape.dim, shape.ffn), nn.GELU("tanh"), nn.Linear(shape.ffn, shape.dim)
        )
        self.modulation = nn.Parameter(torch.zeros(1, 6, shape.dim))

    def modulated(self, x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        """The norm has no weights of its own: time gives them."""
        return F.layer_norm(x, (self.dim,), eps=EPS) * (1 + scale) + shift

    def before(
        self, x: Tensor, modulation: Tensor, cos: Tensor, sin: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values `(1, H, N, D)` of `x (N, dim)`; positions turned in."""
        attn, rotation = self.self_attn, Rotation(cos=cos, sin=sin)
        x = self.modulated(x, modulation[0], modulation[1])
        q = rotation.turn(attn.split(attn.norm_q(attn.q(x))))
        k = rotation.turn(attn.split(attn.norm_k(attn.k(x))))
        v = attn.split(attn.v(x))
        q, k, v = (part.transpose(0, 1)[None] for part in (q, k, v))
        return q, k, v

    def after(
        self, x: Tensor, attended: Tensor, modulation: Tensor, keys: Tensor, values: Tensor
    ) -> Tensor:
        """The rest of the layer, `(N, dim)`, with the attention's output `(1, H, N, D)`."""
        x = x + modulation[2] * self.self_attn.o(_joined(attended))
        attn = self.cross_attn
        q = attn.split(attn.norm_q(attn.q(self.norm3(x)))).transpose(0, 1)[None]
        x = x + attn.o(_joined(F.scaled_dot_product_attention(q, keys, values)))
        inner = self.modulated(x, modulation[3], modulation[4])
        return x + modulation[5] * self.ffn(inner)


class Head(nn.Module):
    """Tokens to patches of latents."""

    def __init__(self, shape: DitShape) -> None:
        super().__init__()
        self.head = nn.Linear(shape.dim, LATENTS * PATCH**2)
        self.modulation = nn.Parameter(torch.zeros(1, 2, shape.dim))

    def forward(self, x: Tensor, modulation: Tensor) -> Tensor:
        normal = F.layer_norm(x, x.shape[-1:], eps=EPS)
        return self.head(normal * (1 + modulation[1]) + modulation[0])


class FlashDiT(nn.Module):
    """`diffusion_pytorch_model_streaming_dmd.safetensors`."""

    def __init__(self, shape: DitShape) -> None:
        super().__init__()
        self.shape = shape
        dim = shape.dim
        patch = (1, PATCH, PATCH)
        self.patch_embedding = nn.Conv3d(LATENTS, dim, patch, stride=patch)
        self.text_embedding = nn.Sequential(
            nn.Linear(shape.text, dim), nn.GELU("tanh"), nn.Linear(dim, dim)
        )
        self.time_embedding = nn.Sequential(
            nn.Linear(shape.freq, dim), nn.SiLU(), nn.Linear(dim, dim)
        )
        self.time_projection = nn.Sequential(nn.SiLU(), nn.Linear(dim, 6 * dim))
        self.blocks = nn.ModuleList([Block(shape) for _ in range(shape.layers)])
        self.head = Head(shape)
        self._before: Callable[..., Any] = Block.before
        self._after: Callable[..., Any] = Block.after

    def compile_blocks(self, on: bool) -> None:
        """Fuse what stands round the attention; every block shares the result."""
        self._before = torch.compile(Block.before, dynamic=False) if on else Block.before
        self._after = torch.compile(Block.after, dynamic=False) if on else Block.after

    def condition(self, prompt: Tensor) -> Condition:
        """What the prompt's embedding `(1, n, 4096)` and the time step contribute."""
        weight = self.patch_embedding.weight
        prompt = prompt.to(weight.device, weight.dtype)
        text = self.text_embedding(prompt)[0]
        time = self.time_embedding(_sinusoids(TIME_STEP, self.shape.freq, prompt))
        changes = self.time_projection(time).view(6, -1)
        blocks = [block for block in self.blocks if isinstance(block, Block)]

        def stored(attn: Attention) -> tuple[Tensor, Tensor]:
            parts = attn.norm_k(attn.k(text)), attn.v(text)
            keys, values = (attn.split(part).transpose(0, 1)[None] for part in parts)
            return keys.contiguous(), values.contiguous()

        return Condition(
            modulation=tuple(block.modulation[0] + changes for block in blocks),
            head=self.head.modulation[0] + time,
            text=tuple(stored(block.cross_attn) for block in blocks),
        )

    def caches(self, rows: int, columns: int) -> list[RingCache]:
        """Empty rings for pictures of so many tokens, one for each block."""
        weight = self.patch_embedding.weight
        return [
            RingCache(
                batch=1,
                heads=self.shape.heads,
                tokens=TIME * rows * columns,
                dim=self.shape.dim // self.shape.heads,
                groups=CACHED + 1,
                block=BLOCK,
                device=weight.device,
                dtype=weight.dtype,
            )
            for _ in self.blocks
        ]

    def forward(
        self,
        noise: Tensor,
        tokens: Tensor,
        *,
        caches: Sequence[RingCache],
        condition: Condition,
        rotation: Rotation,
        selection: Selection,
    ) -> Tensor:
        """v of one chunk; its keys and values go into the rings.

        Args:
            noise: `(1, 16, f, 2 h, 2 w)`; f = 6 while the rings are empty, then 2, for which the
                rings have to be turned first (`RingCache.advance`): that is no work for a GPU,
                and the rest can be recorded.
            tokens: of the input, `(f, h, w, dim)`.
            caches: a ring for each block.
            condition: of `condition`.
            rotation: of the chunk's positions.
            selection: for pictures of this size.
        """
        frames, rows, columns = tokens.shape[:3]
        x = self._embed(noise) + to_windows(tokens)
        for block, ring, change, text in zip(
            self.blocks, caches, condition.modulation, condition.text, strict=True
        ):
            q, k, v = self._before(block, x, change, rotation.cos, rotation.sin)
            attended = attend(q, k, v, ring, selection)
            x = self._after(block, x, attended, change, *text)
        x = from_windows(self.head(x, condition.head), frames, rows, columns)
        x = x.view(frames, rows, columns, PATCH, PATCH, -1)
        return x.permute(5, 0, 1, 3, 2, 4).reshape(1, -1, *noise.shape[2:])

    def _embed(self, noise: Tensor) -> Tensor:
        """The convolution over whole patches is a product; `(N, dim)`."""
        _, channels, frames, height, width = noise.shape
        x = noise[0].reshape(channels, frames, height // PATCH, PATCH, width // PATCH, PATCH)
        x = x.permute(1, 2, 4, 0, 3, 5).flatten(3)  # (f, h, w, 16 * 2 * 2)
        weight, bias = self.patch_embedding.weight, self.patch_embedding.bias
        return F.linear(to_windows(x), weight.flatten(1), bias)


def attend(q: Tensor, k: Tensor, v: Tensor, ring: RingCache, selection: Selection) -> Tensor:
    """Attention of a chunk to itself and to what the ring holds; `(1, H, N, D)` all."""
    groups = q.shape[2] // ring.tokens
    if groups > 1:
        ring.write(k, v)
        k_pooled = pooled(k, BLOCK)
    else:
        ring.store(k, v)
        k_pooled = ring.k_pooled
    mask = flat_topk(
        pooled(q, BLOCK),
        k_pooled,
        local=selection.local,
        topk=selection.topk,
        groups=groups,
    )
    lists = from_mask(mask)
    if groups == 1:
        lists, k, v = to_slots(lists, ring.table), ring.k, ring.v
    return block_sparse_attention(q, k, v, lists.count, lists.index, block=BLOCK)


def _joined(x: Tensor) -> Tensor:
    """`(1, H, N, D)` to `(N, H D)`."""
    return x[0].transpose(0, 1).flatten(1)


def _sinusoids(time: float, channels: int, like: Tensor) -> Tensor:
    """Embedding `(1, channels)` of a time step (Vaswani et al., 2017); cosines first."""
    half = channels // 2
    numbers = torch.arange(half, dtype=torch.float64, device=like.device)
    angle = time * 10000.0 ** (-numbers / half)
    return torch.cat((angle.cos(), angle.sin()))[None].to(like.dtype)
