"""Which result belongs to which reference: by name and folder, never by position.

A result pairs with the reference of the same relative path without suffix. Where there is none, it
pairs with the longest reference name that begins its own, if what follows is an ending that
programs add (`_x4`, `_out`, `_sr`, ...), or one that all such results of its method share; or with
the one that has the same name once such endings (`_HR`, `_gt`, ...) are taken off both. What is
left, or fits twice, is listed and not measured.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from restore.codec.plan import CODED_SUFFIXES
from restore.degrading.plan import CLIP_SUFFIXES
from restore.errors import InputError, OptionError
from restore.image.batch import one_line
from restore.image.plan import PICTURE_SUFFIXES

FileKind = Literal["picture", "clip"]

_ENDING = re.compile(
    r"[_.-](x\d+(\.\d+)?|\d+x|\d+x\d+|\d+p|[hls]r[x]?\d*|gt|lq|hq|in|out|rlt|result|restored"
    r"|fake|rec|recon|decoded|upscaled)$",
    re.IGNORECASE,
)
_SEPARATORS = "_-."
_MOST_NAMED = 3  # names in one message


@dataclass(frozen=True, kw_only=True, slots=True)
class Method:
    """One set of results."""

    name: str
    """As the report calls it."""
    root: Path
    """Folder, or file."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """A result and its reference."""

    method: str
    """Name of its method."""
    key: str
    """What the pair is called: the reference's relative path without suffix."""
    kind: FileKind
    """Picture or clip."""
    restored: Path
    """The result."""
    reference: Path | None
    """The true picture or clip; None = the report has none."""

    @property
    def coded(self) -> bool:
        """The result is a picture in a format that is chosen for its few bytes."""
        suffix = self.restored.suffix.lower()
        return suffix in CODED_SUFFIXES or suffix in (".jpg", ".jpeg", ".webp", ".avif")


@dataclass(frozen=True, kw_only=True, slots=True)
class Unpaired:
    """A file that nothing was measured of."""

    where: str
    """`reference`, or the method."""
    name: str
    """Relative path."""
    reason: str
    """Why, one line."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Found:
    path: Path
    name: str
    """Relative path with suffix, as text that can be printed."""
    key: str
    """Relative path without suffix, composed as Unicode wants it."""
    kind: FileKind


def parse_methods(given: Sequence[str]) -> list[Method]:
    """The results to judge, from `NAME=PATH` or `PATH`.

    Raises:
        OptionError: none was given, or two have one name.
        InputError: a path does not exist.
    """
    if not given:
        raise OptionError("nothing to measure was given; add --restored FOLDER")
    methods = []
    for text in given:
        name, sign, path = text.partition("=")
        if not sign or not name or Path(text).exists():
            name, path = "", text
        root = Path(path)
        _check_there(root)
        methods.append(Method(name=name.strip() or printable(root.resolve().name), root=root))
    twice = [name for name, count in Counter(m.name for m in methods).items() if count > 1]
    if twice:
        raise OptionError(
            f"two sets of results are called '{twice[0]}'; give each its own name, such as "
            f"--restored a={methods[0].root}"
        )
    return methods


def plan_pairs(
    methods: Sequence[Method], reference: Path | None
) -> tuple[list[Pair], list[Unpaired]]:
    """What to measure, and what has no counterpart.

    Raises:
        InputError: a folder holds nothing to measure, or not one name fits.
    """
    truth = None if reference is None else _list(reference, "the reference")
    pairs: list[Pair] = []
    unpaired: list[Unpaired] = []
    for method in methods:
        results = _list(method.root, f"'{method.name}'")
        if truth is None:
            own, left = _alone(method, results)
        elif reference is not None and reference.is_file() and method.root.is_file():
            own, left = _two_files(method, results[0], truth[0])
        else:
            own, left = _matched(method, results, truth)
        pairs += own
        unpaired += left
        if truth is not None and not own:
            raise InputError(_nothing_fits(method, results, truth, left))
    return pairs, unpaired


def printable(name: str) -> str:
    """A name that any file can hold, whatever bytes it is made of."""
    return one_line(name) or "results"


def _check_there(path: Path) -> None:
    if not path.exists():
        raise InputError(f"'{path}' does not exist; check the name and the folder")


def _list(root: Path, what: str) -> list[_Found]:
    """Pictures and clips of a folder and the folders in it, sorted; hidden ones are left out."""
    _check_there(root)
    if not root.is_dir():
        found = _found(root, Path(root.name))
        if found is None:
            raise InputError(f"'{root}' is no picture or clip by its ending; give one, or a folder")
        return [found]
    results = []
    for here, folders, files in os.walk(root, onerror=_refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            path = Path(here, name)
            found = None if name.startswith(".") else _found(path, path.relative_to(root))
            if found is not None:
                results.append(found)
    if not results:
        raise InputError(f"{what} ({root}) holds no picture and no clip; check the folder")
    return results


def _refuse(error: OSError) -> None:
    """Means over what happens to be readable would be taken for those of the whole."""
    raise InputError(
        f"the folder '{error.filename}' cannot be read ({error.strerror}); check its owner and mode"
    ) from error


def _found(path: Path, relative: Path) -> _Found | None:
    suffix = path.suffix.lower()
    if suffix not in PICTURE_SUFFIXES | CODED_SUFFIXES | CLIP_SUFFIXES:
        return None
    kind: FileKind = "clip" if suffix in CLIP_SUFFIXES else "picture"
    name = printable(relative.as_posix())
    # A Mac stores an accented letter as two signs, others as one.
    key = unicodedata.normalize("NFC", printable(relative.with_suffix("").as_posix()))
    return _Found(path=path, name=name, key=key, kind=kind)


def _alone(method: Method, results: Sequence[_Found]) -> tuple[list[Pair], list[Unpaired]]:
    """Results without references, called by their names without endings where that is unique."""
    plain = Counter(core(found.key) for found in results)
    whole = Counter(found.key for found in results)
    pairs, left = [], []
    for found in results:
        key = core(found.key)
        if plain[key] > 1:
            key = found.key
        if whole[key] > 1:
            left.append(_twice(method.name, found))
            continue
        pairs.append(_pair(method, found, None, key))
    return pairs, left


def _two_files(method: Method, result: _Found, true: _Found) -> tuple[list[Pair], list[Unpaired]]:
    """One file against one file: a pair, whatever they are called."""
    if result.kind != true.kind:
        raise InputError(
            f"'{result.name}' is a {result.kind} and '{true.name}' a {true.kind}; give two of a "
            "kind"
        )
    return [_pair(method, result, true, true.key)], []


def _matched(
    method: Method, results: Sequence[_Found], truth: Sequence[_Found]
) -> tuple[list[Pair], list[Unpaired]]:
    by_key, left = _unique(truth, "reference")
    own, more = _unique(results, method.name)
    left += more
    taken = {key: [own[key]] for key in own if key in by_key}
    rest = [found for key, found in own.items() if key not in by_key]
    claims: dict[str, list[_Found]] = defaultdict(list)
    for found, key in _guesses(rest, by_key):
        if key is None:
            left.append(_left(method.name, found, "there is no reference of that name"))
        elif key in taken:
            reason = f"the reference {key} is that of {taken[key][0].name} already"
            left.append(_left(method.name, found, reason))
        else:
            claims[key].append(found)
    for key, several in claims.items():
        if len(several) > 1:
            text = ", ".join(found.name for found in several[:_MOST_NAMED])
            reason = f"it fits the reference {key}, and so do others ({text})"
            left += [_left(method.name, found, reason) for found in several]
        taken[key] = several
    pairs = []
    for key, true in by_key.items():
        if key not in taken:
            left.append(_left("reference", true, f"'{method.name}' has no result for it"))
        elif len(taken[key]) > 1:
            left.append(_left("reference", true, f"several results of '{method.name}' fit it"))
        elif taken[key][0].kind != true.kind:
            reason = f"it is a {taken[key][0].kind}, and its reference a {true.kind}"
            left.append(_left(method.name, taken[key][0], reason))
        else:
            pairs.append(_pair(method, taken[key][0], true, key))
    return pairs, left


def _guesses(rest: Sequence[_Found], by_key: dict[str, _Found]) -> list[tuple[_Found, str | None]]:
    """For each result whose very name is not there the reference that its name means."""
    cores: dict[str, list[str]] = defaultdict(list)
    for key in by_key:
        cores[core(key)].append(key)
    begun = {found.key: _longest_begin(found.key, by_key) for found in rest}
    endings = {key[len(begin) :] for key, begin in begun.items() if begin is not None}
    shared = len(endings) == 1 and not any(ending[1:].isdigit() for ending in endings)
    guesses: list[tuple[_Found, str | None]] = []
    for found in rest:
        begin, same = begun[found.key], cores[core(found.key)]
        if begin is not None and (shared or _is_ending(found.key, begin)):
            guesses.append((found, begin))
        else:
            guesses.append((found, same[0] if len(same) == 1 else None))
    return guesses


def _longest_begin(key: str, by_key: Iterable[str]) -> str | None:
    """The longest reference name in the same folder that `key` goes on from."""
    known = by_key if isinstance(by_key, dict) else set(by_key)
    start = key.rfind("/") + 1
    for end in range(len(key) - 1, start, -1):
        if key[end] in _SEPARATORS and key[:end] in known:
            return key[:end]
    return None


def _is_ending(key: str, begin: str) -> bool:
    """Whether all that follows `begin` is endings that programs add."""
    while len(key) > len(begin):
        shorter = _ENDING.sub("", key)
        if shorter == key:
            return False
        key = shorter
    return key == begin


def core(key: str) -> str:
    """A name without the endings that programs and data sets add: `a/b_HR` -> `a/b`."""
    while True:
        shorter = _ENDING.sub("", key)
        if shorter == key or not shorter or shorter.endswith("/"):
            return key
        key = shorter


def _unique(files: Sequence[_Found], where: str) -> tuple[dict[str, _Found], list[Unpaired]]:
    """Files by key, without those that share one."""
    counts = Counter(found.key for found in files)
    left = [_twice(where, found) for found in files if counts[found.key] > 1]
    return {found.key: found for found in files if counts[found.key] == 1}, left


def _twice(where: str, found: _Found) -> Unpaired:
    return _left(where, found, "another file there has the same name but for its ending")


def _left(where: str, found: _Found, reason: str) -> Unpaired:
    return Unpaired(where=where, name=found.name, reason=reason)


def _pair(method: Method, found: _Found, true: _Found | None, key: str) -> Pair:
    return Pair(
        method=method.name,
        key=key,
        kind=found.kind,
        restored=found.path,
        reference=None if true is None else true.path,
    )


def _nothing_fits(
    method: Method, results: Sequence[_Found], truth: Sequence[_Found], left: Sequence[Unpaired]
) -> str:
    if all("same name" in one.reason for one in left if one.where == method.name) and left:
        return f"no result of '{method.name}' has a name of its own; {left[0].reason}"
    return (
        f"none of the {len(results)} results of '{method.name}' has the name of one of the "
        f"{len(truth)} references (such as {results[0].name} and {truth[0].name}); name them alike"
    )
