"""Lossy compression of clips, with the encoders of FFmpeg, in memory.

No container is written: packets go straight from the encoder to the decoder. Everything runs on
one thread, so that a seed repeats a clip bit by bit.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal, cast, get_args

import av
import torch
import torch.nn.functional as F
from av.packet import Packet
from torch import Tensor

from restore.degradations.draw import pick_each, uniform
from restore.degradations.step import (
    Draws,
    Drift,
    Scene,
    check_kinds,
    check_prob,
    check_range,
)
from restore.errors import OptionError
from restore.video.pixels import BT601, PixelCoding, frame_to_rgb, rgb_to_frame

CodecName = Literal["h264", "hevc", "mpeg4", "mpeg2", "vp9"]

_ENCODERS: dict[CodecName, tuple[str, str]] = {
    "h264": ("libx264", "h264"),
    "hevc": ("libx265", "hevc"),
    "mpeg4": ("mpeg4", "mpeg4"),
    "mpeg2": ("mpeg2video", "mpeg2video"),
    "vp9": ("libvpx-vp9", "vp9"),
}
"""FFmpeg's encoder and decoder of each codec."""
_SMALLEST = 32
"""Side that smaller frames are widened to: HEVC wants a whole coding block."""
_MPEG_RATE = 25
"""Frames a second for MPEG-2, which has a list of them, and MPEG-4; it changes nothing else."""
_FINEST, _COARSEST = 2, 31
"""Their quantisers."""
_LEAST_RATE = 10_000
"""Bits a second; x264 counts in thousands of them. Small frames get a higher frame rate for it."""
_LEAST_BITS = 64
"""Of a frame, however small."""
_CODING = PixelCoding(matrix=BT601, full_range=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Codec:
    """Encoded as video in 4:2:0 and decoded again, each clip with draws of its own."""

    prob: float = 1.0
    """Probability, for each clip."""
    codecs: tuple[CodecName, ...] = ("h264", "mpeg4")
    """Codecs to draw from."""
    weights: tuple[float, ...] = (0.7, 0.3)
    """How often each, relative to the others."""
    crf: tuple[float, float] | None = (20, 35)
    """Constant quality on x264's scale, 0 to 51, brought to the others' own scales; None = `bits`
    decide."""
    bits: tuple[float, float] | None = None
    """Bits of a frame over the pixels of a good frame, drawn evenly."""
    fps: int = 25
    """Frames a second that H.264, HEVC and VP9 believe in, whose control of `bits` thinks in
    seconds."""
    speed: Literal["ultrafast", "veryfast", "medium"] = "veryfast"
    """x264's and x265's own word for how hard they try."""
    clips_only: bool = False
    """Pictures are passed over, instead of being coded as one frame."""

    def __post_init__(self) -> None:
        check_prob("codec prob", self.prob)
        check_kinds("codec", self.codecs, self.weights, get_args(CodecName))
        if (self.crf is None) == (self.bits is None):
            raise OptionError("a codec needs either crf or bits; give one, and null for the other")
        if self.crf is not None:
            check_range("codec crf", self.crf, high=51)
        if self.bits is not None:
            check_range("codec bits", self.bits, low=1e-4)
        if self.fps < 1:
            raise OptionError(f"codec fps {self.fps} is not possible; give 1 or more")

    @property
    def shared(self) -> bool:
        """Each clip has draws of its own."""
        return False

    def draw(self, count: int, generator: torch.Generator) -> Draws:
        """Codec and strength."""
        low, high = cast(tuple[float, float], self.bits if self.crf is None else self.crf)
        return {
            "codec": pick_each(count, self.weights, generator=generator),
            "strength": uniform(count, low, high, generator=generator),
        }

    def drifts(self) -> dict[str, Drift]:
        """Nothing moves: an encoder keeps its settings."""
        return {}

    def apply(
        self, pictures: Tensor, draws: Draws, generator: torch.Generator, scene: Scene
    ) -> Tensor:
        """Encode and decode `(N, 3, H, W)`, `scene.frames` of which make a clip."""
        clips = []
        for row in range(0, len(pictures), scene.frames):
            strength = float(draws["strength"][row])
            if self.crf is None:
                strength *= scene.good[0] * scene.good[1]
            clips.append(
                through_codec(
                    pictures[row : row + scene.frames],
                    self.codecs[int(draws["codec"][row])],
                    crf=None if self.crf is None else strength,
                    bits=None if self.bits is None else max(_LEAST_BITS, round(strength)),
                    fps=self.fps,
                    speed=self.speed,
                )
            )
        return torch.cat(clips)

    def told(self, draws: dict[str, Any]) -> dict[str, Any]:
        """What a record says of one clip."""
        strength = "bits" if self.crf is None else "crf"
        return {"codec": self.codecs[int(draws["codec"])], strength: draws["strength"]}


def through_codec(
    frames: Tensor,
    codec: CodecName,
    *,
    crf: float | None = None,
    bits: int | None = None,
    fps: int = 25,
    speed: str = "veryfast",
) -> Tensor:
    """Encode a clip and decode it again.

    Args:
        frames: RGB `(T, 3, H, W)` in [0, 1]; values outside are clamped. Odd and small sizes are
            widened for the encoder and cut back.
        codec: which one.
        crf: constant quality on x264's scale.
        bits: bits of a frame in the mean, instead of `crf`.
        fps: frame rate that the encoder is told, where it matters.
        speed: of x264 and x265.

    Returns:
        The same shape on the same device, in steps of 1/255. Colours are BT.601, limited range.

    Raises:
        OptionError: this build of FFmpeg lacks the codec.
    """
    height, width = frames.shape[-2:]
    wide, high = (max(_SMALLEST, side + side % 2) for side in (width, height))
    padded = F.pad(frames.detach(), (0, wide - width, 0, high - height), mode="replicate").cpu()
    if codec in ("mpeg2", "mpeg4"):
        packets = _by_quantiser(padded, codec, crf=crf, bits=bits)
    else:
        packets = _encoded(padded, _encoder(codec, wide, high, crf, bits, fps, speed))
    decoder = cast(av.VideoCodecContext, av.CodecContext.create(_ENCODERS[codec][1], "r"))
    decoder.thread_count = 1
    shown = [frame for packet in (*packets, None) for frame in decoder.decode(packet)]
    assert len(shown) == len(frames), (codec, len(shown), len(frames))
    rgb = torch.stack([frame_to_rgb(frame, _CODING) for frame in shown])[..., :height, :width]
    return rgb.mul(255).round().div(255).to(frames)


def _encoded(frames: Tensor, encoder: av.VideoCodecContext) -> list[Packet[Any]]:
    packets: list[Packet[Any]] = []
    for number, rgb in enumerate(frames):
        frame = rgb_to_frame(rgb, "yuv420p", coding=_CODING)
        frame.pts, frame.time_base = number, encoder.time_base
        packets += encoder.encode(frame)
    return packets + encoder.encode(None)


def _by_quantiser(
    frames: Tensor, codec: CodecName, *, crf: float | None, bits: int | None
) -> list[Packet[Any]]:
    """Packets of MPEG-2 or MPEG-4 with one quantiser for all frames.

    For `bits` it is the finest with which the mean frame keeps to them, or the coarsest of all. The
    control of these two encoders settles after a hundred frames; a clip of ten would not notice it.
    """
    height, width = frames.shape[-2:]

    def encoded(quantiser: int) -> list[Packet[Any]]:
        encoder = _encoder(codec, width, height, None, None, _MPEG_RATE, "")
        encoder.qmin = encoder.qmax = quantiser
        return _encoded(frames, encoder)

    if bits is None:
        assert crf is not None
        # The step of H.264 is 0.625 * 2^(qp / 6) and that of MPEG-2 and MPEG-4 is 2 q.
        return encoded(min(_COARSEST, max(_FINEST, round(0.3125 * 2 ** (crf / 6)))))
    fine, coarse = _FINEST, _COARSEST
    packets = encoded(coarse)
    while fine < coarse:
        middle = (fine + coarse) // 2
        tried = encoded(middle)
        if sum(packet.size for packet in tried) * 8 <= bits * len(frames):
            coarse, packets = middle, tried
        else:
            fine = middle + 1
    return packets


def _encoder(
    codec: CodecName,
    width: int,
    height: int,
    crf: float | None,
    bits: int | None,
    fps: int,
    speed: str,
) -> av.VideoCodecContext:
    name = _ENCODERS[codec][0]
    try:
        context = cast(av.VideoCodecContext, av.CodecContext.create(name, "w"))
    except ValueError as error:
        raise OptionError(
            f"this build of FFmpeg lacks the encoder {name}; leave {codec} out of the recipe, or "
            "install PyAV's own wheels: pip install --force-reinstall av"
        ) from error
    context.width, context.height, context.pix_fmt = width, height, "yuv420p"
    if bits is not None:
        fps = max(fps, -(-_LEAST_RATE // bits))
    context.time_base, context.framerate = Fraction(1, fps), Fraction(fps)
    context.thread_count = 1
    context.options = _options(codec, crf, speed)
    if bits is not None:
        context.bit_rate = bits * fps
    return context


def _options(codec: CodecName, crf: float | None, speed: str) -> dict[str, str]:
    """Options of an encoder; `crf` on x264's scale is brought to its own."""
    if codec in ("h264", "hevc"):
        options = {"preset": speed} if crf is None else {"preset": speed, "crf": f"{crf:.2f}"}
        if codec == "h264" and _has_avx512():
            # Its AVX-512 lookahead gives other bits from run to run, see restore.video.encoders.
            options["x264-params"] = "asm=avx2"
        if codec == "hevc":
            options["x265-params"] = "log-level=none:pools=none:frame-threads=1"
        return options
    if codec == "vp9":
        options = {"deadline": "realtime", "cpu-used": "7", "lag-in-frames": "0"}
        return options if crf is None else {**options, "crf": f"{crf * 63 / 51:.0f}", "b": "0"}
    return {}


@functools.cache
def _has_avx512() -> bool:
    return torch.backends.cpu.get_cpu_capability().startswith("AVX512")
