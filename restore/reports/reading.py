"""Results and references as arrays that metrics take: decoded, on white, of one size, cropped."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from restore.codec.engine import Coder, load_codec
from restore.codec.job import read_coded
from restore.codec.pictures import picture_of
from restore.codec.plan import CODED_SUFFIXES
from restore.errors import InputError
from restore.image.files import Picture as Read
from restore.image.files import flattened, read_image
from restore.metrics import Picture, crop
from restore.reports.config import FitChoice, ReportConfig
from restore.reports.pairing import Pair
from restore.resampling import resample


@dataclass(frozen=True, kw_only=True, slots=True)
class Views:
    """A result and its reference, ready to be compared."""

    image: Picture
    """The result `(H, W, 3)`, uint8 or uint16."""
    reference: Picture | None
    """The reference, of the same size."""
    pixels: int
    """Pixels of the original picture, before the crop."""
    notes: tuple[str, ...] = ()
    """What was done to them, one line each."""


@dataclass(kw_only=True, slots=True)
class Reader:
    """Reads pairs of pictures; several threads may use one."""

    config: ReportConfig
    coders: dict[str, Coder] = field(default_factory=dict)
    lock: Any = field(default_factory=threading.Lock)

    def pair(self, pair: Pair) -> Views:
        """Read a pair of pictures.

        Raises:
            InputError: one cannot be read, or the sizes differ and `--fit` does not say what to do.
            WeightsError: a coded result wants a codec that cannot be loaded.
        """
        read = [self.picture(pair.restored)]
        if pair.reference is not None:
            read.append(self.picture(pair.reference))
        notes = []
        if any(_has_alpha(one) for one in read):
            notes.append("transparent parts stand on white")
        arrays = [_array(flattened(one)) for one in read]
        pixels = int(arrays[-1][..., 0].size)
        if len(arrays) == 2 and arrays[0].shape != arrays[1].shape:
            arrays, note = fitted(arrays, self.config.fit)
            notes.append(note)
        arrays = [crop(one, self.config.crop_border) for one in arrays]
        reference = arrays[1] if len(arrays) == 2 else None
        return Views(image=arrays[0], reference=reference, pixels=pixels, notes=tuple(notes))

    def picture(self, path: Path) -> Read:
        """Any picture, also a coded one."""
        if path.suffix.lower() not in CODED_SUFFIXES:
            return read_image(path, max_pixels=self.config.max_pixels)
        file, _ = read_coded(path, max_pixels=self.config.max_pixels)
        with self.lock:  # the networks run one at a time
            if file.codec not in self.coders:
                self.coders[file.codec] = load_codec(file.codec, device=self.config.device)
            coder = self.coders[file.codec]
            rgb = coder.decode(coder.read(file), file.width, file.height)[0]
        return picture_of(file, rgb)


def fitted(arrays: list[Picture], fit: FitChoice) -> tuple[list[Picture], str]:
    """A result and its reference of one size, and a line on how.

    Raises:
        InputError: `fit` does not say how.
    """
    (height, width), (tall, wide) = (one.shape[:2] for one in arrays)
    sizes = f"the result has {width}x{height} pixels, its reference {wide}x{tall}"
    if fit == "fail":
        raise InputError(f"{sizes}; make them alike, or give --fit crop or --fit resize")
    if fit == "crop":
        rows, columns = min(height, tall), min(width, wide)
        return (
            [one[:rows, :columns] for one in arrays],
            f"{sizes}: compared are the {columns}x{rows} at the top left",
        )
    top = np.iinfo(arrays[0].dtype).max
    tensor = torch.from_numpy(arrays[0].astype(np.float32) / np.float32(top)).permute(2, 0, 1)
    resized = resample(tensor, (wide, tall))
    return [_rounded(resized, arrays[0].dtype), arrays[1]], f"{sizes}: the result was resized"


def frame_array(frame: Tensor) -> Picture:
    """A frame `(3, H, W)` in [0, 1] as `(H, W, 3)` float32; it is not rounded to 8 bits."""
    return np.ascontiguousarray(frame.clamp(0, 1).permute(1, 2, 0).numpy())


def _has_alpha(picture: Read) -> bool:
    return picture.alpha is not None and bool((picture.alpha < 1).any())


def _array(picture: Read) -> Picture:
    """The values of a file as they are: its 8 or 16 bits; gray as three equal channels."""
    return _rounded(picture.rgb, np.dtype(np.uint16 if picture.bit_depth == 16 else np.uint8))


def _rounded(rgb: Tensor, dtype: Any) -> Picture:
    values = rgb.permute(1, 2, 0).double().numpy() * np.iinfo(dtype).max
    return np.ascontiguousarray(np.rint(values).astype(dtype))
