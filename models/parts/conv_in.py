"""The first convolution of a U-Net, which some methods train whole; it tells bases apart."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from restore.errors import WeightsError
from restore.models.parts.lora import find_layer

FARTHEST = 0.5
"""Relative distance of the trained weight from the base's beyond which that is another base."""
ROUNDED = 2e-3
"""The same for a weight that was not trained: a base in half precision differs by 0.0003."""


def replace_conv_in(
    unet: nn.Module, weight: Tensor, bias: Tensor, *, path: Path, base: str
) -> None:
    """Put a trained first convolution in the place of the base's.

    Args:
        unet: the base's network, changed in place.
        weight, bias: the trained ones.
        path: their file, for messages.
        base: what it was trained on, in words.

    Raises:
        WeightsError: it has another shape, or is too different to come from this base.
    """
    layer = find_layer(unet, "conv_in")
    weight = weight.float()
    if weight.shape != layer.weight.shape:
        raise WeightsError(
            f"{path} was trained on a base whose conv_in is {tuple(weight.shape)}, this one has "
            f"{tuple(layer.weight.shape)}; give {base} with --base"
        )
    distance = float((weight - layer.weight).norm() / layer.weight.norm().clamp_min(1e-12))
    if distance > FARTHEST:
        raise WeightsError(
            f"{path} was trained on another base: its conv_in differs from this one's by "
            f"{distance:.0%} (up to {FARTHEST:.0%} is training); give {base} with --base"
        )
    with torch.no_grad():
        layer.load_state_dict({"weight": weight, "bias": bias.float()})


def check_conv_in(unet: nn.Module, weight: Tensor, bias: Tensor, *, path: Path, base: str) -> None:
    """Find out by a first convolution that was not trained whether a base is the right one.

    The network gets the file's numbers: its own may be those of a base in half precision.

    Args:
        unet: the base's network, changed in place.
        weight, bias: those of the base that the file was made with.
        path: the file, for messages.
        base: that base, in words.

    Raises:
        WeightsError: they are not this base's.
    """
    layer = find_layer(unet, "conv_in")
    shapes = tuple(weight.shape), tuple(layer.weight.shape)
    if shapes[0] != shapes[1]:
        raise WeightsError(
            f"{path} was made with a base whose conv_in is {shapes[0]}, this one has {shapes[1]}; "
            f"give {base} with --base"
        )
    assert layer.bias is not None
    theirs = torch.cat([weight.float().flatten(), bias.float().flatten()])
    own = torch.cat([layer.weight.detach().flatten(), layer.bias.detach().flatten()]).float()
    distance = float((theirs - own).norm() / own.norm().clamp_min(1e-12))
    if not distance <= ROUNDED:
        raise WeightsError(
            f"{path} was made with another base: its conv_in, which was not trained, differs from "
            f"this one's by {distance:.1%}; give {base} with --base"
        )
    with torch.no_grad():
        layer.load_state_dict({"weight": weight.float(), "bias": bias.float()})
