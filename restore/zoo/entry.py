"""What is said of published weights: their files, addresses, hashes and licences."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["weights", "part", "base"]
Variant = Literal["fp32", "fp16"]

HUGGING_FACE = "https://huggingface.co"


@dataclass(frozen=True, kw_only=True, slots=True)
class ZooFile:
    """One file, the same at each of its addresses."""

    path: str
    """Name in the folder of its entry, with `/` between folders."""
    urls: tuple[str, ...]
    """Addresses, the one to try first in front."""
    size: int | None = None
    """Exact size in bytes, None when it is not known."""
    about: int = 0
    """Rough size in bytes where the exact one is not known; 0 = not known either."""
    sha256: str | None = None
    """Hash of the content, None when it is not known."""
    git_blob: str | None = None
    """Git's id of the content (SHA-1), for a file that lies in a Git repository itself."""
    variant: Variant | None = None
    """Number format that it is for, None when every format needs it."""
    converter: str = "restore.nested_weights:convert"
    """`module:function` that writes a pickle (first argument) as safetensors (second); empty = it
    stays as it is, because only its method knows what of it can be read."""

    @property
    def bytes(self) -> int:
        """Size in bytes as well as it is known."""
        return self.about if self.size is None else self.size

    @property
    def checkable(self) -> bool:
        """Whether its content is known beforehand."""
        return self.sha256 is not None or self.git_blob is not None


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """Weights that are pulled under one name."""

    name: str
    """Name for `restore models pull`; that of the method where it is a method's main file."""
    kind: Kind
    """`weights` of a method, a `part` that methods use beside them, or a `base`: a folder."""
    summary: str
    """One line on what it is."""
    files: tuple[ZooFile, ...]
    """One file, or all files of a folder."""
    licence: str
    """Licence of the weights."""
    pages: tuple[str, ...]
    """Pages for people: the publisher's first, then others that have the files."""
    requires: tuple[str, ...] = ()
    """Entries without which it is of no use."""
    optional: tuple[str, ...] = ()
    """Entries that make it better."""
    note: str = ""
    """What else one should know."""
    folder: bool = False
    """What is loaded is the folder with all files, not the first file; a base always is one."""

    def choose(self, variant: Variant = "fp32") -> tuple[ZooFile, ...]:
        """The files for one number format; all of them where there is one format only."""
        known = {file.variant for file in self.files}
        chosen = variant if variant in known else "fp32"
        return tuple(file for file in self.files if file.variant in (None, chosen))

    @property
    def variants(self) -> tuple[Variant, ...]:
        """Number formats to choose from; empty where there is no choice."""
        return tuple(sorted({f.variant for f in self.files if f.variant is not None}, reverse=True))


def hub(repository: str, path: str, revision: str = "main") -> str:
    """Address of a file in a repository of the Hugging Face hub."""
    return f"{HUGGING_FACE}/{repository}/resolve/{revision}/{path}"


def github(repository: str, commit: str, path: str) -> str:
    """Address of a file in a repository on GitHub."""
    return f"https://raw.githubusercontent.com/{repository}/{commit}/{path}"
