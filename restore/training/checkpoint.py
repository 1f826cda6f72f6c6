"""The state of a run on disk: everything that the next iteration depends on."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from restore.errors import InputError, OutputError


@dataclass(kw_only=True, slots=True)
class TrainState:
    """Where a run stands after `iteration` steps."""

    iteration: int
    """Steps done."""
    seconds: float = 0.0
    """Time spent on them."""
    modules: dict[str, dict[str, Tensor]]
    """State dicts of what is trained, by name."""
    averages: dict[str, dict[str, Tensor]]
    """Moving averages of the weights."""
    optimisers: dict[str, dict[str, Any]]
    """States of the optimisers."""
    sums: dict[str, float] = field(default_factory=dict)
    """Losses since the last line of the log, added up."""
    summed: int = 0
    """How many."""
    best: float | None = None
    """Best result of a validation so far."""


def save_state(path: Path, state: TrainState) -> None:
    """Write the state, whole or not at all: also when the machine stops in the middle.

    Raises:
        OutputError: no space, no permission.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        with temporary.open("wb") as file:
            torch.save({name: getattr(state, name) for name in TrainState.__slots__}, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, RuntimeError) as error:  # PyTorch says RuntimeError on a full disk
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise OutputError(
            f"{path} cannot be written ({' '.join(str(error).split())[:200]}); make room: the "
            "checkpoint before it is whole, --resume goes on from it"
        ) from error


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
