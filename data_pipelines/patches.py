"""Random patches out of folders of good pictures, decoded once."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from restore.errors import InputError, OptionError

log = logging.getLogger("restore.data")

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp"}


@dataclass(frozen=True, kw_only=True, slots=True)
class PatchFolder:
    """One folder of training pictures."""

    path: str
    """Folder; the folders below it are searched too."""
    weight: float = 1.0
    """How often a patch comes from here, relative to the other folders."""
    shrink: float = 1.0
    """A picture is first resampled by a random factor from this to 1, which sharpens soft ones."""


class PatchSource:
    """Pictures in memory as 8-bit RGB; `draw` cuts patches at random places.

    A picture is decoded once, when it is first drawn, and kept: 24 photographs of 4 megapixels
    take 300 MB, and a patch then costs a copy of its own pixels.
    """

    def __init__(self, folders: Sequence[PatchFolder], *, patch: int) -> None:
        self.patch = patch
        self.folders = tuple(folders)
        if not self.folders:
            raise OptionError("no training folder was given; name at least one under 'data'")
        self.files = [_picture_files(Path(folder.path)) for folder in self.folders]
        self.weights = torch.tensor([folder.weight for folder in self.folders])
        self._pictures: dict[Path, np.ndarray] = {}

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """`(count, 3, patch, patch)` in [0, 1], flipped and turned at random."""
        return torch.stack([self._one(generator) for _ in range(count)]).float().div_(255)

    def _one(self, generator: torch.Generator) -> Tensor:
        where = int(torch.multinomial(self.weights, 1, generator=generator))
        files, folder = self.files[where], self.folders[where]
        place = torch.rand(5, generator=generator).tolist()
        picture = self._picture(files[int(place[0] * len(files))])
        smallest = self.patch / min(picture.shape[:2])
        factor = max(folder.shrink + (1 - folder.shrink) * place[1], min(smallest, 1.0))
        # A patch of the shrunk picture is a larger patch of the picture, shrunk.
        side = min(round(self.patch / factor), *picture.shape[:2])
        top = int(place[2] * (picture.shape[0] - side + 1))
        left = int(place[3] * (picture.shape[1] - side + 1))
        cut = picture[top : top + side, left : left + side]
        if side != self.patch:
            cut = cv2.resize(cut, (self.patch, self.patch), interpolation=cv2.INTER_AREA)
        patch = torch.from_numpy(np.ascontiguousarray(cut)).permute(2, 0, 1)
        turn = int(place[4] * 8)
        patch = torch.rot90(patch, turn % 4, (1, 2))
        return patch.flip(2) if turn >= 4 else patch

    def _picture(self, path: Path) -> np.ndarray:
        if path not in self._pictures:
            data = np.frombuffer(path.read_bytes(), dtype=np.uint8)
            picture = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
            if picture is None:
                raise InputError(f"{path} is not a readable picture; take it out of the folder")
            short = min(picture.shape[:2])
            if short < self.patch:  # enlarge the few that are smaller than a patch
                grow = self.patch / short
                picture = cv2.resize(picture, None, fx=grow, fy=grow, interpolation=cv2.INTER_CUBIC)
                log.warning("%s is smaller than a patch of %d; enlarged", path, self.patch)
            self._pictures[path] = np.ascontiguousarray(picture[:, :, ::-1])
        return self._pictures[path]


def _picture_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise OptionError(f"no training folder at {folder}; correct its path in the recipe")
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)
    if not files:
        raise OptionError(f"{folder} holds no pictures ({', '.join(sorted(SUFFIXES))})")
    return files
