"""Random patches out of folders of good pictures, or out of packed patch sets."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from restore.data_pipelines.packed import PackedSet
from restore.errors import InputError, OptionError

log = logging.getLogger("restore.data")

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp"}
Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True, slots=True)
class PatchFolder:
    """One folder of training pictures."""

    path: str = field(metadata={"path": True})
    """Folder; the folders below it are searched too. Or a file that `restore pack` wrote."""
    weight: float = 1.0
    """How often a patch comes from here, relative to the other folders."""
    shrink: float = 1.0
    """A picture is first resampled by a random factor from this to 1, which sharpens soft ones."""

    def __post_init__(self) -> None:
        if self.weight < 0 or not 0 < self.shrink <= 1:
            raise OptionError(
                f"weight {self.weight:g} and shrink {self.shrink:g} of {self.path} are not "
                "possible; give a weight of 0 or more and a shrink above 0 and up to 1"
            )


class Pictures(Protocol):
    """Good pictures by number."""

    def __len__(self) -> int: ...

    def picture(self, index: int) -> Pixels:
        """RGB `(H, W, 3)`."""


class FolderPictures:
    """The pictures below a folder, decoded when they are first asked for, and kept.

    24 photographs of 4 megapixels take 300 MB, and a patch then costs a copy of its own pixels.
    Folders that do not fit into memory are packed first (`restore pack`).
    """

    def __init__(self, folder: Path) -> None:
        self.files = picture_files(folder)
        self._decoded: dict[int, Pixels] = {}

    def __len__(self) -> int:
        return len(self.files)

    def picture(self, index: int) -> Pixels:
        """RGB `(H, W, 3)`."""
        found = self._decoded.get(index)
        if found is None:  # two threads may both decode it: the results are the same
            found = self._decoded[index] = read_picture(self.files[index])
        return found


class PatchSource:
    """Draws patches at random places; a patch depends on the generator alone."""

    def __init__(self, folders: Sequence[PatchFolder], *, patch: int) -> None:
        self.patch = patch
        self.folders = tuple(folders)
        if not self.folders:
            raise OptionError("no training folder was given; name at least one under 'data'")
        self.shelves = [open_pictures(Path(folder.path)) for folder in self.folders]
        self.weights = torch.tensor([folder.weight for folder in self.folders])
        if not float(self.weights.sum()) > 0:
            raise OptionError("every training folder has the weight 0; give one more than that")

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """`(count, 3, patch, patch)` in [0, 1], flipped and turned at random."""
        return torch.stack([self._one(generator) for _ in range(count)]).float().div_(255)

    def _one(self, generator: torch.Generator) -> Tensor:
        where = int(torch.multinomial(self.weights, 1, generator=generator))
        shelf, folder = self.shelves[where], self.folders[where]
        place = torch.rand(5, generator=generator).tolist()
        picture = self._large_enough(shelf.picture(int(place[0] * len(shelf))))
        smallest = self.patch / min(picture.shape[:2])
        factor = max(folder.shrink + (1 - folder.shrink) * place[1], min(smallest, 1.0))
        # A patch of the shrunk picture is a larger patch of the picture, shrunk.
        side = min(round(self.patch / factor), *picture.shape[:2])
        top = int(place[2] * (picture.shape[0] - side + 1))
        left = int(place[3] * (picture.shape[1] - side + 1))
        cut: npt.NDArray[Any] = picture[top : top + side, left : left + side]
        if side != self.patch:
            cut = cv2.resize(cut, (self.patch, self.patch), interpolation=cv2.INTER_AREA)
        patch = torch.from_numpy(np.ascontiguousarray(cut)).permute(2, 0, 1)
        turn = int(place[4] * 8)
        patch = torch.rot90(patch, turn % 4, (1, 2))
        return patch.flip(2) if turn >= 4 else patch

    def _large_enough(self, picture: Pixels) -> Pixels:
        """The few pictures that are smaller than a patch are enlarged."""
        short = min(picture.shape[:2])
        if short >= self.patch:
            return picture
        height, width = (max(self.patch, round(n * self.patch / short)) for n in picture.shape[:2])
        log.debug("a picture with a side of %d is enlarged for patches of %d", short, self.patch)
        larger = cv2.resize(picture, (width, height), interpolation=cv2.INTER_CUBIC)
        return np.asarray(larger, np.uint8)


def open_pictures(path: Path) -> Pictures:
    """A folder of pictures, or a packed patch set.

    Raises:
        OptionError: it is neither.
    """
    return PackedSet(path) if path.is_file() else FolderPictures(path)


def picture_files(folder: Path) -> list[Path]:
    """Pictures below a folder, sorted.

    Raises:
        OptionError: there are none.
    """
    if not folder.is_dir():
        raise OptionError(f"no training folder at {folder}; correct its path in the recipe")
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    if not files:
        raise OptionError(f"{folder} holds no pictures ({', '.join(sorted(SUFFIXES))})")
    return files


def read_picture(path: Path) -> Pixels:
    """RGB `(H, W, 3)` of a file.

    Raises:
        InputError: it cannot be read, or is not a picture.
    """
    try:
        data = np.frombuffer(path.read_bytes(), dtype=np.uint8)
        picture = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); correct that") from error
    except cv2.error:  # more pixels than OpenCV takes
        picture = None
    if picture is None:
        raise InputError(f"{path} is not a readable picture; take it out of the folder")
    return np.ascontiguousarray(picture[:, :, ::-1]).astype(np.uint8, copy=False)
