"""AdcSR: Stable Diffusion 2.1 pruned until one pass takes a third of OSEDiff's time.

Chen et al., "Adversarial Diffusion Compression for Real-World Image Super-Resolution", CVPR 2025.
The network is in `adcsr_net.py`, its weight files in `adcsr_weights.py`. It takes the picture as it
is, without enlarging it first, needs no other model beside its files, and draws nothing at random.

    picture -> pad to 16 -> unshuffle -> UNet -> decoder -> crop -> colours of the picture
                                         ^ large tiles   ^ tiles with the statistics of the whole

A picture of up to 512x512 is run as the authors run every picture: whole. That costs no more than
smaller tiles would: the attention's share, which grows with the square of the pixels, is by then
what overlapping tiles would compute twice.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from restore.errors import OptionError, WeightsError
from restore.method import MethodSpec, Tiling
from restore.models.adcsr_weights import AdcSRFile, check_files, read_adcsr

if TYPE_CHECKING:
    from restore.models.adcsr_net import AdcNet

MULTIPLE = 16
"""Input pixels that the smallest features of the UNet stand for."""
SMALLEST_TILE = 32
UNSHUFFLE = 2


class AdcSR:
    """x4 for photos, the fastest of the Stable Diffusion methods."""

    spec: ClassVar[MethodSpec] = MethodSpec(
        name="adcsr",
        summary="AdcSR: pruned Stable Diffusion 2.1, one pass without text, x4",
        scale=4,
        overlap=0,
        own_tiles=512,
        options=("tiling", "compile"),
        dtypes=("fp32", "bf16", "fp16"),
        bytes_per_pixel=64_000,
        enlarges_alpha=False,
        licence="Apache-2.0; base: CreativeML Open RAIL++-M",
        source="Chen et al., CVPR 2025; https://github.com/Guaishou74851/AdcSR",
    )

    def __init__(self, net: AdcNet) -> None:
        self.net = net
        self._tiling: Tiling = "exact"
        self._side = self.spec.own_tiles
        self._dtype = torch.float32
        self._layout = torch.contiguous_format
        self._compiled = False

    @classmethod
    def describe(cls, weights: Path | None) -> MethodSpec:
        """The spec, once both files are seen to be there; None = those that were pulled."""
        if weights is not None:
            check_files(weights)
        return cls.spec

    @classmethod
    def load(cls, weights: Path | None, *, device: torch.device, dtype: torch.dtype) -> AdcSR:
        """Build the network in the shape of its weights and fill it.

        Args:
            weights: `net_params_200.pkl` with `halfDecoder.ckpt` beside it, or one safetensors
                file made of both.
            device: where it will run.
            dtype: number format of the network; colours are computed in float32.

        Raises:
            WeightsError: a file is missing, damaged, unsafe, or of another model.
        """
        path = _given(weights)
        return cls(fill(read_adcsr(path), path)).to(device, dtype)

    def tune(self, *, tiling: Tiling | None = None, compile: bool | None = None) -> None:
        """Set the options that were given.

        Args:
            tiling: `exact` = large pictures in tiles; `published` = every picture as a whole, as
                the authors run it.
            compile: fuse both halves with torch.compile.
        """
        self._tiling = tiling or self._tiling
        if compile and not self._compiled:
            self._compiled = True
            self.net.unet.compile()
            self.net.decoder.compile()

    def use_tiles(self, side: int) -> None:
        """Give the UNet tiles of about `side` input pixels.

        Raises:
            OptionError: with `--tiling published` there are no tiles.
        """
        if self._tiling == "published":
            raise OptionError(
                f"tiles of {side} pixels are not possible with --tiling published: AdcSR's "
                "authors run the whole picture at once; leave --tiling out when it does not fit"
            )
        self._side = max(SMALLEST_TILE, side // MULTIPLE * MULTIPLE)

    def to(self, device: torch.device, dtype: torch.dtype) -> AdcSR:
        """Move the network to `device` and `dtype`, in the layout that is best there."""
        self._dtype = dtype
        self.net = self.net.to(device, dtype).to(memory_format=torch.channels_last)
        # On a CPU, PyTorch's group normalisation of large channels-last features sums up rounding
        # errors: the decoder's result is then off by 1e-4 instead of 1e-6.
        self._layout = torch.contiguous_format if device.type == "cpu" else torch.channels_last
        self.net.decoder.to(memory_format=self._layout)
        return self

    def restore(self, frames: Tensor, *, generator: torch.Generator) -> Tensor:
        """`(B, 1, 3, H, W)` in [0, 1] to `(B, 1, 3, 4 H, 4 W)`; it draws nothing at random."""
        low = frames[:, 0] * 2 - 1
        height, width = (self.spec.scale * side for side in low.shape[-2:])
        x = F.pixel_unshuffle(padded(low), UNSHUFFLE).to(self._dtype)
        x = self._decode(self._predict(x))[..., :height, :width].float()
        return (match_statistics(x, low) / 2 + 0.5).clamp_(0, 1)[:, None]

    def _predict(self, x: Tensor) -> Tensor:
        """Features `(B, C, h, w)` of an unshuffled picture `(B, 12, h, w)`."""
        from restore.models.parts.latent_tiles import predict_tiled

        if self._tiling == "published":
            return self.net.unet(x)
        side = min(self._side // UNSHUFFLE, *x.shape[-2:])
        return predict_tiled(
            x,
            self.net.unet,
            tile=self._side // UNSHUFFLE,
            overlap=side // 4,
            channels=self.net.unet.conv_out.out_channels,
        )

    def _decode(self, features: Tensor) -> Tensor:
        from restore.models.parts.vae_tiles import EXACT, run_tiled

        features = features.to(self._dtype, memory_format=self._layout)
        if self._tiling == "published":
            return self.net.decoder(features)
        tile = min(EXACT.decoder.tile, self._side // UNSHUFFLE)
        return run_tiled(self.net.decoder, features, EXACT.decoder.with_tile(tile))


def fill(file: AdcSRFile, path: Path) -> AdcNet:
    """The network that weights are of, with them in it.

    Raises:
        WeightsError: tensors are missing or left over, or have shapes that do not go together.
    """
    from restore.models.adcsr_net import AdcSRConfig, build

    try:
        net = build(AdcSRConfig(unet=file.unet_channels, decoder=file.decoder_channels))
        net.unet.load_state_dict(file.unet, strict=True, assign=True)
        net.decoder.load_state_dict(file.decoder, strict=True, assign=True)
    except (KeyError, ValueError, ZeroDivisionError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise WeightsError(
            f"{path} and its half decoder do not make a network of AdcSR ({reason}); fetch both "
            "again, and choose another model with -n if they are of one"
        ) from error
    return net.requires_grad_(False)


def padded(x: Tensor) -> Tensor:
    """`(B, C, H, W)` with rows and columns mirrored at the end, up to a multiple of 16."""
    for axis in (-1, -2):
        while missing := -x.shape[axis] % MULTIPLE:
            size = x.shape[axis]
            # A border of one pixel has nothing to mirror; it is repeated.
            more = x.narrow(axis, max(0, size - 1 - missing), min(missing, max(1, size - 1)))
            x = torch.cat((x, more.flip(axis)), axis)
    return x


def match_statistics(x: Tensor, low: Tensor) -> Tensor:
    """`x` with each channel's mean and unbiased deviation over the picture as in `low`.

    Args:
        x: `(B, C, h, w)`.
        low: `(B, C, H, W)` of any size.
    """
    mean, deviation = x.mean((2, 3), keepdim=True), x.std((2, 3), keepdim=True)
    goal = low.mean((2, 3), keepdim=True)
    spread = low.std((2, 3), keepdim=True) if low[0, 0].numel() > 1 else torch.zeros_like(goal)
    # A result of one colour has no deviation to divide by.
    return (x - mean) / deviation.clamp_min(1e-12) * spread + goal


def _given(weights: Path | None) -> Path:
    if weights is None:
        raise WeightsError(
            "'adcsr' needs weights; run 'restore models pull adcsr', or give net_params_200.pkl "
            "with --weights"
        )
    return weights
