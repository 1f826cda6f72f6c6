"""Hashes of files."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from restore.zoo.entry import ZooFile

_BLOCK = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Digests:
    """Hashes of one file, as hex."""

    size: int
    """Bytes."""
    sha256: str
    """SHA-256 of the content."""
    git_blob: str
    """SHA-1 of `blob SIZE`, a zero byte and the content: Git's name for it."""

    def differs(self, file: ZooFile) -> str | None:
        """How the content is not the published one; None when it is, or when nothing is known."""
        if file.sha256 is not None and self.sha256 != file.sha256:
            return f"its SHA-256 is {self.sha256}, not {file.sha256}"
        if file.git_blob is not None and self.git_blob != file.git_blob:
            return f"its Git blob id is {self.git_blob}, not {file.git_blob}"
        if not file.checkable and file.size not in (None, self.size):
            return f"it has {self.size} bytes, not {file.size}"
        return None


def hash_file(path: Path, progress: Callable[[int], None] | None = None) -> Digests:
    """Read a whole file and hash it.

    Args:
        path: the file.
        progress: called with the number of bytes read so far.

    Raises:
        OSError: it cannot be read.
    """
    size = path.stat().st_size
    sha256 = hashlib.sha256()
    blob = hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False)
    done = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            sha256.update(block)
            blob.update(block)
            done += len(block)
            if progress is not None:
                progress(done)
    return Digests(size=size, sha256=sha256.hexdigest(), git_blob=blob.hexdigest())
