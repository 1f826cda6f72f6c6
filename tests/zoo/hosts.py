"""A web server on this machine that misbehaves as it is told."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Page:
    """What is served under one path."""

    content: bytes = b""
    status: int = 200
    kind: str = "application/octet-stream"
    etag: str | None = '"1"'
    ranges: bool = True
    """Whether a part can be asked for."""
    honest: bool = True
    """Whether `If-Range` is obeyed."""
    cuts: list[int] = field(default_factory=list)
    """Bytes of the body after which the connection is cut, one for each request, then never."""
    redirect: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    gate: threading.Event | None = None
    """Waited for after half of the body."""


@dataclass
class Host:
    """The server: its pages, and what it was asked."""

    url: str
    pages: dict[str, Page] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    """Path and headers of every request."""

    def put(self, path: str, content: bytes = b"", **settings: Any) -> str:
        """Serve `content` under `path`; its address."""
        self.pages[path] = Page(content=content, **settings)
        return self.url + path

    def ranges(self) -> list[str | None]:
        """What part each request asked for."""
        return [headers.get("range") for _, headers in self.asked]


def bytes_of(count: int, seed: int = 0) -> bytes:
    """`count` bytes that do not repeat."""
    blocks = (hashlib.sha256(f"{seed}/{i}".encode()).digest() for i in range(count // 32 + 1))
    return b"".join(blocks)[:count]


@contextmanager
def running_host() -> Iterator[Host]:
    """A server on a free port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    server.daemon_threads = True
    host = Host(url=f"http://127.0.0.1:{server.server_address[1]}")
    server.RequestHandlerClass = _handler(host)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield host
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _handler(host: Host) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = {name.lower(): value for name, value in self.headers.items()}
            host.asked.append((self.path, asked))
            page = host.pages.get(self.path, Page(status=404, content=b"no such page"))
            start, status = _part(page, asked)
            body = page.content[start:] if status != 416 else b""
            self.send_response(status)
            if page.redirect:
                self.send_header("Location", page.redirect)
            if page.etag is not None:
                self.send_header("ETag", page.etag)
            for name, value in page.headers.items():
                self.send_header(name, value)
            size = len(page.content)
            if status == 206:
                self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
            if status == 416:
                self.send_header("Content-Range", f"bytes */{size}")
            self.send_header("Content-Type", page.kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            cut = page.cuts.pop(0) if page.cuts else None
            self._send(body if cut is None else body[:cut], page.gate)

        def _send(self, body: bytes, gate: threading.Event | None) -> None:
            half = len(body) // 2 if gate is not None else len(body)
            self.wfile.write(body[:half])
            self.wfile.flush()
            if gate is not None:
                gate.wait(20)
                self.wfile.write(body[half:])

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    return Handler


def _part(page: Page, asked: dict[str, str]) -> tuple[int, int]:
    """First byte and status of the answer."""
    wanted = asked.get("range")
    changed = page.honest and asked.get("if-range", page.etag) != page.etag
    if page.status != 200 or wanted is None or not page.ranges or changed:
        return 0, page.status
    start = int(wanted.removeprefix("bytes=").removesuffix("-"))
    return (start, 206) if start < len(page.content) else (0, 416)
