"""Settings of the commands that make data: `restore pack` and `restore degrade`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from restore.config import MAX_SCALE, check_choice, flag
from restore.errors import OptionError

DegradedCodec = Literal["h264", "ffv1"]
DegradedExt = Literal["png", "jpg", "webp", "tiff"]
PackCodec = Literal["jpeg", "png"]


@dataclass(frozen=True, kw_only=True, slots=True)
class PackConfig:
    """`restore pack`: patches of pictures or clips into one file for training."""

    output: str = flag(
        "patches.safetensors", "-o", "--output", metavar="FILE", help="File for the set."
    )
    patch: int = flag(256, "--patch", metavar="PIXELS", help="Side of a patch, 32 or more.")
    count: int = flag(1000, "--count", help="Patches, or clips, in the set.")
    frames: int = flag(
        1, "--frames", help="1 = pictures; more = clips of so many frames, from video files."
    )
    shrink: float = flag(
        1.0,
        "--shrink",
        help="Make each smaller first, by a random factor from this to 1; hides compression.",
    )
    codec: PackCodec = flag("jpeg", "--codec", help="How a patch is stored; png loses nothing.")
    quality: int = flag(95, "--quality", help="JPEG quality, 1 to 100.")
    seed: int = flag(0, "--seed", help="Seed of every random draw, 0 or more.")
    overwrite: bool = flag(False, "--overwrite", help="Replace a file that is already there.")

    def __post_init__(self) -> None:
        check_choice("codec", self.codec, get_args(PackCodec))
        for name, low, high in (
            ("patch", 32, 4096),
            ("count", 1, 10_000_000),
            ("frames", 1, 100),
            ("quality", 1, 100),
        ):
            if not low <= getattr(self, name) <= high:
                raise OptionError(
                    f"{name} {getattr(self, name)} is not possible; give {low} to {high}"
                )
        if not 0 < self.shrink <= 1:
            raise OptionError(f"shrink {self.shrink:g} is not possible; give above 0 and up to 1")
        if self.seed < 0:
            raise OptionError(f"seed {self.seed} is negative; give 0 or more")
        if self.seed >= 2**63:
            raise OptionError(f"seed {self.seed} is too large; give less than 2^63")
        if not self.output.endswith(".safetensors"):
            raise OptionError(f"the name '{self.output}' is another format's; end it .safetensors")


@dataclass(frozen=True, kw_only=True, slots=True)
class DegradeConfig:
    """`restore degrade`: good pictures and clips in, bad ones out, with a record of each."""

    output: str | None = flag(
        None, "-o", "--output", metavar="PATH", help="Folder for the results, or a file for one."
    )
    recipe: str = flag(
        "realesrgan",
        "--recipe",
        metavar="NAME",
        help="realesrgan, osediff, bsrgan, realbasicvsr, compact, or a YAML file with a recipe.",
    )
    scale: int = flag(4, "-s", "--scale", help="How many times smaller the results are, 1 to 16.")
    seed: int = flag(0, "--seed", help="Seed of every random draw, 0 or more.")
    recursive: bool = flag(False, "-r", "--recursive", help="Go into folders below the inputs.")
    ext: DegradedExt = flag("png", "--ext", help="Format of the pictures.")
    quality: int = flag(95, "--quality", help="JPEG and WebP quality, 1 to 100.")
    codec: DegradedCodec = flag(
        "h264", "--codec", help="Of the clips: h264 = MP4, next to lossless; ffv1 = NUT, lossless."
    )
    skip_existing: bool = flag(
        False, "--skip-existing", help="Leave inputs alone whose result is already there."
    )
    overwrite: bool = flag(False, "--overwrite", help="Replace results that are already there.")
    dry_run: bool = flag(False, "--dry-run", help="Say what would be done, and do nothing.")
    json: bool = flag(False, "--json", help="Report to stdout as one JSON object a line.")
    max_pixels: int = flag(
        100_000_000, "--max-pixels", help="Refuse inputs with more pixels than this."
    )

    def __post_init__(self) -> None:
        check_choice("ext", self.ext, get_args(DegradedExt))
        check_choice("codec", self.codec, get_args(DegradedCodec))
        for name, low, high in (("scale", 1, int(MAX_SCALE)), ("quality", 1, 100)):
            if not low <= getattr(self, name) <= high:
                raise OptionError(
                    f"{name} {getattr(self, name)} is not possible; give {low} to {high}"
                )
        if self.seed < 0:
            raise OptionError(f"seed {self.seed} is negative; give 0 or more")
        if self.skip_existing and self.overwrite:
            raise OptionError("both --skip-existing and --overwrite were given; give one of them")
        if self.max_pixels < 1:
            raise OptionError(f"max pixels {self.max_pixels} is not possible; give 1 or more")
