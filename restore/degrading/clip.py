"""A clip, degraded stretch by stretch: decode -> degrade -> encode, in bounded memory.

Frames keep their time stamps. Sound and everything else in the file is left out.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from restore.config import VideoConfig
from restore.data_config import DegradedCodec
from restore.degradations.plan import Record
from restore.degradations.recipe import AnyRecipe, ClipDegrader
from restore.degrading.plan import CLIP_FORMATS
from restore.errors import DamagedTailError, InputError
from restore.video.decode import Frame, decode
from restore.video.encode import EncoderSpec, SegmentWriter, choose_encoder
from restore.video.probe import ClipInfo, probe

if TYPE_CHECKING:
    from restore.image.events import Size

STRETCH_PIXELS = 8 << 20
"""Pixels of a stretch of good frames: 9 frames of 1280x720, 100 MB as floats, of which a dozen such
are held at a time. Only the size of the clip decides about the length, so that a seed repeats it on
any machine."""
LONGEST, SHORTEST = 48, 4
"""Frames of a stretch."""

_SETTINGS: dict[DegradedCodec, VideoConfig] = {
    # What is written should be what was made: 10 is next to lossless, and plays everywhere.
    "h264": VideoConfig(codec="h264", crf=10, pix_fmt="yuv420p"),
    "ffv1": VideoConfig(codec="ffv1", pix_fmt="bgr0"),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipPlan:
    """What a clip will become."""

    info: ClipInfo
    """The clip that comes in."""
    spec: EncoderSpec
    """How the result is encoded."""
    size: tuple[int, int]
    """Height and width that the frames are cut to, on the right and below."""
    scale: int
    """Factor between the two."""

    @property
    def size_in(self) -> Size:
        """Width and height of the clip."""
        return self.info.width, self.info.height

    @property
    def size_out(self) -> Size:
        """Width and height of the result."""
        return self.spec.width, self.spec.height


def plan_clip(source: Path, *, scale: int, codec: DegradedCodec) -> ClipPlan:
    """Look at a clip, and choose the encoder of the result.

    Raises:
        InputError: it cannot be read, or is too small for the scale.
    """
    info = probe(source)
    step = scale if codec == "ffv1" else 2 * scale  # 4:2:0 has even sides
    height, width = info.height // step * step, info.width // step * step
    if min(height, width) == 0:
        raise InputError(
            f"{source.name} has frames of {info.width}x{info.height}, too small for a scale of "
            f"{scale}; choose a smaller --scale"
        )
    spec = choose_encoder(_SETTINGS[codec], info, width=width // scale, height=height // scale)
    spec = replace(spec, segment_format=CLIP_FORMATS[codec][0])
    return ClipPlan(info=info, spec=spec, size=(height, width), scale=scale)


def degrade_clip_file(
    plan: ClipPlan,
    destination: Path,
    *,
    recipe: AnyRecipe,
    generator: torch.Generator,
    on_frames: Callable[[int], None],
) -> tuple[Record, str | None]:
    """Write the degraded clip, whole or not at all.

    Args:
        plan: what was decided.
        destination: file, replaced if it exists.
        recipe: how to degrade.
        generator: source of every draw.
        on_frames: called with the frames done so far.

    Returns:
        What was drawn, and where and why the input broke off, if it did.

    Raises:
        InputError: no frame could be read.
        OSError: the result cannot be written.
    """
    degrader = ClipDegrader(recipe, generator, size=plan.size, scale=plan.scale)
    stretch = _stretch(plan.size)
    frames, damage = decode(plan.info), None
    done = 0
    with _moved_when_done(destination) as temporary, SegmentWriter(temporary, plan.spec) as writer:
        while True:
            part, damage = _taken(frames, stretch)
            if part:
                good = torch.stack([frame.rgb for frame in part])
                bad = degrader.push(good[..., : plan.size[0], : plan.size[1]])
                for frame, rgb in zip(part, bad, strict=True):
                    writer.write(rgb, pts=frame.pts, duration=frame.duration)
                done += len(part)
                on_frames(done)
            if len(part) < stretch:
                break
        if done == 0:
            why = "" if damage is None else f" ({damage})"
            raise InputError(f"{plan.info.path.name} holds no frame{why}; get a whole copy")
    return degrader.record(), damage


def _stretch(size: tuple[int, int]) -> int:
    """Frames that are degraded together."""
    return min(LONGEST, max(SHORTEST, STRETCH_PIXELS // (size[0] * size[1])))


def _taken(frames: Iterator[Frame], count: int) -> tuple[list[Frame], str | None]:
    """The next frames, and why there are fewer, where that is damage."""
    part: list[Frame] = []
    try:
        for frame in islice(frames, count):
            part.append(frame)
    except DamagedTailError as error:
        return part, str(error)
    return part, None


@contextlib.contextmanager
def _moved_when_done(destination: Path) -> Iterator[Path]:
    """A temporary name in the same folder; the file moves into place when it is complete."""
    temporary = destination.with_name(f".restore-{secrets.token_hex(6)}.tmp")
    try:
        yield temporary
        temporary.replace(destination)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
