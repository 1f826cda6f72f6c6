"""Ctrl-C and SIGTERM between two steps instead of in the middle of one."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def signals_held() -> Iterator[Callable[[], None]]:
    """While inside, the first signal waits; a second one acts at once.

    Yields:
        A function that lets a waiting signal act, with the handler that was there before.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None  # handlers belong to the main thread, which takes the signal there
        return
    before: dict[int, Any] = {int(number): signal.getsignal(number) for number in SIGNALS}
    waiting: list[int] = []

    def hold(number: int, frame: FrameType | None) -> None:
        if waiting:
            signal.signal(number, before[number])
            signal.raise_signal(number)
        waiting.append(number)

    def release() -> None:
        if waiting:
            signal.signal(waiting[0], before[waiting[0]])
            signal.raise_signal(waiting[0])

    for number in SIGNALS:
        signal.signal(number, hold)
    try:
        yield release
    finally:
        for own, handler in before.items():
            signal.signal(own, handler)
