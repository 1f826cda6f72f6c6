"""What a live run will write: decided from the first frame of the input."""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from restore.config import CodecChoice, output_size
from restore.errors import OptionError
from restore.live_config import LiveConfig, StreamFormatChoice
from restore.video.encode import EncoderSpec, choose_encoder
from restore.video.encoders import Encoder
from restore.video.output_format import choose_pixel_format, output_colors
from restore.video.pixel_formats import format_layout
from restore.video.pixels import PixelCoding
from restore.video.plan import clip_warnings, fitted
from restore.video.probe import ClipInfo

log = logging.getLogger("restore.video")

_SUFFIXES: dict[str, StreamFormatChoice] = {
    ".mkv": "matroska",
    ".nut": "nut",
    ".ts": "mpegts",
    ".y4m": "y4m",
    ".rgb": "rgb24",
}
_CODECS: dict[StreamFormatChoice, tuple[CodecChoice, ...]] = {
    "matroska": ("h264", "hevc", "av1", "ffv1", "prores"),
    "nut": ("h264", "hevc", "av1", "ffv1", "prores"),
    "mpegts": ("h264", "hevc"),
}
_Y4M = {
    # FFmpeg's names of pixel formats and those in the header; 4:2:0 also says where chroma lies.
    "yuv420p": "420mpeg2",
    "yuv422p": "422",
    "yuv444p": "444",
    "gray": "mono",
    "yuv420p10le": "420p10",
    "yuv422p10le": "422p10",
    "yuv444p10le": "444p10",
}
_PLAIN = Encoder(
    name="yuv4mpegpipe",
    codec="ffv1",  # nothing is coded; like that one it takes everything as it is
    formats=tuple(_Y4M),
    odd_sizes=True,
    chroma_locations=(1, 2),
)
_CENTRE = 2  # AVChromaLocation

_LOW_DELAY: dict[str, dict[str, str]] = {
    # By encoder, or by its maker: no reordering, no lookahead, no frames in parallel.
    "libx264": {"tune": "zerolatency"},
    "libx265": {"tune": "zerolatency", "x265-params": "frame-threads=1"},
    "libsvtav1": {"svtav1-params": "pred-struct=1"},
    "nvenc": {"tune": "ull", "zerolatency": "1", "delay": "0", "bf": "0"},
    "videotoolbox": {"realtime": "1", "bf": "0"},
    "qsv": {"async_depth": "1", "bf": "0"},
    "amf": {"usage": "lowlatency"},
}
_GROUP_SECONDS = 1  # between key frames: whoever joins sees a picture that soon
_ALL_KEY = ("ffv1", "prores_ks")


@dataclass(frozen=True, kw_only=True, slots=True)
class PlainSpec:
    """A stream of bare frames."""

    form: StreamFormatChoice
    """y4m or rgb24."""
    pix_fmt: str
    """FFmpeg's name of the pixel format."""
    header: bytes | None
    """First line of a y4m stream; None = there is none."""
    coding: PixelCoding
    """How RGB becomes its codes."""
    width: int
    """Width of the frames."""
    height: int
    """Height of them."""
    time_base: Fraction
    """Unit of the time stamps that come in."""
    frame_rate: Fraction
    """Frames per second that the stream says."""
    uneven_known: bool = False
    """The user knows that frames may be missing, as with `--drop`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LivePlan:
    """A live run that is possible as far as can be told from its first frame."""

    config: LiveConfig
    """The user's settings, with the method that fits the size."""
    info: ClipInfo
    """What comes in."""
    form: StreamFormatChoice
    """What goes out."""
    spec: EncoderSpec | PlainSpec
    """How it is encoded."""
    warnings: tuple[str, ...]
    """What the user did not ask for and should know."""


def plan_live(
    info: ClipInfo, config: LiveConfig, *, name: Path | None = None, scale: int | None = None
) -> LivePlan:
    """Plan a run.

    Args:
        info: what comes in.
        config: settings.
        name: file that the stream goes to, whose suffix may choose the format; None = a pipe.
        scale: of the method that is loaded already; None = that of `config.model`.

    Raises:
        OptionError: a setting does not fit the input.
    """
    config, scale = fitted(config, info, scale)
    width, height = output_size(config, info.width, info.height, scale)
    form = _form(info, config, name)
    spec: EncoderSpec | PlainSpec
    if form == "rgb24":
        spec = _rgb_spec(info, width, height, drop=config.drop)
    elif form == "y4m":
        spec = _y4m_spec(info, config, width, height)
    else:
        spec = _encoder_spec(info, config, form, width, height)
    warnings = tuple(clip_warnings(info))
    return LivePlan(config=config, info=info, form=form, spec=spec, warnings=warnings)


def _form(info: ClipInfo, config: LiveConfig, name: Path | None) -> StreamFormatChoice:
    if config.stream_format != "auto":
        return config.stream_format
    if name is not None and name.suffix.lower() in _SUFFIXES:
        return _SUFFIXES[name.suffix.lower()]
    return "y4m" if info.container in ("rawvideo", "yuv4mpegpipe") else "matroska"


def _encoder_spec(
    info: ClipInfo, config: LiveConfig, form: StreamFormatChoice, width: int, height: int
) -> EncoderSpec:
    if config.codec not in _CODECS[form]:
        raise OptionError(
            f"{config.codec} video does not fit {form}; choose --codec "
            f"{' or '.join(_CODECS[form])}, or --stream-format matroska or nut"
        )
    found = choose_encoder(config, info, width=width, height=height)
    pairs = [f"{key}={value}" for key, value in low_delay_options(found).items()]
    live = dataclasses.replace(config, encoder_option=(*pairs, *config.encoder_option))
    return choose_encoder(live, info, width=width, height=height)


def low_delay_options(spec: EncoderSpec) -> dict[str, str]:
    """Options with which an encoder gives a packet for each frame, and key frames often."""
    if spec.encoder in _ALL_KEY:
        return {}
    maker = spec.encoder.rpartition("_")[2]
    options = _LOW_DELAY.get(spec.encoder) or _LOW_DELAY.get(maker, {})
    group = max(1, round(_GROUP_SECONDS * (spec.frame_rate or 25)))
    return {**options, "g": str(group)}


def _rgb_spec(info: ClipInfo, width: int, height: int, *, drop: bool) -> PlainSpec:
    return PlainSpec(
        form="rgb24",
        pix_fmt="rgb24",
        header=None,
        coding=PixelCoding(matrix=0, full_range=True),
        width=width,
        height=height,
        time_base=info.time_base,
        frame_rate=info.frame_rate or Fraction(25),
        uneven_known=drop,
    )


def _y4m_spec(info: ClipInfo, config: LiveConfig, width: int, height: int) -> PlainSpec:
    pix_fmt = choose_pixel_format(_PLAIN, config, info)
    layout = format_layout(pix_fmt)
    wants_full = (config.pix_fmt or "").startswith("yuvj")
    color, coding = output_colors(_PLAIN, info, layout, width, height, wants_full=wants_full)
    chroma = "420jpeg" if pix_fmt == "yuv420p" and color.chroma_location == _CENTRE else None
    rate, aspect = info.frame_rate or Fraction(25), info.sample_aspect_ratio
    header = (
        f"YUV4MPEG2 W{width} H{height} F{rate.numerator}:{rate.denominator} Ip "
        f"A{aspect.numerator}:{aspect.denominator} C{chroma or _Y4M[pix_fmt]} "
        f"XCOLORRANGE={'FULL' if coding.full_range else 'LIMITED'}\n"
    )
    return PlainSpec(
        form="y4m",
        pix_fmt=pix_fmt,
        header=header.encode(),
        coding=coding,
        width=width,
        height=height,
        time_base=info.time_base,
        frame_rate=rate,
        uneven_known=config.drop,
    )
