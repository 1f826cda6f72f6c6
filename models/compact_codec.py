"""`compact-codec`: the codec in the package, for any CPU.

picture -> encoder -> quantised latents -> (file, `compact_codec_integers.py`) -> decoder -> picture
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from restore.codec.contextual import read_contextual, write_contextual
from restore.codec.contract import CodecSpec, Coded, Rate
from restore.errors import RestoreError
from restore.models.compact_codec_integers import IntegerContext
from restore.models.compact_codec_net import REACH, STRIDE, CodecNet, rounded
from restore.models.compact_codec_weights import CodecFile, read_codec, read_head
from restore.weights import open_metadata, packaged_weights

_STRIP_PLACES = 1 << 14  # latents of a strip: 4 megapixels
_MARGIN = 8  # latents beyond a strip that reach into it: 7 in the decoder, 4 in the encoder
# Of the weights in the package; their file says the same.
_TYPICAL = (0.0175, 0.0271, 0.0427, 0.0689, 0.1105, 0.1706, 0.2473, 0.3398)


def _rates(bpp: tuple[float, ...], planes: int) -> tuple[Rate, ...]:
    return tuple(
        Rate(index=i, bpp=value, codebook=2 * REACH + 1, stride=STRIDE, planes=planes)
        for i, value in enumerate(bpp)
    )


class CompactCodec:
    """The default of `restore compress`."""

    spec: ClassVar[CodecSpec] = CodecSpec(
        name="compact-codec",
        summary="small codec in the package: 0.02 to 0.34 bits per pixel on any CPU",
        rates=_rates(_TYPICAL, 96),
        multiple=STRIDE,
        dtypes=("fp32", "bf16", "fp16"),
        cpu_dtype="bf16",
        bytes_per_pixel=160,
        source="this package; see restore/assets/compact_codec.md",
    )

    def __init__(self, file: CodecFile) -> None:
        self._file = file
        self.spec = replace(type(self).spec, rates=_rates(file.bpp, file.config.latent))  # type: ignore[misc]
        with torch.device("meta"):
            self.net = CodecNet(file.config).eval().requires_grad_(False)
        self._device, self._dtype = torch.device("cpu"), torch.float32
        self.to(self._device, self._dtype)

    @classmethod
    def describe(cls, weights: Path | None) -> CodecSpec:
        """The spec with the typical bits per pixel that `weights` name."""
        path = packaged_weights(cls.spec.name) if weights is None else weights
        config, bpp = read_head(path, open_metadata(path))
        return replace(cls.spec, rates=_rates(bpp, config.latent))

    @classmethod
    def load(
        cls, weights: Path | None, *, device: torch.device, dtype: torch.dtype
    ) -> CompactCodec:
        """Build the networks that the weight file describes and fill them.

        Raises:
            WeightsError: the file is missing, damaged, unsafe, or of another model.
        """
        path = packaged_weights(cls.spec.name) if weights is None else weights
        return cls(read_codec(path)).to(device, dtype)

    def to(self, device: torch.device, dtype: torch.dtype) -> CompactCodec:
        """Move the networks; the gains stay in fp32, as their rounding would show."""
        self._device, self._dtype = device, dtype
        weights = {
            key: value.to(device, torch.float32 if key in ("gain", "ungain") else dtype)
            for key, value in self._file.network.items()
        }
        self.net.load_state_dict(weights, strict=True, assign=True)
        self.net.to(memory_format=torch.channels_last)
        return self

    def tune(self, **options: Any) -> None:
        """It has no options."""
        if options:
            raise TypeError(f"compact-codec has no option {next(iter(options))}")

    def encode(self, pixels: Tensor, rate: int, *, generator: torch.Generator) -> Coded:
        """Quantised latents of a picture; it draws nothing at random.

        Args:
            pixels: RGB `(1, 3, H, W)` in [0, 1], H and W multiples of 16.
            rate: number of the rate.
            generator: not used.

        Raises:
            RestoreError: the network gives no numbers in this number format.
        """
        height, width = pixels.shape[-2:]
        number = torch.tensor([rate], device=pixels.device)
        parts = []
        for before, first, last, after in _strips(height // STRIDE, width // STRIDE):
            rows = pixels[..., before * STRIDE : after * STRIDE, :]
            rows = rows.contiguous(memory_format=torch.channels_last)
            y = self.net.analyse(rows, number)[..., first - before : last - before, :]
            parts.append(rounded(y).cpu())
        q = torch.cat(parts, -2)[0]
        if not bool(torch.isfinite(q).all()):
            raise RestoreError("compact-codec gave no number for this picture; try --dtype fp32")
        indices = q.to(torch.int32) + REACH
        return Coded(rate=rate, indices=indices, side=torch.zeros(0))

    def decode(self, coded: Coded, height: int, width: int) -> Tensor:
        """The picture `(1, 3, H, W)` in [0, 1] of quantised latents."""
        q = (coded.indices - REACH)[None].to(self._device, torch.float32)
        number = torch.tensor([coded.rate], device=self._device)
        parts = []
        for before, first, last, after in _strips(height // STRIDE, width // STRIDE):
            rows = q[..., before:after, :].contiguous(memory_format=torch.channels_last)
            pixels = self.net.synthesise(rows, number)
            parts.append(pixels[..., (first - before) * STRIDE : (last - before) * STRIDE, :])
        return torch.cat(parts, -2).clamp(0, 1)

    def tables(self, rate: int) -> None:
        """None: how often a symbol comes depends on its neighbours; see `write_payload`."""

    def write_payload(self, coded: Coded) -> bytes:
        """The indices as bytes; zeros behind them change nothing."""
        _, height, width = coded.indices.shape
        return write_contextual(coded.indices.numpy(), self.index_model(coded.rate, height, width))

    def read_payload(self, payload: bytes, rate: int, height: int, width: int) -> Tensor:
        """The reverse, for grids of `height` rows and `width` columns.

        Raises:
            InputError: the payload is damaged.
        """
        model, chosen = self.index_model(rate, height, width), self.spec.rate(rate)
        shape = (chosen.planes, height, width)
        indices = read_contextual(payload, model, shape=shape, codebook=chosen.codebook)
        return torch.from_numpy(indices)

    def index_model(self, rate: int, height: int, width: int) -> IntegerContext:
        """How likely the indices of a picture are.

        Args:
            rate: number of the rate.
            height: rows of the grids of indices.
            width: columns.
        """
        return IntegerContext(
            self._file.integers, self._file.config, rate=rate, size=(height, width)
        )


def _strips(height: int, width: int) -> Iterator[tuple[int, int, int, int]]:
    """Rows of latents that are worked on at one time, so that memory does not grow with a picture.

    Yields:
        First row of the margin, first row, row after the last, row after the margin.
    """
    rows = max(2 * _MARGIN, _STRIP_PLACES // width)
    for first in range(0, height, rows):
        last = min(first + rows, height)
        yield max(0, first - _MARGIN), first, last, min(last + _MARGIN, height)
