"""`restore train`: a recipe file to a folder with checkpoints, a log and usable weights."""

from __future__ import annotations

import contextlib
import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch

from restore.errors import InputError, OptionError, OutputError
from restore.folder_lock import FolderLock
from restore.training.checkpoint import load_state, save_state
from restore.training.config import FREE_FIELDS, TrainConfig, plain, read_train_config
from restore.training.interrupt import signals_held
from restore.training.log import TrainLog
from restore.training.recipe import Recipe
from restore.training.registry import recipe_class
from restore.training.trainer import Trainer, TrainStep
from restore.training.validation import validate, validation_pairs

log = logging.getLogger("restore.training")

Progress = Callable[[TrainStep, int], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainResult:
    """What a call of the trainer leaves."""

    weights: Path
    """File for `--weights`."""
    iteration: int
    """Steps done."""
    finished: bool
    """The run is at its end; else it was left early, and can be resumed."""


def train_from_file(
    path: Path,
    *,
    output: Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    changes: Sequence[str] = (),
    stop_after: float | None = None,
    progress: Progress | None = None,
) -> TrainResult:
    """Train what a recipe describes.

    Args:
        path: YAML file of a recipe.
        output: folder of the run; default `experiments/NAME` in the current folder. It gets
            `net.safetensors` (for `--weights`), `best.safetensors`, `state.pt` (for resuming),
            `log.csv`, `pictures` and `recipe.json`.
        resume: go on from `state.pt` when it is there.
        overwrite: start again although the folder holds a run.
        changes: fields to change, such as `optim.lr=1e-4`.
        stop_after: seconds after which the state is saved and the run left for a later `resume`.
        progress: called after each step with the step and the number of all steps.

    Returns:
        The weight file, and whether the run is at its end.

    Raises:
        OptionError: the recipe is wrong, or resumed with another one.
        OutputError: the folder holds a run and neither `resume` nor `overwrite` was given, another
            run is at work in it, or it cannot be written.
        DivergedError: a loss is not finite.
    """
    until = None if stop_after is None else time.monotonic() + stop_after
    config = read_train_config(path, changes=changes)
    folder = output or Path("experiments") / config.name
    state_file = folder / "state.pt"
    if state_file.exists() and not resume and not overwrite:
        raise OutputError(
            f"{folder} holds a run already; add --resume to go on or --overwrite to start again"
        )
    resume = resume and state_file.exists()
    if resume:
        _check_same_recipe(folder / "recipe.json", config)
    for pictures in config.validation:
        validation_pairs(pictures)  # what is missing is said now, not after an hour
    torch.manual_seed(config.seed)
    if config.device != "cpu":
        torch.backends.cudnn.benchmark = True  # sizes stay, so looking for the fastest way pays
    recipe = recipe_class(config.recipe)(config, device=torch.device(config.device))
    trainer = Trainer(recipe, config)
    with _writing(folder), _alone_in(folder):
        if resume:
            _go_on(trainer, state_file)
        elif overwrite:
            _clear(folder, config)
        _write_recipe(folder / "recipe.json", config)
        return Run(trainer, recipe, folder, progress=progress).finish(until=until)


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """What the system says about a folder that cannot be written, as one line."""
    try:
        yield
    except BrokenPipeError:
        raise  # the reader of what is printed has gone
    except OSError as error:
        raise OutputError(
            f"{folder} cannot be written ({error.strerror or error}); make room, or give another "
            "folder with -o"
        ) from error


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """One run at a time: two would write through each other's files."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FolderLock(folder)
    lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _clear(folder: Path, config: TrainConfig) -> None:
    """Take away what another run left: its state must not be resumed with the new recipe."""
    start = getattr(config, "init", None)
    names = ("state.pt", "best.safetensors", "net-*.safetensors")
    for old in [file for name in names for file in folder.glob(name)]:
        if start is None or old.resolve() != Path(start).resolve():
            old.unlink(missing_ok=True)


class Run:
    """A trainer with its folder."""

    def __init__(
        self, trainer: Trainer, recipe: Recipe, folder: Path, *, progress: Progress | None
    ) -> None:
        self.trainer, self.recipe, self.folder = trainer, recipe, folder
        self.config = trainer.config
        self._progress = progress
        self._saved, self._saved_at = time.monotonic(), -1
        self.weights = folder / "net.safetensors"

    def finish(self, *, until: float | None) -> TrainResult:
        """Train until the end, or until the clock (`time.monotonic`) shows `until`."""
        names = [name for pictures in self.config.validation for name in pictures.measures]
        columns = ["iteration", "seconds", "lr", *self.recipe.loss_names, *names]
        table = TrainLog(
            self.folder,
            columns,
            after=self.trainer.iteration,
            tensorboard=self.config.tensorboard,
        )
        with table, signals_held() as release:
            with self._saved_on_bad_data():
                for step in self.trainer.steps():
                    try:
                        self._after(step, table)
                        release()
                    except (KeyboardInterrupt, SystemExit):
                        self.save()  # the state is whole here, between two steps
                        raise
                    if until is not None and time.monotonic() > until:
                        break
            if not self.weights.exists() or self._saved_at != self.trainer.iteration:
                self.save()
        return TrainResult(
            weights=self.weights,
            iteration=self.trainer.iteration,
            finished=self.trainer.progress >= 1,
        )

    @contextlib.contextmanager
    def _saved_on_bad_data(self) -> Iterator[None]:
        """A picture that cannot be read stops the run, but costs none of its steps."""
        try:
            yield
        except (InputError, OptionError):  # only making a batch and validating raise these
            if self.trainer.iteration > 0:
                self.save()
            raise

    def _after(self, step: TrainStep, table: TrainLog) -> None:
        """Report, write a line of the log, validate and save, each when it is due."""
        config, done = self.config, step.iteration
        if self._progress is not None:
            self._progress(step, config.iterations)
        last = step.progress >= 1
        validating = last or done % (config.validate_every or config.save_every) == 0
        validating = validating and bool(config.validation)
        if validating or last or done % config.log_every == 0:
            row = {"seconds": self.trainer.seconds, "lr": step.lr, **self.trainer.mean_losses()}
            if validating:
                row |= self.validate()
            table.row(done, row)
        if config.keep_every is not None and done % config.keep_every == 0:
            self.trainer.check()
            kept = self.folder / f"net-{done:07d}.safetensors"
            self.recipe.save(kept, self.trainer.averages, iteration=done)
        late = time.monotonic() - self._saved > 60 * config.save_minutes
        if last or late or done % config.save_every == 0:
            self.save()

    def save(self) -> None:
        """Write the weights, then the state that they belong to."""
        state = self.trainer.state()  # first: it refuses when the weights are of no use
        self.recipe.save(self.weights, self.trainer.averages, iteration=state.iteration)
        save_state(self.folder / "state.pt", state)
        self._saved, self._saved_at = time.monotonic(), state.iteration

    def validate(self) -> dict[str, float]:
        """Measures of the averaged weights; the best so far are kept in a file."""
        self.trainer.check()
        restorer = self.recipe.restorer(self.trainer.averages)
        results: dict[str, float] = {}
        for pictures in self.config.validation:
            results |= validate(
                pictures,
                restorer,
                scale=self.recipe.scale,
                device=self.trainer.device,
                sheets=self.folder / "pictures",
                label=f"{self.trainer.iteration:07d}",
            )
        by = self.config.best_by
        values = [value for name, value in results.items() if name.endswith(f".{by}")]
        quality = sum(values) / len(values) * (-1 if by == "niqe" else 1)  # less NIQE is better
        if self.trainer.best is None or quality > self.trainer.best:
            self.trainer.best = quality
            best = self.folder / "best.safetensors"
            self.recipe.save(best, self.trainer.averages, iteration=self.trainer.iteration)
        return results


def _go_on(trainer: Trainer, state_file: Path) -> None:
    """Put a trainer where its checkpoint stands.

    Raises:
        InputError: the file is damaged, or of networks of another shape.
    """
    state = load_state(state_file)
    try:
        trainer.restore_state(state)
    except (RuntimeError, KeyError, ValueError) as error:
        raise InputError(
            f"{state_file} holds the state of another run ({' '.join(str(error).split())[:200]}); "
            "start again with --overwrite"
        ) from error


def _write_recipe(path: Path, config: TrainConfig) -> None:
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(plain(asdict(config)), indent=2), encoding="utf-8")
    temporary.replace(path)


def _check_same_recipe(path: Path, config: TrainConfig) -> None:
    if not path.exists():
        return
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(
            f"{path} is damaged; delete it when the recipe is the one the run began with"
        ) from error
    now = json.loads(json.dumps(plain(asdict(config))))
    names = [f.name for f in fields(config) if f.name not in FREE_FIELDS]
    changed = sorted(name for name in names if now[name] != before.get(name))
    if changed:
        raise OptionError(
            f"the recipe differs from the one the run began with ({', '.join(changed)}); "
            "take the change back, or start again with --overwrite"
        )
