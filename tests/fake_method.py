"""Small methods for tests: no training, known receptive field, faults on demand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from restore.config import EngineConfig
from restore.engine import Restorer
from restore.method import MethodSpec
from restore.weights import save_weights

SPEC = MethodSpec(name="fake", summary="for tests", scale=2, overlap=3, bytes_per_pixel=100)


class FakeMethod:
    """Blurs with a random 7x7 kernel per channel and enlarges; its receptive radius is 3."""

    spec = SPEC

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(5)
        self.kernel = torch.rand(3, 1, 7, 7, generator=generator) / 24
        self.dtype = torch.float32
        self.largest_window = 0
        self.memory_limit = 1 << 60  # pixels of a window
        self.nan_below_fp32 = False
        self.always_nan = False
        self.noise = 0.0
        self.calls = 0

    @classmethod
    def describe(cls, weights: Path | None) -> MethodSpec:
        return cls.spec

    @classmethod
    def load(cls, weights: Path | None, *, device: torch.device, dtype: torch.dtype) -> FakeMethod:
        return cls().to(device, dtype)

    def to(self, device: torch.device, dtype: torch.dtype) -> FakeMethod:
        self.dtype = dtype
        return self

    def restore(self, frames: Tensor, *, generator: torch.Generator) -> Tensor:
        self.calls += 1
        assert frames.dtype == torch.float32  # the format of the network is the method's affair
        height, width = frames.shape[-2:]
        assert height % self.spec.size_multiple == 0
        assert width % self.spec.size_multiple == 0
        assert min(height, width) >= self.spec.min_size
        assert frames.shape[1] == self.spec.frames_before + 1 + self.spec.frames_after
        if height * width > self.memory_limit:
            raise torch.OutOfMemoryError("fake: out of memory")
        self.largest_window = max(self.largest_window, height * width)
        x = frames.float().mean(1)
        y = F.conv2d(x, self.kernel, padding=3, groups=3)
        y = F.interpolate(y, scale_factor=self.spec.scale, mode="nearest")
        if self.noise:
            y = y + self.noise * torch.randn(y.shape, generator=generator)
        if self.always_nan or (self.nan_below_fp32 and self.dtype != torch.float32):
            y[..., 0, 0] = float("nan")
        return y.clamp(0, 1)[:, None].to(self.dtype)

    def restore_next(
        self, frames: Tensor, previous: Tensor, trust: Tensor, *, generator: torch.Generator
    ) -> Tensor:
        """Half of the previous result where it is trusted; the kernel's reach in that, too."""
        alone = self.restore(frames, generator=generator)
        assert (previous.dtype, trust.dtype) == (torch.float32, torch.float32)
        assert previous.shape == alone[:, 0].shape
        scale = self.spec.scale
        smooth = F.avg_pool2d(previous, 2 * scale + 1, 1, scale, count_include_pad=False)
        share = 0.5 * F.interpolate(trust, scale_factor=scale, mode="nearest")[:, None]
        return alone + share * (smooth[:, None] - alone)

    def open_clip(self, height: int, width: int, *, seed: int) -> FakeClip:
        if height * width > self.memory_limit:
            raise torch.OutOfMemoryError("fake: out of memory")
        clip = FakeClip(height, width, scale=self.spec.scale, seed=seed)
        clip.broken = self.always_nan
        return clip


class FakeClip:
    """Gives 4 frames when it has taken 6, then 3 more with every third frame, so 2 stay inside.

    A result is the frame as squares, mixed with a running mean of all frames taken before.
    """

    def __init__(self, height: int, width: int, *, scale: int, seed: int) -> None:
        assert height % 2 == width % 2 == 0 and height >= 6
        self.scale = scale
        self.mean = torch.full((3, height, width), 0.1 * seed)
        self.held: list[Tensor] = []
        self.first, self.broken = True, False

    @property
    def ahead(self) -> int:
        return len(self.held)

    def push(self, frame: Tensor) -> Tensor:
        assert frame.shape == self.mean.shape and frame.dtype == torch.float32
        self.mean = 0.5 * self.mean + 0.5 * frame
        self.held.append(0.5 * frame + 0.5 * self.mean)
        if len(self.held) < (6 if self.first else 5):
            return self._given(0)
        given = self._given(4 if self.first else 3)
        self.first = False
        return given

    def finish(self) -> Tensor:
        return self._given(len(self.held))

    def _given(self, count: int) -> Tensor:
        frames = [self.held.pop(0) for _ in range(count)]
        if not frames:
            height, width = self.mean.shape[-2:]
            return torch.zeros(0, 3, self.scale * height, self.scale * width)
        given = F.interpolate(torch.stack(frames), scale_factor=self.scale, mode="nearest")
        return given * float("nan") if self.broken else given

    def state(self) -> dict[str, Tensor]:
        assert self.ahead == 2
        return {"mean": self.mean.clone(), "held": torch.stack(self.held)}

    def restore_state(self, state: Mapping[str, Tensor]) -> None:
        self.mean, self.held, self.first = state["mean"], list(state["held"]), False


def fake_restorer(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    *,
    spec: dict[str, Any] | None = None,
    **settings: Any,
) -> Restorer:
    """A `Restorer` whose method is a `FakeMethod` with some fields of its spec replaced."""
    kind = type("Fake", (FakeMethod,), {"spec": replace(SPEC, **(spec or {}))})
    monkeypatch.setattr("restore.engine.method_class", lambda name: kind)
    weights = tmp_path / "fake.safetensors"
    save_weights(weights, {"x": torch.zeros(1)}, {})
    config = EngineConfig(weights=str(weights), device="cpu", **settings)
    return Restorer(config)
