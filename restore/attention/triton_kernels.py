"""Triton kernels of the forward pass of block-sparse attention, and what the backward shares.

    order   count (BH, NQ)  ->  the rows of each head, longest first
    forward one program for each tile of queries: an online softmax over its row's list

This module imports triton, so nothing imports it before a kernel is wanted. The interpreter
(`TRITON_INTERPRET=1`, set before triton is first imported) runs the same kernels on CPU tensors.
"""

# ruff: noqa: N803  constants of a kernel are written in capitals, as Triton's users do
# mypy: disable-error-code="untyped-decorator"
from __future__ import annotations

import triton
import triton.language as tl

LN_2 = tl.constexpr(0.6931471805599453)


@triton.jit(do_not_specialize=["rows"])
def order_kernel(
    count: tl.tensor, order: tl.tensor, rows: tl.tensor, ROWS: tl.constexpr, STEP: tl.constexpr
) -> None:
    """Stable descending argsort by counting: a row's place is how many rows go before it.

    Quadratic, but 510 rows are 260,000 comparisons a head: less than one launch of a real sort.
    """
    mine = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    head = tl.program_id(1) * rows
    own = tl.load(count + head + mine, mask=mine < rows, other=-1)
    place = tl.zeros([ROWS], dtype=tl.int32)
    for first in range(0, rows, STEP):
        other = first + tl.arange(0, STEP)
        theirs = tl.load(count + head + other, mask=other < rows, other=-1)
        before = theirs[None, :] > own[:, None]
        before |= (theirs[None, :] == own[:, None]) & (other[None, :] < mine[:, None])
        place += tl.sum(before.to(tl.int32), 1)
    tl.store(order + head + place, mine, mask=mine < rows)


@triton.jit
def load_tile(
    source: tl.tensor,
    batch: tl.tensor,
    head: tl.tensor,
    first: tl.tensor,
    stride_b: tl.tensor,
    stride_h: tl.tensor,
    stride_n: tl.tensor,
    ROWS: tl.constexpr,
    D: tl.constexpr,
    TMA: tl.constexpr,
) -> tl.tensor:
    """Rows `first` to `first + ROWS` of one head, `(ROWS, D)`: by the copy engine, or by pointers.

    `source` is a tensor descriptor over `(B, H, N, D)`, or a pointer.
    """
    if TMA:
        tile = tl.reshape(source.load([batch, head, first, 0]), [ROWS, D])
    else:
        rows = first + tl.arange(0, ROWS)
        base = source + batch.to(tl.int64) * stride_b + head.to(tl.int64) * stride_h
        tile = tl.load(
            base + rows.to(tl.int64)[:, None] * stride_n + tl.arange(0, D)[None, :],
        )
    return tile


@triton.jit
def dot(a: tl.tensor, b: tl.tensor, UPCAST: tl.constexpr, PRECISION: tl.constexpr) -> tl.tensor:
    """`a @ b` in fp32. The interpreter gets bf16 products wrong, so it takes them in fp32."""
    if UPCAST:
        a = a.to(tl.float32)
        b = b.to(tl.float32)
    return tl.dot(a, b, input_precision=PRECISION)


@triton.jit
def tile_scores(
    query: tl.tensor,
    k: tl.tensor,
    list_at: tl.tensor,
    kv_valid: tl.tensor,
    step: tl.tensor,
    batch: tl.tensor,
    head: tl.tensor,
    k_b: tl.tensor,
    k_h: tl.tensor,
    k_n: tl.tensor,
    D: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_N: tl.constexpr,
    TMA: tl.constexpr,
    HAS_VALID: tl.constexpr,
    UPCAST: tl.constexpr,
    PRECISION: tl.constexpr,
) -> tl.tensor:
    """`query @ keys^T` of one step, the first of those keys, and the valid ones of their block."""
    block = tl.load(list_at + step // (BLOCK // BLOCK_N))
    at = block * BLOCK + (step % (BLOCK // BLOCK_N)) * BLOCK_N
    valid = BLOCK
    if HAS_VALID:
        valid = tl.load(kv_valid + block)
    keys = load_tile(k, batch, head, at, k_b, k_h, k_n, BLOCK_N, D, TMA)
    return dot(query, tl.trans(keys), UPCAST, PRECISION), at, valid


@triton.jit(do_not_specialize=["heads", "rows", "capacity"])
def forward_kernel(
    q: tl.tensor,
    k: tl.tensor,
    v: tl.tensor,
    count: tl.tensor,
    index: tl.tensor,
    order: tl.tensor,
    kv_valid: tl.tensor,
    out: tl.tensor,
    lse: tl.tensor,
    q_b: tl.tensor,
    q_h: tl.tensor,
    q_n: tl.tensor,
    k_b: tl.tensor,
    k_h: tl.tensor,
    k_n: tl.tensor,
    v_b: tl.tensor,
    v_h: tl.tensor,
    v_n: tl.tensor,
    heads: tl.tensor,
    rows: tl.tensor,
    capacity: tl.tensor,
    scale_log2: tl.tensor,  # scale * log2(e): the softmax runs in powers of two
    D: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    AHEAD: tl.constexpr,
    TMA: tl.constexpr,
    HAS_VALID: tl.constexpr,
    UPCAST: tl.constexpr,
    PRECISION: tl.constexpr,
) -> None:
    """`out (B, H, NQ*BLOCK, D)` and `lse (B, H, NQ*BLOCK)` of the rows of one tile of queries."""
    tile = tl.program_id(0)
    bh = tl.program_id(1)
    batch = bh // heads
    head = bh % heads
    row = tl.load(order + bh * rows + tile // (BLOCK // BLOCK_M))
    first = row * BLOCK + (tile % (BLOCK // BLOCK_M)) * BLOCK_M
    steps = tl.load(count + bh * rows + row) * (BLOCK // BLOCK_N)
    # One row's list; 64 bits, for B * H * NQ * Kmax may pass two thousand million.
    list_at = index + (bh * rows + row).to(tl.int64) * capacity

    query = load_tile(q, batch, head, first, q_b, q_h, q_n, BLOCK_M, D, TMA)
    top = tl.full([BLOCK_M], float("-inf"), dtype=tl.float32)
    total = tl.zeros([BLOCK_M], dtype=tl.float32)
    acc = tl.zeros([BLOCK_M, D], dtype=tl.float32)
    column = tl.arange(0, BLOCK_N)

    # AHEAD: the product with the next keys is under way while this tile's softmax is computed, as
    # in FlashAttention-3 (arXiv 2407.08608, section 3.2); the last step's is thrown away.
    if AHEAD:
        ahead, ahead_at, ahead_valid = tile_scores(
            query, k, list_at, kv_valid, 0, batch, head, k_b, k_h, k_n,
            D, BLOCK, BLOCK_N, TMA, HAS_VALID, UPCAST, PRECISION,
        )  # fmt: skip
    for step in range(steps):
        if AHEAD:
            scores, at, valid = ahead, ahead_at, ahead_valid
            ahead, ahead_at, ahead_valid = tile_scores(
                query, k, list_at, kv_valid, tl.minimum(step + 1, steps - 1), batch, head,
                k_b, k_h, k_n, D, BLOCK, BLOCK_N, TMA, HAS_VALID, UPCAST, PRECISION,
            )  # fmt: skip
        else:
            scores, at, valid = tile_scores(
                query, k, list_at, kv_valid, step, batch, head, k_b, k_h, k_n,
                D, BLOCK, BLOCK_N, TMA, HAS_VALID, UPCAST, PRECISION,
            )  # fmt: skip
        scores = scores * scale_log2
        if HAS_VALID:
            seen = at % BLOCK + column < valid
            scores = tl.where(seen[None, :], scores, float("-inf"))
        new_top = tl.maximum(top, tl.max(scores, 1))
        shift = new_top
        if HAS_VALID:  # a tile without a valid key, before any with one
            shift = tl.where(new_top == float("-inf"), 0.0, new_top)
        weights = tl.exp2(scores - shift[:, None])
        fade = tl.exp2(top - shift)
        total = total * fade + tl.sum(weights, 1)
        acc = acc * fade[:, None]
        values = load_tile(v, batch, head, at, v_b, v_h, v_n, BLOCK_N, D, TMA)
        if HAS_VALID:  # what lies behind the valid tokens may be anything, also NaN
            values = tl.where(seen[:, None], values, 0.0)
        acc += dot(weights.to(values.dtype), values, UPCAST, PRECISION)
        top = new_top

    some = total > 0
    acc = acc / tl.where(some, total, 1.0)[:, None]
    lse_row = tl.where(some, (top + tl.log2(tl.where(some, total, 1.0))) * LN_2, float("-inf"))
    m = first + tl.arange(0, BLOCK_M)
    out_at = (bh.to(tl.int64) * rows * BLOCK + m)[:, None] * D + tl.arange(0, D)[None, :]
    tl.store(out + out_at, acc.to(out.dtype.element_ty))
    tl.store(lse + bh.to(tl.int64) * rows * BLOCK + m, lse_row)
