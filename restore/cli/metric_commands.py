"""The command `restore metrics`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from restore.cli.app import FAILED, say_json
from restore.cli.options import (
    HelpfulCommand,
    Session,
    make_config,
    make_options,
    program_options,
)
from restore.cli.progress import Meter
from restore.cli.report import JSON_SECONDS, Pace, fields_of, shown
from restore.durations import clock
from restore.reports.config import ReportConfig

if TYPE_CHECKING:
    from restore.reports.events import ReportEvent
    from restore.reports.report import Report


@click.command(
    cls=HelpfulCommand,
    params=[*make_options(ReportConfig), *program_options()],
    short_help="Measure results, and report on them.",
    examples=[
        "restore metrics --restored out --reference hr -o report.html",
        "restore metrics --restored out --reference hr -m psnr -m lpips -o a.csv -o a.json",
        "restore metrics --restored ours=a --restored bicubic=b --reference hr -o report.html",
        "restore metrics --restored out -m niqe -m musiq --crop-border 4",
        "restore metrics --restored small --reference photos -m psnr-rgb -m bpp -o curve.json",
        "restore metrics --restored new.mp4 --reference true.mp4 -m psnr -m warping-error",
        "restore metrics --list",
    ],
)
@click.option("--list", "listing", is_flag=True, help="Say which metrics there are, and stop.")
@click.pass_obj
def metrics(session: Session, /, listing: bool, **values: Any) -> int:
    """Measure results beside their references, or alone, and report on them.

    Folders are paired by name, never by position, folders in them likewise: photo_x4.png is the
    result of photo.png. Clips are paired frame by frame by time stamp. One bad file does not stop
    the others. The exit status is 1 when a file failed or has no pair; a metric that cannot be
    computed here is skipped, with one line on what it needs.
    """
    session.json = values["json"]
    if listing:
        say_list()
        return 0
    config = make_config(ReportConfig, values)

    from restore.reports.job import run

    lines = MetricLines(Meter("files", shown=not config.json), json=config.json)
    try:
        report = run(config, lines.event)
    finally:
        lines.meter.close()
    for output in config.output:
        report.write(output)
    return lines.summary(report)


class MetricLines:
    """Tells what a report's run does.

    Args:
        meter: shows the progress.
        json: write objects instead of lines.
    """

    def __init__(self, meter: Meter, *, json: bool) -> None:
        self.meter, self.json = meter, json
        self._done = self._total = 0
        self._pace = Pace(JSON_SECONDS)

    def event(self, event: ReportEvent) -> None:
        """Take one event of `run`."""
        kind = type(event).__name__.lower()
        fields = fields_of(event)
        if kind == "measured":
            self._done, self._total = fields["index"], fields["total"]
        if self.json:
            if kind != "advanced" or self._pace.due():
                say_json({"event": kind, **fields})
        elif kind == "left":
            word = "skipped" if fields["kind"] == "metric" else "unpaired"
            click.echo(f"restore: {word}: {shown(fields['name'])}: {fields['reason']}", err=True)
        elif kind == "advanced":
            note = f"{shown(fields['key'])}, frame {fields['frames']}"
            self.meter.update(self._done, self._total or None, note=note)
        else:
            self.meter.update(self._done, self._total, note=shown(fields["key"]))

    def summary(self, report: Report) -> int:
        """Print the table, list what failed, and name what was written; the exit status."""
        self.meter.close()
        status = 0 if report.ok else FAILED
        outputs = list(report.config.output)
        if self.json:
            means = {
                method: {spec.name: report.mean(spec, method) for spec in report.metrics}
                for method in report.methods
            }
            say_json(
                {
                    "event": "summary",
                    "ok": report.ok,
                    "means": means,
                    "files": len(report.results),
                    "failed": len(report.failed),
                    "unpaired": len(report.unpaired),
                    "skipped": [name for name, _ in report.skipped],
                    "outputs": outputs,
                    "seconds": report.seconds,
                }
            )
            return status
        from restore.reports.tables import remarks

        for result in report.results:
            name = shown(f"{result.pair.method}: {result.pair.key}")
            if result.failed:
                click.echo(f"restore: failed: {name}: {result.failed}", err=True)
            elif result.problems or result.stray:
                click.echo(f"restore: incomplete: {name}: {remarks(result)}", err=True)
        click.echo(summary_text(report))
        written = f"; wrote {', '.join(shown(name) for name in outputs)}" if outputs else ""
        click.echo(f"{len(report.results)} files in {clock(report.seconds)}{written}", err=True)
        return status


def summary_text(report: Report) -> str:
    """The summary table for a terminal."""
    from restore.reports.tables import summary_rows

    rows = [[cell.replace("**", "") for cell in row] for row in summary_rows(report)]
    rows = [list(column) for column in zip(*rows, strict=True)]  # metrics downwards, to fit
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def say_list() -> None:
    """The metrics by name: our own with a line each, then those of pyiqa."""
    from restore.reports.catalogue import PYIQA_PREFIX, own_lines
    from restore.reports.iqa import LICENCE, installed, names

    for name, line in own_lines():
        click.echo(f"{name}: {line}")
    if installed():
        click.echo(f"\nof pyiqa ({LICENCE}); {PYIQA_PREFIX}NAME where we have one of that name:")
        click.echo(", ".join(names()))
    else:
        click.echo(f"\nwith pyiqa also lpips, dists, musiq, maniqa, clipiqa, fid ...; {LICENCE}")
