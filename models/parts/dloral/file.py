"""`model.pkl`, as DLoRAL is published.

unet_lora_{encoder,decoder,others}_modules_{quality,consistency}   layers that each LoRA adapts
lora_rank_unet_{quality,consistency}                               its r
state_dict_unet   the whole U-Net, its conv_in eight channels wide, with both LoRAs, as PEFT names
                  them: LAYER.base_layer.weight, LAYER.lora_A.default_encoder_quality.weight
state_dict_bpp    cross_attn_module.*, spynet.*, and layers that nothing runs

The D-LoRA of the paper, for detail, is called quality there; the C-LoRA is called consistency. Both
adapt the same layers of frozen weights, so that W = W0 + 8/r_c c B_c A_c + 8/r_d d B_d A_d with
the strengths c and d, which are 1 as published.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from restore.errors import WeightsError
from restore.models.parts.dloral.cfr import CrossFrameRetrieval
from restore.models.parts.dloral.spynet import SPyNet
from restore.models.parts.known_files import recognise
from restore.models.parts.listed_lora import merge_listed
from restore.models.parts.lora import is_lora
from restore.nested_weights import Nested, check_finite, open_nested

log = logging.getLogger("restore.models.dloral")

GROUPS = ("encoder", "decoder", "others")
BRANCHES = ("quality", "consistency")
IN_CHANNELS = 8
"""The latent of the frame before, moved, and that of the frame itself."""
RETRIEVAL, FLOW = "cross_attn_module.", "spynet."
DEAD = (
    *("feat_extract.", "weight_predict.", "weight_predict_final.", "reconstruction_feat."),
    *("conv_hr.", "conv_last."),
)
"""Layers of an earlier design that the file holds and nothing runs."""

_BASE_LAYER = ".base_layer."
_HINT = "give the model.pkl of github.com/yjsunnn/DLoRAL"


@dataclass(frozen=True, kw_only=True, slots=True)
class Strengths:
    """How much of each LoRA there is; 1 as published."""

    consistency: float = 1.0
    """Of the C-LoRA, which makes frames agree."""
    detail: float = 1.0
    """Of the D-LoRA, which makes up detail."""


def read(path: Path) -> Nested:
    """The content of a file, complete and with numbers only.

    Raises:
        WeightsError: missing, damaged, unsafe, or of another method.
    """
    content = open_nested(path)
    kinds: dict[str, type] = {f"lora_rank_unet_{branch}": int for branch in BRANCHES}
    kinds |= {_list_of(group, branch): list for branch in BRANCHES for group in GROUPS}
    kinds |= {"state_dict_unet": dict, "state_dict_bpp": dict}
    odd = [name for name in kinds if name not in content] or sorted(set(content) - set(kinds))
    if odd:
        what = "also holds" if odd[0] in content else "lacks"
        raise WeightsError(
            f"{path} {what} '{odd[0]}': it is {recognise(content, 'dloral')}; {_HINT}"
        )
    for name, kind in kinds.items():
        value = content[name]
        if not isinstance(value, kind):
            raise WeightsError(
                f"{path} has a {type(value).__name__} for '{name}', where a file of DLoRAL has a "
                f"{kind.__name__}; it is damaged or altered: {_HINT}"
            )
    check_finite(path, content)
    return content


def make_unet(
    content: Nested, config: Mapping[str, Any], strengths: Strengths, path: Path
) -> nn.Module:
    """The U-Net of a file with both LoRAs merged.

    Args:
        content: what `read` gave; its tensors are left as they are.
        config: of the base's U-Net.
        strengths: of the LoRAs.
        path: the file, for messages.

    Raises:
        WeightsError: the base is another one, or a tensor is missing or unknown.
    """
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        unet: Any = UNet2DConditionModel.from_config({**config, "in_channels": IN_CHANNELS})
    whole = content["state_dict_unet"]
    lora = {name: tensor for name, tensor in whole.items() if is_lora(name)}
    state = {name: tensor.float() for name, tensor in whole.items() if not is_lora(name)}
    adapted = {name for name in state if _BASE_LAYER in name}
    listed = {layer for b in BRANCHES for g in GROUPS for layer in content[_list_of(g, b)]}
    odd = sorted({name.split(_BASE_LAYER)[0] for name in adapted} ^ listed)
    if odd:
        what = "does not list" if odd[0] not in listed else "has no weights of"
        raise WeightsError(
            f"{path} {what} the adapted layer '{odd[0]}'; it is damaged or cut short: fetch it "
            "again"
        )
    # Copied, because the LoRAs are added to them, and the file's numbers may be mapped.
    state |= {name.replace(_BASE_LAYER, "."): state.pop(name).clone() for name in adapted}
    _fill(unet, state, path, part="state_dict_unet", base=True)
    for branch, strength in zip(BRANCHES, (strengths.detail, strengths.consistency), strict=True):
        merge_listed(
            unet,
            {name: tensor for name, tensor in lora.items() if _branch_of(name) == branch},
            {f"default_{group}_{branch}": content[_list_of(group, branch)] for group in GROUPS},
            rank=content[f"lora_rank_unet_{branch}"],
            path=path,
            part=f"{branch} LoRA",
            strength=strength,
        )
    return unet.eval().requires_grad_(False)


def make_alignment(content: Nested, path: Path) -> tuple[SPyNet, CrossFrameRetrieval]:
    """What finds the motion between two frames, and what looks a frame up in the one before.

    Raises:
        WeightsError: a tensor is missing or unknown.
    """
    state = {name: tensor.float() for name, tensor in content["state_dict_bpp"].items()}
    dead = [name for name in state if name.startswith(DEAD)]
    log.debug("%s: %d tensors that nothing runs are left out", path, len(dead))
    unknown = [name for name in state if not name.startswith((*DEAD, RETRIEVAL, FLOW))]
    if unknown:
        raise WeightsError(
            f"{path} has an unknown tensor '{sorted(unknown)[0]}' in state_dict_bpp; it is of "
            f"another version: {_HINT}"
        )
    if not any(name.startswith(RETRIEVAL) for name in state):
        raise WeightsError(
            f"{path} has no Cross-Frame Retrieval (cross_attn_module.* in state_dict_bpp): it was "
            f"saved by another training; {_HINT}"
        )
    with torch.device("meta"):
        retrieval = CrossFrameRetrieval()
    spynet = SPyNet()  # not without memory: its mean and deviation may not be in the file
    for prefix, net in ((RETRIEVAL, retrieval), (FLOW, spynet)):
        own = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        if net is spynet:
            own = dict(spynet.named_buffers()) | own
        _fill(net, own, path, part=f"state_dict_bpp, {prefix}*")
        net.eval().requires_grad_(False)
    if is_untrained(retrieval):
        log.warning(
            "%s: every number of its Cross-Frame Retrieval lies where a random start would put it; "
            "it seems to have been saved by a training that left it out, and may blur or tint "
            "frames: %s",
            path,
            _HINT,
        )
    return spynet, retrieval


def is_untrained(retrieval: CrossFrameRetrieval) -> bool:
    """Whether a retrieval is still at PyTorch's random start.

    That is uniform between -1 and 1 over the root of the layer's inputs. Of its ten thousand
    numbers some hundred begin within 1 % of that border; a training that moves each by a little, in
    either direction, brings some of them across, and one that moved them far does so all the more.
    """
    layers = [m for m in retrieval.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    reach = []
    for layer in layers:
        border = layer.weight[0].numel() ** -0.5
        reach += [float(p.abs().max()) / border for p in layer.parameters()]
        if float(layer.weight.abs().max()) < 0.9 * border:  # smaller than such a start
            return False
    return max(reach) <= 1.001  # half precision rounds the border itself


def _fill(
    net: nn.Module, state: Mapping[str, Tensor], path: Path, *, part: str, base: bool = False
) -> None:
    """Give a network its tensors, all of them and no other."""
    needed = net.state_dict()
    odd = sorted(set(needed) ^ set(state))
    if odd:
        what = "lacks the" if odd[0] in needed else "has an unknown"
        advice = ", or the base given with --base is not Stable Diffusion 2.1" if base else ""
        raise WeightsError(
            f"{path} {what} tensor '{odd[0]}' in {part}; it is damaged or cut short{advice}: "
            "fetch it again"
        )
    wrong = next((name for name in needed if needed[name].shape != state[name].shape), None)
    if wrong is not None:
        advice = "give Stable Diffusion 2.1 base with --base, or " if base else ""
        raise WeightsError(
            f"{path} has '{wrong}' of {tuple(state[wrong].shape)} in {part}, where "
            f"{tuple(needed[wrong].shape)} is needed; {advice}fetch the file again"
        )
    net.load_state_dict(state, strict=True, assign=True)


def _list_of(group: str, branch: str) -> str:
    return f"unet_lora_{group}_modules_{branch}"


def _branch_of(name: str) -> str:
    """Whose LoRA a tensor is; what is of neither is refused as the first one's."""
    return BRANCHES[1] if name.endswith(f"_{BRANCHES[1]}.weight") else BRANCHES[0]
