"""The methods, one line each: name -> "module:Class". Nothing is imported until it is asked for."""

from __future__ import annotations

import difflib
import importlib
from typing import TYPE_CHECKING, cast

from restore.errors import OptionError

if TYPE_CHECKING:
    from restore.codec.contract import Codec
    from restore.method import Method

METHODS: dict[str, str] = {
    "compact": "restore.models.compact:Compact",
    "compact-x2": "restore.models.compact:CompactX2",
    "compact-fast": "restore.models.compact:CompactFast",
    "compact-fast-x2": "restore.models.compact:CompactFastX2",
    "adcsr": "restore.models.adcsr:AdcSR",
    "dloral": "restore.models.dloral:DLoRAL",
    "flashvsr": "restore.models.flashvsr:FlashVSR",
    "flashvsr-1.1": "restore.models.flashvsr:FlashVSR11",
    "invsr": "restore.models.invsr:InvSR",
    "osediff": "restore.models.osediff:OSEDiff",
    "osediff-face": "restore.models.osediff:OSEDiffFace",
    "s3diff": "restore.models.s3diff:S3Diff",
}

DEFAULT_METHOD = "compact"

CODECS: dict[str, str] = {
    "compact-codec": "restore.models.compact_codec:CompactCodec",
    "oscar": "restore.models.oscar:Oscar",
}
"""The codecs of `restore compress`, likewise."""

DEFAULT_CODEC = "compact-codec"


def method_class(name: str) -> type[Method]:
    """Class of the method `name`.

    Raises:
        OptionError: no method has that name; the nearest name is offered.
    """
    return cast("type[Method]", _class_of(name, METHODS, "model"))


def codec_class(name: str) -> type[Codec]:
    """Class of the codec `name`.

    Raises:
        OptionError: no codec has that name; the nearest name is offered.
    """
    return cast("type[Codec]", _class_of(name, CODECS, "codec"))


def _class_of(name: str, table: dict[str, str], kind: str) -> object:
    try:
        path = table[name]
    except KeyError:
        near = difflib.get_close_matches(name, table, n=1)
        guess = f"did you mean '{near[0]}'? " if near else ""
        raise OptionError(
            f"unknown {kind} '{name}'; {guess}known {kind}s: {', '.join(sorted(table))}; "
            "run 'restore models list' to see what each does"
        ) from None
    module, _, attribute = path.partition(":")
    return getattr(importlib.import_module(module), attribute)


def variant_for(name: str, scale: float) -> str:
    """The variant of a method whose own scale is the least that reaches `scale`, or its largest.

    Raises:
        OptionError: no method has that name.
    """
    spec = method_class(name).spec
    scales = {name: spec.scale, **{v: method_class(v).spec.scale for v in spec.variants}}
    enough = [variant for variant in scales if scales[variant] >= scale]
    if enough:
        return min(enough, key=lambda variant: scales[variant])
    return max(scales, key=lambda variant: scales[variant])
