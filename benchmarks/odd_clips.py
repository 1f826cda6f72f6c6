"""Makes small clips of the odd kinds that phones, cameras and editors write, with PyAV alone.

Each is about a second of a moving pattern; `video_fidelity.py --make DIR` writes them all.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt

RATE = 24
AUDIO_RATE = 48_000
SUBTITLES = """1
00:00:00,100 --> 00:00:00,500
first line

2
00:00:00,600 --> 00:00:00,900
second line, \u00e4\u00f6\u00fc
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Clip:
    """What to write."""

    width: int = 96
    """Luma samples across."""
    height: int = 64
    """Luma samples down."""
    times: tuple[Fraction, ...] = tuple(Fraction(i, RATE) for i in range(RATE))
    """Time stamp of each frame, in seconds."""
    codec: str = "libx264"
    """Video encoder."""
    pix_fmt: str = "yuv420p"
    """Pixel format."""
    options: dict[str, str] = field(default_factory=dict)
    """For the encoder."""
    muxer: dict[str, str] = field(default_factory=dict)
    """For the container."""
    audio: tuple[str, ...] = ("aac",)
    """Encoder of each sound track."""
    audio_start: float = 0.0
    """Time stamp of the first sound, in seconds."""
    aspect: Fraction = Fraction(1)
    """Width of a sample over its height."""
    color: tuple[int, int, int, int] = (1, 1, 1, 1)
    """Primaries, transfer, matrix and range (1 = limited), in FFmpeg's numbers; default BT.709."""
    rotation: int = 0
    """Degrees, counter-clockwise, by which a player turns it."""
    interlaced: bool = False
    """Frames are two fields, the top one first."""
    extras: bool = False
    """With subtitles, chapters and an attachment."""
    metadata: dict[str, str] = field(default_factory=lambda: {"title": "odd clip"})
    """Of the file."""


def irregular() -> tuple[Fraction, ...]:
    """Time stamps of a phone: short and long frames and a pause."""
    gaps = [Fraction(n, 90_000) for n in (3003, 3750, 3003, 7500, 1501, 3003, 60_000, 3003)] * 3
    times = [Fraction(0)]
    for gap in gaps:
        times.append(times[-1] + gap)
    return tuple(times)


def shifted(seconds: Fraction) -> tuple[Fraction, ...]:
    """A second of regular frames that begins late."""
    return tuple(seconds + Fraction(i, RATE) for i in range(RATE))


HDR10 = (9, 16, 9, 1)  # BT.2020, PQ, BT.2020 non-constant luminance, limited
BT601_FULL = (6, 6, 6, 2)

CLIPS: dict[str, Clip] = {
    "vfr.mp4": Clip(times=irregular()),
    "vfr.mkv": Clip(times=irregular()),
    "ten_bit_hdr.mkv": Clip(
        codec="libx265", pix_fmt="yuv420p10le", color=HDR10, options={"x265-params": "log-level=0"}
    ),
    "ten_bit.mp4": Clip(pix_fmt="yuv420p10le"),
    "b_frames.mp4": Clip(options={"bf": "3", "b-pyramid": "normal", "g": "12"}),
    "fragmented.mp4": Clip(muxer={"movflags": "frag_keyframe+empty_moov"}),
    "start_offset.mkv": Clip(times=shifted(Fraction(5)), audio_start=5.0),
    "start_offset.ts": Clip(times=shifted(Fraction(5)), audio_start=5.0, audio=("mp2",)),
    "late_video.mp4": Clip(times=shifted(Fraction(1, 2))),
    "rotated.mp4": Clip(rotation=90),
    "rotated_180.mp4": Clip(rotation=180),
    "subtitles_chapters.mkv": Clip(audio=("aac", "flac"), extras=True),
    "odd_size.mkv": Clip(width=101, height=75, codec="ffv1", audio=("pcm_s16le",)),
    "odd_size_444.mp4": Clip(width=101, height=75, pix_fmt="yuv444p"),
    "full_range.mp4": Clip(color=BT601_FULL),
    "untagged.mp4": Clip(color=(2, 2, 2, 0)),
    "anamorphic.mp4": Clip(aspect=Fraction(16, 11)),
    "interlaced.mp4": Clip(interlaced=True),
    "yuv422.mov": Clip(codec="prores_ks", pix_fmt="yuv422p10le", audio=("pcm_s16le",)),
    "gray.mkv": Clip(codec="ffv1", pix_fmt="gray", audio=()),
    "one_frame.mp4": Clip(times=(Fraction(0),), audio=()),
    "n\u00f6n-\u00e4scii \u540d\u524d.mp4": Clip(),
}


def make_all(folder: Path, *, say: Callable[[str], None]) -> list[Path]:
    """Write every clip that this build of PyAV can; the others are named."""
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for name, clip in CLIPS.items():
        path = folder / name
        try:
            write(path, clip)
        except (av.FFmpegError, ValueError, AttributeError) as error:
            path.unlink(missing_ok=True)
            say(f"cannot make {name} here: {error}")
            continue
        made.append(path)
    return made


def picture(clip: Clip, index: int) -> npt.NDArray[np.uint8]:
    """Frame `index`: a drifting ramp and a moving square, `(H, W, 3)` RGB."""
    y, x = np.mgrid[0 : clip.height, 0 : clip.width]
    frame = np.stack([(x * 2 + index * 5) % 256, (y * 3) % 256, (x + y + index * 3) % 256], axis=-1)
    left = (index * 3) % max(1, clip.width - 16)
    frame[8:24, left : left + 16] = 255 if index % 2 else 20
    return np.asarray(frame, dtype=np.uint8)


def write(path: Path, clip: Clip) -> None:
    """Write one clip."""
    with av.open(str(path), "w", options=clip.muxer) as out:
        out.metadata.update(clip.metadata)
        video = _add_video(out, clip)
        sounds = [_add_audio(out, codec, i) for i, codec in enumerate(clip.audio)]
        subtitles = _add_extras(out) if clip.extras else None
        for sound in sounds:
            for packet in _tone(sound, clip):
                out.mux(packet)
        for index, time in enumerate(clip.times):
            out.mux(video.encode(_frame(clip, index, time)))
        out.mux(video.encode(None))
        if subtitles is not None:
            _copy_subtitles(out, subtitles)


def _add_video(out: Any, clip: Clip) -> Any:
    video = out.add_stream(clip.codec, rate=RATE, options=clip.options)
    video.width, video.height, video.pix_fmt = clip.width, clip.height, clip.pix_fmt
    video.time_base = Fraction(1, 90_000)
    context = video.codec_context
    context.time_base = Fraction(1, 90_000)
    context.color_primaries, context.color_trc, context.colorspace, context.color_range = clip.color
    if clip.aspect != 1:
        context.sample_aspect_ratio = clip.aspect
    if clip.interlaced:
        context.options = {**clip.options, "x264-params": "tff=1"}
    if clip.rotation:
        video.set_display_rotation(clip.rotation)
    return video


def _frame(clip: Clip, index: int, time: Fraction) -> Any:
    frame = av.VideoFrame.from_ndarray(picture(clip, index), format="rgb24")
    matrix = clip.color[2] if clip.color[2] in (1, 5, 6, 9) else 6
    frame = frame.reformat(
        format=clip.pix_fmt,
        dst_colorspace={1: 1, 5: 5, 6: 5, 9: 9}[matrix],
        dst_color_range=2 if clip.color[3] == 2 else 1,
    )
    frame.time_base = Fraction(1, 90_000)
    frame.pts = round(time * 90_000)
    return frame


def _add_audio(out: Any, codec: str, index: int) -> Any:
    sound = out.add_stream(codec, rate=AUDIO_RATE, layout="stereo")
    sound.metadata["language"] = ("eng", "deu", "fra")[index % 3]
    return sound


def _tone(sound: Any, clip: Clip) -> list[Any]:
    """A tone as long as the frames, encoded."""
    seconds = float(clip.times[-1] - clip.times[0]) + 1 / RATE
    if not clip.audio_start:
        seconds += float(clip.times[0])
    t = np.arange(int(seconds * AUDIO_RATE)) / AUDIO_RATE
    wave = (8000 * np.sin(2 * np.pi * 440 * t)).astype(np.int16)
    both = np.repeat(wave, 2)[None]  # (1, 2 N), packed left and right
    frame = av.AudioFrame.from_ndarray(both, format="s16", layout="stereo")
    frame.sample_rate = AUDIO_RATE
    frame.time_base = Fraction(1, AUDIO_RATE)
    frame.pts = round(clip.audio_start * AUDIO_RATE)
    context = sound.codec_context
    resampler = av.AudioResampler(
        context.format, context.layout, AUDIO_RATE, frame_size=context.frame_size or 1024
    )
    pieces = [*resampler.resample(frame), *resampler.resample(None)]
    return [p for piece in [*pieces, None] for p in sound.encode(piece)]


def _add_extras(out: Any) -> tuple[Any, Any]:
    """Chapters, an attachment, and a subtitle track to be filled by `_copy_subtitles`."""
    millisecond = Fraction(1, 1000)
    out.set_chapters(
        [
            {"id": 1, "start": 0, "end": 500, "time_base": millisecond, "metadata": {"title": "A"}},
            {"id": 2, "start": 500, "end": 1000, "time_base": millisecond, "metadata": {}},
        ]
    )
    out.add_attachment("notes.txt", "text/plain", b"kept along")
    source = av.open(io.BytesIO(SUBTITLES.encode()), format="srt")
    track = out.add_stream_from_template(source.streams.subtitles[0])
    track.metadata["language"] = "eng"
    return source, track


def _copy_subtitles(out: Any, subtitles: tuple[Any, Any]) -> None:
    source, track = subtitles
    with source:
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = track
                out.mux(packet)


def loop(source: Path, target: Path, *, times: int) -> None:
    """Write the video and sound of `source` `times` times in a row, without encoding them again."""
    with av.open(str(target), "w") as out:
        tracks: dict[int, Any] = {}
        shifts: dict[int, int] = {}
        for _ in range(times):
            with av.open(str(source)) as again:
                streams = [s for s in again.streams if s.type in ("video", "audio")]
                if not tracks:
                    tracks = {s.index: out.add_stream_from_template(s) for s in streams}
                for index, length in _append(out, again.demux(streams), tracks, shifts).items():
                    shifts[index] = shifts.get(index, 0) + length


def _append(
    out: Any, packets: Any, tracks: dict[int, Any], shifts: dict[int, int]
) -> dict[int, int]:
    """Mux packets, each track later by its shift; returns the length of each track."""
    first: dict[int, tuple[int, int]] = {}
    lengths: dict[int, int] = {}
    for packet in packets:
        index = packet.stream.index
        if packet.dts is None:
            continue
        pts, dts = first.setdefault(index, (packet.pts, packet.dts))
        # With B-frames and a variable rate the two clocks can differ in length.
        length = max(packet.pts - pts, packet.dts - dts) + max(1, packet.duration or 0)
        lengths[index] = max(lengths.get(index, 0), length)
        packet.pts += shifts.get(index, 0)
        packet.dts += shifts.get(index, 0)
        packet.stream = tracks[index]
        out.mux(packet)
    return lengths
