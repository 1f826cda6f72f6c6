"""The page: tabs, and what happens when it is opened and left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

import restore
from restore.apps.demo import words
from restore.apps.demo.compress import compress_tab
from restore.apps.demo.degrade import degrade_tab
from restore.apps.demo.engines import models_table, ready_models
from restore.apps.demo.jobs import page_of
from restore.apps.demo.parts import Server
from restore.apps.demo.photo import photo_tab
from restore.apps.demo.report import report_tab
from restore.apps.demo.video import video_tab
from restore.codec_config import parse_bytes
from restore.demo_config import DemoConfig

TITLE = "restore"
_HERE = Path(__file__).parent


def build_page(server: Server) -> Any:
    """The page as gradio's Blocks, not yet served."""
    with gr.Blocks(title=TITLE, analytics_enabled=False, fill_width=True) as page:
        gr.HTML(_head(server.config), elem_id="head")
        with gr.Tabs(elem_id="tabs"):
            for label, name, lay_out in _tabs(server):
                with gr.Tab(label, id=name, elem_id=f"tab-{name}"):
                    lay_out()
        with gr.Accordion("Models, and how to get those that are missing", open=False):
            gr.Markdown(models_table(), elem_id="models")

        def enter(request: gr.Request) -> None:
            server.desk.enter(*page_of(request))

        def leave(request: gr.Request) -> None:
            server.desk.leave(page_of(request)[0])

        page.load(enter, queue=False, api_visibility="private")
        page.unload(leave)
    return page


def look() -> dict[str, Any]:
    """Theme, style and script, as `launch` takes them. Nothing comes from another server."""
    fonts = ["system-ui", "sans-serif"]
    theme = gr.themes.Default(
        primary_hue="teal", font=fonts, font_mono=["ui-monospace", "monospace"]
    ).set(block_info_text_color="*neutral_500", block_info_text_color_dark="*neutral_400")
    script = (_HERE / "page.js").read_text(encoding="utf-8")
    style = (_HERE / "page.css").read_text(encoding="utf-8")
    return {
        "theme": theme,
        # Not as `css`, which gradio confines to a part of the page.
        "head": f"<style>{style}</style><script>{script}</script>",
        "footer_links": [],
    }


def _tabs(server: Server) -> list[tuple[str, str, Any]]:
    photos, clips = ready_models(clips=False), ready_models(clips=True)
    return [
        ("Photo", "photo", lambda: photo_tab(server, photos, _first(server.config, photos))),
        ("Video", "video", lambda: video_tab(server, clips, _first(server.config, clips))),
        ("Degrade", "degrade", lambda: degrade_tab(server)),
        ("Compress", "compress", lambda: compress_tab(server)),
        ("Report", "report", lambda: report_tab(server)),
    ]


def _first(config: DemoConfig, models: list[str]) -> str:
    """The model that is chosen at first: the server's, if it can run here."""
    return config.model if config.model in models else models[0]


def _head(config: DemoConfig) -> str:
    limit = words.size(parse_bytes(config.max_upload))
    return (
        f"<h1>{TITLE} <small>{restore.__version__}</small></h1>"
        "<p>Photos and clips, larger and cleaner, in one pass of a network. "
        f"Files up to {limit}; they are deleted when you close this page.</p>"
    )
