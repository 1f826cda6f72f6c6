"""Noise of sensors and of film."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from restore.degradations.draw import normal, pick_each, uniform
from restore.degradations.step import (
    Draws,
    Drift,
    Scene,
    check_kinds,
    check_prob,
    check_range,
    rows_of,
)

NoiseKind = Literal["gaussian", "poisson", "photon", "correlated"]

_LUMA = (0.2989, 0.587, 0.114)
"""Weights of R, G and B in gray (BT.601), as torchvision rounds them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Noise:
    """Noise of a kind and strength drawn for each picture; values are clamped to [0, 1] after."""

    prob: float = 1.0
    """Probability, for each picture."""
    kinds: tuple[NoiseKind, ...] = ("gaussian", "poisson")
    """gaussian = the same everywhere; poisson = counted photons; photon = the same as a Gaussian of
    equal variance, which is quicker; correlated = Gaussian with a random covariance of R, G, B."""
    weights: tuple[float, ...] = (0.5, 0.5)
    """How often each, relative to the others."""
    sigma: tuple[float, float] = (1.0, 30.0)
    """Standard deviation of Gaussian noise in steps of 1/255; correlated noise takes the end."""
    scale: tuple[float, float] = (0.05, 3.0)
    """Factor on photon noise; 1 = a sensor that counts 256 photons at white."""
    gray: float = 0.4
    """Probability, for each picture, of noise without colour."""
    sigma_step: float = 0.0
    """Largest change of the deviation from frame to frame in a clip."""
    scale_step: float = 0.0
    """Largest change of the factor, likewise."""

    def __post_init__(self) -> None:
        check_prob("noise prob", self.prob)
        check_prob("noise gray", self.gray)
        check_range("noise sigma", self.sigma)
        check_range("noise scale", self.scale)
        check_kinds("noise", self.kinds, self.weights, get_args(NoiseKind))

    @property
    def shared(self) -> bool:
        """Each picture has draws of its own."""
        return False

    def draw(self, count: int, generator: torch.Generator) -> Draws:
        """Kind and strength."""
        draws = {
            "kind": pick_each(count, self.weights, generator=generator),
            "sigma": uniform(count, *self.sigma, generator=generator),
            "scale": uniform(count, *self.scale, generator=generator),
            "gray": uniform(count, 0, 1, generator=generator) < self.gray,
        }
        if "correlated" in self.kinds:
            mixes = _covariance_roots(count, generator)
            draws |= {f"mix{place}": mixes[:, place] for place in range(9)}
        return draws

    def drifts(self) -> dict[str, Drift]:
        """The strength moves."""
        return {
            "sigma": Drift(self.sigma_step, *self.sigma),
            "scale": Drift(self.scale_step, *self.scale),
        }

    def apply(
        self, pictures: Tensor, draws: Draws, generator: torch.Generator, scene: Scene
    ) -> Tensor:
        """Add noise to `(N, 3, H, W)`; the noise of each frame is its own."""
        result = torch.empty_like(pictures)
        for place, kind in enumerate(self.kinds):
            rows = (draws["kind"] == place).nonzero()[:, 0]
            if len(rows) == 0:
                continue
            own = rows_of(draws, rows)
            rows = rows.to(pictures.device)
            result[rows] = self._add(kind, pictures[rows], own, generator)
        return result.clamp_(0, 1)

    def _add(
        self, kind: NoiseKind, pictures: Tensor, own: Draws, generator: torch.Generator
    ) -> Tensor:
        if kind == "gaussian":
            return add_gaussian(pictures, generator, sigma=own["sigma"], gray=own["gray"])
        if kind == "poisson":
            return add_poisson(pictures, generator, scale=own["scale"], gray=own["gray"])
        if kind == "photon":
            return add_photon(pictures, generator, scale=own["scale"], gray=own["gray"])
        mix = torch.stack([own[f"mix{place}"] for place in range(9)], dim=1).view(-1, 3, 3)
        return add_correlated(pictures, generator, mix=mix * self.sigma[1])

    def told(self, draws: dict[str, Any]) -> dict[str, Any]:
        """What a record says of one picture."""
        kind = self.kinds[int(draws["kind"])]
        if kind == "correlated":
            mix = [draws[f"mix{place}"] * self.sigma[1] for place in range(9)]
            return {"kind": kind, "mix": mix}
        strength = "sigma" if kind == "gaussian" else "scale"
        return {"kind": kind, strength: draws[strength], "gray": bool(draws["gray"])}


def add_gaussian(
    pictures: Tensor, generator: torch.Generator, *, sigma: Tensor, gray: Tensor
) -> Tensor:
    """Add white noise.

    Args:
        pictures: `(B, C, H, W)` in [0, 1].
        generator: source of the noise.
        sigma: standard deviation in steps of 1/255, `(B,)`.
        gray: whether the channels of a picture share their noise, `(B,)`.
    """
    return pictures + _white(pictures, generator, gray) * _spread(sigma / 255, pictures)


def add_photon(
    pictures: Tensor, generator: torch.Generator, *, scale: Tensor, gray: Tensor
) -> Tensor:
    """Add noise whose variance grows with the light, as a Gaussian.

    The variance at value x is scale^2 x / 256: that of `add_poisson` on a picture that has more
    than half of all 8-bit values, with which it agrees well where many photons are counted.

    Args:
        pictures, generator, gray: as in `add_gaussian`.
        scale: factor `(B,)`; 1 = a sensor that counts 256 photons at white.
    """
    deviation = (pictures.clamp_min(0) / 256).sqrt()
    return pictures + _white(pictures, generator, gray) * deviation * _spread(scale, pictures)


def add_poisson(
    pictures: Tensor, generator: torch.Generator, *, scale: Tensor, gray: Tensor
) -> Tensor:
    """Add the noise of counted photons, as Real-ESRGAN defines it.

    The picture is rounded to 8 bits; with n different values in it, white is p = 2^ceil(log2 n)
    photons, and value x is Poisson(p x) / p. The difference from x is taken `scale` times. Gray
    noise is that of the gray picture, in all channels.

    Args:
        pictures: RGB `(B, 3, H, W)`, clamped to [0, 1].
        generator, gray: as in `add_gaussian`.
        scale: factor `(B,)`.
    """
    codes = pictures.clamp(0, 1).mul(255).round()
    noise = torch.empty_like(pictures)
    gray = gray.to(pictures.device)
    for chosen in (True, False):
        rows = (gray == chosen).nonzero()[:, 0]
        if len(rows) == 0:
            continue
        own = codes[rows]
        if chosen:
            weights = torch.tensor(_LUMA, dtype=own.dtype, device=own.device)
            own = torch.einsum("bchw,c->bhw", own, weights).round()[:, None]
        noise[rows] = _counted(own, generator).expand(-1, pictures.shape[1], -1, -1)
    return pictures + noise * _spread(scale, pictures)


def add_correlated(pictures: Tensor, generator: torch.Generator, *, mix: Tensor) -> Tensor:
    """Add white noise whose channels depend on each other.

    Args:
        pictures: RGB `(B, 3, H, W)` in [0, 1].
        generator: source of the noise.
        mix: root M of the covariance M M^T of R, G and B, in steps of 1/255, `(B, 3, 3)`.
    """
    white = normal(pictures, generator=generator)
    return pictures + torch.einsum("bij,bjhw->bihw", mix.to(pictures) / 255, white)


def _white(pictures: Tensor, generator: torch.Generator, gray: Tensor) -> Tensor:
    """Standard normal numbers, equal in all channels where `gray`."""
    if bool(gray.all()):
        return normal(pictures, generator=generator, channels=1)
    noise = normal(pictures, generator=generator)
    return torch.where(gray.to(pictures.device)[:, None, None, None], noise[:, :1], noise)


def _spread(values: Tensor, pictures: Tensor) -> Tensor:
    return values.to(pictures)[:, None, None, None]


def _counted(codes: Tensor, generator: torch.Generator) -> Tensor:
    """Photon noise of pictures in 8-bit codes `(B, C, H, W)`, in [-1, 1] or beyond."""
    batch = len(codes)
    seen = torch.zeros(batch, 256, dtype=torch.bool, device=codes.device)
    seen.scatter_(1, codes.flatten(1).long(), True)
    photons = 2.0 ** torch.log2(seen.sum(1).to(codes)).ceil()
    per_code = (photons / 255)[:, None, None, None]
    # Counts come from the generator's device, like all numbers.
    rates = (codes * per_code).to(generator.device)
    counts = torch.poisson(rates, generator=generator).to(codes)
    return counts / photons[:, None, None, None] - codes / 255


def _covariance_roots(count: int, generator: torch.Generator) -> Tensor:
    """Roots of random covariances with a largest variance of 1, `(count, 9)`.

    The covariance is U^T D U, U a random rotation and D even in [0, 1] on the diagonal (BSRGAN).
    """
    device = generator.device
    rotation, _ = torch.linalg.qr(torch.randn(count, 3, 3, generator=generator, device=device))
    variances = torch.rand(count, 1, 3, generator=generator, device=device)
    return (rotation * variances.sqrt()).flatten(1)
