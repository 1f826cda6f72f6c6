"""Sparse patterns with everything that can go wrong in them, and a plain float64 answer to each."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from restore.attention import BlockLists, from_mask

TOLERANCE = {
    # Relative L2 to float64. float32: a softmax over a few hundred tokens loses some 1e-7. The
    # others: the output is rounded to 11 and 8 bits (2e-4 and 1.7e-3 of its size).
    torch.float64: 1e-12,
    torch.float32: 1e-5,
    torch.float16: 1e-3,
    torch.bfloat16: 5e-3,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """Inputs of one call; `lists` have an empty row, a full row, and numbers in no order."""

    q: Tensor
    k: Tensor
    v: Tensor
    lists: BlockLists
    mask: Tensor
    block: int
    kv_valid: Tensor | None
    scale: float

    @property
    def arguments(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """What every program takes first."""
        return self.q, self.k, self.v, self.lists.count, self.lists.index

    @property
    def settings(self) -> dict[str, object]:
        """What every backend takes by name."""
        return {"block": self.block, "kv_valid": self.kv_valid, "scale": self.scale}


def sparse_case(
    *,
    dtype: torch.dtype = torch.float32,
    dim: int = 64,
    block: int = 32,
    batch: int = 2,
    heads: int = 3,
    rows: int = 4,
    blocks: int = 6,
    density: float = 0.4,
    partial: bool = False,
    strided: bool = False,
    seed: int = 0,
) -> Case:
    """A small call.

    Args:
        partial: two key blocks are not full (one of them empty), and NaN fills the rest.
        strided: q, k, v are views of `(B, N, H, 3, D)`.
    """
    draw = torch.Generator().manual_seed(seed)
    mask = torch.rand((batch, heads, rows, blocks), generator=draw) < density
    mask[0, 0, 0] = False
    mask[0, heads - 1, rows - 1] = True
    q, k, v = (
        _tokens(draw, batch, heads, n * block, dim, strided=strided).to(dtype)
        for n in (rows, blocks, blocks)
    )
    valid = None
    if partial:
        valid = torch.full((blocks,), block, dtype=torch.int32)
        valid[-1], valid[1] = block // 3, 0
        padding = (torch.arange(block) >= valid[:, None]).flatten()
        k[:, :, padding], v[:, :, padding] = torch.nan, torch.nan
        mask[0, 0, 1] = False
        mask[0, 0, 1, 1] = True  # a row that has a block, and no token in it
    return Case(
        q=q,
        k=k,
        v=v,
        lists=_shuffled(from_mask(mask), draw),
        mask=mask,
        block=block,
        kv_valid=valid,
        scale=0.7 * dim**-0.5,
    )


def _tokens(
    draw: torch.Generator, batch: int, heads: int, tokens: int, dim: int, *, strided: bool
) -> Tensor:
    if not strided:
        return torch.randn((batch, heads, tokens, dim), generator=draw)
    return torch.randn((batch, tokens, heads, 3, dim), generator=draw)[:, :, :, 1].transpose(1, 2)


def _shuffled(lists: BlockLists, draw: torch.Generator) -> BlockLists:
    """The same blocks in no order, with other numbers behind the count."""
    room = lists.index.shape[-1]
    place = torch.arange(room)
    inside = place < lists.count[..., None]
    noise = torch.rand(lists.index.shape, generator=draw)
    order = (noise + (~inside).float()).argsort(-1)
    index = lists.index.gather(-1, order)
    padding = torch.randint(0, room, index.shape, generator=draw, dtype=torch.int32)
    return BlockLists(count=lists.count, index=torch.where(inside, index, padding))


def plain_answer(case: Case) -> tuple[Tensor, Tensor]:
    """Output and log-sum-exp in float64, one row of blocks after another."""
    out = torch.zeros(case.q.shape, dtype=torch.float64)
    lse = torch.full(case.q.shape[:3], -torch.inf, dtype=torch.float64)
    for b, h, row in torch.cartesian_prod(*(torch.arange(n) for n in case.mask.shape[:3])).tolist():
        tokens = _seen_tokens(case, b, h, row)
        queries = slice(row * case.block, (row + 1) * case.block)
        if len(tokens):
            q = case.q[b, h, queries].double()
            scores = q @ case.k[b, h, tokens].double().T * case.scale
            out[b, h, queries] = scores.softmax(-1) @ case.v[b, h, tokens].double()
            lse[b, h, queries] = scores.logsumexp(-1)
    return out, lse


def _seen_tokens(case: Case, b: int, h: int, row: int) -> Tensor:
    parts = [torch.empty(0, dtype=torch.int64)]
    for number in torch.nonzero(case.mask[b, h, row]).flatten().tolist():
        valid = case.block if case.kv_valid is None else int(case.kv_valid[number])
        parts.append(torch.arange(number * case.block, number * case.block + valid))
    return torch.cat(parts)


def relative_error(got: Tensor, wanted: Tensor) -> float:
    """||got - wanted|| / ||wanted||."""
    got, wanted = got.detach().double(), wanted.detach().double()
    return float((got - wanted).norm() / wanted.norm())


def assert_right(case: Case, out: Tensor, lse: Tensor) -> None:
    """Output, log-sum-exp and dtypes are what they have to be."""
    wanted, wanted_lse = plain_answer(case)
    assert out.dtype == case.q.dtype
    assert out.shape == case.q.shape
    assert relative_error(out, wanted) <= TOLERANCE[case.q.dtype]
    empty = wanted_lse.isinf()
    assert torch.equal(lse.isinf() & (lse < 0), empty)
    assert torch.count_nonzero(out[empty]) == 0
    assert (lse[~empty] - wanted_lse[~empty]).abs().max() <= 1e-3


@contextlib.contextmanager
def poisoned_memory() -> Iterator[None]:
    """Fresh tensors hold NaN, so that a place that nobody writes is seen."""
    before = torch.get_deterministic_debug_mode()
    torch.set_deterministic_debug_mode("warn")
    try:
        assert torch.empty(1).isnan()
        yield
    finally:
        torch.set_deterministic_debug_mode(before)
