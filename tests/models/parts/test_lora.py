"""LoRA: merged is what the two factors beside the layer give, linear or convolution."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from restore.errors import WeightsError
from restore.models.parts.lora import LoraPair, merge, read_adapters


def test_merged_is_the_layer_plus_the_scaled_factors() -> None:
    net = nn.ModuleDict({"fc": nn.Linear(6, 5), "conv": nn.Conv2d(3, 4, 3, stride=2, padding=1)})
    a, b = torch.randn(2, 6), torch.randn(5, 2)
    down, up = torch.randn(2, 3, 3, 3), torch.randn(4, 2, 1, 1)
    x, y = torch.randn(7, 6), torch.randn(1, 3, 8, 8)
    with torch.no_grad():
        fc = net["fc"](x) + 2.0 * (x @ a.T @ b.T)
        inner = nn.functional.conv2d(y, down, stride=2, padding=1)
        conv = net["conv"](y) + 2.0 * nn.functional.conv2d(inner, up)
        pairs = {"fc": LoraPair(down=a, up=b), "conv": LoraPair(down=down, up=up)}
        merge(net, [(pairs, 2.0)])
        torch.testing.assert_close(net["fc"](x), fc)
        torch.testing.assert_close(net["conv"](y), conv)


def test_names_with_and_without_an_adapter_are_read() -> None:
    state = {
        "a.b.lora_A.first.weight": torch.ones(2, 3),
        "a.b.lora_B.first.weight": torch.ones(4, 2),
        "c.lora_A.weight": torch.ones(1, 3),
        "c.lora_B.weight": torch.ones(4, 1),
        "norm.weight": torch.ones(3),
    }
    adapters = read_adapters(state)
    assert {name: set(pairs) for name, pairs in adapters.items()} == {"first": {"a.b"}, "": {"c"}}
    assert adapters["first"]["a.b"].rank == 2


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"a.lora_A.x.weight": torch.ones(2, 3)}, "no factor B"),
        (
            {"a.lora_A.x.weight": torch.ones(2, 3), "a.lora_B.x.weight": torch.ones(4, 3)},
            "rank 2 and 3",
        ),
    ],
)
def test_half_a_pair_is_refused(state: dict[str, torch.Tensor], message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        read_adapters(state)


def test_a_network_without_the_layer_or_with_another_shape_is_refused() -> None:
    net = nn.ModuleDict({"fc": nn.Linear(6, 5)})
    pair = LoraPair(down=torch.ones(2, 7), up=torch.ones(5, 2))
    with pytest.raises(WeightsError, match=r"\(5, 7\).*\(5, 6\)"):
        merge(net, [({"fc": pair}, 1.0)])
    with pytest.raises(WeightsError, match="lacks"):
        merge(net, [({"other": pair}, 1.0)])
