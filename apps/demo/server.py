"""Serves the page until it is stopped, and leaves no file behind."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.middleware import Middleware

from restore.apps.demo.desk import Desk
from restore.apps.demo.engines import Engines
from restore.apps.demo.guard import Guard
from restore.apps.demo.page import build_page, look
from restore.apps.demo.parts import Server
from restore.demo_config import LOCAL_HOSTS, DemoConfig, parse_auth
from restore.errors import OutputError
from restore.folder_lock import LOCK, FolderLock

log = logging.getLogger("restore.demo")

FOLDER = "restore-demo-"
"""Beginning of the name of the server's folder, in the system's folder for temporary files."""

_SWEEP = 60.0  # seconds between two looks for what was left behind
_KEEP = 1800.0  # seconds that it is kept

_ENVIRONMENT = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "GRADIO_ALLOWED_PATHS": "",
    "GRADIO_SHARE": "False",
    "GRADIO_RUN_HISTORY": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}


def serve(config: DemoConfig, *, ready: Callable[[str], None] | None = None) -> None:
    """Serve the page, until Ctrl-C or SIGTERM.

    Args:
        config: settings; `auth` is what the caller found, in the environment too.
        ready: called with the page's address once it can be opened.

    Raises:
        OutputError: the address is taken or not this machine's.
    """
    with running(config) as site:
        if config.auth is None and config.host not in LOCAL_HOSTS:
            log.warning(
                "every machine that reaches %s can use this page; add --auth USER:PASSWORD "
                "to ask for a password",
                config.host,
            )
        if ready is not None:
            ready(site.address)
        threading.Event().wait()


@dataclass(frozen=True, kw_only=True, slots=True)
class Site:
    """A page that is served."""

    address: str
    """Where a browser finds it."""
    desk: Desk
    """Its files."""


@contextlib.contextmanager
def running(config: DemoConfig) -> Iterator[Site]:
    """The page while the context is open.

    Yields:
        Where it is.

    Raises:
        OutputError: the address is taken or not this machine's.
    """
    with _folder() as root, _environment(root):
        desk = Desk(root)
        server = Server(config=config, desk=desk, engines=Engines(config))
        page = build_page(server)
        page.queue(max_size=config.queue, default_concurrency_limit=1, api_open=False)
        stop = threading.Event()
        sweeper = threading.Thread(target=_sweep, args=(desk, stop), daemon=True)
        try:
            yield Site(address=_launch(page, config, desk, sweeper), desk=desk)
        finally:
            stop.set()
            page.close(verbose=False)
            desk.close()


def _launch(page: Any, config: DemoConfig, desk: Desk, sweeper: threading.Thread) -> str:
    guard = Middleware(Guard, desk=desk, upload_bytes=config.upload_bytes)
    try:
        page.launch(
            server_name=config.host,
            server_port=config.port,
            auth=None if config.auth is None else parse_auth(config.auth),
            share=False,
            inbrowser=config.open,
            prevent_thread_lock=True,
            quiet=True,
            show_error=False,
            ssr_mode=False,
            max_file_size=config.upload_bytes,
            enable_monitoring=False,
            mcp_server=False,
            run_history=False,
            app_kwargs={
                "middleware": [guard],
                "docs_url": None,
                "redoc_url": None,
                "openapi_url": None,
            },
            **look(),
        )
    except OSError as error:
        raise OutputError(
            f"{config.host}:{config.port} cannot be listened at; choose another --port, or check "
            "that --host is an address of this machine"
        ) from error
    sweeper.start()
    return str(page.local_url)


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    """A folder that only this user can look into; those of servers that were killed go."""
    _remove_abandoned(Path(tempfile.gettempdir()))
    with tempfile.TemporaryDirectory(prefix=FOLDER, ignore_cleanup_errors=True) as name:
        root = Path(name).resolve()
        FolderLock(root).acquire()
        yield root


def _remove_abandoned(parent: Path) -> None:
    """Remove folders whose lock is that of a process that has ended."""
    for folder in parent.glob(f"{FOLDER}*"):
        if (folder / LOCK).is_file():
            with contextlib.suppress(OSError, OutputError):  # of another user, or at work
                FolderLock(folder).acquire()
                shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _environment(root: Path) -> Iterator[None]:
    """What gradio reads from the environment, and where temporary files go meanwhile."""
    values = {**_ENVIRONMENT, "GRADIO_TEMP_DIR": str(root)}
    before = {name: os.environ.get(name) for name in values}
    folder = tempfile.tempdir
    os.environ.update(values)
    tempfile.tempdir = str(root)
    try:
        yield
    finally:
        tempfile.tempdir = folder
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _sweep(desk: Desk, stop: threading.Event) -> None:
    """Body of the thread that looks after what was left behind."""
    while not stop.wait(_SWEEP):
        try:
            desk.sweep(seconds=_KEEP)
        except OSError:
            log.exception("the folder of the demo could not be swept")
