"""A `model.pkl` of random numbers, in the layout that DLoRAL's training script saves.

It holds the whole U-Net with its two LoRAs in PEFT's names, and what brings a frame to the next:
SPyNet, Cross-Frame Retrieval, and layers of an earlier design that nothing runs.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from published import FULL, TINY, BaseSize, fill, filled, make_base, make_unet, picture
from published_osediff import factors, unet_groups
from torch import Tensor, nn

HEADS, WIDTH = 9, 64  # of the retrieval
Shapes = dict[str, tuple[int, ...]]


def make_all(folder: Path, size: BaseSize = TINY) -> tuple[Path, Path]:
    """`model.pkl` and the base beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    ranks = (4, 4) if size is FULL else (4, 2)  # unequal, so that they are told apart
    return make_dloral(folder / "model.pkl", size, ranks=ranks), make_base(folder / "sd21", size)


def make_dloral(
    path: Path, size: BaseSize = TINY, *, seed: int = 5, ranks: tuple[int, int] = (4, 2)
) -> Path:
    """Write the file; `ranks` of the LoRAs called quality and consistency."""
    unet = wide_unet(size)
    filled(unet, seed)
    groups = unet_groups(unet)
    content: dict[str, Any] = {}
    lora: dict[str, Tensor] = {}
    for branch, rank in zip(("quality", "consistency"), ranks, strict=True):
        content[f"lora_rank_unet_{branch}"] = rank
        for group, layers in groups.items():
            content[f"unet_lora_{group}_modules_{branch}"] = list(layers)
            for layer in layers:
                adapter = f"default_{group}_{branch}"
                lora |= factors(unet.get_submodule(layer), layer, adapter, rank)
    fill(lora, seed + 1, gain=0.25)
    adapted = {layer for layers in groups.values() for layer in layers}
    content["state_dict_unet"] = {wrapped(k, adapted): v for k, v in unet.state_dict().items()}
    content["state_dict_unet"] |= lora
    content["state_dict_bpp"] = alignment(seed + 2)
    torch.save(content, path)
    return path


def wide_unet(size: BaseSize = TINY) -> nn.Module:
    """The U-Net with an input twice as wide, unfilled."""
    unet: Any = make_unet(size)
    return unet.from_config({**unet.config, "in_channels": 8})  # type: ignore[no-any-return]


def wrapped(name: str, adapted: set[str]) -> str:
    """What PEFT calls a tensor of a layer that it adapts."""
    layer, _, kind = name.rpartition(".")
    return f"{layer}.base_layer.{kind}" if layer in adapted else name


def alignment(seed: int) -> dict[str, Tensor]:
    """`state_dict_bpp`: motion of a few latents, and a retrieval that changes what it is given."""
    state = {name: torch.empty(shape) for name, shape in (spynet() | retrieval() | dead()).items()}
    fill(state, seed, gain=1.2)
    for name, tensor in state.items():
        if name.startswith("spynet.") and name.endswith("4.conv.weight"):
            tensor.mul_(0.4)
        elif name == "cross_attn_module.proj_out.weight":
            tensor.mul_(4)
    state["spynet.mean"] = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
    state["spynet.std"] = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
    return state


def spynet() -> Shapes:
    """Names and shapes of the network that finds motion."""
    channels = (8, 32, 64, 32, 16, 2)
    shapes: Shapes = {}
    for level in range(6):
        for i in range(5):
            conv = f"spynet.basic_module.{level}.basic_module.{i}.conv"
            shapes |= _conv(conv, channels[i], channels[i + 1], 7)
    return shapes


def retrieval() -> Shapes:
    """Names and shapes of Cross-Frame Retrieval."""
    shapes: Shapes = {}
    for part in ("query", "key", "value"):
        shapes |= _conv(f"cross_attn_module.{part}_conv", 4, HEADS * WIDTH, 1)
    shapes |= _conv("cross_attn_module.proj_out", HEADS * WIDTH, 4, 1)
    shapes["cross_attn_module.threshold_fc.weight"] = (1, WIDTH)
    shapes["cross_attn_module.threshold_fc.bias"] = (1,)
    return shapes


def dead() -> Shapes:
    """Names and shapes of what nothing runs."""
    shapes = _conv("conv_hr", 64, 64, 3) | _conv("conv_last", 64, 4, 3)
    for name, fan_in, out, blocks in (
        ("feat_extract", 4, 64, 5),
        ("weight_predict", 3, 64, 5),
        ("weight_predict_final", 64, 1, 1),
        ("reconstruction_feat", 64, 64, 5),
    ):
        shapes |= _conv(f"{name}.main.0", fan_in, out, 3)
        for block in range(blocks):
            for i in (1, 2):
                shapes |= _conv(f"{name}.main.2.{block}.conv{i}", out, out, 3)
    return shapes


def _conv(name: str, fan_in: int, out: int, side: int) -> Shapes:
    return {f"{name}.weight": (out, fan_in, side, side), f"{name}.bias": (out,)}


def moving(count: int, height: int, width: int) -> Tensor:
    """A picture that moves, and changes a little: `(T, 3, H, W)` in [0, 1] of 256 levels."""
    large = picture(height + 24, width + 24, 11)[0]
    wave = torch.arange(width) / 5.0
    frames = [
        large[:, 5 * i : 5 * i + height, 3 * i : 3 * i + width] + 0.04 * i * torch.sin(wave + i)
        for i in (n % 5 for n in range(count))
    ]
    return (torch.stack(frames).clamp(0, 1) * 255).round() / 255


def change(source: Path, target: Path, edit: Callable[[dict[str, Any]], Any]) -> Path:
    """A file with something else in it."""
    content = torch.load(source, weights_only=True)
    edited = edit(content)
    torch.save(content if edited is None else edited, target)
    return target
