"""Random weights in the formats in which models are published: tiny for tests, or full size.

The numbers depend on the names of the tensors alone, not on the order in which a library makes
them, so that other code on another machine gets the same network.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True, slots=True)
class BaseSize:
    """Shape of a Stable Diffusion base."""

    channels: tuple[int, ...] = (32, 32, 64, 64)
    """Of the U-Net at each level."""
    heads: tuple[int, ...] = (1, 2, 2, 2)
    """Of its attention, at each level."""
    layers: int = 1
    """Residual blocks of the U-Net at each level."""
    vae: tuple[int, ...] = (32, 32, 64, 64)
    """Channels of the autoencoder at each level."""
    text: int = 32
    """Width of the text encoder."""
    text_layers: int = 2
    """Its layers."""
    text_heads: int = 2
    """Its heads."""
    scheduler: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the scheduler other than those of SD 2.1 base."""


TINY = BaseSize()
FULL = BaseSize(
    channels=(320, 640, 1280, 1280),
    heads=(5, 10, 20, 20),
    layers=2,
    vae=(128, 256, 512, 512),
    text=1024,
    text_layers=23,
    text_heads=16,
)
TURBO = {"timestep_spacing": "trailing", "_class_name": "EulerDiscreteScheduler"}
"""What the scheduler of SD-Turbo has else."""


def fill(state: Mapping[str, Tensor], seed: int, *, gain: float = 1.0) -> None:
    """Give every floating-point tensor random values, by its name; weights of about unit gain."""
    for name, tensor in state.items():
        if not tensor.is_floating_point():
            continue
        generator = torch.Generator().manual_seed(zlib.crc32(f"{seed} {name}".encode()))
        noise = torch.randn(tensor.shape, generator=generator)
        if tensor.ndim >= 2:
            fan_in = tensor[0].numel()
            value = noise * gain / fan_in**0.5
        elif name.endswith("weight"):
            value = 1 + 0.1 * noise
        else:
            value = 0.1 * noise
        tensor.copy_(value)


def filled(module: nn.Module, seed: int, *, gain: float = 1.0) -> nn.Module:
    """`module` with such weights."""
    with torch.no_grad():
        fill(module.state_dict(), seed, gain=gain)
    return module.eval()


def make_base(folder: Path, size: BaseSize = TINY, *, seed: int = 1, words: bool = True) -> Path:
    """Write a base in diffusers' layout and return its folder; `words` = with a text encoder."""
    unet, vae = make_unet(size), make_vae(size)
    filled(unet, seed).save_pretrained(folder / "unet")  # type: ignore[operator]
    filled(vae, seed + 1)
    with torch.no_grad():  # most of the result within [-1, 1], where nothing is cut off
        vae.get_parameter("decoder.conv_out.weight").mul_(0.3)
    vae.save_pretrained(folder / "vae")  # type: ignore[operator]
    if words:
        make_text(folder, size, seed=seed + 2)
    config = {
        "_class_name": "PNDMScheduler",
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "num_train_timesteps": 1000,
        "prediction_type": "epsilon",
        "set_alpha_to_one": False,
        "skip_prk_steps": True,
        "steps_offset": 1,
        "clip_sample": False,
        "trained_betas": None,
        **size.scheduler,
    }
    (folder / "scheduler").mkdir(parents=True, exist_ok=True)
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(config))
    return folder


def make_unet(size: BaseSize = TINY) -> nn.Module:
    """The U-Net, unfilled."""
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=64,
        in_channels=4,
        out_channels=4,
        block_out_channels=size.channels,
        layers_per_block=size.layers,
        attention_head_dim=size.heads,
        cross_attention_dim=size.text,
        use_linear_projection=True,
    )


def make_vae(size: BaseSize = TINY) -> nn.Module:
    """The autoencoder, unfilled."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=size.vae,
        layers_per_block=2,
        latent_channels=4,
        norm_num_groups=32,
        sample_size=512,
        scaling_factor=0.18215,
    )


def make_text(folder: Path, size: BaseSize, *, seed: int) -> None:
    """Write a text encoder, and a tokeniser that knows single characters."""
    from transformers import CLIPTextConfig, CLIPTextModel

    letters = [chr(c) for c in (*range(33, 127), *range(161, 173), *range(174, 256))]
    letters += [chr(c) for c in range(256, 256 + 256 - len(letters))]  # CLIP's names of the bytes
    words = [*letters, *(letter + "</w>" for letter in letters)]
    words += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: i for i, word in enumerate(words)}
    place = folder / "tokenizer"
    place.mkdir(parents=True, exist_ok=True)
    (place / "vocab.json").write_text(json.dumps(vocabulary))
    (place / "merges.txt").write_text("#version: 0.2\n")
    special = {
        "bos_token": "<|startoftext|>",
        "eos_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
    }
    (place / "special_tokens_map.json").write_text(json.dumps(special))
    config = {**special, "model_max_length": 77, "tokenizer_class": "CLIPTokenizer"}
    (place / "tokenizer_config.json").write_text(json.dumps({**config, "do_lower_case": True}))
    encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(vocabulary),
            hidden_size=size.text,
            intermediate_size=4 * size.text,
            num_hidden_layers=size.text_layers,
            num_attention_heads=size.text_heads,
            max_position_embeddings=77,
            hidden_act="gelu",
            projection_dim=size.text,
            bos_token_id=vocabulary["<|startoftext|>"],
            eos_token_id=vocabulary["<|endoftext|>"],
            pad_token_id=vocabulary["<|endoftext|>"],
        )
    )
    filled(encoder, seed)
    encoder.config.architectures = ["CLIPTextModel"]
    encoder.config.save_pretrained(folder / "text_encoder")
    # The names of published files; transformers 5 has dropped the prefix from its own.
    state = {
        f"text_model.{name.removeprefix('text_model.')}": tensor.contiguous()
        for name, tensor in encoder.state_dict().items()
    }
    save_file(state, folder / "text_encoder" / "model.safetensors", {"format": "pt"})


def picture(height: int, width: int, seed: int) -> Tensor:
    """A picture `(1, 3, H, W)` in [0, 1] of 256 levels: waves, an edge and noise."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.linspace(0, 6.28, height)[:, None]
    x = torch.linspace(0, 6.28, width)[None]
    waves = torch.stack([torch.sin((k + 1) * x + seed) * torch.cos((3 - k) * y) for k in range(3)])
    value = 0.5 + 0.25 * waves + 0.2 * ((x + y) > 6) - 0.1
    value = value + 0.05 * torch.randn(3, height, width, generator=generator)
    return (value.clamp(0, 1) * 255).round()[None] / 255
