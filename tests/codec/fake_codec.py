"""A codec for tests: means of squares, quantised; no training, known answers, faults on demand."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from restore.codec.contract import CodecSpec, Coded, Rate
from restore.codec.engine import Coder
from restore.codec_config import CodecConfig
from restore.registry import CODECS
from restore.weights import save_weights

RATES = (
    Rate(index=0, bpp=4 / 1024, codebook=16, stride=32),
    Rate(index=1, bpp=8 / 256, codebook=256, stride=16),
    Rate(index=2, bpp=9 / 64, codebook=5, stride=8, planes=3),
    Rate(index=7, bpp=30 / 64, codebook=1000, stride=8, planes=3),
)
SPEC = CodecSpec(
    name="fake",
    summary="for tests",
    rates=RATES,
    multiple=32,
    side_values=2,
    options=("posterior",),
    published_multiple=32,
    bytes_per_pixel=100,
    dtypes=("fp32", "bf16"),
)


class FakeCodec:
    """Gray means (one plane) or colour means (three) of squares; side: least and largest value."""

    spec = SPEC

    def __init__(self) -> None:
        self.dtype = torch.float32
        self.calls = 0
        self.memory_limit = 1 << 60  # pixels of a picture, over four for each time tiles halve
        self.side = 0
        self.nan_below_fp32 = False

    @classmethod
    def describe(cls, weights: Path | None) -> CodecSpec:
        return cls.spec

    @classmethod
    def load(cls, weights: Path | None, *, device: torch.device, dtype: torch.dtype) -> FakeCodec:
        return cls().to(device, dtype)

    def to(self, device: torch.device, dtype: torch.dtype) -> FakeCodec:
        self.dtype = dtype
        return self

    def tune(self, **options: Any) -> None:
        assert set(options) <= set(self.spec.options)

    def use_tiles(self, side: int) -> None:
        self.side = side

    def encode(self, pixels: Tensor, rate: int, *, generator: torch.Generator) -> Coded:
        chosen = self.spec.rate(rate)
        height, width = pixels.shape[-2:]
        assert pixels.dtype == torch.float32 and pixels.shape[:2] == (1, 3)
        assert height % self.spec.multiple == width % self.spec.multiple == 0
        self._use_memory(height * width)
        means = F.avg_pool2d(pixels, chosen.stride)[0]
        means = means if chosen.planes == 3 else means.mean(0, keepdim=True)
        side = torch.stack([means.min(), means.max()]).half().float()
        levels = (means - side[0]) / (side[1] - side[0]).clamp_min(1e-3) * (chosen.codebook - 1)
        indices = levels.round().clamp(0, chosen.codebook - 1).int()
        return Coded(rate=rate, indices=indices, side=side)

    def decode(self, coded: Coded, height: int, width: int) -> Tensor:
        self.calls += 1
        self._use_memory(height * width)
        chosen = self.spec.rate(coded.rate)
        low, high = coded.side
        values = low + coded.indices / (chosen.codebook - 1) * (high - low)
        pixels = F.interpolate(values[None].to(self.dtype), scale_factor=chosen.stride).float()
        if self.nan_below_fp32 and self.dtype != torch.float32:
            pixels = pixels * float("nan")
        return pixels.expand(1, 3, height, width).nan_to_num(float("nan"), 1, 0).clamp(0, 1)

    def tables(self, rate: int) -> np.ndarray | None:
        chosen = self.spec.rate(rate)
        if rate != 1:
            return None
        middle = (chosen.codebook - 1) / 2
        counts = 1 + 1000 * np.exp(-(((np.arange(chosen.codebook) - middle) / 60) ** 2))
        return counts.astype(np.uint32)[None]

    def _use_memory(self, pixels: int) -> None:
        if pixels > self.memory_limit:
            self.memory_limit *= 4  # as smaller tiles do
            raise torch.OutOfMemoryError("fake: out of memory")


@pytest.fixture
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weight file that the fake codec takes."""
    path = tmp_path_factory.mktemp("weights") / "fake.safetensors"
    save_weights(path, {"x": torch.zeros(1)}, {})
    return path


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, weights: Path) -> Iterator[type[FakeCodec]]:
    """The fake codec in the registry, as the default, with its weights in the package."""
    kind = type("Fake", (FakeCodec,), {})
    monkeypatch.setitem(CODECS, "fake", "unused:Unused")
    monkeypatch.setattr("restore.codec.engine.codec_class", lambda name: kind)
    monkeypatch.setattr("restore.codec.engine.locate_weights", lambda name: weights)
    yield kind


def coder(spec: dict[str, Any] | None = None, **settings: Any) -> Coder:
    """A `Coder` of the fake codec, of whose spec some fields are replaced; needs `fake`."""
    made = Coder("fake", CodecConfig(device="cpu", **settings))
    if spec:
        made.codec.spec = made.spec = replace(SPEC, **spec)
    return made
