"""Settings of the live mode of `restore video`: a stream in, a stream out."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, get_args

from restore.config import VideoConfig, check_choice, flag
from restore.errors import OptionError

StreamFormatChoice = Literal["auto", "matroska", "nut", "mpegts", "y4m", "rgb24"]
RawChoice = Literal["rgb24", "yuv420p"]

STANDARD = "-"
"""Name of stdin as an input, and of stdout as an output."""
DEFAULT_DELAY = 1.0
"""Seconds of delay beyond which `--drop` leaves frames out, unless the user says otherwise."""

_MAX_SIDE = 65536
_NOT_LIVE = ("resume", "dry_run", "start", "end")
"""Settings that need the whole clip."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LiveConfig(VideoConfig):
    """`restore video --stream`: frames go out as they come in."""

    stream: bool = flag(
        False,
        "--stream",
        help="Live: write each frame as soon as it is restored; IN and -o may be - (the default).",
    )
    stream_format: StreamFormatChoice = flag(
        "auto",
        "--stream-format",
        help="How a stream is written; auto = y4m for raw input, else matroska. nut is quickest.",
    )
    input_format: str | None = flag(
        None,
        "--input-format",
        metavar="NAME",
        help="What a stream comes in, in FFmpeg's words: mpegts, v4l2; default: it is recognised.",
    )
    raw_input: RawChoice | None = flag(
        None, "--raw-input", help="The stream is bare frames like this; give --size and --fps."
    )
    raw_size: str | None = flag(
        None, "--size", metavar="WxH", help="Width and height of the frames of --raw-input."
    )
    raw_fps: str | None = flag(
        None, "--fps", metavar="N", help="Frames per second of --raw-input: 25 or 30000/1001."
    )
    max_delay: float | None = flag(
        None,
        "--max-delay",
        metavar="SECONDS",
        help=f"Say when frames are later than this; with --drop the limit (then {DEFAULT_DELAY:g}"
        " by default).",
    )
    drop: bool = flag(
        False, "--drop", help="Leave out frames that would be too late, instead of waiting."
    )

    def __post_init__(self) -> None:
        super(LiveConfig, self).__post_init__()
        check_choice("stream format", self.stream_format, get_args(StreamFormatChoice))
        if not self.stream:
            self._check_file_mode()
            return
        for name in _NOT_LIVE:
            if getattr(self, name):
                raise OptionError(
                    f"--{name.replace('_', '-')} needs a whole clip and does not go with --stream; "
                    "leave one of them out"
                )
        if self.json and self.output in (None, STANDARD):
            raise OptionError(
                "both the stream and --json want stdout; leave --json out, or give -o FILE"
            )
        if self.max_delay is not None and not 0 < self.max_delay < float("inf"):
            raise OptionError(
                f"max delay {self.max_delay:g} is not possible; give seconds above 0, such as 0.5"
            )
        self._check_raw()

    def _check_file_mode(self) -> None:
        """Settings of a stream mean nothing to a file."""
        if self.output == STANDARD:
            raise OptionError(
                "-o - is a stream: add --stream (and --stream-format nut, matroska, mpegts, y4m or "
                "rgb24), or name a file with -o"
            )
        for f in dataclasses.fields(LiveConfig)[len(dataclasses.fields(VideoConfig)) :]:
            if getattr(self, f.name) != f.default:
                raise OptionError(f"{f.metadata['flags'][0]} belongs to --stream; add --stream")

    def _check_raw(self) -> None:
        if self.raw_input is None:
            if self.raw_size is not None or self.raw_fps is not None:
                raise OptionError(
                    "--size and --fps describe raw input; add --raw-input rgb24 or yuv420p"
                )
            return
        check_choice("raw input", self.raw_input, get_args(RawChoice))
        if self.input_format is not None:
            raise OptionError("both --raw-input and --input-format were given; give one of them")
        if self.raw_size is None or self.raw_fps is None:
            raise OptionError(
                "raw input does not say its size and speed; give --size 640x360 --fps 25"
            )
        parse_size(self.raw_size)
        parse_rate(self.raw_fps)


def parse_size(text: str) -> tuple[int, int]:
    """`"640x360"` as (width, height).

    Raises:
        OptionError: it is not a size.
    """
    try:
        width, height = (int(part) for part in text.lower().split("x"))
    except ValueError:
        raise OptionError(f"size '{text}' is not a size; write WIDTHxHEIGHT (640x360)") from None
    if not (1 <= width <= _MAX_SIDE and 1 <= height <= _MAX_SIDE):
        raise OptionError(f"size '{text}' is not possible; sides go from 1 to {_MAX_SIDE} pixels")
    return width, height


def parse_rate(text: str) -> Fraction:
    """Frames per second in `text`: `"25"`, `"23.976"` or `"30000/1001"`.

    Raises:
        OptionError: it is not a rate, or not from 1/1000 to 1000.
    """
    try:
        rate = Fraction(text).limit_denominator(100_000)
    except (ValueError, ZeroDivisionError):
        raise OptionError(f"fps '{text}' is not a rate; write 25 or 30000/1001") from None
    if not Fraction(1, 1000) <= rate <= 1000:
        raise OptionError(f"fps '{text}' is not possible; give 0.001 to 1000")
    return rate
