"""The tab of the codec: a picture to few bytes, and such a file back to a picture."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr

from restore.apps.demo import parts, words
from restore.apps.demo.desk import Job
from restore.apps.demo.engines import codec_notices, rates_of, ready_codecs
from restore.apps.demo.jobs import Shown, play
from restore.apps.demo.parts import Server
from restore.apps.demo.photo import only
from restore.apps.demo.views import view_of, views
from restore.codec.job import CodecDone, compress_images, decompress_images, read_coded
from restore.codec.plan import CODED_SUFFIX
from restore.codec_config import CompressConfig, DecompressConfig
from restore.config import check_choice
from restore.errors import OptionError
from restore.registry import CODECS, DEFAULT_CODEC

TAB = "compress"
UNPACK = "decompress"
BPP, SIZE, QUALITY = "Bits per pixel", "File size", "Quality"


def compress_tab(server: Server) -> None:
    """Lay the tab out."""
    codecs = ready_codecs()
    first = DEFAULT_CODEC if DEFAULT_CODEC in codecs else codecs[0]
    with gr.Row():
        with gr.Column(scale=2, min_width=280):
            photo = parts.photo_upload("Photo", key=TAB)
            codec = gr.Dropdown(codecs, value=first, label="Codec", elem_id="compress-codec")
            goal = gr.Radio(
                [BPP, SIZE, QUALITY], value=BPP, label="Choose by", elem_id="compress-goal"
            )
            rates = rates_of(first)
            bpp = gr.Dropdown(
                rates, value=rates[len(rates) // 2], label=BPP, elem_id="compress-bpp"
            )
            size = gr.Textbox("20kB", label=SIZE, info="Such as 900, 20kB or 1.5MB.", visible=False)
            quality = gr.Textbox(
                "ssim=0.7", label=QUALITY, info="ssim=0.7 or psnr=26.", visible=False
            )
            with gr.Row():
                run = gr.Button("Compress", variant="primary", elem_id="compress-run")
                cancel = gr.Button("Cancel", elem_id="compress-cancel")
        with gr.Column(scale=3, min_width=280):
            line = parts.status(key=TAB)
            slider = parts.before_after("Original and decompressed", key=TAB)
            download = parts.download("Download the compressed file", key=TAB)

    def compress(
        path: str | None,
        codec: str,
        goal: str,
        bpp: float,
        size: str,
        quality: str,
        request: gr.Request,
    ) -> Iterator[Any]:
        def work(job: Job) -> Shown:
            check_choice("codec", codec, tuple(CODECS))
            config = CompressConfig(
                model=codec,
                device=server.config.device,
                max_pixels=server.config.max_pixels,
                output=str(job.folder / "result"),
            )
            config = with_goal(config, goal, bpp=bpp, size=size, quality=quality)
            return compress_photo(server, job, parts.given(path, "photo"), config)

        blank = (None, parts.hide())
        yield from play(server.desk, request, tab=TAB, blank=blank, work=work)

    event = run.click(
        compress,
        [photo, codec, goal, bpp, size, quality],
        [line, slider, download],
        **parts.job_of(line),
    )
    parts.cancel_with(cancel, [event], server, tab=TAB, line=line)
    goal.change(
        lambda chosen: [gr.update(visible=chosen == name) for name in (BPP, SIZE, QUALITY)],
        goal,
        [bpp, size, quality],
        queue=False,
        api_visibility="private",
    )
    codec.change(_rates, codec, bpp, queue=False, api_visibility="private")
    with gr.Accordion("Open a compressed file", open=False, elem_id="decompress-section"):
        _decompress_section(server)


def _rates(codec: str) -> Any:
    rates = rates_of(codec)
    return gr.update(choices=rates, value=rates[len(rates) // 2])


def _decompress_section(server: Server) -> None:
    with gr.Row():
        with gr.Column(scale=2, min_width=280):
            file = parts.file_upload(
                f"Compressed file ({CODED_SUFFIX})",
                name="decompress-input",
                file_types=[CODED_SUFFIX],
            )
            run = gr.Button("Decompress", variant="primary", elem_id="decompress-run")
        with gr.Column(scale=3, min_width=280):
            line = parts.status(key=UNPACK)
            picture = gr.Image(
                label="Picture",
                type="filepath",
                interactive=False,
                buttons=["fullscreen"],
                elem_id="decompress-picture",
            )
            download = parts.download("Download the picture", key=UNPACK)

    def decompress(path: str | None, request: gr.Request) -> Iterator[Any]:
        def work(job: Job) -> Shown:
            return decompress_file(server, job, parts.given(path, "compressed file"))

        blank = (None, parts.hide())
        yield from play(server.desk, request, tab=UNPACK, blank=blank, work=work)

    run.click(
        decompress,
        file,
        [line, picture, download],
        **parts.job_of(line),
    )


def with_goal(
    config: CompressConfig, goal: str, *, bpp: float, size: str, quality: str
) -> CompressConfig:
    """The settings with the one of three goals that was chosen.

    Raises:
        OptionError: LPIPS is asked for, or the value of the goal is not possible.
    """
    if goal == BPP:
        return replace(config, bpp=float(bpp))
    if goal == SIZE:
        return replace(config, size=size)
    if quality.strip().lower().startswith("lpips"):
        raise OptionError("this server measures no LPIPS; choose ssim=0.7 or psnr=26")
    return replace(config, quality=quality)


def compress_photo(server: Server, job: Job, path: Path, config: CompressConfig) -> Shown:
    """Compress a picture, and show what comes out of the file beside it."""
    job.tell(None, "Loading the codec …")
    coder = server.engines.coder(config.model)
    job.tell(None, "Compressing …")
    result = only(
        compress_images(path, config=config, coder=coder, on_event=lambda event: job.check())
    )
    assert isinstance(result, CodecDone)
    coded = Path(result.destination)
    job.tell(0.5, "Decompressing, to show it …")
    back = DecompressConfig(
        device=config.device, max_pixels=config.max_pixels, output=str(job.folder / "back")
    )
    picture = only(decompress_images(coded, config=back, coder=coder))
    job.tell(1.0, "Preparing the view …")
    pair = views(path, Path(picture.destination), job.folder / "view", max_pixels=config.max_pixels)
    before = path.stat().st_size
    summary = (
        f"{result.bytes} bytes, {result.bpp:.4f} bits per pixel; "
        f"the original has {words.size(before)}, {before / result.bytes:.0f} times as much"
    )
    lines = words.done(summary, *result.notes, *codec_notices(config.model))
    return Shown(status=lines, values=(pair, parts.file_ready(coded)))


def decompress_file(server: Server, job: Job, path: Path) -> Shown:
    """Make a picture of a compressed file, and show it."""
    most = server.config.max_pixels
    file, size = read_coded(path, max_pixels=most)
    job.tell(None, "Loading the codec …")
    coder = server.engines.coder(file.codec)
    job.tell(None, "Decompressing …")
    config = DecompressConfig(
        device=server.config.device, max_pixels=most, output=str(job.folder / "result")
    )
    result = only(
        decompress_images(path, config=config, coder=coder, on_event=lambda event: job.check())
    )
    written = Path(result.destination)
    view = view_of(written, job.folder, "view", max_pixels=most)
    summary = (
        f"{words.sides(*result.size_out)} pixels out of {size} bytes, "
        f"{8 * size / file.pixels:.4f} bits per pixel, by {file.codec}"
    )
    lines = words.done(summary, *result.notes, *codec_notices(file.codec))
    return Shown(status=lines, values=(str(view), parts.file_ready(written)))
