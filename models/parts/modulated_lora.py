"""LoRA that is another one for each picture: between its factors stands a matrix that the picture's
degradation decides.

Zhang et al., "Degradation-Guided One-Step Image Super-Resolution with Diffusion Priors" (S3Diff),
2024: where LoRA gives a layer the output W x + s B A x, it is W x + s B M^T A x here, and M, r x r,
is one for all layers of a block. For one picture at a time it can be merged: W' = W + s B M^T A.

    degrees d -> sin, cos (2 pi d w) -> linear, ReLU ----+
                                                         +-> linear -> M of each block
    block -> embedding ---------------> linear, ReLU ----+
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import pi
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from restore.errors import WeightsError
from restore.models.parts.lora import LoraPair, find_layer

MIDDLE_BLOCK = 4
FIRST_UP_BLOCK = 5
_BLOCK = re.compile(r"(?:encoder\.)?(down_blocks|up_blocks)\.(\d+)\.")


@dataclass(frozen=True, kw_only=True, slots=True)
class ModulationNet:
    """The small networks that give M; all in float32, whatever the large one computes in."""

    waves: Tensor
    """w: frequencies of the degrees, `(n,)`."""
    degrees: tuple[Tensor, Tensor]
    """Weight `(d, 4 n)` and bias of the linear layer over their sines and cosines."""
    blocks: tuple[Tensor, Tensor]
    """Weight `(e, m)` and bias of the linear layer over the blocks' embeddings."""
    fuse: tuple[Tensor, Tensor]
    """Weight `(r^2, d + e)` and bias of the last layer."""
    embeddings: Tensor
    """Of each block, `(blocks, m)`."""

    def __post_init__(self) -> None:
        wide = (self.degrees[0].shape[1], self.blocks[0].shape[1], self.fuse[0].shape[1])
        fed = 4 * len(self.waves), self.embeddings.shape[1]
        joined = len(self.degrees[0]) + len(self.blocks[0])
        if wide != (*fed, joined) or self.rank**2 != len(self.fuse[0]):
            raise WeightsError(
                f"its modulation takes {wide} numbers and is given {(*fed, joined)}, or gives "
                f"{len(self.fuse[0])}, which is no square"
            )

    @property
    def rank(self) -> int:
        """r."""
        return round(len(self.fuse[0]) ** 0.5)

    def to(self, device: torch.device) -> ModulationNet:
        """The same on a device."""
        return ModulationNet(
            waves=self.waves.to(device),
            degrees=(self.degrees[0].to(device), self.degrees[1].to(device)),
            blocks=(self.blocks[0].to(device), self.blocks[1].to(device)),
            fuse=(self.fuse[0].to(device), self.fuse[1].to(device)),
            embeddings=self.embeddings.to(device),
        )

    def matrices(self, degrees: Tensor) -> Tensor:
        """M of each block, `(blocks, r, r)`, for the two degrees `(2,)` of one picture."""
        phase = 2 * pi * degrees[:, None] * self.waves
        waves = torch.cat([phase.sin(), phase.cos()], dim=1).flatten()  # (4 n,)
        of_picture = F.relu(F.linear(waves, *self.degrees))
        of_blocks = F.relu(F.linear(self.embeddings, *self.blocks))
        both = torch.cat([of_picture.expand(len(of_blocks), -1), of_blocks], dim=1)
        return F.linear(both, *self.fuse).view(-1, self.rank, self.rank)


class ModulatedLora:
    """The pairs of one network."""

    def __init__(
        self, module: nn.Module, pairs: Mapping[str, LoraPair], *, scale: float, blocks: int
    ) -> None:
        """Find the layers and compare their shapes.

        Args:
            module: the network; it is changed only within `merged`.
            pairs: factors by the name of their layer.
            scale: s.
            blocks: how many matrices there are.

        Raises:
            WeightsError: a layer is missing or of another shape.
        """
        self._scale = scale
        self._layers: list[tuple[nn.Linear | nn.Conv2d, LoraPair, int]] = []
        for name, pair in pairs.items():
            layer = find_layer(module, name)
            shape = (pair.up.shape[0], *pair.down.shape[1:])
            if layer.weight.shape != shape:
                raise WeightsError(
                    f"the LoRA of '{name}' makes a weight of {shape}, the base model has "
                    f"{tuple(layer.weight.shape)}; give the base that it was trained on"
                )
            self._layers.append((layer, pair, block_of(name, blocks=blocks)))

    def to(self, device: torch.device) -> None:
        """Move the factors, which stay in float32; the network is moved by its owner."""
        self._layers = [
            (layer, LoraPair(down=p.down.to(device).float(), up=p.up.to(device).float()), block)
            for layer, p, block in self._layers
        ]

    @contextlib.contextmanager
    def merged(self, matrices: Tensor) -> Iterator[None]:
        """Within it, the network is that of the picture which `matrices` was made for.

        W' is computed in float32 and rounded once; W itself is put back, not computed back, so
        that nothing adds up over the frames of a clip. Both are in memory meanwhile.

        Args:
            matrices: `(blocks, r, r)`.
        """
        kept = [layer.weight.data for layer, _, _ in self._layers]
        try:
            self._merge(matrices)
            yield
        finally:
            for (layer, _, _), weight in zip(self._layers, kept, strict=True):
                layer.weight.data = weight

    # Outside of the inference mode, whose tensors cannot stand for parameters.
    @torch.inference_mode(False)
    @torch.no_grad()
    def _merge(self, matrices: Tensor) -> None:
        turned = matrices.clone().float().transpose(1, 2)  # M^T
        for layer, pair, block in self._layers:
            weight = layer.weight.data
            down = turned[block] @ pair.down.flatten(1)  # (r, in)
            value = torch.addmm(
                weight.float().flatten(1), pair.up.flatten(1), down, alpha=self._scale
            )
            result = torch.empty_like(weight)  # keeps the order in memory, such as channels last
            layer.weight.data = result.copy_(value.view(weight.shape))


def block_of(name: str, *, blocks: int) -> int:
    """Number of the block that a layer lies in.

    Blocks on the way down count from 0, the middle is 4, those on the way up count from 5, and
    the last number is that of the first and the last convolution.
    """
    if match := _BLOCK.match(name):
        return int(match[2]) + (FIRST_UP_BLOCK if match[1] == "up_blocks" else 0)
    return MIDDLE_BLOCK if "mid_block." in name else blocks - 1


def targeted(module: nn.Module, patterns: str | Sequence[str]) -> set[str]:
    """Names of the layers that PEFT adapts when it is given `patterns`.

    Args:
        module: the network.
        patterns: a regular expression for whole names, or ends of names.

    Raises:
        WeightsError: it is no regular expression.
    """
    names = [name for name, layer in module.named_modules() if _adaptable(layer)]
    if not isinstance(patterns, str):
        ends = tuple("." + pattern for pattern in patterns)
        return {name for name in names if ("." + name).endswith(ends)}
    try:
        return {name for name in names if re.fullmatch(patterns, name)}
    except re.error as error:
        raise WeightsError(
            f"the weights list the layers that they adapt as '{patterns}', which is no regular "
            "expression; they are damaged: fetch them again"
        ) from error


def _adaptable(layer: Any) -> bool:
    return isinstance(layer, nn.Linear | nn.Conv2d)
