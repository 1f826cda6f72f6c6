"""Settings of each command, as frozen dataclasses.

Every field carries its command-line flags and help text, so that a flag, its default and its
documentation have one source; `restore.cli` turns the fields into options.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

from restore.durations import parse_time
from restore.errors import OptionError
from restore.registry import DEFAULT_METHOD

DTypeChoice = Literal["auto", "fp32", "bf16", "fp16", "int8"]
RuntimeChoice = Literal["torch", "onnx"]
ColorFixChoice = Literal["auto", "none", "wavelet", "adain"]
TilingChoice = Literal["exact", "published"]
PosteriorChoice = Literal["mode", "sample"]
DecoderChoice = Literal["tiny", "full"]
CodecChoice = Literal["h264", "hevc", "av1", "ffv1", "prores"]
EncoderChoice = Literal["software", "hardware"]
ExtChoice = Literal["auto", "png", "jpg", "webp", "tiff", "avif"]

MIN_TILE = 32
MAX_SCALE = 16.0


def flag(default: Any, *names: str, help: str, **extra: Any) -> Any:
    """A dataclass field that the command line shows as an option.

    Args:
        default: value when the flag is not given.
        names: spellings such as `"-s", "--scale"`.
        help: text of `--help`: what it does, its unit and its range.
        extra: more for the option, such as `metavar` or `multiple`.
    """
    return field(default=default, metadata={"flags": names, "help": help, **extra})


def same_flag(config: type, name: str, **changes: Any) -> Any:
    """The option that a field of another command's settings already is.

    Args:
        config: those settings.
        name: the field.
        changes: what is to be said otherwise, such as `help`.
    """
    known = next(own for own in fields(config) if own.name == name)
    return field(default=known.default, metadata={**known.metadata, **changes})


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineConfig:
    """How a method is loaded and run; the same for pictures and clips."""

    model: str = flag(
        DEFAULT_METHOD, "-n", "--model", help="Method to run; see 'restore models list'."
    )
    weights: str | None = flag(
        None, "--weights", metavar="FILE", help="Weight file instead of the model's own."
    )
    base: str | None = flag(
        None,
        "--base",
        metavar="PATH",
        help="Folder of the pretrained model that the weights stand on; default: the pulled one.",
    )
    tile: int = flag(
        0,
        "-t",
        "--tile",
        metavar="PIXELS",
        help=f"Side of a tile in input pixels, {MIN_TILE} or more; 0 = from free memory.",
    )
    tile_overlap: int | None = flag(
        None,
        "--tile-overlap",
        metavar="PIXELS",
        help="Input pixels seen on each side of a tile beside it; default: what the model needs.",
    )
    device: str = flag(
        "auto", "-g", "--device", help="auto, cpu, cuda, cuda:1 or mps; auto = GPU if present."
    )
    dtype: DTypeChoice = flag(
        "auto", "--dtype", help="Number format of the network; auto = the model's best."
    )
    seed: int = flag(0, "--seed", help="Seed of every random draw, 0 or more.")
    color_fix: ColorFixChoice = flag(
        "auto", "--color-fix", help="Take colours from the input; auto = as the model wants."
    )
    fidelity: float | None = flag(
        None,
        "--fidelity",
        metavar="0..1",
        help="1 = true to the pixels, 0 = realistic, with detail made up; default: the model's.",
    )
    denoise: float | None = flag(
        None,
        "--denoise",
        metavar="0..1",
        help="1 = remove noise and grain, 0 = leave them; default: the model's.",
    )
    prompt: str | None = flag(
        None, "--prompt", metavar="TEXT", help="What the picture shows, added to its tags."
    )
    tags: str | None = flag(
        None, "--tags", metavar="TEXT", help="Tags of the picture, a, b, c; the tagger is not run."
    )
    tagger: str | None = flag(
        None,
        "--tagger",
        metavar="FILE",
        help="Weights of the tagger (RAM), or 'none'; default: the pulled ones, if there are any.",
    )
    tagger_adapter: str | None = flag(
        None,
        "--tagger-adapter",
        metavar="FILE",
        help="What adapts the tagger to bad pictures (DAPE), or 'none'; default likewise.",
    )
    tiling: TilingChoice | None = flag(
        None,
        "--tiling",
        help="exact = tiles do not show; published = as the authors' numbers were made.",
    )
    posterior: PosteriorChoice | None = flag(
        None,
        "--posterior",
        help="Of the encoder's Gaussian: its mean, or a draw; default: as the authors do.",
    )
    steps: int | None = flag(
        None, "--steps", help="Passes of the network, where the model can do several."
    )
    consistency: float | None = flag(
        None,
        "--consistency",
        metavar="0..2",
        help="How much frames are to agree: 0 = as the base has it; default: 1, as published.",
    )
    detail: float | None = flag(
        None,
        "--detail",
        metavar="0..2",
        help="How much detail is to be made up: 0 = none, 1 = as published; default: 1.",
    )
    decoder: DecoderChoice | None = flag(
        None, "--decoder", help="tiny = small, and fast; full = the autoencoder's; default: tiny."
    )
    sparse_ratio: float | None = flag(
        None,
        "--sparse-ratio",
        help="How much of the picture attention sees: 1.5 = faster, 2.0 = steadier; default: 2.0.",
    )
    local_range: int | None = flag(
        None,
        "--local-range",
        help="How far attention reaches in blocks: 9 = sharper, 11 = steadier; default: 11.",
    )
    compile: bool = flag(
        False, "--compile", help="Fuse the network with torch.compile: a slow start, then faster."
    )
    runtime: RuntimeChoice = flag(
        "torch",
        "--runtime",
        help="Who computes the network; onnx = ONNX Runtime, on a CPU in int8: faster there.",
    )

    def __post_init__(self) -> None:
        if self.tile != 0 and self.tile < MIN_TILE:
            raise OptionError(
                f"tile {self.tile} is too small; allowed: 0 (automatic) or {MIN_TILE} and more; "
                "leave --tile out to let the program choose"
            )
        if self.tile_overlap is not None and self.tile_overlap < 0:
            raise OptionError(f"tile overlap {self.tile_overlap} is negative; give 0 or more")
        check_seed(self.seed)
        check_choice("dtype", self.dtype, get_args(DTypeChoice))
        check_choice("color fix", self.color_fix, get_args(ColorFixChoice))
        check_choice("runtime", self.runtime, get_args(RuntimeChoice))
        if self.tiling is not None:
            check_choice("tiling", self.tiling, get_args(TilingChoice))
        if self.posterior is not None:
            check_choice("posterior", self.posterior, get_args(PosteriorChoice))
        if self.decoder is not None:
            check_choice("decoder", self.decoder, get_args(DecoderChoice))
        if self.sparse_ratio is not None and not 0 < self.sparse_ratio <= 100:
            raise OptionError(
                f"sparse ratio {self.sparse_ratio:g} is not possible; give more than 0, "
                "such as 1.5 or 2.0"
            )
        if self.local_range is not None and not 1 <= self.local_range <= 999:
            raise OptionError(
                f"local range {self.local_range} is not possible; give 1 or more, such as 9 or 11"
            )
        if self.steps is not None and self.steps < 1:
            raise OptionError(f"steps {self.steps} is not possible; give 1 or more")
        for name, most in (("fidelity", 1), ("denoise", 1), ("consistency", 2), ("detail", 2)):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= most:
                raise OptionError(f"{name} {value:g} is not possible; give 0 to {most}")


@dataclass(frozen=True, kw_only=True, slots=True)
class SizeConfig(EngineConfig):
    """How large the result is to be."""

    scale: float | None = flag(
        None,
        "-s",
        "--scale",
        "--outscale",
        help=f"Size of the result over the input's, up to {MAX_SCALE:g}; default: the model's.",
    )
    target: str | None = flag(
        None,
        "--target",
        metavar="WxH",
        help="Size of the result instead of --scale: 3840x2160, or 1080p for the short side.",
    )

    def __post_init__(self) -> None:
        super(SizeConfig, self).__post_init__()
        if self.scale is not None and self.target is not None:
            raise OptionError("both --scale and --target were given; give one of them")
        if self.scale is not None and not 0 < self.scale <= MAX_SCALE:
            raise OptionError(
                f"scale {self.scale:g} is not possible; "
                f"give a number above 0 and up to {MAX_SCALE:g}"
            )
        if self.target is not None:
            parse_target(self.target)


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageConfig(SizeConfig):
    """`restore image`: pictures in, pictures out."""

    output: str | None = flag(
        None,
        "-o",
        "--output",
        metavar="PATH",
        help="File or folder for the result, - for stdout; default: beside each input.",
    )
    tags_file: str | None = flag(
        None,
        "--tags-file",
        metavar="PATH",
        help="Tags by file name: a folder of NAME.txt, a JSON object, or lines NAME<TAB>a, b.",
    )
    recursive: bool = flag(False, "-r", "--recursive", help="Go into folders below the inputs.")
    suffix: str | None = flag(
        None,
        "--suffix",
        help="Text after the name; default: _x4 (the scale) beside the input, none in a folder.",
    )
    ext: ExtChoice = flag("auto", "--ext", help="Format of the result; auto = that of the input.")
    quality: int = flag(95, "--quality", help="JPEG, WebP and AVIF quality, 1 to 100.")
    skip_existing: bool = flag(
        False, "--skip-existing", help="Leave inputs alone whose result is already there."
    )
    overwrite: bool = flag(False, "--overwrite", help="Replace results that are already there.")
    dry_run: bool = flag(False, "--dry-run", help="Say what would be done, and do nothing.")
    json: bool = flag(False, "--json", help="Report to stdout as one JSON object a line.")
    max_pixels: int = flag(
        500_000_000,
        "--max-pixels",
        help="Refuse inputs and results with more pixels than this.",
    )

    def __post_init__(self) -> None:
        super(ImageConfig, self).__post_init__()
        check_choice("ext", self.ext, get_args(ExtChoice))
        check_quality(self.quality)
        check_files(
            skip_existing=self.skip_existing, overwrite=self.overwrite, max_pixels=self.max_pixels
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoConfig(SizeConfig):
    """`restore video`: one clip in, one clip out."""

    output: str | None = flag(
        None,
        "-o",
        "--output",
        metavar="PATH",
        help="File for the result; default: NAME_x4 beside the input.",
    )
    codec: CodecChoice = flag("h264", "--codec", help="Video codec of the result.")
    encoder: EncoderChoice = flag(
        "software", "--encoder", help="hardware = NVENC, VideoToolbox, QSV or AMF when present."
    )
    crf: float | None = flag(
        None, "--crf", help="Constant quality, lower is better; default: the codec's (h264: 18)."
    )
    preset: str | None = flag(
        None, "--preset", help="Speed of the encoder in its own words; default: the codec's."
    )
    encoder_option: tuple[str, ...] = flag(
        (), "-e", "--encoder-option", metavar="KEY=VALUE", multiple=True, help="For the encoder."
    )
    pix_fmt: str | None = flag(
        None, "--pix-fmt", help="Pixel format, such as yuv420p10le; default: as the input."
    )
    start: str | None = flag(
        None, "--start", metavar="TIME", help="Begin here: seconds or [HH:]MM:SS[.mmm]."
    )
    end: str | None = flag(None, "--end", metavar="TIME", help="Stop here, likewise.")
    audio: bool = flag(True, "--audio/--no-audio", help="Copy the sound.")
    scene_threshold: float = flag(
        0.35,
        "--scene-threshold",
        help="Change between frames that counts as a cut, 0 to 1; 0 = never.",
    )
    tags_file: str | None = flag(
        None,
        "--tags-file",
        metavar="PATH",
        help="Tags by file name, as for 'restore image'.",
    )
    temporal: bool = flag(
        True,
        "--temporal/--no-temporal",
        help="Go on from the frame before, so that nothing flickers; off = each frame by itself.",
    )
    segment: int | None = flag(
        None,
        "--segment",
        metavar="FRAMES",
        help="Frames between two points of resuming, 1 or more; default: 120 for the models in the "
        "package, fewer where a frame takes long.",
    )
    resume: bool = flag(False, "--resume", help="Go on with the unfinished work of an earlier run.")
    overwrite: bool = flag(False, "--overwrite", help="Replace a result that is already there.")
    dry_run: bool = flag(False, "--dry-run", help="Say what would be done, and do nothing.")
    json: bool = flag(False, "--json", help="Report to stdout as one JSON object a line.")

    def __post_init__(self) -> None:
        super(VideoConfig, self).__post_init__()
        check_choice("codec", self.codec, get_args(CodecChoice))
        check_choice("encoder", self.encoder, get_args(EncoderChoice))
        if not 0 <= self.scene_threshold <= 1:
            raise OptionError(
                f"scene threshold {self.scene_threshold:g} is not possible; give 0 to 1"
            )
        if self.segment is not None and self.segment < 1:
            raise OptionError(f"segment {self.segment} is not possible; give 1 frame or more")
        for pair in self.encoder_option:
            if "=" not in pair.strip("="):
                raise OptionError(f"encoder option '{pair}' has no value; write it as key=value")
        start = 0.0 if self.start is None else parse_time(self.start)
        if self.end is not None and parse_time(self.end) <= start:
            raise OptionError(
                f"the end {self.end} is not after the start {self.start or 0}; give a later end"
            )


def check_seed(seed: int) -> None:
    """Refuse a seed that no generator takes."""
    if seed < 0:
        raise OptionError(f"seed {seed} is negative; give 0 or more")


def check_quality(quality: int) -> None:
    """Refuse what is no quality of JPEG, WebP or AVIF."""
    if not 1 <= quality <= 100:
        raise OptionError(f"quality {quality} is not possible; give 1 to 100")


def check_files(*, skip_existing: bool, overwrite: bool, max_pixels: int) -> None:
    """Refuse what cannot be wanted of picture files."""
    if skip_existing and overwrite:
        raise OptionError("both --skip-existing and --overwrite were given; give one of them")
    if max_pixels < 1:
        raise OptionError(f"max pixels {max_pixels} is not possible; give 1 or more")


def check_choice(what: str, got: str, allowed: tuple[str, ...]) -> None:
    """Raise OptionError unless `got` is one of `allowed`."""
    if got not in allowed:
        raise OptionError(f"{what} '{got}' is unknown; allowed: {', '.join(allowed)}")


def parse_target(text: str) -> tuple[int, int] | int:
    """`"3840x2160"` as (width, height), or `"1080p"` as the length of the short side.

    Raises:
        OptionError: it is neither.
    """
    short = text.lower().endswith("p")
    try:
        sides = [int(part) for part in text.lower().removesuffix("p").split("x")]
    except ValueError:
        sides = []
    if len(sides) != (1 if short else 2):
        raise OptionError(f"target '{text}' is not a size; write WIDTHxHEIGHT (3840x2160) or 1080p")
    if not all(1 <= side <= 65536 for side in sides):
        raise OptionError(f"target '{text}' is not possible; sides go from 1 to 65536 pixels")
    return sides[0] if short else (sides[0], sides[1])


def output_size(config: SizeConfig, width: int, height: int, method_scale: int) -> tuple[int, int]:
    """Width and height of the result for an input of `width` x `height` pixels."""
    if config.target is not None:
        target = parse_target(config.target)
        if isinstance(target, tuple):
            return target
        factor = target / min(width, height)
    else:
        factor = float(method_scale) if config.scale is None else config.scale
    return max(1, round(width * factor)), max(1, round(height * factor))
