"""Compress and decompress pictures: what the two commands run, and what a program calls instead.

One bad file never stops the others; every failure is one line in the report.
"""

from __future__ import annotations

import logging
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, BinaryIO

from restore.bitstream import Container, read_container
from restore.codec.engine import Coder, load_codec
from restore.codec.pictures import EIGHT_BITS, check_alpha, chunks_of, picture_of
from restore.codec.plan import CodecJob, plan_files
from restore.codec.report import RateReport
from restore.codec.search import Trial, choose_rate, lpips_network, measure
from restore.codec_config import CodecConfig, CompressConfig, DecompressConfig, parse_quality
from restore.errors import InputError, OutputError
from restore.image.batch import Batch
from restore.image.events import Done, Event, ImageReport, Started
from restore.image.files import (
    atomic,
    format_of,
    make_sheet,
    output_reason,
    read_image,
    write_sheet,
)
from restore.image.job import prepare_folder
from restore.metrics import SSIM_WINDOW

log = logging.getLogger("restore.codec")

_MEMORY_HINT = "close other programs, or cut it into parts"
_LARGEST_FILE = 1 << 30  # bytes of a coded picture


@dataclass(frozen=True, kw_only=True, slots=True)
class CodecDone(Done):
    """A picture was compressed or decompressed."""

    bytes: int
    """Size of the coded file."""
    bpp: float
    """Its bits over the pixels of the picture."""
    rate: int
    """Number of the codec's rate."""
    nominal_bpp: float
    """Bits per pixel that the codec names the rate by."""
    codec: str
    """Name of the codec."""


def compress_images(
    inputs: str | Path | Sequence[str | Path],
    *,
    config: CompressConfig | None = None,
    coder: Coder | None = None,
    on_event: Callable[[Event], None] | None = None,
    **settings: Any,
) -> ImageReport:
    """Make coded files of pictures.

    Args:
        inputs: files, folders, patterns (`"photos/**/*.jpg"`), or `"-"` for stdin.
        config: what to do; default: `CompressConfig()`.
        coder: a loaded codec; default: one is loaded when the first picture needs it.
        on_event: called as the work goes on, in this thread.
        settings: fields of `CompressConfig` that replace those of `config`, such as `bpp=0.1`.

    Returns:
        The report; look at `failed`. What is in `done` is `CodecDone`.

    Raises:
        OptionError: the settings do not go together, or with the inputs.
        MissingExtraError: LPIPS is asked for and not installed.
        WeightsError: the codec cannot be loaded.
    """
    start = time.perf_counter()
    config = CompressConfig(**settings) if config is None else replace(config, **settings)
    jobs = plan_files([inputs] if isinstance(inputs, str | Path) else list(inputs), config)
    if config.quality is not None and parse_quality(config.quality)[0] == "lpips":
        lpips_network()  # found to be here before any work
    if coder is None and any(job.verdict == "run" for job in jobs):
        coder = load_codec(config.model, **codec_settings(config))
    run = _Compress(config=config, coder=coder, on_event=on_event, total=len(jobs))
    for index, job in enumerate(jobs, start=1):
        run.take(job, index)
    if config.report is not None and run.measured is not None:
        run.measured.write(Path(config.report))
    run.report.seconds = time.perf_counter() - start
    return run.report


def decompress_images(
    inputs: str | Path | Sequence[str | Path],
    *,
    config: DecompressConfig | None = None,
    coder: Coder | None = None,
    on_event: Callable[[Event], None] | None = None,
    **settings: Any,
) -> ImageReport:
    """Make pictures of coded files.

    Args:
        inputs: files, folders, patterns, or `"-"` for stdin.
        config: what to do; default: `DecompressConfig()`.
        coder: a loaded codec, for files that it made; others are loaded as the files name them.
        on_event: called as the work goes on, in this thread.
        settings: fields of `DecompressConfig` that replace those of `config`.

    Returns:
        The report; look at `failed`. What is in `done` is `CodecDone`.

    Raises:
        OptionError: the settings do not go together, or with the inputs.
    """
    start = time.perf_counter()
    config = DecompressConfig(**settings) if config is None else replace(config, **settings)
    jobs = plan_files([inputs] if isinstance(inputs, str | Path) else list(inputs), config)
    coders = {} if coder is None else {coder.name: coder}
    run = _Decompress(config=config, coders=coders, on_event=on_event, total=len(jobs))
    for index, job in enumerate(jobs, start=1):
        run.take(job, index)
    run.report.seconds = time.perf_counter() - start
    return run.report


def codec_settings(config: CodecConfig) -> dict[str, Any]:
    """The part of the settings that loads a codec."""
    return {item.name: getattr(config, item.name) for item in fields(CodecConfig)}


def read_coded(source: Path | BinaryIO | bytes, *, max_pixels: int) -> tuple[Container, int]:
    """The fields of a coded file, and its bytes.

    Raises:
        InputError: it cannot be read, is damaged, or above `max_pixels`.
    """
    data = source if isinstance(source, bytes) else _content(source)
    file = read_container(data)
    if file.pixels > max_pixels:
        raise InputError(
            f"it says it is {file.width}x{file.height}, {file.pixels} pixels, above the limit of "
            f"{max_pixels}; if you trust it, raise --max-pixels"
        )
    return file, len(data)


def _content(source: Path | BinaryIO) -> bytes:
    if not isinstance(source, Path):
        return source.read(_LARGEST_FILE)
    try:
        if source.is_dir():
            raise InputError("it is a folder; give a coded picture")
        if source.exists() and not source.is_file():
            raise InputError("it is not a regular file; give a coded picture, or - for stdin")
        with source.open("rb") as stream:
            data = stream.read(_LARGEST_FILE)
    except FileNotFoundError as error:
        raise InputError("there is no such file; check the name") from error
    except OSError as error:
        raise InputError(
            f"it cannot be read ({error.strerror}); check its owner and mode"
        ) from error
    return data


@dataclass(kw_only=True, slots=True)
class _Files(Batch, ABC):
    """What both directions do with a job."""

    prepared: set[Path] = field(default_factory=set)

    def take(self, job: CodecJob, index: int) -> None:
        """Bring one job to its end; only KeyboardInterrupt and its like come out."""
        self.settle(
            job.names[0],
            lambda: self._work(job, index),
            verdict=job.verdict,
            reason=job.reason,
            log=log,
            memory_hint=_MEMORY_HINT,
        )

    def _work(self, job: CodecJob, index: int) -> Event:
        source, destination = job.names
        self.tell(Started(source=source, destination=destination, index=index, total=self.total))
        return self._convert(job)

    @abstractmethod
    def _convert(self, job: CodecJob) -> Event:
        """Turn one file into the other."""

    def _target(self, job: CodecJob) -> Path | BinaryIO:
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

    @staticmethod
    def _source(job: CodecJob) -> Path | BinaryIO:
        if job.source is not None:
            return job.source
        if sys.stdin.isatty():
            raise InputError("stdin is a terminal; send a file into it, such as: < photo.jpg")
        return sys.stdin.buffer


@dataclass(kw_only=True, slots=True)
class _Compress(_Files):
    """One call of `compress_images`."""

    config: CompressConfig
    coder: Coder | None
    measured: RateReport | None = None

    def _convert(self, job: CodecJob) -> Event:
        start = time.perf_counter()
        assert self.coder is not None
        coder, config = self.coder, self.config
        picture = read_image(self._source(job), max_pixels=config.max_pixels)
        target = self._target(job)
        notes = picture.notes + ((EIGHT_BITS,) if picture.bit_depth > 8 else ())
        pixels = coder.fitted(picture.rgb[None])
        if pixels.shape[-2:] != picture.rgb.shape[-2:] and picture.alpha is not None:
            picture = replace(picture, alpha=None)
            notes += ("its alpha is left out, as --tiling published resizes the picture",)
        extra = {"gray": picture.gray, "chunks": chunks_of(picture, config.metadata)}
        trial = Trial(coder=coder, pixels=pixels, fields=extra)
        rate = choose_rate(trial, config)
        data = trial.file(rate)
        seconds = time.perf_counter() - start
        bpp = 8 * len(data) / (picture.size[0] * picture.size[1])
        if config.report is not None:
            self._measure(trial, rate, bpp, seconds)
        _write(data, target)
        for note in notes:
            log.warning("%s: %s", job.names[0], note)
        return CodecDone(
            source=job.names[0],
            destination=job.names[1],
            size_in=picture.size,
            size_out=trial.size,
            seconds=seconds,
            notes=notes,
            bytes=len(data),
            bpp=bpp,
            rate=rate.index,
            nominal_bpp=rate.bpp,
            codec=coder.name,
        )

    def _measure(self, trial: Trial, rate: Any, bpp: float, seconds: float) -> None:
        """Put a picture into the report of means."""
        if self.measured is None:
            self.measured = RateReport(
                name=trial.coder.name,
                description="restore compress: whole files over original pixels, means of pictures",
            )
        start = time.perf_counter()
        decoded = trial.decoded(rate)
        values = {
            "bpp": bpp,
            "psnr-rgb": measure("psnr", decoded, trial.pixels),
            "encoding_time": seconds,
            "decoding_time": time.perf_counter() - start,
        }
        if min(trial.size) >= SSIM_WINDOW:
            values["ssim-y"] = measure("ssim", decoded, trial.pixels)
        self.measured.add(rate, **values)


@dataclass(kw_only=True, slots=True)
class _Decompress(_Files):
    """One call of `decompress_images`."""

    config: DecompressConfig
    coders: dict[str, Coder]

    def _convert(self, job: CodecJob) -> Event:
        start = time.perf_counter()
        config = self.config
        file, size = read_coded(self._source(job), max_pixels=config.max_pixels)
        target = self._target(job)
        coder = self._coder(file)
        coded = coder.read(file, force=config.force)
        check_alpha(file)
        picture = picture_of(file, coder.decode(coded, file.width, file.height)[0])
        name = config.ext if job.destination is None else format_of(job.destination)
        sheet = make_sheet(picture, format=name, quality=config.quality)
        notes = picture.notes + write_sheet(sheet, target)
        for note in notes:
            log.warning("%s: %s", job.names[0], note)
        return CodecDone(
            source=job.names[0],
            destination=job.names[1],
            size_in=(file.width, file.height),
            size_out=picture.size,
            seconds=time.perf_counter() - start,
            notes=notes,
            bytes=size,
            bpp=8 * size / file.pixels,
            rate=file.rate,
            nominal_bpp=coder.spec.rate(file.rate).bpp,
            codec=file.codec,
        )

    def _coder(self, file: Container) -> Coder:
        """The codec of a file, loaded once."""
        if file.codec not in self.coders:
            self.coders[file.codec] = load_codec(file.codec, **codec_settings(self.config))
        return self.coders[file.codec]


def _write(data: bytes, target: Path | BinaryIO) -> None:
    """Write a file, whole or not at all.

    Raises:
        OutputError: no space, no permission.
    """
    name = f"'{target}'" if isinstance(target, Path) else "the output stream"
    try:
        if isinstance(target, Path):
            with atomic(target) as stream:
                stream.write(data)
        else:
            target.write(data)
            target.flush()
    except OSError as error:
        raise OutputError(f"{name} cannot be written: {output_reason(error)}") from error
