"""Where weights lie on this machine; nothing is fetched here."""

from __future__ import annotations

from pathlib import Path

from restore.errors import WeightsError
from restore.weights import packaged_weights
from restore.zoo.cache import Shelf
from restore.zoo.entries import ENTRIES, find_entry
from restore.zoo.pull import locate_on, say_missing


def locate_weights(model: str) -> Path:
    """Weight file of the method or part `model`, or the folder of its files where an entry of the
    zoo says so: in the package, or pulled.

    A pickle that was converted when it was pulled is found as a safetensors file;
    `restore.nested_weights.open_nested` reads both.

    Raises:
        WeightsError: there is none; the message names the file and the command that gets it.
    """
    try:
        return packaged_weights(model)
    except WeightsError:
        if model not in ENTRIES:
            raise
    return _pulled(model, flag="--weights")


def locate_base(name: str) -> Path:
    """Folder of the pretrained model `name`, as diffusers writes it.

    Raises:
        WeightsError: it is not here, or not whole; the message names the command that gets it.
        OptionError: there is no entry of that name.
    """
    return _pulled(name, flag="--base")


def locate(name: str) -> Path:
    """Where the entry or method `name` lies: a file, or a folder for a base.

    Raises:
        WeightsError: it is not here, or not whole.
    """
    is_base = name in ENTRIES and ENTRIES[name].kind == "base"
    return locate_base(name) if is_base else locate_weights(name)


def _pulled(name: str, *, flag: str) -> Path:
    shelf = Shelf(find_entry(name))
    if shelf.missing():
        raise WeightsError(f"{say_missing(shelf)}, and give its place with {flag}")
    return locate_on(shelf)
