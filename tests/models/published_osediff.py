"""An `osediff.pkl` of random numbers, in the layout that OSEDiff's training script saves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from published import fill
from torch import Tensor, nn

UNET_PATTERNS = (
    *("to_k", "to_q", "to_v", "to_out.0", "conv", "conv1", "conv2", "conv_in", "conv_shortcut"),
    *("conv_out", "proj_out", "proj_in", "ff.net.2", "ff.net.0.proj"),
)
VAE_PATTERNS = (
    *("conv1", "conv2", "conv_in", "conv_shortcut", "conv", "conv_out"),
    *("to_k", "to_q", "to_v", "to_out.0"),
)


def make_osediff(path: Path, unet: nn.Module, vae: nn.Module, *, seed: int, rank: int = 4) -> Path:
    """Write the file for a base of `unet` and `vae`, which are left alone."""
    groups = unet_groups(unet)
    content: dict[str, Any] = {"rank_unet": rank, "rank_vae": rank}
    state: dict[str, Tensor] = {}
    for group, layers in groups.items():
        content[f"unet_lora_{group}_modules"] = layers
        for layer in layers:
            state |= factors(unet.get_submodule(layer), layer, f"default_{group}", rank)
    conv_in = unet.get_submodule("conv_in")
    content["vae_lora_encoder_modules"] = layers = vae_layers(vae)
    vae_state: dict[str, Tensor] = {}
    for layer in layers:
        vae_state |= factors(vae.get_submodule(layer), layer, "default_encoder", rank)
    fill(state, seed, gain=0.3)
    fill(vae_state, seed + 1, gain=0.3)
    for kind in ("weight", "bias"):  # trained, and so a little off the base's
        own = getattr(conv_in, kind).detach()
        noise = {f"conv_in.base_layer.{kind}": torch.empty_like(own)}
        fill(noise, seed + 2, gain=0.1)
        state[f"conv_in.base_layer.{kind}"] = (
            own + (0.1 if kind == "bias" else 1) * noise.popitem()[1]
        )
    content["state_dict_unet"], content["state_dict_vae"] = state, vae_state
    torch.save(content, path)
    return path


def factors(layer: nn.Module, name: str, adapter: str, rank: int) -> dict[str, Tensor]:
    """Empty A and B for a layer."""
    weight: Any = layer.weight
    tail = (1, 1) if weight.ndim == 4 else ()
    return {
        f"{name}.lora_A.{adapter}.weight": torch.empty(rank, *weight.shape[1:]),
        f"{name}.lora_B.{adapter}.weight": torch.empty(weight.shape[0], rank, *tail),
    }


def unet_groups(unet: nn.Module) -> dict[str, list[str]]:
    """Names of the adapted layers of a U-Net."""
    groups: dict[str, list[str]] = {"encoder": [], "decoder": [], "others": []}
    for name, _ in unet.named_parameters():
        if "bias" in name or "norm" in name or not any(p in name for p in UNET_PATTERNS):
            continue
        if "down_blocks" in name or "conv_in" in name:
            group = "encoder"
        elif "up_blocks" in name or "conv_out" in name:
            group = "decoder"
        else:
            group = "others"
        groups[group].append(name.replace(".weight", ""))
    return groups


def vae_layers(vae: nn.Module) -> list[str]:
    """Names of the adapted layers of an autoencoder, some twice, as in the published file."""
    layers = []
    for name, _ in vae.named_parameters():
        if "bias" in name or "norm" in name:
            continue
        for pattern in VAE_PATTERNS:
            own = "quant_conv" in name and "post_quant_conv" not in name
            if (pattern in name and "encoder" in name) or own:
                layers.append(name.replace(".weight", ""))
    return layers
