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

from collections.abc import Iterator, Mapping
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from restore.models.parts.flashvsr.exact_tiles import ExactTiles

FULL_CHANNELS = (512, 256, 128, 128)
CONDITION_CHANNELS = 3 * 4 * 8 * 8
FIRST_TRIMMED = 3
"""Frames that come out before a clip's first one: a latent is four frames, the first one is one."""
MARGIN = 19
"""Latent pixels around a tile that still change it: 3x3 convolutions reach 11 of them at the
latents' own size, 10 halves, 10 quarters and 3 eighths."""
_CHANNEL_LAYERS = (1, 10, 16, 22)
_MEMORY_SCALES = (1, 1, 1, 2, 2, 2, 4, 4, 4)
# What a 3-tap kernel on a picture enlarged twice by repetition does to the original, seen from the
# corner between two of its pixels: the enlarged pixel before the corner, and the one behind it.
_BEFORE, _BEHIND = ((1, 1, 0), (0, 0, 1)), ((1, 0, 0), (0, 1, 1))


class TinyDecoder(nn.Module):
    """The decoder, with the published names of its tensors.

    Args:
        channels: of the four stages.
        latent_channels: of a latent.
    """

    def __init__(
        self,
        *,
        channels: tuple[int, int, int, int] = FULL_CHANNELS,
        latent_channels: int = 16,
    ) -> None:
        super().__init__()
        self.channels = channels
        self.latent_channels = latent_channels
        self.tiles = ExactTiles(MARGIN)
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
    ) -> TinyDecoder:
        """The decoder with its published weights, ready to decode and as fast as it can.

        Raises:
            KeyError, RuntimeError: the tensors are not those of such a decoder.
        """
        with torch.device("meta"):
            net = cls.of(state)
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
        frames, memory = self.tiles.run(self._run, x, memory)
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
