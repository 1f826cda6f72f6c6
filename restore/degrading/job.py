"""Degrade pictures and clips: what `restore degrade` runs, and what a program calls instead.

The draws of a file depend on the seed, the recipe and the file's name below the folder that was
given, and on nothing else: the same call gives the same bytes, and other inputs beside it change
nothing. One bad input never stops the others; every failure is one line in the report.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

import restore
from restore.data_config import DegradeConfig
from restore.degradations.plan import Record
from restore.degradations.presets import RECIPES, recipe_named
from restore.degradations.recipe import AnyRecipe, degrade_recorded
from restore.degrading.clip import degrade_clip_file, plan_clip
from restore.degrading.plan import DegradeJob, plan_degradation
from restore.errors import InputError, OptionError, OutputError
from restore.image.batch import Batch, one_line
from restore.image.events import (
    Advanced,
    Done,
    Event,
    Failed,
    ImageReport,
    Planned,
    Size,
    Started,
)
from restore.image.files import (
    NO_ALPHA,
    Picture,
    flattened,
    output_reason,
    read_header,
    read_image,
    write_image,
)
from restore.image.job import prepare_folder

log = logging.getLogger("restore.degrade")

NO_SOUND = "sound, subtitles and all else but the picture are left out"
"""Note on every clip."""


def degrade_files(
    inputs: str | Path | Sequence[str | Path],
    *,
    config: DegradeConfig | None = None,
    on_event: Callable[[Event], None] | None = None,
    **settings: Any,
) -> ImageReport:
    """Make bad versions of good files, and a record of what was drawn beside each.

    Args:
        inputs: pictures, clips, folders, patterns (`"photos/**/*.jpg"`).
        config: what to do; default: `DegradeConfig()`.
        on_event: called as the work goes on, in this thread.
        settings: fields of `DegradeConfig` that replace those of `config`, such as `seed=7`.

    Returns:
        The report; look at `failed`.

    Raises:
        OptionError: the settings do not go together, or with the inputs.
        InputError: the recipe is a file that cannot be read.
        OutputError: the output folder cannot be written; found before any work.
    """
    start = time.perf_counter()
    config = DegradeConfig(**settings) if config is None else replace(config, **settings)
    names = [inputs] if isinstance(inputs, str | Path) else list(inputs)
    recipe = find_recipe(config.recipe, scale=config.scale)
    jobs = plan_degradation(names, config)
    run = _Run(config=config, recipe=recipe, on_event=on_event, total=len(jobs))
    for index, job in enumerate(jobs, start=1):
        run.take(job, index)
    run.report.seconds = time.perf_counter() - start
    return run.report


def find_recipe(name: str, *, scale: int) -> AnyRecipe:
    """A recipe by its name, or out of a YAML file.

    A file holds what a training recipe has for one degradation: `preset` and `change`, or `plain`,
    or `recipe` with all steps.

    Raises:
        OptionError: there is none of that name, or a field of the file is wrong.
        InputError: the file cannot be read.
    """
    if name in RECIPES:
        return recipe_named(name, scale=scale)
    path = Path(name)
    if path.suffix.lower() not in (".yaml", ".yml"):
        raise OptionError(
            f"recipe '{name}' is unknown; allowed: {', '.join(RECIPES)}, or a file such as my.yaml"
        )
    from restore.training.build import build, read_yaml
    from restore.training.mixture import DegradationShare

    share = build(DegradationShare, read_yaml(path))
    if share.soft_prob:
        raise OptionError(
            f"soft_prob in {path} blurs the good picture, which only a trainer does; take it out"
        )
    return share.resolved(scale=scale)


def file_generator(seed: int, recipe: str, key: str) -> torch.Generator:
    """The generator of one file, from the seed, the name of the recipe and that of the file."""
    text = f"{seed}\0{Path(recipe).name}\0{key}"
    digest = hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


@dataclass(kw_only=True, slots=True)
class _Run(Batch):
    """One call of `degrade_files`: takes jobs, tells events, keeps the report."""

    config: DegradeConfig
    recipe: AnyRecipe
    prepared: set[Path] = field(default_factory=set)

    def take(self, job: DegradeJob, index: int) -> None:
        """Bring one job to its end; only KeyboardInterrupt and its like come out."""
        self.settle(
            str(job.source),
            lambda: self._preview(job) if self.config.dry_run else self._degrade(job, index),
            verdict=job.verdict,
            reason=job.reason,
            log=log,
            memory_hint="close other programs, or cut it into parts",
        )

    def _preview(self, job: DegradeJob) -> Event:
        if job.is_clip:
            plan = plan_clip(job.source, scale=self.config.scale, codec=self.config.codec)
            size_in, size_out = plan.size_in, plan.size_out
        else:
            size_in = read_header(job.source, max_pixels=self.config.max_pixels).size
            width, height = self._cut(size_in)
            size_out = width // self.config.scale, height // self.config.scale
        return Planned(
            source=str(job.source),
            destination=str(job.destination),
            size_in=size_in,
            size_out=size_out,
        )

    def _degrade(self, job: DegradeJob, index: int) -> Event:
        start = time.perf_counter()
        source, destination = str(job.source), str(job.destination)
        self.tell(Started(source=source, destination=destination, index=index, total=self.total))
        folder = job.destination.parent
        generator = file_generator(self.config.seed, self.config.recipe, job.key)
        work = self._clip if job.is_clip else self._picture
        if folder not in self.prepared:
            prepare_folder(folder)
            self.prepared.add(folder)
        size_in, size_out, notes, record, damage = work(job, generator)
        head = {"input": job.key, "seed": self.config.seed, "restore": restore.__version__}
        write_record(job.record, {**head, **record})
        for note in notes:
            log.info("%s: %s", source, note)
        if damage is not None:
            return Failed(source=source, message=one_line(damage))
        return Done(
            source=source,
            destination=destination,
            size_in=size_in,
            size_out=size_out,
            seconds=time.perf_counter() - start,
            notes=notes,
        )

    def _cut(self, size: Size) -> Size:
        """Width and height as multiples of the scale."""
        scale = self.config.scale
        width, height = (side // scale * scale for side in size)
        if width == 0 or height == 0:
            raise InputError(
                f"it is {size[0]}x{size[1]}, too small for a scale of {scale}; "
                "choose a smaller --scale"
            )
        return width, height

    def _picture(
        self, job: DegradeJob, generator: torch.Generator
    ) -> tuple[Size, Size, tuple[str, ...], Record, None]:
        config = self.config
        picture = read_image(job.source, max_pixels=config.max_pixels)
        notes = picture.notes
        if picture.alpha is not None:
            picture, notes = flattened(picture), (*notes, NO_ALPHA.format("the result"))
        width, height = self._cut(picture.size)
        good = picture.rgb[None, :, :height, :width]
        bad, records = degrade_recorded(good, generator, self.recipe, scale=config.scale)
        rgb = bad[0]
        if picture.gray:  # noise of a colour film on it would not be its own
            rgb = rgb.mean(0, keepdim=True).expand(3, -1, -1)
        result = Picture(rgb=rgb, gray=picture.gray, icc=picture.icc)
        notes += write_image(result, job.destination, format=config.ext, quality=config.quality)
        return picture.size, result.size, notes, records[0], None

    def _clip(
        self, job: DegradeJob, generator: torch.Generator
    ) -> tuple[Size, Size, tuple[str, ...], Record, str | None]:
        plan = plan_clip(job.source, scale=self.config.scale, codec=self.config.codec)
        source, expected = str(job.source), plan.info.frame_count or 0

        def advanced(done: int) -> None:
            self.tell(Advanced(source=source, done=done, total=max(done, expected)))

        try:
            record, damage = degrade_clip_file(
                plan,
                job.destination,
                recipe=self.recipe,
                generator=generator,
                on_frames=advanced,
            )
        except OSError as error:
            raise OutputError(
                f"'{job.destination}' cannot be written: {output_reason(error)}"
            ) from error
        return plan.size_in, plan.size_out, (NO_SOUND,), record, damage


def record_text(record: Record) -> str:
    """JSON with a line for each entry and each step, as people read it and lists stay short."""
    lines = []
    for name, value in record.items():
        text = json.dumps(value)
        if name == "steps":
            text = "[" + ",".join(f"\n  {json.dumps(step)}" for step in value) + "\n ]"
        lines.append(f" {json.dumps(name)}: {text}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def write_record(path: Path, record: Record) -> None:
    """Write what was drawn as JSON, whole or not at all.

    Raises:
        OutputError: no space, no permission.
    """
    temporary = path.with_name(f".restore-{secrets.token_hex(6)}.tmp")
    try:
        with temporary.open("x", encoding="utf-8") as stream:
            stream.write(record_text(record))
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise OutputError(f"'{path}' cannot be written: {output_reason(error)}") from error
