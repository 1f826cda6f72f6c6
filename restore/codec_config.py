"""Settings of `restore compress`, `restore decompress` and of the codec behind both."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, get_args

from restore.config import (
    MIN_TILE,
    EngineConfig,
    ImageConfig,
    PosteriorChoice,
    TilingChoice,
    check_choice,
    check_files,
    check_quality,
    check_seed,
    flag,
    same_flag,
)
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

    weights: str | None = same_flag(
        EngineConfig, "weights", help="Weight file instead of the codec's own."
    )
    base: str | None = same_flag(EngineConfig, "base")
    tile: int = flag(
        0,
        "-t",
        "--tile",
        metavar="PIXELS",
        help=f"Side of a tile, {MIN_TILE} or more, for codecs that tile; 0 = the codec's own.",
    )
    device: str = same_flag(EngineConfig, "device")
    dtype: CodecDType = flag(
        "auto", "--dtype", help="Number format of the network; auto = the codec's best."
    )
    seed: int = same_flag(EngineConfig, "seed")
    tiling: TilingChoice | None = flag(
        None,
        "--tiling",
        help="exact = any size, tiles do not show; published = resized, as the authors did.",
    )
    posterior: PosteriorChoice | None = same_flag(
        EngineConfig, "posterior", help="Of the encoder's Gaussian: its mean, or a draw."
    )

    def __post_init__(self) -> None:
        if self.tile != 0 and self.tile < MIN_TILE:
            raise OptionError(
                f"tile {self.tile} is too small; allowed: 0 (the codec's own) or {MIN_TILE} and "
                "more; leave --tile out"
            )
        check_seed(self.seed)
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
    recursive: bool = same_flag(ImageConfig, "recursive")
    skip_existing: bool = same_flag(ImageConfig, "skip_existing")
    overwrite: bool = same_flag(ImageConfig, "overwrite")
    json: bool = same_flag(ImageConfig, "json")
    max_pixels: int = same_flag(
        ImageConfig, "max_pixels", help="Refuse pictures with more pixels than this."
    )

    def __post_init__(self) -> None:
        super(FilesConfig, self).__post_init__()
        check_files(
            skip_existing=self.skip_existing, overwrite=self.overwrite, max_pixels=self.max_pixels
        )


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
    quality: int = same_flag(ImageConfig, "quality")
    force: bool = flag(
        False, "--force", help="Decode with other weights than those that the file names."
    )

    def __post_init__(self) -> None:
        super(DecompressConfig, self).__post_init__()
        check_choice("ext", self.ext, get_args(DecodedExt))
        check_quality(self.quality)


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
