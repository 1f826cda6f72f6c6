"""What the tests of the page share."""

from __future__ import annotations

import socket

UPLOAD_LIMIT = 2_000_000
"""Largest upload of the page under test, in bytes."""
QUEUE = 6
"""Jobs that may wait there."""


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
