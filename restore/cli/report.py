"""Events of the engine as lines for people on stderr, or as JSON lines on stdout."""

from __future__ import annotations

import dataclasses
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from restore.cli.app import FAILED, say_json
from restore.cli.progress import Meter
from restore.durations import clock

if TYPE_CHECKING:
    from restore.cli.options import Session
    from restore.image.events import Event, ImageReport
    from restore.training.trainer import TrainStep
    from restore.video import LiveProgress, LiveResult, VideoProgress, VideoResult

JSON_SECONDS = 1.0
"""Shortest time between two progress objects."""


class Pace:
    """Lets something happen at most once in some seconds."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._last = float("-inf")

    def due(self) -> bool:
        """Whether it is time; if so, the clock starts again."""
        now = time.monotonic()
        if now - self._last < self.seconds:
            return False
        self._last = now
        return True


class ImageLines:
    """Tells what `restore_images` or `degrade_files` does.

    Args:
        meter: shows the progress.
        json: write objects instead of lines.
        done: what a finished input is called at the end.
    """

    def __init__(self, meter: Meter, *, json: bool, done: str = "restored") -> None:
        self.meter, self.json = meter, json
        self._done = done
        self.failed: list[tuple[str, str]] = []
        self._index = self._total = 0
        self._pace = Pace(JSON_SECONDS)

    def event(self, event: Event) -> None:
        """Take one event of `restore_images`."""
        name = type(event).__name__.lower()
        fields = fields_of(event)
        if name == "failed":
            self.failed.append((fields["source"], fields["message"]))
        if name == "started":
            self._index, self._total = fields["index"], fields["total"]
        if self.json:
            if name != "advanced" or self._pace.due():
                say_json({"event": name, **fields})
        elif name in ("started", "advanced"):
            part = f", part {fields['done']} of {fields['total']}" if name == "advanced" else ""
            self.meter.update(self._index - 1, self._total, note=shown(fields["source"]) + part)
        elif name != "failed":
            click.echo(image_line(name, fields), err=True)

    def close(self) -> None:
        """List what failed; also called when the run is broken off."""
        self.meter.close()
        for source, message in [] if self.json else self.failed:
            click.echo(f"restore: failed: {shown(source)}: {message}", err=True)

    def summary(self, report: ImageReport) -> int:
        """Say how many of which; the exit status."""
        counts = {
            name: len(getattr(report, name)) for name in ("done", "planned", "skipped", "failed")
        }
        if self.json:
            say_json({"event": "summary", **counts, "seconds": report.seconds})
        elif sum(counts.values()) > 1:
            words = {self._done: counts.pop("done"), **counts}
            text = ", ".join(f"{number} {word}" for word, number in words.items() if number)
            click.echo(f"{text} in {clock(report.seconds)}", err=True)
        return FAILED if report.failed else 0


def image_line(name: str, fields: dict[str, Any]) -> str:
    """One line on a picture that is `done`, `planned` or `skipped`."""
    if name == "skipped":
        return f"{shown(fields['source'])}: skipped, {fields['reason']}"
    before, after = (
        f"{width}x{height}" for width, height in (fields["size_in"], fields["size_out"])
    )
    took = f", {fields['seconds']:.1f} s" if "seconds" in fields else ""
    names = f"{shown(fields['source'])} -> {shown(fields['destination'])}"
    return f"{names} ({before} -> {after}{took})"


class VideoLines:
    """Tells what `restore_video` does."""

    def __init__(self, meter: Meter, *, json: bool) -> None:
        self.meter, self.json = meter, json
        self._pace = Pace(JSON_SECONDS)
        self._stage = ""

    def progress(self, progress: VideoProgress) -> None:
        """Take one progress report of `restore_video`."""
        if self.json:
            changed = progress.stage != self._stage
            if self._pace.due() or changed:
                say_json({"event": "progress", **dataclasses.asdict(progress)})
        elif progress.stage == "join":
            self.meter.update(progress.frames_done, progress.frames_total, note="putting together")
        else:
            left = progress.eta_seconds
            note = f"{progress.fps:.2f} fps" + ("" if left is None else f", {clock(left)} left")
            self.meter.update(progress.frames_done, progress.frames_total, note=note)
        self._stage = progress.stage

    def result(self, source: str, result: VideoResult) -> int:
        """Say what came out; the exit status."""
        self.meter.close()
        dry = result.plan.config.dry_run
        if self.json:
            say_json({"event": "planned" if dry else "done", **video_fields(source, result)})
        else:
            click.echo(video_line(source, result), err=True)
        if result.damaged is None:
            return 0
        if not self.json:
            click.echo(f"restore: failed: {shown(source)}: {result.damaged}", err=True)
        return FAILED


def video_fields(source: str, result: VideoResult) -> dict[str, Any]:
    """What a program reads about a clip."""
    plan = result.plan
    own = fields_of(result)
    del own["plan"]
    return {
        "source": source,
        "destination": str(own.pop("path")),
        **own,
        "frames_expected": plan.frames,
        "size_in": (plan.info.width, plan.info.height),
        "encoder": plan.spec.encoder,
        "pixel_format": plan.spec.pix_fmt,
    }


def video_line(source: str, result: VideoResult) -> str:
    """One line on a clip that is done or planned."""
    plan = result.plan
    size = f"{plan.info.width}x{plan.info.height} -> {result.width}x{result.height}"
    how = f"{plan.spec.encoder}, {plan.spec.pix_fmt}"
    names = f"{shown(source)} -> {shown(str(result.path))}"
    if plan.config.dry_run:
        frames = "an unknown number of" if plan.frames is None else str(plan.frames)
        return f"{names} ({size}, {frames} frames, {how})"
    resumed = f", {result.resumed_frames} of them from before" if result.resumed_frames else ""
    return f"{names} ({size}, {result.frames} frames{resumed}, {how}, {clock(result.seconds)})"


class LiveLines:
    """Tells what `restore_stream` does: the bar on a terminal, and one line at the end.

    Args:
        meter: shows the progress.
        json: write objects instead of lines.
        session: gets what was done so far, for the line that says that a run was broken off.
    """

    def __init__(self, meter: Meter, session: Session, *, json: bool) -> None:
        self.meter, self.json = meter, json
        self._session = session
        self._pace = Pace(JSON_SECONDS)

    def progress(self, progress: LiveProgress) -> None:
        """Take one progress report of `restore_stream`."""
        said = live_words(progress)
        self._session.resume_hint = f"{progress.frames} frames went out, {said}"
        if self.json:
            if self._pace.due():
                say_json({"event": "progress", **dataclasses.asdict(progress)})
        elif sys.stderr.isatty():
            self.meter.update(progress.frames, None, note=said)

    def result(self, source: str, target: str, result: LiveResult) -> int:
        """Say what went out; the exit status."""
        self.meter.close()
        info, own = result.plan.info, fields_of(result)
        del own["plan"]
        if self.json:
            own["delay"] = dataclasses.asdict(result.delay)
            sizes = {"size_in": (info.width, info.height), "format": result.plan.form}
            say_json({"event": "done", "source": source, "destination": target, **own, **sizes})
        else:
            size = f"{info.width}x{info.height} -> {result.width}x{result.height}"
            what = f"{size}, {result.plan.form}, {result.frames} frames, {live_words(result)}"
            click.echo(f"{shown(source)} -> {shown(target)} ({what})", err=True)
        if result.damaged is None:
            return 0
        if not self.json:
            click.echo(f"restore: failed: {shown(source)}: {result.damaged}", err=True)
        return FAILED


def live_words(state: LiveProgress | LiveResult) -> str:
    """Speed and delay of a live run, and what was left out."""
    delay = state.delay
    dropped = f", {state.dropped} left out" if state.dropped else ""
    return (
        f"{state.fps:.2f} fps{dropped}, delay {delay.median_ms:.0f} ms (worst "
        f"{delay.worst_ms:.0f}), {delay.median_frames} frames (worst {delay.worst_frames})"
    )


class TrainLines:
    """Tells how a training run goes."""

    def __init__(self, meter: Meter) -> None:
        self.meter = meter
        self._pace = self._rate = 0.0
        self._steps = 0

    def step(self, step: TrainStep, iterations: int) -> None:
        """Take one step of the trainer."""
        self._steps += 1
        share = max(0.02, 1 / self._steps)  # a mean at first, then a moving one
        self._pace += share * (step.seconds - self._pace)
        self._rate += share * (step.samples - self._rate)
        left = clock(step.seconds_left(self._pace, iterations))
        speed = self._rate / max(self._pace, 1e-9)
        note = f"loss {step.loss:.4f}, {speed:.1f} samples a second, {left} left"
        self.meter.update(step.iteration, iterations, note=note)


def fields_of(item: Any) -> dict[str, Any]:
    """The fields of a dataclass by name, not taken apart further."""
    return {field.name: getattr(item, field.name) for field in dataclasses.fields(item)}


def shown(name: str) -> str:
    """A file name as a terminal can show it, whatever bytes it is made of."""
    return click.format_filename(name)
