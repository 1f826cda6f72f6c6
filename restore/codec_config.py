"""Settings of `restore compress`, `restore decompress` and of the codec behind both."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, get_args

from restore.config import MIN_TILE, PosteriorChoice, TilingChoice, check_choice, flag
from restore.errors import OptionError
from restore.registry import DEFAULT_CODEC

CodecDType = Literal["auto", "fp32", "bf16", "fp16"]
MetadataChoice = Literal["none", "icc", "all"]
DecodedExt = Literal["png", "jpg", "webp", "tiff", "avif"]
Metric = Literal["ssim", "psnr", "lpips"]

_UNITS = {"": 1, "b": 1, "k": 1000, "kb": 1000, "kib": 1024}
_UNITS |= {"m": 10**6, "mb": 10**6, "mib": 2**20}


@dataclass(frozen=True, kw_only=True, slots=True)
class CodecConfig:
    """How a codec is loaded and run; the same for both directions."""

    weights: str | None = flag(
        None, "--weights", metavar="FILE", help="Weight file instead of the codec's own."
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
        help=f"Side of a tile, {MIN_TILE} or more, for codecs that tile; 0 = the codec's own.",
    )
    device: str = flag(
        "auto", "-g", "--device", help="auto, cpu, cuda, cuda:1 or mps; auto = GPU if present."
    )
    dtype: CodecDType = flag(
        "auto", "--dtype", help="Number format of the network; auto = the codec's best."
    )
    seed: int = flag(0, "--seed", help="Seed of every random draw, 0 or more.")
    tiling: TilingChoice | None = flag(
        None,
        "--tiling",
        help="exact = any size, tiles do not show; published = resized, as the authors did.",
    )
    posterior: PosteriorChoice | None = flag(
        None, "--posterior", help="Of the encoder's Gaussian: its mean, or a draw."
    )

    def __post_init__(self) -> None:
        if self.tile != 0 and self.tile < MIN_TILE:
            raise OptionError(
                f"tile {self.tile} is too small; allowed: 0 (the codec's own) or {MIN_TILE} and "
                "more; leave --tile out"
            )
        if self.seed < 0:
            raise OptionError(f"seed {self.seed} is negative; give 0 or more")
        check_choice("dtype", self.dtype, get_args(CodecDType))
        if self.tiling is not None:
            check_choice("tiling", self.tiling, get_args(TilingChoice))
        if self.posterior is not None:
            check_choice("posterior", self.posterior, get_args(PosteriorChoice))


@dataclass(frozen=True, kw_only=True, slots=True)
class FilesConfig(CodecConfig):
    """What both directions do with files."""

    output: str | None = flag(
        None,
        "-o",
        "--output",
        metavar="PATH",
        help="File or folder for the result, - for stdout; default: beside each input.",
    )
    recursive: bool = flag(False, "-r", "--recursive", help="Go into folders below the inputs.")
    skip_existing: bool = flag(
        False, "--skip-existing", help="Leave inputs alone whose result is already there."
    )
    overwrite: bool = flag(False, "--overwrite", help="Replace results that are already there.")
    json: bool = flag(False, "--json", help="Report to stdout as one JSON object a line.")
    max_pixels: int = flag(
        500_000_000, "--max-pixels", help="Refuse pictures with more pixels than this."
    )

    def __post_init__(self) -> None:
        super(FilesConfig, self).__post_init__()
        if self.skip_existing and self.overwrite:
            raise OptionError("both --skip-existing and --overwrite were given; give one of them")
        if self.max_pixels < 1:
            raise OptionError(f"max pixels {self.max_pixels} is not possible; give 1 or more")


@dataclass(frozen=True, kw_only=True, slots=True)
class CompressConfig(FilesConfig):
    """`restore compress`: pictures in, few bytes out."""

    model: str = flag(
        DEFAULT_CODEC,
        "-n",
        "--model",
        metavar="CODEC",
        help="Codec to run; see 'restore models list'.",
    )
    bpp: float | None = flag(
        None,
        "--bpp",
        help="Bits per pixel: the nearest rate of the codec; default: its middle one.",
    )
    size: str | None = flag(
        None,
        "--size",
        metavar="BYTES",
        help="The best rate whose file is not larger: 20kB, 1.5MB, 900; counts all that is in it.",
    )
    quality: str | None = flag(
        None,
        "--quality",
        metavar="METRIC=X",
        help="The lowest rate that is as good: ssim=0.9, psnr=30 (dB, RGB) or lpips=0.3.",
    )
    metadata: MetadataChoice = flag(
        "icc", "--metadata", help="What is kept beside the pixels: none, icc, or all, with EXIF."
    )
    report: str | None = flag(
        None,
        "--report",
        metavar="FILE",
        help="Write the means of bpp, PSNR and SSIM as JSON, as CompressAI's plots read it.",
    )

    def __post_init__(self) -> None:
        super(CompressConfig, self).__post_init__()
        given = [name for name in ("bpp", "size", "quality") if getattr(self, name) is not None]
        if len(given) > 1:
            raise OptionError(f"both --{given[0]} and --{given[1]} were given; give one of them")
        if self.bpp is not None and not 0 < self.bpp <= 24:
            raise OptionError(f"bpp {self.bpp:g} is not possible; give above 0 and up to 24")
        check_choice("metadata", self.metadata, get_args(MetadataChoice))
        if self.size is not None:
            parse_bytes(self.size)
        if self.quality is not None:
            parse_quality(self.quality)


@dataclass(frozen=True, kw_only=True, slots=True)
class DecompressConfig(FilesConfig):
    """`restore decompress`: those bytes in, pictures out."""

    ext: DecodedExt = flag("png", "--ext", help="Format of the pictures.")
    quality: int = flag(95, "--quality", help="JPEG, WebP and AVIF quality, 1 to 100.")
    force: bool = flag(
        False, "--force", help="Decode with other weights than those that the file names."
    )

    def __post_init__(self) -> None:
        super(DecompressConfig, self).__post_init__()
        check_choice("ext", self.ext, get_args(DecodedExt))
        if not 1 <= self.quality <= 100:
            raise OptionError(f"quality {self.quality} is not possible; give 1 to 100")


def parse_bytes(text: str) -> int:
    """Bytes in `"20kB"`, `"1.5MB"`, `"64KiB"` or `"900"`.

    Raises:
        OptionError: it is not a size above 0.
    """
    found = re.fullmatch(r"(\d{1,12}(?:\.\d{1,6})?)\s*([A-Za-z]*)", text.strip())
    unit = _UNITS.get(found[2].lower()) if found else None
    count = int(float(found[1]) * unit) if found and unit else 0
    if count < 1:
        raise OptionError(f"size '{text}' is not possible; write bytes, 20kB, 64KiB or 1.5MB")
    return count


def parse_quality(text: str) -> tuple[Metric, float]:
    """Metric and value in `"ssim=0.9"`, `"psnr=30"` or `"lpips=0.3"`.

    Raises:
        OptionError: it is neither, or a value that no picture can have.
    """
    name, _, number = text.partition("=")
    try:
        value = float(number)
    except ValueError:
        value = float("nan")
    for metric, high in (("ssim", 1.0), ("psnr", 100.0), ("lpips", 2.0)):
        if name.strip().lower() == metric and 0 < value <= high:
            return metric, value  # type: ignore[return-value]
    raise OptionError(
        f"quality '{text}' is not possible; write ssim=0.9 (0 to 1), psnr=30 (dB) or lpips=0.3"
    )
