"""LoRA that is trained: factors beside frozen weights, and their names in published files."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from restore.models.parts.lora import PEFT_ALPHA, find_layer

PATTERNS = (
    *("to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2"),
    "conv",
)
"""Parts of the names of the layers that OSEDiff's relatives adapt in a U-Net."""


class LoraDelta(nn.Module):
    """W + s B A, in the place of a frozen weight W (see `restore.models.parts.lora`)."""

    def __init__(self, weight: Tensor, rank: int) -> None:
        super().__init__()
        self.scale = PEFT_ALPHA / rank
        tail = (1, 1) if weight.ndim == 4 else ()
        # A small A and no B: the network begins as it was.
        self.down = nn.Parameter(torch.randn(rank, *weight.shape[1:]) / rank)
        self.up = nn.Parameter(torch.zeros(weight.shape[0], rank, *tail))

    def forward(self, weight: Tensor) -> Tensor:
        """The adapted weight."""
        delta = self.up.flatten(1) @ self.down.flatten(1)
        return weight + self.scale * delta.view_as(weight)


def attach(network: nn.Module, layers: list[str], *, rank: int) -> nn.ModuleDict:
    """Adapt layers of a frozen network.

    Args:
        network: changed in place; its own weights stay.
        layers: names of convolutions and linear layers.
        rank: r.

    Returns:
        What is trained, by the layers' names with `/` for dots.
    """
    adapters = nn.ModuleDict()
    for name in layers:
        layer = find_layer(network, name)
        delta = LoraDelta(layer.weight, rank)
        parametrize.register_parametrization(layer, "weight", delta)
        adapters[name.replace(".", "/")] = delta
    return adapters


def adapted_layers(unet: nn.Module) -> dict[str, list[str]]:
    """Names of the layers of a U-Net that are adapted: on the way down, up, and the others."""
    groups: dict[str, list[str]] = {"encoder": [], "decoder": [], "others": []}
    for name, module in unet.named_modules():
        if not isinstance(module, nn.Linear | nn.Conv2d) or "norm" in name:
            continue
        if not any(pattern in name for pattern in PATTERNS):
            continue
        down = name.startswith(("down_blocks", "conv_in"))
        up = name.startswith(("up_blocks", "conv_out"))
        groups["encoder" if down else "decoder" if up else "others"].append(name)
    return groups


def named_factors(state: dict[str, Tensor], groups: dict[str, list[str]]) -> dict[str, Tensor]:
    """Factors as PEFT names them, of the state dict of what `attach` gave.

    Args:
        state: `LAYER.down` and `LAYER.up`, with `/` for dots in the layer's name.
        groups: layers by adapter, without `default_` before the adapter's name.
    """
    adapter = {layer: group for group, layers in groups.items() for layer in layers}
    named = {}
    for key, tensor in state.items():
        layer, _, side = key.rpartition(".")
        layer = layer.replace("/", ".")
        factor = "lora_A" if side == "down" else "lora_B"
        named[f"{layer}.{factor}.default_{adapter[layer]}.weight"] = tensor
    return named


def read_factors(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The opposite of `named_factors`; what is no factor is left out."""
    found = {}
    for name, tensor in state.items():
        layer, mark, rest = name.partition(".lora_")
        if mark:
            side = "down" if rest.startswith("A") else "up"
            found[f"{layer.replace('.', '/')}.{side}"] = tensor
    return found
