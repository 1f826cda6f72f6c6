"""The plain twin: against one row at a time, and against PyTorch's own attention."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from sparse_cases import assert_right, poisoned_memory, relative_error, sparse_case

from restore.attention import reference


@pytest.mark.parametrize("partial", [False, True])
@pytest.mark.parametrize("dim", [64, 128])
@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str
)
def test_it_is_attention_over_the_listed_tokens(
    dtype: torch.dtype, dim: int, partial: bool
) -> None:
    case = sparse_case(dtype=dtype, dim=dim, partial=partial, strided=partial)
    with poisoned_memory():
        out, lse = reference.forward(*case.arguments, **case.settings)
    assert lse.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert_right(case, out, lse)


def test_with_every_block_it_is_dense_attention() -> None:
    case = sparse_case(dtype=torch.float64, density=2.0)
    dense = F.scaled_dot_product_attention(case.q, case.k, case.v, scale=case.scale)
    out, _ = reference.forward(*case.arguments, **case.settings)
    rows = slice(case.block, None)  # the first row of the first head is empty on purpose
    torch.testing.assert_close(out[:, :, rows], dense[:, :, rows], rtol=1e-12, atol=1e-12)


def test_what_nobody_sees_may_be_nan() -> None:
    case = sparse_case(density=0.5)
    case.lists.count.clamp_(max=1)
    case.lists.index.fill_(2)
    hidden = torch.ones(case.k.shape[2], dtype=torch.bool)
    hidden[2 * case.block : 3 * case.block] = False
    wanted, _ = reference.forward(*case.arguments, **case.settings)
    case.k[:, :, hidden], case.v[:, :, hidden] = torch.nan, torch.nan
    out, lse = reference.forward(*case.arguments, **case.settings)
    assert torch.equal(out, wanted)
    assert not lse.isnan().any()


@pytest.mark.parametrize("partial", [False, True])
def test_the_spelled_out_gradients_are_those_of_autograd(partial: bool) -> None:
    case = sparse_case(dtype=torch.float64, dim=8, block=8, partial=partial)
    leaves = [x.requires_grad_() for x in (case.q, case.k, case.v)]
    out, lse = reference.forward(*case.arguments, **case.settings)
    dout = torch.randn_like(out)
    wanted = torch.autograd.grad(out, leaves, dout)
    got = reference.backward(
        dout, *case.arguments[:3], out, lse, *case.arguments[3:], *case.arguments[3:],
        **case.settings,
    )  # fmt: skip
    for name, a, b in zip("qkv", got, wanted, strict=True):
        assert relative_error(a, b) <= 1e-12, f"d{name}"
