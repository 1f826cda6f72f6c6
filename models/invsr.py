"""InvSR: the noise that makes a frozen SD-Turbo end at the sharp picture, predicted from the input.

Yue et al., "Arbitrary-steps Image Super-resolution via Diffusion Inversion", CVPR 2025. The
predictor gives a Gaussian of noise n; from a time step t of 200 or so, SD-Turbo needs 1 to 5 Euler
steps.

    input (h, w) -+-> bicubic x4 -> encoder ----> z --(+)--> x_t -> U-Net -> ... -> x_0 -> decoder
                  |                                    ^
                  +-> noise predictor -> Gaussian -> sigma_t n

All of it is done on square patches of 128 input pixels, half of which neighbours share; the results
are blended with Gaussians.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from restore.errors import OptionError, WeightsError
from restore.memory import is_out_of_memory
from restore.method import MethodSpec, Posterior, Tiling
from restore.models.parts.noise_predictor import LATENT_CHANNELS, NoisePredictor, read_predictor
from restore.models.parts.patches import cut, pad, shares, starts
from restore.models.parts.pretrained import check_base, load_part, read_config
from restore.models.parts.prompts import Prompts
from restore.models.parts.schedule import alphas_cumprod
from restore.models.parts.vae import Autoencoder
from restore.weights import check_readable

log = logging.getLogger("restore.models.invsr")

SCALE = 4
PATCH = 128
"""Side of a patch in input pixels: what the predictor was trained with."""
MULTIPLE = 16
"""Input pixels that become one place of the U-Net's coarsest level."""
SMALLEST_PATCH = 32
GROUP = 8
"""Patches that the published code draws noise for at a time."""
LATENT_TILE, PIXEL_TILE = 128, 1024
"""Sides above which the published VAE works in tiles: those of patches of more than 256."""
PROMPT = (
    "Cinematic, high-contrast, photo-realistic, 8k, ultra HD, meticulous detailing, "
    "hyper sharpness, perfect without deformations"
)
TIME_STEPS: dict[int, tuple[int, ...]] = {
    1: (200,),
    2: (200, 100),
    3: (200, 100, 50),
    4: (200, 150, 100, 50),
    5: (250, 200, 150, 100, 50),
}
"""By the number of steps; counted from 1 as in the published code, so that 200 is t = 199."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Draws:
    """Standard normal noise for some patches; `(n, 4, h / 2, w / 2)`."""

    start: Tensor
    """For the predictor's Gaussian."""
    encoder: Tensor
    """For the VAE's Gaussian."""

    def patches(self, corners: list[tuple[int, int]], side: int) -> Draws:
        """That of the patches of `side` input pixels with these upper left corners."""
        places = [(y // 2, x // 2) for y, x in corners]
        start, encoder = (cut(noise, places, side // 2) for noise in (self.start, self.encoder))
        return Draws(start=start, encoder=encoder)

    def part(self, first: int, last: int) -> Draws:
        """That of the patches from `first` to before `last`."""
        return Draws(start=self.start[first:last], encoder=self.encoder[first:last])


class InvSR:
    """Enlarges x4 with 1 to 5 steps of SD-Turbo, which stays as it is."""

    spec: ClassVar[MethodSpec] = MethodSpec(
        name="invsr",
        summary="photos x4 in 1 to 5 steps of SD-Turbo, from predicted noise; makes up detail",
        scale=SCALE,
        overlap=0,
        base="sd-turbo",
        own_tiles=PATCH,
        dtypes=("fp16", "bf16", "fp32"),
        enlarges_alpha=False,
        bytes_per_pixel=200_000,
        options=("prompt", "tiling", "posterior", "steps", "compile"),
        licence="S-Lab License 1.0, non-commercial; SD-Turbo has Stability AI's own licence",
        source="https://github.com/zsyOAOA/InvSR, Yue et al., CVPR 2025",
    )

    def __init__(
        self,
        predictor: NoisePredictor,
        unet: Any,
        vae: Any,
        *,
        base: Path,
    ) -> None:
        self._predictor, self._unet, self._vae = predictor, unet, vae
        self._autoencoder = Autoencoder(vae, tiling="exact")
        self._base = base
        alphas = alphas_cumprod(read_config(base, "scheduler"))
        self._sigmas: list[float] = ((1 - alphas) / alphas).sqrt().tolist()
        self._run_unet: Any = unet
        self._text = Prompts(base).embed(PROMPT)
        self._prompt: str | None = None
        self._tiling: Tiling = "exact"
        self._posterior: Posterior = "sample"
        self._steps = 1
        self._side = PATCH
        self.batch = 1
        self.to(torch.device("cpu"), torch.float32)

    @classmethod
    def describe(cls, weights: Path | None) -> MethodSpec:
        """Every weight file enlarges x4; whether this is one is found out when it is loaded."""
        if weights is not None:
            check_readable(weights)
        return cls.spec

    @classmethod
    def load(
        cls, weights: Path | None, *, base: Path, device: torch.device, dtype: torch.dtype
    ) -> InvSR:
        """Read the noise predictor and the base it stands on.

        Args:
            weights: `noise_predictor_sd_turbo_v5.pth`, or what `restore models convert` made of it.
            base: folder of SD-Turbo in diffusers' layout.
            device: where the networks run.
            dtype: their number format.

        Raises:
            WeightsError: a file is missing, damaged, unsafe, or of another model.
        """
        if weights is None:
            raise WeightsError(
                "'invsr' has no weights in the package; run 'restore models pull invsr', or give "
                "noise_predictor_sd_turbo_v5.pth with --weights"
            )
        from diffusers import AutoencoderKL, UNet2DConditionModel

        check_turbo(base)
        predictor = read_predictor(weights)
        unet = load_part(base, "unet", UNet2DConditionModel)
        vae = load_part(base, "vae", AutoencoderKL)
        return cls(predictor, unet, vae, base=base).to(device, dtype)

    def to(self, device: torch.device, dtype: torch.dtype) -> InvSR:
        """Move the networks to `device` and `dtype`."""
        self._device, self._dtype = device, dtype
        for net in (self._predictor, self._unet, self._vae):
            # Not diffusers' own `to`, which warns of casts.
            nn.Module.to(net, device, dtype).to(memory_format=torch.channels_last)
        self.batch = 1 if device.type == "cpu" else GROUP
        return self

    def tune(self, **options: Any) -> None:
        """Set `prompt`, `tiling`, `posterior`, `steps` or `compile`; others stay as they were.

        Raises:
            OptionError: the number of steps is none that InvSR has time steps for.
        """
        steps = options.get("steps", self._steps)
        if steps not in TIME_STEPS:
            raise OptionError(f"steps {steps} is not possible with 'invsr'; give 1 to 5")
        self._steps = steps
        self._tiling = options.get("tiling", self._tiling)
        self._posterior = options.get("posterior", self._posterior)
        if "prompt" in options and options["prompt"] != self._prompt:
            self._prompt = options["prompt"]
            # The encoder is not kept: it takes as much memory as the VAE and is needed once.
            text = f"{self._prompt}, {PROMPT}" if self._prompt else PROMPT
            self._text = Prompts(self._base).embed(text)
        if "compile" in options:
            self._run_unet = torch.compile(self._unet) if options["compile"] else self._unet

    def use_tiles(self, side: int) -> None:
        """Work in patches of `side` input pixels: the nearest multiple of 16 below, at least 32."""
        self._side = max(SMALLEST_PATCH, side // MULTIPLE * MULTIPLE)

    def restore(self, frames: Tensor, *, generator: torch.Generator) -> Tensor:
        """`(B, 1, 3, H, W)` in [0, 1] of any size to `(B, 1, 3, 4 H, 4 W)`.

        What `generator` draws, all standard normal float32: with the exact tiling, noise for the
        whole padded picture, `(1, 4, H / 2, W / 2)`, first for the predictor, then for the VAE;
        every patch takes its part, so that patches agree where they meet. With the published
        tiling, for each group of 8 patches: for the predictor, for the VAE, and then once for each
        step what the published sampler draws and does not use. With `posterior` "mode", nothing.
        """
        return torch.stack([self._picture(one, generator) for one in frames[:, 0]])[:, None]

    def _picture(self, picture: Tensor, generator: torch.Generator) -> Tensor:
        padded, (top, left) = pad(picture[None], self._side, multiple=MULTIPLE)
        height, width = padded.shape[-2:]
        rows, columns = starts(height, self._side), starts(width, self._side)
        down, along = (
            shares(places, self._side, length, scale=SCALE, tiling=self._tiling)
            for places, length in ((rows, height), (columns, width))
        )
        field = self._draw(1, height, width, generator) if self._tiling == "exact" else None
        canvas = torch.zeros(1, 3, SCALE * height, SCALE * width, device=picture.device)
        places = [(i, j) for i in range(len(rows)) for j in range(len(columns))]
        size = SCALE * self._side
        for first in range(0, len(places), GROUP):
            group = places[first : first + GROUP]
            corners = [(rows[i], columns[j]) for i, j in group]
            patches = cut(padded, corners, self._side)
            draws = (
                self._draw(len(group), self._side, self._side, generator)
                if field is None
                else field.patches(corners, self._side)
            )
            for (i, j), result in zip(group, self._in_batches(patches, draws), strict=True):
                y, x = SCALE * rows[i], SCALE * columns[j]
                weights = torch.outer(down[i], along[j]).to(result)
                canvas[..., y : y + size, x : x + size] += result * weights
        bottom = SCALE * (top + picture.shape[-2])
        right = SCALE * (left + picture.shape[-1])
        return canvas[0, :, SCALE * top : bottom, SCALE * left : right].clamp(0, 1)

    def _draw(self, count: int, height: int, width: int, generator: torch.Generator) -> Draws:
        """Noise for `count` pictures of that size; zeros when means are asked for."""
        shape = (count, LATENT_CHANNELS, height // 2, width // 2)
        if self._posterior == "mode":
            return Draws(start=torch.zeros(shape), encoder=torch.zeros(shape))
        # Float32 whatever the networks compute in: a seed means the same noise in every format.
        wasted = self._steps if self._tiling == "published" else 0
        start, encoder, *_ = (
            torch.randn(shape, generator=generator, device=generator.device)
            for _ in range(2 + wasted)
        )
        return Draws(start=start, encoder=encoder)

    def _in_batches(self, patches: Tensor, draws: Draws) -> list[Tensor]:
        """Results of patches, `(3, 4 h, 4 w)` each; in smaller batches when memory runs out."""
        done: list[Tensor] = []
        while len(done) < len(patches):
            first, last = len(done), min(len(patches), len(done) + self.batch)
            try:
                done.extend(self._enlarge(patches[first:last], draws.part(first, last)))
            except (RuntimeError, MemoryError) as error:
                if self.batch == 1 or not is_out_of_memory(error):
                    raise
                self.batch //= 2
                log.warning("out of memory: %d patches at a time from now on", self.batch)
            if len(done) < last and self._device.type == "cuda":
                torch.cuda.empty_cache()
        return done

    def _enlarge(self, patches: Tensor, draws: Draws) -> Tensor:
        """`(n, 3, h, w)` in [0, 1] to `(n, 3, 4 h, 4 w)` in [0, 1], float32."""
        steps = [step - 1 for step in TIME_STEPS[self._steps]]
        sigmas = [self._sigmas[step] for step in steps] + [0.0]
        if self._tiling == "published":  # the input itself in half precision, where the nets are
            patches = patches.to(self._dtype)
        mean, deviation = self._predictor(patches, steps[0])
        noise = mean + deviation * draws.start.to(mean)
        size = (SCALE * patches.shape[-2], SCALE * patches.shape[-1])
        # Not clamped: overshoot of the cubic reaches the encoder.
        large = F.interpolate(patches, size, mode="bicubic", align_corners=False) * 2 - 1
        z_mean, z_log_variance = (moment.float() for moment in self._encode(large))
        z = z_mean + torch.exp(0.5 * z_log_variance) * draws.encoder.to(z_mean)
        x = z * self._autoencoder.scaling_factor + sigmas[0] * noise
        text = self._text.to(self._device, self._dtype).expand(len(patches), -1, -1)
        for step, sigma, following in zip(steps, sigmas, sigmas[1:], strict=False):
            # Euler's method on dx / d sigma = eps; Karras et al., NeurIPS 2022, algorithm 1.
            scaled = (x / math.sqrt(1 + sigma**2)).to(self._dtype)
            time = torch.tensor(float(step), device=self._device)
            epsilon = self._run_unet(scaled, time, encoder_hidden_states=text).sample
            x = x + (following - sigma) * epsilon.float()
        return (self._decode(x).float() / 2 + 0.5).clamp(0, 1)

    def _encode(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        if self._tiling == "exact":
            return self._autoencoder.moments(pixels)
        gaussian = published_tiling(self._vae).encode(pixels.to(self._dtype)).latent_dist
        return gaussian.mean, gaussian.logvar

    def _decode(self, latents: Tensor) -> Tensor:
        if self._tiling == "exact":
            return self._autoencoder.decode(latents)
        latents = (latents / self._autoencoder.scaling_factor).to(self._dtype)
        return published_tiling(self._vae).decode(latents).sample


def published_tiling(vae: Any) -> Any:
    """The VAE with diffusers' own tiles, as InvSR sets them."""
    vae.enable_tiling()
    vae.tile_latent_min_size, vae.tile_sample_min_size = LATENT_TILE, PIXEL_TILE
    return vae


def check_turbo(base: Path) -> None:
    """Find out from its configuration whether a base is SD-Turbo.

    SD-2.1-base has networks of the same shape and predicts noise too. Its scheduler tells: the
    Turbo models alone come with one whose time steps are `trailing`.

    Raises:
        WeightsError: it is not, or a part is missing.
    """
    check_base(
        base,
        "invsr",
        expected={
            "scheduler": {
                "prediction_type": "epsilon",
                "_class_name": "EulerDiscreteScheduler",
            },
            "unet": {"in_channels": 4, "out_channels": 4, "addition_embed_type": None},
            "vae": {"latent_channels": 4},
        },
    )
    spacing = read_config(base, "scheduler").get("timestep_spacing", "none")
    if spacing != "trailing":
        raise WeightsError(
            f"the base model in {base} has timestep_spacing {spacing} in its scheduler; 'invsr' "
            "needs SD-Turbo, which has trailing: give its folder with --base"
        )
