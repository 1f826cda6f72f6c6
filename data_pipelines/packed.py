"""Packed patch sets: compressed patches of many pictures in one file, read by memory map.

A set of a few tens of MiB carries training data to a machine that has no photographs. The file is
safetensors: `data` holds the compressed pictures one after the other, `offsets` where each begins.
The patches of a clip follow each other; `frames` says how many belong together.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt
import torch

from restore.errors import InputError, WeightsError
from restore.weights import open_weights, save_weights

FORMAT = "restore.patches.v1"
Codec = Literal["jpeg", "png"]
Pixels = npt.NDArray[np.uint8]


class PackedSet:
    """The pictures of a packed set; they are decoded when they are asked for."""

    def __init__(self, path: Path) -> None:
        """Map the file.

        Raises:
            InputError: it is no packed set.
        """
        if path.suffix != ".safetensors":
            raise InputError(
                f"{path} is not a packed patch set; give a folder of pictures, or a file that "
                "'restore pack' wrote"
            )
        try:
            tensors, text = open_weights(path)
        except WeightsError as error:
            raise InputError(str(error)) from error
        if text.get("format") != FORMAT or set(tensors) != {"data", "offsets", "frames"}:
            raise InputError(f"{path} is not a packed patch set; make one with 'restore pack'")
        self.path = path
        self.frames = int(tensors["frames"])
        """Pictures that follow each other in a clip; 1 = none do."""
        self._data = tensors["data"].numpy()
        self._offsets = tensors["offsets"].tolist()

    def __len__(self) -> int:
        """Number of pictures, those of clips included."""
        return len(self._offsets) - 1

    def picture(self, index: int) -> Pixels:
        """RGB `(H, W, 3)`."""
        data = self._data[self._offsets[index] : self._offsets[index + 1]]
        picture = cv2.imdecode(data, cv2.IMREAD_COLOR)
        if picture is None:
            raise InputError(f"{self.path} is damaged at patch {index}; pack it again")
        return np.ascontiguousarray(picture[:, :, ::-1]).astype(np.uint8, copy=False)

    @property
    def clips(self) -> int:
        """Number of clips."""
        return len(self) // self.frames

    def clip(self, index: int) -> Pixels:
        """RGB `(frames, H, W, 3)`."""
        first = index * self.frames
        return np.stack([self.picture(first + i) for i in range(self.frames)])


def write_packed(
    path: Path, pictures: Iterable[Pixels], *, codec: Codec, quality: int, frames: int = 1
) -> int:
    """Write a packed set, whole or not at all.

    Args:
        path: file to write.
        pictures: RGB `(H, W, 3)`; those of a clip one after the other.
        codec: jpeg (at full colour resolution) or png, which loses nothing.
        quality: of JPEG, 1 to 100.
        frames: pictures in a clip.

    Returns:
        How many pictures were written.
    """
    parts = [encode(picture, codec=codec, quality=quality) for picture in pictures]
    offsets = np.cumsum([0, *(len(part) for part in parts)])
    tensors = {
        "data": torch.from_numpy(np.concatenate(parts)),
        "offsets": torch.from_numpy(offsets.astype(np.int64)),
        # Not in the text: safetensors writes several texts in an order that changes.
        "frames": torch.tensor(frames),
    }
    save_weights(path, tensors, {"format": FORMAT})
    return len(parts)


def encode(picture: Pixels, *, codec: Codec, quality: int) -> Pixels:
    """A picture as the bytes of a JPEG or PNG file."""
    bgr = np.ascontiguousarray(picture[:, :, ::-1])
    full_colour = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    if codec == "png":
        return np.asarray(cv2.imencode(".png", bgr)[1], np.uint8).reshape(-1)
    settings = [cv2.IMWRITE_JPEG_QUALITY, quality, *full_colour]
    return np.asarray(cv2.imencode(".jpg", bgr, settings)[1], np.uint8).reshape(-1)
