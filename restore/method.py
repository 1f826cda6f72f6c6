"""What the engine asks of a restoration method, and what a method declares about itself.

A method is a network with its own pre- and post-processing. It knows no files, no tiles and no
clips: it declares its needs in a `MethodSpec`, and the engine acts on them.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    import torch
    from torch import nn

DType = Literal["fp32", "bf16", "fp16"]
ColorFix = Literal["none", "wavelet", "adain"]
Tiling = Literal["exact", "published"]
"""How a method that plans its own tiles does it: as well as can be, or as the authors' numbers were
made."""
Posterior = Literal["mode", "sample"]
"""What is taken of the Gaussian that a VAE encodes a picture into: its mean, or a draw from it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MethodSpec:
    """Needs and abilities of one method, as data."""

    name: str
    """Name in the registry, such as `compact`."""
    summary: str
    """One line for `restore models list`."""
    scale: int
    """Output pixels per input pixel along each side."""
    overlap: int
    """Input pixels next to a tile that still change it: the radius of the receptive field."""
    variants: tuple[str, ...] = ()
    """Names of the same method for other scales; the one that fits the size asked for is run."""
    options: tuple[str, ...] = ()
    """Fields of `MethodOptions` that the method obeys; it is `Tunable` when there are any."""
    size_multiple: int = 1
    """Width and height given to `restore` are padded to a multiple of this."""
    min_size: int = 1
    """Smallest width and height that `restore` accepts; smaller input is padded."""
    frames_before: int = 0
    """Past frames that a call needs beside each frame it restores."""
    frames_after: int = 0
    """Future frames that a call needs beside each frame it restores."""
    recurrent: bool = False
    """In a clip it takes its own result of the frame before; it is then `Recurrent`, and sees no
    other frames (`frames_before` and `frames_after` are 0)."""
    base: str = ""
    """Pretrained model that the weights stand on, by its name in the zoo, such as `sd-turbo`;
    `load` then takes its folder as `base`. Empty = the weight file is all."""
    own_tiles: int = 0
    """It gets whole frames of any size and plans its tiles itself, inside the network where they
    belong; their side in input pixels. It is then `Tiled`. 0 = the engine tiles."""
    dtypes: tuple[DType, ...] = ("fp32",)
    """Number formats that give correct results; the first is the default on a GPU."""
    cpu_dtype: DType = "fp32"
    """Default on a CPU that computes in it natively; other CPUs compute in fp32."""
    exportable: bool = False
    """Its network is one graph of tensors, for ONNX and other runtimes; it is then `Exportable`."""
    enlarges_alpha: bool = True
    """Alpha is restored as a gray picture; False = it is resampled, for methods that make up
    detail."""
    bytes_per_pixel: int = 4096
    """Peak working memory of `restore` in bytes per input pixel, in fp32."""
    color_fix: ColorFix = "none"
    """Colour correction that belongs to the method when the user does not choose one."""
    licence: str = "Apache-2.0"
    """Licence of the weights; a non-commercial one is said each time they are used."""
    source: str = ""
    """Paper or repository that the method comes from."""

    def __post_init__(self) -> None:
        if self.recurrent and (self.frames_before or self.frames_after):
            raise ValueError(
                f"method '{self.name}' declares a window of frames and to be recurrent; the engine "
                "knows one or the other: set recurrent, or frames_before and frames_after"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class MethodOptions:
    """What a user can ask of a method beyond its weights; None = the method's own choice."""

    fidelity: float | None = None
    """1 = as near to the input's pixels as can be, 0 = as realistic as can be."""
    denoise: float | None = None
    """1 = noise is removed, 0 = it is left."""
    prompt: str | None = None
    """What the picture shows, in words, beside its tags."""
    tags: str | None = None
    """Its tags, "a, b, c"; None = those that the tagger finds."""
    tiling: Tiling | None = None
    """How it tiles."""
    posterior: Posterior | None = None
    """What it takes of the VAE's Gaussian."""
    steps: int | None = None
    """Passes of the network."""
    tagger: str | None = None
    """Weight file of the network that finds the tags of a picture, or `none`."""
    tagger_adapter: str | None = None
    """Weight file of what adapts that network to bad pictures, or `none`."""
    compile: bool | None = None
    """Whether torch.compile fuses the network."""


OPTIONS: tuple[str, ...] = tuple(field.name for field in fields(MethodOptions))
"""Names of what a user can ask of a method."""


@runtime_checkable
class Tunable(Protocol):
    """A method with options."""

    def tune(self, **options: Any) -> None:
        """Obey those of the options in `MethodSpec.options` that the user gave.

        Called before every picture that has options of its own, such as a prompt; what is not
        given stays as it was.

        Raises:
            OptionError: a value is outside what is allowed, or the weights do not allow it.
        """
        ...


@runtime_checkable
class Tiled(Protocol):
    """A method that plans its own tiles."""

    def use_tiles(self, side: int) -> None:
        """Work in tiles of `side` input pixels from now on.

        The engine hands on the user's choice, and half of it when memory has run out. The method
        goes to the nearest side that it can do.

        Raises:
            OptionError: the side is not possible.
        """
        ...


@runtime_checkable
class Recurrent(Protocol):
    """A method that in a clip goes on from its own result of the frame before."""

    def restore_next(
        self,
        frames: torch.Tensor,
        previous: torch.Tensor,
        trust: torch.Tensor,
        *,
        generator: torch.Generator,
    ) -> torch.Tensor:
        """Restore one tile of a frame that another one came before.

        Args:
            frames: RGB `(B, 1, C, H, W)` in [0, 1], as `Method.restore` gets them.
            previous: what the method made of the frame before, moved to this frame along the
                motion, `(B, C, scale * H, scale * W)` in about [0, 1], float32.
            trust: how far `previous` can be relied on, `(B, 1, H, W)` in [0, 1]; where it is 0
                the result is that of `Method.restore`.
            generator: every random draw comes from it.

        Returns:
            RGB `(B, 1, C, scale * H, scale * W)` in [0, 1].
        """
        ...


@runtime_checkable
class Exportable(Protocol):
    """A method whose work is done by one module of tensors, which can be exported or exchanged."""

    net: nn.Module
    """Called with frames, RGB `(B, 3, H, W)` in [0, 1], float32, sizes a multiple of
    `MethodSpec.size_multiple`, gives `(B, 3, scale * H, scale * W)`, not yet held to [0, 1]. In a
    recurrent method it also takes `previous` and `trust` as `Recurrent.restore_next` has them."""


@runtime_checkable
class Method(Protocol):
    """A loaded method: weights on a device, ready to restore."""

    spec: MethodSpec

    @classmethod
    def describe(cls, weights: Path | None) -> MethodSpec:
        """What the method is with these weights, read from the head of the file alone.

        Raises:
            WeightsError: the file is missing, damaged, unsafe, or of another model.
        """
        ...

    @classmethod
    def load(cls, weights: Path | None, *, device: torch.device, dtype: torch.dtype) -> Method:
        """Build the network and load `weights`, or the weights in the package when None.

        Where the spec names a `base`, it also takes `base`: the folder of the pretrained model.

        Raises:
            WeightsError: the file is missing, damaged, unsafe, or of another model.
        """
        ...

    def to(self, device: torch.device, dtype: torch.dtype) -> Method:
        """Move the network; the engine uses it for its fp32 retry."""
        ...

    def restore(self, frames: torch.Tensor, *, generator: torch.Generator) -> torch.Tensor:
        """Restore one tile of a clip.

        Args:
            frames: RGB `(B, T, C, H, W)` in [0, 1], float32 on the method's device, T equal to
                `frames_before + 1 + frames_after`. The number format of the network is the
                method's own affair.
            generator: every random draw comes from it.

        Returns:
            RGB `(B, 1, C, scale * H, scale * W)` in [0, 1]: the frame at `frames_before`.
        """
        ...
