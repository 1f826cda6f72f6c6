"""Graphs that were made before, by the hash of all that they depend on."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import inspect
import logging
import os
import secrets
from collections.abc import Callable
from pathlib import Path

from torch import nn

import restore

log = logging.getLogger("restore.runtimes")

KEPT = 24
"""Files in the folder; beyond that the oldest go."""
MADE_WITH = ("torch", "onnx", "onnxscript", "onnxruntime")
"""Packages whose versions are part of the hash."""


def cache_folder() -> Path:
    """Where this system keeps what programs can make again; it may not exist."""
    from restore.zoo import cache

    return cache.cache_folder() / "graphs"


def cache_key(net: nn.Module, *about: object) -> str:
    """Hash of a network's weights and code, of the versions that make a graph, and of `about`."""
    digest = hashlib.sha256()
    for name, value in sorted(net.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().numpy().tobytes())
    with contextlib.suppress(OSError, TypeError):  # without the sources, versions must do
        code = [Path(inspect.getfile(type(net))), *sorted(Path(__file__).parent.glob("*.py"))]
        for path in code:
            digest.update(path.read_bytes())
    versions = {name: importlib.metadata.version(name) for name in MADE_WITH}
    digest.update(repr((restore.__version__, sorted(versions.items()), about)).encode())
    return digest.hexdigest()


def remembered(key: str, make: Callable[[], bytes]) -> bytes:
    """The content under `key`, or what `make` returns, which is then kept.

    A damaged file is made again. A folder that cannot be written costs time, and is no error.
    """
    path = cache_folder() / f"{key}.graph"
    content = _read(path)
    if content is not None:
        return content
    content = make()
    try:
        write_whole(path, hashlib.sha256(content).digest() + content)
        _drop_oldest(path.parent)
    except OSError as error:
        log.info("the graph is not kept for the next run: %s", error)
    return content


def _read(path: Path) -> bytes | None:
    """The content of a file after its own hash; None when it is missing or damaged."""
    try:
        stored = path.read_bytes()
    except OSError:
        return None
    digest, content = stored[:32], stored[32:]
    if hashlib.sha256(content).digest() != digest:
        return None
    with contextlib.suppress(OSError):  # it was of use now, and goes last
        os.utime(path)
    return content


def write_whole(path: Path, content: bytes) -> None:
    """Write a file in one step, so that another process sees all of it or nothing.

    Raises:
        OSError: it cannot be written; nothing is left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _drop_oldest(folder: Path) -> None:
    files = sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in files[KEPT:]:
        path.unlink(missing_ok=True)
