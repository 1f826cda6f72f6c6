"""Files that names, folders and patterns stand for."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from restore.image.files import output_reason

Identity = tuple[int, int]
"""Device and number of a file."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """An input file, or one that should be there."""

    path: Path
    """The file; with a problem, the folder or the pattern."""
    root: Path
    """Folder from which the tree is mirrored."""
    named: bool
    """The user named this very file."""
    problem: str = ""
    """Why it cannot be an input, one line."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """What is at the place of a result."""

    taken: bool
    """Something is there."""
    original: Path | None = None
    """The input that it is, by whatever name."""
    problem: str = ""
    """Why nothing can be written there, one line."""


def expand(
    name: str,
    *,
    recursive: bool,
    output: str | Path | None,
    is_known: Callable[[Path], bool],
    what: str,
    looked_for: str,
) -> Iterator[Found]:
    """Files that one input stands for; a problem is an item too, so that it is reported.

    Args:
        name: a file, a folder, or a pattern (`*`, `?`, `[]`, `**`).
        recursive: go into folders below a folder.
        output: folder to leave out where it lies inside a folder.
        is_known: whether a file in a folder or of a pattern is an input; not asked of named ones.
        what: what an input is called, such as `"picture"`.
        looked_for: what `is_known` takes, for messages: `"looked for .png"`.
    """
    path = Path(name)
    if path.is_dir():
        yield from _in_folder(
            path, recursive, output, is_known, f"{what} in this folder", looked_for
        )
    elif exists(path) or not glob.has_magic(name):
        yield Found(path=path, root=path.parent, named=True)
    else:
        root = _fixed_part(name)
        # Path.glob would go into hidden folders as well.
        matches = sorted(Path(match) for match in glob.glob(name, recursive=True))  # noqa: PTH207
        files = [match for match in matches if is_known(match) and not match.is_dir()]
        if not files:
            problem = f"no {what} matches this pattern; {looked_for}"
            yield Found(path=path, root=root, named=True, problem=problem)
        for file in files:
            yield Found(path=file, root=root, named=False)


def _fixed_part(pattern: str) -> Path:
    """Folder of a pattern before its first wildcard: `photos` of `photos/**/*.jpg`."""
    parts = Path(pattern).parts
    fixed = next(i for i, part in enumerate(parts) if glob.has_magic(part))
    return Path(*parts[:fixed])


def _in_folder(
    folder: Path,
    recursive: bool,
    output: str | Path | None,
    is_known: Callable[[Path], bool],
    missing: str,
    looked_for: str,
) -> Iterator[Found]:
    """Inputs, sorted; hidden folders and the output folder inside it are left out."""
    left_out = None if output is None else os.path.realpath(output)
    problems: list[Found] = []

    def fail(path: Path, text: str) -> None:
        problems.append(Found(path=path, root=folder.parent, named=True, problem=text))

    def note(error: OSError) -> None:
        text = f"the folder cannot be read: {error.strerror}; check its owner and mode"
        fail(Path(error.filename), text)

    count = 0
    for here, folders, files in os.walk(folder, onerror=note):
        folders[:] = sorted(
            name
            for name in folders
            if recursive
            and not name.startswith(".")
            and os.path.realpath(Path(here, name)) != left_out
        )
        for path in (Path(here, name) for name in sorted(files)):
            if is_known(path):
                count += 1
                yield Found(path=path, root=folder, named=False)
    if not count and not problems:
        deeper = "" if recursive else ", not in folders below: for these add --recursive"
        fail(folder, f"there is no {missing}; {looked_for}{deeper}")
    yield from problems


def unique(found: Iterable[Found]) -> list[Found]:
    """Each file once; that the user named it wins over finding it in a folder."""
    kept: dict[str, Found] = {}
    for item in found:
        key = os.path.normpath(item.path.absolute())
        if key not in kept:
            kept[key] = item
        elif item.named and not kept[key].named:
            kept[key] = replace(kept[key], named=True)
    return list(kept.values())


def exists(path: Path) -> bool:
    """Whether the name is taken, if only by a link to nothing."""
    try:
        path.lstat()
    except (OSError, ValueError):  # ValueError: a NUL in the name
        return False
    return True


def identity(path: Path) -> Identity | None:
    """What tells a file from all others on this machine, whatever links lead to it."""
    try:
        facts = path.stat()
    except (OSError, ValueError):
        return None
    return facts.st_dev, facts.st_ino


def identities(paths: Iterable[Path]) -> dict[Identity, Path]:
    """The files that exist, by what tells them apart."""
    return {known: path for path in paths if (known := identity(path)) is not None}


def look_at(target: Path, originals: Mapping[Identity, Path]) -> Standing:
    """What is at the place of a result, and which of the inputs (of `identities`) it is."""
    try:
        target.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return Standing(taken=False)
    except (OSError, ValueError) as error:
        reason = output_reason(error) if isinstance(error, OSError) else str(error)
        return Standing(taken=False, problem=f"'{target}' cannot be written: {reason}")
    known = identity(target)
    return Standing(taken=True, original=None if known is None else originals.get(known))
