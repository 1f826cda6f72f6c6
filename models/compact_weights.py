"""Weight files of `compact`: one shape, and one or more sets of weights to move between.

    faithful.PARAMETER           fp16
    SET.PARAMETER                int8: what the set adds to the faithful one, in steps
    SET.PARAMETER.step           fp16: size of a step, for each output channel

The shape is in the text beside them. All sets come from one training run's weights and stay close
enough that what lies between two of them works as well (Wang et al., "Deep Network Interpolation
for Continuous Imagery Effect Transition", CVPR 2019), and that 8 bits hold what tells them apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor

from restore.errors import OptionError, WeightsError
from restore.models.compact_net import CompactConfig
from restore.weights import open_weights, save_weights

FORMAT = "restore.compact.v3"
FORMATS = ("restore.compact.v2", FORMAT)
"""Those that can be read; version 2 has every set in fp16."""
_STEP = ".step"

SetName = Literal["faithful", "realistic", "noisy"]
"""faithful: trained for pixels; realistic: trained for texture; noisy: leaves noise alone."""
SETS: tuple[SetName, ...] = get_args(SetName)


@dataclass(frozen=True, kw_only=True, slots=True)
class CompactFile:
    """What a weight file holds."""

    config: CompactConfig
    """Shape of the network."""
    sets: Mapping[SetName, Mapping[str, Tensor]]
    """Weights by the name of their set; `faithful` is always there."""


def write_compact(
    path: Path,
    config: CompactConfig,
    sets: Mapping[SetName, Mapping[str, Tensor]],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a weight file, whole or not at all.

    Args:
        path: file to write.
        config: shape of the network.
        sets: state dicts by name; `faithful` must be among them.
        metadata: more text to keep, such as the recipe's name.

    Raises:
        WeightsError: a weight is not finite, or too large for fp16.
        OutputError: no space, no permission.
    """
    if "faithful" not in sets:
        raise ValueError("a weight file needs the set 'faithful'")
    text = {"format": FORMAT, **(metadata or {}), **{k: str(v) for k, v in asdict(config).items()}}
    for name, weights in sets.items():
        large = next((key for key, x in weights.items() if not _fits(x)), None)
        if large is not None:
            raise WeightsError(
                f"{path} cannot hold '{name}.{large}': it has a number beyond fp16, so the "
                "training has diverged; go on from an earlier file with a lower optim.lr"
            )
    faithful = {key: value.to(torch.float16) for key, value in sets["faithful"].items()}
    state = {f"faithful.{key}": value for key, value in faithful.items()}
    for name, weights in sets.items():
        if name == "faithful":
            continue
        for key, value in weights.items():
            steps, size = _to_steps(value.float() - faithful[key].float())
            state |= {f"{name}.{key}": steps, f"{name}.{key}{_STEP}": size}
    save_weights(path, state, text)


def _fits(weight: Tensor) -> bool:
    """Whether fp16 holds a parameter, and an int8 step of fp16 what two sets differ by."""
    return bool((weight.abs() <= torch.finfo(torch.float16).max / 2).all())


def _to_steps(difference: Tensor) -> tuple[Tensor, Tensor]:
    """A difference as int8 in steps, and the size of a step `(channels,)` in fp16."""
    largest = difference.abs().flatten(1).amax(1) if difference.ndim > 1 else difference.abs()
    # Not below what fp16 holds exactly; a difference that small is none.
    size = (largest / 127).clamp_min(2**-14).to(torch.float16)
    shape = (-1, *(1,) * (difference.ndim - 1))
    return (difference / size.float().view(shape)).round().to(torch.int8), size


def _from_steps(steps: Tensor, size: Tensor) -> Tensor:
    return steps.float() * size.float().view(-1, *(1,) * (steps.ndim - 1))


def read_compact(path: Path) -> CompactFile:
    """Read a weight file that `restore train` wrote.

    Returns:
        The shape, and the sets as float32.

    Raises:
        WeightsError: the file is missing, damaged, unsafe, or of another model.
    """
    state, metadata = open_weights(path)
    if "format" not in metadata:
        metadata = {"format": f"keys such as '{next(iter(state), 'none')}'"}
    config = read_config(path, metadata)
    for key, value in state.items():
        whole = value.dtype == torch.int8 if key + _STEP in state else value.is_floating_point()
        if not whole or not value.float().isfinite().all():
            wrong = "a number that is not finite" if whole else f"numbers of {value.dtype}"
            raise WeightsError(
                f"{path} holds {wrong} in '{key}'; it is damaged: fetch it again, or leave "
                "--weights out"
            )
    try:
        sets = _unpacked(path, state)
    except (RuntimeError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise WeightsError(
            f"{path} holds sets that do not fit each other ({reason}); it is damaged: fetch it "
            "again, or leave --weights out"
        ) from error
    return CompactFile(config=config, sets=sets)


def _unpacked(path: Path, state: Mapping[str, Tensor]) -> dict[SetName, dict[str, Tensor]]:
    """The sets of a file as float32, each whole."""
    sets: dict[SetName, dict[str, Tensor]] = {}
    for key, value in state.items():
        name, _, parameter = key.partition(".")
        if name not in SETS:
            raise WeightsError(
                f"{path} holds a weight set '{name}'; this version knows {', '.join(SETS)}: "
                "update restore, or write the file again with 'restore train'"
            )
        if not parameter.endswith(_STEP):
            size = state.get(key + _STEP)
            sets.setdefault(name, {})[parameter] = (
                value.float() if size is None else _from_steps(value, size)
            )
    if "faithful" not in sets:
        raise WeightsError(
            f"{path} holds no weight set 'faithful'; write it again with 'restore train' or leave "
            "--weights out"
        )
    for name, weights in sets.items():
        if name != "faithful" and any(f"{name}.{key}{_STEP}" in state for key in weights):
            sets[name] = {key: sets["faithful"][key] + value for key, value in weights.items()}
    return sets


def read_config(path: Path, metadata: Mapping[str, str]) -> CompactConfig:
    """Shape of the network from the text stored in its weight file.

    Raises:
        WeightsError: the text is of another model, or incomplete.
    """
    if metadata.get("format") not in FORMATS:
        found = metadata.get("format", "no format is named")
        raise WeightsError(
            f"{path} holds weights of another model ({found}); 'compact' needs a file with "
            f"format '{FORMAT}' as 'restore train' writes it: choose the model with -n or "
            "leave --weights out"
        )
    try:
        return CompactConfig(**{f.name: int(metadata[f.name]) for f in fields(CompactConfig)})
    except (KeyError, ValueError, OptionError) as error:
        raise WeightsError(
            f"{path} does not say the shape of its network ({error}); write it again with "
            "'restore train' or leave --weights out"
        ) from error


def interpolate(file: CompactFile, *, fidelity: float, denoise: float) -> dict[str, Tensor]:
    """One set of weights between those of a file.

    w = faithful + (1 - fidelity) (realistic - faithful) + (1 - denoise) (noisy - faithful).

    Args:
        file: the sets.
        fidelity: 1 = as near to the pixels as can be, 0 = as realistic as can be.
        denoise: 1 = noise is removed, 0 = it is left.

    Raises:
        OptionError: a value is outside 0 to 1, or the file lacks the set that it needs.
    """
    result = {key: value.clone() for key, value in file.sets["faithful"].items()}
    asked: tuple[tuple[str, float, SetName], ...] = (
        ("fidelity", fidelity, "realistic"),
        ("denoise", denoise, "noisy"),
    )
    for option, value, name in asked:
        if not 0 <= value <= 1:
            raise OptionError(f"{option} {value:g} is not possible; give 0 to 1")
        if value == 1:
            continue
        if name not in file.sets:
            raise OptionError(
                f"--{option} {value:g} needs weights trained for it, and this file has none "
                f"(sets: {', '.join(file.sets)}); leave --{option} out or give 1"
            )
        for key, other in file.sets[name].items():
            result[key] += (1 - value) * (other - file.sets["faithful"][key])
    return result
