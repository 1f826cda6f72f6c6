"""The contract: `block_sparse_attention`, and the operator behind it that PyTorch sees as one node.

    block_sparse_attention -> torch.ops.restore.block_sparse_attention -> a backend
                                      | autograd
                                      +-> torch.ops.restore.block_sparse_attention_backward

What picks the backend runs inside the operators, so `torch.compile` and CUDA graphs hold.
"""

from __future__ import annotations

from typing import Any, Literal, overload

import torch
from torch import Tensor

from restore.attention.backends import BACKENDS, BackendName, resolve
from restore.attention.lists import BlockLists, transposed
from restore.errors import OptionError

BLOCK = 128
"""Tokens of a block: 2 x 8 x 8 of FlashVSR's latents, and the tile of Hopper's matrix units."""


@overload
def block_sparse_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    count: Tensor,
    index: Tensor,
    *,
    block: int = ...,
    kv_valid: Tensor | None = ...,
    scale: float | None = ...,
    return_lse: Literal[False] = ...,
    backend: BackendName = ...,
) -> Tensor: ...


@overload
def block_sparse_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    count: Tensor,
    index: Tensor,
    *,
    block: int = ...,
    kv_valid: Tensor | None = ...,
    scale: float | None = ...,
    return_lse: Literal[True],
    backend: BackendName = ...,
) -> tuple[Tensor, Tensor]: ...


def block_sparse_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    count: Tensor,
    index: Tensor,
    *,
    block: int = BLOCK,
    kv_valid: Tensor | None = None,
    scale: float | None = None,
    return_lse: bool = False,
    backend: BackendName = "auto",
) -> Tensor | tuple[Tensor, Tensor]:
    """Attention where each block of queries sees the key blocks of its list, and no other.

    Differentiable in q, k and v. Nothing is read on the host, so wrong block numbers are not
    noticed: `BlockLists.check` looks for them.

    Args:
        q: `(B, H, NQ * block, D)`; any strides. D is 64 or 128 on a GPU, anything on a CPU.
        k: `(B, H, NK * block, D)`, in q's dtype.
        v: the same shape as k.
        count: `(B, H, NQ)` int32, blocks that each row of queries sees.
        index: `(B, H, NQ, Kmax)` int32, which; see `restore.attention.lists.BlockLists`.
        block: tokens of a block.
        kv_valid: `(NK,)` int32, valid tokens at the start of each key block; all by default. The
            others may hold anything.
        scale: factor of the scores, by default 1 / sqrt(D).
        return_lse: also return the log-sum-exp of the scaled scores; no gradient flows from it.
        backend: a name of `BACKENDS`, or `auto`.

    Returns:
        `(B, H, NQ * block, D)` in q's dtype, and with `return_lse` also `(B, H, NQ * block)` in
        float32. Rows that see nothing are zero, with a log-sum-exp of -inf.

    Raises:
        ValueError: shapes or dtypes do not fit together.
        OptionError: the backend is unknown, or cannot compute here.
    """
    _check(q, k, v, count, index, kv_valid, block)
    if backend != "auto" and backend not in BACKENDS:
        raise OptionError(
            f"unknown attention backend {backend!r}; choose auto, {', '.join(BACKENDS)}"
        )
    factor = q.shape[-1] ** -0.5 if scale is None else scale
    out, lse = torch.ops.restore.block_sparse_attention(
        q, k, v, count, index, kv_valid, block, factor, backend
    )
    return (out, lse.detach()) if return_lse else out


def _check(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    count: Tensor,
    index: Tensor,
    kv_valid: Tensor | None,
    block: int,
) -> None:
    """Shapes and dtypes, which the host knows anyway."""
    if q.ndim != 4 or k.ndim != 4 or k.shape != v.shape or q.shape[:2] != k.shape[:2]:
        raise ValueError(f"q, k, v are (B, H, N, D), got {[tuple(x.shape) for x in (q, k, v)]}")
    if q.shape[3] != k.shape[3] or q.dtype != k.dtype or q.dtype != v.dtype:
        raise ValueError(
            f"q, k, v share D and dtype, got {[(x.shape[3], x.dtype) for x in (q, k, v)]}"
        )
    if q.shape[2] % block or k.shape[2] % block:
        raise ValueError(
            f"{q.shape[2]} queries and {k.shape[2]} keys are not whole blocks of {block}; pad "
            "them, and give kv_valid"
        )
    rows = (*q.shape[:2], q.shape[2] // block)
    if tuple(count.shape) != rows or tuple(index.shape[:3]) != rows or index.ndim != 4:
        raise ValueError(
            f"count {tuple(count.shape)} and index {tuple(index.shape)} do not belong to "
            f"{rows[2]} blocks of queries: they are {rows} and {(*rows, 'Kmax')}"
        )
    if count.dtype != torch.int32 or index.dtype != torch.int32:
        raise ValueError(f"count and index are int32, got {count.dtype} and {index.dtype}")
    if kv_valid is not None and tuple(kv_valid.shape) != (k.shape[2] // block,):
        raise ValueError(
            f"kv_valid has one number for each of {k.shape[2] // block} key blocks, got "
            f"{tuple(kv_valid.shape)}"
        )


def _forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    count: Tensor,
    index: Tensor,
    kv_valid: Tensor | None,
    block: int,
    scale: float,
    backend: str,
) -> tuple[Tensor, Tensor]:
    program = resolve(backend, q)
    return program.forward(q, k, v, count, index, block=block, kv_valid=kv_valid, scale=scale)


def _forward_fake(q: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return torch.empty_like(q, memory_format=torch.contiguous_format), q.new_empty(
        q.shape[:3], dtype=lse_dtype(q)
    )


def _backward(
    dout: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    count: Tensor,
    index: Tensor,
    kv_valid: Tensor | None,
    block: int,
    scale: float,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    lists = BlockLists(count=count, index=index)
    turned = transposed(lists, k.shape[2] // block)
    return resolve(backend, q).backward(
        dout,
        q,
        k,
        v,
        out,
        lse,
        count,
        index,
        turned.count,
        turned.index,
        block=block,
        kv_valid=kv_valid,
        scale=scale,
    )


def _backward_fake(
    dout: Tensor, q: Tensor, k: Tensor, v: Tensor, *_: Any
) -> tuple[Tensor, Tensor, Tensor]:
    dq, dk, dv = (torch.empty_like(x, memory_format=torch.contiguous_format) for x in (q, k, v))
    return dq, dk, dv


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, count, index, kv_valid, block, scale, backend = inputs
    ctx.save_for_backward(q, k, v, *output, count, index, kv_valid)
    ctx.settings = (block, scale, backend)


def _gradients(ctx: Any, dout: Tensor, dlse: Tensor | None) -> tuple[Tensor | None, ...]:
    grads = torch.ops.restore.block_sparse_attention_backward(
        dout, *ctx.saved_tensors, *ctx.settings
    )
    return (*grads, None, None, None, None, None, None)


def lse_dtype(q: Tensor) -> torch.dtype:
    """Of the log-sum-exp for queries `q`: float32, unless they are float64."""
    return torch.float64 if q.dtype == torch.float64 else torch.float32


_OPERATOR = "restore::block_sparse_attention"
# Not `torch.library.custom_op`: that imports the compiler with the first call, for seconds.
torch.library.define(
    _OPERATOR,
    "(Tensor q, Tensor k, Tensor v, Tensor count, Tensor index, Tensor? kv_valid, int block, "
    "float scale, str backend) -> (Tensor, Tensor)",
)
torch.library.define(
    f"{_OPERATOR}_backward",
    "(Tensor dout, Tensor q, Tensor k, Tensor v, Tensor out, Tensor lse, Tensor count, "
    "Tensor index, Tensor? kv_valid, int block, float scale, str backend) "
    "-> (Tensor, Tensor, Tensor)",
)
torch.library.impl(_OPERATOR, "CompositeExplicitAutograd", _forward)
torch.library.impl(f"{_OPERATOR}_backward", "CompositeExplicitAutograd", _backward)
torch.library.register_fake(_OPERATOR, _forward_fake)
torch.library.register_fake(f"{_OPERATOR}_backward", _backward_fake)
torch.library.register_autograd(_OPERATOR, _gradients, setup_context=_keep)
