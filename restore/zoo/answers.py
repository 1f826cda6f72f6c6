"""What the answer of a server says: whether the file follows, how large it is, and which it is."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from requests import Response

_TRANSIENT = (408, 425, 429, 500, 502, 503, 504)


class RefusedError(Exception):
    """This address does not have the file; nor has the `host`, when that cannot be reached."""

    def __init__(self, reason: str, *, host: bool = False) -> None:
        super().__init__(reason)
        self.host = host


class BrokenError(Exception):
    """Something that may go well the next time; `wait` seconds if the server said so."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


def check_status(response: Response) -> None:
    """Find out from the status that nothing of use follows.

    Raises:
        RefusedError: the file is not to be had here.
        BrokenError: it may be later.
    """
    status = response.status_code
    if status in (200, 206):
        return
    if status in _TRANSIENT:
        wait = response.headers.get("Retry-After", "")
        raise BrokenError(f"HTTP {status}", float(wait) if wait.isdigit() else 0.0)
    hints = {401: "not there, or it wants a login: HF_TOKEN", 403: "it wants a login: HF_TOKEN"}
    hint = hints.get(status)
    raise RefusedError(f"HTTP {status}" + (f", {hint}" if hint else ""))


def check_head(head: bytes, response: Response) -> None:
    """Find out from its first bytes that something else than the file came.

    Raises:
        RefusedError: a web page, or a pointer to the file.
    """
    if head.startswith(b"version https://git-lfs"):
        raise RefusedError("it sent a Git LFS pointer instead of the file")
    kind = response.headers.get("Content-Type", "").lower()
    start = head[:200].lstrip().lower()
    if kind.startswith("text/html") or start.startswith((b"<!doctype", b"<html")):
        raise RefusedError("it sent a web page instead of the file")


def whole_size(response: Response) -> int | None:
    """Size of the whole file, as the answer tells it."""
    match = re.search(r"/(\d+)$", response.headers.get("Content-Range", ""))
    if match is not None:
        return int(match[1])
    length = response.headers.get("Content-Length", "")
    plain = response.headers.get("Content-Encoding", "identity") == "identity"
    return int(length) if response.status_code == 200 and length.isdigit() and plain else None


def identity(response: Response) -> dict[str, str]:
    """What tells this content from a later one under the same address."""
    found = {}
    tag = response.headers.get("ETag", "")
    validator = tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified")
    if validator:
        found["validator"] = validator
    # The hub states the SHA-256 of large files on the way to where they are stored.
    for answer in (*response.history, response):
        stated = answer.headers.get("X-Linked-ETag", "").strip('"').lower()
        if re.fullmatch(r"[0-9a-f]{64}", stated):
            found["sha256"] = stated
    return found


def first_line(error: BaseException) -> str:
    """The innermost reason of an error of the network, in one line."""
    while error.__cause__ is not None or error.__context__ is not None:
        inner = error.__cause__ or error.__context__
        assert inner is not None
        error = inner
    text = " ".join(str(error).split()) or type(error).__name__
    return text[:200]
