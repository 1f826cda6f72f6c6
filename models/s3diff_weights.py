"""Weight files of S3Diff: `s3diff.pkl`, and `de_net.pth` beside it.

rank_unet, rank_vae                                r of the LoRA
unet_lora_target_modules, vae_lora_target_modules  ends of the layers' names; an expression
state_dict_unet       LoRA, and the whole conv_in
state_dict_vae        LoRA of the encoder
w                     frequencies of the degrees
state_dict_{unet,vae}_{de,block,fuse}_mlp          0.weight, 0.bias; weight, bias of `fuse`
state_embeddings      state_dict_{unet,vae}_block: weight
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from restore.errors import WeightsError
from restore.models.parts.conv_in import replace_conv_in
from restore.models.parts.known_files import recognise
from restore.models.parts.lora import PEFT_ALPHA, LoraPair, is_lora, read_adapters
from restore.models.parts.modulated_lora import ModulatedLora, ModulationNet, targeted
from restore.nested_weights import Nested, check_finite, open_nested
from restore.weights import check_readable
from restore.zoo.locate import locate_weights

Net = Literal["unet", "vae"]

PAGE = "https://github.com/ArcticHare105/S3Diff"
ESTIMATOR = ("de_net.pth", "de_net.safetensors")
ZOO_NAME = "s3diff-de-net"
_HINT = f"give the s3diff.pkl that {PAGE} names"
_KEYS = (
    *("rank_unet", "rank_vae", "unet_lora_target_modules", "vae_lora_target_modules"),
    *("state_dict_unet", "state_dict_vae", "w", "state_embeddings"),
    *(f"state_dict_{net}_{of}_mlp" for net in ("unet", "vae") for of in ("de", "block", "fuse")),
)
_BLOCKS: Mapping[Net, int] = {"unet": 10, "vae": 6}


@dataclass(frozen=True, kw_only=True, slots=True)
class S3DiffFile:
    """What the file holds, read and checked by itself."""

    path: Path
    """The file, for messages."""
    conv_in: Mapping[Literal["weight", "bias"], Tensor]
    """The U-Net's first convolution, trained whole."""
    pairs: Mapping[Net, Mapping[str, LoraPair]]
    """LoRA of each network by layer."""
    targets: Mapping[Net, str | list[str]]
    """Which layers those are, as PEFT takes it."""
    modulation: Mapping[Net, ModulationNet]
    """What makes the matrices of each network."""

    def adapt(self, module: nn.Module, net: Net) -> ModulatedLora:
        """Find the layers of a network of the base that the file adapts.

        Raises:
            WeightsError: the base is another one, or the file is cut short.
        """
        pairs = self.pairs[net]
        if odd := sorted(targeted(module, self.targets[net]) ^ set(pairs)):
            what = "an unlisted LoRA" if odd[0] in pairs else "no LoRA"
            raise WeightsError(
                f"{self.path} has {what} for '{odd[0]}' ({net}); it is damaged or cut short, or "
                "the base is of another shape: give SD-Turbo with --base"
            )
        rank = self.modulation[net].rank
        return ModulatedLora(module, pairs, scale=PEFT_ALPHA / rank, blocks=_BLOCKS[net])

    def replace_conv_in(self, unet: nn.Module) -> None:
        """Put the trained first convolution in the place of the base's.

        Raises:
            WeightsError: they are too different for one to come from the other.
        """
        weight, bias = self.conv_in["weight"], self.conv_in["bias"]
        replace_conv_in(unet, weight, bias, path=self.path, base="SD-Turbo")


def read_s3diff(path: Path) -> S3DiffFile:
    """Read `s3diff.pkl`, or the safetensors file that was made of it.

    Raises:
        WeightsError: missing, damaged, unsafe, incomplete, of another method, or with NaN in it.
    """
    content = open_nested(path)
    odd = [key for key in _KEYS if key not in content] or sorted(set(content) - set(_KEYS))
    if odd:
        verb = "also holds" if odd[0] in content else "lacks"
        raise WeightsError(
            f"{path} {verb} '{odd[0]}': it is {recognise(content, 's3diff')}; {_HINT}"
        )
    for key in _KEYS:
        if key.startswith("state_") and not isinstance(content[key], Mapping):
            raise WeightsError(f"{path} has no named tensors under '{key}'; {_HINT}")
    check_finite(path, content)
    state = content["state_dict_unet"]
    conv_in = {k: state[f"conv_in.{k}"] for k in ("weight", "bias") if f"conv_in.{k}" in state}
    rest = {k: v for k, v in state.items() if k.removeprefix("conv_in.") not in conv_in}
    if len(conv_in) < 2:
        raise WeightsError(f"{path} lacks the U-Net's 'conv_in'; it is damaged: fetch it again")
    modulation = {net: _modulation(content, net, path) for net in _BLOCKS}
    return S3DiffFile(
        path=path,
        conv_in=conv_in,  # type: ignore[arg-type]
        pairs={
            "unet": _pairs(rest, content["rank_unet"], path, "unet"),
            "vae": _pairs(content["state_dict_vae"], content["rank_vae"], path, "vae"),
        },
        targets={net: content[f"{net}_lora_target_modules"] for net in _BLOCKS},
        modulation=modulation,
    )


def check_files(path: Path) -> None:
    """Find out without reading the weights whether both files are there.

    Raises:
        WeightsError: one is missing, empty, an LFS pointer or a web page.
    """
    check_readable(path)
    check_readable(find_estimator(path))


def find_estimator(weights: Path) -> Path:
    """File of the degradation estimator, which lies beside the weights, or was pulled.

    Raises:
        WeightsError: there is none.
    """
    for name in ESTIMATOR:
        if (place := weights.with_name(name)).exists():
            return place
    try:
        return locate_weights(ZOO_NAME)
    except WeightsError as error:
        raise WeightsError(
            f"{ESTIMATOR[0]} is missing: 's3diff' needs it beside {weights.name} in "
            f"{weights.parent}; run 'restore models pull {ZOO_NAME}', or get it from {PAGE} "
            "(assets/mm-realsr)"
        ) from error


def _pairs(state: Mapping[str, Tensor], rank: int, path: Path, net: Net) -> dict[str, LoraPair]:
    """The one adapter of a network."""
    strange = [name for name in state if not is_lora(name)]
    adapters = read_adapters(state)
    if strange or len(adapters) != 1:
        what = f"an unknown tensor '{strange[0]}'" if strange else f"{len(adapters)} adapters"
        raise WeightsError(
            f"{path} holds {what} in state_dict_{net}, where one adapter is allowed; it is of "
            f"another method or version: {_HINT}"
        )
    (pairs,) = adapters.values()
    if wrong := [pair.rank for pair in pairs.values() if pair.rank != rank]:
        raise WeightsError(
            f"{path} says rank {rank} for its {net}, and holds LoRA of rank {wrong[0]}; it is "
            "damaged: fetch it again"
        )
    return pairs


def _modulation(content: Nested, net: Net, path: Path) -> ModulationNet:
    def tensors(where: Mapping[str, Any], *names: str) -> list[Tensor]:
        if set(where) != set(names):
            raise WeightsError(f"it holds {sorted(where)} where {sorted(names)} belong")
        return [where[name].float() for name in names]

    def linear(of: str, prefix: str) -> tuple[Tensor, Tensor]:
        layer = content[f"state_dict_{net}_{of}_mlp"]
        weight, bias = tensors(layer, f"{prefix}weight", f"{prefix}bias")
        return weight, bias

    try:
        (embeddings,) = tensors(content["state_embeddings"][f"state_dict_{net}_block"], "weight")
        result = ModulationNet(
            waves=content["w"].float(),
            degrees=linear("de", "0."),
            blocks=linear("block", "0."),
            fuse=linear("fuse", ""),
            embeddings=embeddings,
        )
        if (len(embeddings), result.rank) != (_BLOCKS[net], content[f"rank_{net}"]):
            raise WeightsError(
                f"it has {len(embeddings)} matrices of rank {result.rank}, {_BLOCKS[net]} of rank "
                f"{content[f'rank_{net}']} belong"
            )
    except (WeightsError, KeyError, AttributeError, IndexError) as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else error
        raise WeightsError(
            f"the modulation of the {net} in {path} is not S3Diff's: {reason}; {_HINT}"
        ) from error
    return result
