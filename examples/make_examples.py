"""Make the sample picture and clip of this folder from their sources (see README.md here).

    python examples/make_examples.py --photo kait-herzog-8242.jpg --video bottle-detection.mp4

Both are made small with an area filter and compressed hard, as a thumbnail or a phone message
would be. The source clip is silent: a soft chord is added, so that the demo shows that sound is
kept.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.video.stream import VideoStream
from PIL import Image

HERE = Path(__file__).resolve().parent
PICTURE = HERE / "sign.jpg"
CLIP = HERE / "bottles.mp4"

PICTURE_BOX = (0.0, 0.2, 0.6, 0.7564)  # left, top, right, bottom as shares of the photo
PICTURE_SIZE = (240, 208)
CLIP_START = 15.5  # seconds: two hands reach for two bottles
CLIP_FRAMES = 75
CLIP_SIZE = (240, 136)
SAMPLE_RATE = 44100
NOTES = (261.63, 329.63, 392.00, 523.25)  # C4 E4 G4 C5 in hertz


def make_picture(photo: Path, target: Path) -> None:
    """Crop the sign out of the photo and make it small."""
    with Image.open(photo) as image:
        width, height = image.size
        left, top, right, bottom = PICTURE_BOX
        box = (left * width, top * height, right * width, bottom * height)
        small = image.convert("RGB").resize(PICTURE_SIZE, Image.Resampling.BOX, box=box)
    small.save(target, quality=75, subsampling="4:2:0")


def chord(seconds: float) -> npt.NDArray[np.float32]:
    """Four notes that enter one after another and fade; mono `(1, N)` float32 in [-1, 1]."""
    time = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    step = seconds / (len(NOTES) + 1)
    sound = np.zeros_like(time)
    for number, frequency in enumerate(NOTES):
        since = time - number * step
        envelope = np.where(since > 0, (1 - np.exp(-since.clip(0) / 0.02)), 0.0)
        sound += envelope * np.exp(-since.clip(0) / 0.6) * np.sin(2 * np.pi * frequency * time)
    sound *= np.minimum(1, (seconds - time) / 0.1)  # no click at the end
    return (0.15 * sound).astype(np.float32)[None]


def source_frames(video: Path) -> Iterator[av.VideoFrame]:
    """The chosen frames of the source clip."""
    with av.open(str(video)) as container:
        seen = 0
        for frame in container.decode(video=0):
            if frame.time is None or frame.time < CLIP_START:
                continue
            yield frame
            seen += 1
            if seen == CLIP_FRAMES:
                return
    raise SystemExit(f"{video} ends before second {CLIP_START} plus {CLIP_FRAMES} frames")


def add_video(container: OutputContainer, rate: Fraction) -> VideoStream:
    """An H.264 stream of the sample's size, tagged BT.709 limited range."""
    stream = container.add_stream("libx264", rate=rate, options={"crf": "27", "preset": "slow"})
    stream.width, stream.height = CLIP_SIZE
    stream.pix_fmt = "yuv420p"
    context = stream.codec_context
    context.color_primaries = context.color_trc = context.colorspace = 1  # BT.709 in H.273
    context.color_range = 1  # limited
    return stream


def add_audio(container: OutputContainer) -> AudioStream:
    """A mono AAC stream."""
    return container.add_stream("aac", rate=SAMPLE_RATE, layout="mono", bit_rate=64_000)


def make_clip(video: Path, target: Path) -> None:
    """Cut, shrink and compress the clip, and give it sound."""
    with av.open(str(video)) as source:
        rate = source.streams.video[0].average_rate or Fraction(30)
    with av.open(str(target), "w", options={"movflags": "+faststart"}) as container:
        pictures, sound = add_video(container, rate), add_audio(container)
        container.metadata["title"] = "Bottles (restore sample clip)"
        container.metadata["copyright"] = "Intel sample videos, CC-BY 4.0; cut, shrunk, sound added"
        for number, frame in enumerate(source_frames(video)):
            rgb = Image.fromarray(frame.to_ndarray(format="rgb24"))
            shrunk = np.asarray(rgb.resize(CLIP_SIZE, Image.Resampling.BOX))
            small = av.VideoFrame.from_ndarray(shrunk, format="rgb24").reformat(
                format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG"
            )
            small.pts, small.time_base = number, 1 / rate
            container.mux(pictures.encode(small))
        samples = av.AudioFrame.from_ndarray(
            chord(float(CLIP_FRAMES / rate)), format="fltp", layout="mono"
        )
        samples.sample_rate, samples.pts = SAMPLE_RATE, 0
        container.mux(sound.encode(samples))
        container.mux(pictures.encode(None))
        container.mux(sound.encode(None))


def main() -> None:
    """Read the arguments and make both files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photo", type=Path, required=True, help="the source photo")
    parser.add_argument("--video", type=Path, required=True, help="the source clip")
    arguments = parser.parse_args()
    make_picture(arguments.photo, PICTURE)
    make_clip(arguments.video, CLIP)


if __name__ == "__main__":
    main()
