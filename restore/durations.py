"""Seconds as people write them."""

from __future__ import annotations

from restore.errors import OptionError


def parse_time(text: str) -> float:
    """Seconds in `text`: `"12.5"`, `"1:30"` or `"01:02:03.25"`.

    Raises:
        OptionError: it is not a time, or negative.
    """
    try:
        parts = [float(part) for part in text.split(":")]
    except ValueError:
        parts = []
    seconds = 0.0
    for part in parts:
        seconds = 60 * seconds + part
    if not 1 <= len(parts) <= 3 or any(not 0 <= part < float("inf") for part in parts):
        raise OptionError(f"'{text}' is not a time; write seconds (12.5) or HH:MM:SS (00:01:30)")
    return seconds


def clock(seconds: float) -> str:
    """`0:07`, `12:30` or `1:02:03`."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
