"""Who judges OSCAR's latents: the way down of the base's U-Net, adapted, with a small head.

    latents + noise of a random time step -> U-Net down, middle -> 4x4 -> norm -> 4x4 -> verdicts

As the authors' discriminator, except that the gradient reaches the generator: theirs runs the U-Net
without gradients, so that their adversarial loss trains nothing.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from restore.training.adapters import adapted_layers, attach

FIRST_STEP, LAST_STEP = 20, 980
"""Time steps that are drawn: from, and up to but without."""
SMALLEST = 24
"""Latents along a side that the head can do."""


class LatentJudge(nn.Module):
    """`(B, 4, h, w)` to verdicts `(B, 1, h', w')` before the sigmoid.

    Its state is what is trained; the U-Net belongs to it, but not to its state.
    """

    def __init__(self, unet: Any, alpha_bars: Tensor, *, rank: int) -> None:
        super().__init__()
        del unet.up_blocks, unet.conv_out, unet.conv_norm_out
        self._frozen = (unet,)  # in a tuple, where no state dict finds it
        groups = adapted_layers(unet)
        steps = [name for name, _ in unet.named_modules() if name.endswith("time_emb_proj")]
        layers = [name for group in groups.values() for name in group if name != "conv_in"]
        self.adapters = attach(unet, [*layers, *steps], rank=rank)
        width = unet.config["cross_attention_dim"]
        self.context = nn.Parameter(0.02 * torch.randn(77, width))
        channels = unet.config["block_out_channels"][-1]
        self.head = nn.Sequential(
            nn.Conv2d(channels, 2 * channels, 4, padding=1),
            nn.GroupNorm(32, 2 * channels),
            nn.SiLU(),
            nn.Conv2d(2 * channels, 1, 4, padding=1),
        )
        self._alpha_bars = alpha_bars.float()

    def forward(self, latents: Tensor, steps: Tensor, noise: Tensor) -> Tensor:
        """Verdicts on latents.

        Args:
            latents: `(B, 4, h, w)`.
            steps: time steps `(B,)`.
            noise: standard normal, of the latents' shape.
        """
        (unet,) = self._frozen
        a = self._alpha_bars.to(latents.device)[steps].view(-1, 1, 1, 1)
        x = a.sqrt() * latents + (1 - a).sqrt() * noise
        time = unet.time_embedding(unet.time_proj(steps).to(x.dtype))
        context = self.context.expand(len(x), -1, -1)
        x = unet.conv_in(x)
        for block in unet.down_blocks:
            words = {"encoder_hidden_states": context} if hasattr(block, "attentions") else {}
            x, _ = block(hidden_states=x, temb=time, **words)
        x = unet.mid_block(x, time, encoder_hidden_states=context)
        verdicts: Tensor = self.head(x)
        return verdicts
