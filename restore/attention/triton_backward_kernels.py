"""Triton kernels of the backward pass of block-sparse attention.

    rows   dout, out, lse      ->  delta = sum(dout * out), shift = lse in powers of two
    dq     lists               ->  one program for each tile of queries
    dkv    transposed lists    ->  one program for each tile of keys

Each result has one writer, so there are no atomics and two runs give the same bits. With
S = scale * Q K^T and P = exp(S - lse) (FlashAttention-2, arXiv 2307.08691, section 3.1):

    dV = P^T dO      dS = P * (dO V^T - delta)      dQ = scale * dS K      dK = scale * dS^T Q

This module imports triton, so nothing imports it before a kernel is wanted.
"""

# ruff: noqa: N803  constants of a kernel are written in capitals, as Triton's users do
# mypy: disable-error-code="untyped-decorator"
from __future__ import annotations

import triton
import triton.language as tl

from restore.attention.triton_kernels import dot, load_tile

LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit(do_not_specialize=["heads", "tokens"])
def rows_kernel(
    dout: tl.tensor,
    out: tl.tensor,
    lse: tl.tensor,
    delta: tl.tensor,
    shift: tl.tensor,
    d_b: tl.tensor,
    d_h: tl.tensor,
    d_n: tl.tensor,
    o_b: tl.tensor,
    o_h: tl.tensor,
    o_n: tl.tensor,
    heads: tl.tensor,
    tokens: tl.tensor,
    D: tl.constexpr,
    ROWS: tl.constexpr,
) -> None:
    """What every row contributes: `delta` and `shift (B, H, N)`, both fp32."""
    first = tl.program_id(0) * ROWS
    bh = tl.program_id(1)
    gradient = load_tile(dout, bh // heads, bh % heads, first, d_b, d_h, d_n, ROWS, D, False)
    result = load_tile(out, bh // heads, bh % heads, first, o_b, o_h, o_n, ROWS, D, False)
    at = bh.to(tl.int64) * tokens + first + tl.arange(0, ROWS)
    tl.store(delta + at, tl.sum(gradient.to(tl.float32) * result.to(tl.float32), 1))
    level = tl.load(lse + at)
    # exp2(S - inf) = 0: a row that saw no key passes no gradient on.
    tl.store(shift + at, tl.where(level == float("-inf"), float("inf"), level * LOG2_E))


@triton.jit(do_not_specialize=["heads", "rows", "capacity"])
def dq_kernel(
    q: tl.tensor,
    k: tl.tensor,
    v: tl.tensor,
    dout: tl.tensor,
    delta: tl.tensor,
    shift: tl.tensor,
    count: tl.tensor,
    index: tl.tensor,
    order: tl.tensor,
    kv_valid: tl.tensor,
    dq: tl.tensor,
    q_b: tl.tensor,
    q_h: tl.tensor,
    q_n: tl.tensor,
    k_b: tl.tensor,
    k_h: tl.tensor,
    k_n: tl.tensor,
    v_b: tl.tensor,
    v_h: tl.tensor,
    v_n: tl.tensor,
    d_b: tl.tensor,
    d_h: tl.tensor,
    d_n: tl.tensor,
    heads: tl.tensor,
    rows: tl.tensor,
    capacity: tl.tensor,
    scale: tl.tensor,
    D: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    TMA: tl.constexpr,
    HAS_VALID: tl.constexpr,
    UPCAST: tl.constexpr,
    PRECISION: tl.constexpr,
) -> None:
    """`dq (B, H, NQ*BLOCK, D)` of one tile of queries, over the row's list of key blocks."""
    tile = tl.program_id(0)
    bh = tl.program_id(1)
    batch = bh // heads
    head = bh % heads
    row = tl.load(order + bh * rows + tile // (BLOCK // BLOCK_M))
    first = row * BLOCK + (tile % (BLOCK // BLOCK_M)) * BLOCK_M
    steps = tl.load(count + bh * rows + row) * (BLOCK // BLOCK_N)
    list_at = index + (bh * rows + row).to(tl.int64) * capacity
    m = bh.to(tl.int64) * rows * BLOCK + first + tl.arange(0, BLOCK_M)

    query = load_tile(q, batch, head, first, q_b, q_h, q_n, BLOCK_M, D, TMA)
    gradient = load_tile(dout, batch, head, first, d_b, d_h, d_n, BLOCK_M, D, TMA)
    delta_m = tl.load(delta + m)
    shift_m = tl.load(shift + m)
    acc = tl.zeros([BLOCK_M, D], dtype=tl.float32)
    column = tl.arange(0, BLOCK_N)

    for step in range(steps):
        block = tl.load(list_at + step // (BLOCK // BLOCK_N))
        inner = (step % (BLOCK // BLOCK_N)) * BLOCK_N
        at = block * BLOCK + inner
        keys = load_tile(k, batch, head, at, k_b, k_h, k_n, BLOCK_N, D, TMA)
        values = load_tile(v, batch, head, at, v_b, v_h, v_n, BLOCK_N, D, TMA)
        if HAS_VALID:
            valid = tl.load(kv_valid + block)
            keys = tl.where((inner + column < valid)[:, None], keys, 0.0)
            values = tl.where((inner + column < valid)[:, None], values, 0.0)
        scores = dot(query, tl.trans(keys), UPCAST, PRECISION) * (scale * LOG2_E)
        weights = tl.exp2(scores - shift_m[:, None])
        if HAS_VALID:
            weights = tl.where(inner + column[None, :] < valid, weights, 0.0)
        slope = dot(gradient, tl.trans(values), UPCAST, PRECISION)
        slope = weights * (slope - delta_m[:, None])
        acc += dot(slope.to(keys.dtype), keys, UPCAST, PRECISION)

    at_out = m[:, None] * D + tl.arange(0, D)[None, :]
    tl.store(dq + at_out, (acc * scale).to(dq.dtype.element_ty))


@triton.jit(do_not_specialize=["heads", "rows", "columns", "capacity"])
def dkv_kernel(
    q: tl.tensor,
    k: tl.tensor,
    v: tl.tensor,
    dout: tl.tensor,
    delta: tl.tensor,
    shift: tl.tensor,
    count: tl.tensor,
    index: tl.tensor,
    order: tl.tensor,
    kv_valid: tl.tensor,
    dk: tl.tensor,
    dv: tl.tensor,
    q_b: tl.tensor,
    q_h: tl.tensor,
    q_n: tl.tensor,
    k_b: tl.tensor,
    k_h: tl.tensor,
    k_n: tl.tensor,
    v_b: tl.tensor,
    v_h: tl.tensor,
    v_n: tl.tensor,
    d_b: tl.tensor,
    d_h: tl.tensor,
    d_n: tl.tensor,
    heads: tl.tensor,
    rows: tl.tensor,  # NQ
    columns: tl.tensor,  # NK
    capacity: tl.tensor,  # of the transposed lists
    scale: tl.tensor,
    D: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    TMA: tl.constexpr,
    HAS_VALID: tl.constexpr,
    UPCAST: tl.constexpr,
    PRECISION: tl.constexpr,
) -> None:
    """`dk` and `dv (B, H, NK*BLOCK, D)` of one tile of keys, over the query blocks that list it."""
    tile = tl.program_id(0)
    bh = tl.program_id(1)
    batch = bh // heads
    head = bh % heads
    own = tl.load(order + bh * columns + tile // (BLOCK // BLOCK_N))
    inner = (tile % (BLOCK // BLOCK_N)) * BLOCK_N
    first = own * BLOCK + inner
    steps = tl.load(count + bh * columns + own) * (BLOCK // BLOCK_M)
    list_at = index + (bh * columns + own).to(tl.int64) * capacity
    row_at = bh.to(tl.int64) * rows * BLOCK

    keys = load_tile(k, batch, head, first, k_b, k_h, k_n, BLOCK_N, D, TMA)
    values = load_tile(v, batch, head, first, v_b, v_h, v_n, BLOCK_N, D, TMA)
    acc_k = tl.zeros([BLOCK_N, D], dtype=tl.float32)
    acc_v = tl.zeros([BLOCK_N, D], dtype=tl.float32)

    for step in range(steps):
        block = tl.load(list_at + step // (BLOCK // BLOCK_M))
        at = block * BLOCK + (step % (BLOCK // BLOCK_M)) * BLOCK_M
        m = row_at + at + tl.arange(0, BLOCK_M)
        query = load_tile(q, batch, head, at, q_b, q_h, q_n, BLOCK_M, D, TMA)
        gradient = load_tile(dout, batch, head, at, d_b, d_h, d_n, BLOCK_M, D, TMA)
        scores = dot(keys, tl.trans(query), UPCAST, PRECISION) * (scale * LOG2_E)
        # Volatile keeps these two rows out of the software pipeline: their way through shared
        # memory there makes ptxas (13.x) wait after every product of this loop.
        weights = tl.exp2(scores - tl.load(shift + m, volatile=True)[None, :])  # P^T
        acc_v += dot(weights.to(gradient.dtype), gradient, UPCAST, PRECISION)
        slope = dot(values, tl.trans(gradient), UPCAST, PRECISION)
        slope = weights * (slope - tl.load(delta + m, volatile=True)[None, :])  # dS^T
        acc_k += dot(slope.to(query.dtype), query, UPCAST, PRECISION)

    n = tl.arange(0, BLOCK_N)
    if (
        HAS_VALID
    ):  # each row of keys stands alone here, so what is behind the valid ones is cut last
        keep = (inner + n < tl.load(kv_valid + own))[:, None]
        acc_k = tl.where(keep, acc_k, 0.0)
        acc_v = tl.where(keep, acc_v, 0.0)
    at_out = (bh.to(tl.int64) * columns * BLOCK + first + n)[:, None] * D + tl.arange(0, D)[None, :]
    tl.store(dk + at_out, (acc_k * scale).to(dk.dtype.element_ty))
    tl.store(dv + at_out, acc_v.to(dv.dtype.element_ty))
