"""The tab that measures results against what they should be, and gives the report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from restore.apps.demo import parts, words
from restore.apps.demo.archives import ArchiveLimits, gather
from restore.apps.demo.desk import Job
from restore.apps.demo.jobs import Shown, play
from restore.apps.demo.parts import Server
from restore.apps.demo.video import check_clip
from restore.degrading.plan import CLIP_SUFFIXES
from restore.errors import InputError, OptionError
from restore.reports.catalogue import DEFAULTS, OWN
from restore.reports.config import REPORT_SUFFIXES, ReportConfig
from restore.reports.events import Advanced, Measured, ReportEvent
from restore.reports.job import run as measure
from restore.reports.report import Report

TAB = "report"
RESTORED, REFERENCE = "restored", "reference"

_UNPACKED = 4  # times the largest upload that its archives may hold


def report_tab(server: Server) -> None:
    """Lay the tab out."""
    with gr.Row():
        with gr.Column(scale=2, min_width=280):
            restored = _files("Results: files, or a ZIP", RESTORED)
            reference = _files("References of the same names (optional)", REFERENCE)
            metrics = gr.CheckboxGroup(
                [(spec.title, name) for name, spec in OWN.items() if spec.kind != "size"],
                value=list(DEFAULTS),
                label="Metrics",
                elem_id="report-metrics",
            )
            border = gr.Number(
                value=0,
                precision=0,
                minimum=0,
                maximum=1000,
                label="Crop border",
                info="Pixels left out along each edge; 4 is usual for x4.",
                elem_id="report-border",
            )
            with gr.Row():
                start = gr.Button("Measure", variant="primary", elem_id="report-run")
                cancel = gr.Button("Cancel", elem_id="report-cancel")
        with gr.Column(scale=3, min_width=280):
            line = parts.status(key=TAB)
            summary = gr.Markdown("", elem_id="report-summary")
            written = gr.File(
                label="The report, with pictures, as tables and as data",
                interactive=False,
                visible=False,
                elem_id="report-files",
            )

    def report(
        restored: list[str] | None,
        reference: list[str] | None,
        metrics: list[str],
        border: float,
        request: gr.Request,
    ) -> Iterator[Any]:
        def work(job: Job) -> Shown:
            config = ReportConfig(
                metric=own_metrics(metrics),
                crop_border=int(border),
                workers=1,
                device=server.config.device,
                max_pixels=server.config.max_pixels,
            )
            sets = {RESTORED: restored or [], REFERENCE: reference or []}
            return measure_files(server, job, sets, config)

        blank = ("", parts.hide())
        yield from play(server.desk, request, tab=TAB, blank=blank, work=work)

    event = start.click(
        report,
        [restored, reference, metrics, border],
        [line, summary, written],
        **parts.job_of(line),
    )
    parts.cancel_with(cancel, [event], server, tab=TAB, line=line)


def _files(label: str, name: str) -> Any:
    return parts.file_upload(label, name=f"report-{name}", file_count="multiple", height=140)


def own_metrics(names: Sequence[str]) -> tuple[str, ...]:
    """The metrics that were chosen.

    Raises:
        OptionError: one is not offered here, or there is none.
    """
    for name in names:
        if name not in OWN:
            raise OptionError(f"metric '{name[:40]}' is not offered here; choose from the list")
    if not names:
        raise OptionError("No metric was chosen; choose one.")
    return tuple(names)


def measure_files(
    server: Server, job: Job, sets: dict[str, list[str]], config: ReportConfig
) -> Shown:
    """Measure uploaded results, and show the summary with the report's files.

    Raises:
        InputError: no results were sent, or they cannot be used.
    """
    if not sets[RESTORED]:
        raise InputError("No results were sent yet; choose files or a ZIP archive first.")
    job.tell(None, "Unpacking …")
    limits = ArchiveLimits(bytes=_UNPACKED * server.config.upload_bytes)
    for name, uploads in sets.items():
        if uploads:
            folder = job.folder / name
            gather([Path(upload) for upload in uploads], folder, limits=limits, check=job.check)
            for file in folder.rglob("*"):
                if file.suffix.lower() in CLIP_SUFFIXES:
                    check_clip(file, server.config)

    def on_event(event: ReportEvent) -> None:
        if isinstance(event, Measured):
            job.tell(event.index / event.total, f"{event.index} of {event.total} files measured")
        elif isinstance(event, Advanced):
            job.tell(job.fraction, f"{event.key}: {event.frames} frames measured")
        else:
            job.check()

    job.tell(0.0, "Measuring …")
    reference = str(job.folder / REFERENCE) if sets[REFERENCE] else None
    found = measure(
        config, on_event, restored=(f"results={job.folder / RESTORED}",), reference=reference
    )
    job.tell(1.0, "Writing the report …")
    files = []
    for suffix in REPORT_SUFFIXES:
        found.write(job.folder / f"report{suffix}")
        files.append(str(job.folder / f"report{suffix}"))
    text = words.without_paths(Path(files[-1]).read_text("utf-8"), root=str(server.desk.root))
    text = text.removeprefix("# Metrics\n").partition("\n## Settings")[0]
    values = (text, gr.update(value=files, visible=True))
    return Shown(status=words.done(*_lines(found)), values=values)


def _lines(report: Report) -> Iterator[str]:
    measured = len(report.results) - len(report.failed)
    yield f"{measured} of {len(report.results)} files measured in {report.seconds:.1f} s"
    if report.unpaired:
        yield f"{len(report.unpaired)} files have no counterpart of the same name"
    for name, reason in report.skipped:
        yield f"{name} was left out: {words.without_paths(reason)}"
