"""The door of the server: what a browser may ask for, and what it is told.

It stands between gradio and the network, because gradio serves more than this page needs, puts the
absolute paths of files into what it sends, and gives any file to whoever knows its path.

- Only addresses that the page uses are there.
- A browser gets and names its own files only; it is known by a cookie.
- In what goes out, the path of the server's folder is replaced by another text of the same length,
  and the other way round in what comes in.
- An upload that is too large is refused before it is stored.
"""

from __future__ import annotations

import json
import re
import secrets
import shutil
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import quote

from starlette.formparsers import MultiPartException

from restore.apps.demo.desk import Desk
from restore.apps.demo.jobs import COOKIE
from restore.apps.demo.words import size as size_text

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

API = "/gradio_api/"
_EXACT = {
    *("/", "/config", "/theme.css", "/favicon.ico", "/manifest.json", "/robots.txt"),
    *("/login", "/logout"),
    *(
        API + name
        for name in (
            *("upload", "upload_progress", "queue/join", "queue/data", "cancel", "reset"),
            *("startup-events", "login_check", "user", "token", "app_id", "theme.css"),
            "run/predict",
        )
    ),
}
_BELOW = ("/assets/", "/static/", "/svelte/", API + "heartbeat/", API + "file=")
_FILE = API + "file="
_UPLOAD = API + "upload"

_JSON_BYTES = 1 << 20  # of a request that is no upload
_FORM_BYTES = 1 << 16  # around the files of an upload
_UPLOADS_HELD = 10  # times the largest upload, for each browser
_DRAINED = 4  # times the largest upload
_FREE_BYTES = 1 << 30  # of the disk, that uploads leave alone
_TEXT = (b"text/html", b"application/json", b"text/event-stream")
_TOKEN = re.compile(r"[A-Za-z0-9_-]{32,64}")

_POLICY = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval'",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "media-src 'self' blob:",
        "font-src 'self' data:",
        "worker-src 'self' blob:",
        "frame-ancestors 'none'",
        "base-uri 'self'",
        "form-action 'self'",
    )
)
"""Nothing is loaded from elsewhere, whatever a new version of gradio would like to."""
_HEADERS = [
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]


class RefusedError(Exception):
    """A request that is answered with a status and one line."""

    def __init__(self, status: int, line: str) -> None:
        super().__init__(line)
        self.status = status
        self.line = line


class Guard:
    """ASGI middleware.

    Args:
        app: what is guarded.
        desk: the server's files.
        upload_bytes: largest upload.
    """

    def __init__(self, app: App, desk: Desk, upload_bytes: int) -> None:
        self._app = app
        self._desk = desk
        self._upload_bytes = upload_bytes
        self._root = str(desk.root)
        self._alias = alias_of(self._root)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return  # nothing here speaks another protocol
        browser = _browser_of(scope)
        reply = _Reply(send, root=self._root, alias=self._alias)
        if browser is None:
            browser = secrets.token_urlsafe(24)
            reply.cookie = browser
        body = _Body(receive)
        try:
            checked = await self._checked(scope, body, reply, browser)
            await self._app(scope, checked, reply)
        except RefusedError as refused:
            await body.drain(_DRAINED * self._upload_bytes)
            await reply.refuse(refused)

    async def _checked(
        self, scope: Message, receive: Receive, reply: _Reply, browser: str
    ) -> Receive:
        """The request's body, after all that can be checked."""
        path: str = scope["path"]
        if len(path) > 1:
            path = path.rstrip("/")
        if path not in _EXACT and not path.startswith(_BELOW):
            raise RefusedError(404, "There is nothing at this address.")
        if path.startswith(_FILE):
            self._translate(scope, browser)
        if scope["method"] != "POST":
            return receive
        if reply.cookie is not None and path != "/login":
            raise RefusedError(403, "Open the page first; it sets a cookie that is needed here.")
        if path == _UPLOAD:
            self._check_room(scope, browser)
            reply.on_upload = lambda name: self._desk.claim(name, browser)
            # Of this kind, because gradio then removes what it has stored of the upload.
            error = MultiPartException(self._too_large().line)
            return _limited(receive, self._upload_bytes + _FORM_BYTES, error)
        return await self._checked_json(scope, receive, browser)

    def _translate(self, scope: Message, browser: str) -> None:
        """Turn the address of a file into its path, if the file is the browser's own."""
        wanted = scope["path"].removeprefix(_FILE)
        inner = wanted.removeprefix(self._alias + "/")
        if inner == wanted or not self._desk.owns(inner, browser):
            raise RefusedError(404, "There is no such file, or not any more.")
        scope["path"] = f"{_FILE}{self._root}/{inner}"
        scope["raw_path"] = quote(scope["path"]).encode()

    def _check_room(self, scope: Message, browser: str) -> None:
        length = _header(scope, b"content-length")
        if length is not None and length.isdigit():
            if int(length) > self._upload_bytes + _FORM_BYTES:
                raise self._too_large()
            if self._desk.held_by(browser) + int(length) > _UPLOADS_HELD * self._upload_bytes:
                raise RefusedError(413, "Too many files were sent; close the page and open it.")
        if shutil.disk_usage(self._root).free < self._upload_bytes + _FREE_BYTES:
            raise RefusedError(507, "The server's disk is full; try again later.")

    def _too_large(self) -> RefusedError:
        limit = size_text(self._upload_bytes)
        return RefusedError(413, f"This is above the maximum allowed size of {limit}.")

    async def _checked_json(self, scope: Message, receive: Receive, browser: str) -> Receive:
        """A body in which all files are the browser's own, with their true paths."""
        limited = _limited(receive, _JSON_BYTES, RefusedError(413, "The request is too large."))
        parts, more = [], True
        while more:
            message = await limited()
            if message["type"] != "http.request":
                return _replay(b"", receive)
            parts.append(message.get("body", b""))
            more = message.get("more_body", False)
        body = b"".join(parts)
        if scope["path"].startswith(API) and body:
            try:
                content = json.loads(body)
            except (ValueError, RecursionError):
                raise RefusedError(400, "The request is not JSON.") from None
            self._check_files(content, browser)
            body = json.dumps(content).replace(self._alias, self._root).encode()
            scope["headers"] = [
                (name, str(len(body)).encode() if name == b"content-length" else value)
                for name, value in scope["headers"]
            ]
        return _replay(body, receive)

    def _check_files(self, content: object, browser: str) -> None:
        """Raise RefusedError when a request names a file that is not the browser's."""
        for path in _paths_in(content):
            inner = path.removeprefix(self._alias + "/")
            if inner == path or not self._desk.owns(inner, browser):
                raise RefusedError(403, "There is no such file, or not any more.")


class _Body:
    """Receives a request, and knows whether it has come to its end."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._ended = False

    async def __call__(self) -> Message:
        message = await self._receive()
        self._ended = message["type"] != "http.request" or not message.get("more_body", False)
        return message

    async def drain(self, most: int) -> None:
        """Let the rest pass by, of a refused upload: many clients read no answer before its end."""
        while not self._ended and most > 0:
            most -= len((await self()).get("body", b""))


class _Reply:
    """Sends what the app answers: with the headers, without the server's paths."""

    def __init__(self, send: Send, *, root: str, alias: str) -> None:
        self._send = send
        self._root, self._alias = root.encode(), alias.encode()
        self._is_text = False
        self._begun = False
        self._status = 0
        self._body = b""
        self.cookie: str | None = None
        self.on_upload: Callable[[str], None] | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._begun = True
            self._status = message["status"]
            headers = [pair for pair in message.get("headers", ()) if pair[0] != b"server"]
            kind = next((value for name, value in headers if name == b"content-type"), b"")
            self._is_text = kind.startswith(_TEXT)
            message = {**message, "headers": [*headers, *_HEADERS, *self._set_cookie()]}
        elif message["type"] == "http.response.body" and self._is_text:
            body = message.get("body", b"")
            if self.on_upload is not None and self._status == 200:
                self._note_upload(body, last=not message.get("more_body", False))
            message = {**message, "body": body.replace(self._root, self._alias)}
        await self._send(message)

    async def refuse(self, refused: RefusedError) -> None:
        """Answer with one line, unless an answer has begun."""
        if self._begun:
            return
        body = json.dumps({"detail": refused.line, "error": refused.line}).encode()
        await self(
            {
                "type": "http.response.start",
                "status": refused.status,
                "headers": [
                    (b"content-type", b"application/json"),
                    (b"content-length", str(len(body)).encode()),
                    (b"connection", b"close"),
                ],
            }
        )
        await self({"type": "http.response.body", "body": body})

    def _set_cookie(self) -> Iterator[tuple[bytes, bytes]]:
        if self.cookie is not None:
            text = f"{COOKIE}={self.cookie}; Path=/; HttpOnly; SameSite=Strict"
            yield b"set-cookie", text.encode()

    def _note_upload(self, body: bytes, *, last: bool) -> None:
        """Note whose the files are, before their names go out."""
        self._body += body
        if last and self.on_upload is not None:
            start = self._root.decode() + "/"
            for path in json.loads(self._body):
                if path.startswith(start):
                    self.on_upload(path.removeprefix(start).split("/")[0])


def alias_of(root: str) -> str:
    """The text that stands for the path of the server's folder: as long, and says nothing.

    Lengths are in headers already when a text is replaced.
    """
    length = len(root.encode())
    return "/files".ljust(length, "-") if length >= 6 else "/" * length


def _paths_in(content: object, depth: int = 0) -> Iterator[str]:
    """All that a request says is the path of a file."""
    if depth > 20:
        raise RefusedError(400, "The request is nested too deeply.")
    if isinstance(content, dict):
        if isinstance(content.get("path"), str):
            yield content["path"]
        for value in content.values():
            yield from _paths_in(value, depth + 1)
    elif isinstance(content, list):
        for value in content:
            yield from _paths_in(value, depth + 1)


def _browser_of(scope: Message) -> str | None:
    """The browser's token, from its cookie."""
    try:
        jar = SimpleCookie((_header(scope, b"cookie") or b"").decode("latin-1"))
    except CookieError:
        return None
    found = jar.get(COOKIE)
    return found.value if found is not None and _TOKEN.fullmatch(found.value) else None


def _header(scope: Message, name: bytes) -> bytes | None:
    return next((value for key, value in scope["headers"] if key == name), None)


def _limited(receive: Receive, most: int, error: Exception) -> Receive:
    """The body, as long as it is not longer than `most` bytes, whatever its headers said."""
    seen = 0

    async def limited() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > most:
            raise error
        return message

    return limited


def _replay(body: bytes, receive: Receive) -> Receive:
    """The body that was read, and then what else comes: the end of the connection."""
    sent = False

    async def replay() -> Message:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
