"""Tags of pictures from files, so that nobody needs the tagger: what `--tags-file` reads.

    FOLDER/NAME.txt         "a, b, c", or a prompt that OSEDiff saved: "a, b, c, ,"
    FILE.json               {"NAME": "a, b, c", ...}, or with lists: {"NAME": ["a", "b", "c"]}
    FILE.tsv, FILE.txt      a line per picture: NAME<TAB>a, b, c

NAME is that of the picture without its suffix.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from restore.config import ImageConfig, VideoConfig
from restore.errors import InputError, OptionError
from restore.method import MethodSpec

_FORMS = "a folder of NAME.txt, a .json object NAME: tags, or a .tsv of lines NAME<TAB>tags"


@dataclass(frozen=True, kw_only=True, slots=True)
class TagsFile:
    """Tags of many pictures."""

    path: Path
    """Where they were read."""
    by_stem: dict[str, str]
    """Tags, joined by ", ", by name without suffix; empty = the picture has none."""

    def of(self, stem: str) -> str:
        """Tags of the picture `stem`.

        Raises:
            InputError: the file does not name it.
        """
        tags = self.by_stem.get(_plain(stem))
        if tags is None:
            some = ", ".join(f"'{name}'" for name in sorted(self.by_stem)[:3])
            raise InputError(
                f"no tags for '{stem}' in {self.path}, which has {some} "
                f"({len(self.by_stem)} in all); add them, or leave out --tags-file"
            )
        return tags


def tags_of(config: ImageConfig | VideoConfig, spec: MethodSpec) -> TagsFile | None:
    """The tags file that the settings name.

    Raises:
        InputError: it cannot be read.
        OptionError: the method takes no tags.
    """
    if config.tags_file is None:
        return None
    if "tags" not in spec.options:
        raise OptionError(
            f"model '{spec.name}' takes no tags; leave --tags-file out or choose another with -n"
        )
    return read_tags(Path(config.tags_file))


def read_tags(path: Path) -> TagsFile:
    """Read tags from a folder or a file.

    Raises:
        InputError: it is missing, empty, of another form, not UTF-8, or names a picture twice.
    """
    if not path.exists():
        raise InputError(f"no tags at {path}; give {_FORMS}")
    by_stem: dict[str, str] = {}
    for stem, tags in _entries(path):
        name = _plain(stem)
        if name in by_stem:
            raise InputError(f"{path} has tags for '{stem}' twice; keep one of them")
        by_stem[name] = tags
    if not by_stem:
        raise InputError(f"{path} holds no tags; give {_FORMS}")
    return TagsFile(path=path, by_stem=by_stem)


def _entries(path: Path) -> Iterator[tuple[str, str]]:
    if path.is_dir():
        return ((file.stem, _saved_prompt(_text(file))) for file in sorted(path.glob("*.txt")))
    if path.suffix.lower() == ".json":
        return _json_entries(path)
    if path.suffix.lower() in (".tsv", ".txt"):
        return _line_entries(path)
    raise InputError(f"{path} is no tags file by its name; allowed: {_FORMS}")


def _json_entries(path: Path) -> Iterator[tuple[str, str]]:
    try:
        pairs: Any = json.loads(_text(path), object_pairs_hook=_Pairs)
    except ValueError as error:
        raise InputError(f"{path} is not JSON ({error}); correct it") from error
    if not isinstance(pairs, _Pairs):
        raise InputError(f"{path} holds no JSON object; write NAME: tags pairs in braces")
    for stem, tags in pairs:
        if isinstance(tags, list) and not isinstance(tags, _Pairs):
            if all(isinstance(tag, str) for tag in tags):
                yield stem, ", ".join(tag.strip() for tag in tags)
                continue
        elif isinstance(tags, str):
            yield stem, tags.strip()
            continue
        raise InputError(f"{path}: tags of '{stem}' are no text; write \"a, b, c\"")


class _Pairs(list[tuple[str, Any]]):
    """A JSON object whose keys may repeat, which a dictionary would hide."""


def _line_entries(path: Path) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        stem, tab, tags = line.partition("\t")
        if not tab or not stem.strip():
            raise InputError(f"{path}, line {number}: no tab after a name; write NAME<TAB>a, b, c")
        yield stem.strip(), tags.strip()


def _saved_prompt(text: str) -> str:
    """Tags of a prompt as OSEDiff saves it: `tags, words of the user,`, without the end.

    Most often there were no words of the user, which leaves ", ,".
    """
    text = " ".join(text.split())
    for end in (", ,", ","):
        if text.endswith(end):
            return text.removesuffix(end).strip()
    return text


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not text in UTF-8; save it as that") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); check it") from error


def _plain(stem: str) -> str:
    """One spelling of names with accents; file systems and editors differ."""
    return unicodedata.normalize("NFC", stem)
