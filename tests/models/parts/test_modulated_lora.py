"""LoRA with a matrix of each picture between its factors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from published import FULL, make_unet, make_vae
from published_s3diff import UNET_TARGETS, VAE_TARGETS, factors
from torch import nn

from restore.models.parts.lora import LoraPair
from restore.models.parts.modulated_lora import ModulatedLora, block_of, targeted


class _Two(nn.Module):
    """A linear layer in the third block, a convolution in the middle."""

    def __init__(self) -> None:
        super().__init__()
        self.down_blocks = nn.ModuleList(nn.ModuleDict({"to_q": nn.Linear(6, 5)}) for _ in range(3))
        self.mid_block = nn.ModuleDict({"conv1": nn.Conv2d(6, 7, 3)})


def test_merged_layers_compute_what_the_paper_says() -> None:
    net, pairs = _Two(), {}
    for name in ("down_blocks.2.to_q", "mid_block.conv1"):
        a, b = factors(net.get_submodule(name), name, "x", 3).values()
        pairs[name] = LoraPair(down=torch.randn(a.shape), up=torch.randn(b.shape))
    net.mid_block.to(memory_format=torch.channels_last)
    lora = ModulatedLora(net, pairs, scale=0.5, blocks=6)
    linear, conv = net.down_blocks[2]["to_q"], net.mid_block["conv1"]  # type: ignore[index]
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    m, x, y = torch.randn(6, 3, 3), torch.randn(2, 4, 6), torch.randn(2, 6, 8, 8)
    plain = (linear(x), conv(y))
    with torch.inference_mode(), lora.merged(m):
        got = (linear(x), conv(y))
        assert conv.weight.is_contiguous(memory_format=torch.channels_last)
    p = pairs["down_blocks.2.to_q"]
    want = plain[0] + 0.5 * (x @ p.down.T) @ m[2] @ p.up.T
    torch.testing.assert_close(got[0], want, atol=1e-5, rtol=0)
    p = pairs["mid_block.conv1"]
    inner = torch.einsum("bkhw,kr->brhw", F.conv2d(y, p.down), m[4])
    want = plain[1] + 0.5 * F.conv2d(inner, p.up)
    torch.testing.assert_close(got[1], want, atol=1e-4, rtol=0)
    with pytest.raises(KeyError), lora.merged(m):
        raise KeyError
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_the_full_size_has_the_published_number_of_layers() -> None:
    """257 and 31 layers: with conv_in 516 and 62 tensors, and 32.43 and 1.48 million numbers."""
    with torch.device("meta"):
        nets = {"unet": make_unet(FULL), "vae": make_vae(FULL)}
    patterns: dict[str, Any] = {"unet": UNET_TARGETS, "vae": VAE_TARGETS}
    counts, sizes, blocks = {}, {}, {}
    for net, rank in (("unet", 32), ("vae", 16)):
        names = targeted(nets[net], patterns[net])
        pairs = [factors(nets[net].get_submodule(n), n, "x", rank).values() for n in names]
        counts[net] = 2 * len(names)
        sizes[net] = sum(tensor.numel() for pair in pairs for tensor in pair)
        blocks[net] = {block_of(n, blocks=10 if net == "unet" else 6) for n in names}
    assert counts == {"unet": 516 - 2, "vae": 62}
    assert sizes["unet"] == pytest.approx(32.43e6, rel=1e-3)
    assert sizes["vae"] == pytest.approx(1.48e6, rel=3e-3)
    assert blocks == {"unet": set(range(10)), "vae": set(range(6))}
