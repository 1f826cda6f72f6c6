"""Where a token of FlashVSR stands in time, height and width, as rotations of its query and key.

Su et al., "RoFormer" (arXiv 2104.09864), in three axes as in Wan2.1: of the head's channels, taken
as pairs, the first part turns with time, the second with the row, the third with the column:

    (x_2i + j x_2i+1) exp(j position theta_i),   theta_i = 10000^(-2i / channels of the axis)

Attention sees differences of positions only, so all times may be moved together: a stream that
comes to the end of the published table goes on from its beginning, with its cached keys turned
back by as much (`rebase`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from restore.models.parts.flashvsr.windows import to_windows

THETA = 10000.0
TABLE = 1024
"""Positions that the published code can tell apart along each axis."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rotation:
    """Cosine and sine of every token's angles, `(N, 1, D / 2)` float32."""

    cos: Tensor
    """Of the angles."""
    sin: Tensor
    """Of the angles."""

    def turn(self, x: Tensor) -> Tensor:
        """Turn the pairs of `(..., D)` by the angles, which broadcast; computed in float32."""
        pairs = x.float().reshape(*x.shape[:-1], -1, 2)
        real, imaginary = pairs[..., 0], pairs[..., 1]
        turned = torch.stack(
            (
                real * self.cos - imaginary * self.sin,
                real * self.sin + imaginary * self.cos,
            ),
            -1,
        )
        return turned.flatten(-2).to(x.dtype)


def axis_channels(head_dim: int) -> tuple[int, int, int]:
    """Channels of a head that turn with time, row and column.

    Raises:
        ValueError: a head of that width has no whole number of pairs for each axis.
    """
    third = head_dim // 3
    if third % 2 or head_dim % 2:
        raise ValueError(f"heads of {head_dim} channels cannot be split over three axes in pairs")
    return head_dim - 2 * third, third, third


def angles(positions: Tensor, channels: int) -> Tensor:
    """Angles `(n, channels / 2)` of `positions (n,)`, float64."""
    exponents = torch.arange(0, channels, 2, dtype=torch.float64, device=positions.device)
    return torch.outer(positions.double(), THETA ** (-exponents / channels))


def rotation(
    head_dim: int, *, times: range, rows: int, columns: int, device: torch.device
) -> Rotation:
    """Rotations of all tokens of a chunk, in the order of the windows.

    Args:
        head_dim: channels of a head.
        times: positions along time.
        rows: of tokens.
        columns: of tokens.
        device: where the result lies.
    """
    axes = [
        angles(torch.arange(axis.start, axis.stop, device=device), channels)
        for axis, channels in zip(
            (times, range(rows), range(columns)), axis_channels(head_dim), strict=True
        )
    ]
    size = (len(times), rows, columns, -1)
    grid = torch.cat(
        (
            axes[0][:, None, None].expand(size),
            axes[1][None, :, None].expand(size),
            axes[2][None, None].expand(size),
        ),
        -1,
    )  # (f, h, w, D / 2)
    tokens = to_windows(grid)[:, None]
    return Rotation(cos=tokens.cos().float(), sin=tokens.sin().float())


def rebase(keys: Tensor, steps: int) -> Tensor:
    """Keys `(..., D)` as they would be, had their times been `steps` less."""
    time, _, _ = axis_channels(keys.shape[-1])
    back = angles(torch.tensor([-steps], device=keys.device), time)[0]
    turn = Rotation(cos=back.cos().float(), sin=back.sin().float())
    return torch.cat((turn.turn(keys[..., :time]), keys[..., time:]), -1)
