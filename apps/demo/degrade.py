"""The tab that shows what a degradation recipe does to a picture."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from restore.apps.demo import parts, words
from restore.apps.demo.desk import Job
from restore.apps.demo.jobs import Shown, play
from restore.apps.demo.parts import Server
from restore.apps.demo.photo import only
from restore.apps.demo.views import views
from restore.config import check_choice
from restore.data_config import DegradeConfig
from restore.degradations.presets import RECIPES
from restore.degrading.job import degrade_files

TAB = "degrade"


def degrade_tab(server: Server) -> None:
    """Lay the tab out."""
    with gr.Row():
        with gr.Column(scale=2, min_width=280):
            photo = parts.photo_upload("Good photo", key=TAB)
            recipe = gr.Dropdown(
                list(RECIPES),
                value=RECIPES[0],
                label="Recipe",
                info="What a published method was trained against.",
                elem_id="degrade-recipe",
            )
            with gr.Row():
                scale = gr.Dropdown(
                    [("÷1", 1), ("÷2", 2), ("÷4", 4)],
                    value=4,
                    label="Scale",
                    info="How many times smaller.",
                    elem_id="degrade-scale",
                )
                seed = parts.seed(key=TAB)
            with gr.Row():
                run = gr.Button("Degrade", variant="primary", elem_id="degrade-run")
                cancel = gr.Button("Cancel", elem_id="degrade-cancel")
        with gr.Column(scale=3, min_width=280):
            line = parts.status(key=TAB)
            slider = parts.before_after("Good and bad", key=TAB)
            download = parts.download("Download the bad picture", key=TAB)
            record = gr.Code(
                label="What was drawn",
                language="json",
                interactive=False,
                max_lines=16,
                elem_id="degrade-record",
            )

    def degrade(
        path: str | None, recipe: str, scale: int, seed: float, request: gr.Request
    ) -> Iterator[Any]:
        def work(job: Job) -> Shown:
            check_choice("recipe", recipe, RECIPES)  # a name of a file is a setting of the program
            config = DegradeConfig(
                recipe=recipe,
                scale=int(scale),
                seed=int(seed),
                max_pixels=server.config.max_pixels,
                output=str(job.folder / "result"),
            )
            return degrade_photo(job, parts.given(path, "photo"), config)

        blank = (None, parts.hide(), None)
        yield from play(server.desk, request, tab=TAB, blank=blank, work=work)

    event = run.click(
        degrade,
        [photo, recipe, scale, seed],
        [line, slider, download, record],
        **parts.job_of(line),
    )
    parts.cancel_with(cancel, [event], server, tab=TAB, line=line)


def degrade_photo(job: Job, path: Path, config: DegradeConfig) -> Shown:
    """Degrade a picture, and show it beside the good one, with all that was drawn."""
    job.tell(None, "Degrading …")
    result = only(degrade_files(path, config=config, on_event=lambda event: job.check()))
    written = Path(result.destination)
    folder, most = job.folder / "view", config.max_pixels
    pair = views(path, written, folder, max_pixels=most, multiple=config.scale)
    summary = (
        f"{words.sides(*result.size_in)} to {words.sides(*result.size_out)} pixels with "
        f"{config.recipe}, seed {config.seed}; {words.size(written.stat().st_size)}"
    )
    drawn = written.with_suffix(".json").read_text(encoding="utf-8")
    values = (pair, parts.file_ready(written), drawn)
    return Shown(status=words.done(summary, *result.notes), values=values)
