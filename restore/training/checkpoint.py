"""The state of a run on disk: everything that the next iteration depends on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from restore.errors import InputError


@dataclass(kw_only=True, slots=True)
class TrainState:
    """Where a run stands after `iteration` steps."""

    iteration: int
    """Steps done."""
    network: dict[str, Tensor]
    """Weights being trained."""
    average: dict[str, Tensor]
    """Moving average of the weights."""
    optimiser: dict[str, Any]
    """State of the optimiser."""


def save_state(path: Path, state: TrainState) -> None:
    """Write the state, whole or not at all."""
    temporary = path.with_name(path.name + ".tmp")
    torch.save({name: getattr(state, name) for name in TrainState.__slots__}, temporary)
    temporary.replace(path)


def load_state(path: Path) -> TrainState:
    """Read the state.

    Raises:
        InputError: the file is damaged.
    """
    try:
        return TrainState(**torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:
        raise InputError(
            f"{path} is not a readable training state ({type(error).__name__}); "
            "start again with --overwrite"
        ) from error
