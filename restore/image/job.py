"""Restore pictures: what `restore image` runs, and what a program calls instead.

One bad picture never stops the others; every failure is one line in the report.
"""

from __future__ import annotations

import logging
import secrets
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import torch

from restore.config import EngineConfig, ImageConfig, output_size
from restore.errors import InputError, OutputError
from restore.image.batch import Batch
from restore.image.encode import WITH_ALPHA, WritableFormat, check_writable
from restore.image.events import (
    Advanced,
    Done,
    Event,
    ImageReport,
    Planned,
    Size,
    Started,
)
from restore.image.files import (
    NO_ALPHA,
    Picture,
    flattened,
    format_of,
    make_sheet,
    output_reason,
    read_header,
    read_image,
    write_sheet,
)
from restore.image.plan import STREAM, Job, plan_images, written_as
from restore.memory import free_memory
from restore.method import MethodSpec
from restore.planes import FrameRestorer, restore_planes
from restore.tags import TagsFile, tags_of

if TYPE_CHECKING:
    from restore.engine import Restorer

log = logging.getLogger("restore.image")

# Bytes per pixel that a result takes at the least: as the engine's tensor, and while it is encoded.
_FLOAT_RGB = 12
_ENCODING = 8


def restore_images(
    inputs: str | Path | Sequence[str | Path],
    *,
    config: ImageConfig | None = None,
    restorer: FrameRestorer | None = None,
    on_event: Callable[[Event], None] | None = None,
    **settings: Any,
) -> ImageReport:
    """Restore picture files.

    Args:
        inputs: files, folders, patterns (`"photos/**/*.jpg"`), or `"-"` for stdin.
        config: what to do; default: `ImageConfig()`.
        restorer: a loaded engine; default: one is loaded when the first picture needs it.
        on_event: called as the work goes on, in this thread.
        settings: fields of `ImageConfig` that replace those of `config`, such as `output="out"`.

    Returns:
        The report; look at `failed`.

    Raises:
        OptionError: the settings do not go together, or with the inputs.
        InputError: the file of tags cannot be read.
        OutputError: the output folder cannot be written; found before any work.
        WeightsError: the model cannot be loaded.
    """
    start = time.perf_counter()
    config = ImageConfig(**settings) if config is None else replace(config, **settings)
    names = [inputs] if isinstance(inputs, str | Path) else list(inputs)
    if restorer is None and config.scale is not None:
        config = _fitting(config, config.scale)
    spec = _describe(config) if restorer is None else restorer.spec
    tags = tags_of(config, spec)
    jobs = plan_images(names, config, method_scale=spec.scale)
    working = not config.dry_run and any(job.verdict == "run" for job in jobs)
    if working and config.output not in (None, STREAM):
        _prepare_output(Path(config.output), jobs)
    if working and restorer is None:
        restorer = _load(config)
    run = _Run(
        config=config, spec=spec, tags=tags, restorer=restorer, on_event=on_event, total=len(jobs)
    )
    for index, job in enumerate(jobs, start=1):
        run.take(job, index)
    run.report.seconds = time.perf_counter() - start
    return run.report


def restore_file(
    source: Path, target: Path, *, config: ImageConfig, restorer: FrameRestorer
) -> Done:
    """Restore one picture; what goes wrong comes out as it was raised.

    Args:
        source: the picture.
        target: the result, replaced if it is there; its suffix says the format.
        config: what to do; its output is not looked at.
        restorer: a loaded engine.

    Raises:
        InputError: the picture cannot be read, or its result is too large.
        OutputError: the result cannot be written.
    """
    spec = restorer.spec
    run = _Run(
        config=config,
        spec=spec,
        tags=tags_of(config, spec),
        restorer=restorer,
        on_event=None,
        total=1,
    )
    return run.restore(Job(source=source, destination=target, format=format_of(target)), 1)


def _fitting(config: ImageConfig, scale: float) -> ImageConfig:
    from restore.engine import fitting

    return fitting(config, scale)


def _describe(config: ImageConfig) -> MethodSpec:
    from restore.engine import describe

    return describe(config)


def _load(config: ImageConfig) -> FrameRestorer:
    from restore.engine import load

    return load(**{item.name: getattr(config, item.name) for item in fields(EngineConfig)})


def _prepare_output(output: Path, jobs: Sequence[Job]) -> None:
    """Make the output folder and write to it once, before any work."""
    is_file = any(job.destination == output for job in jobs)
    prepare_folder(output.parent if is_file else output)


def prepare_folder(folder: Path) -> None:
    """Make a folder, and find out whether files can be made in it.

    Raises:
        OutputError: they cannot.
    """
    probe = folder / f".restore-{secrets.token_hex(6)}.tmp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as error:
        raise OutputError(
            f"the folder '{folder}' cannot be written: {output_reason(error)}"
        ) from error


@dataclass(kw_only=True, slots=True)
class _Run(Batch):
    """One call of `restore_images`: takes jobs, tells events, keeps the report."""

    config: ImageConfig
    spec: MethodSpec
    tags: TagsFile | None
    restorer: FrameRestorer | None
    prepared: set[Path] = field(default_factory=set)

    def take(self, job: Job, index: int) -> None:
        """Bring one job to its end; only KeyboardInterrupt and its like come out."""
        self.settle(
            STREAM if job.source is None else str(job.source),
            lambda: self._preview(job) if self.config.dry_run else self.restore(job, index),
            verdict=job.verdict,
            reason=job.reason,
            log=log,
            memory_hint="close other programs or choose a smaller --scale",
        )

    def _preview(self, job: Job) -> Event:
        header = read_header(_source(job), max_pixels=self.config.max_pixels)
        format = job.format or written_as(header.format)
        size = self._result_size(header.size, format)
        source, destination = _names(job)
        return Planned(source=source, destination=destination, size_in=header.size, size_out=size)

    def restore(self, job: Job, index: int) -> Done:
        """Bring one job to a result; errors come out."""
        start = time.perf_counter()
        source, destination = _names(job)
        self.tell(Started(source=source, destination=destination, index=index, total=self.total))
        picture = read_image(_source(job), max_pixels=self.config.max_pixels)
        format = job.format or written_as(picture.format)
        size_in, notes = picture.size, picture.notes
        size = self._result_size(size_in, format)
        target = self._target(job)
        if picture.alpha is not None and format not in WITH_ALPHA:
            picture = flattened(picture)  # before the network, which then need not see alpha
            notes += (NO_ALPHA.format(format),)
        assert self.restorer is not None
        if self.tags is not None:
            name = Path(source).stem if job.source is not None else STREAM
            cast("Restorer", self.restorer).tune(tags=self.tags.of(name))
        picture = restore_picture(
            picture,
            self.restorer,
            size=size,
            progress=lambda done, total: self.tell(Advanced(source=source, done=done, total=total)),
        )
        sheet = make_sheet(picture, format=format, quality=self.config.quality)
        del picture  # encoders take memory of their own, as much again
        notes += write_sheet(sheet, target)
        for note in notes:
            log.warning("%s: %s", source, note)
        return Done(
            source=source,
            destination=destination,
            size_in=size_in,
            size_out=size,
            seconds=time.perf_counter() - start,
            notes=notes,
        )

    def _result_size(self, size: Size, format: WritableFormat) -> Size:
        """Size of the result, if it is allowed, fits into the format and into memory."""
        width, height = output_size(self.config, *size, self.spec.scale)
        check_writable(format, width, height)
        if width * height > self.config.max_pixels:
            raise InputError(
                f"its result of {width}x{height} pixels is above the limit of "
                f"{self.config.max_pixels}; choose a smaller --scale or raise --max-pixels"
            )
        native = size[0] * size[1] * self.spec.scale**2
        needed = _FLOAT_RGB * native + _ENCODING * width * height
        if native != width * height:
            needed += _FLOAT_RGB * width * height
        free = free_memory(torch.device("cpu"))
        if needed > free:
            raise InputError(
                f"its result of {width}x{height} pixels needs about {needed / 2**30:.1f} GiB of "
                f"memory, {free / 2**30:.1f} GiB are free; close other programs or choose a "
                "smaller --scale"
            )
        return width, height

    def _target(self, job: Job) -> Path | BinaryIO:
        """Where to write, found to be writable before the network runs."""
        if job.destination is None:
            if sys.stdout.isatty():
                raise OutputError("stdout is a terminal; send it to a file, or give -o FILE")
            return sys.stdout.buffer
        folder = job.destination.parent
        if folder not in self.prepared:
            prepare_folder(folder)
            self.prepared.add(folder)
        return job.destination


def _names(job: Job) -> tuple[str, str]:
    """Names of input and result for an event."""
    source, destination = (
        STREAM if path is None else str(path) for path in (job.source, job.destination)
    )
    return source, destination


def _source(job: Job) -> Path | BinaryIO:
    if job.source is not None:
        return job.source
    if sys.stdin.isatty():
        raise InputError("stdin is a terminal; send a picture into it, such as: < photo.jpg")
    return sys.stdin.buffer


def restore_picture(
    picture: Picture,
    restorer: FrameRestorer,
    *,
    size: Size | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Picture:
    """Restore a picture that was read, alpha along with it.

    Args:
        picture: what `read_image` gives.
        restorer: a loaded engine.
        size: width and height of the result; None = the method's scale.
        progress: called with the tiles done and all tiles, those of alpha among them.

    Returns:
        The same picture, larger: gray stays gray; where alpha was flat it keeps its exact value.
    """
    planes = picture.rgb[:1] if picture.gray else picture.rgb
    if picture.alpha is not None:
        planes = torch.cat((planes, picture.alpha))
    result = restore_planes(restorer, planes[None, None], size=size, progress=progress)[0, 0]
    rgb = result[:1].expand(3, -1, -1) if picture.gray else result[:3]
    return replace(picture, rgb=rgb, alpha=None if picture.alpha is None else result[-1:])
