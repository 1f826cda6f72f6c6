"""LoRA weights as PEFT names them, merged into the layers that they adapt.

Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022: W' = W + s B A, with
s = alpha / r (section 4.1). A convolution is adapted by a convolution A to r channels, of the same
kernel, and a 1x1 convolution B.

Names are `LAYER.lora_A.ADAPTER.weight` and `LAYER.lora_B.ADAPTER.weight`, or without `.ADAPTER`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from restore.errors import WeightsError

_NAME = re.compile(r"(?P<layer>.+)\.lora_(?P<side>[AB])(?:\.(?P<adapter>[^.]+))?\.weight")

PEFT_ALPHA = 8
"""Alpha of a `LoraConfig` that was given none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LoraPair:
    """The two factors that adapt one layer."""

    down: Tensor
    """A: `(r, in)`, or `(r, in, kh, kw)` of a convolution."""
    up: Tensor
    """B: `(out, r)`, or `(out, r, 1, 1)`."""

    @property
    def rank(self) -> int:
        """r."""
        return self.down.shape[0]

    def delta(self) -> Tensor:
        """B A in the shape of the layer's weight, float32."""
        down, up = self.down.float(), self.up.float()
        return (up.flatten(1) @ down.flatten(1)).view(up.shape[0], *down.shape[1:])


Adapters = dict[str, dict[str, LoraPair]]
"""Pairs by the adapter's name (empty when it has none) and the layer's name."""


def is_lora(name: str) -> bool:
    """Whether a tensor of that name is one factor of a pair."""
    return _NAME.fullmatch(name) is not None


def read_adapters(state: Mapping[str, Tensor]) -> Adapters:
    """The pairs among the tensors of a state dict; others are passed over.

    Raises:
        WeightsError: a pair has one factor only, or two that do not fit.
    """
    found: dict[tuple[str, str], dict[str, Tensor]] = {}
    for name, tensor in state.items():
        if match := _NAME.fullmatch(name):
            key = (match["adapter"] or "", match["layer"])
            found.setdefault(key, {})[match["side"]] = tensor
    adapters: Adapters = {}
    for (adapter, layer), sides in found.items():
        where = f"'{layer}' of the adapter '{adapter}'" if adapter else f"'{layer}'"
        if set(sides) != {"A", "B"}:
            raise WeightsError(
                f"the LoRA of {where} has no factor {'B' if 'A' in sides else 'A'}; the file is "
                "damaged or cut short: fetch it again"
            )
        if sides["A"].shape[0] != sides["B"].shape[1]:
            raise WeightsError(
                f"the LoRA of {where} has factors of rank {sides['A'].shape[0]} and "
                f"{sides['B'].shape[1]}; the file is damaged: fetch it again"
            )
        pair = LoraPair(down=sides["A"], up=sides["B"])
        adapters.setdefault(adapter, {})[layer] = pair
    return adapters


def merge(module: nn.Module, adapters: Iterable[tuple[Mapping[str, LoraPair], float]]) -> None:
    """Add pairs to the layers of a network: W <- W + s B A, in float32, then in W's format.

    Args:
        module: the network; its layers are found by name.
        adapters: pairs by layer, and the scale s of each adapter (alpha / r, times the user's).

    Raises:
        WeightsError: a layer is missing, or of another shape: the network is another one.
    """
    for pairs, scale in adapters:
        for name, pair in pairs.items():
            layer = find_layer(module, name)
            delta = pair.delta()
            if delta.shape != layer.weight.shape:
                raise WeightsError(
                    f"the LoRA of '{name}' makes a weight of {tuple(delta.shape)}, the base model "
                    f"has {tuple(layer.weight.shape)}; give the base that it was trained on"
                )
            with torch.no_grad():
                weight = layer.weight.data
                weight.copy_(weight.float() + scale * delta.to(weight.device))


def find_layer(module: nn.Module, name: str) -> nn.Linear | nn.Conv2d:
    """The layer of that name.

    Raises:
        WeightsError: there is none with a weight.
    """
    try:
        layer = module.get_submodule(name)
    except AttributeError:
        layer = None
    if not isinstance(layer, nn.Linear | nn.Conv2d):
        raise WeightsError(
            f"the weights adapt a layer '{name}' that the base model lacks; give the base that "
            "they were trained on"
        )
    return layer
