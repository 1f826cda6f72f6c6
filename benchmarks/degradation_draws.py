"""Draws each recipe many times, checks every result, and sets what was drawn beside the recipe.

Checked of every draw: no NaN, the right size, whole steps of 8 bits; of all together: no number
outside its range, no share of a choice more than five standard deviations off. The exit status is 1
when any of it is not so. Recipes for video run on clips of three frames, others on pictures. The
last table is speed: one thread, groups of good patches as a trainer has them.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from common import machine, parser, table

from restore.degradations.basicsr_alias import basicsr_degradations
from restore.degradations.blur import Blur
from restore.degradations.camera import Camera
from restore.degradations.codec import Codec
from restore.degradations.compression import Jpeg
from restore.degradations.filtering import filter_round
from restore.degradations.kernels import gaussian_kernels, plateau_kernels, sinc_kernels
from restore.degradations.noise import Noise
from restore.degradations.presets import RECIPES, recipe_named
from restore.degradations.recipe import (
    AnyRecipe,
    CompactRecipe,
    degrade,
    degrade_clip_recorded,
    degrade_recorded,
)
from restore.degradations.resize import Decimate, Resize
from restore.degradations.steps import Step
from restore.errors import MissingExtraError

EXAMPLES = (
    "python benchmarks/degradation_draws.py",
    "python benchmarks/degradation_draws.py --draws 200 --recipe bsrgan",
)
CLIPS = ("realbasicvsr",)
SIZES = ((64, 64), (40, 72), (16, 8), (4, 4))
"""Height and width of the good pictures, in turn."""
DEVIATIONS = 5.0
"""A share that is further off than this is an error: once in two million."""


@dataclass(kw_only=True, slots=True)
class Expected:
    """What a recipe says of the steps of one name."""

    prob: float = 0.0
    """How often one of them is done."""
    ranges: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Range of each number."""
    shares: dict[str, dict[str, float]] = field(default_factory=dict)
    """Of each choice, how often which."""
    weight: float = 0.0
    """Sum over the branches that hold it, to take the mean of their shares."""


@dataclass(kw_only=True, slots=True)
class Seen:
    """What was drawn for the steps of one name."""

    done: int = 0
    """Draws in which it happened."""
    numbers: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """Values of each number."""
    choices: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    """How often which."""


def expectations(recipe: AnyRecipe) -> dict[str, Expected]:
    """What a recipe says, by name of the step."""
    found: dict[str, Expected] = defaultdict(Expected)
    if isinstance(recipe, CompactRecipe):
        parts = ((recipe.light_share, recipe.light), (1 - recipe.light_share, recipe.heavy))
        for share, part in parts:
            _collect(part.steps, share, found)
    else:
        _collect(recipe.steps, 1.0, found)
    return found


def _collect(steps: Sequence[Step], prob: float, found: dict[str, Expected]) -> None:
    for step in steps:
        if step.either is not None:
            whole = sum(branch.weight for branch in step.either.branches)
            for branch in step.either.branches:
                _collect(branch.steps, prob * branch.weight / whole, found)
            continue
        if step.shuffle is not None:
            _collect(step.shuffle.steps, prob, found)
            continue
        kind = getattr(step, step.what)
        if kind.prob * prob == 0 or (isinstance(kind, Codec) and kind.clips_only):
            continue
        own = found[step.label]
        own.prob += prob * kind.prob
        for name, (low, high) in _ranges(kind):
            before = own.ranges.get(name, (low, high))
            own.ranges[name] = min(low, before[0]), max(high, before[1])
        for name, shares in _shares(kind):
            mean = own.shares.setdefault(name, defaultdict(float))
            for choice, share in shares.items():
                mean[choice] += share * prob * kind.prob
    for own in found.values():
        own.weight = own.prob


def _ranges(kind: Any) -> Iterator[tuple[str, tuple[float, float]]]:
    """Names of numbers in records, and their ranges."""
    if isinstance(kind, Blur):
        families = {name.partition("_")[0] for name in kind.kinds}
        yield "side", kind.size
        if not families.isdisjoint(("iso", "aniso", "generalized", "plateau")):
            yield from ((name, kind.sigma) for name in ("sigma", "sigma_x", "sigma_y"))
        shapes = [getattr(kind, name) for name in ("generalized", "plateau") if name in families]
        if shapes:
            yield "shape", (min(low for low, _ in shapes), max(high for _, high in shapes))
        yield "angle", (-math.pi, math.pi)
        yield "cutoff", kind.cutoff or (math.pi / 5, math.pi)
    elif isinstance(kind, Resize):
        yield "factor", (1.0, 1.0) if kind.ways == (0, 0, 1) else kind.factor
    elif isinstance(kind, Noise):
        yield "sigma", kind.sigma
        yield "scale", kind.scale
    elif isinstance(kind, Camera):
        yield from (("shot", kind.shot), ("red", kind.red), ("blue", kind.blue))
    elif isinstance(kind, Jpeg):
        yield "quality", kind.quality
    elif isinstance(kind, Codec):
        yield ("bits", kind.bits) if kind.bits is not None else ("crf", kind.crf or (0, 51))
    elif isinstance(kind, Decimate):
        yield "sigma", kind.sigma


def _shares(kind: Any) -> Iterator[tuple[str, dict[str, float]]]:
    """Names of choices in records, and how often each is to be taken."""
    if isinstance(kind, Blur | Noise):
        yield "kind", _normal(kind.kinds, kind.weights)
    elif isinstance(kind, Codec):
        yield "codec", _normal(kind.codecs, kind.weights)
    elif isinstance(kind, Resize):
        yield "mode", _normal(kind.modes, (1,) * len(kind.modes))


def _normal(names: Sequence[str], weights: Sequence[float]) -> dict[str, float]:
    return {name: weight / sum(weights) for name, weight in zip(names, weights, strict=True)}


def draw_all(
    name: str, recipe: AnyRecipe, *, draws: int, scale: int
) -> tuple[dict[str, Seen], list[str]]:
    """Draw a recipe so many times.

    Returns:
        What was drawn, by name of the step, and what is wrong.
    """
    seen: dict[str, Seen] = defaultdict(Seen)
    problems = []
    for seed in range(draws):
        generator = torch.Generator().manual_seed(seed)
        height, width = SIZES[seed % len(SIZES)]
        frames = 3 if name in CLIPS else 1
        good = torch.rand(1, frames, 3, height, width, generator=generator)
        good = filter_round(good[0], 1.5, size=9)[None]
        if name in CLIPS:
            bad, records = degrade_clip_recorded(good, generator, recipe, scale=scale)
        else:
            bad, records = degrade_recorded(good[:, 0], generator, recipe, scale=scale)
            bad = bad[:, None]
        if bad.shape != (1, frames, 3, height // scale, width // scale):
            problems.append(f"seed {seed}: size {tuple(bad.shape)}")
        if not bool(torch.isfinite(bad).all()):
            problems.append(f"seed {seed}: not a number")
        if float((bad * 255 - (bad * 255).round()).abs().max()) > 1e-3:
            problems.append(f"seed {seed}: not in steps of 8 bits")
        for step in records[0]["steps"]:
            _note(seen[step["step"]], step)
    return seen, problems


def _note(seen: Seen, step: dict[str, Any]) -> None:
    seen.done += 1
    for name, value in step.items():
        if name in ("step", "to", "size", "mix"):
            continue
        if isinstance(value, str):
            seen.choices[name][value] += 1
        elif isinstance(value, bool):
            seen.choices[name][str(value).lower()] += 1
        else:
            seen.numbers[name] += value if isinstance(value, list) else [value]


def compare(
    seen: dict[str, Seen], expected: dict[str, Expected], draws: int
) -> tuple[list[list[str]], list[str]]:
    """Rows of the table, and what is off."""
    rows, problems = [], []

    def share(what: str, count: int, whole: int, wanted: float) -> str:
        deviation = math.sqrt(max(wanted * (1 - wanted), 1e-12) / max(whole, 1))
        got = count / max(whole, 1)
        if abs(got - wanted) > DEVIATIONS * deviation + 1e-9:
            problems.append(f"{what}: {got:.3f} of {whole}, the recipe says {wanted:.3f}")
        return f"{got:.3f} ({wanted:.3f})"

    for name, wanted in expected.items():
        own = seen.get(name, Seen())
        row = [name, "done", share(f"{name} done", own.done, draws, wanted.prob), "", "", ""]
        rows.append(row)
        for choice, shares in wanted.shares.items():
            counts = own.choices.get(choice, Counter())
            texts = [
                f"{key} {share(f'{name} {key}', counts[key], own.done, part / wanted.weight)}"
                for key, part in shares.items()
            ]
            rows.append([name, choice, ", ".join(texts), "", "", ""])
        for number, values in own.numbers.items():
            spread = [f"{v:.4g}" for v in (min(values), sum(values) / len(values), max(values))]
            room = wanted.ranges.get(number)
            told = "" if room is None else f"{room[0]:.4g} to {room[1]:.4g}"
            if room is not None and not (
                room[0] - 0.5 * (number == "quality") - 1e-4 <= min(values)
                and max(values) <= room[1] + 0.5 * (number == "quality") + 1e-4
            ):
                problems.append(f"{name} {number}: {spread[0]} to {spread[2]}, allowed {told}")
            rows.append([name, number, told, *spread])
    problems += [f"{name} is not in the recipe" for name in seen.keys() - expected.keys()]
    return rows, problems


def speed(name: str, *, side: int, scale: int, seconds: float) -> float:
    """Good patches a second, in groups of three."""
    good = torch.rand(3, 3, side, side, generator=torch.Generator().manual_seed(0))
    good = filter_round(good, 1.5, size=9)
    recipe = recipe_named(name, scale=scale)
    done, start = 0, time.process_time()
    while time.process_time() - start < seconds:
        degrade(good, torch.Generator().manual_seed(done), recipe, scale=scale)
        done += 1
    return 3 * done / (time.process_time() - start)


def beside_basicsr() -> str:
    """How far our kernels are from BasicSR's, if that is installed."""
    try:
        oracle: Any = basicsr_degradations()
    except MissingExtraError as error:
        return f"not compared: {error}"
    worst = 0.0
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        x, y, shape, share = (0.3 + 2.7 * torch.rand(4, generator=generator)).tolist()
        angle, cutoff = 2 * share - 3, 0.6 + 2.5 * (share - 0.3) / 2.7
        sizes = [torch.tensor([v], dtype=torch.float64) for v in (x, y, angle, shape, cutoff)]
        pairs = (
            (oracle.bivariate_Gaussian(21, x, y, angle, isotropic=False), gaussian_kernels),
            (oracle.bivariate_plateau(21, x, y, angle, shape, isotropic=False), plateau_kernels),
        )
        for theirs, ours in pairs:
            given = sizes[:3] if ours is gaussian_kernels else sizes[:4]
            difference = ours(*given, size=21)[0] - torch.from_numpy(theirs)
            worst = max(worst, float(difference.abs().max()))
        sinc = sinc_kernels(sizes[4], size=21)[0]
        difference = sinc - torch.from_numpy(oracle.circular_lowpass_kernel(cutoff, 21))
        worst = max(worst, float(difference.abs().max()))
    return f"largest difference of 600 kernels from BasicSR's: {worst:.1e}"


def main(arguments: argparse.Namespace) -> int:
    """Print the tables; the exit status."""
    torch.set_num_threads(1)
    print(machine())
    failed = False
    for name in arguments.recipe or RECIPES:
        recipe = recipe_named(name, scale=arguments.scale)
        seen, problems = draw_all(name, recipe, draws=arguments.draws, scale=arguments.scale)
        rows, off = compare(seen, expectations(recipe), arguments.draws)
        print(f"\n## {name}, {arguments.draws} draws, x{arguments.scale}\n")
        print(table(("step", "what", "seen (recipe), or range", "min", "mean", "max"), rows))
        print(f"\nNaN, wrong sizes, broken steps: {len(problems)}; outside the recipe: {len(off)}")
        for problem in [*problems[:5], *off]:
            print(f"- {problem}")
        failed = failed or bool(problems or off)
    side = 48 * arguments.scale
    print(f"\n## Speed, one thread, groups of 3 patches of {side}x{side}\n")
    rows = [
        [name, f"{speed(name, side=side, scale=arguments.scale, seconds=arguments.seconds):.0f}"]
        for name in arguments.recipe or RECIPES
    ]
    print(table(("recipe", "patches a second of processor time"), rows))
    print(f"\n{beside_basicsr()}")
    return int(failed)


if __name__ == "__main__":
    options = parser(__doc__, examples=EXAMPLES)
    options.add_argument("--draws", type=int, default=1000, help="draws of each recipe")
    options.add_argument("--scale", type=int, default=4, help="factor between good and bad")
    options.add_argument("--recipe", action="append", choices=RECIPES, help="default: all")
    options.add_argument("--seconds", type=float, default=6.0, help="for each speed")
    sys.exit(main(options.parse_args()))
