"""The outer shell of the program: exit status, error lines, log lines, signals.

Exit status: 0 all went well, 1 something failed, 2 the command was used wrongly, 130 Ctrl-C.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any

import click

from restore.cli.options import HelpfulGroup, Session
from restore.errors import OptionError, RestoreError

FAILED = 1
MISUSED = 2
INTERRUPTED = 130  # 128 + SIGINT, as shells count
TERMINATED = 143  # 128 + SIGTERM


class App(HelpfulGroup):
    """The top command: every error becomes one line and an exit status."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run the program; leave it with its exit status, or return that."""
        session = Session()

        def run() -> Any:
            return super(App, self).main(
                args, prog_name or "restore", complete_var, False, obj=session, **extra
            )

        status = guard(run, session)
        if standalone_mode:
            sys.exit(status)
        return status


def guard(run: Callable[[], Any], session: Session) -> int:
    """Call `run` and turn what it raises into a line on stderr and an exit status."""
    try:
        with logging_to_stderr(session):
            status = int(run() or 0)
            sys.stdout.flush()  # a closed pipe shows here, not at the exit
            return status
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return MISUSED
    except click.UsageError as error:
        said = " ".join(error.format_message().split()).rstrip(".")
        page = f"see '{error.ctx.command_path} --help'" if error.ctx else ""
        say_error(session, f"{said}{'' if said.endswith('?') else ';'} {page}", error)
        return MISUSED
    except OptionError as error:
        say_error(session, str(error), error)
        return MISUSED
    except RestoreError as error:
        say_error(session, str(error), error)
        return FAILED
    except (KeyboardInterrupt, click.Abort):
        say_stopped(session, "interrupted")
        return INTERRUPTED
    except SystemExit as error:
        if error.code == TERMINATED:
            say_stopped(session, "terminated")
        raise
    except BrokenPipeError:
        # The reader is gone. What Python flushes at its exit must not raise again.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as error:
        line = (str(error).strip() or "no message").splitlines()[0]
        more = "" if session.debug else "; add --debug to see where"
        say_error(session, f"unexpected {type(error).__name__}: {line}{more}", error)
        return FAILED


def say_error(session: Session, line: str, error: BaseException) -> None:
    """One line on stderr, the trace above it with `--debug`, an object on stdout with `--json`."""
    if session.debug:
        traceback.print_exception(error)
    click.echo(f"restore: error: {line}", err=True)
    if session.json:
        say_json({"event": "error", "kind": type(error).__name__, "message": line})


def say_stopped(session: Session, how: str) -> None:
    """One line on stderr: work was broken off, and how it goes on."""
    hint = f"; {session.resume_hint}" if session.resume_hint else ""
    click.echo(f"restore: {how}{hint}", err=True)


def say_json(content: dict[str, Any]) -> None:
    """One JSON object on a line of stdout, at once. ASCII, so that any locale can write it."""
    click.echo(json.dumps(content, default=str))


class _StderrHandler(logging.Handler):
    """Writes to what `sys.stderr` is at that time: a progress bar puts itself in between."""

    def emit(self, record: logging.LogRecord) -> None:
        click.echo(self.format(record), file=sys.stderr)


@contextlib.contextmanager
def logging_to_stderr(session: Session) -> Iterator[None]:
    """Warnings of restore go to stderr; with `--verbose` what it chooses, with `--debug` all."""
    log = logging.getLogger("restore")
    before = log.level, log.propagate
    handler = _StderrHandler()
    handler.setFormatter(_LineFormatter())
    handler.addFilter(lambda record: record.levelno >= _threshold(session))
    log.addHandler(handler)
    log.setLevel(logging.DEBUG)  # the options that choose are read later
    log.propagate = False
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(before[0])
        log.propagate = before[1]


def _threshold(session: Session) -> int:
    if session.debug:
        return logging.DEBUG
    return logging.INFO if session.verbose else logging.WARNING


class _LineFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        level = "" if record.levelno == logging.INFO else f"{record.levelname.lower()}: "
        trace = f"\n{self.formatException(record.exc_info)}" if record.exc_info else ""
        return f"restore: {level}{record.getMessage()}{trace}"


def exit_on_sigterm() -> None:
    """Let SIGTERM leave through the same doors as Ctrl-C, so that no half file stays behind."""

    def leave(_: int, __: FrameType | None) -> None:
        raise SystemExit(TERMINATED)

    signal.signal(signal.SIGTERM, leave)
