"""Short pieces of real clips: consecutive frames, cut at a random place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import av
import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from restore.data_pipelines.packed import PackedSet
from restore.errors import InputError, OptionError

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipFile:
    """One video file to train on."""

    path: str = field(metadata={"path": True})
    """The file; or a packed set of clips that `restore pack --frames` wrote."""
    weight: float = 1.0
    """How often a sample comes from here, relative to the other clips."""
    start: float = 0.0
    """First second that is used."""
    end: float | None = None
    """Second after the last one; None = the end of the file."""
    places: int = 24
    """Moments that samples begin at, evenly spread; each is decoded once and kept."""
    shrink: float = 1.0
    """Frames are first made smaller by a random factor from this to 1, which hides compression."""

    def __post_init__(self) -> None:
        if self.weight < 0 or not 0 < self.shrink <= 1 or self.places < 1:
            raise OptionError(
                f"weight {self.weight:g}, shrink {self.shrink:g} or places {self.places} of "
                f"{self.path} is not possible; give a weight of 0 or more, a shrink above 0 and "
                "up to 1, and 1 place or more"
            )
        if self.start < 0 or (self.end is not None and self.end <= self.start):
            raise OptionError(f"start {self.start:g} to end {self.end} of {self.path} is no time")


class Clips(Protocol):
    """Runs of frames by number."""

    def __len__(self) -> int: ...

    def clip(self, index: int) -> Pixels:
        """RGB `(T, H, W, 3)`."""


class VideoClips:
    """Runs of consecutive frames of a video file."""

    def __init__(self, config: ClipFile, *, frames: int) -> None:
        """Look at the file.

        Raises:
            InputError: it cannot be read, or is shorter than one run.
        """
        self.config, self.frames = config, frames
        self.rate, seconds = _rate_and_length(config.path)
        end = seconds if config.end is None else min(config.end, seconds)
        last = end - frames / self.rate
        if last < config.start:
            raise InputError(
                f"{config.path} has fewer than {frames} frames from {config.start:g} to {end:g} "
                "seconds; give a longer clip"
            )
        count = max(1, min(config.places, int((last - config.start) * self.rate) + 1))
        self.times = np.linspace(config.start, last, count).tolist()
        self._decoded: dict[int, Pixels] = {}

    def __len__(self) -> int:
        return len(self.times)

    def clip(self, index: int, *, keep: bool = True) -> Pixels:
        """RGB `(T, H, W, 3)`; `keep` = hold it in memory for the next time."""
        found = self._decoded.get(index)
        if found is None:
            found = read_frames(self.config.path, start=self.times[index], count=self.frames)
            if keep:
                self._decoded[index] = found
        return found


class PackedClips:
    """The clips of a packed set."""

    def __init__(self, path: Path, *, frames: int) -> None:
        self.set = PackedSet(path)
        if self.set.frames < frames:
            raise OptionError(
                f"{path} holds clips of {self.set.frames} frames; {frames} are asked for: pack "
                "longer ones, or lower 'frames'"
            )
        self.frames = frames

    def __len__(self) -> int:
        return self.set.clips

    def clip(self, index: int) -> Pixels:
        """RGB `(T, H, W, 3)`."""
        return self.set.clip(index)[: self.frames]


class ClipSource:
    """Draws pieces of clips; a piece depends on the generator alone."""

    def __init__(self, files: Sequence[ClipFile], *, frames: int, side: int) -> None:
        self.side, self.files = side, tuple(files)
        self.shelves = [open_clips(file, frames=frames) for file in self.files]
        self.weights = torch.tensor([file.weight for file in self.files])
        if not float(self.weights.sum()) > 0:
            raise OptionError("every clip has the weight 0; give one more than that")

    def draw(self, generator: torch.Generator) -> Tensor:
        """`(T, 3, side, side)` in [0, 1], flipped and turned at random."""
        where = int(torch.multinomial(self.weights, 1, generator=generator))
        shelf, file = self.shelves[where], self.files[where]
        place = torch.rand(5, generator=generator).tolist()
        clip = shelf.clip(int(place[0] * len(shelf)))
        short = min(clip.shape[1:3])
        factor = max(file.shrink + (1 - file.shrink) * place[1], min(1.0, self.side / short))
        side = min(round(self.side / factor), short)
        top = int(place[2] * (clip.shape[1] - side + 1))
        left = int(place[3] * (clip.shape[2] - side + 1))
        cut: list[npt.NDArray[Any]] = list(clip[:, top : top + side, left : left + side])
        if side != self.side:
            how = cv2.INTER_AREA if side > self.side else cv2.INTER_CUBIC
            cut = [cv2.resize(frame, (self.side, self.side), interpolation=how) for frame in cut]
        frames = torch.from_numpy(np.stack(cut)).permute(0, 3, 1, 2).float() / 255
        turn = int(place[4] * 8)
        frames = torch.rot90(frames, turn % 4, (2, 3))
        return (frames.flip(3) if turn >= 4 else frames).contiguous()


def open_clips(file: ClipFile, *, frames: int) -> Clips:
    """A video file, or a packed set of clips."""
    path = Path(file.path)
    if path.suffix == ".safetensors":
        return PackedClips(path, frames=frames)
    return VideoClips(file, frames=frames)


def read_frames(path: str | Path, *, start: float, count: int) -> Pixels:
    """Consecutive frames from a time on, RGB `(count, H, W, 3)`.

    Raises:
        InputError: the file cannot be read, or has fewer.
    """
    frames: list[Pixels] = []
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            base = float(stream.time_base or 1)
            first = float((stream.start_time or 0) * base)
            container.seek(int((start + first) / base), stream=stream, backward=True)
            for frame in container.decode(stream):
                if (frame.time or 0.0) - first < start - 1e-3:
                    continue
                frames.append(np.asarray(frame.to_ndarray(format="rgb24"), np.uint8))
                if len(frames) == count:
                    return np.stack(frames)
    except (av.FFmpegError, IndexError, OSError) as error:
        raise InputError(
            f"{path} is not a readable clip ({type(error).__name__}); take it out of the recipe"
        ) from error
    raise InputError(
        f"{path} has {len(frames)} frames after {start:.2f} seconds where {count} are needed; "
        "set an earlier 'end'"
    )


def _rate_and_length(path: str) -> tuple[float, float]:
    """Frames a second, and seconds."""
    try:
        with av.open(path) as container:
            stream = container.streams.video[0]
            rate = float(stream.average_rate or 25)
            if stream.duration is not None and stream.time_base is not None:
                return rate, float(stream.duration * stream.time_base)
            if container.duration is not None:
                return rate, container.duration / av.time_base
    except (av.FFmpegError, IndexError, OSError) as error:
        raise InputError(
            f"{path} is not a readable clip ({type(error).__name__}); correct its path"
        ) from error
    raise InputError(f"{path} does not say its length; give another clip")
