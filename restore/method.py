"""What the engine asks of a restoration method, and what a method declares about itself.

A method is a network with its own pre- and post-processing. It knows no files, no tiles and no
clips: it declares its needs in a `MethodSpec`, and the engine acts on them.
"""

from __future__ import annotations

from collections.abc import Mapping
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
Decoder = Literal["tiny", "full"]
"""A small decoder that also sees the input, or the whole one of the autoencoder."""


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
    streaming: bool = False
    """In a clip it takes frames as they come and gives them back in groups, keeping what it needs
    of the past itself; it is then `Streaming`. The engine neither tiles nor pads in time."""
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
    segment: int = 120
    """Frames of a clip between two points of resuming on a GPU, unless asked otherwise."""
    segment_on_cpu: int = 24
    """The same on a CPU, where a frame may take minutes."""
    color_fix: ColorFix = "none"
    """Colour correction that belongs to the method when the user does not choose one."""
    licence: str = "Apache-2.0"
    """Licence of the weights; a non-commercial one is said each time they are used."""
    source: str = ""
    """Paper or repository that the method comes from."""

    def __post_init__(self) -> None:
        window = bool(self.frames_before or self.frames_after)
        if window + self.recurrent + self.streaming > 1:
            raise ValueError(
                f"method '{self.name}' declares several of: a window of frames, recurrent, "
                "streaming; the engine knows one of them at a time"
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
    consistency: float | None = None
    """How much of what DLoRAL learned for frames that agree; 1 = as published."""
    detail: float | None = None
    """How much of what it learned for detail; 1 = as published."""
    decoder: Decoder | None = None
    """Which network makes pixels of latents."""
    sparse_ratio: float | None = None
    """How many blocks of keys a block of queries attends to, as FlashVSR counts it: 1.5 or 2.0."""
    local_range: int | None = None
    """Side of the window of blocks that a block may attend to, as FlashVSR counts it: 9 or 11."""
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
    """A method that plans its own tiles; a streaming one may, for parts that see no whole frame."""

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


class ClipStream(Protocol):
    """One scene on its way through a `Streaming` method: frames in, groups of frames out.

    Of a method with tiles of its own, a call that raises leaves it as it was: it is called again
    with smaller tiles when memory has run out.
    """

    ahead: int
    """Frames that were taken and whose results have not come out."""

    def push(self, frame: torch.Tensor) -> torch.Tensor:
        """Take the next frame.

        Args:
            frame: RGB `(3, H, W)` in [0, 1], float32 on the method's device.

        Returns:
            Frames that became ready, in order, RGB `(n, 3, scale * H, scale * W)` in [0, 1];
            n is often 0.
        """
        ...

    def finish(self) -> torch.Tensor:
        """The frames still missing, likewise: as many come out in all as went in."""
        ...

    def state(self) -> dict[str, torch.Tensor]:
        """Everything needed to go on, copied; asked for only just after a push that gave frames."""
        ...

    def restore_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Go on as the stream would have that `state` was taken from, `ahead` included.

        Raises:
            ValueError: it is not the state of such a stream.
        """
        ...


@runtime_checkable
class Streaming(Protocol):
    """A method that keeps what it needs of a clip's past itself."""

    def open_clip(self, height: int, width: int, *, seed: int) -> ClipStream:
        """Begin a scene.

        Args:
            height: of the frames to come, a multiple of `MethodSpec.size_multiple`.
            width: likewise.
            seed: every random draw comes from it.
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
