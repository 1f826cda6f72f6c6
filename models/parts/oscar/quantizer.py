"""Vectors to entries of a code book by their angle, and back.

    features -> project_in -> u = p / |p| -> index k = argmax <u, e_k>
    index -> e_k -> project_out -> features

Its tensors have the names of `VectorQuantize` of vector-quantize-pytorch 1.22.3 with
`use_cosine_sim`, in which the published weights were trained.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

DECAY = 0.8
"""Of the moving averages that make the code book in training."""
_SMOOTHING = 1e-5
_PLACES = 1 << 16
"""Vectors that are compared with the code book at a time."""


class CodeBook(nn.Module):
    """Unit vectors e_k, and what they are averaged from in training.

    They learn as moving averages of the vectors that chose them (van den Oord et al., NeurIPS 2017,
    appendix A.1), each brought back to unit length.
    """

    initted: Tensor
    cluster_size: Tensor
    embed_avg: Tensor
    embed: Tensor

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        start = F.normalize(torch.randn(1, size, width), dim=-1)
        self.register_buffer("initted", torch.ones(1))
        self.register_buffer("cluster_size", torch.ones(1, size))
        self.register_buffer("embed_avg", start)
        self.register_buffer("embed", start.clone())

    @torch.no_grad()
    def choose(self, units: Tensor) -> Tensor:
        """Indices `(n,)` of the nearest entries of unit vectors `(n, width)`."""
        with torch.autocast(units.device.type, enabled=False):
            parts = torch.split(units, _PLACES)
            return torch.cat([(part @ self.embed[0].T).argmax(1) for part in parts])

    @torch.no_grad()
    def learn(self, units: Tensor, indices: Tensor) -> None:
        """Move the entries towards the unit vectors `(n, width)` that chose them."""
        chosen = F.one_hot(indices, self.embed.shape[1]).to(units)  # (n, size)
        with torch.autocast(units.device.type, enabled=False):
            sums = chosen.T @ units
        self.cluster_size[0].lerp_(chosen.sum(0), 1 - DECAY)
        self.embed_avg[0].lerp_(sums, 1 - DECAY)
        # The counts, smoothed so that an entry that nobody chose divides by no zero.
        total = self.cluster_size.sum()
        shares = (self.cluster_size + _SMOOTHING) / (
            total + self.cluster_size.shape[1] * _SMOOTHING
        )
        means = self.embed_avg / (shares * total).unsqueeze(-1)
        self.embed.copy_(F.normalize(means, dim=-1, eps=1e-6))


class CosineQuantizer(nn.Module):
    """A code book with a linear layer before and behind it."""

    def __init__(self, channels: int, width: int, size: int) -> None:
        super().__init__()
        self.project_in = nn.Linear(channels, width)
        self.project_out = nn.Linear(width, channels)
        self._codebook = CodeBook(size, width)

    def forward(self, features: Tensor) -> Tensor:
        """What the decoder will see of features `(B, C, h, w)`, with a gradient for the encoder.

        The gradient goes through as if each vector had been turned onto its entry (Fifty et al.,
        "Restructuring Vector Quantization with the Rotation Trick", ICLR 2025, section 4.2). In
        training mode the code book learns.
        """
        places = features.movedim(1, -1)  # (B, h, w, C)
        units = self._units(places)
        flat = units.detach().flatten(0, -2)
        indices = self._codebook.choose(flat)
        entries = self._codebook.embed[0][indices].view_as(units)
        if self.training:
            self._codebook.learn(flat, indices)
            entries = rotate(units, entries)
        return self.project_out(entries).movedim(-1, 1)

    def encode(self, features: Tensor) -> Tensor:
        """Indices `(B, h, w)` of features `(B, C, h, w)`."""
        units = self._units(features.movedim(1, -1))
        return self._codebook.choose(units.flatten(0, -2)).view(units.shape[:-1])

    def decode(self, indices: Tensor) -> Tensor:
        """Features `(B, C, h, w)` of indices `(B, h, w)`."""
        entries: Tensor = self._codebook.embed[0][indices]
        return self.project_out(entries).movedim(-1, 1)

    def _units(self, places: Tensor) -> Tensor:
        return F.normalize(self.project_in(places).float(), dim=-1, eps=1e-6)


def rotate(units: Tensor, entries: Tensor) -> Tensor:
    """`entries`, as the rotation of `units` onto them, which alone gets no gradient.

    R u = u - 2 <w, u> w + 2 <u0, u> e, with w = (u0 + e) / |u0 + e| and u0 = u without gradient
    (there, in the form without a matrix); both are unit vectors `(..., width)`.
    """
    start, entries = units.detach(), entries.detach()
    middle = F.normalize(start + entries, dim=-1, eps=1e-6)
    back = 2 * (middle * units).sum(-1, keepdim=True) * middle
    return units - back + 2 * (start * units).sum(-1, keepdim=True) * entries
