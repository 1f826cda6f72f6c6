"""The engine of codecs: loads one, pads and crops, makes files of what it gives and back.

The codec sees sizes that suit it and nothing of files; the container (`restore.bitstream`) sees no
codec. Here both meet: a file is whole, of these weights, and in every number what its rate allows,
before the network sees it.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from restore.bitstream import DAMAGED, Container, read_container, write_container
from restore.codec.body import read_body, write_body
from restore.codec.contract import Codec, CodecSpec, Coded, Identified, Rate
from restore.codec.indices import LARGEST_CODEBOOK, Grid
from restore.codec.pictures import shrunk
from restore.codec_config import CodecConfig
from restore.config import EngineConfig
from restore.devices import DTYPES, choose_device, choose_dtype
from restore.errors import InputError, OptionError, RestoreError
from restore.memory import SMALLEST_TILE, free_memory, is_out_of_memory
from restore.method import Tiled
from restore.registry import DEFAULT_CODEC, codec_class
from restore.weights import fingerprint, sha256
from restore.zoo.locate import locate_base, locate_weights

if TYPE_CHECKING:
    from restore.codec.job import CodecDone
    from restore.image.events import ImageReport

log = logging.getLogger("restore.codec")

Result = TypeVar("Result")

_OPTIONS = ("tiling", "posterior")
_FORMATS = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}

_FLOAT_COPIES = 36  # bytes per pixel: the padded picture, its result, and that on its way to a file


def load_codec(model: str | None = None, **settings: Any) -> Coder:
    """Load a codec.

    Args:
        model: name in the registry; default `compact-codec`, which ships in the package.
        settings: fields of `CodecConfig`, such as `device="cpu"`, `weights="my.safetensors"`.

    Raises:
        OptionError: a setting is outside what is allowed.
        WeightsError: the weights are missing, damaged, unsafe, or of another model.
    """
    unknown = sorted(set(settings) - set(CodecConfig.__dataclass_fields__))
    if unknown:
        raise OptionError(
            f"unknown setting '{unknown[0]}'; "
            f"allowed: {', '.join(sorted(CodecConfig.__dataclass_fields__))}"
        )
    return Coder(model or DEFAULT_CODEC, CodecConfig(**settings))


class Coder:
    """A loaded codec behind the engine.

    Attributes:
        name: of the codec in the registry.
        config: the settings it was made with.
        spec: what the codec declares.
        device: where the network runs.
        weights_hash: SHA-256 as hex of its weights; files carry the first 8 bytes.
    """

    def __init__(self, name: str, config: CodecConfig) -> None:
        kind = codec_class(name)
        self.name, self.config = name, config
        self.device = choose_device(config.device)
        formats = EngineConfig(dtype=config.dtype)
        self._dtype = DTYPES[choose_dtype(formats, kind.spec, self.device)]
        path = locate_weights(name) if config.weights is None else Path(config.weights)
        base = _base_folder(kind.spec, config)
        extra = {} if base is None else {"base": base}
        self.codec: Codec = kind.load(path, device=self.device, dtype=self._dtype, **extra)
        self._tune()
        self.spec: CodecSpec = self.codec.spec
        if isinstance(self.codec, Identified):
            self.weights_hash = self.codec.weights_hash
        else:
            self.weights_hash = fingerprint(path) if path.is_dir() else sha256(path)
        self._tile = config.tile or self.spec.own_tiles
        if config.tile and not self.spec.own_tiles:
            raise OptionError(f"codec '{name}' does not tile; leave --tile out")
        if config.tile:
            cast(Tiled, self.codec).use_tiles(config.tile)

    def _tune(self) -> None:
        can = self.codec.spec.options
        given = {name: getattr(self.config, name) for name in _OPTIONS}
        given = {name: value for name, value in given.items() if value is not None}
        for name in given:
            if name not in can and not (name == "tiling" and self.codec.spec.published_multiple):
                raise OptionError(
                    f"codec '{self.name}' has no --{name}; leave it out or choose another with -n"
                )
        if wanted := {name: value for name, value in given.items() if name in can}:
            self.codec.tune(**wanted)

    @property
    def id(self) -> bytes:
        """What files carry of the weights."""
        return bytes.fromhex(self.weights_hash)[:8]

    @property
    def rates(self) -> tuple[Rate, ...]:
        """The rates of the codec, from few bits to many."""
        return tuple(sorted(self.spec.rates, key=lambda rate: rate.bpp))

    def rate_near(self, bpp: float | None) -> Rate:
        """The rate that is nearest to `bpp` as a ratio; None = the middle one."""
        rates = self.rates
        if bpp is None:
            return rates[len(rates) // 2]
        return min(rates, key=lambda rate: abs(math.log(rate.bpp / bpp)))

    def grid(self, rate: Rate, width: int, height: int) -> Grid:
        """What is known of the indices of a picture of this size."""
        padded_width, padded_height = self.padded(width, height)
        tables = self.codec.tables(rate.index)
        if tables is not None:
            assert tables.shape == (rate.planes, rate.codebook) and tables.min() >= 0
        assert 2 <= rate.codebook <= LARGEST_CODEBOOK and self.spec.multiple % rate.stride == 0
        return Grid(
            planes=rate.planes,
            height=padded_height // rate.stride,
            width=padded_width // rate.stride,
            codebook=rate.codebook,
            tables=tables,
        )

    def padded(self, width: int, height: int) -> tuple[int, int]:
        """Width and height as the codec sees them."""
        multiple = self.spec.multiple
        return -(-width // multiple) * multiple, -(-height // multiple) * multiple

    def fitted(self, pixels: Tensor) -> Tensor:
        """The picture, resized where `--tiling published` asks for it; else as it is.

        Args:
            pixels: RGB `(1, 3, H, W)` in [0, 1].
        """
        multiple = self.spec.published_multiple
        if self.config.tiling != "published" or not multiple:
            return pixels
        return shrunk(pixels, multiple)

    @torch.inference_mode()
    def encode(self, pixels: Tensor, rate: int) -> Coded:
        """Integers of a picture.

        Args:
            pixels: RGB `(1, 3, H, W)` in [0, 1], of any size; its last row and column are
                repeated up to what the codec needs.
            rate: number of the rate.

        Raises:
            OptionError: the codec has no such rate.
            RestoreError: memory does not suffice, or the network gives no numbers.
        """
        chosen = self._rate(rate)
        height, width = pixels.shape[-2:]
        self.check_memory(width, height)
        padded_width, padded_height = self.padded(width, height)
        margin = (0, padded_width - width, 0, padded_height - height)
        full = F.pad(pixels.float(), margin, mode="replicate").to(self.device)
        coded = self._in_memory(lambda: self.codec.encode(full, rate, generator=self._generator()))
        grid = self.grid(chosen, width, height)
        assert coded.rate == rate
        assert tuple(coded.indices.shape) == (grid.planes, grid.height, grid.width)
        side = coded.side.float()
        if not bool(torch.isfinite(side).all()):
            raise RestoreError(
                f"codec '{self.name}' gave no number for this picture; try --dtype fp32"
            )
        assert tuple(side.shape) == (self.spec.side_values,)
        assert torch.equal(side.half().float(), side)
        return coded

    @torch.inference_mode()
    def decode(self, coded: Coded, width: int, height: int) -> Tensor:
        """The picture that `coded` holds.

        Args:
            coded: of a picture of `width` x `height`.
            width: columns of the picture.
            height: rows.

        Returns:
            Float32 RGB `(1, 3, height, width)` in [0, 1] on the CPU.

        Raises:
            RestoreError: memory does not suffice, or the network gives no numbers.
        """
        self.check_memory(width, height)
        padded_width, padded_height = self.padded(width, height)

        def run() -> Tensor:
            return self.codec.decode(coded, padded_height, padded_width).float().cpu()

        result = self._in_memory(run)
        if self._dtype != torch.float32 and not bool(torch.isfinite(result).all()):
            log.warning("NaN in %s: it is decoded again in fp32", _FORMATS[self._dtype])
            self.codec = self.codec.to(self.device, torch.float32)
            try:
                result = self._in_memory(run)
            finally:
                self.codec = self.codec.to(self.device, self._dtype)
        if not bool(torch.isfinite(result).all()):
            raise RestoreError(
                f"the network gave NaN in fp32 on {self.device}; the weights are damaged or the "
                "device is faulty: try --device cpu, or fetch the weights again"
            )
        return result[..., :height, :width].clamp(0, 1)

    def write(self, coded: Coded, width: int, height: int, **fields: Any) -> bytes:
        """The file of a coded picture.

        Args:
            coded: what `encode` gave.
            width: of the picture in pixels.
            height: likewise.
            fields: more of `Container`: `orientation`, `gray`, `chunks`.
        """
        grid = self.grid(self._rate(coded.rate), width, height)
        coding, body = write_body(self.codec, coded, grid)
        return write_container(
            Container(
                codec=self.name,
                weights=self.id,
                rate=coded.rate,
                width=width,
                height=height,
                coding=coding,
                body=body,
                **fields,
            )
        )

    def read(self, file: Container, *, force: bool = False) -> Coded:
        """What the decoder gets of a file.

        Args:
            file: as `restore.bitstream.read_container` gives it.
            force: take it though other weights made it.

        Raises:
            InputError: it is of another codec or of other weights, or damaged.
        """
        if file.codec != self.name:
            raise InputError(f"codec '{file.codec}' made it and '{self.name}' is loaded; load that")
        if file.weights != self.id and not force:
            raise InputError(
                f"weights {file.weights.hex()} of '{self.name}' made it, and {self.id.hex()} are "
                "here; give those with --weights, or try --force"
            )
        rate = {rate.index: rate for rate in self.spec.rates}.get(file.rate)
        if rate is None:
            known = ", ".join(str(rate.index) for rate in self.spec.rates)
            raise InputError(f"its rate is {file.rate}; '{self.name}' has {known}; {DAMAGED}")
        return read_body(self.codec, file, self.grid(rate, file.width, file.height))

    def compress(
        self, x: Tensor, *, rate: int | None = None, bpp: float | None = None
    ) -> dict[str, Any]:
        """Pictures to bytes, as CompressAI's models do it.

        Args:
            x: RGB `(B, 3, H, W)` in [0, 1].
            rate: number of the rate.
            bpp: or bits per pixel, of which the nearest rate is taken; default: the middle one.

        Returns:
            `strings`: a list with one list of B files; `shape`: (H, W) of the pictures.
        """
        if x.ndim != 4 or x.shape[1] != 3 or 0 in x.shape:
            raise OptionError(f"the pictures have shape {tuple(x.shape)}; give (B, 3, H, W)")
        number = self.rate_near(bpp).index if rate is None else rate
        height, width = x.shape[-2:]
        files = [self.write(self.encode(one[None], number), width, height) for one in x]
        return {"strings": [files], "shape": (height, width)}

    def decompress(
        self, strings: Sequence[Sequence[bytes]], shape: Sequence[int]
    ) -> dict[str, Tensor]:
        """The pictures that `compress` made bytes of: `x_hat`, `(B, 3, H, W)` in [0, 1].

        Raises:
            InputError: one is damaged, of other weights, or not of this shape.
        """
        pictures = []
        for data in strings[0]:
            file = read_container(data)
            if (file.height, file.width) != tuple(shape):
                raise InputError(
                    f"it holds {file.width}x{file.height} pixels, and the shape is {tuple(shape)}"
                    "; give (height, width) of the pictures"
                )
            pictures.append(self.decode(self.read(file), file.width, file.height))
        return {"x_hat": torch.cat(pictures)}

    def encode_file(
        self, source: str | Path, destination: str | Path, **settings: Any
    ) -> CodecDone:
        """Make a coded file of a picture; a file that is there is replaced.

        Args:
            source: a picture.
            destination: the name of the coded file.
            settings: fields of `CompressConfig`, such as `bpp=0.1` or `size="20kB"`.

        Raises:
            InputError: the picture cannot be read, or no rate reaches what is asked for.
        """
        from restore.codec.job import compress_images

        report = compress_images(
            source, coder=self, output=str(destination), overwrite=True, **settings
        )
        return _only(report)

    def decode_file(
        self, source: str | Path, destination: str | Path, **settings: Any
    ) -> CodecDone:
        """Make a picture of a coded file; a file that is there is replaced.

        Args:
            source: a coded file.
            destination: the name of the picture, whose ending says the format.
            settings: fields of `DecompressConfig`, such as `force=True`.

        Raises:
            InputError: the file is damaged, or of another codec or other weights.
        """
        from restore.codec.job import decompress_images

        report = decompress_images(
            source, coder=self, output=str(destination), overwrite=True, **settings
        )
        return _only(report)

    def check_memory(self, width: int, height: int) -> None:
        """Raise InputError where a picture of this size cannot fit, before any of it is made."""
        columns, rows = self.padded(width, height)
        needed = _FLOAT_COPIES * columns * rows
        if not self.spec.own_tiles and self.device.type == "cpu":
            needed += self.spec.bytes_per_pixel * columns * rows
        free = free_memory(torch.device("cpu"))
        if needed > free:
            raise InputError(
                f"its {width}x{height} pixels need about {needed / 2**30:.1f} GiB of memory, "
                f"{free / 2**30:.1f} GiB are free; close other programs"
            )

    def _rate(self, number: int) -> Rate:
        for rate in self.spec.rates:
            if rate.index == number:
                return rate
        known = ", ".join(f"{rate.index} ({rate.bpp:g} bpp)" for rate in self.rates)
        raise OptionError(f"codec '{self.name}' has no rate {number}; its rates: {known}")

    def _generator(self) -> torch.Generator:
        kind = self.device if self.device.type == "cuda" else torch.device("cpu")
        return torch.Generator(kind).manual_seed(self.config.seed)

    def _in_memory(self, work: Callable[[], Result]) -> Result:
        """What `work` gives; in smaller tiles when memory runs out."""
        while True:
            try:
                return work()
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if not self.spec.own_tiles or self._tile <= SMALLEST_TILE:
                    raise RestoreError(
                        f"memory on {self.device} does not suffice for this picture; close other "
                        "programs, choose --device cpu or another codec"
                    ) from error
            self._tile = max(SMALLEST_TILE, self._tile // 2)
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            log.warning("out of memory on %s: tiles are halved to %d", self.device, self._tile)
            cast(Tiled, self.codec).use_tiles(self._tile)


def _only(report: ImageReport) -> CodecDone:
    """The one result of a run."""
    for name, message in report.failed:
        raise InputError(f"'{name}': {message}")
    return cast("CodecDone", report.done[0])


def _base_folder(spec: CodecSpec, config: CodecConfig) -> Path | None:
    if not spec.base:
        if config.base is not None:
            raise OptionError(f"codec '{spec.name}' stands on no other model; leave --base out")
        return None
    return locate_base(spec.base) if config.base is None else Path(config.base)
