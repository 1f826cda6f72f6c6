"""Train every weight file of the package, one stage after the other, in a given time.

Made for a borrowed GPU: one packed patch set instead of photographs, a share of the time for each
stage, a checkpoint every few minutes. Run it again with the same arguments and it goes on where it
was stopped; `--stop-after` leaves in time for a machine whose commands may not last. After each
stage the variant's file in the output folder is complete and usable.

    faithful -> faithful, clips -> realistic -> realistic, clips -> noisy        for each variant
"""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from common import machine, parser, table

import restore
from restore.training.run import TrainResult, train_from_file
from restore.training.trainer import TrainStep

RECIPES = Path(restore.__file__).parent / "training" / "recipes"
VARIANTS = {
    # recipe: (file in the package, share of the time)
    "compact_x4": ("compact", 0.40),
    "compact_fast_x4": ("compact-fast", 0.15),
    "compact_x2": ("compact-x2", 0.25),
    "compact_fast_x2": ("compact-fast-x2", 0.20),
}
STAGES = {
    # end of the recipe's name: share of the variant's time
    "": 0.45,
    "_temporal": 0.15,
    "_realistic": 0.28,
    "_realistic_temporal": 0.05,
    "_noisy": 0.07,
}
STARTS = {"compact_x2": "compact_x4", "compact_fast_x2": "compact_fast_x4"}
"""Variants whose first stage begins with the first stage of another one."""
LEAST_TO_COMPILE = 3.0
"""Minutes of a stage from which `torch.compile` is worth its start."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One run of the trainer."""

    name: str
    """Recipe and folder."""
    before: str | None
    """Stage whose weights it starts from."""
    asset: str
    """Name of the weight file that it adds to."""
    minutes: float
    """Its share of the time."""


def stages(variants: list[str], minutes: float) -> Iterator[Stage]:
    """Everything that is to be trained, in order."""
    total = sum(VARIANTS[variant][1] for variant in variants)
    for variant in variants:
        asset, share = VARIANTS[variant]
        before = STARTS.get(variant)
        if before not in variants:
            before = None
        for end, part in STAGES.items():
            time_ = minutes * share / total * part
            yield Stage(name=variant + end, before=before, asset=asset, minutes=time_)
            before = variant + end


def changes_for(stage: Stage, options: argparse.Namespace) -> list[str]:
    """What differs from the stage's recipe."""
    changes = [
        f"data=[{{path: {options.data.resolve()}}}]",
        f"minutes={stage.minutes:.4f}",
        "iterations=100000000",
        "save_minutes=2",
        "save_every=1000000",
        "log_every=200",
        f"device={options.device}",
        f"compile={str(options.device != 'cpu' and stage.minutes > LEAST_TO_COMPILE).lower()}",
    ]
    if not options.validate:
        changes.append("validation=[]")
    start = options.start_from and options.start_from / f"{stage.asset}.safetensors"
    first = stage.name in VARIANTS
    if first and start:
        changes += [f"init={start.resolve()}", "init_fitting=false"]
    elif stage.before is not None:
        changes.append(f"init={(options.output / stage.before / 'net.safetensors').resolve()}")
    else:
        changes += ["init=null", "init_fitting=false"]
    if options.clips and stage.name.endswith("temporal"):
        changes.append(f"clips=[{{path: {options.clips.resolve()}}}]")
    return changes + list(options.set)


class Meter:
    """A line now and then."""

    def __init__(self, name: str) -> None:
        self.name, self.last = name, time.monotonic()

    def __call__(self, step: TrainStep, _: int) -> None:
        """Take one step of the trainer."""
        if time.monotonic() - self.last > 20:
            self.last = time.monotonic()
            losses = " ".join(f"{name} {value:.4f}" for name, value in step.losses.items())
            speed = step.samples / max(step.seconds, 1e-9)
            print(
                f"{self.name} {step.iteration} ({step.progress:.0%}) {losses} "
                f"{speed:.0f} samples/s",
                flush=True,
            )


def run_stage(stage: Stage, options: argparse.Namespace, *, seconds: float | None) -> TrainResult:
    """Begin a stage or go on with it, for at most `seconds`."""
    result = train_from_file(
        RECIPES / f"{stage.name}.yaml",
        output=options.output / stage.name,
        resume=True,
        changes=changes_for(stage, options),
        stop_after=seconds,
        progress=Meter(stage.name),
    )
    if result.finished:
        shutil.copyfile(result.weights, options.output / f"{stage.asset}.safetensors")
        (options.output / stage.name / "done").touch()
        (options.output / stage.name / "state.pt").unlink()  # large, and of no more use
    return result


def main() -> None:
    """Run all stages, or as many as fit."""
    options = arguments()
    began = time.monotonic()
    print(machine(), flush=True)
    options.output.mkdir(parents=True, exist_ok=True)
    rows = []
    for stage in stages(options.variants, options.minutes):
        if (options.output / stage.name / "done").exists():
            rows.append([stage.name, f"{stage.minutes:.2f}", "done before"])
            continue
        seconds = None
        if options.stop_after is not None:
            seconds = 60 * options.stop_after - (time.monotonic() - began)
            if seconds < 20:  # not worth building the networks for
                rows.append([stage.name, f"{stage.minutes:.2f}", "waits"])
                continue
        result = run_stage(stage, options, seconds=seconds)
        word = "done" if result.finished else "stopped; run this again"
        rows.append([stage.name, f"{stage.minutes:.2f}", f"{word} ({result.iteration})"])
    print(table(["stage", "minutes", "state (iterations)"], rows))


def arguments() -> argparse.Namespace:
    """The command line."""
    command = parser(
        __doc__,
        examples=[
            "restore pack PHOTOS -o patches.safetensors --count 700 --patch 384 --shrink 0.5",
            "restore pack CLIPS -o clips.safetensors --frames 5 --count 150 --shrink 0.5",
            "python benchmarks/train_weights.py --data patches.safetensors --minutes 25 "
            "--stop-after 9 -o weights",
        ],
    )
    command.add_argument("--data", type=Path, required=True, help="packed set or folder")
    command.add_argument("--clips", type=Path, help="packed set of clips (restore pack --frames)")
    command.add_argument("-o", "--output", type=Path, required=True, help="folder for everything")
    command.add_argument("--minutes", type=float, required=True, help="time for all stages")
    command.add_argument("--stop-after", type=float, help="minutes after which this call ends")
    command.add_argument("--device", default="cuda", help="cuda or cpu")
    command.add_argument("--start-from", type=Path, help="folder of weight files to go on from")
    command.add_argument("--validate", action="store_true", help="also validate as recipes say")
    command.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    command.add_argument("--set", action="append", default=[], help="more changes: field=value")
    return command.parse_args()


if __name__ == "__main__":
    main()
