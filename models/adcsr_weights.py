"""Weight files of AdcSR: the two that its authors publish, or one that is made of both.

net_params_200.pkl   module.body.1.NAME          UNet
                     module.body.1.body.I.NAME   the same tensors again, as layers in a row
                     module.body.2.NAME          middle block of the decoder, trained with it
halfDecoder.ckpt     state_dict: decoder.NAME    decoder from before that training; its middle
                                                 block is replaced, its first layer not used
one safetensors      unet.NAME, decoder.NAME; without the copies, and with or without what the
                     half decoder adds
"""

from __future__ import annotations

import contextlib
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from restore.errors import WeightsError
from restore.models.parts.known_files import recognise
from restore.nested_weights import Nested, check_finite, open_nested
from restore.weights import check_readable, open_metadata, read_pickle, save_weights
from restore.zoo.locate import locate_weights

FORMAT = "restore.adcsr.v1"
PAGE = "https://huggingface.co/Guaishou74851/AdcSR"
HALF_DECODER = ("halfDecoder.ckpt", "halfDecoder.safetensors")
_FIRST = "body.1.conv_in.weight"
_LAST = "conv_out.weight"
_UNUSED = ("conv_in.", "mid_block.")
"""Parts of the half decoder that the trained network has its own of, or nothing to feed."""
_LIGHTNING = ("pytorch_lightning.", "lightning.", "lightning_fabric.", "lightning_utilities.")


@dataclass(frozen=True, kw_only=True, slots=True)
class AdcSRFile:
    """Weights by the names of diffusers' layers."""

    unet: Mapping[str, Tensor]
    """Of `PrunedUNet`."""
    decoder: Mapping[str, Tensor]
    """Of the `Decoder` without its first layer."""

    @property
    def unet_channels(self) -> tuple[int, ...]:
        """Channels of the UNet's levels."""
        names = [f"down_blocks.{i}.resnets.0.conv1.weight" for i in range(4)]
        return tuple(len(self.unet[name]) for name in names)

    @property
    def decoder_channels(self) -> tuple[int, ...]:
        """Channels of the decoder's levels from the pixels inwards."""
        names = [f"up_blocks.{i}.resnets.0.conv1.weight" for i in (3, 2, 1, 0)]
        return tuple(len(self.decoder[name]) for name in names)


def read_adcsr(path: Path) -> AdcSRFile:
    """Read the weights, in the authors' two files or in one.

    Args:
        path: `net_params_200.pkl`, or the safetensors file of `convert`. `halfDecoder.ckpt` is
            looked for beside it, in a folder `pretrained` there, as in the authors' repository,
            and among the pulled weights.

    Raises:
        WeightsError: a file is missing, damaged, unsafe, or of another model; copies of a tensor
            differ; a tensor holds NaN.
    """
    file = read_network(path)
    return file if _LAST in file.decoder else _joined(file, find_half_decoder(path))


def read_network(path: Path) -> AdcSRFile:
    """What is in `net_params_200.pkl`, or in the file of `convert`, by itself.

    Raises:
        WeightsError: as `read_adcsr`.
    """
    content = open_nested(path)
    if _is_converted(path):
        check_finite(path, content)
        return AdcSRFile(unet=below(content, "unet."), decoder=below(content, "decoder."))
    state = _network(content, path)
    unet = {k: v for k, v in below(state, "body.1.").items() if not k.startswith("body.")}
    middle = {f"mid_block.{name}": value for name, value in below(state, "body.2.").items()}
    return AdcSRFile(unet=unet, decoder=middle)


def convert(source: Path, target: Path) -> None:
    """Write the network as safetensors, with the half decoder when that can be found.

    Raises:
        WeightsError: as `read_adcsr`, but for a missing half decoder.
    """
    file = read_network(source)
    half = None
    with contextlib.suppress(WeightsError):
        half = find_half_decoder(source)
    if half is not None and _LAST not in file.decoder:
        file = _joined(file, half)
    state = {f"unet.{name}": tensor for name, tensor in file.unet.items()}
    state |= {f"decoder.{name}": tensor for name, tensor in file.decoder.items()}
    whole = "yes" if _LAST in file.decoder else "no"
    save_weights(target, state, {"format": FORMAT, "half_decoder": whole})


def check_files(path: Path) -> None:
    """Find out without reading the weights whether both files are there.

    Raises:
        WeightsError: one is missing, empty, an LFS pointer or a web page.
    """
    check_readable(path)
    if not _is_converted(path) or open_metadata(path).get("half_decoder") != "yes":
        check_readable(find_half_decoder(path))


def _joined(file: AdcSRFile, half: Path) -> AdcSRFile:
    rest = half_decoder(half)
    check_finite(half, rest)
    return AdcSRFile(unet=file.unet, decoder={**rest, **file.decoder})


def _is_converted(path: Path) -> bool:
    return path.suffix == ".safetensors" and open_metadata(path).get("format") == FORMAT


def find_half_decoder(network: Path) -> Path:
    """The file with the rest of the decoder, which lies near the trained network, or was pulled.

    Raises:
        WeightsError: there is none.
    """
    folders = (network.parent, network.parent / "pretrained")
    for place in (folder / name for folder in folders for name in HALF_DECODER):
        if place.exists():
            return place
    with contextlib.suppress(WeightsError):
        return locate_weights("adcsr-half-decoder")
    raise WeightsError(
        f"{HALF_DECODER[0]} is missing: 'adcsr' needs it beside {network.name} in {folders[0]}; "
        f"run 'restore models pull adcsr-half-decoder', or get it from {PAGE} (weight/pretrained)"
    )


def half_decoder(path: Path) -> dict[str, Tensor]:
    """What the network takes of the half decoder.

    Raises:
        WeightsError: missing, damaged, unsafe, or without a decoder.
    """
    if path.suffix == ".safetensors":
        content: Any = open_nested(path)
    else:
        check_readable(path)
        with lightning_stand_ins(path):
            content = read_pickle(path)
    state = content.get("state_dict", content) if isinstance(content, Mapping) else {}
    decoder = below(state, "decoder.")
    if _LAST not in decoder:
        raise WeightsError(
            f"{path} holds no half decoder (no tensor 'decoder.conv_out.weight'); get "
            f"{HALF_DECODER[0]} from {PAGE}"
        )
    return {name: value for name, value in decoder.items() if not name.startswith(_UNUSED)}


def below(state: Mapping[str, Any], prefix: str) -> dict[str, Tensor]:
    """Tensors whose names begin with `prefix`, without it."""
    return {
        name[len(prefix) :]: value.detach()
        for name, value in state.items()
        if name.startswith(prefix) and isinstance(value, Tensor)
    }


def _network(content: Nested, path: Path) -> Nested:
    """The trained network's tensors without the prefix of data parallel training.

    Raises:
        WeightsError: it is another file.
    """
    state = {name.removeprefix("module."): value for name, value in content.items()}
    if _FIRST not in state:
        raise WeightsError(
            f"{path} is {recognise(content, 'adcsr')}; 'adcsr' needs net_params_200.pkl from "
            f"{PAGE}, with halfDecoder.ckpt beside it"
        )
    known = ("body.1.", "body.2.")
    extra = next((name for name in state if not name.startswith(known)), None)
    if extra is not None:
        raise WeightsError(
            f"{path} holds '{extra}', which AdcSR does not have; get net_params_200.pkl from {PAGE}"
        )
    check_finite(path, state)
    _check_copies(state, path)
    return state


def _check_copies(state: Mapping[str, Tensor], path: Path) -> None:
    """The authors' UNet names its layers a second time, in a row; both must say the same.

    Raises:
        WeightsError: a copy differs, or has no original.
    """
    rows = {str(i): f"down_blocks.{i}" for i in range(4)} | {"4": "mid_block"}
    rows |= {str(5 + i): f"up_blocks.{i}" for i in range(4)} | {
        "9": "conv_norm_out",
        "11": "conv_out",
    }
    for name, copy in below(state, "body.1.body.").items():
        number, _, rest = name.partition(".")
        original = state.get(f"body.1.{rows.get(number, number)}.{rest}")
        if original is None or not torch.equal(copy, original):
            what = "has no original" if original is None else "differs from its original"
            raise WeightsError(
                f"{path}: the copy 'body.1.body.{name}' {what}; the file is damaged or was "
                f"edited: get net_params_200.pkl from {PAGE}"
            )


class _StandIn:
    """What is made of an object of Lightning: nothing, and none of its code runs."""

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, _: object) -> None:
        pass


@contextlib.contextmanager
def lightning_stand_ins(path: Path) -> Iterator[None]:
    """Let a checkpoint of Lightning be read with `weights_only=True`.

    Beside its tensors it can name Lightning's own classes, such as those of its callbacks. Inside
    this context these become empty objects; whatever else a pickle names is still refused.
    """
    names: list[str] = []
    if zipfile.is_zipfile(path):
        with contextlib.suppress(Exception):  # a damaged file is found when it is read
            names = torch.serialization.get_unsafe_globals_in_checkpoint(str(path))
    known: list[Any] = [(_StandIn, name) for name in names if name.startswith(_LIGHTNING)]
    with torch.serialization.safe_globals(known):
        yield
