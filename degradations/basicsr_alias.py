"""The one place where BasicSR is imported: its 1.4.2 asks for a module that torchvision has lost.

`torchvision.transforms.functional_tensor` went away in torchvision 0.17; what BasicSR wants of it,
`rgb_to_grayscale`, lives in `torchvision.transforms.functional`. That module is entered under the
old name first. Nothing of ours needs BasicSR: it is the oracle of our own kernels and noise.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType

from restore.errors import MissingExtraError, install_command

_LOST = "torchvision.transforms.functional_tensor"
_HEIR = "torchvision.transforms.functional"


def basicsr_degradations() -> ModuleType:
    """The module `basicsr.data.degradations`.

    Raises:
        MissingExtraError: BasicSR, or something that it needs, is not installed.
    """
    try:
        if _LOST not in sys.modules and importlib.util.find_spec(_LOST) is None:
            sys.modules[_LOST] = importlib.import_module(_HEIR)
        return importlib.import_module("basicsr.data.degradations")
    except ImportError as error:
        raise MissingExtraError(
            f"BasicSR cannot be imported ({error}); it is part of an extra: "
            f"run {install_command('metrics')}"
        ) from error
