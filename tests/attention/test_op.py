"""The contract: one call, any backend, seen by the compiler and by autograd as one node."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from sparse_cases import Case, assert_right, plain_answer, relative_error, sparse_case
from torch import Tensor

from restore.attention import BACKENDS, backends, block_sparse_attention, cpu
from restore.errors import OptionError


def call(case: Case, **changes: Any) -> Any:
    """The public function on a case."""
    settings = {"block": case.block, "kv_valid": case.kv_valid, "scale": case.scale} | changes
    return block_sparse_attention(*case.arguments, **settings)


@pytest.mark.parametrize("backend", ["auto", "cpu", "reference"])
@pytest.mark.parametrize("partial", [False, True])
def test_every_backend_of_this_machine_is_right(backend: str, partial: bool) -> None:
    case = sparse_case(partial=partial, strided=True)
    out, lse = call(case, return_lse=True, backend=backend)
    assert_right(case, out, lse)
    assert torch.equal(call(case, backend=backend), out)


def test_the_scale_is_that_of_attention_by_default() -> None:
    case = sparse_case(dim=64)
    assert torch.equal(call(case, scale=None), call(case, scale=64**-0.5))


def test_auto_means_the_cpu_backend_here() -> None:
    assert backends.resolve("auto", torch.empty(1)).name == "cpu"
    assert backends.resolve("auto", torch.empty(1, device="meta")).name == "reference"
    assert BACKENDS["cpu"].available("cpu")
    assert BACKENDS["reference"].available("cpu")
    assert not BACKENDS["cpu"].available("meta")


def test_cuda_prefers_triton_then_flex(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def cannot(self: backends.Backend, q: Tensor) -> str | None:
        asked.append(self.name)
        return "missing" if self.name == "triton" else None

    class OnCuda:  # a CUDA tensor, as far as choosing goes
        device, dtype, shape = torch.device("cuda"), torch.float16, (1, 1, 128, 128)

    monkeypatch.setattr(backends.Backend, "why_not", cannot)
    assert backends._automatic(OnCuda()).name == "flex"  # type: ignore[arg-type]
    assert asked == ["triton", "flex"]


def test_the_compiler_takes_it_as_one_node() -> None:
    case = sparse_case(partial=True)
    graphs = []

    def count_nodes(graph: torch.fx.GraphModule, _: list[Tensor]) -> Any:
        graphs.append([n for n in graph.graph.nodes if n.op == "call_function"])
        return graph.forward

    def layer(q: Tensor, k: Tensor, v: Tensor, count: Tensor, index: Tensor) -> Tensor:
        return block_sparse_attention(
            q, k, v, count, index, block=case.block, kv_valid=case.kv_valid, scale=case.scale
        )

    compiled = torch.compile(layer, fullgraph=True, backend=count_nodes)
    assert torch.equal(compiled(*case.arguments), call(case))
    nodes = [n for n in graphs[0] if "block_sparse_attention" in str(n.target)]
    assert len(nodes) == 1


def test_compiled_gradients_are_those_of_eager() -> None:
    case = sparse_case(dtype=torch.float64, dim=8, partial=True)
    leaves = [x.requires_grad_() for x in case.arguments[:3]]
    compiled = torch.compile(lambda: call(case).square().sum(), fullgraph=True, backend="aot_eager")
    got = torch.autograd.grad(compiled(), leaves)
    wanted = torch.autograd.grad(call(case).square().sum(), leaves)
    for a, b in zip(got, wanted, strict=True):
        assert relative_error(a, b) <= 1e-12


def test_the_operator_keeps_pytorchs_rules() -> None:
    """Schema, fake implementation and autograd registration agree with what it does."""
    case = sparse_case(dim=8, block=8, batch=1, heads=2, rows=2, blocks=3)
    inputs = [x.detach().requires_grad_() for x in case.arguments[:3]]
    arguments = (*inputs, *case.arguments[3:], None, case.block, case.scale, "auto")
    found = torch.library.opcheck(torch.ops.restore.block_sparse_attention.default, arguments)
    assert set(found.values()) == {"SUCCESS"}


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_gradients_equal_finite_differences(backend: str) -> None:
    case = sparse_case(
        dtype=torch.float64, dim=3, block=2, batch=1, heads=1, rows=3, blocks=3, partial=True
    )
    case.k.nan_to_num_()  # a step of NaN is NaN
    case.v.nan_to_num_()
    leaves = [x.requires_grad_() for x in case.arguments[:3]]

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        settings: Any = {**case.settings, "backend": backend}
        return block_sparse_attention(q, k, v, *case.arguments[3:], **settings)

    assert torch.autograd.gradcheck(attend, leaves)


def test_the_reference_gives_gradients_where_the_own_program_cannot(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    case = sparse_case(dtype=torch.float64, partial=True)
    leaves = [x.requires_grad_() for x in case.arguments[:3]]
    wanted = torch.autograd.grad(call(case).sum(), leaves)
    broken = backends.Backend(
        name="cpu", module="restore.attention.cpu", gradients="restore.attention.operator"
    )
    monkeypatch.setitem(BACKENDS, "cpu", broken)
    monkeypatch.setattr(backends, "_RESOLVED", {})
    import restore.attention.operator as no_gradients

    monkeypatch.setattr(no_gradients, "why_not", lambda q: "it has none", raising=False)
    got = torch.autograd.grad(call(case).sum(), leaves)
    for a, b in zip(got, wanted, strict=True):
        assert relative_error(a, b) <= 1e-12


def test_no_gradient_comes_from_the_log_sum_exp() -> None:
    case = sparse_case()
    case.q.requires_grad_()
    out, lse = call(case, return_lse=True)
    assert out.requires_grad
    assert not lse.requires_grad


def test_a_backend_that_cannot_says_why() -> None:
    case = sparse_case()
    with pytest.raises(OptionError, match="unknown attention backend 'fast'; choose auto, ref"):
        call(case, backend="fast")
    on_meta = [x.to("meta") for x in case.arguments]
    with pytest.raises(OptionError, match=r"'cpu' cannot be used: .* on meta; 'auto' takes one"):
        backends.resolve("cpu", on_meta[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": lambda c: c.k[:, :1]}, r"q, k, v are \(B, H, N, D\)"),
        ({"k": lambda c: c.k[..., :8], "v": lambda c: c.v[..., :8]}, "share D and dtype"),
        ({"v": lambda c: c.v.half()}, "share D and dtype"),
        ({"q": lambda c: c.q[:, :, :50]}, "not whole blocks of 32; pad them"),
        ({"count": lambda c: c.lists.count[:, :, :2]}, "do not belong to 4 blocks of queries"),
        ({"index": lambda c: c.lists.index[0]}, "do not belong to 4 blocks of queries"),
        ({"index": lambda c: c.lists.index.long()}, "count and index are int32"),
        ({"kv_valid": lambda c: torch.ones(5)}, "one number for each of 6 key blocks"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(change: dict[str, Any], message: str) -> None:
    case = sparse_case()
    inputs: dict[str, Any] = {
        "q": case.q, "k": case.k, "v": case.v, "count": case.lists.count,
        "index": case.lists.index, "block": case.block,
    }  # fmt: skip
    inputs |= {name: make(case) for name, make in change.items()}
    with pytest.raises(ValueError, match=message):
        block_sparse_attention(**inputs)


def test_the_answer_does_not_depend_on_the_order_of_a_list() -> None:
    a, b = sparse_case(dtype=torch.float64), sparse_case(dtype=torch.float64)
    ordered = b.lists.index.flip(-1)
    count = b.lists.count[..., None]
    room = ordered.shape[-1]
    turned = ordered.gather(-1, (torch.arange(room) + room - count).long() % room)
    b.lists.index.copy_(turned)
    assert not torch.equal(a.lists.index, b.lists.index)
    torch.testing.assert_close(call(a), call(b))
    assert_right(b, *cpu.forward(*b.arguments, **b.settings))
    assert torch.equal(plain_answer(a)[0], plain_answer(b)[0])


def test_importing_the_room_loads_nothing_heavy() -> None:
    code = (
        "import sys, restore.attention as room; assert 'torch' not in sys.modules; "
        "assert set(dir(room)) == set(room._LAZY)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_public_name_is_there() -> None:
    import restore.attention as room

    assert all(getattr(room, name) is not None for name in room.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = room.nothing


def test_a_first_call_does_not_load_the_compiler() -> None:
    """It takes seconds to import, and nobody asked for it."""
    code = (
        "import sys, torch, restore.attention as a; "
        "x = torch.randn(1, 1, 256, 8); "
        "l = a.from_mask(torch.ones(1, 1, 2, 2, dtype=torch.bool)); "
        "a.block_sparse_attention(x, x, x, l.count, l.index); "
        "assert 'torch._dynamo' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
