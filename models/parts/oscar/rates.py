"""The eight rates of OSCAR and the time steps that belong to them: a table, nothing is computed.

The coarser the code, the noisier the latents that are decoded from it look to the U-Net; each rate
therefore has a time step of its own. The values are those of the authors' code since 2025-10-19.
"""

from __future__ import annotations

from dataclasses import dataclass

LATENT = 8
"""Pixels per place of the latents along each side."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RatePoint:
    """One rate."""

    name: str
    """Bits per pixel as the authors call it."""
    stride: int
    """Pixels per index along each side: 8, 16, 32 or 64."""
    codebook: int
    """Entries of the code book, a power of two."""
    t: int
    """Time step at which the U-Net denoises."""

    @property
    def halvings(self) -> int:
        """How often the hyper-encoder halves the latents: 0 to 3."""
        return (self.stride // LATENT).bit_length() - 1

    @property
    def bits(self) -> int:
        """Bits of an index."""
        return (self.codebook - 1).bit_length()

    @property
    def bpp(self) -> float:
        """Bits per pixel of the indices alone, exactly."""
        return self.bits / self.stride**2


RATES: tuple[RatePoint, ...] = (
    RatePoint(name="0.0019", stride=64, codebook=256, t=500),
    RatePoint(name="0.0098", stride=32, codebook=1024, t=400),
    RatePoint(name="0.0313", stride=16, codebook=256, t=310),
    RatePoint(name="0.0430", stride=16, codebook=2048, t=280),
    RatePoint(name="0.0625", stride=8, codebook=16, t=210),
    RatePoint(name="0.0781", stride=8, codebook=32, t=190),
    RatePoint(name="0.0937", stride=8, codebook=64, t=170),
    RatePoint(name="0.1250", stride=8, codebook=256, t=150),
)
"""In the order of the hyper-encoders in the published file."""
