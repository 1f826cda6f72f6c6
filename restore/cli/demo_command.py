"""The command `restore demo`."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import replace
from typing import Any

import click

from restore.cli.options import HelpfulCommand, make_config, make_options, program_options
from restore.demo_config import AUTH_VARIABLE, DemoConfig
from restore.errors import MissingExtraError, install_command


@click.command(
    cls=HelpfulCommand,
    params=[*make_options(DemoConfig), *program_options()],
    short_help="Serve a page for the browser.",
    examples=[
        "restore demo --open",
        "restore demo --host 0.0.0.0 --auth me:secret --max-upload 50MB",
    ],
)
def demo(**values: Any) -> None:
    """Serve a page that restores, degrades and compresses photos and clips in a browser.

    Only this machine reaches it, unless --host says otherwise. Uploads and results are deleted when
    their page is closed, and all of them when the server stops.
    """
    config = make_config(DemoConfig, values)
    if config.auth is None and os.environ.get(AUTH_VARIABLE):
        config = replace(config, auth=os.environ[AUTH_VARIABLE])
    open_page(config)


def open_page(config: DemoConfig) -> None:
    """Serve the page until the program is stopped.

    Raises:
        MissingExtraError: gradio is not installed.
    """
    if importlib.util.find_spec("gradio") is None:
        raise MissingExtraError(
            f"the page needs gradio, which is not installed; run: {install_command('demo')}"
        )

    from restore.apps.demo.server import serve

    serve(config, ready=lambda address: click.echo(f"{address}  (Ctrl-C stops it)", err=True))
