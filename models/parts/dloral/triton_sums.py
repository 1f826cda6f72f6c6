"""`relu_sums` as one Triton kernel for CUDA: scores stay in registers.

A program is one warp, which has 4 queries in each thread and walks over all keys; so nothing is
added up between threads, and products of depth 5 need no tensor cores: ten multiply-adds and a
maximum for each pair, in float32. It imports triton, so nothing imports it before it is wanted; the
interpreter (`TRITON_INTERPRET=1`, set before triton is first imported) runs it on CPU tensors.
"""

# ruff: noqa: N803  constants of a kernel are written in capitals, as Triton's users do
# mypy: disable-error-code="untyped-decorator"
from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

QUERIES = 128
"""Of a program."""
KEYS = 16
"""Of a step; their sum is added to the total as one, which keeps it exact over many."""
WARPS = 1


def relu_sums(queries: Tensor, keys: Tensor) -> Tensor:
    """See `restore.models.parts.dloral.sums.relu_sums`, its plain twin; float32, no gradients.

    Args:
        queries: `(5, n)`.
        keys: `(m, 5)`.

    Returns:
        `(5, n)`.
    """
    queries, columns = queries.contiguous(), keys.t().contiguous()
    sums = torch.empty_like(queries)
    count = queries.shape[1]
    grid = (triton.cdiv(count, QUERIES),)
    with torch.cuda.device(queries.device.index if queries.is_cuda else -1):
        sums_kernel[grid](
            queries, columns, sums, count, len(keys), QUERIES, KEYS,
            num_warps=WARPS, enable_fp_fusion=True,
        )  # fmt: skip
    return sums


@triton.jit
def sums_kernel(
    queries: tl.tensor,
    keys: tl.tensor,
    sums: tl.tensor,
    count: tl.tensor,
    length: tl.tensor,
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
) -> None:
    """One tile of queries against all keys; all tensors are 5 rows of numbers."""
    mine = tl.program_id(0) * QUERIES + tl.arange(0, QUERIES)
    inside = mine < count
    a0 = tl.load(queries + mine, mask=inside, other=0.0)[None, :]
    a1 = tl.load(queries + count + mine, mask=inside, other=0.0)[None, :]
    a2 = tl.load(queries + 2 * count + mine, mask=inside, other=0.0)[None, :]
    a3 = tl.load(queries + 3 * count + mine, mask=inside, other=0.0)[None, :]
    a4 = tl.load(queries + 4 * count + mine, mask=inside, other=0.0)[None, :]
    s0 = tl.zeros([QUERIES], dtype=tl.float32)
    s1 = tl.zeros([QUERIES], dtype=tl.float32)
    s2 = tl.zeros([QUERIES], dtype=tl.float32)
    s3 = tl.zeros([QUERIES], dtype=tl.float32)
    s4 = tl.zeros([QUERIES], dtype=tl.float32)
    for first in range(0, length, KEYS):
        place = first + tl.arange(0, KEYS)
        there = place < length  # keys beyond the end are zeros, and add nothing
        y0 = tl.load(keys + place, mask=there, other=0.0)[:, None]
        y1 = tl.load(keys + length + place, mask=there, other=0.0)[:, None]
        y2 = tl.load(keys + 2 * length + place, mask=there, other=0.0)[:, None]
        y3 = tl.load(keys + 3 * length + place, mask=there, other=0.0)[:, None]
        y4 = tl.load(keys + 4 * length + place, mask=there, other=0.0)[:, None]
        score = a0 * y0 + a1 * y1 + a2 * y2 + a3 * y3 + a4 * y4  # (KEYS, QUERIES)
        score = tl.maximum(score, 0.0, propagate_nan=tl.PropagateNan.ALL)
        s0 += tl.sum(score * y0, 0)
        s1 += tl.sum(score * y1, 0)
        s2 += tl.sum(score * y2, 0)
        s3 += tl.sum(score * y3, 0)
        s4 += tl.sum(score * y4, 0)
    tl.store(sums + mine, s0, mask=inside)
    tl.store(sums + count + mine, s1, mask=inside)
    tl.store(sums + 2 * count + mine, s2, mask=inside)
    tl.store(sums + 3 * count + mine, s3, mask=inside)
    tl.store(sums + 4 * count + mine, s4, mask=inside)
