"""`compact` and `compact-fast`: the models in the package, for any CPU; the network is in
`compact_net.py`, its weight files in `compact_weights.py`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from restore.errors import WeightsError
from restore.method import MethodSpec
from restore.models.compact_net import CompactConfig, CompactNet
from restore.models.compact_weights import CompactFile, interpolate, read_compact, read_config
from restore.weights import open_metadata, packaged_weights


class Compact:
    """The default of `restore image` and `restore video`."""

    spec: ClassVar[MethodSpec] = MethodSpec(
        name="compact",
        summary="small network in the package: sharpens, denoises and enlarges x4 on any CPU",
        scale=4,
        variants=("compact-x2",),
        overlap=43,
        size_multiple=2,
        dtypes=("fp32", "bf16", "fp16"),
        cpu_dtype="bf16",
        exportable=True,
        options=("fidelity", "denoise"),
        recurrent=True,
        bytes_per_pixel=2600,
        segment_on_cpu=120,
        source="this package; see restore/assets/compact.md",
    )

    def __init__(self, file: CompactFile, name: str) -> None:
        self._file = file
        with torch.device("meta"):
            self.net: nn.Module = CompactNet(file.config).eval().requires_grad_(False)
        self.spec = spec_of(type(self).spec, file.config)  # type: ignore[misc]
        self._dtype = torch.float32
        self._device = torch.device("cpu")
        try:
            self.tune(fidelity=1.0, denoise=1.0)
        except (RuntimeError, KeyError) as error:
            reason = " ".join(str(error).split())[:200]
            raise WeightsError(
                f"{name} does not fit the compact network it describes ({reason}); "
                "it is damaged: leave --weights out to use the weights in the package"
            ) from error

    @classmethod
    def describe(cls, weights: Path | None) -> MethodSpec:
        """The spec with the scale and the receptive field of the network in `weights`."""
        path = packaged_weights(cls.spec.name) if weights is None else weights
        return spec_of(cls.spec, read_config(path, open_metadata(path)))

    @classmethod
    def load(cls, weights: Path | None, *, device: torch.device, dtype: torch.dtype) -> Compact:
        """Build the network that the weight file describes and fill it.

        Raises:
            WeightsError: the file is missing, damaged, unsafe, or of another model.
        """
        path = packaged_weights(cls.spec.name) if weights is None else weights
        return cls(read_compact(path), str(path)).to(device, dtype)

    def tune(self, *, fidelity: float = 1.0, denoise: float = 1.0) -> None:
        """Set the weights between the sets of the file.

        Args:
            fidelity: 1 = as near to the pixels as can be, 0 = as realistic as can be.
            denoise: 1 = noise is removed, 0 = it is left.

        Raises:
            OptionError: outside 0 to 1, or the file lacks the set that it needs.
        """
        weights = interpolate(self._file, fidelity=fidelity, denoise=denoise)
        self.net.load_state_dict(weights, strict=True, assign=True)
        self.net.eval().requires_grad_(False)
        self.to(self._device, self._dtype)

    def to(self, device: torch.device, dtype: torch.dtype) -> Compact:
        """Move the network to `device` and `dtype`, in the layout that is fastest there."""
        self._device, self._dtype = device, dtype
        self.net = self.net.to(device, dtype).to(memory_format=torch.channels_last)
        return self

    def restore(self, frames: Tensor, *, generator: torch.Generator) -> Tensor:
        """`(B, 1, 3, H, W)` in [0, 1] to `(B, 1, 3, s H, s W)`; it draws nothing at random."""
        return self.net(frames[:, 0]).clamp_(0, 1)[:, None]

    def restore_next(
        self, frames: Tensor, previous: Tensor, trust: Tensor, *, generator: torch.Generator
    ) -> Tensor:
        """The same for a frame after another one, whose moved result is `previous`."""
        return self.net(frames[:, 0], previous, trust).clamp_(0, 1)[:, None]


class CompactX2(Compact):
    """`compact` for twice the size."""

    spec: ClassVar[MethodSpec] = replace(
        Compact.spec,
        name="compact-x2",
        summary="compact for x2: chosen for scales up to 2",
        scale=2,
        overlap=31,
        variants=("compact",),
    )


class CompactFast(Compact):
    """A third of the work, for clips on a CPU."""

    spec: ClassVar[MethodSpec] = replace(
        Compact.spec,
        name="compact-fast",
        summary="the same at a third of the work, for clips on a CPU, x4",
        variants=("compact-fast-x2",),
        overlap=25,
        bytes_per_pixel=1400,
    )


class CompactFastX2(Compact):
    """`compact-fast` for twice the size."""

    spec: ClassVar[MethodSpec] = replace(
        CompactFast.spec,
        name="compact-fast-x2",
        summary="compact-fast for x2: chosen for scales up to 2",
        scale=2,
        variants=("compact-fast",),
    )


def spec_of(spec: MethodSpec, config: CompactConfig) -> MethodSpec:
    """`spec` with what a network of this shape changes in it."""
    with torch.device("meta"):
        radius = CompactNet(config).receptive_radius
    return replace(spec, scale=config.scale, overlap=radius)
