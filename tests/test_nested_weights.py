"""Published files: read safely, and converted without loss."""

from __future__ import annotations

import collections
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from restore.errors import WeightsError
from restore.nested_weights import check_finite, convert, named_tensors, open_nested

CONTENT: dict[str, Any] = {
    "rank": 4,
    "scale": 0.5,
    "layers": ["a.b", "a.b", "c"],
    "state": collections.OrderedDict(
        {"a.b.weight": torch.arange(6.0).view(2, 3), "tied": torch.ones(2)}
    ),
    "deep": {"er": {"x": torch.tensor([1, 2]), "none": None, "yes": True, "text": "t"}},
    "parameter": nn.Parameter(torch.ones(3)),
}
CONTENT["state"]["again"] = CONTENT["state"]["tied"]


def same(a: Any, b: Any) -> bool:
    """Equal values of equal kinds."""
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


def test_a_converted_file_holds_the_same(tmp_path: Path) -> None:
    torch.save(CONTENT, tmp_path / "a.pkl")
    convert(tmp_path / "a.pkl", tmp_path / "a.safetensors")
    first, second = open_nested(tmp_path / "a.pkl"), open_nested(tmp_path / "a.safetensors")
    assert same(first, second)
    assert first["layers"] == ["a.b", "a.b", "c"]
    assert torch.equal(second["state"]["a.b.weight"], CONTENT["state"]["a.b.weight"])
    assert list(second["state"]) == list(CONTENT["state"])  # some formats depend on the order


def test_code_in_a_pickle_is_refused(tmp_path: Path) -> None:
    class Bad:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "was run",))

    torch.save({"a": Bad()}, tmp_path / "bad.pkl")
    with pytest.raises(WeightsError, match="refused"):
        open_nested(tmp_path / "bad.pkl")
    assert not (tmp_path / "was run").exists()


def test_numbers_that_are_none_are_found_by_name() -> None:
    content = {"state": {"w": torch.tensor([1.0, float("inf")])}, "list": [torch.zeros(1)]}
    assert [name for name, _ in named_tensors(content)] == ["state.w", "list.0"]
    with pytest.raises(WeightsError, match=r"'state\.w' holds NaN or infinity"):
        check_finite(Path("x.pkl"), content)
