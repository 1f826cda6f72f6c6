"""Weight files: find them, read them safely, name them by their hash.

Safetensors only hold numbers. A `.pth` or `.pkl` is a pickle, which can hold code: it is read
with `weights_only=True`, so that a file with anything but tensors in it is refused.
"""

from __future__ import annotations

import contextlib
import hashlib
import pickle
import re
import zipfile
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from restore.errors import OutputError, WeightsError

ASSETS = Path(__file__).resolve().parent / "assets"
PICKLE_SUFFIXES = (".pth", ".pt", ".pkl", ".ckpt", ".bin")
_END = 1 << 16


def packaged_weights(name: str) -> Path:
    """Path of the weights of `name` in the package; it may not exist.

    Raises:
        WeightsError: the package carries none under that name.
    """
    path = ASSETS / f"{name}.safetensors"
    if not path.is_file():
        raise WeightsError(
            f"the package holds no weights for '{name}' ({path.name} is missing); "
            "install restore again, or give a file with --weights"
        )
    return path


def open_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors of a weight file by name, and the text stored beside them.

    A `.safetensors` file is mapped, not copied. Of a pickle, the dictionary under `params_ema`,
    `params` or `state_dict` is taken when there is one, as BasicSR writes it.

    Raises:
        WeightsError: missing, empty, damaged, not a weight file, or a pickle with code in it.
    """
    check_readable(path)
    if path.suffix == ".safetensors":
        with _safe_file(path) as file:
            names = list(file.keys())
            return {name: file.get_tensor(name) for name in names}, file.metadata() or {}
    if path.suffix in PICKLE_SUFFIXES:
        return _open_pickle(path), {}
    raise WeightsError(
        f"{path} is not a weight file by its name; allowed: .safetensors, "
        f"{', '.join(PICKLE_SUFFIXES)}"
    )


def open_metadata(path: Path) -> dict[str, str]:
    """The text stored beside the tensors, without reading them; empty for a pickle.

    Raises:
        WeightsError: as `open_weights`, as far as the head of the file tells.
    """
    check_readable(path)
    if path.suffix != ".safetensors":
        return open_weights(path)[1]
    with _safe_file(path) as file:
        return file.metadata() or {}


def save_weights(path: Path, state: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write tensors and text as safetensors, whole or not at all.

    Raises:
        OutputError: no space, no permission.
    """
    temporary = path.with_name(path.name + ".tmp")
    tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    try:
        temporary.touch()  # with the rights of new files here; safetensors gives none to others
        rights = temporary.stat().st_mode
        save_file(tensors, temporary, metadata)
        temporary.chmod(rights)
        temporary.replace(path)
    except (OSError, SafetensorError) as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise OutputError(
            f"{path} cannot be written ({error}); make room, or give another name"
        ) from error


@contextlib.contextmanager
def _safe_file(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise WeightsError(
            f"{path} is not a readable safetensors file ({error}); it is damaged or cut "
            "short: fetch it again"
        ) from error


@lru_cache(maxsize=32)
def _sha256(path: Path, size: int, modified: int) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def sha256(path: Path) -> str:
    """SHA-256 of a file as hex, remembered while its size and time stay the same."""
    stat = path.stat()
    return _sha256(path, stat.st_size, stat.st_mtime_ns)


def fingerprint(folder: Path) -> str:
    """What tells a folder of weights apart from others: names, sizes, and the ends of its files.

    Gigabytes are not read: the first and the last 64 KiB of each file count, in which the names of
    a safetensors file and its last numbers lie.
    """
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        size = path.stat().st_size
        digest.update(f"{path.relative_to(folder).as_posix()} {size}\n".encode())
        with path.open("rb") as file:
            digest.update(file.read(_END))
            file.seek(max(0, size - _END))
            digest.update(file.read(_END))
    return digest.hexdigest()


def check_readable(path: Path) -> None:
    """Raise WeightsError unless `path` is a file that can hold weights."""
    if not path.exists():
        raise WeightsError(f"no weight file at {path}; give an existing file with --weights")
    if path.is_dir():
        raise WeightsError(f"{path} is a folder; give the weight file itself with --weights")
    try:
        with path.open("rb") as file:
            head = file.read(200)
    except OSError as error:
        raise WeightsError(
            f"{path} cannot be read ({error.strerror}); check its permissions"
        ) from error
    if not head:
        raise WeightsError(f"{path} is empty; fetch it again")
    if head.startswith(b"version https://git-lfs"):
        raise WeightsError(
            f"{path} is a Git LFS pointer, not the weights; run 'git lfs pull' in its repository"
        )
    if head.lstrip()[:1] == b"<":
        raise WeightsError(f"{path} is a web page, not weights; the download failed: try again")


def read_pickle(path: Path) -> Any:
    """What a pickle holds: tensors, numbers, text, and lists and dictionaries of them.

    Raises:
        WeightsError: missing, empty, damaged, not a weight file, or a pickle with code in it.
    """
    check_readable(path)
    try:
        # Mapped, not read: a training checkpoint holds several GB that nobody asks for.
        mapped = zipfile.is_zipfile(path)
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        # Not PyTorch's own words: they tell how to load it all the same.
        found = re.search(r"GLOBAL (\S+)", str(error))
        what = f" (it calls '{found[1]}')" if found else ""
        raise WeightsError(
            f"{path} was refused: it is damaged, or a pickle that holds code, which could do "
            f"anything on this machine{what}; allowed are files of tensors only: get a "
            "safetensors file from its authors"
        ) from error
    except (RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        # The first sentence; PyTorch says three.
        said = re.split(r"\.\s|\n", str(error).strip())[0]
        reason = said or type(error).__name__
        raise WeightsError(
            f"{path} cannot be read as weights ({reason}); it is damaged or cut short: "
            "fetch it again"
        ) from error


def _open_pickle(path: Path) -> dict[str, Tensor]:
    content = read_pickle(path)
    for key in ("params_ema", "params", "state_dict"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
            break
    if not isinstance(content, dict):
        raise WeightsError(
            f"{path} holds a {type(content).__name__} instead of named tensors; give a file "
            "that holds a state dict"
        )
    return {str(k): v for k, v in content.items() if isinstance(v, Tensor)}
