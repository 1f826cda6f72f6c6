"""An `s3diff.pkl` and a `de_net.pth` of random numbers, as S3Diff's training script saves them."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from published import FULL, TINY, TURBO, BaseSize, fill, make_base
from torch import Tensor, nn

UNET_TARGETS = [
    *("to_k", "to_q", "to_v", "to_out.0", "conv", "conv1", "conv2", "conv_shortcut", "conv_out"),
    *("proj_in", "proj_out", "ff.net.2", "ff.net.0.proj"),
]
VAE_TARGETS = (
    r"^encoder\..*(conv1|conv2|conv_in|conv_shortcut|conv|conv_out|to_k|to_q|to_v|to_out\.0)$"
)
WAVES = 64
BLOCKS = {"unet": 10, "vae": 6}


def make_s3diff(
    path: Path, unet: nn.Module, vae: nn.Module, *, seed: int, ranks: tuple[int, int] = (4, 2)
) -> Path:
    """Write the file for a base of `unet` and `vae`, which are left alone.

    Args:
        path: where.
        unet, vae: networks of the base.
        seed: of the numbers.
        ranks: of the LoRA of U-Net and autoencoder; published are 32 and 16.
    """
    rank = dict(zip(("unet", "vae"), ranks, strict=True))
    content: dict[str, Any] = {"unet_lora_target_modules": UNET_TARGETS}
    content["vae_lora_target_modules"] = VAE_TARGETS
    layers = {"unet": unet_layers(unet), "vae": vae_layers(vae)}
    modules = {"unet": unet, "vae": vae}
    adapter = {"unet": "default", "vae": "vae_skip"}
    for net, names in layers.items():
        state: dict[str, Tensor] = {}
        for name in names:
            state |= factors(modules[net].get_submodule(name), name, adapter[net], rank[net])
        fill(state, seed, gain=0.2)
        content[f"rank_{net}"], content[f"state_dict_{net}"] = rank[net], state
        for key, layer in modulation(rank[net]).items():
            fill(named := layer.state_dict(), seed + (net == "vae") + 10, gain=2.0)
            content[f"state_dict_{net}_{key}_mlp"] = named
    for kind in ("weight", "bias"):  # trained, and so a little off the base's
        own = unet.get_submodule("conv_in").get_parameter(kind).detach()
        fill(noise := {kind: torch.empty_like(own)}, seed + 2, gain=0.1)
        content["state_dict_unet"][f"conv_in.{kind}"] = own + noise[kind] * (
            0.1 if own.ndim < 2 else 1
        )
    fill(rest := {"w": torch.empty(WAVES)}, seed + 3)
    content["w"] = nn.Parameter(rest["w"] * 10, requires_grad=False)
    blocks = {net: {"weight": torch.empty(count, 64)} for net, count in BLOCKS.items()}
    for net, embedding in blocks.items():
        fill({net: embedding["weight"]}, seed + 4, gain=8.0)  # a row has 64 numbers of deviation 1
    content["state_embeddings"] = {f"state_dict_{net}_block": blocks[net] for net in blocks}
    torch.save(content, path)
    return path


def modulation(rank: int) -> dict[str, nn.Module]:
    """The layers that make the matrices of one network."""
    return {
        "de": nn.Sequential(nn.Linear(4 * WAVES, 256)),
        "block": nn.Sequential(nn.Linear(64, 64)),
        "fuse": nn.Linear(256 + 64, rank**2),
    }


def factors(layer: nn.Module, name: str, adapter: str, rank: int) -> dict[str, Tensor]:
    """Empty A and B for a layer."""
    weight: Any = layer.weight
    tail = (1, 1) if weight.ndim == 4 else ()
    return {
        f"{name}.lora_A.{adapter}.weight": torch.empty(rank, *weight.shape[1:]),
        f"{name}.lora_B.{adapter}.weight": torch.empty(weight.shape[0], rank, *tail),
    }


def unet_layers(unet: nn.Module) -> list[str]:
    """Names of the adapted layers of a U-Net: they end like one of the targets."""
    names = [name for name, layer in unet.named_modules() if hasattr(layer, "weight")]
    ends = tuple(f".{target}" for target in UNET_TARGETS)
    return [name for name in names if f".{name}".endswith(ends)]


def vae_layers(vae: nn.Module) -> list[str]:
    """Names of the adapted layers of an autoencoder."""
    names = [name for name, layer in vae.named_modules() if hasattr(layer, "weight")]
    return [name for name in names if re.match(VAE_TARGETS, name)]


def make_estimator(path: Path, *, seed: int) -> Path:
    """Write `de_net.pth`; it has one size only."""
    shapes: dict[str, tuple[int, ...]] = {}
    for i in range(2):
        shapes |= {f"conv_first.{i}.weight": (64, 3, 3, 3), f"conv_first.{i}.bias": (64,)}
        for place, channels in [*((k, 64) for k in range(6)), (7, 128), (8, 128)]:
            for conv in ("conv1", "conv2"):
                shapes[f"body.{i}.{place}.{conv}.weight"] = (channels, channels, 3, 3)
                shapes[f"body.{i}.{place}.{conv}.bias"] = (channels,)
        shapes |= {f"body.{i}.6.weight": (128, 64, 3, 3), f"body.{i}.6.bias": (128,)}
        shapes |= {f"fc_degree.{i}.0.weight": (512, 128), f"fc_degree.{i}.0.bias": (512,)}
        shapes |= {f"fc_degree.{i}.2.weight": (1, 512), f"fc_degree.{i}.2.bias": (1,)}
    state = {name: torch.empty(shape) for name, shape in shapes.items()}
    fill(state, seed, gain=1.0)
    torch.save(state, path)
    return path


def make_turbo(folder: Path, size: BaseSize = TINY, *, seed: int = 1) -> Path:
    """Write an SD-Turbo in diffusers' layout."""
    return make_base(folder, replace(size, scheduler=TURBO), seed=seed)


def make_all(folder: Path, size: BaseSize = TINY, *, seed: int = 1) -> tuple[Path, Path]:
    """Write both weight files and a base below `folder`; returns `s3diff.pkl` and the base."""
    from diffusers import AutoencoderKL, UNet2DConditionModel

    base = make_turbo(folder / "sd-turbo", size, seed=seed)
    unet = UNet2DConditionModel.from_pretrained(base / "unet")
    vae = AutoencoderKL.from_pretrained(base / "vae")
    ranks = (32, 16) if size == FULL else (4, 2)
    weights = make_s3diff(folder / "s3diff.pkl", unet, vae, seed=seed + 20, ranks=ranks)
    make_estimator(folder / "de_net.pth", seed=seed + 40)
    return weights, base
