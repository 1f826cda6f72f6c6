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


class WorkStopped(BaseException):
    """A caller's own callback breaks the work off with this.

    Not an `Exception`, so that what goes on after a bad file does not take it for one: it comes out
    of the job as it was raised, and nothing half-written stays behind.
    """


def install_command(extra: str) -> str:
    """The command that brings the optional dependencies of the group `extra`."""
    return f"pip install '.[{extra}]' in the folder of restore's source code"
