"""What the program asks of a codec, and what a codec declares about itself.

A codec is a network that makes a few small integers of a picture, and a picture of them. It knows
no files and no sizes that do not suit it: it declares its needs in a `CodecSpec`, and
`restore.codec.engine` acts on them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from restore.method import DType

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Rate:
    """One of the rates of a codec."""

    index: int
    """Its number in files and in the codec, 0 to 255."""
    bpp: float
    """Nominal bits per pixel: of the packed indices alone, for sizes that need no padding."""
    codebook: int
    """Symbols that an index can be: 0 to `codebook` - 1; 2 to 65536."""
    stride: int
    """Pixels per index along each side; divides `CodecSpec.multiple`."""
    planes: int = 1
    """Grids of indices: several where the quantiser works in parts or in stages."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CodecSpec:
    """Needs and abilities of one codec, as data."""

    name: str
    """Name in the registry and in files, such as `compact-codec`: 1 to 32 ASCII characters."""
    summary: str
    """One line for `restore models list`."""
    rates: tuple[Rate, ...]
    """What it can write, from few bits to many."""
    multiple: int
    """Width and height given to `encode` are padded to a multiple of this."""
    side_values: int = 0
    """Numbers per picture that the decoder needs beside the indices; they are written as fp16."""
    options: tuple[str, ...] = ()
    """Names of what `tune` obeys."""
    own_tiles: int = 0
    """It takes pictures of any size and tiles inside; their side in pixels. It is then
    `restore.method.Tiled`. 0 = it takes every picture whole."""
    published_multiple: int = 0
    """The authors shrink width and height to a multiple of this instead of padding, and
    `--tiling published` does so; it is a multiple of `multiple`. 0 = they do not."""
    base: str = ""
    """Pretrained model that the weights stand on, by its name in the zoo; `load` then takes its
    folder as `base`. Empty = the weight file is all."""
    dtypes: tuple[DType, ...] = ("fp32",)
    """Number formats that give correct results; the first is the default on a GPU."""
    cpu_dtype: DType = "fp32"
    """Default on a CPU that computes in it natively; other CPUs compute in fp32."""
    bytes_per_pixel: int = 4096
    """Peak working memory in bytes per pixel, in fp32."""
    licence: str = "Apache-2.0"
    """Licence of the weights."""
    source: str = ""
    """Paper or repository that the codec comes from."""

    def rate(self, index: int) -> Rate:
        """The rate whose number is `index`.

        Raises:
            KeyError: there is none.
        """
        return {rate.index: rate for rate in self.rates}[index]


@dataclass(frozen=True, kw_only=True, slots=True)
class Coded:
    """A picture as a codec writes it: all that its decoder gets."""

    rate: int
    """Number of the rate."""
    indices: Tensor
    """`(planes, h, w)`, int32 on the CPU, each in [0, codebook)."""
    side: Tensor
    """`(side_values,)`, float32 on the CPU, holding fp16 numbers: the encoder rounds them, so that
    what is decoded never depends on what was not written."""


@runtime_checkable
class Codec(Protocol):
    """A loaded codec: weights on a device, ready to encode and decode."""

    spec: CodecSpec

    @classmethod
    def describe(cls, weights: Path | None) -> CodecSpec:
        """What the codec is with these weights, read from the head of the file alone.

        Raises:
            WeightsError: the file is missing, damaged, unsafe, or of another model.
        """
        ...

    @classmethod
    def load(cls, weights: Path | None, *, device: torch.device, dtype: torch.dtype) -> Codec:
        """Build the network and load `weights`, or the weights in the package when None.

        Where the spec names a `base`, it also takes `base`: the folder of the pretrained model.

        Raises:
            WeightsError: the file is missing, damaged, unsafe, or of another model.
        """
        ...

    def to(self, device: torch.device, dtype: torch.dtype) -> Codec:
        """Move the network."""
        ...

    def tune(self, **options: Any) -> None:
        """Obey those of `CodecSpec.options` that the user gave; the rest stays as it was.

        Raises:
            OptionError: a value is outside what is allowed.
        """
        ...

    def encode(self, pixels: Tensor, rate: int, *, generator: torch.Generator) -> Coded:
        """Make integers of a picture.

        Args:
            pixels: RGB `(1, 3, H, W)` in [0, 1], float32 on the codec's device, H and W multiples
                of `CodecSpec.multiple`.
            rate: number of the rate.
            generator: every random draw comes from it.
        """
        ...

    def decode(self, coded: Coded, height: int, width: int) -> Tensor:
        """Make a picture of them.

        Args:
            coded: what `encode` gave, or what a file holds: any indices in [0, codebook) and any
                finite fp16 numbers, which must give some picture.
            height: H of the padded picture.
            width: W of the padded picture.

        Returns:
            RGB `(1, 3, H, W)` in [0, 1], float32.
        """
        ...

    def tables(self, rate: int) -> np.ndarray | None:
        """How often each symbol comes, in whole numbers; None = the codec does not know.

        They belong to the weights: the same integers on every machine, from a file or from code,
        never from a floating-point result.

        Returns:
            uint32 `(planes, codebook)`, each at least 1.
        """
        ...


@runtime_checkable
class Identified(Protocol):
    """A codec whose weights come in several files that hold the same numbers.

    Files name the weights that made them. By itself the engine takes the SHA-256 of the weight
    file, which a pickle and the safetensors file made of it do not share.
    """

    weights_hash: str
    """SHA-256 as hex of what the weights are, whatever file they lie in."""


@runtime_checkable
class SelfCoding(Protocol):
    """A codec that writes its indices itself, with a model that looks at those before.

    What it computes for that must be whole numbers alone: the same on every machine, whatever the
    threads and the number format of the network. `Rate.bpp` is then what is typical.
    """

    def write_payload(self, coded: Coded) -> bytes:
        """The indices as bytes; zeros behind them must change nothing."""
        ...

    def read_payload(self, payload: bytes, rate: int, height: int, width: int) -> Tensor:
        """The reverse.

        Args:
            payload: any bytes at all, of which at least one for each 1024 places.
            rate: number of the rate.
            height: rows of the grids.
            width: columns.

        Returns:
            `(planes, height, width)`, int32 on the CPU, each in [0, codebook).

        Raises:
            InputError: the payload is damaged.
        """
        ...
