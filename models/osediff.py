"""OSEDiff: a photo restored in one pass of Stable Diffusion 2.1.

Wu et al., "One-Step Effective Diffusion Network for Real-World Image Super-Resolution", NeurIPS
2024. The bad picture itself is the start of the diffusion, at its last time step T = 999; no noise
is added (section 3.2):

    x_L (enlarged) -> E_theta -> z_L -> eps_theta(z_L; T, c) -> z_H -> D -> x_H
                                              ^
                       tags of the picture -> text encoder -> c

    z_H = (z_L - sqrt(1 - a_T) eps_theta(z_L; T, c)) / sqrt(a_T)                        (eq. 2)

E and eps are the base's, adapted with LoRA; conv_in of eps was trained whole; D is the base's.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from restore.errors import WeightsError
from restore.method import MethodSpec, Posterior, Tiling
from restore.models.parts import osediff_file
from restore.models.parts.framing import Framing
from restore.models.parts.latent_tiles import predict_tiled
from restore.models.parts.pretrained import check_base, load_part, move, move_unet, read_config
from restore.models.parts.prompts import Prompts
from restore.models.parts.schedule import alphas_cumprod, x0_from_epsilon
from restore.models.parts.tagging import Tagging
from restore.models.parts.vae import FACTOR, Autoencoder

T = 999
TILE, OVERLAP = 96, 32  # latents
TILES_AT_ONCE = 4  # on a GPU


class OSEDiff:
    """Photos x4."""

    spec: ClassVar[MethodSpec] = MethodSpec(
        name="osediff",
        summary="photos x4 in one step of Stable Diffusion 2.1; makes up detail",
        scale=4,
        overlap=0,
        base="stable-diffusion-2-1-base",
        own_tiles=TILE * FACTOR // 4,
        # bf16 is possible but coarse: the sampler enlarges the error of eps 14.6 times.
        dtypes=("fp16", "bf16", "fp32"),
        options=("prompt", "tags", "tagger", "tagger_adapter", "tiling", "posterior", "compile"),
        enlarges_alpha=False,
        bytes_per_pixel=160_000,
        color_fix="adain",
        licence="Apache-2.0; base: CreativeML Open RAIL++-M",
        source="https://github.com/cswry/OSEDiff (arXiv 2406.08177)",
    )
    smallest: ClassVar[int] = 512

    def __init__(self, weights: Path, base: Path) -> None:
        from diffusers import AutoencoderKL, UNet2DConditionModel

        content = osediff_file.read(weights)
        expected = {"prediction_type": "epsilon"}
        check_base(base, self.spec.name, expected={"scheduler": expected})
        self.unet: Any = load_part(base, "unet", UNet2DConditionModel)
        self.vae = Autoencoder(load_part(base, "vae", AutoencoderKL))
        osediff_file.adapt(content, self.unet, self.vae.vae, weights)
        self.prompts = Prompts(base)
        self.tagging = Tagging()
        self.alpha_bar = float(alphas_cumprod(read_config(base, "scheduler"))[T])
        self.framing = Framing(scale=self.spec.scale, smallest=self.smallest)
        self.posterior: Posterior = "sample"
        self.tile, self.overlap = TILE, OVERLAP

    @classmethod
    def describe(cls, weights: Path | None) -> MethodSpec:
        """The spec; every file is of the same method."""
        return cls.spec

    @classmethod
    def load(
        cls, weights: Path | None, *, base: Path, device: torch.device, dtype: torch.dtype
    ) -> OSEDiff:
        """Adapt the base with the published `osediff.pkl`, or what was converted from it.

        Raises:
            WeightsError: a file is missing, damaged, unsafe, or of another model.
        """
        if weights is None:
            raise WeightsError(
                f"'{cls.spec.name}' needs weights; run 'restore models pull {cls.spec.name}'"
            )
        return cls(weights, base).to(device, dtype)

    def to(self, device: torch.device, dtype: torch.dtype) -> OSEDiff:
        """Move all networks."""
        self.device, self.dtype = device, dtype
        self.unet = move_unet(self.unet, device, dtype)
        move(self.vae.vae, device, dtype)
        self.prompts.to(device, dtype)
        self.tagging.to(device, dtype)
        self.batch = 1 if device.type == "cpu" else TILES_AT_ONCE
        return self

    def tune(
        self,
        *,
        tiling: Tiling = "exact",
        posterior: Posterior = "sample",
        compile: bool = False,
        **words: str | None,
    ) -> None:
        """Set options; `words` are those of `Tagging`.

        Raises:
            WeightsError: the tagger cannot be loaded.
        """
        self.vae.tiling, self.posterior = tiling, posterior
        self.framing = replace(self.framing, tiling=tiling)
        self.tagging.tune(**words)
        if compile and not hasattr(self.unet, "_orig_mod"):
            self.unet = torch.compile(self.unet)

    def use_tiles(self, side: int) -> None:
        """Tiles of about `side` input pixels, in the network and in the autoencoder."""
        self.tile = max(16, side * self.spec.scale // FACTOR // 8 * 8)
        self.overlap = min(OVERLAP, self.tile // 3)
        self.vae.tile = self.tile * 4 // 3

    def restore(self, frames: Tensor, *, generator: torch.Generator) -> Tensor:
        """`(B, 1, 3, H, W)` in [0, 1] to `(B, 1, 3, s H, s W)`."""
        x_l = self.framing.enlarge(frames[:, 0])
        c = torch.cat([self.prompts.embed(text) for text in self.tagging.prompts(x_l)])
        z_l = self.vae.encode(2 * x_l - 1, posterior=self.posterior, generator=generator)
        eps = predict_tiled(
            z_l,
            lambda z: self.unet(z, T, c.repeat(len(z) // len(c), 1, 1)).sample,
            tile=self.tile,
            overlap=self.overlap,
            tiling=self.vae.tiling,
            batch=self.batch,
        )
        z_h = x0_from_epsilon(z_l, eps, self.alpha_bar)
        x_h = self.vae.decode(z_h).float().clamp(-1, 1) / 2 + 0.5
        return self.framing.give_back(x_h, (frames.shape[-2], frames.shape[-1]))[:, None]


class OSEDiffFace(OSEDiff):
    """Faces at their own size: the weights that were trained on bad faces of 512x512."""

    spec: ClassVar[MethodSpec] = replace(
        OSEDiff.spec,
        name="osediff-face",
        summary="OSEDiff for faces, at their own size",
        scale=1,
        own_tiles=TILE * FACTOR,
        color_fix="none",
        bytes_per_pixel=10_000,
    )
