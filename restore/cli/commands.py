"""The command line: flags to settings, settings to the engine, events to lines.

Nothing is decided here. Options come from the fields of `restore.config`, work happens in the
modules that each command imports when it runs, so that `restore --help` loads nothing heavy.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path
from typing import Any

import click
from click.shell_completion import get_completion_class

import restore
from restore.allocator import keep_large_blocks
from restore.cli.app import FAILED, App, exit_on_sigterm, say_json
from restore.cli.batch_commands import batch
from restore.cli.codec_commands import compress, decompress, info
from restore.cli.demo_command import demo
from restore.cli.metric_commands import metrics
from restore.cli.model_commands import models, say_licence
from restore.cli.options import (
    HelpfulCommand,
    Session,
    input_option,
    make_config,
    make_options,
    program_options,
)
from restore.cli.progress import Meter
from restore.cli.report import ImageLines, LiveLines, TrainLines, VideoLines
from restore.config import ImageConfig, VideoConfig
from restore.data_config import DegradeConfig, PackConfig
from restore.errors import OptionError
from restore.live_config import STANDARD, LiveConfig


@click.group(
    cls=App,
    params=program_options(),
    subcommand_metavar="COMMAND",
    examples=[
        "restore image photo.jpg",
        "restore video clip.mp4 --scale 4",
        "restore doctor",
    ],
)
@click.version_option(restore.__version__, prog_name="restore", message="%(prog)s %(version)s")
def app() -> None:
    """Restore photos and videos: sharper, cleaner, larger."""


@app.command(
    cls=HelpfulCommand,
    params=[input_option(ImageConfig), *make_options(ImageConfig), *program_options()],
    short_help="Restore pictures.",
    examples=[
        "restore image photo.jpg",
        "restore image photo.jpg -o large.png --target 3840x2160",
        "restore image holiday -o restored --recursive --skip-existing",
        "restore image 'scans/*.tif' --scale 2 --suffix _clean",
        "restore image photo.jpg -n osediff --tags 'dog, grass' --seed 3",
        "restore image - -o - --ext png < small.jpg > large.png",
    ],
)
@click.argument("inputs", nargs=-1, type=click.Path(allow_dash=True), metavar="IN...")
@click.pass_obj
def image(
    session: Session, /, inputs: tuple[str, ...], more: tuple[str, ...], **values: Any
) -> int:
    """Restore pictures: files, folders, patterns, or - for stdin.

    Originals are never changed. One bad file does not stop the others: what failed is listed at
    the end, and the exit status is 1.
    """
    session.json = values["json"]
    config = make_config(ImageConfig, values)
    if not inputs + more:
        raise OptionError("no input was given; give pictures, folders, patterns or - for stdin")

    from restore.image.job import restore_images

    say_licence(config.model)
    if config.output != "-":
        session.resume_hint = "the same command with --skip-existing goes on"
    lines = ImageLines(Meter("pictures", shown=not config.json), json=config.json)
    try:
        report = restore_images(inputs + more, config=config, on_event=lines.event)
    finally:
        lines.close()
    return lines.summary(report)


@app.command(
    cls=HelpfulCommand,
    params=[input_option(VideoConfig), *make_options(LiveConfig), *program_options()],
    short_help="Restore a clip.",
    examples=[
        "restore video clip.mp4 --scale 4",
        "restore video clip.mp4 -o large.mkv --codec hevc --crf 20",
        "restore video clip.mp4 --start 1:30 --end 1:35 -o preview.mp4",
        "restore video clip.mp4 --resume",
        "restore video - -o - --stream --stream-format nut < in.mkv | ffplay -",
    ],
)
@click.argument("inputs", nargs=-1, type=click.Path(), metavar="IN")
@click.pass_obj
def video(
    session: Session, /, inputs: tuple[str, ...], more: tuple[str, ...], **values: Any
) -> int:
    """Restore a clip: every frame, with the sound and all else that is in the file.

    Work that was broken off, by Ctrl-C, a crash or a power cut, goes on with --resume; the result
    is the same as that of an undisturbed run.

    With --stream frames go out as they come in: from stdin, a file, a device or an address to
    stdout or a file. Nothing else is written to stdout then.
    """
    session.json = values["json"]
    live = make_config(LiveConfig, values)
    if len(inputs + more) != 1:
        raise OptionError(f"{len(inputs + more)} clips were given; give one")
    keep_large_blocks()
    source = (inputs + more)[0]
    if live.stream:
        return _stream(session, source, live)
    if source == STANDARD:
        raise OptionError("- is stdin, which is read as a stream only; add --stream")
    config = make_config(VideoConfig, values)

    from restore.video import restore_video

    say_licence(config.model)
    session.resume_hint = "the same command with --resume goes on"
    lines = VideoLines(Meter("frames", shown=not config.json), json=config.json)
    try:
        result = restore_video(source, config=config, progress=lines.progress)
    finally:
        lines.meter.close()
    return lines.result(source, result)


def _stream(session: Session, source: str, config: LiveConfig) -> int:
    """The live mode of `video`."""
    target = config.output or STANDARD
    if target == STANDARD and sys.stdout.isatty():
        raise OptionError(
            "the stream would go to this terminal; pipe it into another program, or give -o FILE"
        )

    from restore.video import restore_stream

    say_licence(config.model)
    lines = LiveLines(Meter("frames", shown=not config.json), session, json=config.json)
    try:
        result = restore_stream(source, target, config=config, progress=lines.progress)
    finally:
        lines.meter.close()
    names = {STANDARD: "stdin"}.get(source, source), {STANDARD: "stdout"}.get(target, target)
    return lines.result(*names, result)


for command in (batch, compress, decompress, info, metrics, demo, models):
    app.add_command(command)


@app.command(
    cls=HelpfulCommand,
    params=program_options(),
    short_help="Say what works here and what is missing.",
    examples=["restore doctor", "restore doctor --json"],
)
@click.option("--json", is_flag=True, help="Write the report as one JSON object.")
@click.pass_obj
def doctor(session: Session, json: bool) -> int:
    """Say what this machine offers, what is missing, and the command that brings it.

    The exit status is 0 when pictures and clips can be restored here, else 1.
    """
    from restore.cli.doctor import examine, report_lines

    session.json = json
    health = examine()
    if json:
        say_json(dataclasses.asdict(health))
    else:
        click.echo("\n".join(report_lines(health)))
    return 0 if health.ok else FAILED


@app.command(
    cls=HelpfulCommand,
    params=program_options(),
    short_help="Train a network on degraded pictures.",
    examples=[
        "restore train recipe.yaml",
        "restore train recipe.yaml --resume",
        "restore train recipe.yaml --set optim.lr=1e-4 --set batch=8",
        "restore image photo.jpg --weights experiments/NAME/net.safetensors",
    ],
)
@click.argument("recipe", type=click.Path(), metavar="RECIPE")
@click.option(
    "-o",
    "--output",
    type=click.Path(),
    metavar="PATH",
    help="Folder of the run; default: experiments/NAME, with the recipe's name.",
)
@click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="FIELD=VALUE",
    help="Another value for a field of the recipe; paths are relative to the current folder.",
)
@click.option(
    "--stop-after",
    type=float,
    metavar="MINUTES",
    help="Save and leave after this time; --resume goes on later.",
)
@click.option("--resume", is_flag=True, help="Go on from the last checkpoint.")
@click.option("--overwrite", is_flag=True, help="Start again although the folder holds a run.")
@click.pass_obj
def train(
    session: Session,
    recipe: str,
    output: str | None,
    changes: tuple[str, ...],
    stop_after: float | None,
    resume: bool,
    overwrite: bool,
) -> None:
    """Train the network that RECIPE, a YAML file, describes.

    The folder of the run gets net.safetensors for --weights, best.safetensors (the best of the
    validations), state.pt for --resume, log.csv, pictures and recipe.json.
    """
    if resume and overwrite:
        raise OptionError("both --resume and --overwrite were given; give one of them")
    if stop_after is not None and not stop_after > 0:
        raise OptionError(f"stop after {stop_after:g} is not possible; give minutes above 0")

    from restore.training.run import train_from_file

    session.resume_hint = "the same command with --resume goes on from the last checkpoint"
    lines = TrainLines(Meter("iterations"))
    try:
        result = train_from_file(
            Path(recipe),
            output=None if output is None else Path(output),
            resume=resume,
            overwrite=overwrite,
            changes=changes,
            stop_after=None if stop_after is None else 60 * stop_after,
            progress=lines.step,
        )
    finally:
        lines.meter.close()
    if not result.finished:
        click.echo(f"stopped at iteration {result.iteration}; --resume goes on", err=True)
    click.echo(f"weights: {result.weights}", err=True)


@app.command(
    cls=HelpfulCommand,
    params=[*make_options(PackConfig), *program_options()],
    short_help="Pack training patches into one file.",
    examples=[
        "restore pack photos more/photos -o patches.safetensors --count 1200 --shrink 0.5",
        "restore pack clips/*.mp4 -o clips.safetensors --frames 5 --count 200",
    ],
)
@click.argument("inputs", nargs=-1, required=True, type=click.Path(), metavar="IN...")
def pack(inputs: tuple[str, ...], **values: Any) -> None:
    """Pack patches of pictures, or short pieces of clips, into one file.

    A recipe takes the file under 'data' (pictures) or 'clips' in place of folders, on a machine
    that has neither the pictures nor the time to decode large ones.
    """
    config = make_config(PackConfig, values)

    from restore.data_pipelines.pack import pack_patches

    meter = Meter("patches" if config.frames == 1 else "clips")
    try:
        size = pack_patches(inputs, config=config, progress=meter.update)
    finally:
        meter.close()
    click.echo(f"{config.output}: {config.count} {meter.unit}, {size / 2**20:.1f} MiB", err=True)


@app.command(
    cls=HelpfulCommand,
    params=[*make_options(DegradeConfig), *program_options()],
    short_help="Make bad pictures of good ones.",
    examples=[
        "restore degrade photos -o bad --recipe realesrgan --seed 7",
        "restore degrade photo.jpg -o bad.png --recipe bsrgan --scale 2",
        "restore degrade clip.mp4 -o bad --recipe realbasicvsr",
        "restore degrade photos -o bad --recipe mine.yaml --recursive --skip-existing",
    ],
)
@click.argument("inputs", nargs=-1, type=click.Path(), metavar="IN...")
@click.pass_obj
def degrade(session: Session, /, inputs: tuple[str, ...], **values: Any) -> int:
    """Make bad pictures and clips of good ones, as training does, to test with.

    Beside each result lies NAME.json with all that was drawn. The draws depend on the seed, the
    recipe and the name of the file, so the same command gives the same bytes. Clips keep their time
    stamps and lose their sound.
    """
    session.json = values["json"]
    config = make_config(DegradeConfig, values)

    from restore.degrading.job import degrade_files

    session.resume_hint = "the same command with --skip-existing goes on"
    meter = Meter("files", shown=not config.json)
    lines = ImageLines(meter, json=config.json, done="degraded")
    try:
        report = degrade_files(inputs, config=config, on_event=lines.event)
    finally:
        lines.close()
    return lines.summary(report)


@app.command(
    cls=HelpfulCommand,
    params=program_options(),
    short_help="Write the completion script of a shell.",
    examples=[
        'eval "$(restore completion bash)"    # in ~/.bashrc',
        'eval "$(restore completion zsh)"     # in ~/.zshrc',
        "restore completion fish | source     # in ~/.config/fish/config.fish",
    ],
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]), metavar="bash|zsh|fish")
def completion(shell: str) -> None:
    """Write the script that completes commands, options and models in a shell."""
    kind = get_completion_class(shell)
    assert kind is not None  # the choice above lists what click has
    click.echo(kind(app, {}, "restore", "_RESTORE_COMPLETE").source())


def main() -> None:
    """Entry point of the `restore` command."""
    # Large pages on Linux, for PyTorch, which is not loaded yet: every frame's tensors are new
    # memory, and handing it over in small pages takes up to a quarter of the network's time.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    exit_on_sigterm()
    app()
