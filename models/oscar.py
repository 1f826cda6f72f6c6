"""OSCAR: pictures as a few indices, decoded by one step of Stable Diffusion 2.1 (768-v).

Guo et al., "OSCAR: One-Step Diffusion Codec Across Multiple Bit-rates", NeurIPS 2025. A coarse code
of the latents is taken for noisy latents of a time step t that belongs to its rate:

    x -> VAE -> z -+-> hyper-encoder of the rate -> indices ------------------+
                   +-> |z_c|, a norm for each channel, in fp16 ---------------|-+    (the file)
                                                                              | |
    x^ <- VAE <- z0 <- one step of v(z^; t, context) <- z^_c |z_c| / |z^_c| <-+-+

    z0 = sqrt(a_t) z^ - sqrt(1 - a_t) v(z^; t, c)

The context is learned; there is no text and no text encoder. Nothing is drawn unless the
posterior is sampled, as the published numbers were made.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from torch import Tensor

from restore.codec.contract import CodecSpec, Coded, Rate
from restore.errors import WeightsError
from restore.method import Posterior, Tiling
from restore.models.parts.latent_tiles import predict_tiled
from restore.models.parts.oscar import file as oscar_file
from restore.models.parts.oscar.hyper_encoder import LATENT_CHANNELS, HyperEncoder
from restore.models.parts.oscar.rates import RATES
from restore.models.parts.pretrained import check_base, load_part, move, move_unet, read_config
from restore.models.parts.schedule import alphas_cumprod, x0_from_velocity
from restore.models.parts.vae import FACTOR, Autoencoder
from restore.nested_weights import content_sha256
from restore.weights import check_readable

TILE, OVERLAP = 96, 32
"""Latents; the U-Net was trained on 96."""
TILES_AT_ONCE = 4  # on a GPU
HYPER_TILES = 4
"""Sides of the U-Net's tiles that the hyper-encoder, which is small, takes at a time."""
LARGEST = float(torch.finfo(torch.float16).max)


class Oscar:
    """The codec; every rate is in one file of weights."""

    spec: ClassVar[CodecSpec] = CodecSpec(
        name="oscar",
        summary="0.002 to 0.125 bits per pixel, decoded in one step of Stable Diffusion 2.1",
        rates=tuple(
            Rate(index=i, bpp=rate.bpp, codebook=rate.codebook, stride=rate.stride)
            for i, rate in enumerate(RATES)
        ),
        multiple=64,
        side_values=LATENT_CHANNELS,
        published_multiple=128,
        options=("tiling", "posterior"),
        own_tiles=TILE * FACTOR,
        base="stable-diffusion-2-1",
        # bf16 is possible; the step itself enlarges no error of v.
        dtypes=("fp16", "bf16", "fp32"),
        bytes_per_pixel=10_000,
        licence="none stated by the authors; base: CreativeML Open RAIL++-M",
        source="https://github.com/jp-guo/OSCAR (arXiv 2505.16091)",
    )

    def __init__(self, weights: Path, base: Path) -> None:
        from diffusers import AutoencoderKL, UNet2DConditionModel

        content = oscar_file.read(weights)
        check_velocity(base)
        self.unet: Any = load_part(base, "unet", UNet2DConditionModel)
        content.adapt(self.unet)
        self.vae = Autoencoder(load_part(base, "vae", AutoencoderKL), tiling="exact")
        self.hyper_encoders = content.hyper_encoders()
        self.context = content.context
        self.weights_hash = content_sha256(content.content)
        alphas = alphas_cumprod(read_config(base, "scheduler"))
        self.alpha_bars = [float(alphas[rate.t]) for rate in RATES]
        self.tiling: Tiling = "exact"
        self.posterior: Posterior = "mode"
        self.tile, self.overlap = TILE, OVERLAP

    @classmethod
    def describe(cls, weights: Path | None) -> CodecSpec:
        """The spec; whether a file is OSCAR's is found out when it is loaded."""
        if weights is not None:
            check_readable(weights)
        return cls.spec

    @classmethod
    def load(
        cls, weights: Path | None, *, base: Path, device: torch.device, dtype: torch.dtype
    ) -> Oscar:
        """Adapt the base with the published `oscar.pkl`, or what was converted from it.

        Raises:
            WeightsError: a file is missing, damaged, unsafe, older, or of another model.
        """
        if weights is None:
            raise WeightsError(
                "'oscar' has no weights in the package; run 'restore models pull oscar', or give "
                "oscar.pkl with --weights"
            )
        return cls(weights, base).to(device, dtype)

    def to(self, device: torch.device, dtype: torch.dtype) -> Oscar:
        """Move all networks; the hyper-encoders stay in float32, for they choose the indices."""
        self.device, self.dtype = device, dtype
        self.unet = move_unet(self.unet, device, dtype)
        move(self.vae.vae, device, dtype)
        self.hyper_encoders.to(device)
        self.context = self.context.to(device, dtype)
        self.batch = 1 if device.type == "cpu" else TILES_AT_ONCE
        return self

    def tune(
        self,
        *,
        tiling: Tiling | None = None,
        posterior: Posterior | None = None,
    ) -> None:
        """Set options; what is not given stays.

        Args:
            tiling: `published` = the U-Net takes every picture whole, as the authors' does.
            posterior: `sample` = the encoder draws from the VAE's Gaussian, as the authors' does.
        """
        self.tiling = tiling or self.tiling
        self.posterior = posterior or self.posterior

    def use_tiles(self, side: int) -> None:
        """Tiles of about `side` pixels, in all networks; at least 128."""
        self.tile = max(16, side // FACTOR // 8 * 8)
        self.overlap = min(OVERLAP, self.tile // 3)
        self.vae.tile = self.tile * 4 // 3
        self.tiling = "exact"

    @torch.inference_mode()
    def encode(self, pixels: Tensor, rate: int, *, generator: torch.Generator) -> Coded:
        """Indices `(1, H / s, W / s)` and four norms of a picture `(1, 3, H, W)` in [0, 1]."""
        z = self.vae.encode(2 * pixels - 1, posterior=self.posterior, generator=generator).float()
        indices = self._hyper(rate).encode(z, tile=HYPER_TILES * self.tile)
        # Of the whole picture, and before any tiling: a decoder in tiles needs nothing else.
        norms = channel_norms(z)[0].clamp(0, LARGEST).half().float()
        return Coded(rate=rate, indices=indices.int().cpu(), side=norms.cpu())

    @torch.inference_mode()
    def decode(self, coded: Coded, height: int, width: int) -> Tensor:
        """The picture `(1, 3, height, width)` in [0, 1]."""
        rate = RATES[coded.rate]
        expected = (1, height // rate.stride, width // rate.stride)
        if tuple(coded.indices.shape) != expected:
            raise ValueError(f"indices are {tuple(coded.indices.shape)}, not {expected}")
        z = self.latents(coded)
        v = predict_tiled(
            z.to(self.dtype),
            lambda part: self.unet(part, rate.t, self.context.expand(len(part), -1, -1)).sample,
            tile=max(height, width) // FACTOR if self.tiling == "published" else self.tile,
            overlap=self.overlap,
            batch=self.batch,
        )
        z0 = x0_from_velocity(z, v, self.alpha_bars[coded.rate])
        return self.vae.decode(z0).float().clamp(-1, 1) / 2 + 0.5

    def latents(self, coded: Coded) -> Tensor:
        """What the U-Net gets: z^ `(1, 4, h, w)`, float32, with the norms of the file."""
        indices = coded.indices.to(self.device).long()
        z = self._hyper(coded.rate).decode(indices, tile=HYPER_TILES * self.tile)
        return align(z, coded.side.to(self.device)[None])

    def _hyper(self, rate: int) -> HyperEncoder:
        return cast(HyperEncoder, self.hyper_encoders[rate])

    def tables(self, rate: int) -> None:
        """No statistics of the symbols are published."""
        return None


def channel_norms(z: Tensor) -> Tensor:
    """|z_c| over all places: `(B, C, h, w)` to `(B, C)`, float32."""
    return z.float().flatten(2).norm(dim=-1)


def align(z: Tensor, norms: Tensor) -> Tensor:
    """`z` with each channel scaled to one of `norms` `(B, C)`."""
    own = channel_norms(z).clamp_min(torch.finfo(torch.float32).tiny)
    return z * (norms / own)[..., None, None]


def check_velocity(base: Path) -> None:
    """Find out from its configuration whether a base predicts v, as SD-2.1's 768-pixel model does.

    Raises:
        WeightsError: it does not, or a part is missing.
    """
    check_base(
        base,
        "oscar",
        expected={
            # A scheduler that says nothing predicts noise, and so does the 512-pixel model.
            "scheduler": {"prediction_type": "v_prediction"},
            "unet": {"in_channels": 4, "out_channels": 4, "addition_embed_type": None},
            "vae": {"latent_channels": 4},
        },
    )
    if "prediction_type" not in read_config(base, "scheduler"):
        raise WeightsError(
            f"the base model in {base} says no prediction_type in its scheduler, and so predicts "
            f"noise; 'oscar' needs v_prediction: give {oscar_file.BASE} with --base"
        )
