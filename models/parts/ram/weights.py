"""The published files of RAM and DAPE: read, checked name by name, merged.

RAM is a training checkpoint of several GB, of which the tagger needs a quarter: `model` also holds
the two networks that learnt to write captions. They share the weights of the tagging decoder under
other names, and DAPE's LoRA of those names therefore acts on the tagger too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from restore.errors import WeightsError
from restore.models.parts.ram.labels import read_labels
from restore.models.parts.ram.net import RamConfig, RamNet, config_of
from restore.nested_weights import check_finite, open_nested
from restore.weights import save_weights

ALPHA = 1.0
"""loralib's default, which DAPE was trained with: its LoRA counts by alpha / rank."""

_RAM_FILE = "ram_swin_large_14m.pth"
_UNNEEDED = re.compile(
    r"text_decoder\."  # writes captions
    r"|tag_encoder\."  # reads tags for the caption
    r"|tagging_head\.(embeddings|pooler)\."  # BERT's words; labels come in as embeddings
    r"|tagging_head\.encoder\.layer\.\d+\.attention\."  # self-attention, which tagging leaves out
    r"|visual_encoder\.head\."  # ImageNet's classes
    r"|.*\.(relative_position_index|attn_mask)$"  # computed from the sizes
)
_ADAPTED = re.compile(
    r"visual_encoder\.layers\.\d+\.blocks\.\d+\.attn\.qkv"
    r"|(tagging_head|tag_encoder)\.encoder\.layer\.\d+\.crossattention\.self\.(query|key)"
)


def load_net(ram: Path, dape: Path | None, *, dtype: torch.dtype) -> tuple[RamNet, RamConfig]:
    """The network with the published weights, on the CPU, and its sizes.

    Args:
        ram: `ram_swin_large_14m.pth`, or the safetensors file made of it.
        dape: `DAPE.pth` likewise; None = RAM alone.
        dtype: number format of the parameters; LoRA is merged before, in theirs.

    Raises:
        WeightsError: a file is missing, damaged, unsafe or of another model, or holds NaN.
    """
    state = read_ram(ram)
    try:
        config = config_of(state)
    except (KeyError, ValueError) as error:
        name = str(error.args[0])
        raise WeightsError(_not_ram(ram, f"has no '{name}'", state)) from error
    _check_labels(ram, config)
    with torch.device("meta"):
        net = RamNet(config)
    state = _check_names(ram, state, net)
    if dape is not None:
        merge_adapter(state, dape)
    net.load_state_dict({k: v.to(dtype) for k, v in state.items()}, strict=True, assign=True)
    return net.eval().requires_grad_(False), config


def read_ram(path: Path) -> dict[str, Tensor]:
    """Tensors of a RAM file by name; nothing is checked but that they are tensors.

    Raises:
        WeightsError: as `open_nested`, or there are no named tensors in it.
    """
    content = open_nested(path)
    model = content.get("model", content)
    if not isinstance(model, dict):
        raise WeightsError(f"{path} holds no tagger; give {_RAM_FILE} with --tagger")
    # The name that the decoder has in early checkpoints; the authors' loader changes it as well.
    return {
        key.replace("vision_multi", "tagging_head"): value
        for key, value in model.items()
        if isinstance(value, Tensor)
    }


def convert_ram(source: Path, target: Path) -> None:
    """Write what the tagger needs of a RAM file as safetensors, about a seventh of its bytes.

    Raises:
        WeightsError: the file cannot be read.
    """
    state = read_ram(source)
    save_weights(target, {k: v for k, v in state.items() if not _UNNEEDED.match(k)}, {})


def merge_adapter(state: dict[str, Tensor], path: Path) -> None:
    """Add the LoRA of a DAPE file to the weights in `state`: W + alpha / r * B A.

    loralib adds each layer's product to the memory of its weight. Where the caption's encoder
    shares that memory with the tagging decoder, both products end up in the one weight.

    Raises:
        WeightsError: as `open_nested`, or it does not fit the network.
    """
    adapter = open_nested(path)
    layers = {key.rsplit(".", 1)[0] for key in adapter}
    strange = sorted(key for key in adapter if not key.endswith((".lora_A", ".lora_B")))
    if strange or not layers:
        raise WeightsError(
            f"{path} is no DAPE file: it {_some('holds', strange) if strange else 'is empty'}; "
            "allowed are lora_A and lora_B: give DAPE.pth with --tagger-adapter"
        )
    used = 0
    check_finite(path, adapter)
    for layer in sorted(layers):
        target = layer.replace("tag_encoder.", "tagging_head.") + ".weight"
        if _ADAPTED.fullmatch(layer) and target in state:
            state[target] = state[target] + _product(adapter, layer, state[target], path)
            used += 1
        elif not _UNNEEDED.match(layer):
            raise WeightsError(
                f"{path} adapts '{layer}', which the tagger does not have; give the DAPE.pth that "
                "belongs to the file of --tagger"
            )
    if not used:
        raise WeightsError(f"{path} adapts no layer of the tagger; give DAPE.pth")


def _product(adapter: Mapping[str, object], layer: str, weight: Tensor, path: Path) -> Tensor:
    """What one layer's LoRA adds to its weight; of a joint qkv it adapts queries and values."""
    down, up = adapter.get(f"{layer}.lora_A"), adapter.get(f"{layer}.lora_B")
    if not isinstance(down, Tensor) or not isinstance(up, Tensor):
        raise WeightsError(f"{path}: '{layer}' has only half of its LoRA; fetch the file again")
    rank, parts = up.shape[1], 2 if layer.endswith(".qkv") else 1
    out = weight.shape[0] // 3 * 2 if parts == 2 else weight.shape[0]
    if tuple(up.shape) != (out, rank) or tuple(down.shape) != (rank * parts, weight.shape[1]):
        raise WeightsError(
            f"{path}: LoRA of '{layer}' is {tuple(up.shape)} by {tuple(down.shape)}, not fit "
            f"for a weight of {tuple(weight.shape)}; give the DAPE.pth that belongs to the file "
            "of --tagger"
        )
    products = [
        b.float() @ a.float() for b, a in zip(up.chunk(parts), down.chunk(parts), strict=True)
    ]
    if parts == 2:
        products.insert(1, torch.zeros_like(products[0]))
    return torch.cat(products).to(weight.dtype) * (ALPHA / rank)


def _check_labels(path: Path, config: RamConfig) -> None:
    known = len(read_labels()[0])
    if config.labels != known:
        raise WeightsError(
            f"{path} holds {config.labels} label embeddings; RAM has {known}, RAM++ and Tag2Text "
            f"have other numbers and cannot be used: give {_RAM_FILE} with --tagger"
        )


def _check_names(path: Path, state: dict[str, Tensor], net: RamNet) -> dict[str, Tensor]:
    """The tensors that the network has, each with its shape.

    Raises:
        WeightsError: one is missing, has another shape or NaN in it, or is not known at all.
    """
    wanted = {name: tuple(p.shape) for name, p in net.state_dict().items()}
    missing = sorted(wanted.keys() - state.keys())
    if missing:
        raise WeightsError(_not_ram(path, _some("lacks", missing), state))
    unknown = sorted(k for k in state.keys() - wanted.keys() if not _UNNEEDED.match(k))
    if unknown:
        raise WeightsError(_not_ram(path, _some("also holds", unknown), state))
    for name, shape in wanted.items():
        if tuple(state[name].shape) != shape:
            got = tuple(state[name].shape)
            raise WeightsError(_not_ram(path, f"has '{name}' of {got} in place of {shape}", state))
    state = {name: state[name] for name in wanted}
    check_finite(path, state)
    return state


def _not_ram(path: Path, reason: str, state: Mapping[str, Tensor]) -> str:
    if any(".lora_A" in key for key in state):
        reason = "holds the LoRA of DAPE, which goes with --tagger-adapter"
    return f"{path} is no RAM tagger: it {reason}; give {_RAM_FILE} with --tagger"


def _some(verb: str, names: list[str]) -> str:
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"{verb} '{names[0]}'{more}"
