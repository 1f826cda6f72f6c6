"""`restore pack`: patches of pictures, or pieces of clips, into one file.

Larger pictures give more patches, in proportion to their pixels. Of two random places the one with
more detail is taken, so that skies are there without filling the set.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, UnidentifiedImageError

from restore.data_config import PackConfig
from restore.data_pipelines.clips import ClipFile, VideoClips
from restore.data_pipelines.packed import write_packed
from restore.data_pipelines.patches import picture_files, read_picture
from restore.errors import InputError, OutputError

Pixels = npt.NDArray[np.uint8]
Progress = Callable[[int, int], None]

VIDEO_SUFFIXES = {".mp4", ".mkv", ".mov", ".webm", ".avi", ".m4v", ".ts"}


def pack_patches(
    inputs: Sequence[str], *, config: PackConfig, progress: Progress | None = None
) -> int:
    """Write a packed set; the same seed and files give the same one.

    Args:
        inputs: folders and files: pictures, or video files when `config.frames` is above 1.
        config: how many, how large, where to.
        progress: called with the patches done and their number.

    Returns:
        Bytes of the file.

    Raises:
        InputError: an input cannot be read, or there is none of the right kind.
        OutputError: the file is there already, or cannot be written.
    """
    output = Path(config.output)
    if output.exists() and not config.overwrite:
        raise OutputError(f"{output} is already there; add --overwrite or give another name")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"{output.parent} cannot be made ({error.strerror}); give another folder with -o"
        ) from error
    generator = torch.Generator().manual_seed(config.seed)
    make = _patches if config.frames == 1 else _clips
    pieces = _counted(make(inputs, config, generator), config, progress)
    write_packed(output, pieces, codec=config.codec, quality=config.quality, frames=config.frames)
    return output.stat().st_size


def _counted(
    pieces: Iterator[Pixels], config: PackConfig, progress: Progress | None
) -> Iterator[Pixels]:
    for done, piece in enumerate(pieces, start=1):
        if progress is not None and done % config.frames == 0:
            progress(done // config.frames, config.count)
        yield piece


def _patches(
    inputs: Sequence[str], config: PackConfig, generator: torch.Generator
) -> Iterator[Pixels]:
    """Patches, picture after picture, so that each is decoded once."""
    files = [file for text in inputs for file in _pictures(Path(text))]
    sizes = torch.tensor([_pixels(file) for file in files], dtype=torch.float64)
    drawn = torch.multinomial(sizes, config.count, replacement=True, generator=generator)
    for index, count in sorted(Counter(drawn.tolist()).items()):
        picture = read_picture(files[index])
        for _ in range(count):
            yield _window(picture[None], config, generator)[0]


def _clips(
    inputs: Sequence[str], config: PackConfig, generator: torch.Generator
) -> Iterator[Pixels]:
    """The frames of one clip after the other; every file gives as many clips as the others."""
    files = [file for text in inputs for file in _videos(Path(text))]
    for number, file in enumerate(files):
        count = len(range(number, config.count, len(files)))
        if count == 0:
            continue
        shelf = VideoClips(ClipFile(path=str(file), places=count), frames=config.frames)
        for i in range(count):
            run = shelf.clip(i * len(shelf) // count, keep=False)
            yield from _window(run, config, generator)


def _window(frames: Pixels, config: PackConfig, generator: torch.Generator) -> list[Pixels]:
    """The same square of each frame `(T, H, W, 3)`, with more detail than another one."""
    draws = torch.rand(5, generator=generator).tolist()
    side = min(
        round(config.patch / (config.shrink + (1 - config.shrink) * draws[0])), *frames.shape[1:3]
    )
    best: Pixels | None = None
    for u, v in (draws[1:3], draws[3:5]):
        top = int(u * (frames.shape[1] - side + 1))
        left = int(v * (frames.shape[2] - side + 1))
        found = frames[:, top : top + side, left : left + side]
        if best is None or _detail(found[0]) > _detail(best[0]):
            best = found
    assert best is not None
    how = cv2.INTER_AREA if side > config.patch else cv2.INTER_CUBIC
    size = (config.patch, config.patch)
    parts: list[npt.NDArray[Any]] = list(best)
    if side != config.patch:
        parts = [cv2.resize(part, size, interpolation=how) for part in parts]
    return [np.ascontiguousarray(part).astype(np.uint8, copy=False) for part in parts]


def _detail(patch: Pixels) -> float:
    gray = cv2.cvtColor(np.ascontiguousarray(patch), cv2.COLOR_RGB2GRAY)
    return float(np.abs(cv2.Laplacian(gray, cv2.CV_32F)).mean())


def _pictures(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise InputError(f"{path} is not there; give folders of pictures, or pictures")
    return picture_files(path)


def _pixels(path: Path) -> int:
    try:
        with Image.open(path) as picture:  # reads the head alone
            return picture.width * picture.height
    except Image.DecompressionBombError as error:
        raise InputError(f"{path} is too large to be a picture ({error}); take it away") from error
    except (UnidentifiedImageError, OSError) as error:
        raise InputError(
            f"{path} is not a readable picture; take it away, or give --frames for video files"
        ) from error


def _videos(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    files = sorted(p for p in path.rglob("*") if p.suffix.lower() in VIDEO_SUFFIXES)
    if not files:
        raise InputError(f"{path} holds no video files ({', '.join(sorted(VIDEO_SUFFIXES))})")
    return files
