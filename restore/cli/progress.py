"""How far the work is: a bar on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

LINE_SECONDS = 5.0
"""Time between two lines where there is no terminal."""


class Meter:
    """Shows on stderr how far the work is, from the first `update` until `close`.

    Args:
        unit: what is counted, such as `frames`.
        shown: False = nothing at all, as with `--json`.
    """

    def __init__(self, unit: str, *, shown: bool = True) -> None:
        self.unit = unit
        self._shown = shown
        self._bar: tuple[Progress, TaskID] | None = None
        self._last_line = time.monotonic()

    def update(self, done: int, total: int | None, *, note: str = "") -> None:
        """Say that `done` of `total` units are finished; None = nobody knows how many there are."""
        if not self._shown:
            return
        if sys.stderr.isatty() or self._bar is not None:
            self._bar = self._bar or _start_bar()
            progress, task = self._bar
            text = f"{count(done, total)} {self.unit}"
            progress.update(task, completed=done, total=total, description=text, note=note)
        elif time.monotonic() - self._last_line >= LINE_SECONDS:
            self._last_line = time.monotonic()
            click.echo(f"{count(done, total)} {self.unit}{note and f', {note}'}", err=True)

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar[0].stop()
            self._bar = None


def count(done: int, total: int | None) -> str:
    """`12 of 75`, or `12` where the end is not known."""
    return f"{done}" if total is None else f"{done} of {total}"


def _start_bar() -> tuple[Progress, TaskID]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    progress = Progress(
        BarColumn(),
        TextColumn("{task.description}", markup=False),
        TextColumn("{task.fields[note]}", markup=False),
        console=Console(stderr=True),
        transient=True,
    )
    progress.start()
    return progress, progress.add_task("", note="")
