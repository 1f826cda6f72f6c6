"""The context model of `compact-codec` in whole numbers, as files are written and read with it.

What `ContextNet` computes, in fixed point (int32; >> rounds down):

    h     = clamp((W1 |known| + B1[rate] + 16) >> 5, 0, 2047)             in 1/32
    scale = clamp((W2 h + B2[rate] + 4096) >> 13, 0, SCALES - 1)
    mean  = clamp((V own + C[rate] + 64) >> 7, -8 REACH, 8 REACH)          in 1/8

A latent q is then coded as q - (mean >> 3), with table `8 scale + (mean & 7)`. The limits on the
weights keep every sum below 2^31, so that the same numbers come out on every machine.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from restore.models.compact_codec_context import (
    EIGHTHS,
    FIRST_SCALE,
    SCALE_RATIO,
    SCALES,
    SEEN,
    Pass,
    passes,
    phase_map,
)
from restore.models.compact_codec_net import REACH, CodecConfig

TABLE_BITS = 24
"""The frequencies of a table add up to 2^24."""
SYMBOLS = 4 * REACH + 1
"""What a latent less the whole part of its mean can be: -2 REACH to 2 REACH."""
LARGEST_WEIGHT = 8191
LARGEST_BIAS = 1 << 24
_CHUNK = 1 << 14  # places predicted at one time: 57 MB
_OUT = 8  # `ContextNet` has this factor before the scale

_UNITS: dict[str, float] = {
    "w1": 1 << 10,
    "b1": 1 << 10,
    "w2": _OUT << 8,
    "b2": _OUT << 13,
    "v": 1 << 10,
    "c": 1 << 10,
}
"""Whole numbers per unit of the floating-point weights."""
_WEIGHTS = ("w1", "w2", "v")

Integers = npt.NDArray[np.int64]


def to_integers(context: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Whole numbers for the weights of a `ContextNet`, and the tables.

    Args:
        context: its state dict.

    Returns:
        int16 for weights, int32 for biases, and `tables` int32 `(SCALES * EIGHTHS, SYMBOLS)`.
    """
    result = {"tables": distribution_tables()}
    for key, value in context.items():
        kind = key.split(".")[0]
        if kind not in _UNITS:
            continue
        whole = (value.detach().double().cpu() * _UNITS[kind]).round()
        if kind in _WEIGHTS:
            limited = whole.clamp(-LARGEST_WEIGHT, LARGEST_WEIGHT).to(torch.int16)
        else:
            limited = whole.clamp(-LARGEST_BIAS, LARGEST_BIAS).to(torch.int32)
        result[key] = limited
    return result


def to_floats(integers: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Floating-point weights again, to go on training from."""
    return {
        key: (value.double() / _UNITS[key.split(".")[0]]).float()
        for key, value in integers.items()
        if key != "tables"
    }


def shapes(config: CodecConfig) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    """Name, shape and type of every tensor that `to_integers` gives."""
    found: dict[str, tuple[tuple[int, ...], torch.dtype]] = {
        "tables": ((SCALES * EIGHTHS, SYMBOLS), torch.int32)
    }
    hidden, rates = config.hidden, config.rates
    for one in passes(config.latent):
        own, i = one.last - one.first, one.number
        found[f"w1.{i}"] = ((hidden, one.known, 3, 3), torch.int16)
        found[f"w2.{i}"] = ((own, hidden, 1, 1), torch.int16)
        found[f"v.{i}"] = ((own, own if one.phase else 0, 3, 3), torch.int16)
        found[f"b1.{i}"] = ((rates, hidden), torch.int32)
        found[f"b2.{i}"] = ((rates, own), torch.int32)
        found[f"c.{i}"] = ((rates, own), torch.int32)
    return found


def problem(integers: Mapping[str, Tensor]) -> str:
    """What is wrong with whole numbers of the right shapes, or nothing.

    A weight beyond the limits could make a sum overflow, and a table that does not add up would
    not decode.
    """
    for key, value in integers.items():
        if key == "tables":
            total = value.long().sum(1)
            if bool((value < 1).any()) or bool((total != 1 << TABLE_BITS).any()):
                return "the frequencies of a table do not add up to 2^24"
            continue
        limit = LARGEST_WEIGHT if key.split(".")[0] in _WEIGHTS else LARGEST_BIAS
        if value.numel() and int(value.abs().max()) > limit:
            return f"{key} is beyond {limit}"
    return ""


def distribution_tables() -> Tensor:
    """Frequencies of logistic distributions: int32 `(SCALES * EIGHTHS, SYMBOLS)`.

    They are computed when weights are written, and are part of the file: whoever reads it computes
    none of them.
    """
    scale = FIRST_SCALE * SCALE_RATIO ** torch.arange(SCALES, dtype=torch.float64)
    part = torch.arange(EIGHTHS, dtype=torch.float64) / EIGHTHS
    symbol = torch.arange(SYMBOLS, dtype=torch.float64) - 2 * REACH
    distance = (symbol - part[:, None]).abs() / scale[:, None, None]  # (SCALES, EIGHTHS, SYMBOLS)
    half = 0.5 / scale[:, None, None]
    chance = torch.sigmoid(half - distance) - torch.sigmoid(-half - distance)
    chance = (chance / chance.sum(-1, keepdim=True)).flatten(0, 1)
    whole = 1 + (chance * ((1 << TABLE_BITS) - SYMBOLS)).floor().long()
    rest = (1 << TABLE_BITS) - whole.sum(-1)
    whole[torch.arange(len(whole)), whole.argmax(-1)] += rest
    return whole.int()


class IntegerContext:
    """How likely the indices of one picture are, pass by pass; a `restore.codec` index model."""

    def __init__(
        self,
        integers: Mapping[str, Tensor],
        config: CodecConfig,
        *,
        rate: int,
        size: tuple[int, int],
    ) -> None:
        """Args:
        integers: what `to_integers` gave.
        config: shape of the network.
        rate: number of the rate.
        size: rows and columns of the latents.
        """
        self._integers, self._config, self._rate = integers, config, rate
        self._size = size
        self._passes = passes(config.latent)
        self._phases = phase_map(*size)
        self.steps = len(self._passes)
        self.tables = integers["tables"].numpy()

    def plan(
        self, step: int, indices: npt.NDArray[np.int32]
    ) -> tuple[Integers, Integers, Integers]:
        """What is coded in a step, and with which tables.

        Args:
            step: 0 to `steps` - 1.
            indices: `(planes, h, w)`; those of earlier steps count, the others can be anything.

        Returns:
            Places in the flattened indices, the table of each, and what is subtracted from an
            index to make the symbol of its table; all `(n,)`.
        """
        one = self._passes[step]
        rows, columns = torch.nonzero(self._phases == one.phase, as_tuple=True)
        own = one.last - one.first
        padded = self._known(one, torch.from_numpy(indices).int())
        found = [
            self._predict(
                one, padded, (rows[first : first + _CHUNK], columns[first : first + _CHUNK])
            )
            for first in range(0, max(1, len(rows)), _CHUNK)
        ]
        scale, mean = (torch.cat(parts, 1) for parts in zip(*found, strict=True))
        height, width = self._size
        channels = torch.arange(one.first, one.last)[:, None]
        places = (channels * height + rows) * width + columns  # (own, n)
        table = scale * EIGHTHS + (mean & 7)
        # index = q + REACH, symbol = q - (mean >> 3) + 2 REACH
        shift = (mean >> 3) - REACH
        assert places.shape == table.shape == (own, len(rows))
        return _flat(places), _flat(table), _flat(shift)

    def _known(self, one: Pass, indices: Tensor) -> Tensor:
        """What a pass sees of the latents, with zeros around: `(known, h + 2, w + 2)`."""
        q = (indices[: one.known] - REACH).clamp(-SEEN, SEEN)
        q[one.first :] *= self._phases < one.phase
        padded = torch.zeros(len(q), q.shape[1] + 2, q.shape[2] + 2, dtype=torch.int32)
        padded[:, 1:-1, 1:-1] = q
        return padded

    def _predict(
        self, one: Pass, padded: Tensor, where: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Scales and means in eighths, `(own, n)`."""
        found, i, rate = self._integers, one.number, self._rate
        own, count = one.last - one.first, len(where[0])
        hidden = found[f"b1.{i}"][rate][:, None].expand(-1, count)
        mean = found[f"c.{i}"][rate][:, None].expand(-1, count)
        if one.known:
            around = _around(padded, where)  # (known, 9, n)
            hidden = hidden + _product(found[f"w1.{i}"], around.abs())
            if one.phase:
                mean = mean + _product(found[f"v.{i}"], around[one.first :])
        hidden = ((hidden + 16) >> 5).clamp(0, 2047)
        scale = _product(found[f"w2.{i}"], hidden[:, None]) + found[f"b2.{i}"][rate][:, None]
        scale = ((scale + 4096) >> 13).clamp(0, SCALES - 1)
        mean = ((mean + 64) >> 7).clamp(-EIGHTHS * REACH, EIGHTHS * REACH)
        assert scale.shape == mean.shape == (own, count)
        return scale, mean


def _flat(x: Tensor) -> Integers:
    return x.reshape(-1).numpy().astype(np.int64)


def _around(padded: Tensor, where: tuple[Tensor, Tensor]) -> Tensor:
    """Values in the 3x3 places around each of `where`: `(C, 9, n)`."""
    rows, columns = where
    return torch.stack([padded[:, rows + i // 3, columns + i % 3] for i in range(9)], 1)


def _product(weights: Tensor, values: Tensor) -> Tensor:
    """`(out, ...)` int16 with `(..., n)` int32: a matrix product in int32, exact."""
    return weights.flatten(1).int() @ values.flatten(0, 1)
