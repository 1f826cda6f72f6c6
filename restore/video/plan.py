"""What a clip will become: decided and checked before any work is done."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

from restore.config import VideoConfig, output_size
from restore.durations import parse_time
from restore.engine import describe, fitting
from restore.errors import InputError, OptionError, OutputError
from restore.video.containers import ContainerPlan, plan_container
from restore.video.encode import EncoderSpec, choose_encoder
from restore.video.journal import Journal
from restore.video.passage import Passage
from restore.video.probe import ClipInfo, probe

SomeConfig = TypeVar("SomeConfig", bound=VideoConfig)

_FAR_CLOCK = 10.0  # seconds: a clock that begins later than this began somewhere else


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoPlan:
    """A job that is possible as far as can be told beforehand."""

    config: VideoConfig
    """The user's settings."""
    info: ClipInfo
    """The clip that comes in."""
    path: Path
    """The file that comes out."""
    spec: EncoderSpec
    """How it is encoded: size, codec, pixel format, colour tags."""
    container: ContainerPlan
    """Its container, and the way of the other streams into it."""
    frames: int | None
    """Frames to restore, as far as the file says; None = it does not."""
    warnings: tuple[str, ...]
    """What the user did not ask for and should know."""


def plan_video(
    src: str | Path,
    dst: str | Path | None = None,
    *,
    config: VideoConfig | None = None,
    scale: int | None = None,
    **settings: Any,
) -> VideoPlan:
    """Plan a job without doing it.

    Args:
        src: the clip.
        dst: file or folder for the result; default `config.output`, else a name beside the clip.
        config: settings; default those of the command line.
        scale: output pixels per input pixel of the method; default that of `config.model`.
        settings: fields of `VideoConfig` to change.

    Raises:
        InputError: the clip cannot be read.
        OptionError: a setting is outside what is allowed, or does not fit the clip.
        OutputError: the result would be the input itself.
    """
    config = merged_config(config, settings)
    source = Path(src)
    info = probe(source)
    config, scale = fitted(config, info, scale)
    width, height = output_size(config, info.width, info.height, scale)
    spec = choose_encoder(config, info, width=width, height=height)
    asked = dst if dst is not None else config.output
    name = None if asked is None or Path(asked).is_dir() else Path(asked)
    container = plan_container(
        source, video=info.stream_index, codec=config.codec, name=name, audio=config.audio
    )
    if name is None:
        folder = source.parent if asked is None else Path(asked)
        factor = f"x{scale if config.scale is None else config.scale:g}"
        label = factor if config.target is None else f"{spec.width}x{spec.height}"
        name = folder / f"{source.stem}_{label}{container.suffix}"
    if _is_same_file(source, name):
        raise OutputError(f"{name} is the input itself; choose another name with --output")
    return VideoPlan(
        config=config,
        info=info,
        path=name,
        spec=spec,
        container=container,
        frames=_expected_frames(info, config),
        warnings=(*clip_warnings(info), *container.warnings),
    )


def fitted(config: SomeConfig, info: ClipInfo, scale: int | None) -> tuple[SomeConfig, int]:
    """`config` with the variant of its method that fits the size asked for, and its scale.

    A `scale` that is known already is that of a loaded method, which stays as it is.
    """
    if scale is not None:
        return config, scale
    if config.scale is not None or config.target is not None:
        width, height = output_size(config, info.width, info.height, 1)
        config = fitting(config, max(width / info.width, height / info.height))
    return config, describe(config).scale


def merged_config(config: VideoConfig | None, settings: dict[str, Any]) -> VideoConfig:
    """`config` with some fields changed.

    Raises:
        OptionError: there is no such field, or its value is not allowed.
    """
    known = {field.name for field in dataclasses.fields(VideoConfig)}
    unknown = sorted(settings.keys() - known)
    if unknown:
        raise OptionError(f"unknown setting '{unknown[0]}'; allowed: {', '.join(sorted(known))}")
    return dataclasses.replace(config or VideoConfig(), **settings)


def plan_passage(plan: VideoPlan, journal: Journal) -> Passage:
    """Which part of the source's other streams belongs to the restored frames."""
    unit, config = plan.spec.time_base, plan.config
    begin = journal.segments[0].first_pts * unit
    last = journal.segments[-1]
    end = (last.last_pts + last.last_duration) * unit
    broken = journal.ending is not None and journal.ending.damaged is not None
    ends_early = config.end is not None or broken
    if config.start is not None:
        return Passage(begin=begin, end=end if ends_early else None, shift=-begin)
    # A broadcast recording's clock begins anywhere, often hours in; a player would wait that long.
    start = Fraction(plan.info.start_time).limit_denominator(90_000)
    shift = -start if start > _FAR_CLOCK else Fraction(0)
    return Passage(end=end if ends_early else None, shift=shift)


def _expected_frames(info: ClipInfo, config: VideoConfig) -> int | None:
    if config.start is None and config.end is None and info.frame_count is not None:
        return info.frame_count
    if info.duration is None or info.frame_rate is None:
        return None
    start = 0.0 if config.start is None else parse_time(config.start)
    end = info.duration if config.end is None else min(info.duration, parse_time(config.end))
    if start >= info.duration:
        raise InputError(
            f"{info.path} ends at {info.duration:.3f} s, before the start at {config.start}; "
            "give an earlier --start"
        )
    # A frame begins at 0, at 1 / rate and so on; a duration is rounded, to milliseconds as a rule.
    return max(1, math.ceil((end - start) * info.frame_rate - 0.1))


def clip_warnings(info: ClipInfo) -> list[str]:
    """What a user should know about a clip."""
    if not info.interlaced:
        return []
    return [
        f"{info.path.name} is interlaced: its frames are restored as they are, comb lines "
        "included; deinterlace it first for a better result"
    ]


def _is_same_file(source: Path, name: Path) -> bool:
    return name.exists() and source.samefile(name)
