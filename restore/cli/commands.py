"""The command line: flags to settings, settings to the engine, events to lines.

Nothing is decided here. Options come from the fields of `restore.config`, work happens in the
modules that each command imports when it runs, so that `restore --help` loads nothing heavy.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import get_completion_class

import restore
from restore.cli.app import FAILED, App, exit_on_sigterm, say_json
from restore.cli.options import (
    HelpfulCommand,
    HelpfulGroup,
    Session,
    input_option,
    make_config,
    make_options,
    program_options,
)
from restore.cli.progress import Meter
from restore.cli.report import ImageLines, TrainLines, VideoLines
from restore.config import ImageConfig, VideoConfig
from restore.errors import OptionError

if TYPE_CHECKING:
    from restore.cli.models import ModelEntry


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
    params=[input_option(VideoConfig), *make_options(VideoConfig), *program_options()],
    short_help="Restore a clip.",
    examples=[
        "restore video clip.mp4 --scale 4",
        "restore video clip.mp4 -o large.mkv --codec hevc --crf 20",
        "restore video clip.mp4 --start 1:30 --end 1:35 -o preview.mp4",
        "restore video clip.mp4 --resume",
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
    """
    session.json = values["json"]
    config = make_config(VideoConfig, values)
    if len(inputs + more) != 1:
        raise OptionError(f"{len(inputs + more)} clips were given; give one")
    source = (inputs + more)[0]

    from restore.video import restore_video

    say_licence(config.model)
    session.resume_hint = "the same command with --resume goes on"
    lines = VideoLines(Meter("frames", shown=not config.json), json=config.json)
    try:
        result = restore_video(source, config=config, progress=lines.progress)
    finally:
        lines.meter.close()
    return lines.result(source, result)


def say_licence(model: str) -> None:
    """Say on stderr when the weights of `model` are not free for every use.

    Raises:
        OptionError: no method has that name.
    """
    from restore.cli.models import licence_notice
    from restore.registry import method_class

    notice = licence_notice(method_class(model).spec)
    if notice is not None:
        click.echo(f"restore: note: {notice}", err=True)


@app.group(params=program_options(), subcommand_metavar="COMMAND", cls=HelpfulGroup)
def models() -> None:
    """Say which methods there are."""


@models.command(
    "list",
    cls=HelpfulCommand,
    params=program_options(),
    short_help="List every method.",
    examples=["restore models list", "restore models list --json"],
)
@click.option("--json", is_flag=True, help="Write one JSON object a line.")
@click.pass_obj
def models_list(session: Session, json: bool) -> None:
    """List every method: its scale, its licence, and whether its weights are here."""
    from restore.cli.models import list_models

    session.json = json
    for entry in list_models():
        if json:
            say_json(dataclasses.asdict(entry))
        else:
            click.echo("\n".join(model_lines(entry)))


def model_lines(entry: ModelEntry) -> list[str]:
    """What a person reads about one method."""
    scale = f"x{entry.scale}" if entry.scale else "x?"
    default = ", default" if entry.default else ""
    weights = f"{entry.weights_bytes / 2**20:.1f} MiB" if entry.weights else "not here"
    lines = [
        f"{entry.name} ({scale}{default}): {entry.summary}",
        f"    number formats: {', '.join(entry.dtypes)}; weights: {weights}",
        f"    licence of the weights: {entry.licence}"
        + ("" if entry.commercial_use else " (check it before commercial use)"),
    ]
    return lines + ([f"    problem: {entry.problem}"] if entry.problem else [])


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
@click.option("--resume", is_flag=True, help="Go on from the last checkpoint.")
@click.option("--overwrite", is_flag=True, help="Start again although the folder holds a run.")
@click.pass_obj
def train(session: Session, recipe: str, output: str | None, resume: bool, overwrite: bool) -> None:
    """Train the network that RECIPE, a YAML file, describes.

    The folder of the run gets net.safetensors for --weights, state.pt for --resume, log.csv and
    recipe.json.
    """
    if resume and overwrite:
        raise OptionError("both --resume and --overwrite were given; give one of them")

    from restore.training.run import train_from_file

    session.resume_hint = "the same command with --resume goes on from the last checkpoint"
    lines = TrainLines(Meter("iterations"))
    try:
        weights = train_from_file(
            Path(recipe),
            output=None if output is None else Path(output),
            resume=resume,
            overwrite=overwrite,
            progress=lines.step,
        )
    finally:
        lines.meter.close()
    click.echo(f"weights: {weights}", err=True)


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
    exit_on_sigterm()
    app()
