"""Blur: one kernel for each picture, drawn from a family, and its application."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from restore.degradations.draw import pick_each, uniform
from restore.degradations.filtering import filter_each
from restore.degradations.kernels import (
    defocus_kernels,
    gaussian_kernels,
    generalized_kernels,
    motion_kernels,
    plateau_kernels,
    shake_kernels,
    sinc_kernels,
)
from restore.degradations.step import (
    Draws,
    Drift,
    Scene,
    check_kinds,
    check_prob,
    check_range,
)
from restore.errors import OptionError

KernelKind = Literal[
    "iso",
    "aniso",
    "generalized_iso",
    "generalized_aniso",
    "plateau_iso",
    "plateau_aniso",
    "sinc",
    "motion",
    "shake",
    "defocus",
]

_TURNS = 4
"""Changes of direction on the way of a shaking hand."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Blur:
    """A blur whose kernel is drawn for each picture."""

    prob: float = 1.0
    """Probability, for each picture."""
    kinds: tuple[KernelKind, ...] = ("iso", "aniso")
    """Families to draw from. iso = round, aniso = two deviations at an angle; sinc rings; motion is
    a straight line, shake a curved one, defocus a disk."""
    weights: tuple[float, ...] = (0.6, 0.4)
    """How often each family, relative to the others."""
    size: tuple[int, int] = (7, 21)
    """Smallest and largest side of a kernel in pixels, both odd; sides between are odd too."""
    sigma: tuple[float, float] = (0.2, 3.0)
    """Standard deviation in pixels, of the Gaussian, generalised and plateau families."""
    spread: Literal["deviation", "variance"] = "deviation"
    """Which of the two is drawn evenly; the range is of the deviation in both cases."""
    generalized: tuple[float, float] = (0.5, 4.0)
    """Exponent of the generalised Gaussian, below and above 1 equally often."""
    plateau: tuple[float, float] = (1.0, 2.0)
    """Exponent of the plateau, likewise."""
    cutoff: tuple[float, float] | None = None
    """Cut-off of the sinc in radians a pixel; None = pi / 3 to pi, and from pi / 5 on for kernels
    of 13 pixels and more."""
    length: tuple[float, float] = (2.0, 12.0)
    """Way of the motion in pixels."""
    bend: float = 1.0
    """Largest change of direction of the shaking hand in radians, four times on its way."""
    radius: tuple[float, float] = (0.5, 4.0)
    """Radius of the disk in pixels."""
    sigma_step: float = 0.0
    """Largest change of a deviation from frame to frame in a clip; so are the other steps."""
    angle_step: float = 0.0
    """Of the angle, in radians."""
    generalized_step: float = 0.0
    """Of the exponent of the generalised Gaussian."""
    plateau_step: float = 0.0
    """Of the exponent of the plateau."""
    cutoff_step: float = 0.0
    """Of the cut-off."""

    def __post_init__(self) -> None:
        check_prob("blur prob", self.prob)
        check_kinds("blur", self.kinds, self.weights, get_args(KernelKind))
        check_range("blur size", self.size, low=3, high=201)
        check_range("blur sigma", self.sigma, low=1e-3)
        if not self.size[0] % 2 == self.size[1] % 2 == 1:
            raise OptionError(f"blur size {list(self.size)} is even; give odd numbers")

    @property
    def shared(self) -> bool:
        """Each picture has draws of its own."""
        return False

    def draw(self, count: int, generator: torch.Generator) -> Draws:
        """Draws for `count` pictures: of each, all that any family of this blur needs."""
        sides = (self.size[1] - self.size[0]) // 2 + 1
        side = self.size[0] + 2 * uniform(count, 0, sides, generator=generator).floor()
        draws = {"kind": pick_each(count, self.weights, generator=generator), "size": side}
        families = {kind.partition("_")[0] for kind in self.kinds}
        if not families.isdisjoint(("iso", "aniso", "generalized", "plateau")):
            draws["sigma_x"] = self._deviation(count, generator)
            draws["sigma_y"] = self._deviation(count, generator)
        draws["angle"] = uniform(count, -math.pi, math.pi, generator=generator)
        if "generalized" in families:
            draws["generalized"] = _exponent(count, *self.generalized, generator=generator)
        if "plateau" in families:
            draws["plateau"] = _exponent(count, *self.plateau, generator=generator)
        if "sinc" in families:
            draws["cutoff"] = self._cutoff(side, generator)
        if not families.isdisjoint(("motion", "shake")):
            draws["length"] = uniform(count, *self.length, generator=generator)
        if "shake" in families:
            for turn in range(_TURNS):
                draws[f"turn{turn}"] = uniform(count, -self.bend, self.bend, generator=generator)
        if "defocus" in families:
            draws["radius"] = uniform(count, *self.radius, generator=generator)
        return draws

    def _deviation(self, count: int, generator: torch.Generator) -> Tensor:
        low, high = self.sigma
        if self.spread == "variance":
            return uniform(count, low**2, high**2, generator=generator).sqrt()
        return uniform(count, low, high, generator=generator)

    def _cutoff(self, side: Tensor, generator: torch.Generator) -> Tensor:
        share = uniform(len(side), 0, 1, generator=generator)
        if self.cutoff is not None:
            return self.cutoff[0] + (self.cutoff[1] - self.cutoff[0]) * share
        low = torch.where(side < 13, math.pi / 3, math.pi / 5)
        return low + (math.pi - low) * share

    def drifts(self) -> dict[str, Drift]:
        """What moves through a clip."""
        sigma = Drift(self.sigma_step, *self.sigma)
        low = math.pi / 5 if self.cutoff is None else self.cutoff[0]
        high = math.pi if self.cutoff is None else self.cutoff[1]
        return {
            "sigma_x": sigma,
            "sigma_y": sigma,
            "angle": Drift(self.angle_step, -math.pi, math.pi),
            "generalized": Drift(self.generalized_step, *self.generalized),
            "plateau": Drift(self.plateau_step, *self.plateau),
            "cutoff": Drift(self.cutoff_step, low, high),
        }

    def apply(
        self, pictures: Tensor, draws: Draws, generator: torch.Generator, scene: Scene
    ) -> Tensor:
        """Blur `(N, C, H, W)` with the kernels of `draws`."""
        return filter_each(pictures, self.kernels(draws))

    def kernels(self, draws: Draws) -> Tensor:
        """The kernels `(N, k, k)` of `draws`, k the largest side."""
        size = self.size[1]
        kernels = torch.zeros(len(draws["kind"]), size, size)
        for number, kind in enumerate(self.kinds):
            rows = (draws["kind"] == number).nonzero()[:, 0]
            if len(rows):
                own = {name: values[rows].cpu() for name, values in draws.items()}
                kernels[rows.cpu()] = _family(kind, own, size=size)
        return kernels

    def told(self, draws: dict[str, Any]) -> dict[str, Any]:
        """What a record says of one picture: only what its family has."""
        kind = self.kinds[int(draws["kind"])]
        names = {"motion": ("length", "angle"), "shake": ("length", "angle"), "sinc": ("cutoff",)}
        if kind == "defocus":
            return {"kind": kind, "radius": draws["radius"]}
        told: dict[str, Any] = {"kind": kind, "side": int(draws["size"])}
        if kind in names:
            return {**told, **{name: draws[name] for name in names[kind]}}
        family = kind.partition("_")[0]
        if family in ("generalized", "plateau"):
            told["shape"] = draws[family]
        if kind.endswith("aniso"):
            return {**told, **{name: draws[name] for name in ("sigma_x", "sigma_y", "angle")}}
        return {**told, "sigma": draws["sigma_x"]}


@dataclass(frozen=True, kw_only=True, slots=True)
class Sharpen:
    """Unsharp mask: as Real-ESRGAN prepares its good pictures, or as a camera hands out its own.

    The difference d from a Gaussian is added `amount` times where |d| is above `threshold`; the
    border between there and elsewhere is smoothed by the same Gaussian.
    """

    prob: float = 1.0
    """Probability, for each picture."""
    amount: tuple[float, float] = (0.5, 0.5)
    """How much of the difference is added."""
    sigma: tuple[float, float] = (8.0, 8.0)
    """Deviation of the Gaussian in pixels. OpenCV takes 8 for the published side of 51."""
    threshold: float = 10.0
    """Difference in steps of 1/255 that makes an edge; 0 = everything is sharpened, noise too."""

    def __post_init__(self) -> None:
        check_prob("sharpen prob", self.prob)
        check_range("sharpen amount", self.amount, high=10)
        check_range("sharpen sigma", self.sigma, low=0.05, high=50)
        check_range("sharpen threshold", (self.threshold, self.threshold), high=255)

    @property
    def shared(self) -> bool:
        """Each picture is drawn for itself."""
        return False

    def draw(self, count: int, generator: torch.Generator) -> Draws:
        """Amount and deviation of each."""
        return {
            "amount": uniform(count, *self.amount, generator=generator),
            "sigma": uniform(count, *self.sigma, generator=generator),
        }

    def drifts(self) -> dict[str, Drift]:
        """Nothing moves."""
        return {}

    def apply(
        self, pictures: Tensor, draws: Draws, generator: torch.Generator, scene: Scene
    ) -> Tensor:
        """Sharpen `(N, C, H, W)`."""
        size = 2 * math.ceil(3.2 * self.sigma[1]) + 1
        spread = draws["sigma"].cpu()
        kernels = gaussian_kernels(spread, spread, torch.zeros_like(spread), size=size)
        difference = pictures - filter_each(pictures, kernels)
        amount = draws["amount"].to(pictures)[:, None, None, None]
        sharp = (pictures + amount * difference).clamp(0, 1)
        if self.threshold == 0:
            return sharp
        edges = (difference.abs() * 255 > self.threshold).to(pictures)
        return torch.lerp(pictures, sharp, filter_each(edges, kernels))

    def told(self, draws: dict[str, Any]) -> dict[str, Any]:
        """What a record says of one picture."""
        return draws


def _exponent(count: int, low: float, high: float, *, generator: torch.Generator) -> Tensor:
    """Exponents `(count,)`, below and above 1 equally often where the range has both."""
    below = uniform(count, low, 1, generator=generator)
    above = uniform(count, 1, high, generator=generator)
    even = uniform(count, low, high, generator=generator)
    first = uniform(count, 0, 1, generator=generator) < 0.5
    return torch.where(first, below, above) if low <= 1 <= high else even


def _family(kind: KernelKind, own: Draws, *, size: int) -> Tensor:
    """Kernels `(n, size, size)` of one family."""
    angle, side = own["angle"], own["size"]
    if kind == "sinc":
        return sinc_kernels(own["cutoff"], size=size, side=side)
    if kind == "defocus":
        return defocus_kernels(own["radius"], size=size)
    if kind == "motion":
        return motion_kernels(own["length"].clamp(max=size - 2), angle, size=size)
    if kind == "shake":
        turns = torch.stack([own[f"turn{turn}"] for turn in range(_TURNS)], dim=1)
        return shake_kernels(own["length"].clamp(max=size - 2), angle, turns, size=size)
    x, y = own["sigma_x"], own["sigma_y"]
    if kind.endswith("_iso") or kind == "iso":
        y, angle = x, torch.zeros_like(angle)
    if kind.startswith("generalized"):
        return generalized_kernels(x, y, angle, own["generalized"], size=size, side=side)
    if kind.startswith("plateau"):
        return plateau_kernels(x, y, angle, own["plateau"], size=size, side=side)
    return gaussian_kernels(x, y, angle, size=size, side=side)


def random_blur(
    pictures: Tensor,
    generator: torch.Generator,
    *,
    sigma: tuple[float, float],
    anisotropic: float,
    size: int,
) -> Tensor:
    """Blur each picture with its own Gaussian.

    Args:
        pictures: `(B, C, H, W)` in [0, 1].
        generator: source of every draw.
        sigma: range of the standard deviations in pixels.
        anisotropic: probability in [0, 1] of two different deviations at a random angle.
        size: side of the kernels in pixels, odd.
    """
    batch = len(pictures)
    sigma_x = uniform(batch, *sigma, generator=generator)
    sigma_y = uniform(batch, *sigma, generator=generator)
    angle = uniform(batch, -math.pi, math.pi, generator=generator)
    round_one = uniform(batch, 0, 1, generator=generator) >= anisotropic
    sigma_y = torch.where(round_one, sigma_x, sigma_y)
    return filter_each(pictures, gaussian_kernels(sigma_x, sigma_y, angle, size=size))
