"""The decoder of Wan 2.1's VAE, FlashVSR's full variant: better than the tiny one, and slower.

The network is that of diffusers' `AutoencoderKLWan`, without its encoder. A clip goes through it
latent by latent: every causal convolution keeps the two time steps before, which stay outside the
module as a list of tensors, so that a chunk goes on exactly where the one before ended. The part
that sees a whole latent, the attention in the middle, is small; what follows takes all the memory,
and can be done in tiles.

Published (`Wan2.1_VAE.pth`)                here, as in diffusers
conv2                                       post_quant_conv
decoder.conv1, decoder.head.{0,2}           decoder.conv_in, decoder.{norm_out,conv_out}
decoder.middle.{0,1,2}                      decoder.mid_block.{resnets.0,attentions.0,resnets.1}
decoder.upsamples.{4i + j}                  decoder.up_blocks.i.{resnets.j, upsamplers.0 for j = 3}
  .residual.{0,2,3,6}, .shortcut              .{norm1,conv1,norm2,conv2}, .conv_shortcut

Source: diffsynth/models/wan_video_vae.py of OpenImagingLab/FlashVSR.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from restore.models.parts.flashvsr.exact_tiles import ExactTiles

BASE_CHANNELS = 96
LATENT_CHANNELS = 16
# Of Wan 2.1's latents, as the authors' WanVideoVAE and diffusers' configuration have them.
LATENT_MEAN = (
    *(-0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508),
    *(0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921),
)
LATENT_STD = (
    *(2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743),
    *(3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160),
)
CACHED = 2
"""Time steps that a convolution sees of the past."""
MARGIN = 13
"""Pixels of a latent around a tile that still change it: the 3x3 convolutions after the middle
reach 6 of them at its own size, 7 halves, 7 quarters and 8 eighths."""
_STAGE = 4  # layers of a stage: three blocks, and one that enlarges
_NAMES = (
    (r"conv2\.", "post_quant_conv."),
    (r"decoder\.conv1\.", "decoder.conv_in."),
    (r"decoder\.head\.0\.", "decoder.norm_out."),
    (r"decoder\.head\.2\.", "decoder.conv_out."),
    (r"decoder\.middle\.0\.", "decoder.mid_block.resnets.0."),
    (r"decoder\.middle\.1\.", "decoder.mid_block.attentions.0."),
    (r"decoder\.middle\.2\.", "decoder.mid_block.resnets.1."),
)
_IN_BLOCK = {
    "residual.0.": "norm1.",
    "residual.2.": "conv1.",
    "residual.3.": "norm2.",
    "residual.6.": "conv2.",
    "shortcut.": "conv_shortcut.",
}
_UNNEEDED = ("encoder.", "conv1.")  # what makes latents


class WanDecoder(nn.Module):
    """The decoder, with diffusers' names of its tensors.

    Args:
        base_channels: of the last stage; the others have two and four times as many.
        span: latents that go through the network at once. The result is the same.
    """

    def __init__(self, *, base_channels: int = BASE_CHANNELS, span: int = 1) -> None:
        super().__init__()
        from diffusers import AutoencoderKLWan

        self.span = span
        with torch.device("meta"):
            whole = AutoencoderKLWan(base_dim=base_channels, z_dim=LATENT_CHANNELS)
        self.post_quant_conv: nn.Module = whole.post_quant_conv
        self.decoder: Any = whole.decoder
        self.tiles = ExactTiles(MARGIN)
        self._slots = sum(1 for m in self.decoder.modules() if isinstance(m, nn.Conv3d))
        # No buffers: these stay in fp32, whatever the network's number format.
        self._mean = torch.tensor(LATENT_MEAN, device="cpu").view(1, -1, 1, 1, 1)
        self._std = torch.tensor(LATENT_STD, device="cpu").view(1, -1, 1, 1, 1)

    @classmethod
    def load(
        cls, state: dict[str, Tensor], *, device: torch.device, dtype: torch.dtype
    ) -> WanDecoder:
        """The decoder with weights as `from_published` gives them, ready to decode.

        Raises:
            KeyError, RuntimeError: the tensors are not those of such a decoder.
        """
        net = cls(base_channels=state["decoder.norm_out.gamma"].shape[0])
        net.load_state_dict(state, strict=True, assign=True)
        return net.to(device, dtype).eval().requires_grad_(False)

    def forward(
        self, latents: Tensor, condition: Tensor | None = None, memory: list[Tensor] | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """As `decode`."""
        return self.decode(latents, condition, memory)

    def decode(
        self, latents: Tensor, condition: Tensor | None = None, memory: list[Tensor] | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """Frames of the next chunk of a clip.

        Args:
            latents: `(B, 16, T, h, w)`, as the transformer gives them: normalised.
            condition: not used; the tiny decoder's.
            memory: what the call for the chunk before returned; None or empty = a clip begins.

        Returns:
            `(B, 3, n, 8h, 8w)` in [-1, 1], n = 4T, and 4T - 3 at the beginning of a clip; and the
            memory.
        """
        if self._mean.device != latents.device:
            self._mean, self._std = self._mean.to(latents.device), self._std.to(latents.device)
        dtype = next(self.decoder.parameters()).dtype
        x = self.post_quant_conv((latents.float() * self._std + self._mean).to(dtype))
        # "Rep" is diffusers' word for a convolution that the first frame of a clip passes by.
        caches: list[Any] = ["Rep" if one.numel() == 0 else one for one in memory or ()]
        frames = []
        if not caches:
            caches = [None] * self._slots
            frames.append(self._step(x[:, :, :1], caches))
            x = x[:, :, 1:]
        frames += [self._step(part, caches) for part in x.split(self.span, 2) if part.shape[2]]
        kept = [latents.new_empty(0) if isinstance(c, str) else c for c in caches if c is not None]
        return torch.cat(frames, 2).clamp(-1, 1), kept

    def _step(self, x: Tensor, caches: list[Any]) -> Tensor:
        """Frames of a few latents `(B, 16, t, h, w)`; `caches` is brought up to date."""
        place = [0]
        x = _causal(self.decoder.conv_in, x, caches, place)
        x = self.decoder.mid_block(x, caches, place)
        whole = place[0]  # convolutions until here
        frames, caches[whole:] = self.tiles.run(self._enlarged, x, caches[whole:])
        return frames

    def _enlarged(self, x: Tensor, caches: list[Any]) -> tuple[Tensor, list[Any]]:
        """All that follows the middle, which sees no farther than `MARGIN`."""
        place = [0]
        for block in self.decoder.up_blocks:
            x = block(x, caches, place)
        x = F.silu(self.decoder.norm_out(x))
        return _causal(self.decoder.conv_out, x, caches, place), caches


def _causal(conv: Any, x: Tensor, caches: list[Any], place: list[int]) -> Tensor:
    """A causal convolution of diffusers', which is given the past and keeps none itself."""
    past, last = caches[place[0]], x[:, :, -CACHED:]
    if past is not None and last.shape[2] < CACHED:
        last = torch.cat((past[:, :, -1:], last), 2)
    caches[place[0]] = last.clone()
    place[0] += 1
    return cast(Tensor, conv(x, past))


def from_published(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of `Wan2.1_VAE.pth` by diffusers' names, without those that make latents.

    A name of no such file stays as it is.
    """
    return {diffusers_name(k): v for k, v in state.items() if not k.startswith(_UNNEEDED)}


def diffusers_name(name: str) -> str:
    """Name in diffusers of a tensor of `Wan2.1_VAE.pth`; one that is not known stays."""
    for pattern, other in _NAMES:
        if re.match(pattern, name):
            return _inside(re.sub(pattern, other, name, count=1))
    found = re.match(r"decoder\.upsamples\.(\d+)\.(.+)", name)
    if not found:
        return name
    stage, layer = divmod(int(found[1]), _STAGE)
    part = "upsamplers.0" if layer == _STAGE - 1 else f"resnets.{layer}"
    return _inside(f"decoder.up_blocks.{stage}.{part}.{found[2]}")


def _inside(name: str) -> str:
    """`name` with the layer of a residual block as diffusers calls it."""
    for old, new in _IN_BLOCK.items():
        if ".resnets." in name and f".{old}" in name:
            return name.replace(old, new)
    return name
