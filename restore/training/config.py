"""A training recipe as data, read from YAML and checked field by field."""

from __future__ import annotations

import dataclasses
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from restore.data_pipelines.patches import PatchFolder
from restore.degradations.recipe import DegradationRecipe
from restore.errors import InputError, OptionError
from restore.models.compact import CompactConfig

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimConfig:
    """AdamW with a linear warm-up and a cosine decay."""

    lr: float = 1e-3
    """Highest learning rate."""
    final_lr: float = 1e-6
    """Learning rate of the last iteration."""
    warmup: int = 200
    """Iterations until the highest rate."""
    weight_decay: float = 0.0
    """Decoupled weight decay."""
    clip: float = 1.0
    """Largest norm of the gradient."""
    ema: float = 0.999
    """Decay of the moving average of the weights, which is what is saved for use."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """One run of the trainer."""

    name: str
    """Name of the run; its folder below `experiments`."""
    network: CompactConfig = field(default_factory=CompactConfig)
    """Shape of the network."""
    data: tuple[PatchFolder, ...]
    """Folders of good pictures."""
    degradation: DegradationRecipe = field(default_factory=DegradationRecipe)
    """How the bad pictures are made."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """Optimiser."""
    iterations: int = 10000
    """Steps of the optimiser."""
    batch: int = 16
    """Patches a step."""
    groups: int = 4
    """Parts of a batch that are degraded separately, each with its own resampling sizes."""
    patch: int = 40
    """Side of the low-quality patches in pixels."""
    frequency_weight: float = 0.0
    """Weight of the spectral L1 loss beside the pixel loss."""
    soft_target_prob: float = 0.0
    """Share of groups whose good picture is blurred a little first, as a lens would."""
    soft_target_sigma: float = 1.0
    """Largest deviation of that blur in pixels of the good picture."""
    init: str | None = None
    """Weight file to start from; None = from scratch."""
    seed: int = 0
    """Seed of every random draw."""
    save_every: int = 500
    """Iterations between two checkpoints."""
    log_every: int = 50
    """Iterations between two lines of the log."""
    validation_lr: str | None = None
    """Folder of low-quality pictures to measure on, never trained on."""
    validation_hr: str | None = None
    """Folder of their references, with the same names."""
    validation_count: int = 25
    """How many of them, evenly spread."""

    def __post_init__(self) -> None:
        for name in ("iterations", "batch", "groups", "patch", "save_every", "log_every"):
            if getattr(self, name) < 1:
                raise OptionError(f"{name} is {getattr(self, name)}; give 1 or more")
        if self.batch % self.groups:
            raise OptionError(
                f"a batch of {self.batch} does not divide into {self.groups} groups; "
                "give a multiple"
            )
        if (self.validation_lr is None) != (self.validation_hr is None):
            raise OptionError("validation needs both validation_lr and validation_hr")


def read_train_config(path: Path) -> TrainConfig:
    """Recipe in a YAML file. Folders in it are relative to the file.

    Raises:
        InputError: the file is missing or not YAML.
        OptionError: a field is unknown, missing, or of the wrong kind; its full name is said.
    """
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); give a YAML file") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        line = " ".join(str(error).split())
        raise InputError(f"{path} is not valid YAML ({line}); correct it") from error
    config = build(TrainConfig, content, where="")
    return _resolve_paths(config, path.resolve().parent)


def _resolve_paths(config: TrainConfig, base: Path) -> TrainConfig:
    def absolute(text: str | None) -> str | None:
        return None if text is None else str((base / text).resolve())

    folders = tuple(dataclasses.replace(f, path=str(base / f.path)) for f in config.data)
    return dataclasses.replace(
        config,
        data=folders,
        init=absolute(config.init),
        validation_lr=absolute(config.validation_lr),
        validation_hr=absolute(config.validation_hr),
    )


def build(kind: type[T], content: Any, *, where: str) -> T:
    """A dataclass of type `kind` from plain YAML values.

    Raises:
        OptionError: a field is unknown, missing or of the wrong kind.
    """
    if not isinstance(content, dict):
        raise OptionError(
            f"{where or 'the recipe'} is a {type(content).__name__}; write fields as 'name: value'"
        )
    hints = get_type_hints(kind)
    fields = {f.name: f for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for name in content:
        if name not in fields:
            raise OptionError(
                f"unknown field '{_join(where, str(name))}'; allowed: {', '.join(fields)}"
            )
    for name, f in fields.items():
        required = f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        if required and name not in content:
            raise OptionError(f"field '{_join(where, name)}' is missing; add it to the recipe")
    values = {
        name: _convert(hints[name], value, where=_join(where, name))
        for name, value in content.items()
    }
    return kind(**values)


def _join(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


def _convert(kind: Any, value: Any, *, where: str) -> Any:
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in get_args(kind):
            return None
        inner = next(k for k in get_args(kind) if k is not type(None))
        return _convert(inner, value, where=where)
    if dataclasses.is_dataclass(kind):
        return build(typing.cast(type, kind), value, where=where)
    if origin is tuple:
        return _convert_tuple(get_args(kind), value, where=where)
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if kind is float and isinstance(value, str):  # YAML 1.1 reads 1e-3 as text
        try:
            return float(value)
        except ValueError:
            pass  # falls through to the error below, which names the field
    elif isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
        return value
    raise OptionError(f"field '{where}' is {value!r}; it must be of type {kind.__name__}")


def _convert_tuple(kinds: tuple[Any, ...], value: Any, *, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise OptionError(f"field '{where}' is {value!r}; it must be a list")
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        kinds = (kinds[0],) * len(value)
    if len(kinds) != len(value):
        raise OptionError(f"field '{where}' has {len(value)} values; it must have {len(kinds)}")
    return tuple(
        _convert(k, v, where=f"{where}[{i}]")
        for i, (k, v) in enumerate(zip(kinds, value, strict=True))
    )
