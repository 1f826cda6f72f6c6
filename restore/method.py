"""What the engine asks of a restoration method, and what a method declares about itself.

A method is a network with its own pre- and post-processing. It knows no files, no tiles and no
clips: it declares its needs in a `MethodSpec`, and the engine acts on them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    import torch

DType = Literal["fp32", "bf16", "fp16"]
ColorFix = Literal["none", "wavelet", "adain"]


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
    size_multiple: int = 1
    """Width and height given to `restore` are padded to a multiple of this."""
    min_size: int = 1
    """Smallest width and height that `restore` accepts; smaller input is padded."""
    frames_before: int = 0
    """Past frames that a call needs beside each frame it restores."""
    frames_after: int = 0
    """Future frames that a call needs beside each frame it restores."""
    dtypes: tuple[DType, ...] = ("fp32",)
    """Number formats that give correct results; the first is the default on a GPU."""
    bytes_per_pixel: int = 4096
    """Peak working memory of `restore` in bytes per input pixel, in fp32."""
    color_fix: ColorFix = "none"
    """Colour correction that belongs to the method when the user does not choose one."""
    licence: str = "Apache-2.0"
    """Licence of the weights; a non-commercial one is said each time they are used."""
    source: str = ""
    """Paper or repository that the method comes from."""


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
            frames: RGB `(B, T, C, H, W)` in [0, 1], on the method's device, T equal to
                `frames_before + 1 + frames_after`.
            generator: every random draw comes from it.

        Returns:
            RGB `(B, 1, C, scale * H, scale * W)` in [0, 1]: the frame at `frames_before`.
        """
        ...
