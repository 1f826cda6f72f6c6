"""`osediff.pkl`, the layout in which OSEDiff and its relatives publish their weights.

rank_unet, rank_vae                           r of the LoRA
unet_lora_{encoder,decoder,others}_modules    names of the layers that it adapts
vae_lora_encoder_modules
state_dict_unet    LoRA of the adapters default_{encoder,decoder,others}; conv_in.base_layer.*
state_dict_vae     LoRA of the adapter default_encoder
"""

from __future__ import annotations

from pathlib import Path

from torch import nn

from restore.errors import WeightsError
from restore.models.parts.conv_in import replace_conv_in
from restore.models.parts.known_files import recognise
from restore.models.parts.listed_lora import merge_listed, split_conv_in
from restore.nested_weights import Nested, check_finite, open_nested

_UNET_GROUPS = ("encoder", "decoder", "others")
_HINT = "give the osediff.pkl of github.com/cswry/OSEDiff"


def read(path: Path) -> Nested:
    """The content of a file, complete and with numbers only.

    Raises:
        WeightsError: missing, damaged, unsafe, or of another method.
    """
    content = open_nested(path)
    lists = [f"unet_lora_{group}_modules" for group in _UNET_GROUPS]
    needed = ["rank_unet", "rank_vae", *lists, "vae_lora_encoder_modules"]
    needed += ["state_dict_unet", "state_dict_vae"]
    missing = [key for key in needed if key not in content]
    if missing:
        raise WeightsError(
            f"{path} lacks '{missing[0]}': it is {recognise(content, 'osediff')}; {_HINT}"
        )
    extra = sorted(set(content) - set(needed))
    if extra:
        raise WeightsError(
            f"{path} also holds '{extra[0]}': it is {recognise(content, 'osediff')}; {_HINT}"
        )
    check_finite(path, content)
    return content


def adapt(content: Nested, unet: nn.Module, vae: nn.Module, path: Path) -> None:
    """Merge a file into its base.

    Args:
        content: what `read` gave.
        unet, vae: networks of the base, changed in place.
        path: the file, for messages.

    Raises:
        WeightsError: the base is another one, or a tensor is missing or unknown.
    """
    lora, weight, bias = split_conv_in(content["state_dict_unet"], path)
    base = "Stable Diffusion 2.1 base, the 512-pixel model,"
    replace_conv_in(unet, weight, bias, path=path, base=base)
    groups = {f"default_{g}": content[f"unet_lora_{g}_modules"] for g in _UNET_GROUPS}
    merge_listed(unet, lora, groups, rank=content["rank_unet"], path=path, part="unet")
    groups = {"default_encoder": content["vae_lora_encoder_modules"]}
    state, rank = content["state_dict_vae"], content["rank_vae"]
    merge_listed(vae, state, groups, rank=rank, path=path, part="vae")
