"""Runs the engine on a thread of its own, and gives what the page shows meanwhile and then."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import gradio as gr

from restore.apps.demo.desk import Desk, Job
from restore.apps.demo.words import problem, progress, without_paths
from restore.errors import RestoreError, WorkStopped

log = logging.getLogger("restore.demo")

COOKIE = "restore_demo"
CANCELLED = "Cancelled."

_LOOK = 0.2  # seconds between two looks at a job


@dataclass(frozen=True, kw_only=True, slots=True)
class Shown:
    """What a finished job puts on the page."""

    status: str
    """HTML of the status line."""
    values: tuple[Any, ...]
    """Values of the other widgets of the tab, in their order."""


@dataclass(kw_only=True, slots=True)
class _Outcome:
    ended: threading.Event = field(default_factory=threading.Event)
    shown: Shown | None = None
    error: str = CANCELLED


def play(
    desk: Desk,
    request: gr.Request,
    *,
    tab: str,
    blank: tuple[Any, ...],
    work: Callable[[Job], Shown],
) -> Iterator[tuple[Any, ...]]:
    """Do the work of a tab, and say how far it is.

    Args:
        desk: the server's files.
        request: tells the page.
        tab: name of the tab; it has one job at a time.
        blank: what the widgets for the result hold until there is one.
        work: on a thread of its own, when the device is free. RestoreError is told to the user.

    Yields:
        The status line and the values of those widgets.
    """
    session, browser = page_of(request)
    job = desk.job(session, browser, tab)
    unchanged = [gr.skip()] * len(blank)
    outcome = _Outcome()
    thread = threading.Thread(
        target=_work, args=(desk, job, work, outcome), name="restore-demo", daemon=True
    )
    thread.start()
    text = None
    try:
        yield (progress(None, "Waiting for its turn …"), *blank)
        while not outcome.ended.wait(_LOOK):
            if job.text != text:
                text = job.text
                yield (progress(job.fraction, text), *unchanged)
    finally:
        if not outcome.ended.is_set():  # cancelled, or the page is gone
            job.stop()
    if outcome.shown is None:
        yield (problem(outcome.error), *unchanged)
    else:
        yield (outcome.shown.status, *outcome.shown.values)


def page_of(request: gr.Request) -> tuple[str, str]:
    """Session and browser of a request."""
    return str(request.session_hash), str(request.cookies.get(COOKIE, ""))


def _work(desk: Desk, job: Job, work: Callable[[Job], Shown], outcome: _Outcome) -> None:
    """Body of the thread."""
    try:
        with job.work(), desk.turn(job):
            outcome.shown = work(job)
    except WorkStopped:
        pass
    except RestoreError as error:
        outcome.error = without_paths(str(error), root=str(desk.root))
    except MemoryError:
        outcome.error = "There is not enough memory for it; try a smaller file or scale."
    except BaseException as error:
        log.exception("a job failed")
        outcome.error = (
            f"Something went wrong here ({type(error).__name__}); the server's log says more."
        )
    finally:
        outcome.ended.set()
