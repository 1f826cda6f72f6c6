"""The noise predictor of InvSR: what noise makes a diffusion model end at the sharp picture.

Yue et al., "Arbitrary-steps Image Super-resolution via Diffusion Inversion", CVPR 2025, section 3.

    time step -> sinusoids -> two linear layers ----+
                                                    v
    picture (3, H, W) -> conv -> [blocks] -> [half the size] -> [blocks] -> [blocks] -> conv
                                                                                          |
                         mean and log-variance of the noise, (4, H/2, W/2) each <---------+
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from restore.errors import WeightsError
from restore.models.parts.known_files import recognise
from restore.nested_weights import check_finite, open_nested

LATENT_CHANNELS = 4
HEAD_WIDTH = 64
"""Channels of one attention head."""
NORM_GROUPS = 32
NORM_EPS = 1e-6
LEAST_LOG_VARIANCE, LARGEST_LOG_VARIANCE = -30.0, 20.0

_WRAPPERS = ("module.", "_orig_mod.")
"""What training in parallel and torch.compile put before every name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PredictorConfig:
    """Shape of the network; the file does not say it, but the shapes of its tensors do."""

    channels: tuple[int, ...] = (256, 512)
    """Of each stage; each stage but the last halves the size."""
    layers: tuple[int, ...] = (3, 3)
    """Blocks of convolution and attention in each stage."""
    time_channels: int = 512
    """Width of the embedding of the time step."""


class NoisePredictor(nn.Module):
    """A picture and a time step -> the Gaussian of the noise; named as in the published file."""

    def __init__(self, config: PredictorConfig) -> None:
        super().__init__()
        self.encoder = _Encoder(config)

    def forward(self, picture: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """The Gaussian for pictures.

        Args:
            picture: RGB `(B, 3, H, W)` in [0, 1], H and W even.
            step: time step of the diffusion model at which its run will start.

        Returns:
            Mean and standard deviation, `(B, 4, H/2, W/2)` each, float32.
        """
        steps = torch.full((picture.shape[0],), float(step), device=picture.device)
        moments = self.encoder(picture * 2 - 1, steps).float()
        mean, log_variance = moments.chunk(2, dim=1)
        log_variance = log_variance.clamp(LEAST_LOG_VARIANCE, LARGEST_LOG_VARIANCE)
        return mean, torch.exp(0.5 * log_variance)


class _Encoder(nn.Module):
    def __init__(self, config: PredictorConfig) -> None:
        from diffusers.models.embeddings import TimestepEmbedding, Timesteps
        from diffusers.models.unets.unet_2d_blocks import AttnDownBlock2D, UNetMidBlock2D

        super().__init__()
        waves = max(128, config.channels[0])
        self.time_proj = Timesteps(waves, flip_sin_to_cos=True, downscale_freq_shift=0)
        self.time_embedding = TimestepEmbedding(waves, config.time_channels)
        self.conv_in = nn.Conv2d(3, config.channels[0], 3, padding=1)
        last = len(config.channels) - 1
        self.down_blocks = nn.ModuleList(
            AttnDownBlock2D(
                in_channels=config.channels[max(0, i - 1)],
                out_channels=channels,
                temb_channels=config.time_channels,
                num_layers=layers,
                resnet_eps=NORM_EPS,
                resnet_act_fn="silu",
                resnet_groups=NORM_GROUPS,
                attention_head_dim=HEAD_WIDTH,
                downsample_padding=0,
                downsample_type="conv" if i < last else "none",
            )
            for i, (channels, layers) in enumerate(zip(config.channels, config.layers, strict=True))
        )
        self.mid_block = UNetMidBlock2D(
            in_channels=config.channels[-1],
            temb_channels=config.time_channels,
            resnet_eps=NORM_EPS,
            resnet_act_fn="silu",
            resnet_groups=NORM_GROUPS,
            attention_head_dim=HEAD_WIDTH,
        )
        self.conv_norm_out = nn.GroupNorm(NORM_GROUPS, config.channels[-1], eps=NORM_EPS)
        self.conv_out = nn.Conv2d(config.channels[-1], 2 * LATENT_CHANNELS, 3, padding=1)

    def forward(self, x: Tensor, steps: Tensor) -> Tensor:
        x = x.to(self.conv_in.weight.dtype)
        time = self.time_embedding(self.time_proj(steps).to(x.dtype))
        x = self.conv_in(x)
        for block in self.down_blocks:
            x, _ = block(x, time)
        x = self.mid_block(x, time)
        return self.conv_out(nn.functional.silu(self.conv_norm_out(x)))


def plain_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors without the prefixes that parallel training and torch.compile leave."""
    result = {}
    for name, tensor in state.items():
        while name.startswith(_WRAPPERS):
            name = name.partition(".")[2]
        result[name] = tensor
    return result


def read_shape(state: Mapping[str, Tensor]) -> PredictorConfig:
    """Shape of the network that has these tensors.

    Raises:
        WeightsError: they are of no noise predictor; the message says what they lack.
    """
    blocks = re.compile(r"encoder\.down_blocks\.(\d+)\.resnets\.(\d+)\.conv1\.weight")
    layers: dict[int, int] = {}
    channels: dict[int, int] = {}
    for name, tensor in state.items():
        if match := blocks.fullmatch(name):
            stage, layer = int(match[1]), int(match[2])
            layers[stage] = max(layers.get(stage, 0), layer + 1)
            channels[stage] = tensor.shape[0]
    time = state.get("encoder.time_embedding.linear_1.weight")
    out = state.get("encoder.conv_out.weight")
    if time is None or out is None or sorted(layers) != list(range(2)):
        missing = "encoder.time_embedding" if time is None else "two encoder.down_blocks"
        raise WeightsError(f"it has no '{missing}'")
    if out.shape[0] != 2 * LATENT_CHANNELS:
        raise WeightsError(
            f"it predicts noise of {out.shape[0] // 2} channels, SD-Turbo has {LATENT_CHANNELS}"
        )
    return PredictorConfig(
        channels=tuple(channels[i] for i in range(2)),
        layers=tuple(layers[i] for i in range(2)),
        time_channels=time.shape[0],
    )


def read_predictor(path: Path) -> NoisePredictor:
    """Read the published noise predictor, or its conversion to safetensors.

    Raises:
        WeightsError: missing, damaged, unsafe, with NaN, or of another model.
    """
    content = open_nested(path)
    state = content.get("state_dict", content)
    wanted = (
        "'invsr' needs noise_predictor_sd_turbo_v5.pth: give it with --weights, or choose the "
        "model with -n"
    )
    if not isinstance(state, dict) or not all(isinstance(t, Tensor) for t in state.values()):
        raise WeightsError(f"{path} is {recognise(content, 'invsr')}; {wanted}")
    state = plain_names(state)
    try:
        with torch.device("meta"):
            net = NoisePredictor(read_shape(state))
    except WeightsError as error:
        raise WeightsError(f"{path} holds weights of another model ({error}); {wanted}") from None
    check_finite(path, state)
    try:
        net.load_state_dict({k: v.float() for k, v in state.items()}, strict=True, assign=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise WeightsError(
            f"{path} does not fit the noise predictor of InvSR ({reason}); it is damaged or of "
            f"another version; {wanted}"
        ) from error
    return net.eval().requires_grad_(False)
