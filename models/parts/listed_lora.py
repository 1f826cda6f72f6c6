"""LoRA as the files of OSEDiff's relatives hold it: beside lists of the layers that it adapts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from restore.errors import WeightsError
from restore.models.parts.lora import PEFT_ALPHA, is_lora, merge, read_adapters

_BASE_LAYER = "conv_in.base_layer."


def split_conv_in(
    state: Mapping[str, Tensor], path: Path
) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """The LoRA of a U-Net, and the whole weight and bias of its conv_in, which lie beside it.

    Raises:
        WeightsError: the file holds something else too, or lacks these two.
    """
    whole = {name: tensor for name, tensor in state.items() if not is_lora(name)}
    names = {_BASE_LAYER + kind for kind in ("weight", "bias")}
    if set(whole) != names:
        odd = sorted(set(whole) ^ names)[0]
        raise WeightsError(
            f"{path} {'has an unknown' if odd in whole else 'lacks the'} tensor '{odd}' in "
            "state_dict_unet; it is damaged, or of another method: fetch it again"
        )
    lora = {name: tensor for name, tensor in state.items() if is_lora(name)}
    return lora, whole[_BASE_LAYER + "weight"], whole[_BASE_LAYER + "bias"]


def merge_listed(
    module: nn.Module,
    state: Mapping[str, Tensor],
    groups: Mapping[str, list[str]],
    *,
    rank: int,
    path: Path,
    part: str,
    strength: float = 1.0,
) -> None:
    """Merge the adapters of one network, having compared them with the file's own lists.

    Args:
        module: the network, changed in place.
        state: its LoRA and nothing else, with PEFT's default alpha.
        groups: names of the layers that each adapter adapts.
        rank: what the file says.
        path: the file, for messages.
        part: what the network is, for messages.
        strength: how much of them there is to be; 1 = as they were trained.

    Raises:
        WeightsError: the lists and the tensors differ, or the network is another one.
    """
    strange = [name for name in state if not is_lora(name)]
    try:
        adapters = read_adapters(state)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from error
    for adapter, layers in groups.items():
        have, listed = set(adapters.get(adapter, {})), set(layers)  # some lists have doubles
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
    merge(module, [(pairs, strength * PEFT_ALPHA / rank) for pairs in adapters.values()])
