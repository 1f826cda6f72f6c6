"""S3Diff: a photo restored in one pass of SD-Turbo, whose weights follow the photo's degradation.

Zhang et al., "Degradation-Guided One-Step Image Super-Resolution with Diffusion Priors", 2024. The
weight files are read in `s3diff_weights.py`.

    x_L -> degradation estimator -> d -> matrices M of each block -> W + s B M^T A
    x_L -> bilinear x4 -> pad -> E_M -> z_L -> eps_M(z_L; T, c+/c-) -> z_H -> D -> crop -> x_H

    eps = eps(c-) + 1.07 (eps(c+) - eps(c-)),  z_H = (z_L - sqrt(1 - a_T) eps) / sqrt(a_T)

c+ and c- are two fixed sentences, so the text encoder is needed only while loading.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from restore.errors import WeightsError
from restore.method import MethodSpec, Posterior, Tiling
from restore.models.parts.degradation_estimator import read_estimator
from restore.models.parts.latent_tiles import predict_tiled
from restore.models.parts.modulated_lora import ModulatedLora, ModulationNet
from restore.models.parts.pretrained import check_base, load_part, move, read_config
from restore.models.parts.prompts import Prompts
from restore.models.parts.schedule import alphas_cumprod, x0_from_epsilon
from restore.models.parts.vae import FACTOR, Autoencoder
from restore.models.s3diff_weights import Net, check_files, find_estimator, read_s3diff

SCALE = 4
T = 999
TILE, OVERLAP = 96, 32  # latents
MULTIPLE = 64
"""Output pixels to a multiple of which pictures are padded."""
GUIDANCE = 1.07
GOOD = (
    "A high-resolution, 8K, ultra-realistic image with sharp focus, vibrant colors, and natural "
    "lighting."
)
BAD = (
    "oil painting, cartoon, blur, dirty, messy, low quality, deformation, "
    "low resolution, oversmooth"
)


class S3Diff:
    """Photos x4."""

    spec: ClassVar[MethodSpec] = MethodSpec(
        name="s3diff",
        summary="photos x4 in one step of SD-Turbo, adapted to each photo's degradation",
        scale=SCALE,
        overlap=0,
        base="sd-turbo",
        own_tiles=TILE * FACTOR // SCALE,
        dtypes=("fp32", "fp16", "bf16"),
        options=("tiling", "posterior", "compile"),
        enlarges_alpha=False,
        bytes_per_pixel=160_000,
        color_fix="wavelet",
        licence="Apache-2.0; base: Stability AI Community License (terms for commercial use)",
        source="https://github.com/ArcticHare105/S3Diff (arXiv 2409.17058)",
    )

    def __init__(self, weights: Path, base: Path) -> None:
        from diffusers import AutoencoderKL, UNet2DConditionModel

        check_files(weights)
        scheduler = {"prediction_type": "epsilon", "timestep_spacing": "trailing"}
        check_base(base, self.spec.name, expected={"scheduler": scheduler})
        file = read_s3diff(weights)
        self.estimator = read_estimator(find_estimator(weights))
        self.unet: Any = load_part(base, "unet", UNet2DConditionModel)
        self.vae = Autoencoder(load_part(base, "vae", AutoencoderKL))
        self.lora: dict[Net, ModulatedLora] = {
            "unet": file.adapt(self.unet, "unet"),
            "vae": file.adapt(self.vae.vae, "vae"),
        }
        file.replace_conv_in(self.unet)
        self.modulation: dict[Net, ModulationNet] = dict(file.modulation)
        prompts = Prompts(base)
        self.words = torch.cat([prompts.embed(GOOD), prompts.embed(BAD)])  # (2, 77, D)
        self.alpha_bar = float(alphas_cumprod(read_config(base, "scheduler"))[T])
        self.posterior: Posterior = "sample"
        self.tile = TILE
        self.together = False

    @classmethod
    def describe(cls, weights: Path | None) -> MethodSpec:
        """The spec, once both files are seen to be there; None = those that were pulled."""
        if weights is not None:
            check_files(weights)
        return cls.spec

    @classmethod
    def load(
        cls, weights: Path | None, *, base: Path, device: torch.device, dtype: torch.dtype
    ) -> S3Diff:
        """Prepare SD-Turbo to be adapted to each picture.

        Args:
            weights: the published `s3diff.pkl` or the safetensors file made of it; `de_net.pth`
                lies beside it.
            base: folder of SD-Turbo.
            device: where the networks run.
            dtype: number format of U-Net and autoencoder; what decides on their weights is in
                float32.

        Raises:
            WeightsError: a file is missing, damaged, unsafe, or of another model.
        """
        if weights is None:
            raise WeightsError("'s3diff' needs weights; run 'restore models pull s3diff'")
        return cls(weights, base).to(device, dtype)

    def to(self, device: torch.device, dtype: torch.dtype) -> S3Diff:
        """Move all networks."""
        # Both sentences at once keep a GPU busy, until memory has run out.
        self.together = device.type == "cuda" and self.tile >= TILE
        self.unet = nn.Module.to(move(self.unet, device, dtype), memory_format=torch.channels_last)
        move(self.vae.vae, device, dtype)
        move(self.estimator, device, torch.float32)
        self.words = self.words.to(device)
        for net, lora in self.lora.items():
            lora.to(device)
            self.modulation[net] = self.modulation[net].to(device)
        return self

    def tune(
        self,
        *,
        tiling: Tiling | None = None,
        posterior: Posterior | None = None,
        compile: bool | None = None,
    ) -> None:
        """Set the options that were given."""
        self.vae.tiling = tiling or self.vae.tiling
        self.posterior = posterior or self.posterior
        if compile:
            self.unet.compile()

    def use_tiles(self, side: int) -> None:
        """Tiles of about `side` input pixels, in the network and in the autoencoder."""
        self.tile = max(16, side * SCALE // FACTOR // 8 * 8)
        self.vae.tile = self.tile * 4 // 3
        self.together = self.together and self.tile >= TILE

    def restore(self, frames: Tensor, *, generator: torch.Generator) -> Tensor:
        """`(B, 1, 3, H, W)` in [0, 1] to `(B, 1, 3, 4 H, 4 W)`; each picture has its weights."""
        pictures = frames[:, 0].chunk(len(frames))
        return torch.cat([self._restore_one(x, generator) for x in pictures])[:, None]

    def _restore_one(self, picture: Tensor, generator: torch.Generator) -> Tensor:
        """`(1, 3, H, W)` to `(1, 3, 4 H, 4 W)`, both in [0, 1]."""
        (d,) = self.estimator(picture)
        x_l = enlarge(picture)
        with self.lora["vae"].merged(self.modulation["vae"].matrices(d)):
            z_l = self.vae.encode(2 * x_l - 1, posterior=self.posterior, generator=generator)
        with self.lora["unet"].merged(self.modulation["unet"].matrices(d)):
            eps = self._predict(z_l)
        z_h = x0_from_epsilon(z_l, eps, self.alpha_bar)
        x_h = self.vae.decode(z_h).float().clamp(-1, 1) / 2 + 0.5
        return x_h[..., : SCALE * picture.shape[-2], : SCALE * picture.shape[-1]]

    def _predict(self, z: Tensor) -> Tensor:
        """Guided prediction of the noise, `(1, 4, h, w)`."""
        overlap = OVERLAP if self.vae.tiling == "published" else min(OVERLAP, self.tile // 3)
        return predict_tiled(
            z, self._guided, tile=self.tile, overlap=overlap, tiling=self.vae.tiling
        )

    def _guided(self, z: Tensor) -> Tensor:
        words = self.words.to(z.dtype)  # (2, 77, D)
        passes = [
            self.unet(z.expand(len(c), -1, -1, -1), T, c).sample.float()
            for c in words.chunk(1 if self.together else 2)
        ]
        good, bad = torch.cat(passes).chunk(2)
        return bad + GUIDANCE * (good - bad)


def enlarge(picture: Tensor) -> Tensor:
    """`(1, 3, H, W)` to `(1, 3, h, w)`: four times the size, mirrored below and at the right.

    h and w are multiples of 64. A picture too small to be mirrored that far is mirrored repeatedly.
    """
    large = F.interpolate(picture, scale_factor=SCALE, mode="bilinear", align_corners=False)
    for dim in (2, 3):
        length = large.shape[dim]
        place = torch.arange(-(-length // MULTIPLE) * MULTIPLE, device=large.device)
        place = place % (2 * length - 2)
        large = large.index_select(dim, torch.minimum(place, 2 * length - 2 - place))
    return large.clamp(0, 1)
