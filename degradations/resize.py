"""Resampling with the filters that cameras, phones and web sites use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from restore.degradations.draw import number, pick_each, uniform
from restore.degradations.filtering import filter_each
from restore.degradations.kernels import gaussian_kernels
from restore.degradations.step import Draws, Drift, Scene, check_kinds, check_prob, check_range
from restore.errors import OptionError

ResizeMode = Literal["area", "bilinear", "bicubic"]
MODES: tuple[ResizeMode, ...] = get_args(ResizeMode)

_LARGEST = 4.0
"""No picture grows beyond this many times the good one, whatever factors follow each other."""
_DECIMATION_KERNEL = 25
"""Side of the kernel before decimation, as published."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Resize:
    """A resampling, of one size for the whole batch."""

    prob: float = 1.0
    """Probability, for the batch."""
    to: Literal["current", "good", "bad"] = "current"
    """Size that the factor counts from: as it is now, as the good picture, as the bad one."""
    ways: tuple[float, float, float] | None = None
    """How often it goes up, down, or stays; None = the factor is drawn evenly from its range."""
    factor: tuple[float, float] = (1.0, 1.0)
    """Range of the factor; up = 1 to its end, down = from its beginning to 1."""
    divide: bool = False
    """The factor divides the size instead."""
    modes: tuple[ResizeMode, ...] = MODES
    """Filters, equally often."""
    antialias: bool = False
    """Bilinear and bicubic look at all pixels that a smaller one stands for. The published recipes
    do without, as OpenCV and PyTorch do by default."""
    factor_step: float = 0.0
    """Largest change of the factor from frame to frame in a clip: each frame is brought to its own
    size, and from there to that of the first."""

    def __post_init__(self) -> None:
        check_prob("resize prob", self.prob)
        check_range("resize factor", self.factor, low=1e-3, high=100)
        check_kinds("resize", self.modes, (1,) * len(self.modes), MODES)
        if self.ways is not None and (min(self.ways) < 0 or sum(self.ways) <= 0):
            raise OptionError(f"resize ways {list(self.ways)} are not possible; give 0 or more")

    @property
    def shared(self) -> bool:
        """Pictures of a batch keep one size."""
        return True

    def draw(self, count: int, generator: torch.Generator) -> Draws:
        """Factor and filter."""
        low, high = self.factor
        even = uniform(count, low, high, generator=generator)
        up = uniform(count, 1, max(1.0, high), generator=generator)
        down = uniform(count, min(1.0, low), 1, generator=generator)
        mode = pick_each(count, (1.0,) * len(self.modes), generator=generator)
        way = pick_each(count, self.ways or (1, 1, 1), generator=generator)
        factor = torch.where(way == 0, up, torch.where(way == 1, down, torch.ones_like(up)))
        return {"factor": even if self.ways is None else factor, "mode": mode}

    def drifts(self) -> dict[str, Drift]:
        """The factor moves."""
        return {"factor": Drift(self.factor_step, *self.factor)}

    def apply(
        self, pictures: Tensor, draws: Draws, generator: torch.Generator, scene: Scene
    ) -> Tensor:
        """Resample `(N, C, H, W)`."""
        mode = self.modes[int(draws["mode"][0])]
        sizes = [self._size(pictures, float(value), scene) for value in draws["factor"]]
        if len(set(sizes)) == 1:
            return resize(pictures, *sizes[0], mode, antialias=self.antialias)
        first = sizes[0]
        frames = [
            resize(
                resize(picture, *size, mode, antialias=self.antialias),
                *first,
                mode,
                antialias=self.antialias,
            )
            for picture, size in zip(pictures[:, None], sizes, strict=True)
        ]
        return torch.cat(frames)

    def _size(self, pictures: Tensor, factor: float, scene: Scene) -> tuple[int, int]:
        now = cast(tuple[int, int], tuple(pictures.shape[-2:]))
        base = {"current": now, "good": scene.good, "bad": scene.bad}[self.to]
        scaled = [side / factor if self.divide else side * factor for side in base]
        # A little more than exact: 0.3 times 10 is 2.9999999 in floats.
        sides = [
            min(max(1, int(side + 1e-6)), int(_LARGEST * good))
            for side, good in zip(scaled, scene.good, strict=True)
        ]
        return sides[0], sides[1]

    def told(self, draws: dict[str, Any]) -> dict[str, Any]:
        """What a record says of one picture."""
        return {"to": self.to, "factor": draws["factor"], "mode": self.modes[int(draws["mode"])]}


@dataclass(frozen=True, kw_only=True, slots=True)
class Decimate:
    """A Gaussian blur, then every n-th pixel: the resampling of a plain sensor.

    The kernel is moved by (n - 1) / 2 pixels, so that the picture stays where it is (Zhang et al.,
    ICCV 2021, section 3.2).
    """

    prob: float = 1.0
    """Probability, for the batch."""
    every: int = 4
    """n."""
    sigma: tuple[float, float] = (0.1, 2.4)
    """Standard deviation of the Gaussian in pixels."""

    def __post_init__(self) -> None:
        check_prob("decimate prob", self.prob)
        check_range("decimate sigma", self.sigma, low=1e-3)
        if self.every < 1:
            raise OptionError(f"decimate every {self.every} is not possible; give 1 or more")

    @property
    def shared(self) -> bool:
        """Pictures of a batch keep one size."""
        return True

    def draw(self, count: int, generator: torch.Generator) -> Draws:
        """The deviation."""
        return {"sigma": uniform(count, *self.sigma, generator=generator)}

    def drifts(self) -> dict[str, Drift]:
        """Nothing moves."""
        return {}

    def apply(
        self, pictures: Tensor, draws: Draws, generator: torch.Generator, scene: Scene
    ) -> Tensor:
        """Decimate `(N, C, H, W)`."""
        sigma = draws["sigma"].cpu()
        kernels = gaussian_kernels(
            sigma,
            sigma,
            torch.zeros_like(sigma),
            size=_DECIMATION_KERNEL,
            offset=(self.every - 1) / 2,
        )
        return filter_each(pictures, kernels)[..., :: self.every, :: self.every]

    def told(self, draws: dict[str, Any]) -> dict[str, Any]:
        """What a record says of one picture."""
        return {"every": self.every, "sigma": draws["sigma"]}


def resize(
    pictures: Tensor, height: int, width: int, mode: ResizeMode, *, antialias: bool = True
) -> Tensor:
    """Resample `(B, C, H, W)` to `(B, C, height, width)`.

    Args:
        pictures: of any size.
        height, width: size of the result.
        mode: filter. "area" is a mean over the pixels that a smaller one stands for, and bilinear
            where the picture grows, as OpenCV's INTER_AREA.
        antialias: whether the other two widen their filter for smaller results.
    """
    if pictures.shape[-2:] == (height, width):
        return pictures
    if mode == "area" and height <= pictures.shape[-2] and width <= pictures.shape[-1]:
        return F.interpolate(pictures, (height, width), mode="area")
    kind = "bicubic" if mode == "bicubic" else "bilinear"
    return F.interpolate(
        pictures, (height, width), mode=kind, align_corners=False, antialias=antialias
    )


def random_mode(generator: torch.Generator) -> ResizeMode:
    """One of the filters."""
    return MODES[int(number(0, len(MODES), generator=generator))]
