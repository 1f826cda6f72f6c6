"""Runs the Triton kernels in the interpreter and prints how far they are from float64.

A program of its own: the interpreter has to be chosen before triton is first imported, and then
holds for the whole process. `test_triton.py` starts it once and reads one JSON object per case.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from restore.attention import triton_backward, triton_forward
from restore.attention.lists import BlockLists, from_mask, transposed
from restore.attention.triton_launch import Tiles, longest_first, why_not

BLOCK = 32


@dataclass(frozen=True, kw_only=True)
class Case:
    """One call of forward and backward; rows 1 of the first head and 0 of the last are special."""

    dtype: str = "float32"
    channels: int = 64
    batch: int = 1
    valid: bool = False
    bulk: bool = False
    ahead: bool = False
    strided: bool = False
    unsorted: bool = False


BASE = Case()
CASES = {
    "fp32 d64": BASE,
    "fp32 d128 batch": replace(BASE, channels=128, batch=2),
    "fp32 partial blocks": replace(BASE, valid=True),
    "fp32 strided unsorted": replace(BASE, strided=True, unsorted=True),
    "fp16 d64 bulk ahead": replace(BASE, dtype="float16", bulk=True, ahead=True),
    "fp16 d128 bulk ahead": replace(BASE, dtype="float16", channels=128, bulk=True, ahead=True),
    "fp16 d64 partial bulk": replace(BASE, dtype="float16", valid=True, bulk=True, batch=2),
    "fp16 d128 strided bulk": replace(
        BASE, dtype="float16", channels=128, strided=True, bulk=True, unsorted=True
    ),
    "bf16 d128": replace(BASE, dtype="bfloat16", channels=128, bulk=True),
}


def exact(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor, kv_valid: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Output and lse in float64, with the masked scores spelled out."""
    seen = mask.repeat_interleave(BLOCK, -2).repeat_interleave(BLOCK, -1)
    if kv_valid is not None:
        token = torch.arange(k.shape[2])
        seen = seen & (token % BLOCK < kv_valid[token // BLOCK])
    scores = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).masked_fill(~seen, float("-inf"))
    lse = scores.logsumexp(-1)
    level = torch.where(lse.isinf(), 0.0, lse)[..., None]
    return torch.where(seen, (scores - level).exp(), 0.0) @ v, lse


def shuffled(lists: BlockLists) -> BlockLists:
    """The same lists in falling order, with other numbers in the padding."""
    index = torch.full_like(lists.index, lists.index.shape[-1] - 1)
    for row, count in zip(index.flatten(0, 2), lists.count.flatten(), strict=True):
        row[:count] = 0
    for b, h, r in torch.cartesian_prod(*(torch.arange(n) for n in lists.count.shape)).tolist():
        n = int(lists.count[b, h, r])
        index[b, h, r, :n] = lists.index[b, h, r, :n].flip(0)
    return BlockLists(count=lists.count, index=index)


def relative(got: Tensor, want: Tensor | None) -> float:
    """Relative L2 distance; NaN stays NaN and fails every comparison."""
    assert want is not None
    return float((got.double() - want).norm() / want.norm())


def run(case: Case) -> dict[str, float | bool]:
    """Errors of one case."""
    dtype = getattr(torch, case.dtype)
    heads, rows, columns = 2, 2, 3
    tokens = (rows, columns, columns, rows)
    q, k, v, dout = (
        torch.randn(case.batch, heads, n * BLOCK, case.channels).to(dtype) for n in tokens
    )
    mask = torch.rand(case.batch, heads, rows, columns) < 0.6
    mask[:, 0, 1], mask[:, 1, 0], mask[:, 0, 0, 0] = False, True, True
    lists = from_mask(mask)
    kv_valid = torch.tensor([BLOCK, 7, 0], dtype=torch.int32) if case.valid else None
    doubles = [t.double().requires_grad_() for t in (q, k, v)]
    want, want_lse = exact(*doubles, mask, kv_valid)
    want.backward(dout.double())
    if kv_valid is not None:  # nothing of what is behind the valid tokens may come through
        for number, n in enumerate(kv_valid.tolist()):
            for t in (k, v):
                t[:, :, number * BLOCK + n : (number + 1) * BLOCK] = float("nan")
    if case.strided:  # views of (B, N, H, D), as a projection gives them
        q, k, v, dout = (t.transpose(1, 2).contiguous().transpose(1, 2) for t in (q, k, v, dout))
    if case.unsorted:
        lists = shuffled(lists)

    tiles = Tiles(m=32, n=16, warps=4, stages=1, ahead=case.ahead)
    options = {"block": BLOCK, "kv_valid": kv_valid, "scale": case.channels**-0.5}
    out, lse = triton_forward.launch(
        q, k, v, lists.count, lists.index, tiles=tiles, bulk=case.bulk, **options
    )
    other = transposed(lists, columns)
    grads = triton_backward.launch(
        dout, q, k, v, out, lse, lists.count, lists.index, other.count, other.index,
        tiles=(tiles, tiles), bulk=case.bulk, **options,
    )  # fmt: skip
    empty = want_lse.isinf()
    found = dict(
        zip(("dq", "dk", "dv"), map(relative, grads, [t.grad for t in doubles]), strict=True)
    )
    return found | {
        "out": relative(out, want.detach()),
        "lse": float((lse.double() - want_lse)[~empty].abs().max()),
        "has_empty": bool(empty.any()),
        "empty_kept": bool((lse.isinf() == empty).all()) and bool((out[empty] == 0).all()),
    }


def poison() -> None:
    """Fill what `torch.empty` hands out with NaN, so that an unwritten place shows."""
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True


def main() -> None:
    """Print one JSON object: the errors of every case, and of the order."""
    torch.set_num_threads(1)
    poison()
    assert torch.empty(4).isnan().all(), "outputs are not poisoned"
    found: dict[str, object] = {}
    for name, case in CASES.items():
        torch.manual_seed(0)
        found[name] = run(case)
    count = torch.randint(0, 5, (2, 3, 150), dtype=torch.int32)
    want = count.argsort(dim=-1, descending=True, stable=True)
    found["order"] = bool((longest_first(count) == want).all())
    found["cpu allowed"] = why_not(torch.empty(1, 1, 128, 64)) is None
    forward = triton_forward.forward
    q = torch.randn(1, 1, 128, 64, dtype=torch.float16)
    one = torch.ones(1, 1, 1, dtype=torch.int32)
    out, _ = forward(q, q, q, one, one[..., None] * 0, block=128, kv_valid=None, scale=0.125)
    want_out = torch.nn.functional.scaled_dot_product_attention(*[q.double()] * 3)
    found["default tiles"] = relative(out, want_out)
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
