"""The tab that restores a picture."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from restore.apps.demo import parts, words
from restore.apps.demo.desk import Job
from restore.apps.demo.engines import has_fidelity, notices
from restore.apps.demo.jobs import Shown, play
from restore.apps.demo.parts import Server
from restore.apps.demo.views import views
from restore.config import ImageConfig
from restore.errors import InputError
from restore.image.events import Advanced, Done, Event, ImageReport
from restore.image.job import restore_images

TAB = "photo"


def photo_tab(server: Server, models: list[str], first: str) -> None:
    """Lay the tab out."""
    with gr.Row():
        with gr.Column(scale=2, min_width=280):
            photo = parts.photo_upload("Photo", key=TAB)
            model = gr.Dropdown(models, value=first, label="Model", elem_id="photo-model")
            with gr.Row():
                scale = parts.scale(key=TAB)
                seed = parts.seed(key=TAB)
            fidelity = parts.fidelity(first, key=TAB)
            color = parts.color_fix(key=TAB)
            with gr.Row():
                run = gr.Button("Restore", variant="primary", elem_id="photo-run")
                cancel = gr.Button("Cancel", elem_id="photo-cancel")
        with gr.Column(scale=3, min_width=280):
            line = parts.status(key=TAB)
            slider = parts.before_after("Before and after", key=TAB)
            download = parts.download("Download the result", key=TAB)

    def restore(
        path: str | None,
        model: str,
        scale: float,
        seed: float,
        fidelity: float,
        color: Any,
        request: gr.Request,
    ) -> Iterator[Any]:
        def work(job: Job) -> Shown:
            config = ImageConfig(
                **server.engines.chosen(model, seed=seed, color_fix=color, fidelity=fidelity),
                scale=float(scale),
                max_pixels=server.config.max_pixels,
            )
            return restore_photo(server, job, parts.given(path, "photo"), config)

        blank = (None, parts.hide())
        yield from play(server.desk, request, tab=TAB, blank=blank, work=work)

    inputs = [photo, model, scale, seed, fidelity, color]
    event = run.click(
        restore,
        inputs,
        [line, slider, download],
        **parts.job_of(line),
    )
    parts.cancel_with(cancel, [event], server, tab=TAB, line=line)
    model.change(
        lambda name: gr.update(visible=has_fidelity(name)),
        model,
        fidelity,
        queue=False,
        api_visibility="private",
    )


def restore_photo(server: Server, job: Job, path: Path, config: ImageConfig) -> Shown:
    """Restore a picture, and show it beside the original."""
    assert config.scale is not None
    job.tell(None, "Loading the model …")
    restorer, config = server.engines.restorer(config, scale=config.scale)

    def on_event(event: Event) -> None:
        if isinstance(event, Advanced):
            job.tell(event.done / event.total, f"Part {event.done} of {event.total}")
        else:
            job.check()

    job.tell(None, "Restoring …")
    report = restore_images(
        path,
        config=config,
        restorer=restorer,
        on_event=on_event,
        output=str(job.folder / "result"),
        suffix=f"_x{config.scale:g}",
    )
    result = only(report)
    job.tell(1.0, "Preparing the view …")
    written = Path(result.destination)
    pair = views(path, written, job.folder / "view", max_pixels=server.config.max_pixels)
    summary = (
        f"{words.sides(*result.size_in)} to {words.sides(*result.size_out)} pixels "
        f"in {result.seconds:.1f} s; {words.size(written.stat().st_size)}"
    )
    lines = words.done(summary, *result.notes, *notices(config.model))
    return Shown(status=lines, values=(pair, parts.file_ready(written)))


def only(report: ImageReport) -> Done:
    """What became of the one file of a run.

    Raises:
        InputError: it failed.
    """
    if report.failed:
        name, message = report.failed[0]
        raise InputError(f"{Path(name).name}: {message}")
    return report.done[0]
