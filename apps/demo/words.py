"""What the page says: how far the work is, what came out, and errors without the server's paths."""

from __future__ import annotations

import html
import re

_PATH = re.compile(r"(?<![\w/.:<])~?/(?:[^/\s'\",;:()]+/)*([^/\s'\",;:()]+)/?")
"""An absolute path in a sentence, and its last part; addresses (`https://`) are left alone."""


def without_paths(text: str, *, root: str = "") -> str:
    """`text` with each path of the server cut down to the name of its file."""
    if root:
        text = re.sub(re.escape(root) + r"/[^/]*/", "", text)
    return _PATH.sub(r"\1", text)


def progress(fraction: float | None, text: str) -> str:
    """A bar and a line, as HTML."""
    width = 0.0 if fraction is None else 100 * min(1.0, max(0.0, fraction))
    return (
        f'<div class="status" role="status"><div class="bar"><div style="width:{width:.1f}%">'
        f"</div></div><p>{html.escape(text)}</p></div>"
    )


def done(*lines: str) -> str:
    """What came out, the first line as the main one, as HTML."""
    first, *rest = lines
    notes = "".join(f"<p class='note'>{html.escape(line)}</p>" for line in rest)
    return f'<div class="status done" role="status"><p>{html.escape(first)}</p>{notes}</div>'


def problem(text: str) -> str:
    """Why there is no result, as HTML."""
    return f'<div class="status problem" role="alert"><p>{html.escape(text)}</p></div>'


def size(count: int) -> str:
    """`911 bytes`, `20.3 kB` or `1.2 MB`."""
    for unit, name in ((10**6, "MB"), (10**3, "kB")):
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count} bytes"


def sides(width: int, height: int) -> str:
    """`640x480`."""
    return f"{width}x{height}"
