"""Widgets that several tabs use, and gradio's with what the engine needs of them changed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import gradio as gr
from gradio.data_classes import FileData

from restore.apps.demo.desk import Desk
from restore.apps.demo.engines import Engines, has_fidelity
from restore.apps.demo.jobs import CANCELLED, page_of
from restore.apps.demo.words import problem
from restore.config import ColorFixChoice
from restore.demo_config import DemoConfig
from restore.errors import InputError


@dataclass(frozen=True, kw_only=True, slots=True)
class Server:
    """What every tab is given."""

    config: DemoConfig
    """Settings."""
    desk: Desk
    """Files."""
    engines: Engines
    """Models."""


def photo_upload(label: str, *, key: str) -> Any:
    """The widget for a picture to be sent."""
    photo = gr.Image(
        label=label,
        sources=["upload", "clipboard"],
        type="filepath",
        height=260,
        buttons=["fullscreen"],
        elem_id=f"{key}-input",
    )
    photo.preprocess = _as_sent
    return photo


def clip_upload(label: str, *, key: str) -> Any:
    """The widget for a clip to be sent."""
    clip = gr.Video(label=label, sources=["upload"], height=260, elem_id=f"{key}-input")
    clip.preprocess = _as_sent
    return clip


def player(label: str, *, key: str) -> Any:
    """The widget that plays a clip."""
    clip = gr.Video(label=label, interactive=False, buttons=[], elem_id=key, min_width=240)
    clip.postprocess = _as_written
    return clip


def file_upload(label: str, *, name: str, **settings: Any) -> Any:
    """The widget for files to be sent, of which a list arrives where there can be several."""
    file = gr.File(label=label, elem_id=name, **settings)
    file.preprocess = _files_as_sent  # gradio's own leaves an empty file behind
    return file


def job_of(line: Any) -> dict[str, Any]:
    """What makes an event a job: one at a time, its place in the queue shown in the status line."""
    return {
        "concurrency_id": "device",
        "concurrency_limit": 1,
        "show_progress": "minimal",
        "show_progress_on": line,
        "api_visibility": "private",
    }


def _files_as_sent(payload: Any) -> Any:
    if payload is None:
        return None
    many = getattr(payload, "root", None)
    return payload.path if many is None else [file.path for file in many]


def _as_sent(payload: Any) -> str | None:
    """The file as it was sent: gradio would decode a picture, without a limit to its pixels, and
    lose its metadata."""
    return None if payload is None else payload.path


def _as_written(value: str | None) -> Any:
    """The file as it was written: it needs no conversion."""
    return None if value is None else FileData(path=value, orig_name=Path(value).name)


def before_after(label: str, *, key: str) -> Any:
    """The widget that shows two pictures with a slider between them."""
    return gr.ImageSlider(
        label=label,
        type="filepath",
        interactive=False,
        buttons=["fullscreen"],
        max_height=640,
        elem_id=f"{key}-slider",
    )


def color_fix(*, key: str) -> Any:
    """The widget for the colour fix."""
    return gr.Dropdown(
        list(get_args(ColorFixChoice)),
        value="auto",
        label="Colour fix",
        info="Takes colours from the original.",
        elem_id=f"{key}-color",
    )


def seed(*, key: str) -> Any:
    """The widget for the seed."""
    return gr.Number(
        value=0,
        precision=0,
        minimum=0,
        maximum=2**31 - 1,
        label="Seed",
        info="The same seed gives the same result.",
        elem_id=f"{key}-seed",
    )


def fidelity(model: str, *, key: str) -> Any:
    """The widget for fidelity, hidden where the model has none."""
    return gr.Slider(
        0,
        1,
        value=1,
        step=0.05,
        label="Fidelity",
        info="1 = true to the pixels, 0 = realistic, with detail made up.",
        visible=has_fidelity(model),
        elem_id=f"{key}-fidelity",
    )


def scale(*, key: str) -> Any:
    """The widget for the scale."""
    return gr.Dropdown(
        [("x1", 1), ("x1.5", 1.5), ("x2", 2), ("x3", 3), ("x4", 4)],
        value=4,
        label="Scale",
        info="Size of the result.",
        elem_id=f"{key}-scale",
    )


def status(*, key: str) -> Any:
    """The line that says how far the work is."""
    return gr.HTML("", elem_id=f"{key}-status")


def download(label: str, *, key: str) -> Any:
    """A button for a file of the result, which is there when the file is."""
    return gr.DownloadButton(label, visible=False, elem_id=f"{key}-download")


def file_ready(path: Path) -> Any:
    """The button with its file."""
    return gr.update(value=str(path), visible=True)


def hide() -> Any:
    """The button while there is no file."""
    return gr.update(value=None, visible=False)


def cancel_with(button: Any, events: list[Any], server: Server, *, tab: str, line: Any) -> None:
    """Let a button stop what the events of a tab have begun."""

    def stop(request: gr.Request) -> str:
        server.desk.stop(page_of(request)[0], tab)
        return problem(CANCELLED)

    button.click(stop, None, line, cancels=events, queue=False, api_visibility="private")


def given(path: str | None, what: str) -> Path:
    """The file that was sent.

    Raises:
        InputError: there is none.
    """
    if path is None:
        raise InputError(f"No {what} was sent yet; choose one first.")
    return Path(path)
