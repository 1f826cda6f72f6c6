"""Published weight files that hold more than named tensors: ranks, lists of layers, several nets.

A `.pkl` of nested dictionaries and the safetensors file that is made of it hold the same: the
tensors by their joined names, and the rest as JSON in the text beside them.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from restore.errors import WeightsError
from restore.weights import PICKLE_SUFFIXES, open_weights, read_pickle, save_weights

FORMAT = "restore.nested.v1"
BARE = "tensor"
"""Name of the tensor of a file that holds one tensor and nothing else."""
_SEPARATOR = "/"
_TENSOR = "__tensor__"

Nested = dict[str, Any]
"""Dictionaries with text for keys, lists, numbers, text, None, and tensors."""


def open_nested(path: Path) -> Nested:
    """Read a published pickle, or the safetensors file that `convert` made of one.

    A `.safetensors` file of any other origin gives its tensors by name, and a pickle of a single
    tensor gives it under the name `BARE`.

    Raises:
        WeightsError: missing, empty, damaged, not a weight file, a pickle with code in it, or one
            that holds no dictionary.
    """
    if path.suffix == ".safetensors":
        tensors, text = open_weights(path)
        if text.get("format") != FORMAT:
            return dict(tensors)
        return _put_back(json.loads(text["content"]), tensors)
    content = read_pickle(path)
    if isinstance(content, Tensor):
        content = {BARE: content}
    if not isinstance(content, Mapping):
        raise WeightsError(
            f"{path} holds a {type(content).__name__} instead of named tensors; give a file that "
            "holds a dictionary"
        )
    return {str(key): _plain(value, path) for key, value in content.items()}


def convert(source: Path, target: Path) -> None:
    """Write what a published file holds as safetensors, whole or not at all.

    Raises:
        WeightsError: the file cannot be read.
    """
    save_nested(target, open_nested(source))


def save_nested(target: Path, content: Nested, metadata: Mapping[str, str] | None = None) -> None:
    """Write a content as safetensors, whole or not at all; `metadata` is text beside it."""
    tensors: dict[str, Tensor] = {}
    plain = _take_out(content, "", tensors, set())
    text = {**(metadata or {}), "format": FORMAT, "content": json.dumps(plain)}
    save_weights(target, tensors, text)


def folder_plan(folder: Path, target: Path) -> dict[Path, Path]:
    """Weights of several files as safetensors: each file, and what is made of it.

    Pickles are for `convert`, and what else is named is for `link`.

    Args:
        folder: the files as published.
        target: folder to write; that of the files themselves, or one for all that belongs there:
            safetensors and the configuration in JSON come along.

    Raises:
        WeightsError: there is no pickle in the folder.
    """
    files = sorted(file for file in folder.iterdir() if file.is_file())
    pickles = [file for file in files if file.suffix in PICKLE_SUFFIXES]
    if not pickles:
        raise WeightsError(
            f"{folder} holds nothing to convert; allowed are files that end in "
            f"{', '.join(PICKLE_SUFFIXES)}: give such a file, or the folder that has them"
        )
    plan = {file: target / file.with_suffix(".safetensors").name for file in pickles}
    if target.resolve() != folder.resolve():
        others = (file for file in files if file.suffix in (".safetensors", ".json"))
        plan |= {file: target / file.name for file in others}
    return plan


def link(source: Path, target: Path) -> None:
    """`target` becomes the same file, or a copy on another disk, in one step."""
    temporary = target.with_name(target.name + ".tmp")
    temporary.unlink(missing_ok=True)
    try:
        os.link(source, temporary)
    except OSError:
        shutil.copyfile(source, temporary)
    temporary.replace(target)


def named_tensors(value: Any, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """Every tensor below `value`, with the names on the way to it."""
    if isinstance(value, Tensor):
        yield prefix, value
        return
    items: Any = ()
    if isinstance(value, Mapping):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    for key, inner in items:
        yield from named_tensors(inner, f"{prefix}.{key}" if prefix else str(key))


def content_sha256(content: Nested) -> str:
    """SHA-256 as hex of everything in a file, the same for a pickle and what was converted of it.

    Names, formats, shapes and numbers of the tensors count, and what lies beside them.
    """
    tensors: dict[str, Tensor] = {}
    digest = hashlib.sha256(
        json.dumps(_take_out(content, "", tensors, set()), sort_keys=True).encode()
    )
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def check_finite(path: Path, value: Any) -> None:
    """Find weights that are not numbers before they reach a picture.

    Raises:
        WeightsError: a tensor holds NaN or infinity.
    """
    for name, tensor in named_tensors(value):
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise WeightsError(
                f"{path}: '{name}' holds NaN or infinity; the file is damaged, or its training "
                "failed: fetch it again, or take another checkpoint"
            )


def _plain(value: Any, path: Path) -> Any:
    """`value` without what only PyTorch knows: parameters become tensors, tuples lists."""
    if isinstance(value, Tensor):
        return value.detach()
    if isinstance(value, Mapping):
        return {str(key): _plain(inner, path) for key, inner in value.items()}
    if isinstance(value, list | tuple | set):
        inner = sorted(value) if isinstance(value, set) else value
        return [_plain(one, path) for one in inner]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise WeightsError(
        f"{path} holds a {type(value).__name__}, which is no part of weights; get the file that "
        "its authors publish"
    )


def _take_out(value: Any, name: str, tensors: dict[str, Tensor], places: set[int]) -> Any:
    """`value` with each tensor replaced by its name; the tensors go into `tensors`, and where they
    lie into `places`."""
    if isinstance(value, Tensor):
        # Two names for one memory, as tied weights have, cannot be stored twice by safetensors.
        place = value.untyped_storage().data_ptr()
        tensors[name] = value.clone() if place in places else value
        places.add(place)
        return {_TENSOR: name}
    if isinstance(value, dict):
        return {
            key: _take_out(inner, name + _SEPARATOR + key if name else key, tensors, places)
            for key, inner in value.items()
        }
    if isinstance(value, list):
        return [
            _take_out(one, f"{name}{_SEPARATOR}{i}", tensors, places) for i, one in enumerate(value)
        ]
    return value


def _put_back(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(value, dict):
        if set(value) == {_TENSOR}:
            return tensors[value[_TENSOR]]
        return {key: _put_back(inner, tensors) for key, inner in value.items()}
    if isinstance(value, list):
        return [_put_back(one, tensors) for one in value]
    return value
