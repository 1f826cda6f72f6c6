"""The network of `compact`: its enlargement is PyTorch's, whatever the format of the weights."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from restore.models.compact_net import CompactConfig, CompactNet, bicubic_kernel


@pytest.mark.parametrize("fold", [1, 2])
@pytest.mark.parametrize("scale", range(1, 9))
def test_the_convolution_enlarges_as_pytorch_does(scale: int, fold: int) -> None:
    x = torch.rand(2, 3, 2, 10)
    kernel = bicubic_kernel(scale, fold)
    folded = F.conv2d(F.pad(x, (2, 2, 2, 2), mode="replicate"), kernel, stride=fold)
    large = F.interpolate(x, scale_factor=scale, mode="bicubic", align_corners=False)
    # sums of 16 products, in another order
    torch.testing.assert_close(F.pixel_shuffle(folded, scale * fold), large, atol=2e-6, rtol=0)


@pytest.mark.parametrize("width", [0, 4])
def test_the_picture_keeps_all_its_bits_below_fp32(width: int) -> None:
    config = CompactConfig(scale=2, width=width, outer=0, deep=8, inner=1)
    with torch.device("meta"):  # as the method builds it
        net = CompactNet(config)
    net.load_state_dict(CompactNet(config).state_dict(), assign=True)
    torch.nn.init.zeros_(net.tail.weight)
    torch.nn.init.zeros_(net.tail.bias)  # type: ignore[arg-type]
    x = torch.rand(1, 3, 8, 8)
    large = F.interpolate(x, scale_factor=2, mode="bicubic", align_corners=False)
    # Without detail the result is the enlargement: 2e-6 is far below the 4e-3 of bf16.
    torch.testing.assert_close(net.to(torch.bfloat16)(x), large, atol=2e-6, rtol=0)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(net.float()(x), large, atol=2e-6, rtol=0)
