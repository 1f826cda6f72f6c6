"""The command `restore batch`, and `restore batch status` under it."""

from __future__ import annotations

import dataclasses
import sys
from typing import TYPE_CHECKING, Any

import click

from restore.batch_config import BatchConfig
from restore.cli.app import FAILED, say_json
from restore.cli.model_commands import say_licence
from restore.cli.options import (
    HelpfulCommand,
    HelpfulGroup,
    Session,
    make_config,
    make_options,
    program_options,
)
from restore.cli.progress import Meter
from restore.cli.report import JSON_SECONDS, Pace, fields_of, shown
from restore.durations import clock

if TYPE_CHECKING:
    from restore.batch.events import BatchEvent, BatchReport
    from restore.batch.status import BatchStatus

LISTED = 20  # failures that a status names; --json names all


class BatchGroup(HelpfulGroup):
    """`restore batch SRC DST` is `restore batch run SRC DST`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put `run` before arguments that begin with no command."""
        if args and args[0] not in (*self.commands, "--help"):
            args = ["run", *args]
        return super().parse_args(ctx, args)


@click.group(
    cls=BatchGroup,
    params=program_options(),
    subcommand_metavar="SRC DST | status DST",
    short_help="Restore a folder of pictures and clips with many workers.",
    examples=[
        "restore batch photos restored --workers 4",
        "restore batch run --help",
        "restore batch status restored",
    ],
)
def batch() -> None:
    """Restore thousands of pictures and clips; `restore batch SRC DST` is the same as `run`."""


@batch.command(
    "run",
    cls=HelpfulCommand,
    params=[*make_options(BatchConfig), *program_options()],
    short_help="Restore SRC into DST, or go on with it.",
    examples=[
        "restore batch photos restored",
        "restore batch footage restored --engine ray --workers 2 -n compact-fast",
        "restore batch inbox outbox --watch --include '*.jpg'",
        "restore batch s3://bucket/in s3://bucket/out --engine ray --address auto",
        "restore batch photos restored --dry-run",
    ],
)
@click.argument("src", type=click.Path(), metavar="SRC")
@click.argument("dst", type=click.Path(), metavar="DST")
@click.pass_obj
def batch_run(session: Session, /, src: str, dst: str, **values: Any) -> int:
    """Restore every picture and clip below SRC into the same tree below DST.

    Whatever ends the program, the same command goes on: what is finished is left alone unless its
    source has changed, and what failed is tried again. One bad file does not stop the others: what
    failed is listed at the end, and the exit status is 1. SRC and DST are folders, or addresses
    such as s3://bucket/name.
    """
    session.json = values["json"]
    config = make_config(BatchConfig, values)

    from restore.batch import restore_batch

    say_licence(config.model)
    session.resume_hint = "the same command goes on"
    lines = BatchLines(Meter("items", shown=not config.json), json=config.json)
    try:
        report = restore_batch(src, dst, config=config, on_event=lines.event)
    finally:
        lines.meter.close()
    return lines.summary(report)


@batch.command(
    "status",
    cls=HelpfulCommand,
    params=program_options(),
    short_help="Say how a batch stands.",
    examples=["restore batch status restored", "restore batch status s3://bucket/out --json"],
)
@click.option("--json", is_flag=True, help="Write the status as one JSON object.")
@click.argument("dst", type=click.Path(), metavar="DST")
@click.pass_obj
def batch_status(session: Session, dst: str, json: bool) -> None:
    """Say how many items are done, in work, left and failed, how fast it goes, and what failed."""
    from restore.batch import read_status

    session.json = json
    status = read_status(dst)
    if json:
        say_json(dataclasses.asdict(status))
    else:
        click.echo("\n".join(status_lines(status)))


class BatchLines:
    """Tells what `restore_batch` does.

    Args:
        meter: shows the progress.
        json: write objects instead of lines.
    """

    def __init__(self, meter: Meter, *, json: bool) -> None:
        self.meter, self.json = meter, json
        self._pace = Pace(JSON_SECONDS)

    def event(self, event: BatchEvent) -> None:
        """Take one event."""
        name = _words(type(event).__name__)
        fields = fields_of(event)
        if self.json:
            if name != "progress" or self._pace.due():
                say_json({"event": name, **fields})
        elif name == "progress":
            self._progress(fields)
        elif name == "planned":
            click.echo(f"{shown(fields['source'])} -> {shown(fields['destination'])}", err=True)
        elif name == "worker_lost":
            click.echo(f"restore: worker {fields['worker']} {fields['reason']}", err=True)
        elif name == "retried":
            said = f"attempt {fields['attempt']} failed, {fields['message']}"
            click.echo(f"restore: {shown(fields['source'])}: {said}", err=True)

    def _progress(self, fields: dict[str, Any]) -> None:
        settled = fields["done"] + fields["failed"]
        left = fields["eta_seconds"]
        note = f"{fields['rate']:.2f} a second" + ("" if left is None else f", {clock(left)} left")
        failed = f", {fields['failed']} failed" if fields["failed"] else ""
        self.meter.update(settled, settled + fields["left"], note=note + failed)

    def summary(self, report: BatchReport) -> int:
        """List what failed and say how many of which; the exit status."""
        counts = {name: getattr(report, name) for name in ("done", "planned", "skipped")}
        counts["failed"] = len(report.failed)
        if self.json:
            more = {"frames": report.frames, "workers_lost": report.workers_lost}
            say_json({"event": "summary", **counts, **more, "seconds": report.seconds})
        else:
            sys.stderr.flush()
            for source, message in report.failed:
                click.echo(f"restore: failed: {shown(source)}: {message}", err=True)
            words = {"restored": counts.pop("done"), **counts}
            words["already done"] = words.pop("skipped")
            said = ", ".join(f"{number} {word}" for word, number in words.items() if number)
            speed = report.done / max(report.seconds, 1e-3)
            rate = f", {speed:.2f} a second" if report.done else ""
            click.echo(f"{said or 'nothing to do'} in {clock(report.seconds)}{rate}", err=True)
        return FAILED if report.failed else 0


def status_lines(status: BatchStatus) -> list[str]:
    """What a person reads."""
    left = "" if status.eta_seconds is None else f", about {clock(status.eta_seconds)} left"
    pieces = f" ({status.pieces_done} of {status.pieces} pieces)" if status.pieces else ""
    lines = [
        f"{status.target}: {status.items} items",
        f"  done     {status.done} ({status.frames} frames)",
        f"  in work  {status.running}{pieces}",
        f"  left     {status.left}",
        f"  failed   {status.failed}",
        f"  pace     {status.per_minute:.1f} items a minute{left}",
    ]
    lines += [f"{shown(source)}: {message}" for source, message in status.failures[:LISTED]]
    more = len(status.failures) - LISTED
    return [*lines, *([f"and {more} more; --json names all"] if more > 0 else [])]


def _words(kind: str) -> str:
    """`ItemDone` is `done`, `WorkerLost` is `worker_lost`."""
    kind = kind.removeprefix("Item").removeprefix("Batch")
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in kind).lstrip("_")
