"""The network of AdcSR: a Stable Diffusion 2.1 UNet and VAE decoder with fewer channels.

Chen et al., "Adversarial Diffusion Compression for Real-World Image Super-Resolution", CVPR 2025.
What a one-step restorer does not need is left out: the VAE's encoder, the text, the time and the
cross-attention (section 3.2); three quarters of the UNet's channels remain, and half of the
decoder's (section 3.3). Between the two stands no latent of four channels: the UNet gives what the
decoder's middle block takes.

    picture in [-1, 1]  (B, 3, H, W)
      -> pixel-unshuffle by 2              (B, 12, H/2, W/2)
      -> UNet: 240, 480, 960, 960          (B, 256, H/2, W/2)
      -> decoder's middle block, trained anew
      -> decoder: 256, 256, 128, 64        (B, 3, 4 H, 4 W)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from diffusers.models.autoencoders.vae import Decoder
from diffusers.models.unets.unet_2d_blocks import (
    CrossAttnDownBlock2D,
    CrossAttnUpBlock2D,
    DownBlock2D,
    UNetMidBlock2DCrossAttn,
    UpBlock2D,
)
from torch import Tensor, nn

HEAD = 48
"""Channels of one attention head: the heads are those of Stable Diffusion 2.1, each of 64 channels
before three quarters of them were kept."""
GROUPS = (32, 24, 16, 12, 8, 6, 4, 2, 1)
"""Of a normalisation in the UNet: the first that divides its channels."""
DECODER_GROUPS = 32
UP_LAYERS = 3
"""Residual blocks, and so skips, of a level on the way up."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AdcSRConfig:
    """Shape of the network; the published one by default."""

    unet: tuple[int, ...] = (240, 480, 960, 960)
    """Channels of the UNet's four levels, multiples of 48."""
    decoder: tuple[int, ...] = (64, 128, 256, 256)
    """Channels of the decoder's four levels from the pixels inwards, multiples of 32."""


class AdcNet(nn.Module):
    """Both halves; they are called one after the other, so that each can be tiled by itself."""

    def __init__(self, config: AdcSRConfig) -> None:
        super().__init__()
        self.unet = PrunedUNet(config.unet, out_channels=config.decoder[-1])
        self.decoder = Decoder(
            in_channels=config.decoder[-1],
            out_channels=3,
            up_block_types=("UpDecoderBlock2D",) * len(config.decoder),
            block_out_channels=config.decoder,
            norm_num_groups=DECODER_GROUPS,
        )
        self.decoder.conv_in = nn.Identity()  # the UNet's last convolution stands in its place

    def forward(self, x: Tensor) -> Tensor:
        """Pixels `(B, 3, 8 h, 8 w)` of an unshuffled picture; h and w are multiples of 8."""
        return self.decoder(self.unet(x))


class PrunedUNet(nn.Module):
    """Diffusers' blocks without time and text, `(B, 12, h, w)` to `(B, out_channels, h, w)`.

    conv_in --+-> down 0 -> down 1 -> down 2 -> down 3 -> mid
              |     |         |         |         |        |
              +---skips-------+---------+---------+        v
    conv_out <- up 3 <---- up 2 <---- up 1 <---- up 0 <----+
    """

    def __init__(self, channels: tuple[int, ...], *, out_channels: int) -> None:
        super().__init__()
        first, last = channels[0], channels[-1]
        self.conv_in = nn.Conv2d(12, first, 3, padding=1)
        self.down_blocks = nn.ModuleList(
            _down(channels[max(0, i - 1)], channels[i], last=i == len(channels) - 1)
            for i in range(len(channels))
        )
        self.mid_block = UNetMidBlock2DCrossAttn(in_channels=last, **_common(last), **_plain())
        inwards = channels[::-1]
        self.up_blocks = nn.ModuleList(
            _up(
                before=inwards[max(0, i - 1)],
                skip=inwards[min(i + 1, len(channels) - 1)],
                out=inwards[i],
                first=i == 0,
                last=i == len(channels) - 1,
            )
            for i in range(len(channels))
        )
        self.conv_norm_out = nn.GroupNorm(1, first, eps=1e-5)
        self.conv_act = nn.SiLU()
        self.conv_out = nn.Conv2d(first, out_channels, 3, padding=1)
        for module in self.modules():
            if isinstance(module, nn.GroupNorm):
                module.num_groups = next(g for g in GROUPS if module.num_channels % g == 0)

    def forward(self, x: Tensor) -> Tensor:
        """Features for the decoder's middle block, of the size of `x`, a multiple of 8."""
        x = self.conv_in(x)
        skips: tuple[Tensor, ...] = (x,)
        for block in self.down_blocks:
            x, more = block(x)
            skips += more
        x = self.mid_block(x)
        for block in self.up_blocks:
            x = block(x, skips[-UP_LAYERS:])
            skips = skips[:-UP_LAYERS]
        return self.conv_out(self.conv_act(self.conv_norm_out(x)))


def _down(before: int, out: int, *, last: bool) -> nn.Module:
    shape: dict[str, Any] = {"in_channels": before, "out_channels": out, "num_layers": 2}
    if last:
        return DownBlock2D(**shape, **_plain(), add_downsample=False)
    return CrossAttnDownBlock2D(**shape, **_common(out), **_plain())


def _up(*, before: int, skip: int, out: int, first: bool, last: bool) -> nn.Module:
    shape: dict[str, Any] = {
        "in_channels": skip,
        "prev_output_channel": before,
        "out_channels": out,
        "num_layers": UP_LAYERS,
        "add_upsample": not last,
    }
    if first:
        return UpBlock2D(**shape, **_plain())
    return CrossAttnUpBlock2D(**shape, **_common(out), **_plain())


def _plain() -> dict[str, Any]:
    """No time; the groups are set afterwards, because one number does not divide all channels."""
    return {"temb_channels": None, "resnet_eps": 1e-5, "resnet_groups": 1}


def _common(channels: int) -> dict[str, Any]:
    """Transformers of self-attention alone."""
    return {
        "num_attention_heads": channels // HEAD,
        "cross_attention_dim": None,
        "use_linear_projection": True,
    }


def build(config: AdcSRConfig) -> AdcNet:
    """The network without memory for its weights, for inference."""
    with torch.device("meta"):
        return AdcNet(config).eval().requires_grad_(False)
