"""`osediff.pkl`, the layout in which OSEDiff and its relatives publish their weights.

rank_unet, rank_vae                           r of the LoRA
unet_lora_{encoder,decoder,others}_modules    names of the layers that it adapts
vae_lora_encoder_modules
state_dict_unet    LoRA of the adapters default_{encoder,decoder,others}; conv_in.base_layer.*
state_dict_vae     LoRA of the adapter default_encoder
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from restore.errors import WeightsError
from restore.models.parts.conv_in import replace_conv_in
from restore.models.parts.known_files import recognise
from restore.models.parts.lora import PEFT_ALPHA, is_lora, merge, read_adapters
from restore.nested_weights import Nested, check_finite, open_nested

_UNET_GROUPS = ("encoder", "decoder", "others")
_BASE_LAYER = "conv_in.base_layer."
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
    state: dict[str, Tensor] = content["state_dict_unet"]
    whole = {name: tensor for name, tensor in state.items() if not is_lora(name)}
    names = {_BASE_LAYER + kind for kind in ("weight", "bias")}
    if set(whole) != names:
        odd = sorted(set(whole) ^ names)[0]
        raise WeightsError(
            f"{path} {'has an unknown' if odd in whole else 'lacks the'} tensor '{odd}' in "
            "state_dict_unet; it is damaged, or of another method: fetch it again"
        )
    weight, bias = whole[_BASE_LAYER + "weight"], whole[_BASE_LAYER + "bias"]
    base = "Stable Diffusion 2.1 base, the 512-pixel model,"
    replace_conv_in(unet, weight, bias, path=path, base=base)
    groups = {f"default_{g}": content[f"unet_lora_{g}_modules"] for g in _UNET_GROUPS}
    lora = {name: tensor for name, tensor in state.items() if is_lora(name)}
    _merge(unet, lora, groups, rank=content["rank_unet"], path=path, part="unet")
    groups = {"default_encoder": content["vae_lora_encoder_modules"]}
    _merge(vae, content["state_dict_vae"], groups, rank=content["rank_vae"], path=path, part="vae")


def _merge(
    module: nn.Module,
    state: Mapping[str, Tensor],
    groups: Mapping[str, list[str]],
    *,
    rank: int,
    path: Path,
    part: str,
) -> None:
    """Merge the adapters of one network, having compared them with the file's own lists."""
    strange = [name for name in state if not is_lora(name)]
    try:
        adapters = read_adapters(state)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from error
    for adapter, layers in groups.items():
        have, listed = set(adapters.get(adapter, {})), set(layers)  # the VAE's list has doubles
        if have != listed:
            odd = sorted(have ^ listed)[0]
            what = "an unlisted LoRA" if odd in have else "no LoRA"
            raise WeightsError(
                f"{path} has {what} for '{odd}' of the adapter '{adapter}' ({part}); it is damaged "
                "or cut short: fetch it again"
            )
    strange += [f"of the adapter '{name}'" for name in adapters if name not in groups]
    if strange:
        raise WeightsError(
            f"{path} holds an unknown tensor {strange[0]} ({part}); it is of another method or "
            "version: fetch the published file"
        )
    for pairs in adapters.values():
        wrong = next((pair.rank for pair in pairs.values() if pair.rank != rank), rank)
        if wrong != rank:
            raise WeightsError(
                f"{path} says rank {rank} for its {part}, and holds LoRA of rank {wrong}; it is "
                "damaged: fetch it again"
            )
    merge(module, [(pairs, PEFT_ALPHA / rank) for pairs in adapters.values()])
