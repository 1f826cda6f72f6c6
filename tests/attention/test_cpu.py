"""The CPU backend: right for every shape of list, right gradients, and worth its name in speed."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from sparse_cases import Case, assert_right, poisoned_memory, relative_error, sparse_case

from restore.attention import block_sparse_attention, cpu, flat_topk, from_mask, reference


@pytest.mark.parametrize("partial", [False, True])
@pytest.mark.parametrize("strided", [False, True])
@pytest.mark.parametrize("dim", [64, 128])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_it_is_attention_over_the_listed_tokens(
    dtype: torch.dtype, dim: int, strided: bool, partial: bool
) -> None:
    case = sparse_case(dtype=dtype, dim=dim, strided=strided, partial=partial)
    with poisoned_memory():
        out, lse = cpu.forward(*case.arguments, **case.settings)
    assert lse.dtype == torch.float32
    assert_right(case, out, lse)


def test_blocks_of_128() -> None:
    case = sparse_case(block=128, dim=128, batch=1, partial=True)
    assert_right(case, *cpu.forward(*case.arguments, **case.settings))


@pytest.mark.parametrize("at_once", [1, 2, 5])
def test_long_rows_are_joined_from_pieces(monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    case = sparse_case(rows=5, blocks=9, density=0.6, partial=True)
    monkeypatch.setattr(cpu, "GATHERED_BYTES", at_once * case.block * 64 * 4)
    with poisoned_memory():
        out, lse = cpu.forward(*case.arguments, **case.settings)
    assert_right(case, out, lse)


def test_memory_is_bounded_by_taking_few_heads_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    case = sparse_case(heads=4)
    whole, _ = cpu.forward(*case.arguments, **case.settings)
    monkeypatch.setattr(cpu, "SLAB_BYTES", 1)
    assert len(list(cpu.slabs(case.k, torch.float32))) == 8  # 2 x 4 heads, one by one
    parts, _ = cpu.forward(*case.arguments, **case.settings)
    # Rows come in other batches, which may change the last bits of a matrix product.
    torch.testing.assert_close(parts, whole, rtol=1e-5, atol=1e-6)


def test_pieces_hold_what_they_may() -> None:
    case = sparse_case(rows=5, blocks=9, density=0.6)
    lists = case.lists.count[0], case.lists.index[0]
    whole = cpu.Pieces.of(*lists, k=case.k, block=case.block)
    assert whole.at_once == cpu.GATHERED_BYTES // (case.block * 64 * 4)
    pieces = cpu.Pieces(count=whole.count, index=whole.index, at_once=4)
    seen = torch.zeros(len(whole.count), dtype=torch.int64)
    for rows, blocks, again in pieces.batches():
        assert blocks.shape[1] <= 4
        assert rows.numel() * blocks.shape[1] <= 4
        assert seen[rows].gt(0).all() == again
        seen[rows] += blocks.shape[1]
    assert torch.equal(seen, whole.count.long())


def test_large_scores_do_not_overflow() -> None:
    case = sparse_case(dtype=torch.float32)
    case.q.mul_(300.0)  # scores of some hundreds: exp() alone would be infinite
    assert_right(case, *cpu.forward(*case.arguments, **case.settings))


def test_lists_without_a_single_block() -> None:
    case = sparse_case()
    case.lists.count.zero_()
    with poisoned_memory():
        out, lse = cpu.forward(*case.arguments, **case.settings)
    assert torch.count_nonzero(out) == 0
    assert lse.eq(-torch.inf).all()


def gradients(case: Case, backend: str) -> tuple[torch.Tensor, ...]:
    """dQ, dK, dV of a fixed linear loss."""
    leaves = [x.detach().clone().requires_grad_() for x in (case.q, case.k, case.v)]
    out = block_sparse_attention(
        *leaves, *case.arguments[3:], block=case.block, kv_valid=case.kv_valid, scale=case.scale,
        backend=backend,  # type: ignore[arg-type]
    )  # fmt: skip
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
    return torch.autograd.grad((out * weights.to(out.dtype)).sum(), leaves)


@pytest.mark.parametrize("partial", [False, True])
@pytest.mark.parametrize("dim", [64, 128])
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    # float16 and bfloat16: the output that enters dS is rounded, and so are the gradients.
    [(torch.float32, 1e-5), (torch.float16, 2e-3), (torch.bfloat16, 1e-2)],
    ids=str,
)
def test_gradients(dtype: torch.dtype, tolerance: float, dim: int, partial: bool) -> None:
    case = sparse_case(dtype=dtype, dim=dim, partial=partial, strided=True)
    exact = Case(
        q=case.q.double(), k=case.k.double(), v=case.v.double(), lists=case.lists, mask=case.mask,
        block=case.block, kv_valid=case.kv_valid, scale=case.scale,
    )  # fmt: skip
    for name, got, wanted in zip(
        "qkv", gradients(case, "cpu"), gradients(exact, "reference"), strict=True
    ):
        assert got.dtype == dtype
        assert relative_error(got, wanted) <= tolerance, f"d{name}"


def test_gradients_of_long_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    case = sparse_case(dtype=torch.float64, rows=5, blocks=9, density=0.6, partial=True)
    wanted = gradients(case, "reference")
    monkeypatch.setattr(cpu, "GATHERED_BYTES", 2 * case.block * 64 * 4)
    with poisoned_memory():
        got = gradients(case, "cpu")
    for a, b in zip(got, wanted, strict=True):
        assert relative_error(a, b) <= 1e-12


def test_it_says_why_it_cannot_compute_elsewhere() -> None:
    assert "meta" in str(cpu.why_not(torch.empty(1, device="meta")))
    assert cpu.why_not(torch.empty(1)) is None
    assert reference.why_not(torch.empty(1, device="meta")) is None


def best_seconds(call: Callable[[], object], times: int = 3) -> float:
    """Shortest processor time of some calls (others may use the machine meanwhile)."""
    call()
    taken = []
    for _ in range(times):
        start = time.process_time()
        call()
        taken.append(time.process_time() - start)
    return min(taken)


@pytest.mark.slow
@pytest.mark.parametrize("dim", [64, 128])
def test_it_is_twice_as_fast_as_dense_attention_at_90_percent(dim: int) -> None:
    """FlashVSR's uneven counts, 4096 tokens, 12 heads; measured: 5 to 7 times."""
    draw = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn((1, 12, 4096, dim), generator=draw) for _ in range(3))
    means = [torch.randn((1, 12, 32, dim), generator=draw) for _ in range(2)]
    mask = flat_topk(means[0], means[1], local=None, topk=102)  # of 1024 pairs
    lists = from_mask(mask)
    assert lists.count.min() < lists.count.max()
    dense = best_seconds(lambda: F.scaled_dot_product_attention(q, k, v))
    sparse = best_seconds(lambda: block_sparse_attention(q, k, v, lists.count, lists.index))
    assert sparse * 2 <= dense
