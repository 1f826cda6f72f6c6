"""The autoencoder of Stable Diffusion, for pictures of any size.

    pixels in [-1, 1] -> encoder -> Gaussian -> x scaling factor -> latents, an eighth of the size
    latents -> / scaling factor -> decoder -> pixels

Large pictures go through it in tiles (`vae_tiles`), either as the published numbers of OSEDiff and
its relatives were made, or so that the result is that of the whole picture.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from restore.method import Posterior, Tiling
from restore.models.parts.vae_tiles import EXACT, PUBLISHED, TilePlan, run_tiled

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

FACTOR = 8
"""Pixels per place of the latents along each side."""


class Autoencoder:
    """An `AutoencoderKL`, run whole or in tiles.

    Attributes:
        vae: the network; its layers may be exchanged or adapted between calls.
        tiling: how large pictures are tiled.
        tile: side of a tile in latents of the exact tiling.
        published: how the other one tiles.
    """

    def __init__(self, vae: AutoencoderKL, *, tiling: Tiling = "exact") -> None:
        self.vae = vae
        self.tiling: Tiling = tiling
        self.tile = EXACT.decoder.tile
        self.published = PUBLISHED

    @property
    def scaling_factor(self) -> float:
        """Latents of deviation 1 per latents of the encoder."""
        return float(self.vae.config["scaling_factor"])

    def moments(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and logarithm of the variance of what a picture is encoded into.

        Args:
            pixels: `(B, 3, H, W)` in [-1, 1], H and W multiples of 8.

        Returns:
            Twice `(B, 4, H / 8, W / 8)`, unscaled, in the format of the network.
        """
        hidden = run_tiled(self.vae.encoder, self._format(pixels), self._plan("encoder"))
        if self.vae.quant_conv is not None:
            hidden = self.vae.quant_conv(hidden.to(self._dtype()))
        mean, log_variance = hidden.chunk(2, dim=1)
        return mean, log_variance.clamp(-30, 20)  # the limits of diffusers' Gaussian

    def encode(self, pixels: Tensor, *, posterior: Posterior, generator: torch.Generator) -> Tensor:
        """Latents `(B, 4, H / 8, W / 8)`, scaled, of a picture `(B, 3, H, W)` in [-1, 1].

        Args:
            pixels: the picture, H and W multiples of 8.
            posterior: `mode` takes the mean, `sample` draws from the Gaussian.
            generator: for the draw.
        """
        mean, log_variance = self.moments(pixels)
        if posterior == "sample":
            noise = torch.randn(
                mean.shape, generator=generator, device=generator.device, dtype=mean.dtype
            )
            mean = mean + (0.5 * log_variance).exp() * noise.to(mean.device)
        return mean * self.scaling_factor

    def decode(self, latents: Tensor) -> Tensor:
        """Pixels `(B, 3, 8 h, 8 w)` in about [-1, 1] of scaled latents `(B, 4, h, w)`."""
        hidden = self._format(latents / self.scaling_factor)
        if self.vae.post_quant_conv is not None:
            hidden = self.vae.post_quant_conv(hidden)
        return run_tiled(self.vae.decoder, hidden, self._plan("decoder"))

    def _plan(self, half: str) -> TilePlan:
        if self.tiling == "published":
            return self.published.encoder if half == "encoder" else self.published.decoder
        plan = EXACT.encoder if half == "encoder" else EXACT.decoder
        return plan.with_tile(self.tile * (FACTOR if half == "encoder" else 1))

    def _dtype(self) -> torch.dtype:
        return next(self.vae.parameters()).dtype

    def _format(self, x: Tensor) -> Tensor:
        return x.to(self._dtype())
