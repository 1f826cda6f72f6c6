"""Exceptions that a user can meet.

Each message is one line and says three things: what was got, what is allowed, what to do.
The command line prints the line alone; `--debug` adds the trace.
"""


class RestoreError(Exception):
    """Base of every error that restore raises on purpose."""


class OptionError(RestoreError, ValueError):
    """A setting is outside what is allowed (scale 0, tile 3, an unknown model)."""


class InputError(RestoreError):
    """An input file is missing, empty, damaged, of another kind, or too large."""


class OutputError(RestoreError):
    """The result cannot be written: no space, no permission, a name that is taken."""


class WeightsError(RestoreError):
    """A weight file is missing, of another model, damaged, or unsafe to read."""


class MissingExtraError(RestoreError, ImportError):
    """An optional dependency is not installed; the message names the command that brings it."""


class DamagedTailError(InputError):
    """A clip ends early because its data is damaged; everything before that point was kept."""


def require_extra(module: str, extra: str) -> object:
    """Import `module`, or say which extra of this package installs it.

    Args:
        module: importable name, such as `"basicsr"`.
        extra: name of the optional-dependency group in `pyproject.toml`.

    Raises:
        MissingExtraError: the module is not installed.
    """
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(
            f"{module} is not installed ({error}); it belongs to the extra '{extra}': "
            f"run pip install 'restore[{extra}]'"
        ) from error
