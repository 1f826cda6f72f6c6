"""From the fields of a settings dataclass to the options of a command, and back.

The dataclasses in `restore.config` are the one source of every flag, its help and its default;
nothing here names a setting of its own except the three that every command has.
"""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import types
import typing
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import click
from click.shell_completion import CompletionItem

from restore.batch_config import BatchConfig
from restore.codec_config import CodecConfig, CompressConfig, DecompressConfig, FilesConfig
from restore.config import (
    EngineConfig,
    ImageConfig,
    SizeConfig,
    VideoConfig,
)
from restore.data_config import DegradeConfig, PackConfig
from restore.demo_config import DemoConfig
from restore.export import ExportConfig
from restore.live_config import LiveConfig
from restore.registry import CODECS, METHODS
from restore.reports.config import ReportConfig

T = TypeVar("T")

SECTIONS: dict[type, str] = {
    EngineConfig: "Network",
    SizeConfig: "Size of the result",
    ImageConfig: "Pictures",
    LiveConfig: "Live",
    VideoConfig: "Clip",
    PackConfig: "Patches",
    ExportConfig: "Graph",
    DegradeConfig: "Degradation",
    BatchConfig: "Batch",
    ReportConfig: "Report",
    CodecConfig: "Codec",
    FilesConfig: "Files",
    CompressConfig: "Compression",
    DecompressConfig: "Pictures",
    DemoConfig: "Page",
}
"""Heading in the help page for the options that a class brings."""


@dataclass(slots=True)
class Session:
    """What holds for one run of the program, wherever on the line it was given."""

    debug: bool = False
    """Show traces."""
    verbose: bool = False
    """Say more on stderr."""
    json: bool = False
    """The report goes to stdout as JSON lines."""
    resume_hint: str = ""
    """What to do after Ctrl-C to go on."""


class ConfigOption(click.Option):
    """An option made from a dataclass field; it knows its heading in the help page."""

    def __init__(self, *names: Any, section: str, **settings: Any) -> None:
        super().__init__(*names, **settings)
        self.section = section


def _with_one_spelling(settings: dict[str, Any]) -> dict[str, Any]:
    context = {"token_normalize_func": one_spelling, **settings.get("context_settings", {})}
    return {**settings, "context_settings": context}


def one_spelling(token: str) -> str:
    """`--tile_overlap` and `--tile-overlap` are the same option."""
    return token.replace("_", "-")


class HelpfulCommand(click.Command):
    """A command whose help has headings and examples, and whose options take `_` for `-`."""

    def __init__(self, *args: Any, examples: Iterable[str] = (), **settings: Any) -> None:
        super().__init__(*args, **_with_one_spelling(settings))
        self.examples = tuple(examples)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options under one heading for each class they come from."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is None or isinstance(parameter, click.Argument):  # those are in the usage
                continue
            everywhere = not {"--verbose", "--debug", "--help"}.isdisjoint(parameter.opts)
            heading = "Program" if everywhere else getattr(parameter, "section", "Options")
            sections.setdefault(heading, []).append(record)
        last = sections.pop("Program")
        for heading, records in [*sections.items(), ("Program", last)]:
            with formatter.section(heading):
                formatter.write_dl(records, col_max=26)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples as they are: a wrapped command could not be copied."""
        write_examples(formatter, self.examples)


class HelpfulGroup(click.Group):
    """A group of such commands."""

    def __init__(self, *args: Any, examples: Iterable[str] = (), **settings: Any) -> None:
        super().__init__(*args, **_with_one_spelling(settings))
        self.examples = tuple(examples)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order in which they were added, the most used first."""
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command of the first word.

        Raises:
            click.UsageError: there is none; those that exist are named.
        """
        if args and self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            known = self.list_commands(ctx)
            near = difflib.get_close_matches(args[0], known, n=1)
            guess = f"did you mean '{near[0]}'? " if near else ""
            ctx.fail(f"no command '{args[0]}'; {guess}commands: {', '.join(known)}")
        return super().resolve_command(ctx, args)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples as they are."""
        write_examples(formatter, self.examples)


def write_examples(formatter: click.HelpFormatter, examples: Iterable[str]) -> None:
    """A section of command lines, unwrapped."""
    lines = list(examples)
    if lines:
        with formatter.section("Examples"):
            for line in lines:
                formatter.write(f"{'':>{formatter.current_indent}}{line}\n")


def make_options(config: type) -> list[ConfigOption]:
    """One option for each field that has flags, in the order of the help page."""
    hints = get_type_hints(config)
    options = [
        _make_option(f, hints[f.name], _section(config, f.name))
        for f in dataclasses.fields(config)
        if "flags" in f.metadata
    ]
    # What only this command has comes first; what all commands share comes last.
    order = list(SECTIONS.values())[::-1]
    return sorted(options, key=lambda option: order.index(option.section))


def make_config(config: type[T], values: dict[str, Any]) -> T:
    """The settings that the user gave; each field not given keeps its own default.

    Raises:
        OptionError: a value is outside what is allowed.
    """
    names = {f.name for f in dataclasses.fields(config)}  # type: ignore[arg-type]
    return config(**{name: value for name, value in values.items() if name in names})


def input_option(config: type) -> ConfigOption:
    """`-i PATH` as another way to write the positional inputs; the value is named `more`."""
    return ConfigOption(
        ["-i", "--input", "more"],
        section=SECTIONS[config],
        multiple=True,
        type=click.Path(allow_dash=True),
        metavar="PATH",
        help="The same as IN.",
    )


def program_options() -> list[click.Option]:
    """`-v` and `--debug`, which stand before or after the command's name."""
    return [
        click.Option(
            ["-v", "--verbose"],
            is_flag=True,
            expose_value=False,
            callback=_remember("verbose"),
            help="Say on stderr what is chosen and done.",
        ),
        click.Option(
            ["--debug"],
            is_flag=True,
            expose_value=False,
            callback=_remember("debug"),
            help="Show the whole trace of an error.",
        ),
    ]


def _remember(name: str) -> Callable[[click.Context, click.Parameter, bool], None]:
    def callback(ctx: click.Context, _: click.Parameter, value: bool) -> None:
        session = ctx.find_object(Session)
        if value and session is not None:
            setattr(session, name, True)

    return callback


def _section(config: type, name: str) -> str:
    for owner in reversed(config.__mro__):
        if name in inspect.get_annotations(owner):
            return SECTIONS[owner]
    raise AssertionError(f"{config.__name__} has no field {name}")


def _make_option(f: dataclasses.Field[Any], hint: Any, section: str) -> ConfigOption:
    settings: dict[str, Any] = {
        "help": f.metadata["help"],
        "default": f.default,
        "metavar": f.metadata.get("metavar"),
        "multiple": f.metadata.get("multiple", False),
    }
    kind = _plain_type(hint)
    if kind is bool:
        settings["is_flag"] = True
        settings["show_default"] = f.default
    else:
        settings["type"] = _click_type(kind, settings["metavar"])
        settings["show_default"] = f.default not in (None, ())
    if f.name == "model":
        codec = settings["metavar"] == "CODEC"
        settings["shell_complete"] = complete_codec if codec else complete_model
    return ConfigOption([*f.metadata["flags"], f.name], section=section, **settings)


def _plain_type(hint: Any) -> Any:
    """The type of one value: `int` of `int | None`, `str` of `tuple[str, ...]`."""
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return next(kind for kind in get_args(hint) if kind is not type(None))
    return get_args(hint)[0] if origin is tuple else hint


def _click_type(kind: Any, metavar: str | None) -> click.ParamType[Any, Any]:
    if get_origin(kind) is Literal:
        return click.Choice(typing.get_args(kind))
    if metavar in ("FILE", "PATH"):
        return click.Path(allow_dash=True)  # the shell completes it; the engine checks it
    plain: dict[Any, click.ParamType[Any, Any]]
    plain = {int: click.INT, float: click.FLOAT, str: click.STRING}
    return plain[kind]


def complete_model(_: click.Context, __: click.Parameter, start: str) -> list[CompletionItem]:
    """Names of methods that begin with `start`, for the shell."""
    return [CompletionItem(name) for name in sorted(METHODS) if name.startswith(start)]


def complete_codec(_: click.Context, __: click.Parameter, start: str) -> list[CompletionItem]:
    """Names of codecs that begin with `start`, for the shell."""
    return [CompletionItem(name) for name in sorted(CODECS) if name.startswith(start)]
