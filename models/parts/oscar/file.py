"""`oscar.pkl`, as OSCAR's authors publish it since 2025-10-19.

hyper_encoders     networks of all rates: {i}.backbone.*, {i}.proj.*, {i}.quantizer.*
embeddings         learned context of the U-Net, (77, width), in the place of a text
rank_unet, unet_lora_{encoder,decoder,others}_modules, state_dict_unet    as in `osediff.pkl`

conv_in.base_layer of the U-Net was not trained: it tells the base that the file was made with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from restore.errors import WeightsError
from restore.models.parts.conv_in import check_conv_in
from restore.models.parts.known_files import recognise
from restore.models.parts.listed_lora import merge_listed, split_conv_in
from restore.models.parts.oscar.hyper_encoder import HyperConfig, HyperEncoder
from restore.models.parts.oscar.rates import RATES
from restore.nested_weights import Nested, check_finite, open_nested

GROUPS = ("encoder", "decoder", "others")
"""Adapters of the U-Net, without `default_`: the way down, the way up, the middle."""
TOKENS = 77
BASE = "Stable Diffusion 2.1, the 768-pixel model (zoo name stable-diffusion-2-1),"
_HINT = "give the oscar.pkl that huggingface.co/jinpeig/OSCAR has had since 2025-10-19"
_KINDS: dict[str, type] = {
    "hyper_encoders": Mapping,
    "embeddings": Tensor,
    "rank_unet": int,
    **{f"unet_lora_{group}_modules": list for group in GROUPS},
    "state_dict_unet": Mapping,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class OscarFile:
    """What a file holds, checked."""

    path: Path
    """The file, for messages."""
    hyper: HyperConfig
    """Widths of its hyper-encoders."""
    content: Nested
    """The rest, by its published names."""

    @property
    def context(self) -> Tensor:
        """`(1, 77, width)`."""
        found: Tensor = self.content["embeddings"]
        return found.float()[None]

    def hyper_encoders(self) -> nn.ModuleList:
        """The networks of all rates, in the order of `RATES`."""
        networks = _empty(self.hyper)
        state = {name: tensor.clone() for name, tensor in self.content["hyper_encoders"].items()}
        networks.load_state_dict(state, strict=True, assign=True)
        return networks.eval().requires_grad_(False)

    def adapt(self, unet: nn.Module) -> None:
        """Merge the LoRA of all three adapters into a U-Net.

        Raises:
            WeightsError: it is another base, or a tensor is missing or unknown.
        """
        content = self.content
        lora, weight, bias = split_conv_in(content["state_dict_unet"], self.path)
        width = unet.config["cross_attention_dim"]  # type: ignore[index]
        if self.context.shape[-1] != width:
            raise WeightsError(
                f"{self.path} has a context of width {self.context.shape[-1]}, the base takes "
                f"{width}; give {BASE} with --base"
            )
        check_conv_in(unet, weight, bias, path=self.path, base=BASE)
        groups = {f"default_{group}": content[f"unet_lora_{group}_modules"] for group in GROUPS}
        rank = content["rank_unet"]
        merge_listed(unet, lora, groups, rank=rank, path=self.path, part="unet")


def read(path: Path) -> OscarFile:
    """A file, complete, with numbers only, and of the generation that is taken.

    Raises:
        WeightsError: missing, damaged, unsafe, older, or of another method; one line.
    """
    return check(open_nested(path), path)


def check(content: Nested, path: Path) -> OscarFile:
    """What `read` says of the content of a file."""
    if "hyper_enc" in content and "hyper_encoders" not in content:
        raise WeightsError(
            f"{path} is one hyper-encoder of OSCAR's first stage of training, without the rest; "
            f"{_HINT}"
        )
    missing = [key for key in _KINDS if key not in content]
    if missing:
        raise WeightsError(
            f"{path} lacks '{missing[0]}': it is {recognise(content, 'oscar')}; {_HINT}"
        )
    extra = sorted(set(content) - set(_KINDS))
    if extra:
        raise WeightsError(
            f"{path} also holds '{extra[0]}': it is {recognise(content, 'oscar')}; {_HINT}"
        )
    for key, kind in _KINDS.items():
        if not isinstance(content[key], kind):
            raise WeightsError(
                f"{path} has a {type(content[key]).__name__} in '{key}'; it is damaged: {_HINT}"
            )
    _check_context(content["embeddings"], path)
    hyper = check_hyper(content["hyper_encoders"], path)
    check_finite(path, content)
    return OscarFile(path=path, hyper=hyper, content=content)


def check_hyper(state: Mapping[str, Any], path: Path) -> HyperConfig:
    """Widths of the hyper-encoders in a state dict, when all their tensors are there.

    Raises:
        WeightsError: they are of the older generation, or a name or a shape does not fit.
    """
    if any(".attn.in_proj_" in name for name in state):
        raise WeightsError(
            f"{path} is of the generation before 2025-10-19, whose two lowest rates (0.0019 and "
            "0.0098) write 0.0313 bits per pixel and whose time steps were others; "
            f"{_HINT}"
        )
    try:
        inner = state["0.backbone.1.layers.0.weight"].shape[1]
        code, outer = state["0.quantizer.project_in.weight"].shape
    except (KeyError, AttributeError, ValueError) as error:
        raise WeightsError(
            f"{path} has hyper-encoders of another kind (without a readable "
            f"'0.quantizer.project_in.weight'); {_HINT}"
        ) from error
    config = HyperConfig(inner=inner, outer=outer, code=code)
    expected = _empty(config).state_dict()
    odd = sorted(set(state) ^ set(expected))
    if odd:
        what = "an unknown" if odd[0] in state else "no"
        raise WeightsError(
            f"{path} has {what} tensor '{odd[0]}' in hyper_encoders ({len(odd)} differ); it is "
            f"damaged, or of another version: {_HINT}"
        )
    for name, tensor in expected.items():
        have = tuple(getattr(state[name], "shape", ("no tensor",)))
        if have != tuple(tensor.shape):
            raise WeightsError(
                f"{path} has {have} in '{name}' of hyper_encoders, {tuple(tensor.shape)} belongs "
                f"there; it is damaged, or of another version: {_HINT}"
            )
    return config


def _check_context(context: Tensor, path: Path) -> None:
    if context.ndim != 2 or context.shape[0] != TOKENS:
        raise WeightsError(
            f"{path} has a context of {tuple(context.shape)} in 'embeddings', ({TOKENS}, width) "
            f"belongs there; {_HINT}"
        )


def _empty(config: HyperConfig) -> nn.ModuleList:
    with torch.device("meta"):
        return nn.ModuleList(HyperEncoder(config, rate) for rate in RATES)
