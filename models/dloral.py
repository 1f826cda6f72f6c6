"""DLoRAL: clips x4 in one step of Stable Diffusion 2.1, each frame with the one before in view.

Sun et al., "One-Step Diffusion for Detail-Rich and Temporally Consistent Video Super-Resolution"
(arXiv 2506.15591). The latent of the frame before is moved along the motion, and the frame's own
takes from it what it finds there (Cross-Frame Retrieval, CFR):

    x_{n-1} -> E -> z_{n-1} -> moved --+------------------+
                      ^                v                  v
    SPyNet(x_n, x_{n-1})    z_n -> CFR -> z'_n -> eps([moved, z'_n]; t = 1, c)
    x_n -----> E -> z_n ----^                |        |
                                             +--(-)---+-> x0 = z'_n - eps -> D -> result

The network eps was trained with two LoRAs: one so that frames agree, then one for detail. They are
two knobs here; as published both are 1. c is the tags of the first frame of a shot.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from restore.errors import WeightsError
from restore.method import MethodSpec, Posterior, Tiling
from restore.models.parts.dloral.file import Strengths, make_alignment, make_unet, read
from restore.models.parts.dloral.spynet import shrunk
from restore.models.parts.dloral.stream import DLoRALClip, Seen
from restore.models.parts.dloral.warp import warp_latent
from restore.models.parts.framing import Framing
from restore.models.parts.latent_tiles import predict_tiled
from restore.models.parts.pretrained import check_base, load_part, move, move_unet, read_config
from restore.models.parts.prompts import Prompts
from restore.models.parts.tagging import Tagging
from restore.models.parts.vae import FACTOR, Autoencoder

T = 1
TILE, OVERLAP = 96, 32  # latents
TILES_AT_ONCE = 4  # on a GPU


class DLoRAL:
    """Clips x4."""

    spec: ClassVar[MethodSpec] = MethodSpec(
        name="dloral",
        summary="clips x4 in one step of Stable Diffusion 2.1; makes up detail that stays",
        scale=4,
        overlap=0,
        streaming=True,
        base="stable-diffusion-2-1-base",
        own_tiles=TILE * FACTOR // 4,
        dtypes=("fp16", "bf16", "fp32"),
        options=(
            *("prompt", "tags", "tagger", "tagger_adapter", "tiling", "posterior"),
            *("consistency", "detail", "compile"),
        ),
        enlarges_alpha=False,
        bytes_per_pixel=160_000,
        color_fix="adain",
        licence="MIT; base: CreativeML Open RAIL++-M",
        source="https://github.com/yjsunnn/DLoRAL (arXiv 2506.15591)",
    )
    scale: int = spec.scale
    smallest: ClassVar[int] = 512

    def __init__(self, weights: Path, base: Path) -> None:
        from diffusers import AutoencoderKL

        content = read(weights)
        check_base(base, self.spec.name, expected={"scheduler": {"prediction_type": "epsilon"}})
        self._weights, self._config = weights, read_config(base, "unet")
        self._strengths, self._compiled = Strengths(), False
        # Of the base's U-Net only the shape is asked for: the file holds all its weights.
        self.unet: Any = make_unet(content, self._config, self._strengths, weights)
        self.spynet, self.retrieval = make_alignment(content, weights)
        self.vae = Autoencoder(load_part(base, "vae", AutoencoderKL))
        self.prompts = Prompts(base)
        self.tagging = Tagging()
        self.framing = Framing(scale=self.scale, smallest=self.smallest)
        self.posterior: Posterior = "sample"
        self.tile, self.overlap = TILE, OVERLAP

    @classmethod
    def describe(cls, weights: Path | None) -> MethodSpec:
        """The spec; every file is of the same method."""
        return cls.spec

    @classmethod
    def load(
        cls, weights: Path | None, *, base: Path, device: torch.device, dtype: torch.dtype
    ) -> DLoRAL:
        """Read the published `model.pkl`, or what was converted from it.

        Args:
            weights: the file.
            base: folder of Stable Diffusion 2.1 base; its U-Net's weights are not read.
            device: where the networks run.
            dtype: their number format; motion and retrieval are computed in float32.

        Raises:
            WeightsError: a file is missing, damaged, unsafe, or of another model.
        """
        if weights is None:
            raise WeightsError(
                f"'{cls.spec.name}' needs weights; run 'restore models pull {cls.spec.name}'"
            )
        return cls(weights, base).to(device, dtype)

    def to(self, device: torch.device, dtype: torch.dtype) -> DLoRAL:
        """Move all networks; clips that are open keep what they have."""
        self.device, self.dtype = device, dtype
        self.unet = move_unet(self.unet, self.device, self.dtype)
        for net in (self.spynet, self.retrieval):
            net.to(device, torch.float32)
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
        consistency: float = 1.0,
        detail: float = 1.0,
        compile: bool = False,
        **words: str | None,
    ) -> None:
        """Set options; `words` are those of `Tagging`. Other strengths are merged from the file.

        Raises:
            WeightsError: the tagger cannot be loaded, or the weight file is not there any more.
        """
        self.vae.tiling, self.posterior = tiling, posterior
        self.framing = replace(self.framing, tiling=tiling)
        self.tagging.tune(**words)
        strengths = Strengths(consistency=consistency, detail=detail)
        if strengths != self._strengths:
            # Anew, so that what is merged depends on the strengths and not on those before.
            content = read(self._weights)
            self.unet = make_unet(content, self._config, strengths, self._weights)
            self._strengths, self._compiled = strengths, False
            self.unet = move_unet(self.unet, self.device, self.dtype)
        if compile and not self._compiled:
            self.unet, self._compiled = torch.compile(self.unet), True

    def use_tiles(self, side: int) -> None:
        """Tiles of about `side` input pixels, in the network and in the autoencoder."""
        self.tile = max(16, side * self.scale // FACTOR // 8 * 8)
        self.overlap = min(OVERLAP, self.tile // 3)
        self.vae.tile = self.tile * 4 // 3

    def open_clip(self, height: int, width: int, *, seed: int) -> DLoRALClip:
        """Begin a shot.

        Args:
            height: of its frames, any.
            width: likewise.
            seed: with the number of a frame it says what is drawn for it.
        """
        return DLoRALClip(self, height, width, seed=seed)

    def restore(self, frames: Tensor, *, generator: torch.Generator) -> Tensor:
        """`(B, 1, 3, H, W)` in [0, 1] to `(B, 1, 3, 4 H, 4 W)`: each picture as a shot of one."""
        results = []
        for picture in frames:
            large = self.enlarge(picture)
            seen = self.look(large, generator=generator)
            size = (picture.shape[-2], picture.shape[-1])
            results.append(self.follow(seen, seen, self.words(large), size=size))
        return torch.stack(results)

    def enlarge(self, picture: Tensor) -> Tensor:
        """`(1, 3, H, W)` to `(1, 3, h, w)`, both sides multiples of 8 and at least 512."""
        return self.framing.enlarge(picture)

    def words(self, large: Tensor) -> str:
        """Prompt of an enlarged picture: its tags and what the user says."""
        return self.tagging.prompts(large)[0]

    def look(self, large: Tensor, *, generator: torch.Generator) -> Seen:
        """What is to be known of a frame, here and for the next one."""
        x = 2 * large - 1
        z = self.vae.encode(x, posterior=self.posterior, generator=generator).float()
        return Seen(latent=z, small=shrunk(x))

    def follow(self, now: Seen, before: Seen, words: str, *, size: tuple[int, int]) -> Tensor:
        """The result `(1, 3, 4 H, 4 W)` of a frame; `size` is H and W."""
        c = self.prompts.embed(words)
        parts = [before.latent, now.latent, before.small, now.small]
        if self.vae.tiling == "exact":  # motion of the whole frame crosses the tiles' borders
            parts = [self.moved(*parts), now.latent]

        def of_tiles(stack: Tensor) -> Tensor:
            first, z, *smalls = torch.split(stack, [part.shape[1] for part in parts], dim=1)
            moved = self.moved(first, z, *smalls) if smalls else first
            return self.denoised(moved, z, c)

        x_0 = predict_tiled(
            torch.cat(parts, dim=1),
            of_tiles,
            tile=self.tile,
            overlap=self.overlap,
            tiling=self.vae.tiling,
            batch=self.batch,
            channels=now.latent.shape[1],
        )
        x = self.vae.decode(x_0).float().clamp(-1, 1) / 2 + 0.5
        return self.framing.give_back(x, size)

    def moved(self, z_before: Tensor, z: Tensor, small_before: Tensor, small: Tensor) -> Tensor:
        """The latent of the frame before, where its parts are now, `(B, 4, h, w)`."""
        return warp_latent(z_before, self.spynet(small, small_before))

    def denoised(self, moved: Tensor, z: Tensor, c: Tensor) -> Tensor:
        """x0 = z' - eps of tiles `(B, 4, h, w)`, in float32; there is no noise level to undo."""
        fused = self.retrieval(z, moved)
        pair = torch.cat([moved, fused], dim=1).to(self.dtype)
        eps = self.unet(pair, T, c.repeat(len(pair), 1, 1)).sample
        return fused - eps.float()
