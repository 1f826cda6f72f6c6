"""Frozen dataclasses out of plain YAML values, checked field by field."""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Iterable
from dataclasses import field
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from restore.errors import InputError, OptionError

T = TypeVar("T")


def read_yaml(path: Path) -> Any:
    """Content of a YAML file.

    Raises:
        InputError: it cannot be read, or is not YAML.
    """
    import yaml

    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); give a YAML file") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        line = " ".join(str(error).split())
        raise InputError(f"{path} is not valid YAML ({line}); correct it") from error


class FileText(str):
    """A text out of a recipe file; it remembers the folder that a path in it is relative to."""

    base: Path

    @classmethod
    def of(cls, text: str, base: Path) -> FileText:
        """`text` as written in a file that lies in `base`."""
        marked = cls(text)
        marked.base = base
        return marked


def mark_paths(content: Any, base: Path) -> Any:
    """The same content, each text in it remembering `base`."""
    if isinstance(content, dict):
        return {key: mark_paths(value, base) for key, value in content.items()}
    if isinstance(content, list):
        return [mark_paths(value, base) for value in content]
    return FileText.of(content, base) if isinstance(content, str) else content


def path_field(**settings: Any) -> Any:
    """A dataclass field with the path of a file or folder, relative to the recipe that names it."""
    return field(metadata={"path": True}, **settings)


def build(kind: type[T], content: Any, *, where: str = "") -> T:
    """A dataclass of type `kind` from plain YAML values.

    Args:
        kind: dataclass whose fields are numbers, texts, booleans, `Literal`s, tuples, dicts,
            dataclasses, or unions of them.
        content: dict of field names and values.
        where: name of the field that holds it, for the messages; empty at the top.

    Raises:
        OptionError: a field is unknown, missing or of the wrong kind; its full name is said.
    """
    if not isinstance(content, dict):
        raise OptionError(
            f"{where or 'the recipe'} is a {type(content).__name__}; write fields as 'name: value'"
        )
    hints = get_type_hints(kind)
    fields = {f.name: f for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for name in content:
        if name not in fields:
            raise OptionError(_unknown(_join(where, str(name)), str(name), fields))
    for name, f in fields.items():
        required = f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        if required and name not in content:
            raise OptionError(f"field '{_join(where, name)}' is missing; add it to the recipe")
    values = {}
    for name, value in content.items():
        if fields[name].metadata.get("path"):
            value = _absolute(value)
        values[name] = convert(hints[name], value, where=_join(where, name))
    return kind(**values)


def _unknown(full: str, name: str, allowed: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(allowed), n=1)
    guess = f"did you mean '{near[0]}'? " if near else ""
    return f"unknown field '{full}'; {guess}allowed: {', '.join(allowed)}"


def _absolute(value: Any) -> Any:
    if isinstance(value, FileText):
        return str((value.base / value).resolve())
    if isinstance(value, list):
        return [_absolute(item) for item in value]
    return value


def _join(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


def convert(kind: Any, value: Any, *, where: str) -> Any:
    """`value` as an object of the annotation `kind`.

    Raises:
        OptionError: it is of another kind.
    """
    origin = get_origin(kind)
    if kind is Any:
        return value
    if origin in (Union, types.UnionType):
        return _convert_union(get_args(kind), value, where=where)
    if origin is Literal:
        return _convert_literal(get_args(kind), value, where=where)
    if dataclasses.is_dataclass(kind):
        return build(typing.cast(type, kind), value, where=where)
    if origin is tuple:
        return _convert_tuple(get_args(kind), value, where=where)
    if origin is dict:
        return _convert_dict(get_args(kind), value, where=where)
    return _convert_plain(kind, value, where=where)


def _convert_plain(kind: Any, value: Any, *, where: str) -> Any:
    if kind is float and isinstance(value, int | float | str) and not isinstance(value, bool):
        try:
            number = float(value)  # YAML 1.1 reads 1e-3 as text
        except (ValueError, OverflowError):
            number = math.nan
        if math.isfinite(number):
            return number
        if not isinstance(value, str):
            raise OptionError(f"field '{where}' is {value!r}; give a finite number")
        # the error below names the field
    elif kind is type(None) and value is None:
        return None
    elif kind is str and isinstance(value, str):
        return str(value)
    elif isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
        return value
    raise OptionError(f"field '{where}' is {value!r}; it must be of type {kind.__name__}")


def _convert_union(kinds: tuple[Any, ...], value: Any, *, where: str) -> Any:
    """The first kind that takes the value; with one kind beside None, its message is the best."""
    if value is None and type(None) in kinds:
        return None
    kinds = tuple(kind for kind in kinds if kind is not type(None))
    if int in kinds and isinstance(value, int) and not isinstance(value, bool):
        return value
    fitting = [kind for kind in kinds if _looks_like(kind, value)]
    if len(fitting) == 1 or len(kinds) == 1:
        return convert((fitting or kinds)[0], value, where=where)
    for kind in fitting:
        try:
            return convert(kind, value, where=where)
        except OptionError:
            continue
    names = " or ".join(_name(kind) for kind in kinds)
    raise OptionError(f"field '{where}' is {value!r}; it must be of type {names}")


def _looks_like(kind: Any, value: Any) -> bool:
    """Whether a value has the outer form that `kind` is written in."""
    origin = get_origin(kind)
    if dataclasses.is_dataclass(kind) or origin is dict:
        return isinstance(value, dict)
    if origin is tuple:
        return isinstance(value, list)
    return not isinstance(value, dict | list)


def _name(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return " | ".join(repr(choice) for choice in get_args(kind))
    if get_origin(kind) is tuple:
        return "list"
    return "fields" if dataclasses.is_dataclass(kind) else str(getattr(kind, "__name__", kind))


def _convert_literal(choices: tuple[Any, ...], value: Any, *, where: str) -> Any:
    for choice in choices:
        if value == choice and isinstance(value, type(choice)):
            return choice
    allowed = ", ".join(str(choice) for choice in choices)
    raise OptionError(f"field '{where}' is {value!r}; allowed: {allowed}")


def _convert_dict(kinds: tuple[Any, ...], value: Any, *, where: str) -> Any:
    if not isinstance(value, dict):
        raise OptionError(f"field '{where}' is {value!r}; write it as 'name: value'")
    return {
        convert(kinds[0], k, where=where): convert(kinds[1], v, where=_join(where, str(k)))
        for k, v in value.items()
    }


def _convert_tuple(kinds: tuple[Any, ...], value: Any, *, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise OptionError(f"field '{where}' is {value!r}; it must be a list")
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        kinds = (kinds[0],) * len(value)
    if len(kinds) != len(value):
        raise OptionError(f"field '{where}' has {len(value)} values; it must have {len(kinds)}")
    return tuple(
        convert(k, v, where=f"{where}[{i}]")
        for i, (k, v) in enumerate(zip(kinds, value, strict=True))
    )
