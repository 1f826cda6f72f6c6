"""What the user gave, and what is found in its place: options of a method, its base, its tagger."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from pathlib import Path
from typing import Any, cast

from restore.config import EngineConfig
from restore.errors import OptionError, WeightsError
from restore.method import OPTIONS, Method, MethodSpec, Tunable
from restore.zoo.locate import locate_base, locate_weights

log = logging.getLogger("restore.engine")


def tune(method: Method, config: EngineConfig) -> None:
    """Hand the options that the user gave to a method.

    Raises:
        OptionError: the method has no such option.
    """
    given = given_options(config)
    for name in given:
        if name not in method.spec.options:
            can = ", ".join(map(_flag, method.spec.options)) or "none"
            raise OptionError(
                f"model '{method.spec.name}' has no {_flag(name)}; its options: {can}; leave "
                f"{_flag(name)} out or choose another model with -n"
            )
    if given:
        cast(Tunable, method).tune(**given)


def given_options(config: EngineConfig) -> dict[str, Any]:
    """Options of the method that were given, by the name of their field in `MethodOptions`."""
    values = {option: getattr(config, option) for option in OPTIONS}
    return {
        name: value for name, value in values.items() if value is not None and value is not False
    }


def _flag(option: str) -> str:
    return "--" + option.replace("_", "-")


def base_folder(spec: MethodSpec, config: EngineConfig) -> Path | None:
    """Folder of the pretrained model: the user's, or the pulled one; None when none is needed.

    Raises:
        OptionError: one was given, but the method needs none.
        WeightsError: one is needed, and there is none.
    """
    if not spec.base:
        if config.base is not None:
            raise OptionError(f"model '{spec.name}' stands on no other model; leave --base out")
        return None
    return locate_base(spec.base) if config.base is None else Path(config.base)


def with_tagger(spec: MethodSpec, config: EngineConfig) -> EngineConfig:
    """`config` with the pulled tagger, where the method can use one and the user named none."""
    if "tagger" not in spec.options or config.tags is not None:
        return config
    found: dict[str, Any] = {}
    for option, name in (("tagger", "ram"), ("tagger_adapter", "dape")):
        if getattr(config, option) is None and config.tagger != "none":
            with contextlib.suppress(WeightsError):
                found[option] = str(locate_weights(name))
    config = dataclasses.replace(config, **found)
    if config.tagger is None and config.prompt is None:
        log.warning(
            "model '%s' restores better with tags: run 'restore models pull ram dape' to let a "
            "tagger find them, or give --tags, --tags-file or --prompt",
            spec.name,
        )
    return config
