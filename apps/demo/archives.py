"""Uploaded sets of files: as they are, or in ZIP archives that are not trusted in anything."""

from __future__ import annotations

import shutil
import stat
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from restore.errors import InputError

_CHUNK = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class ArchiveLimits:
    """What an archive may hold."""

    files: int = 2000
    """Number of files."""
    bytes: int = 1 << 30
    """Bytes of all files together, counted as they come out."""


def gather(
    uploads: Sequence[Path],
    folder: Path,
    *,
    limits: ArchiveLimits,
    check: Callable[[], None] = lambda: None,
) -> None:
    """Put uploaded files, and what is in uploaded archives, into one folder.

    Args:
        uploads: files; those that end `.zip` are unpacked.
        folder: made here.
        limits: what may come out.
        check: called now and then; ends the work by raising.

    Raises:
        InputError: an archive is damaged, locked, too large, or names a place outside the folder.
    """
    folder.mkdir()
    for upload in uploads:
        if upload.suffix.lower() == ".zip":
            _unpack(upload, folder, limits, check)
        else:
            shutil.copyfile(upload, _free(folder / upload.name))


def _unpack(archive: Path, folder: Path, limits: ArchiveLimits, check: Callable[[], None]) -> None:
    left = limits.bytes
    try:
        with zipfile.ZipFile(archive) as opened:
            members = [item for item in opened.infolist() if not item.is_dir()]
            if len(members) > limits.files:
                raise InputError(
                    f"{archive.name} holds {len(members)} files, more than {limits.files}; "
                    "send fewer at a time"
                )
            paths = _without_common_folder([_inner(archive, item) for item in members])
            targets = [folder / path for path in paths]
            for item, target in zip(members, targets, strict=True):
                check()
                target.parent.mkdir(parents=True, exist_ok=True)
                with opened.open(item) as packed, _free(target).open("xb") as plain:
                    while data := packed.read(_CHUNK):
                        left -= len(data)  # headers can lie about sizes
                        if left < 0:
                            raise InputError(
                                f"{archive.name} unpacks to more than {limits.bytes >> 20} MiB; "
                                "send less at a time"
                            )
                        plain.write(data)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, ValueError) as error:
        raise InputError(
            f"{archive.name} cannot be unpacked ({' '.join(str(error).split())}); "
            "send a plain ZIP archive without a password"
        ) from error
    except OSError as error:
        raise InputError(
            f"{archive.name} cannot be unpacked ({error.strerror}); use shorter, plain names"
        ) from error


def _inner(archive: Path, item: zipfile.ZipInfo) -> PurePosixPath:
    """Where a member goes in the folder.

    Raises:
        InputError: that is outside the folder, or the member is no plain file.
    """
    name = item.filename.replace("\\", "/")
    path = PurePosixPath(name)
    kind = stat.S_IFMT(item.external_attr >> 16)
    plain = kind in (0, stat.S_IFREG)
    if not plain or path.is_absolute() or ":" in name or ".." in path.parts or not path.parts:
        raise InputError(
            f"{archive.name} holds '{name[:80]}', which is not a file inside it; "
            "send an archive of plain files with relative names"
        )
    return path


def _without_common_folder(paths: list[PurePosixPath]) -> list[PurePosixPath]:
    """Paths without the one folder that all are in, as when that folder was packed."""
    if paths and all(len(path.parts) > 1 and path.parts[0] == paths[0].parts[0] for path in paths):
        return [PurePosixPath(*path.parts[1:]) for path in paths]
    return paths


def _free(path: Path) -> Path:
    """The path, if nothing is there yet.

    Raises:
        InputError: there is.
    """
    if path.exists():
        raise InputError(f"two files are named '{path.name}'; give them different names")
    return path
