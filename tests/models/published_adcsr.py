"""AdcSR's two files of random numbers, in the layouts in which its authors publish them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from published import fill
from torch import Tensor

from restore.models.adcsr_net import AdcSRConfig, build

TINY = AdcSRConfig(unet=(48, 48, 48, 96), decoder=(32, 32, 64, 64))
"""Both rules for the groups occur: 48 and 144 channels have 24, 96 and 192 have 32."""
FULL = AdcSRConfig()


def make_adcsr(folder: Path, config: AdcSRConfig = TINY, *, seed: int = 7) -> Path:
    """Write `net_params_200.pkl` and `halfDecoder.ckpt` into `folder`; returns the first."""
    path = folder / "net_params_200.pkl"
    torch.save(network(config, seed), path)
    torch.save(half_decoder(config, seed + 1), folder / "halfDecoder.ckpt")
    return path


def network(config: AdcSRConfig = TINY, seed: int = 7) -> dict[str, Tensor]:
    """What the authors' training saves of its data parallel module."""
    net = build(config)
    unet = with_memory(net.unet.state_dict())
    middle = with_memory(net.decoder.mid_block.state_dict())
    fill(unet, seed)
    fill(middle, seed)
    return saved_names(unet, middle)


def layout(config: AdcSRConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of `network`, without making it."""
    net = build(config)
    named = saved_names(net.unet.state_dict(), net.decoder.mid_block.state_dict())
    return {name: tuple(value.shape) for name, value in named.items()}


def saved_names(unet: dict[str, Tensor], middle: dict[str, Tensor]) -> dict[str, Tensor]:
    """The UNet by name and once more as layers in a row, and the decoder's middle block."""
    rows = [f"down_blocks.{i}." for i in range(4)] + ["mid_block."]
    rows += [f"up_blocks.{i}." for i in range(4)] + ["conv_norm_out.", "conv_act.", "conv_out."]
    copies = {
        f"body.{i}.{name.removeprefix(row)}": value
        for i, row in enumerate(rows)
        for name, value in unet.items()
        if name.startswith(row)
    }
    saved = {f"module.body.1.{name}": value for name, value in {**unet, **copies}.items()}
    return saved | {f"module.body.2.{name}": value for name, value in middle.items()}


def half_decoder(config: AdcSRConfig = TINY, seed: int = 8) -> dict[str, Any]:
    """A checkpoint of the training of the decoder; it holds more than the decoder."""
    state = with_memory(build(config).decoder.state_dict())
    state["conv_in.weight"] = torch.empty(config.decoder[-1], 4, 3, 3)
    state["conv_in.bias"] = torch.empty(config.decoder[-1])
    fill(state, seed)
    saved = {f"decoder.{name}": value for name, value in state.items()}
    saved["encoder.conv_in.weight"] = torch.zeros(4, 3, 3, 3)
    return {"epoch": 3, "state_dict": saved, "callbacks": {}, "lr_schedulers": []}


def with_memory(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of the same names and shapes to be filled."""
    return {name: torch.empty(value.shape) for name, value in state.items()}
