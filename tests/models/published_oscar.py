"""An `oscar.pkl` of random numbers, in the layout that OSCAR's training script saves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from published import FULL, TINY, BaseSize, fill, filled, make_base, make_unet
from published_osediff import factors, unet_groups
from torch import Tensor, nn

from restore.models.parts.oscar.hyper_encoder import HyperConfig, HyperEncoder
from restore.models.parts.oscar.rates import RATES

VELOCITY = {"prediction_type": "v_prediction", "_class_name": "DDIMScheduler"}
"""What the scheduler of the 768-pixel model has else."""
TINY_HYPER = HyperConfig(inner=16, outer=24, code=8)
FULL_HYPER = HyperConfig()


def make_velocity_base(folder: Path, size: BaseSize = TINY, *, seed: int = 1) -> Path:
    """Write a Stable Diffusion 2.1 (768-v) in diffusers' layout, without its text encoder."""
    return make_base(folder, replace(size, scheduler=VELOCITY), seed=seed, words=False)


def make_oscar(
    path: Path, unet: nn.Module, *, seed: int, hyper: HyperConfig = TINY_HYPER, rank: int = 4
) -> Path:
    """Write the file for a base of `unet`, which is left alone."""
    content: dict[str, Any] = {"hyper_encoders": hyper_state(hyper, seed)}
    context: Any = unet.config
    embeddings = {"embeddings": torch.empty(77, context["cross_attention_dim"])}
    fill(embeddings, seed + 1, gain=5)  # of about the size of a text encoder
    content["embeddings"] = nn.Parameter(embeddings["embeddings"])
    state: dict[str, Tensor] = {}
    for group, layers in unet_groups(unet).items():
        content[f"unet_lora_{group}_modules"] = layers
        for layer in layers:
            state |= factors(unet.get_submodule(layer), layer, f"default_{group}", rank)
    fill(state, seed + 2, gain=0.3)
    conv_in = unet.get_submodule("conv_in")
    for kind in ("weight", "bias"):  # not trained, and so the base's
        state[f"conv_in.base_layer.{kind}"] = getattr(conv_in, kind).detach().clone()
    content |= {"rank_unet": rank, "state_dict_unet": state}
    torch.save(content, path)
    return path


def hyper_state(config: HyperConfig, seed: int) -> dict[str, Tensor]:
    """Hyper-encoders of all rates, their code books of unit length."""
    networks = nn.ModuleList(HyperEncoder(config, rate) for rate in RATES)
    filled(networks, seed)
    state = dict(networks.state_dict())
    for name in state:
        if name.endswith("_codebook.embed"):
            state[name] = F.normalize(state[name], dim=-1)
    return state


def make_all(folder: Path, size: BaseSize = TINY) -> tuple[Path, Path]:
    """Write `oscar.pkl` and its base."""
    folder.mkdir(parents=True, exist_ok=True)
    base = make_velocity_base(folder / "base", size)
    full = size is FULL
    weights = make_oscar(
        folder / "oscar.pkl",
        filled(make_unet(size), 1),
        seed=9,
        hyper=FULL_HYPER if full else TINY_HYPER,
        rank=16 if full else 4,
    )
    return weights, base
