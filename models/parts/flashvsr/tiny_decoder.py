"""FlashVSR's conditional decoder: latents and the enlarged input become frames.

(a) frames in = 4 latents' worth of enlarged input, unshuffled 4 x 8 x 8 into 768 channels
(b) stages of three blocks, each of which also sees its own input of the time step before

    latent, (a) -> clamp -> 1x (b) -> 2x (b) -> 4x, 2 frames (b) -> 8x, 4 frames -> RGB

The structure is that of TAEHV (Ollin Boer Bohan), wider, and without an encoder. What a block
remembers is its input of one time step, so that nothing but the last step of a chunk is kept: all
steps of a chunk may go through a layer at once, or one step through all layers.
Source: examples/WanVSR/utils/TCDecoder.py of OpenImagingLab/FlashVSR.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from itertools import pairwise, product
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from restore.memory import is_out_of_memory

log = logging.getLogger("restore.models.flashvsr")

FULL_CHANNELS = (512, 256, 128, 128)
CONDITION_CHANNELS = 3 * 4 * 8 * 8
FIRST_TRIMMED = 3
"""Frames that come out before a clip's first one: a latent is four frames, the first one is one."""
MARGIN = 19
"""Latent pixels around a tile that still change it: 3x3 convolutions reach 11 of them at the
latents' own size, 10 halves, 10 quarters and 3 eighths."""
_CHANNEL_LAYERS = (1, 10, 16, 22)
_MEMORY_SCALES = (1, 1, 1, 2, 2, 2, 4, 4, 4)
Tile = tuple[tuple[int, int], tuple[int, int]]
"""First and last row, exclusive, and columns likewise, of a part of a latent."""
# What a 3-tap kernel on a picture enlarged twice by repetition does to the original, seen from the
# corner between two of its pixels: the enlarged pixel before the corner, and the one behind it.
_BEFORE, _BEHIND = ((1, 1, 0), (0, 0, 1)), ((1, 0, 0), (0, 1, 1))


class TinyDecoder(nn.Module):
    """The decoder, with the published names of its tensors.

    Args:
        channels: of the four stages.
        latent_channels: of a latent.
        max_pixels: output pixels that go through the network at once; larger frames are cut into
            tiles whose result is the same. None = any number, until memory runs out.
    """

    def __init__(
        self,
        *,
        channels: tuple[int, int, int, int] = FULL_CHANNELS,
        latent_channels: int = 16,
        max_pixels: int | None = None,
    ) -> None:
        super().__init__()
        self.channels = channels
        self.latent_channels = latent_channels
        self.max_pixels = max_pixels
        a, b, c, d = channels
        self.decoder = nn.Sequential(
            _SoftClamp(),
            _conv(CONDITION_CHANNELS + latent_channels, a),
            *(nn.ReLU(inplace=True), _conv(a, a, bias=False), nn.ReLU(inplace=True)),
            *(MemoryBlock(a), MemoryBlock(a), MemoryBlock(a)),
            *(nn.Upsample(scale_factor=2), _Split(a, 1), _conv(a, b, bias=False)),
            *(MemoryBlock(b), MemoryBlock(b), MemoryBlock(b)),
            *(nn.Upsample(scale_factor=2), _Split(b, 2), _conv(b, c, bias=False)),
            *(MemoryBlock(c), MemoryBlock(c), MemoryBlock(c)),
            *(nn.Upsample(scale_factor=2), _Split(c, 2), _conv(c, d, bias=False)),
            *(nn.ReLU(inplace=True), _conv(d, d, bias=False), nn.ReLU(inplace=True)),
            _conv(d, 3),
        )
        self.fused = nn.ModuleDict()  # by the place in `decoder`; empty until `fuse`

    @classmethod
    def of(cls, state: Mapping[str, Tensor]) -> TinyDecoder:
        """The decoder that tensors are for, without them, on the device of the context.

        Raises:
            KeyError: one of the tensors that tell the sizes is missing.
        """
        weights = [state[f"decoder.{layer}.weight"] for layer in _CHANNEL_LAYERS]
        a, b, c, d = (weight.shape[0] for weight in weights)
        return cls(channels=(a, b, c, d), latent_channels=weights[0].shape[1] - CONDITION_CHANNELS)

    @classmethod
    def load(
        cls,
        state: dict[str, Tensor],
        *,
        device: torch.device,
        dtype: torch.dtype,
        max_pixels: int | None = None,
    ) -> TinyDecoder:
        """The decoder with its published weights, ready to decode and as fast as it can.

        Raises:
            KeyError, RuntimeError: the tensors are not those of such a decoder.
        """
        with torch.device("meta"):
            net = cls.of(state)
        net.max_pixels = max_pixels
        net.load_state_dict(state, strict=True, assign=True)
        net = net.fuse().to(device, dtype).eval().requires_grad_(False)
        # What convolutions of half precision want on tensor cores; on a CPU it changes little.
        return net.to(memory_format=torch.channels_last) if device.type == "cuda" else net

    def fuse(self) -> TinyDecoder:
        """Make one small convolution of each step from one stage to the next, for inference.

        Enlarging by repetition, splitting one frame in two, and a 3x3 convolution are linear and
        follow each other: a 2x2 convolution of the smaller picture, in fewer than half the
        multiplications, gives the same. The published weights stay as they are.
        """
        layers = list(self.decoder)
        for index, split in enumerate(layers):
            if isinstance(split, _Split):
                step = FusedStep(split, cast(nn.Conv2d, layers[index + 1]))
                self.fused[str(index - 1)] = step
        return self

    def forward(
        self, latents: Tensor, condition: Tensor, memory: list[Tensor] | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """As `decode`."""
        return self.decode(latents, condition, memory)

    def decode(
        self, latents: Tensor, condition: Tensor, memory: list[Tensor] | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """Frames of the next chunk of a clip.

        Args:
            latents: `(B, C, T, h, w)`, as the transformer gives them.
            condition: enlarged input frames, `(B, 3, n, 8h, 8w)` in [-1, 1]; n is 4T, and 4T - 3
                at the beginning of a clip.
            memory: what the call for the chunk before returned; None or empty = a clip begins.

        Returns:
            `(B, 3, n, 8h, 8w)` in about [-1, 1], and the memory: nine tensors, which do not
            depend on how the work was cut into tiles and passes.
        """
        begins = not memory
        count, height, width = latents.shape[2:]
        wanted = (4 * count - (FIRST_TRIMMED if begins else 0), 8 * height, 8 * width)
        if tuple(condition.shape[2:]) != wanted:
            raise ValueError(f"condition of {tuple(condition.shape[2:])} in place of {wanted}")
        weight = self.get_parameter("decoder.1.weight")
        x = torch.cat([unshuffle(condition).to(weight.dtype), latents.to(weight.dtype)], 1)
        x = x.transpose(1, 2)  # (B, T, C, h, w)
        if not memory:
            memory = [self._nothing(x, block, scale) for block, scale in self._blocks()]
        frames, memory = self._in_whole_or_parts(x, memory)
        if begins:
            frames = frames[:, FIRST_TRIMMED:]
        return frames.transpose(1, 2) * 2 - 1, memory

    def _blocks(self) -> Iterator[tuple[MemoryBlock, int]]:
        blocks = [layer for layer in self.decoder if isinstance(layer, MemoryBlock)]
        return zip(blocks, _MEMORY_SCALES, strict=True)

    @staticmethod
    def _nothing(x: Tensor, block: MemoryBlock, scale: int) -> Tensor:
        """What a block remembers before the first frame."""
        batch, _, _, height, width = x.shape
        return x.new_zeros(batch, block.channels, height * scale, width * scale)

    def _in_whole_or_parts(self, x: Tensor, memory: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """`(B, T, C, h, w)` -> `(B, 4T, 3, 8h, 8w)`; in smaller tiles where memory runs out.

        What a clip remembers is only replaced when all is done, so that it can be begun again;
        smaller tiles are kept to from then on.
        """
        height, width = x.shape[3:]
        while True:
            tiles = plan_tiles(height, width, self.max_pixels)
            try:
                return self._in_tiles(x, memory, tiles)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                limit = _largest(tiles, height, width) - 1
                if _largest(plan_tiles(height, width, limit), height, width) > limit:
                    raise
            self.max_pixels = limit
            if x.is_cuda:
                torch.cuda.empty_cache()
            log.warning("out of memory: frames are decoded in parts of %d pixels", limit)

    def _in_tiles(
        self, x: Tensor, memory: list[Tensor], tiles: list[Tile]
    ) -> tuple[Tensor, list[Tensor]]:
        batch, count, _, height, width = x.shape
        if len(tiles) == 1:
            return self._run(x, memory)
        frames = x.new_empty(batch, 4 * count, 3, 8 * height, 8 * width)
        after = [torch.empty_like(one) for one in memory]
        for rows, columns in tiles:
            outer = _around(rows, height), _around(columns, width)
            part = [_cut(m, outer, scale) for m, scale in zip(memory, _MEMORY_SCALES, strict=True)]
            made, kept = self._run(_cut(x, outer, 1), part)
            for whole, tile, scale in zip(
                (frames, *after), (made, *kept), (8, *_MEMORY_SCALES), strict=True
            ):
                inner = _within(rows, outer[0]), _within(columns, outer[1])
                _cut(whole, (rows, columns), scale).copy_(_cut(tile, inner, scale))
        return frames, after

    def _run(self, x: Tensor, memory: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """All layers, over all time steps."""
        if not x.is_cuda:
            return self._step_by_step(x, memory)
        # Large products, in the layout that convolutions there want.
        return self._layer_by_layer(x, memory)

    def _layer_by_layer(self, x: Tensor, memory: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """All time steps through a layer, then the next layer: what keeps a GPU busy."""
        batch = x.shape[0]
        x = x.flatten(0, 1).contiguous(memory_format=torch.channels_last)  # (B T, C, h, w)
        kept: list[Tensor] = []
        layers = iter(enumerate(self.decoder))
        for index, layer in layers:
            if isinstance(layer, MemoryBlock):
                x, last = layer.over_time(x, memory[len(kept)])
                kept.append(last)
            elif str(index) in self.fused:
                x = self.fused[str(index)](x)
                next(layers), next(layers)  # which are in it
            else:
                x = layer(x)
        return torch.unflatten(x, 0, (batch, -1)), kept

    def _step_by_step(self, x: Tensor, memory: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """A time step through all layers, then the next step: an eighth of the memory."""
        kept = list(memory)
        frames = [frame for step in x.unbind(1) for frame in self._rest(0, 0, step, kept)]
        # Copies: a view would keep the step that it is half of.
        return torch.stack(frames, 1), [one.clone() for one in kept]

    def _rest(self, index: int, block: int, x: Tensor, kept: list[Tensor]) -> Iterator[Tensor]:
        """Frames that one time step `(B, C, h, w)` becomes in the layers from `index` on.

        `kept` holds what the blocks from number `block` on remember, and is brought up to date.
        """
        layers = list(self.decoder)
        while index < len(layers):
            layer = layers[index]
            if isinstance(layer, MemoryBlock):
                x, kept[block] = layer(x, kept[block].to(x.dtype)), x
                block += 1
            elif isinstance(layer, _Split) or str(index) in self.fused:
                fused = str(index) in self.fused
                steps = self.fused[str(index)](x) if fused else layer(x)
                for step in steps.unflatten(0, (x.shape[0], -1)).unbind(1):
                    yield from self._rest(index + (3 if fused else 1), block, step, kept)
                return
            else:
                x = layer(x)
            index += 1
        yield x


class MemoryBlock(nn.Module):
    """Three convolutions of a frame and of the one before, added to the frame."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.conv = nn.Sequential(
            *(_conv(2 * channels, channels), nn.ReLU(inplace=True)),
            *(_conv(channels, channels), nn.ReLU(inplace=True)),
            _conv(channels, channels),
        )

    def forward(self, x: Tensor, past: Tensor) -> Tensor:
        """`x` and the frames before them, both `(N, C, H, W)`."""
        return F.relu_(self.conv(torch.cat([x, past], 1)).add_(x))

    def over_time(self, x: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
        """All time steps at once, and the last of them.

        Args:
            x: `(B T, C, H, W)`.
            before: the step before the first, `(B, C, H, W)`.
        """
        batch = before.shape[0]
        steps = torch.unflatten(x, 0, (batch, -1))
        past = torch.cat([before.unsqueeze(1).to(x.dtype), steps[:, :-1]], 1).flatten(0, 1)
        # A copy: a view would keep the frames of the whole chunk.
        return self(x, past), steps[:, -1].clone()


class FusedStep(nn.Module):
    """Enlarging twice, splitting frames, and the 3x3 convolution behind, as one 2x2 convolution."""

    weight: Tensor

    def __init__(self, split: _Split, conv: nn.Conv2d) -> None:
        super().__init__()
        self.frames = split.frames
        kernel, spread = conv.weight.detach(), split.conv.weight.detach()
        out, inner = kernel.shape[:2]
        taps = kernel.new_tensor((_BEFORE, _BEHIND), dtype=torch.float32)
        joint = torch.einsum(
            "ocij,scd->sodij", kernel.float(), spread.float().view(self.frames, inner, inner)
        )
        small = torch.einsum("pai,qbj,sodij->sopqdab", taps, taps, joint)
        weight = small.reshape(self.frames * out * 4, inner, 2, 2).to(kernel.dtype)
        self.register_buffer("weight", weight, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """`(N, C, H, W)` -> `(frames N, C', 2H, 2W)`."""
        corners = F.conv2d(x, self.weight, padding=1)
        enlarged = F.pixel_shuffle(corners, 2)[..., 1:-1, 1:-1]
        return torch.unflatten(enlarged, 1, (self.frames, -1)).flatten(0, 1)


class _SoftClamp(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x / 3) * 3


class _Split(nn.Module):
    """One frame becomes several, each `(N, C, H, W)`, in the order of time."""

    def __init__(self, channels: int, frames: int) -> None:
        super().__init__()
        self.frames = frames
        self.conv = nn.Conv2d(channels, channels * frames, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).unflatten(1, (self.frames, -1)).flatten(0, 1)


def _conv(channels: int, out: int, *, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(channels, out, 3, padding=1, bias=bias)


def unshuffle(frames: Tensor) -> Tensor:
    """Frames as channels of latents: `(B, 3, n, 8h, 8w)` -> `(B, 768, T, h, w)`, T = ceil(n / 4).

    The first frame is repeated in front until four divide their number.
    """
    missing = -frames.shape[2] % 4
    if missing:
        first = frames[:, :, :1].expand(-1, -1, missing, -1, -1)
        frames = torch.cat([first, frames], 2)
    batch, _, count, height, width = frames.shape
    split = frames.reshape(batch, 3, count // 4, 4, height // 8, 8, width // 8, 8)
    # (B, 3, T, 4, h, 8, w, 8) -> (B, 3, 4, 8, 8, T, h, w)
    return split.permute(0, 1, 3, 5, 7, 2, 4, 6).flatten(1, 4)


def plan_tiles(height: int, width: int, max_pixels: int | None) -> list[Tile]:
    """The tiles of a latent: as few as are small enough.

    Args:
        height, width: of the latent.
        max_pixels: of the frame, of a tile with its margin; None = no limit. Where no tile is so
            small, the smallest are made; none is smaller than its margin.
    """
    whole = [((0, height), (0, width))]
    if max_pixels is None or _largest(whole, height, width) <= max_pixels:
        return whole
    most = [range(1, max(1, size // MARGIN) + 1) for size in (height, width)]
    plans = [
        list(product(_parts(height, rows), _parts(width, columns)))
        for rows, columns in product(*most)
    ]
    sizes = [_largest(tiles, height, width) for tiles in plans]
    limit = max(max_pixels, min(sizes))
    fits = [tiles for tiles, size in zip(plans, sizes, strict=True) if size <= limit]
    return min(fits, key=len)


def _largest(tiles: list[Tile], height: int, width: int) -> int:
    """Pixels of the frame that the largest tile takes, with its margin."""

    def side(span: tuple[int, int], size: int) -> int:
        outer = _around(span, size)
        return 8 * (outer[1] - outer[0])

    return max(side(rows, height) * side(columns, width) for rows, columns in tiles)


def _parts(size: int, count: int) -> list[tuple[int, int]]:
    edges = [size * i // count for i in range(count + 1)]
    return list(pairwise(edges))


def _around(span: tuple[int, int], size: int) -> tuple[int, int]:
    return max(0, span[0] - MARGIN), min(size, span[1] + MARGIN)


def _within(span: tuple[int, int], outer: tuple[int, int]) -> tuple[int, int]:
    return span[0] - outer[0], span[1] - outer[0]


def _cut(x: Tensor, window: Tile, scale: int) -> Tensor:
    (top, bottom), (left, right) = window
    return x[..., top * scale : bottom * scale, left * scale : right * scale]
