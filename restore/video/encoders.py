"""The encoders, one entry each: their names for quality and speed, defaults and fixed options."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from restore.config import CodecChoice, VideoConfig
from restore.errors import OptionError

Options = dict[str, str]

_X26X_PRESETS = (
    *("ultrafast", "superfast", "veryfast", "faster", "fast"),
    *("medium", "slow", "slower", "veryslow", "placebo"),
)
_PARAMETER_LISTS = ("x264-params", "x265-params", "svtav1-params")
_RATE_OPTIONS = {"b", "qp", "cqp", "cq", "crf", "q", "rc", "global_quality", "qscale", "maxrate"}
"""Options of FFmpeg's encoders that choose a quality; with one of them ours is left out."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Encoder:
    """One encoder of FFmpeg, and how restore uses it."""

    name: str
    """FFmpeg's name."""
    codec: CodecChoice
    """Codec it makes."""
    quality: tuple[str, ...] = ()
    """Options that `--crf` sets; none = the encoder has no such thing."""
    quality_line: tuple[float, float] = (0, 1)
    """(a, b): those options get a + b * crf."""
    default_crf: float = 0.0
    """Quality when the user says nothing: visually close to lossless."""
    crf_range: tuple[float, float] = (0, 51)
    """Allowed values of `--crf`."""
    preset: str | None = None
    """Default speed; None = the encoder has no presets."""
    preset_option: str = "preset"
    """Option that `--preset` sets."""
    presets: tuple[str, ...] = ()
    """Allowed speeds, where the encoder itself does not complain well."""
    options: tuple[tuple[str, str], ...] = ()
    """Fixed options, which the user may override."""
    formats: tuple[str, ...] = ()
    """Pixel formats to choose from; none = those that FFmpeg lists."""
    keeps_rgb: bool = False
    """RGB stays RGB instead of becoming YUV 4:4:4, which more players know."""
    odd_sizes: bool = False
    """Takes odd widths and heights with subsampled chroma."""
    full_range: bool = True
    """Can say that codes go from 0 to the largest."""
    chroma_locations: tuple[int, ...] = (1, 2, 3, 4, 5, 6)
    """AVChromaLocation values it can say."""
    container: str = "nut"
    """Container of segments."""
    tag: str | None = None
    """Codec tag in MP4 and MOV where FFmpeg's own choice is not played everywhere."""
    hardware: bool = False
    """Needs a graphics card and its driver."""


SOFTWARE: dict[CodecChoice, Encoder] = {
    # Thread counts are fixed, as the bits depend on them: a resumed run, and one on another
    # machine, give the same file. CPU time of a 2560x1920 frame of an upscaled clip, measured:
    # h264 0.1 to 0.2 s, hevc 0.2 s, av1 0.14 s, ffv1 0.08 s, prores 0.4 s.
    "h264": Encoder(
        name="libx264",
        codec="h264",
        quality=("crf",),
        default_crf=18,
        preset="veryfast",
        presets=_X26X_PRESETS,
        options=(("threads", "4"),),
    ),
    "hevc": Encoder(
        name="libx265",
        codec="hevc",
        quality=("crf",),
        default_crf=20,
        preset="superfast",
        presets=_X26X_PRESETS,
        options=(("x265-params", "log-level=none:pools=4:frame-threads=2:open-gop=0"),),
        tag="hvc1",  # Apple's players take no other
    ),
    "av1": Encoder(
        name="libsvtav1",
        codec="av1",
        quality=("crf",),
        default_crf=28,
        crf_range=(1, 63),
        preset="8",
        presets=tuple(str(speed) for speed in range(14)),
        options=(("svtav1-params", "lp=2"),),
        chroma_locations=(1, 3),
    ),
    "ffv1": Encoder(
        name="ffv1",
        codec="ffv1",
        options=(("level", "3"), ("slices", "16"), ("slicecrc", "1"), ("g", "1")),
        keeps_rgb=True,
        odd_sizes=True,
    ),
    "prores": Encoder(
        name="prores_ks",
        codec="prores",
        options=(("vendor", "apl0"),),
        full_range=False,
        container="mov",
    ),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Family:
    """What the encoders of one maker share."""

    codecs: tuple[CodecChoice, ...]
    """What they make."""
    quality: tuple[str, ...]
    """As in `Encoder`; so are the others."""
    quality_line: dict[str, tuple[float, float]]
    """By codec, where it is not (0, 1)."""
    preset: str | None
    """Default speed."""
    preset_option: str
    """Option of the speed."""
    options: tuple[tuple[str, str], ...]
    """Fixed options."""
    formats: tuple[str, ...]
    """Pixel formats."""


_FAMILIES: dict[str, _Family] = {
    "nvenc": _Family(
        codecs=("h264", "hevc", "av1"),
        quality=("cq",),
        quality_line={},
        preset="p5",
        preset_option="preset",
        options=(("rc", "vbr"), ("b", "0"), ("forced-idr", "1")),
        formats=("yuv420p", "p010le", "yuv444p"),
    ),
    "videotoolbox": _Family(
        codecs=("h264", "hevc"),
        quality=("global_quality",),
        # Its scale goes from 1 to 100, more is better, in units of FF_QP2LAMBDA = 118.
        quality_line={"h264": (11800, -220), "hevc": (11800, -220)},
        preset=None,
        preset_option="",
        options=(("flags", "+qscale"),),
        formats=("nv12", "p010le"),
    ),
    "qsv": _Family(
        codecs=("h264", "hevc", "av1"),
        quality=("global_quality",),
        quality_line={},
        preset="medium",
        preset_option="preset",
        options=(),
        formats=("nv12", "p010le"),
    ),
    "amf": _Family(
        codecs=("h264", "hevc", "av1"),
        quality=("qp_i", "qp_p"),
        quality_line={"av1": (0, 4)},  # 0 to 255
        preset="balanced",
        preset_option="quality",
        options=(("rc", "cqp"),),
        formats=("nv12", "p010le"),
    ),
}


def _hardware_encoder(maker: str, codec: CodecChoice) -> Encoder:
    family, software = _FAMILIES[maker], SOFTWARE[codec]
    # None of them makes 10-bit H.264, nor 4:4:4 AV1.
    unable = {"h264": ("p010le",), "av1": ("yuv444p",)}.get(codec, ())
    return Encoder(
        name=f"{codec}_{maker}",
        codec=codec,
        quality=family.quality,
        quality_line=family.quality_line.get(codec, (0, 1)),
        default_crf=software.default_crf,
        crf_range=software.crf_range,
        preset=family.preset,
        preset_option=family.preset_option,
        options=family.options,
        formats=tuple(name for name in family.formats if name not in unable),
        chroma_locations=software.chroma_locations,
        tag=software.tag,
        hardware=True,
    )


HARDWARE: tuple[Encoder, ...] = tuple(
    _hardware_encoder(maker, codec)
    for maker, family in _FAMILIES.items()
    for codec in family.codecs
)


def encoder_options(encoder: Encoder, config: VideoConfig) -> Options:
    """Options for the encoder: its fixed ones, quality and speed, and the user's above all.

    Raises:
        OptionError: `--crf` or `--preset` is outside what the encoder has.
    """
    chosen = dict(pair.split("=", 1) for pair in config.encoder_option)
    options = {**dict(encoder.options), **_quality(encoder, config, chosen)}
    options.update(_speed(encoder, config))
    if encoder.name == "libx264" and torch.backends.cpu.get_cpu_capability().startswith("AVX512"):
        # Its AVX-512 lookahead gives other bits from run to run (seen with 1 thread as with 4;
        # not without macroblock tree or B-frames, and never with AVX2): resuming needs the same.
        options["x264-params"] = "asm=avx2"
    for key, value in chosen.items():
        # These hold lists of options of their own; ours stay unless they are named again.
        merge = key in _PARAMETER_LISTS and key in options
        options[key] = f"{options[key]}:{value}" if merge else value
    return options


def _quality(encoder: Encoder, config: VideoConfig, chosen: Options) -> Options:
    if config.crf is None:
        if chosen.keys() & _RATE_OPTIONS:
            return {}
        crf = encoder.default_crf
    else:
        crf = config.crf
    if not encoder.quality:
        if config.crf is None:
            return {}
        what = "is lossless" if encoder.codec == "ffv1" else "has profiles (-e profile=0 to 5)"
        raise OptionError(f"{encoder.codec} {what} and takes no --crf; leave --crf out")
    low, high = encoder.crf_range
    if not low <= crf <= high:
        raise OptionError(
            f"crf {crf:g} is not possible for {encoder.name}; give {low:g} to {high:g}, "
            f"lower is better (default {encoder.default_crf:g})"
        )
    start, slope = encoder.quality_line
    return dict.fromkeys(encoder.quality, f"{start + slope * crf:g}")


def _speed(encoder: Encoder, config: VideoConfig) -> Options:
    if encoder.preset is None:
        if config.preset is None:
            return {}
        raise OptionError(f"{encoder.name} has no presets; leave --preset out")
    preset = encoder.preset if config.preset is None else config.preset
    if encoder.presets and preset not in encoder.presets:
        raise OptionError(
            f"preset '{preset}' is unknown to {encoder.name}; "
            f"allowed, from fast to slow: {', '.join(_fast_first(encoder))}"
        )
    return {encoder.preset_option: preset}


def _fast_first(encoder: Encoder) -> tuple[str, ...]:
    return encoder.presets if encoder.codec != "av1" else encoder.presets[::-1]
