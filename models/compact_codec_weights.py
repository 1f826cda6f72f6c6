"""Weight files of `compact-codec`.

    network.PARAMETER     fp16: encoder, decoder and gains
    context.PARAMETER     int16 and int32: the context model in whole numbers, with its tables

The shape of the networks and the typical bits per pixel of each rate are in the text beside them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch
from torch import Tensor

from restore.errors import OptionError, WeightsError
from restore.models.compact_codec_integers import problem, shapes, to_floats, to_integers
from restore.models.compact_codec_net import CodecConfig, CodecNet
from restore.weights import open_weights, save_weights

FORMAT = "restore.compact-codec.v1"
_REMEDY = "leave --weights out to use the weights in the package"


@dataclass(frozen=True, kw_only=True, slots=True)
class CodecFile:
    """What a weight file holds."""

    config: CodecConfig
    """Shape of the networks."""
    bpp: tuple[float, ...]
    """Typical bits per pixel of each rate, as training saw them."""
    network: Mapping[str, Tensor]
    """State dict of `CodecNet`, float32."""
    integers: Mapping[str, Tensor]
    """The context model in whole numbers."""

    @property
    def context(self) -> dict[str, Tensor]:
        """State dict of `ContextNet`, as near as whole numbers are to it."""
        return {**to_floats(self.integers), "typical": torch.tensor(self.bpp)}


def write_codec(
    path: Path,
    config: CodecConfig,
    states: Mapping[str, Mapping[str, Tensor]],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a weight file, whole or not at all.

    Args:
        path: file to write.
        config: shape of the networks.
        states: state dicts of `CodecNet` as `network` and of `ContextNet` as `context`.
        metadata: more text to keep, such as the recipe's name.
    """
    bpp = ",".join(f"{value:.4f}" for value in states["context"]["typical"].tolist())
    text = {"format": FORMAT, "bpp": bpp, **(metadata or {})}
    text |= {k: str(v) for k, v in asdict(config).items()}
    tensors = {f"network.{k}": v.to(torch.float16) for k, v in states["network"].items()}
    tensors |= {f"context.{k}": v for k, v in to_integers(states["context"]).items()}
    save_weights(path, tensors, text)


def read_codec(path: Path) -> CodecFile:
    """Read a weight file that `restore train` wrote.

    Raises:
        WeightsError: the file is missing, damaged, unsafe, or of another model.
    """
    tensors, metadata = open_weights(path)
    config, bpp = read_head(path, metadata)
    with torch.device("meta"):
        network = CodecNet(config).state_dict()
    wanted = {f"network.{k}": (tuple(v.shape), torch.float16) for k, v in network.items()}
    wanted |= {f"context.{k}": v for k, v in shapes(config).items()}
    found = {k: (tuple(v.shape), v.dtype) for k, v in tensors.items()}
    if wrong := sorted(k for k in wanted.keys() | found.keys() if wanted.get(k) != found.get(k)):
        raise WeightsError(
            f"{path} does not fit the codec it describes ({wrong[0]} is {found.get(wrong[0])}, not "
            f"{wanted.get(wrong[0])}); it is damaged: {_REMEDY}"
        )
    integers = _below("context.", tensors)
    if reason := problem(integers):
        raise WeightsError(f"{path} is damaged ({reason}): {_REMEDY}")
    floats = {key: value.float() for key, value in _below("network.", tensors).items()}
    if not all(bool(torch.isfinite(value).all()) for value in floats.values()):
        raise WeightsError(f"{path} is damaged (a weight is not a finite number): {_REMEDY}")
    return CodecFile(config=config, bpp=bpp, network=floats, integers=integers)


def _below(name: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(name): v for key, v in tensors.items() if key.startswith(name)}


def read_head(path: Path, metadata: Mapping[str, str]) -> tuple[CodecConfig, tuple[float, ...]]:
    """Shape of the networks and typical rates from the text stored in a weight file.

    Raises:
        WeightsError: the text is of another model, or incomplete.
    """
    if metadata.get("format") != FORMAT:
        found = metadata.get("format", "no format is named")
        raise WeightsError(
            f"{path} holds weights of another model ({found}); 'compact-codec' needs a file with "
            f"format '{FORMAT}' as 'restore train' writes it: choose the model with -n or {_REMEDY}"
        )
    try:
        config = CodecConfig(**{f.name: int(metadata[f.name]) for f in fields(CodecConfig)})
        bpp = tuple(float(value) for value in metadata["bpp"].split(","))
        if len(bpp) != config.rates or not all(0 <= value < 24 for value in bpp):
            raise ValueError(f"bpp is {metadata['bpp']}")
    except (KeyError, ValueError, OptionError) as error:
        raise WeightsError(
            f"{path} does not say the shape of its networks ({error}); write it again with "
            f"'restore train', or {_REMEDY}"
        ) from error
    return config, bpp
