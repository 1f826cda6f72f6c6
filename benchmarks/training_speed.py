"""Samples a second that the loader makes, beside those that the training takes, for each recipe.

The loader is measured alone (threads of its own on a GPU machine), then the steps on batches that
are ready. The training waits for its data where the first number is the smaller one. Times are
those after a warm-up; on a CPU they are processor time of one thread, so that other work on the
machine does not show.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import torch
from common import machine, parser, table

import restore
from restore.training.config import read_train_config
from restore.training.prefetch import batches
from restore.training.recipe import Recipe, Stepper
from restore.training.registry import recipe_class

RECIPES = Path(restore.__file__).parent / "training" / "recipes"
DEFAULTS = ["compact_x4", "compact_x4_temporal", "compact_x4_realistic", "compact_fast_x2"]


def main() -> None:
    """Print the table."""
    options = arguments()
    print(machine())
    rows = [measure(name, options) for name in options.recipes]
    header = ["recipe", "device", "batch", "loader alone", "step alone", "both", "data's share"]
    print(table(header, rows))
    print("Samples a second; a sample of a *_temporal recipe is a clip.")


def measure(name: str, options: argparse.Namespace) -> list[str]:
    """One row."""
    path = Path(name) if name.endswith(".yaml") else RECIPES / f"{name}.yaml"
    changes = ["validation=[]", "init=null", "init_fitting=false", "set=faithful", *options.set]
    config = read_train_config(path, changes=changes)
    device = torch.device(config.device)
    recipe = recipe_class(config.recipe)(config, device=device)
    stepper = Stepper(recipe.players, device=device, precision=config.precision)
    on_gpu = device.type == "cuda"
    workers = config.workers if config.workers is not None else (8 if on_gpu else 0)
    clock = time.perf_counter if on_gpu or workers else time.process_time
    loader = batches(recipe.batch, 0, device=device, workers=workers)
    list(islice(loader, options.warm_up))  # pictures are decoded when they are first drawn
    load = seconds_each(lambda: next(loader), options.steps, clock, device)
    ready = next(loader)
    train = step_time(recipe, stepper, ready, options.steps, clock)
    both = seconds_each(lambda: recipe.step(next(loader), stepper), options.steps, clock, device)
    loader.close()  # type: ignore[attr-defined]
    speeds = [f"{config.batch / seconds:.1f}" for seconds in (load, train, both)]
    waiting = max(0.0, 1 - train / both)
    return [path.stem, str(device), str(config.batch), *speeds, f"{waiting:.0%}"]


def step_time(
    recipe: Recipe,
    stepper: Stepper,
    batch: dict[str, torch.Tensor],
    steps: int,
    clock: Callable[[], float],
) -> float:
    """Seconds of one step on a batch that is there."""
    device = batch["bad"].device
    for _ in range(3):  # compiles, and lets the libraries choose
        recipe.step(batch, stepper)
    return seconds_each(lambda: recipe.step(batch, stepper), steps, clock, device)


def seconds_each(
    work: Callable[[], object], count: int, clock: Callable[[], float], device: torch.device
) -> float:
    """Mean time of `work`."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    began = clock()
    for _ in range(count):
        work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return (clock() - began) / count


def arguments() -> argparse.Namespace:
    """The command line."""
    command = parser(
        __doc__,
        examples=[
            "python benchmarks/training_speed.py",
            "python benchmarks/training_speed.py compact_x4 --set device=cuda --steps 50 "
            "--set 'data=[{path: patches.safetensors}]'",
        ],
    )
    command.add_argument("recipes", nargs="*", default=DEFAULTS, help="names or YAML files")
    command.add_argument("--steps", type=int, default=10, help="steps to measure")
    command.add_argument("--warm-up", type=int, default=40, help="batches made before")
    command.add_argument("--set", action="append", default=[], help="field=value of each recipe")
    return command.parse_args()


if __name__ == "__main__":
    main()
