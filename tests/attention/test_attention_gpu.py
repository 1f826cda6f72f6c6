"""Every backend of this machine's GPU against float64, under CUDA graphs and torch.compile."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from restore.attention import BACKENDS, block_sparse_attention, from_mask
from restore.attention.lists import BlockLists, transposed

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

BLOCK = 128
# Rel. L2 of a rounded output, see docs of each format: bf16 keeps 8 bits, fp16 11.
TOLERANCE = {torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 5e-3}
PROGRAMS = ["triton", "flex", "cudnn", "fa4"]


def tensors(channels: int, dtype: torch.dtype, *, batch: int = 2) -> tuple[Tensor, ...]:
    """q, k, v of 3 heads, 5 blocks of queries and 9 of keys."""
    shape = (batch, 3, 5 * BLOCK, channels)
    q = torch.randn(shape, device="cuda").to(dtype)
    k, v = (torch.randn(*shape[:2], 9 * BLOCK, channels, device="cuda").to(dtype) for _ in "kv")
    return q, k, v


def pattern(batch: int = 2) -> BlockLists:
    """Uneven lists with an empty and a full row."""
    mask = torch.rand(batch, 3, 5, 9, device="cuda") < 0.4
    mask[:, 0, 1], mask[:, 1, 2], mask[:, 2, :, 0] = False, True, True
    return from_mask(mask)


def exact(q: Tensor, k: Tensor, v: Tensor, lists: BlockLists, valid: Tensor | None) -> list[Tensor]:
    """Output and lse of the reference in float64."""
    doubles = [t.double() for t in (q, k, v)]
    return list(
        BACKENDS["reference"].forward(
            *doubles, lists.count, lists.index, block=BLOCK, kv_valid=valid,
            scale=q.shape[-1] ** -0.5,
        )
    )  # fmt: skip


def backend(name: str, q: Tensor) -> str:
    """The backend, or a skip that says why it is not there."""
    reason = BACKENDS[name].why_not(q)
    if reason is not None:
        pytest.skip(reason)
    return name


@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
@pytest.mark.parametrize("channels", [64, 128])
@pytest.mark.parametrize("name", PROGRAMS)
def test_output_and_lse(name: str, channels: int, dtype: torch.dtype) -> None:
    q, k, v = tensors(channels, dtype)
    lists = pattern()
    out, lse = block_sparse_attention(
        q, k, v, lists.count, lists.index, return_lse=True, backend=backend(name, q)
    )
    want, want_lse = exact(q, k, v, lists, None)
    assert (out.double() - want).norm() / want.norm() <= TOLERANCE[dtype]
    empty = lists.count.repeat_interleave(BLOCK, -1) == 0
    assert (lse.double() - want_lse)[~empty].abs().max() <= 1e-3
    assert (out[empty] == 0).all() and (lse[empty] == float("-inf")).all()


@pytest.mark.parametrize("name", ["triton", "flex", "cudnn"])
def test_partial_blocks(name: str) -> None:
    q, k, v = tensors(128, torch.bfloat16)
    lists = pattern()
    valid = torch.tensor([128, 128, 1, 77, 128, 64, 128, 127, 9], device="cuda", dtype=torch.int32)
    want, _ = exact(q, k, v, lists, valid)
    behind = (torch.arange(BLOCK, device="cuda") >= valid[:, None]).flatten()
    k[:, :, behind], v[:, :, behind] = float("nan"), float("nan")
    out = block_sparse_attention(
        q, k, v, lists.count, lists.index, kv_valid=valid, backend=backend(name, q)
    )
    assert (out.double() - want).norm() / want.norm() <= TOLERANCE[torch.bfloat16]


@pytest.mark.parametrize("name", PROGRAMS)
def test_views_of_tokens_with_heads_side_by_side(name: str) -> None:
    q, k, v = (t.transpose(1, 2).contiguous().transpose(1, 2) for t in tensors(128, torch.float16))
    lists = pattern()
    out = block_sparse_attention(q, k, v, lists.count, lists.index, backend=backend(name, q))
    want, _ = exact(q, k, v, lists, None)
    assert (out.double() - want).norm() / want.norm() <= TOLERANCE[torch.float16]


@pytest.mark.parametrize("channels", [64, 128])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_triton_gradients(channels: int, dtype: torch.dtype) -> None:
    q, k, v = tensors(channels, dtype)
    lists = pattern()
    backend("triton", q)
    dout = torch.randn_like(q)
    scale = channels**-0.5
    options = {"block": BLOCK, "kv_valid": None, "scale": scale}
    from restore.attention import triton_backward, triton_forward

    out, lse = triton_forward.forward(q, k, v, lists.count, lists.index, **options)
    other = transposed(lists, 9)
    grads = triton_backward.backward(
        dout, q, k, v, out, lse, lists.count, lists.index, other.count, other.index, **options
    )
    doubles = [t.double().requires_grad_() for t in (q, k, v)]
    seen = torch.zeros(2, 3, 5, 9, dtype=torch.bool, device="cuda")
    for column in range(9):
        listed = torch.arange(lists.index.shape[-1], device="cuda") < lists.count[..., None]
        seen[..., column] = ((lists.index == column) & listed).any(-1)
    tokens = seen.repeat_interleave(BLOCK, -2).repeat_interleave(BLOCK, -1)
    scores = (doubles[0] @ doubles[1].transpose(-1, -2) * scale).masked_fill(~tokens, -1e30)
    weights = torch.where(tokens, scores.softmax(-1), 0.0)
    (weights @ doubles[2]).backward(dout.double())
    for got, want in zip(grads, doubles, strict=True):
        assert want.grad is not None
        # Two rounded products behind each other: twice the forward's.
        assert (got.double() - want.grad).norm() / want.grad.norm() <= 2 * TOLERANCE[dtype]


@pytest.mark.parametrize("name", ["triton", "cudnn"])
def test_a_graph_follows_new_lists(name: str) -> None:
    q, k, v = tensors(128, torch.bfloat16)
    lists, other = pattern(), pattern()
    name = backend(name, q)

    def call() -> Tensor:
        return block_sparse_attention(q, k, v, lists.count, lists.index, backend=name)

    side = torch.cuda.Stream()
    with torch.cuda.stream(side), torch.no_grad():
        call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.no_grad(), torch.cuda.graph(graph):
        out = call()
    lists.count.copy_(other.count)
    lists.index.copy_(other.index)
    graph.replay()
    want, _ = exact(q, k, v, other, None)
    assert (out.double() - want).norm() / want.norm() <= TOLERANCE[torch.bfloat16]


def test_torch_compile_takes_it_as_one_node() -> None:
    q, k, v = tensors(128, torch.bfloat16)
    lists = pattern()
    name = backend("triton", q)

    def block(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return block_sparse_attention(q * 2, k, v, lists.count, lists.index, backend=name) + 1

    with torch.no_grad():
        got = torch.compile(block, fullgraph=True)(q, k, v)
        want = block(q, k, v)
    assert torch.allclose(got, want, atol=0.02)
