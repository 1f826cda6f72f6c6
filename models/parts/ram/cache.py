"""Tags that were found once are not looked for again, in this run or another.

A line of `tags.jsonl` per picture, `{"key": ..., "value": [...]}`. Lines are only ever added, each
with one write, so that several processes can share the file; a line that cannot be read is passed
over.
"""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from restore.models.parts.ram.tagger import Tagger
from restore.weights import check_readable, sha256

LOG = logging.getLogger(__name__)


class CachedTagger:
    """A `Tagger` that is only loaded when a picture comes that no one has tagged before."""

    def __init__(
        self,
        ram: Path,
        dape: Path | None = None,
        *,
        device: torch.device,
        dtype: torch.dtype,
        folder: Path | None,
    ) -> None:
        """As `Tagger.load`; `folder` keeps the tags, None = they are kept while this lives.

        Raises:
            WeightsError: a weight file is missing, empty or no weight file at all.
        """
        for path in (ram, dape):
            if path is not None:
                check_readable(path)
        self._ram, self._dape = ram, dape
        self._device, self._dtype = device, dtype
        self._tagger: Tagger | None = None
        self._tags = Lines(folder / "tags.jsonl" if folder else None)
        self._hashes = Lines(folder / "hashes.jsonl" if folder else None)
        self._model = ""

    def to(self, device: torch.device, dtype: torch.dtype) -> CachedTagger:
        """Move the network, if it is there, and have it loaded so."""
        self._device, self._dtype = device, dtype
        if self._tagger is not None:
            self._tagger.to(device, dtype)
        return self

    def tags(self, pictures: Tensor) -> list[list[str]]:
        """As `Tagger.tags`.

        Pictures are told apart by their values rounded to 8 bits and their size.

        Raises:
            WeightsError: the weights are needed, and cannot be loaded.
        """
        keys = [f"{self._model_key()}-{picture_key(picture)}" for picture in pictures]
        found = [_as_tags(self._tags.get(key)) for key in keys]
        unknown = [index for index, tags in enumerate(found) if tags is None]
        if unknown:
            if self._tagger is None:
                self._tagger = Tagger.load(
                    self._ram, self._dape, device=self._device, dtype=self._dtype
                )
            fresh = self._tagger.tags(pictures[unknown])
            for index, tags in zip(unknown, fresh, strict=True):
                self._tags.put(keys[index], tags)
                found[index] = tags
        return [tags or [] for tags in found]

    def _model_key(self) -> str:
        """Name of the weights and of what they are computed in."""
        if not self._model:
            files = [self._file_hash(path) if path else "none" for path in (self._ram, self._dape)]
            self._model = hashlib.sha256("-".join(files).encode()).hexdigest()[:32]
        return f"{self._model}-{str(self._dtype).removeprefix('torch.')}"

    def _file_hash(self, path: Path) -> str:
        """SHA-256 of a file; it takes seconds for RAM, so it is kept as well."""
        stat = path.stat()
        key = f"{path.resolve()}|{stat.st_size}|{stat.st_mtime_ns}"
        known = self._hashes.get(key)
        if not isinstance(known, str):
            known = sha256(path)
            self._hashes.put(key, known)
        return known


class Lines:
    """Values by name in a file of JSON lines, or in memory alone when there is no path."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._values: dict[str, Any] = {}
        self._read = 0

    def get(self, key: str) -> Any:
        """The value, or None; what other processes have written since is seen."""
        if key not in self._values:
            self._read_on()
        return self._values.get(key)

    def put(self, key: str, value: Any) -> None:
        """Keep a value; when the file cannot be written, for this process alone."""
        self._values[key] = value
        if self._path is None:
            return
        # The first newline ends what another process may have left half written.
        line = "\n" + json.dumps({"key": key, "value": value}) + "\n"
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("ab", buffering=0) as file:
                file.write(line.encode())
        except OSError as error:
            LOG.warning("%s cannot be written (%s); tags are not kept", self._path, error.strerror)
            self._path = None

    def _read_on(self) -> None:
        """Take in the lines that are new and complete."""
        try:
            if self._path is None or self._path.stat().st_size <= self._read:
                return
            with self._path.open("rb") as file:
                file.seek(self._read)
                block = file.read()
        except OSError:
            return  # not there yet, or not ours to read: nothing is known
        block = block[: block.rfind(b"\n") + 1]
        self._read += len(block)
        for line in block.splitlines():
            try:
                entry = json.loads(line)
                self._values[str(entry["key"])] = entry["value"]
            except (ValueError, TypeError, KeyError):
                continue


def picture_key(picture: Tensor) -> str:
    """SHA-256 of a picture `(3, H, W)` in [0, 1], rounded to 8 bits, and of its size."""
    levels = (picture.float().clamp(0, 1) * 255).round().to(torch.uint8).cpu().contiguous()
    digest = hashlib.sha256(str(tuple(levels.shape)).encode())
    digest.update(levels.numpy().tobytes())
    return digest.hexdigest()


def _as_tags(value: Any) -> list[str] | None:
    """`value` if it is a list of names; a file that was edited by hand may hold anything."""
    if isinstance(value, list) and all(isinstance(name, str) for name in value):
        return value
    return None
