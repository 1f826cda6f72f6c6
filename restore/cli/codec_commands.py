"""The commands `restore compress`, `restore decompress` and `restore info`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from restore.cli.app import FAILED, say_json
from restore.cli.options import (
    HelpfulCommand,
    Session,
    input_option,
    make_config,
    make_options,
    program_options,
)
from restore.cli.progress import Meter
from restore.cli.report import ImageLines, shown
from restore.codec_config import CompressConfig, DecompressConfig, FilesConfig
from restore.errors import InputError, OptionError

if TYPE_CHECKING:
    from restore.image.events import Event


@click.command(
    cls=HelpfulCommand,
    params=[input_option(FilesConfig), *make_options(CompressConfig), *program_options()],
    short_help="Make very small files of pictures.",
    examples=[
        "restore compress photo.jpg --bpp 0.1",
        "restore compress holiday -o small --recursive --size 20kB",
        "restore compress photo.png -o photo.rsc --quality ssim=0.9",
        "restore compress photo.png -n oscar --bpp 0.0313 --base sd-2-1",
        "restore compress - -o - < photo.jpg > photo.rsc",
    ],
)
@click.argument("inputs", nargs=-1, type=click.Path(allow_dash=True), metavar="IN...")
@click.pass_obj
def compress(
    session: Session, /, inputs: tuple[str, ...], more: tuple[str, ...], **values: Any
) -> int:
    """Make very small files of pictures: files, folders, patterns, or - for stdin.

    The bits per pixel that are printed are those of the whole file over the pixels of the picture.
    The format of the files is defined in docs/bitstream.md. One bad picture does not stop the
    others: what failed is listed at the end, and the exit status is 1.
    """
    session.json = values["json"]
    config = make_config(CompressConfig, values)

    from restore.codec.job import compress_images

    say_codec_licence(config.model)
    if config.output != "-":
        session.resume_hint = "the same command with --skip-existing goes on"
    lines = CodecLines(Meter("pictures", shown=not config.json), json=config.json)
    try:
        report = compress_images(inputs + more, config=config, on_event=lines.event)
    finally:
        lines.close()
    return lines.summary(report)


@click.command(
    cls=HelpfulCommand,
    params=[input_option(FilesConfig), *make_options(DecompressConfig), *program_options()],
    short_help="Make pictures of those files.",
    examples=[
        "restore decompress photo.rsc",
        "restore decompress small -o pictures --ext webp --quality 90",
        "restore decompress - -o - < photo.rsc > photo.png",
    ],
)
@click.argument("inputs", nargs=-1, type=click.Path(allow_dash=True), metavar="IN...")
@click.pass_obj
def decompress(
    session: Session, /, inputs: tuple[str, ...], more: tuple[str, ...], **values: Any
) -> int:
    """Make pictures of the files of 'restore compress'; each names its codec and its weights."""
    session.json = values["json"]
    config = make_config(DecompressConfig, values)

    from restore.codec.job import decompress_images

    if config.output != "-":
        session.resume_hint = "the same command with --skip-existing goes on"
    lines = CodecLines(Meter("pictures", shown=not config.json), json=config.json, back=True)
    try:
        report = decompress_images(inputs + more, config=config, on_event=lines.event)
    finally:
        lines.close()
    return lines.summary(report)


@click.command(
    cls=HelpfulCommand,
    params=program_options(),
    short_help="Say what a compressed file holds.",
    examples=["restore info photo.rsc", "restore info photo.rsc --json"],
)
@click.argument("files", nargs=-1, type=click.Path(allow_dash=True), metavar="FILE...")
@click.option("--json", is_flag=True, help="Write one JSON object a file.")
@click.pass_obj
def info(session: Session, files: tuple[str, ...], json: bool) -> int:
    """Say what the header of a file of 'restore compress' holds; nothing is decoded."""
    session.json = json
    if not files:
        raise OptionError("no file was given; give one or more, or - for stdin")
    failed = 0
    for name in files:
        try:
            values = header_values(name)
        except InputError as error:
            failed += 1
            click.echo(f"restore: failed: {shown(name)}: {error}", err=True)
            if json:
                say_json({"event": "failed", "source": name, "message": str(error)})
            continue
        if json:
            say_json(values)
        else:
            click.echo("\n".join(header_lines(values)))
    return FAILED if failed else 0


def header_values(name: str) -> dict[str, Any]:
    """What the header of a coded file says, as plain values.

    Raises:
        InputError: it cannot be read, or is damaged.
    """
    from restore.bitstream import CHUNK_NAMES, VERSION
    from restore.codec.job import read_coded
    from restore.registry import CODECS, codec_class

    source: Path | BinaryIO
    source = sys.stdin.buffer if name == "-" else Path(name)
    file, size = read_coded(source, max_pixels=1 << 56)
    nominal = None
    if file.codec in CODECS:
        rates = {rate.index: rate.bpp for rate in codec_class(file.codec).spec.rates}
        nominal = rates.get(file.rate)
    chunks = {CHUNK_NAMES[kind]: len(data) for kind, data in file.chunks.items()}
    return {
        "source": name,
        "version": VERSION,
        "codec": file.codec,
        "weights": file.weights.hex(),
        "rate": file.rate,
        "nominal_bpp": nominal,
        "width": file.width,
        "height": file.height,
        "orientation": file.orientation,
        "gray": file.gray,
        "coding": ("packed", "static", "adaptive", "own")[file.coding],
        "chunks": chunks,
        "body_bytes": len(file.body),
        "bytes": size,
        "bpp": 8 * size / file.pixels,
    }


def header_lines(values: dict[str, Any]) -> list[str]:
    """Those values for a person."""
    nominal = "" if values["nominal_bpp"] is None else f" ({values['nominal_bpp']:g} bpp)"
    chunks = ", ".join(f"{name} {size} bytes" for name, size in values["chunks"].items())
    gray = ", gray" if values["gray"] else ""
    turned = f", orientation {values['orientation']}" if values["orientation"] != 1 else ""
    return [
        f"{shown(values['source'])}: {values['width']}x{values['height']}{gray}{turned}",
        f"    codec: {values['codec']}, rate {values['rate']}{nominal}, weights "
        f"{values['weights']}, format version {values['version']}",
        f"    size: {values['bytes']} bytes, {values['bpp']:.4f} bpp; {values['body_bytes']} of "
        f"them for the pixels, {values['coding']}",
        f"    beside the pixels: {chunks or 'nothing'}",
    ]


class CodecLines(ImageLines):
    """Tells what `compress_images` or `decompress_images` does.

    Args:
        meter: shows the progress.
        json: write objects instead of lines.
        back: it decompresses.
    """

    def __init__(self, meter: Meter, *, json: bool, back: bool = False) -> None:
        super().__init__(meter, json=json, done="decompressed" if back else "compressed")

    def event(self, event: Event) -> None:
        """Take one event; what is done is told with its bytes and its true bits per pixel."""
        from restore.codec.job import CodecDone

        if not isinstance(event, CodecDone):
            super().event(event)
        elif self.json:
            from restore.cli.report import fields_of

            say_json({"event": "done", **fields_of(event)})
        else:
            width, height = event.size_out
            click.echo(
                f"{shown(event.source)} -> {shown(event.destination)} ({width}x{height}, "
                f"{event.bytes} bytes, {event.bpp:.4f} bpp, {event.codec} at "
                f"{event.nominal_bpp:g} bpp, {event.seconds:.1f} s)",
                err=True,
            )


def say_codec_licence(name: str) -> None:
    """Say on stderr when the weights of a codec are not free for every use.

    Raises:
        OptionError: no codec has that name.
    """
    from restore.inventory import own_or_base_notice
    from restore.registry import codec_class

    spec = codec_class(name).spec
    notice = own_or_base_notice(name, spec.licence, spec.base)
    if notice is not None:
        click.echo(f"restore: note: {notice}", err=True)
