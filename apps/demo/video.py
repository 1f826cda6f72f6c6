"""The tab that restores a clip: two seconds to look at first, then the whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import torch

from restore.apps.demo import parts, words
from restore.apps.demo.desk import Job
from restore.apps.demo.engines import has_fidelity, notices
from restore.apps.demo.jobs import Shown, play
from restore.apps.demo.parts import Server
from restore.config import VideoConfig
from restore.degradations.recipe import Recipe
from restore.degrading.clip import degrade_clip_file, plan_clip
from restore.demo_config import DemoConfig
from restore.durations import clock
from restore.errors import InputError
from restore.video import VideoProgress, restore_video
from restore.video.probe import ClipInfo, probe

TAB = "video"
PREVIEW_SECONDS = 2

_MAX_RATE = 120  # frames a second of the longest clip that is allowed
_PLAYABLE = {"h264", "vp8", "vp9", "av1"}
_PLAYABLE_IN = ("mp4", "webm")


def video_tab(server: Server, models: list[str], first: str) -> None:
    """Lay the tab out."""
    with gr.Row():
        with gr.Column(scale=2, min_width=280):
            clip = parts.clip_upload("Clip", key=TAB)
            model = gr.Dropdown(models, value=first, label="Model", elem_id="video-model")
            with gr.Row():
                scale = parts.scale(key=TAB)
                seed = parts.seed(key=TAB)
            fidelity = parts.fidelity(first, key=TAB)
            color = parts.color_fix(key=TAB)
            with gr.Row():
                preview = gr.Button(f"Preview of {PREVIEW_SECONDS} s", elem_id="video-preview")
                run = gr.Button("Restore all", variant="primary", elem_id="video-run")
            cancel = gr.Button("Cancel", elem_id="video-cancel")
        with gr.Column(scale=3, min_width=280):
            line = parts.status(key=TAB)
            with gr.Row(elem_id="video-pair"):
                before = parts.player("Original", key="video-before")
                after = parts.player("Result", key="video-after")
            gr.HTML("<p class='note'>Both play in step: start, stop or move either one.</p>")
            download = parts.download("Download the result", key=TAB)

    def handler(end: str | None) -> Callable[..., Iterator[Any]]:
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
                config = VideoConfig(
                    **server.engines.chosen(model, seed=seed, color_fix=color, fidelity=fidelity),
                    scale=float(scale),
                    end=end,
                    pix_fmt="yuv420p",  # what browsers play
                )
                return restore_clip(server, job, parts.given(path, "clip"), config)

            blank = (None, None, parts.hide())
            yield from play(server.desk, request, tab=TAB, blank=blank, work=work)

        return restore

    inputs = [clip, model, scale, seed, fidelity, color]
    events = [
        button.click(
            handler(end),
            inputs,
            [line, before, after, download],
            **parts.job_of(line),
        )
        for button, end in ((preview, str(PREVIEW_SECONDS)), (run, None))
    ]
    parts.cancel_with(cancel, events, server, tab=TAB, line=line)
    model.change(
        lambda name: gr.update(visible=has_fidelity(name)),
        model,
        fidelity,
        queue=False,
        api_visibility="private",
    )


def restore_clip(server: Server, job: Job, path: Path, config: VideoConfig) -> Shown:
    """Restore a clip, and show it beside the original."""
    assert config.scale is not None
    info, most_frames = check_clip(path, server.config)
    job.tell(None, "Loading the model …")
    restorer, config = server.engines.restorer(config, scale=config.scale)
    before = playable(info, job)

    def progress(now: VideoProgress) -> None:
        if now.frames_done > most_frames:
            raise InputError(_too_long(path.name, server.config))
        job.tell(*told(now))

    job.tell(None, "Restoring …")
    target = job.folder / "result" / f"{path.stem}_x{config.scale:g}.mp4"
    target.parent.mkdir()
    result = restore_video(path, target, config=config, restorer=restorer, progress=progress)
    part = "" if config.end is None else f"The first {config.end} s: "
    summary = (
        f"{part}{result.frames} frames of {words.sides(info.width, info.height)}, now "
        f"{words.sides(result.width, result.height)}, in {clock(result.seconds)} "
        f"({result.frames / max(result.seconds, 1e-3):.1f} frames/s); "
        f"{words.size(target.stat().st_size)}"
    )
    damaged = () if result.damaged is None else (f"The clip breaks off: {result.damaged}",)
    lines = words.done(summary, *result.warnings, *damaged, *notices(config.model))
    values = (str(before), str(target), parts.file_ready(target))
    return Shown(status=lines, values=values)


def told(now: VideoProgress) -> tuple[float | None, str]:
    """How far a clip is: fraction, and frames, speed and time to go in words."""
    if now.stage == "join":
        return 1.0, f"{now.frames_done} frames restored; putting the file together …"
    if now.frames_total is None:
        return None, f"{now.frames_done} frames, {now.fps:.1f} frames/s"
    left = "" if now.eta_seconds is None else f", {clock(now.eta_seconds)} to go"
    text = f"Frame {now.frames_done} of {now.frames_total}, {now.fps:.1f} frames/s{left}"
    return now.frames_done / max(1, now.frames_total), text


def check_clip(path: Path, config: DemoConfig) -> tuple[ClipInfo, int]:
    """What a clip is, and how many frames may be restored where its headers lie about them.

    Raises:
        InputError: it cannot be read, or is larger or longer than the server allows.
    """
    info = probe(path)
    if info.width * info.height > config.max_frame:
        raise InputError(
            f"{info.path.name} has frames of {info.width}x{info.height} pixels; this server takes "
            f"up to {config.max_frame} pixels a frame: send a smaller clip"
        )
    most = int(config.max_seconds * _MAX_RATE)
    too_many = info.frame_count is not None and info.frame_count > most
    if too_many or (info.duration is not None and info.duration > config.max_seconds):
        raise InputError(_too_long(info.path.name, config))
    return info, most


def _too_long(name: str, config: DemoConfig) -> str:
    return (
        f"{name} is longer than the {clock(config.max_seconds)} that this server takes; "
        "send a part of it"
    )


def playable(info: ClipInfo, job: Job) -> Path:
    """The clip itself where browsers can play it, else a copy that they can."""
    container = any(name in info.container for name in _PLAYABLE_IN)
    pixels = info.bit_depth == 8 and info.chroma == "420"
    if container and pixels and info.codec in _PLAYABLE:
        return info.path
    job.tell(None, "Making a copy of the original that browsers play …")
    copy = job.folder / "original.mp4"
    degrade_clip_file(
        plan_clip(info.path, scale=1, codec="h264"),
        copy,
        recipe=Recipe(steps=()),  # changes nothing
        generator=torch.Generator(),
        on_frames=lambda done: job.tell(None, f"Copying the original: frame {done}"),
    )
    return copy
