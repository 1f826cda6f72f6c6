"""The body of a container: the side values of a codec and its indices, as bytes and back."""

from __future__ import annotations

import numpy as np
import torch

from restore.bitstream import DAMAGED, OWN, Container
from restore.codec.contract import Codec, Coded, SelfCoding
from restore.codec.indices import Grid, check_places, padded, read_indices, write_indices
from restore.errors import InputError


def write_body(codec: Codec, coded: Coded, grid: Grid) -> tuple[int, bytes]:
    """How the indices are coded, and the bytes of the body."""
    side = coded.side.numpy().astype("<f2").tobytes()
    if isinstance(codec, SelfCoding):
        return OWN, side + padded(codec.write_payload(coded), grid)
    coding, payload = write_indices(coded.indices.numpy(), grid)
    return coding, side + payload


def read_body(codec: Codec, file: Container, grid: Grid) -> Coded:
    """What the decoder gets.

    Raises:
        InputError: the body is damaged.
    """
    count = codec.spec.side_values
    side = np.frombuffer(file.body[: len(file.body[: 2 * count]) // 2 * 2], "<f2")
    if len(side) != count or not np.isfinite(side).all():
        raise InputError(f"its {count} side values are not whole; {DAMAGED}")
    payload = file.body[2 * count :]
    if file.coding != OWN:
        indices = torch.from_numpy(read_indices(payload, grid, file.coding))
    elif isinstance(codec, SelfCoding):
        check_places(payload, grid)
        indices = codec.read_payload(payload, file.rate, grid.height, grid.width)
        assert tuple(indices.shape) == (grid.planes, grid.height, grid.width)
    else:
        raise InputError(f"its codec is said to code by itself, and does not; {DAMAGED}")
    return Coded(rate=file.rate, indices=indices, side=torch.from_numpy(side.astype(np.float32)))
