"""The commands under `restore models`."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click
from click.shell_completion import CompletionItem

from restore.cli.app import FAILED, say_json
from restore.cli.options import (
    HelpfulCommand,
    HelpfulGroup,
    Session,
    complete_model,
    make_config,
    make_options,
    program_options,
)
from restore.cli.progress import Meter
from restore.errors import OutputError, RestoreError
from restore.export import ExportConfig
from restore.registry import CODECS, METHODS
from restore.zoo.entries import ENTRIES

if TYPE_CHECKING:
    from restore.export import Exported
    from restore.zoo.entry import Variant
    from restore.zoo.network import Network

_JSON_SECONDS = 1.0  # between two progress lines


def say_licence(model: str) -> None:
    """Say on stderr when the weights of `model` are not free for every use.

    Raises:
        OptionError: no method has that name.
    """
    from restore.inventory import licence_notice
    from restore.registry import method_class

    notice = licence_notice(method_class(model).spec)
    if notice is not None:
        click.echo(f"restore: note: {notice}", err=True)


def complete_weights(_: click.Context, __: click.Parameter, start: str) -> list[CompletionItem]:
    """Names of weights that begin with `start`, for the shell."""
    return [CompletionItem(name) for name in sorted(ENTRIES) if name.startswith(start)]


@click.group(params=program_options(), subcommand_metavar="COMMAND", cls=HelpfulGroup)
def models() -> None:
    """List methods and their weights; fetch, check and convert weights; write a network as ONNX."""


@models.command(
    "list",
    cls=HelpfulCommand,
    params=program_options(),
    short_help="List methods and weights.",
    examples=["restore models list", "restore models list --json"],
)
@click.option("--json", is_flag=True, help="Write one JSON object a line.")
@click.pass_obj
def models_list(session: Session, json: bool) -> None:
    """List every method and codec: scale or rates, licence, and whether all it needs is here.

    Below them stand the weights that can be pulled.
    """
    from restore.cli.model_lines import codec_lines, model_lines, zoo_lines
    from restore.inventory import list_codecs, list_models, list_zoo

    session.json = json
    methods, codecs, zoo = list_models(), list_codecs(), list_zoo()
    if json:
        for entries in (methods, codecs, zoo):
            for entry in entries:
                say_json(dataclasses.asdict(entry))
        return
    for method in methods:
        click.echo("\n".join(model_lines(method)))
    if codecs:
        click.echo("\nCodecs for 'restore compress':")
    for codec in codecs:
        click.echo("\n".join(codec_lines(codec)))
    click.echo("\nWeights for 'restore models pull':")
    for state in zoo:
        click.echo("\n".join(zoo_lines(state)))


@models.command(
    "info",
    cls=HelpfulCommand,
    params=program_options(),
    short_help="Say all that is known of one.",
    examples=["restore models info stable-diffusion-2-1-base", "restore models info compact"],
)
@click.argument("name", metavar="NAME", shell_complete=complete_weights)
@click.option("--json", is_flag=True, help="Write one JSON object.")
@click.pass_obj
def models_info(session: Session, name: str, json: bool) -> None:
    """Say where weights come from, their licence, size and hash, and where they lie here.

    NAME is that of a method, of a codec or of weights.
    """
    from restore.cli.model_lines import codec_lines, entry_lines, entry_values, model_lines
    from restore.inventory import describe_codec, describe_model
    from restore.zoo.entries import find_entry

    session.json = json
    model = describe_model(name) if name in METHODS else None
    codec = describe_codec(name) if name in CODECS else None
    known = model or codec
    entry = find_entry(name) if known is None or name in ENTRIES else None
    if json:
        say_json(
            {
                "name": name,
                "method": None if model is None else dataclasses.asdict(model),
                "codec": None if codec is None else dataclasses.asdict(codec),
                "weights": None if entry is None else entry_values(entry),
            }
        )
        return
    lines = [] if model is None else model_lines(model)
    lines += [] if codec is None else codec_lines(codec)
    if known is not None and known.weights is not None:
        lines.append(f"    here: {known.weights}")
    click.echo("\n".join([*lines, *([] if entry is None else entry_lines(entry))]))


@models.command(
    "pull",
    cls=HelpfulCommand,
    params=program_options(),
    short_help="Fetch weights.",
    examples=[
        "restore models pull osediff",
        "restore models pull osediff ram dape",
        "restore models pull sd-turbo --variant fp16",
        "restore models pull s3diff --alone",
    ],
)
@click.argument(
    "names", nargs=-1, required=True, metavar="NAME...", shell_complete=complete_weights
)
@click.option("--alone", is_flag=True, help="Only what is named, not what it needs.")
@click.option(
    "--variant",
    type=click.Choice(["fp32", "fp16"]),
    default="fp32",
    show_default=True,
    help="Number format of a pretrained model; fp16 is half as large and nearly as good.",
)
@click.option("--keep", is_flag=True, help="Keep a pickle beside the safetensors file made of it.")
@click.option("--offline", is_flag=True, help="Do not touch the network: say what is missing.")
@click.option("--json", is_flag=True, help="Write events as JSON, one object a line.")
@click.pass_obj
def models_pull(
    session: Session,
    names: tuple[str, ...],
    alone: bool,
    variant: str,
    keep: bool,
    offline: bool,
    json: bool,
) -> int:
    """Fetch weights and all they need, check them, and convert pickles to safetensors.

    A download that was broken off goes on where it stopped. RESTORE_CACHE names the folder,
    RESTORE_OFFLINE=1 keeps off the network, HF_ENDPOINT is asked in place of huggingface.co, and
    HF_TOKEN goes to that host alone.
    """
    from restore.zoo.entries import find_entry
    from restore.zoo.network import Network
    from restore.zoo.pull import with_needs

    session.json = json
    session.resume_hint = "the same command goes on with what has arrived"
    wanted = [name for name in names if name in ENTRIES or name not in {**METHODS, **CODECS}]
    for name in names:
        if name not in wanted:
            click.echo(f"{name}: its weights are in the package", err=True)
    chosen = [find_entry(name).name for name in wanted] if alone else with_needs(wanted)
    network = Network.from_environment(offline=offline)
    failed = 0
    for name in chosen:
        try:
            pull_one(name, network, cast("Variant", variant), keep=keep, json=json)
        except RestoreError as error:
            failed += 1
            click.echo(f"restore: failed: {error}", err=True)
            if json:
                say_json({"event": "failed", "name": name, "message": str(error)})
    return FAILED if failed else 0


def pull_one(name: str, network: Network, variant: Variant, *, keep: bool, json: bool) -> None:
    """Fetch one entry and say so.

    Raises:
        RestoreError: it could not be fetched.
    """
    from restore.cli.model_lines import pulled_line
    from restore.inventory import licence_line
    from restore.zoo.pull import pull

    notice = licence_line(name, ENTRIES[name].licence)
    if notice is not None:
        click.echo(f"restore: note: {notice}", err=True)
    meter = Meter("MiB", shown=not json)
    said = 0.0

    def progress(name: str, path: str, done: int, total: int | None) -> None:
        nonlocal said
        meter.update(done >> 20, None if total is None else total >> 20, note=f"{name}: {path}")
        if json and time.monotonic() - said >= _JSON_SECONDS:
            said = time.monotonic()
            say_json(
                {"event": "progress", "name": name, "file": path, "done": done, "total": total}
            )

    try:
        for pulled in pull([name], network=network, variant=variant, keep=keep, progress=progress):
            if json:
                say_json({"event": "done", **dataclasses.asdict(pulled)})
            else:
                click.echo(pulled_line(pulled), err=True)
    finally:
        meter.close()


@models.command(
    "verify",
    cls=HelpfulCommand,
    params=program_options(),
    short_help="Check weights that are here.",
    examples=["restore models verify", "restore models verify --json"],
)
@click.argument("names", nargs=-1, metavar="[NAME...]", shell_complete=complete_weights)
@click.option("--json", is_flag=True, help="Write one JSON object a file.")
@click.pass_obj
def models_verify(session: Session, names: tuple[str, ...], json: bool) -> int:
    """Read pulled weights again and compare their hashes; without NAME, all that are here.

    The exit status is 1 when a file is missing or has changed.
    """
    from restore.cli.model_lines import check_line
    from restore.zoo.verify import verify

    session.json = json
    meter = Meter("MiB", shown=not json)
    failed, checked = 0, 0
    try:
        for check in verify(names, progress=lambda n, a, b: meter.update(a >> 20, b >> 20, note=n)):
            checked += 1
            failed += check.problem is not None
            if json:
                say_json(dataclasses.asdict(check))
            elif check.problem is None:
                click.echo(check_line(check))
            else:
                click.echo(f"restore: failed: {check.problem}", err=True)
    finally:
        meter.close()
    if not checked:
        click.echo(
            "no pulled weights are here; 'restore models list' shows what there is", err=True
        )
    return FAILED if failed else 0


@models.command(
    "convert",
    cls=HelpfulCommand,
    params=program_options(),
    short_help="Make safetensors files of pickles.",
    examples=[
        "restore models convert osediff.pkl -o osediff.safetensors --overwrite",
        "restore models convert FlashVSR -o flashvsr",
    ],
)
@click.argument("file", type=click.Path(), metavar="FILE")
@click.option(
    *("-o", "--output"),
    type=click.Path(),
    metavar="FILE",
    help="File or folder to write; default: beside the pickle, with the ending .safetensors.",
)
@click.option("--overwrite", is_flag=True, help="Replace a file that is there.")
@click.option("--json", is_flag=True, help="Write one JSON object a file.")
@click.pass_obj
def models_convert(
    session: Session, file: str, output: str | None, overwrite: bool, json: bool
) -> None:
    """Make a safetensors file of a published .pkl, .pth or .ckpt; nothing in it is run.

    The file holds all that the pickle held, and can be given with --weights in its place. Where
    FILE is a folder, this is done for every pickle in it; its other weights come along when the
    output is another folder.
    """
    from restore.cli.model_lines import size_text
    from restore.nested_weights import convert, folder_plan, link
    from restore.weights import PICKLE_SUFFIXES
    from restore.zoo.cache import writing
    from restore.zoo.hashing import hash_file

    session.json = json
    source = Path(file)
    if source.is_dir():
        plan = folder_plan(source, Path(output or source))
    else:
        plan = {source: Path(output) if output is not None else source.with_suffix(".safetensors")}
    for target in plan.values():
        if target.suffix != ".safetensors" and not source.is_dir():
            raise OutputError(
                f"{target} is no name for the result; give one that ends in .safetensors"
            )
        if target.exists() and not overwrite:
            raise OutputError(f"{target} is there; give --overwrite, or another name with --output")
    for one, target in plan.items():
        with writing(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            make = link if source.is_dir() and one.suffix not in PICKLE_SUFFIXES else convert
            make(one, target)
            digests = hash_file(target)
        if json:
            values = {"path": target, "bytes": digests.size, "sha256": digests.sha256}
            say_json(values)
        else:
            click.echo(f"{target}: {size_text(digests.size)}, SHA-256 {digests.sha256}", err=True)


@models.command(
    "export",
    cls=HelpfulCommand,
    params=[*make_options(ExportConfig), *program_options()],
    short_help="Write a method's network as an ONNX file.",
    examples=[
        "restore models export compact -o compact.onnx",
        "restore models export compact --scale 2 --fidelity 0.5 -o half.onnx",
        "restore models export compact-fast --temporal --int8 --overwrite",
    ],
)
@click.argument("model", metavar="MODEL", shell_complete=complete_model)
def models_export(model: str, **values: Any) -> None:
    """Write a method's network as an ONNX file, for other programs and devices.

    The file takes pictures of any size: RGB, batch x 3 x height x width, float32 from 0 to 1. It
    is compared with PyTorch in ONNX Runtime, and kept when they agree.
    """
    config = make_config(ExportConfig, values)

    from restore.export import export_method

    say_licence(model)
    click.echo(exported_line(export_method(model, config)), err=True)


def exported_line(exported: Exported) -> str:
    """What a person reads about a file that was written."""
    size = f"{exported.bytes / 2**20:.1f} MiB"
    most, mean = 255 * exported.largest, 255 * exported.mean
    return (
        f"{exported.path}: {exported.model}, x{exported.scale}, {size}; differs from PyTorch by "
        f"{most:.2g} of 255 at most, {mean:.2g} in the mean"
    )
