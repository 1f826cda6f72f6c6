"""What can be trained, one line each: name -> "module:Class". Imported when it is asked for."""

from __future__ import annotations

import difflib
import importlib
from typing import TYPE_CHECKING, cast

from restore.errors import OptionError

if TYPE_CHECKING:
    from restore.training.recipe import Recipe

RECIPES: dict[str, str] = {
    "compact": "restore.training.compact:CompactTraining",
    "compact-codec": "restore.training.compact_codec:CodecTraining",
    "compact-clip": "restore.training.compact_clip:CompactClipTraining",
    "oscar": "restore.training.oscar:OscarTraining",
    "oscar-hyper": "restore.training.oscar_hyper:OscarHyperTraining",
}

DEFAULT_RECIPE = "compact"


def recipe_class(name: str) -> type[Recipe]:
    """Class of the recipe `name`.

    Raises:
        OptionError: there is none; the nearest name is offered.
    """
    try:
        path = RECIPES[name]
    except KeyError:
        near = difflib.get_close_matches(name, RECIPES, n=1)
        guess = f"did you mean '{near[0]}'? " if near else ""
        raise OptionError(
            f"field 'recipe' is '{name}'; {guess}known recipes: {', '.join(sorted(RECIPES))}"
        ) from None
    module, _, attribute = path.partition(":")
    return cast("type[Recipe]", getattr(importlib.import_module(module), attribute))
