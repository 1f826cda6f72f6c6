"""Files one after another, of which a bad one never stops the others."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from restore.errors import RestoreError
from restore.image.events import Done, Event, Failed, ImageReport, Planned, Skipped
from restore.memory import is_out_of_memory


@dataclass(kw_only=True, slots=True)
class Batch:
    """One call over many files: tells events and keeps the report."""

    on_event: Callable[[Event], None] | None
    total: int
    report: ImageReport = field(default_factory=ImageReport)

    def settle(
        self,
        name: str,
        work: Callable[[], Event],
        *,
        verdict: str,
        reason: str,
        log: logging.Logger,
        memory_hint: str,
    ) -> None:
        """Bring one file to its end; only KeyboardInterrupt and its like come out.

        Args:
            name: what the report calls it.
            work: does it, or says what it would do.
            verdict: run, skip or fail, as it was planned.
            reason: why, for the last two.
            log: where traces go.
            memory_hint: what to do when memory does not suffice.
        """
        if verdict == "skip":
            self.tell(Skipped(source=name, reason=reason))
        elif verdict == "fail":
            self.tell(Failed(source=name, message=one_line(reason)))
        else:
            try:
                event = work()
            except Exception as error:  # one bad file must not stop the others
                log.debug("%s failed", name, exc_info=True)
                message = explain(error, memory_hint=memory_hint).removeprefix(f"'{name}': ")
                event = Failed(source=name, message=one_line(message))
            self.tell(event)

    def tell(self, event: Event) -> None:
        """Put an event into the report, and hand it on."""
        report = self.report
        if isinstance(event, Done):
            report.done.append(event)
        elif isinstance(event, Planned):
            report.planned.append(event)
        elif isinstance(event, Skipped):
            report.skipped.append(event)
        elif isinstance(event, Failed):
            report.failed.append((event.source, event.message))
        if self.on_event is not None:
            self.on_event(event)


def explain(error: Exception, *, memory_hint: str) -> str:
    """Why a file failed."""
    if is_out_of_memory(error):
        return f"not enough memory for it; {memory_hint}"
    if isinstance(error, RestoreError):
        return str(error)
    if isinstance(error, OSError):
        return f"{error.strerror or error}; check the disk and try again"
    return f"unexpected {type(error).__name__}: {error}; add --debug to see where"


def one_line(text: str) -> str:
    """Text without line breaks, and without the halves of characters in broken file names."""
    return " ".join(text.split()).encode("utf-8", "backslashreplace").decode("utf-8")
