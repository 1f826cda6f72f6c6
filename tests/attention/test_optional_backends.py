"""What the optional backends say where they cannot be used, and FlexAttention on the CPU."""

from __future__ import annotations

import importlib.metadata
import shutil
from types import ModuleType

import pytest
import torch

from restore.attention import cudnn, fa4, flex, triton_forward
from restore.attention.lists import from_mask
from restore.attention.reference import forward as reference
from restore.errors import OptionError


def on_hopper(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int] = (9, 0)) -> None:
    """Let the current machine pass for one with a GPU of this kind."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)


class OnGpu(torch.Tensor):
    """A tensor of the CPU that says it is on a GPU."""

    @property
    def is_cuda(self) -> bool:  # type: ignore[override]
        return True


def tensor(channels: int = 128, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    return torch.zeros(1, 1, 128, channels, dtype=dtype).as_subclass(OnGpu)


@pytest.mark.parametrize(("module", "extra"), [(cudnn, "cudnn"), (fa4, "fa4")])
def test_a_missing_package_names_the_command_that_installs_it(
    module: ModuleType, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    on_hopper(monkeypatch)
    module._missing.cache_clear()
    reason = module.why_not(tensor())
    module._missing.cache_clear()
    assert reason is not None and f"pip install '.[{extra}]'" in reason and "\n" not in reason


@pytest.mark.parametrize("module", [cudnn, fa4, flex, triton_forward])
def test_a_tensor_on_the_cpu_is_refused(
    module: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    assert "cpu" in module.why_not(torch.zeros(1, 1, 128, 128, dtype=torch.float16))


@pytest.mark.parametrize("module", [cudnn, fa4, triton_forward])
def test_gpus_sizes_and_formats_that_do_not_fit_are_named(
    module: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_hopper(monkeypatch, (7, 5))
    assert "7.5" in module.why_not(tensor())
    on_hopper(monkeypatch)
    assert "96" in module.why_not(tensor(96))
    assert "torch.float64" in module.why_not(tensor(dtype=torch.float64))


def test_fa4_refuses_partial_blocks() -> None:
    q = torch.zeros(1, 1, 128, 128)
    one = torch.ones(1, 1, 1, dtype=torch.int32)
    with pytest.raises(OptionError, match=r"whole blocks.*kv_valid.*triton"):
        fa4.forward(q, q, q, one, one[..., None], block=128, kv_valid=one[0, 0], scale=1.0)


def test_cudnn_copies_only_what_is_not_aligned() -> None:
    whole = torch.zeros(2, 3, 8, 64, dtype=torch.float16)
    assert cudnn.aligned(whole) is whole
    view = whole.transpose(1, 2)
    assert cudnn.aligned(view) is view
    odd = torch.zeros(2, 3, 8, 65, dtype=torch.float16)[..., 1:]
    assert cudnn.aligned(odd).is_contiguous()


def test_what_is_behind_the_valid_tokens_is_cleared() -> None:
    v = torch.full((1, 2, 8, 4), float("nan"))
    v[:, :, [0, 1, 2, 4]] = 1.0
    valid = torch.tensor([3, 1], dtype=torch.int32)
    assert flex.cleared(v, valid, 4)[0, 0, :, 0].tolist() == [1, 1, 1, 0, 1, 0, 0, 0]


def test_flex_gets_the_lists_as_they_are() -> None:
    mask = torch.tensor([[[[True, False, True], [False, False, False]]]])
    lists = from_mask(mask, capacity=2)
    made = flex.block_mask(lists.count, lists.index, blocks=3, block=128, kv_valid=None)
    assert made.full_kv_num_blocks.tolist() == [[[2, 0]]]
    assert made.kv_num_blocks.tolist() == [[[0, 0]]]
    assert made.full_kv_indices[0, 0, 0, :2].tolist() == [0, 2]
    assert made.seq_lengths == (256, 384)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="flex compiles C++ on a CPU: needs g++")
@pytest.mark.parametrize("partial", [False, True])
def test_flex_compiled_keeps_to_the_lists(partial: bool) -> None:
    q = torch.randn(1, 2, 256, 64)
    k, v = torch.randn(2, 1, 2, 384, 64)
    mask = torch.rand(1, 2, 2, 3) < 0.5
    mask[0, 0, 0], mask[0, 1, 1] = False, True
    lists = from_mask(mask)
    valid = torch.tensor([128, 5, 64], dtype=torch.int32) if partial else None
    made = flex.block_mask(lists.count, lists.index, blocks=3, block=128, kv_valid=valid)
    with torch.inference_mode():
        out = flex._compiled()(q, k, v, block_mask=made, scale=0.125)
    want, _ = reference(q, k, v, lists.count, lists.index, block=128, kv_valid=valid, scale=0.125)
    # Both in float32, summed in another order.
    torch.testing.assert_close(out, want, atol=1e-5, rtol=1e-5)
