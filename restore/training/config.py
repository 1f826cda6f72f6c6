"""Settings that every training recipe shares, and how a recipe file is read.

A recipe is YAML. `recipe: NAME` chooses the class of `restore.training.registry`, and with it the
dataclass that the fields are checked against. `extends: FILE` takes the fields of another file
first; fields under `cuda:` hold on a GPU only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from restore.errors import OptionError
from restore.training.build import FileText, build, mark_paths, path_field, read_yaml
from restore.training.registry import DEFAULT_RECIPE, recipe_class

__all__ = [
    "OptimConfig",
    "Precision",
    "TrainConfig",
    "ValidationSet",
    "build",
    "choose_device",
    "read_train_config",
]

Precision = Literal["fp32", "bf16"]
MAX_SEED = 2**63 - 1
"""What a generator takes."""
MAX_WORKERS = 256
"""Each holds a batch that is made ahead."""
EVERY = ("log_every", "save_every", "validate_every", "keep_every")


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimConfig:
    """AdamW with a linear warm-up and a cosine decay."""

    lr: float = 1e-3
    """Highest learning rate."""
    final_lr: float = 1e-6
    """Learning rate of the last iteration."""
    warmup: int = 200
    """Iterations until the highest rate."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """What follows the warm-up; constant = the highest rate until the end."""
    betas: tuple[float, float] = (0.9, 0.99)
    """Decay of the two moments of the gradient."""
    weight_decay: float = 0.0
    """Decoupled weight decay."""
    clip: float = 1.0
    """Largest norm of the gradient."""

    def __post_init__(self) -> None:
        if self.lr <= 0 or self.final_lr < 0:
            raise OptionError(f"the learning rate {self.lr:g} is not possible; give more than 0")
        if self.clip <= 0:
            raise OptionError(f"clip is {self.clip:g}; give a norm above 0")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise OptionError(
                f"betas is {list(self.betas)}; give two from 0 up to, but not including, 1"
            )
        for name in ("warmup", "weight_decay"):
            if getattr(self, name) < 0:
                raise OptionError(f"{name} is {getattr(self, name):g}; give 0 or more")


@dataclass(frozen=True, kw_only=True, slots=True)
class ValidationSet:
    """Pictures to measure on, never trained on; pairs have the same name up to the suffix."""

    name: str = "validation"
    """Name in the log."""
    lr: str | None = path_field(default=None)
    """Folder of low-quality pictures; None = the references, shrunk by area averaging."""
    hr: str = path_field()
    """Folder of references. One larger than the result by a whole factor is shrunk to its size;
    what it has beyond the result at the right and at the bottom is left out."""
    count: int = 25
    """How many of them, evenly spread."""
    shown: int = 3
    """Of how many a side-by-side picture is written."""
    niqe_params: str | None = path_field(default=None)
    """Statistics file of NIQE (BasicSR's `niqe_pris_params.npz`); None = NIQE is not measured."""

    def __post_init__(self) -> None:
        if self.count < 1:
            raise OptionError(f"count of '{self.name}' is {self.count}; give 1 or more")
        if {"/", "\\"} & set(self.name):
            raise OptionError(f"the name '{self.name}' begins file names; leave slashes out")

    @property
    def measures(self) -> tuple[str, ...]:
        """Names of its columns in the log."""
        names = ("psnr_y", "ssim_y", *(("niqe",) if self.niqe_params else ()))
        return tuple(f"{self.name}.{name}" for name in names)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """One run of the trainer, without what its recipe adds."""

    name: str
    """Name of the run; its folder below `experiments`."""
    recipe: str = DEFAULT_RECIPE
    """Class that is trained; see `restore.training.registry`."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """Optimiser of the network."""
    iterations: int = 10000
    """Steps of the optimiser."""
    minutes: float | None = None
    """Ends the run earlier, after this time; the learning rate then falls with the time. Such a
    run can be resumed, but not repeated bit for bit."""
    batch: int = 16
    """Samples a step."""
    seed: int = 0
    """Seed of every random draw."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:1; auto = a GPU when there is one."""
    precision: Precision = "fp32"
    """Number format of the convolutions in training; the weights stay float32."""
    ema: float = 0.999
    """Decay of the moving average of the weights, which is what is saved for use."""
    workers: int | None = None
    """Threads that make batches ahead; None = 0 on a CPU, 8 on a GPU. The result is the same."""
    log_every: int = 50
    """Iterations between two lines of the log."""
    save_every: int = 500
    """Iterations between two checkpoints."""
    save_minutes: float = 10.0
    """Longest time without a checkpoint."""
    tensorboard: bool = False
    """Write the log for TensorBoard too (extra `train`)."""
    validation: tuple[ValidationSet, ...] = ()
    """What to measure on."""
    validate_every: int | None = None
    """Iterations between two validations; None = `save_every`."""
    best_by: Literal["psnr_y", "ssim_y", "niqe"] = "psnr_y"
    """What decides which weights are `best.safetensors`; the mean over the validation sets."""
    keep_every: int | None = None
    """Iterations between two weight files that are kept, named by their iteration: the last
    weights of an adversarial run are not always those that please most. None = the last alone."""

    def __post_init__(self) -> None:
        for name in ("iterations", "batch", *EVERY):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise OptionError(f"{name} is {value}; give 1 or more")
        for name in ("minutes", "save_minutes"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise OptionError(f"{name} is {value:g}; give more than 0")
        if not 0 <= self.ema < 1:
            raise OptionError(f"ema is {self.ema:g}; give 0 up to, but not including, 1")
        if not 0 <= self.seed <= MAX_SEED:
            raise OptionError(f"seed {self.seed} is not possible; give 0 to {MAX_SEED}")
        if self.workers is not None and not 0 <= self.workers <= MAX_WORKERS:
            raise OptionError(f"workers is {self.workers}; give 0 to {MAX_WORKERS}")
        if self.best_by == "niqe" and not any(item.niqe_params for item in self.validation):
            raise OptionError("best_by is niqe; give one validation set its niqe_params")
        names = [item.name for item in self.validation]
        if len(set(names)) < len(names):
            raise OptionError(f"two validation sets have one name ({', '.join(names)}); rename one")


FREE_FIELDS = frozenset(
    [
        "log_every",
        "save_every",
        "save_minutes",
        "tensorboard",
        "validation",
        "validate_every",
        "keep_every",
        "workers",
    ]
)
"""Fields that do not change the weights: a resumed run may have others than it began with."""


def read_train_config(path: Path, *, changes: Sequence[str] = ()) -> TrainConfig:
    """Recipe in a YAML file. Folders in it are relative to the file that names them.

    Args:
        path: the file.
        changes: fields to change, such as `optim.lr=1e-4`; folders in them are relative to the
            current folder.

    Returns:
        An object of the recipe's own dataclass, with a device chosen.

    Raises:
        InputError: the file is missing or not YAML.
        OptionError: a field is unknown, missing, or of the wrong kind; its full name is said.
    """
    content = _with_changes(_read(path, seen=()), changes)
    content["device"] = choose_device(str(content.get("device", "auto")))
    on_gpu = content.pop("cuda", {})
    if not isinstance(on_gpu, dict):
        raise OptionError(f"'cuda' is {on_gpu!r}; write the fields that a GPU changes below it")
    if content["device"].startswith("cuda"):
        content = _with_changes(_merged(content, on_gpu), changes)
        content["device"] = choose_device(str(content["device"]))
        content.pop("cuda", None)
    kind = recipe_class(str(content.get("recipe", DEFAULT_RECIPE))).Config
    return build(kind, content)


def choose_device(text: str) -> str:
    """`cpu` or `cuda:N` for what a recipe asks.

    Raises:
        OptionError: it is unknown, or not there.
    """
    import torch

    if text == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, index = text.partition(":")
    if kind not in ("cpu", "cuda") or (index and not (kind == "cuda" and index.isdigit())):
        raise OptionError(f"device '{text}' is unknown; allowed: auto, cpu, cuda, cuda:1")
    if kind == "cuda" and int(index or 0) >= torch.cuda.device_count():
        raise OptionError(
            f"device '{text}' is not there ({torch.cuda.device_count()} GPUs found); "
            "give cpu, or run 'restore doctor' to see why"
        )
    return text


def _read(path: Path, *, seen: tuple[Path, ...]) -> dict[str, Any]:
    """Fields of a file over those of the files that it extends."""
    path = path.resolve()
    if path in seen:
        raise OptionError(f"{path.name} extends itself; take one 'extends' out")
    content = read_yaml(path)
    if not isinstance(content, dict):
        kind = type(content).__name__
        raise OptionError(f"the recipe {path.name} is a {kind}; write fields as 'name: value'")
    base = content.pop("extends", None)
    try:
        content = mark_paths(content, path.parent)
    except RecursionError as error:
        raise OptionError(f"a field of {path.name} holds itself; take its '*' out") from error
    if base is None:
        return content
    if not isinstance(base, str):
        raise OptionError(f"field 'extends' is {base!r}; give the name of a YAML file")
    return _merged(_read(path.parent / base, seen=(*seen, path)), content)


def _merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` on top of `under`: fields below fields are merged, everything else is replaced."""
    result = dict(under)
    for key, value in over.items():
        if isinstance(value, dict) and isinstance(result.get(key), dict):
            value = _merged(result[key], value)
        result[key] = value
    return result


def _with_changes(content: dict[str, Any], changes: Sequence[str]) -> dict[str, Any]:
    import yaml

    for change in changes:
        name, equals, text = change.partition("=")
        if not equals or not name:
            raise OptionError(f"'{change}' changes nothing; write it as field=value")
        try:
            value = mark_paths(yaml.safe_load(text), Path.cwd())
        except yaml.YAMLError as error:
            raise OptionError(f"the value of '{change}' is not YAML; quote it") from error
        for key in reversed(name.split(".")):
            value = {key: value}
        content = _merged(content, value)
    return content


def plain(value: Any) -> Any:
    """A value that JSON can hold, of what `dataclasses.asdict` gives."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, FileText) else value
