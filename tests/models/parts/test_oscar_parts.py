"""OSCAR's rates, its networks' sizes, and how its code books learn."""

from __future__ import annotations

from pathlib import Path

import torch
from published import fill
from published_oscar import FULL_HYPER
from safetensors.torch import load_file
from torch import nn

from restore.models.oscar import Oscar
from restore.models.parts.oscar.hyper_encoder import HyperEncoder
from restore.models.parts.oscar.quantizer import CosineQuantizer
from restore.models.parts.oscar.rates import RATES

GOLDEN = Path(__file__).parents[2] / "golden" / "oscar.safetensors"


def test_the_table_of_rates_is_that_of_the_paper() -> None:
    """Bits per pixel of the indices, against the names that the authors gave them."""
    for rate in RATES:
        assert abs(rate.bpp - float(rate.name)) < 1e-4
        assert 2**rate.bits == rate.codebook
    assert [rate.bpp for rate in Oscar.spec.rates] == [rate.bpp for rate in RATES]


def test_full_size_networks_have_the_published_numbers_of_parameters() -> None:
    """By stride: backbone and projection, as counted with the authors' classes."""
    counts = {
        64: (5_868_032, 10_683_204),
        32: (5_849_600, 8_225_604),
        16: (4_964_864, 5_768_004),
        8: (4_080_128, 3_310_404),
    }
    for rate in RATES:
        with torch.device("meta"):
            network = HyperEncoder(FULL_HYPER, rate)
        parts = (network.backbone, network.proj)
        assert tuple(sum(p.numel() for p in n.parameters()) for n in parts) == counts[rate.stride]


def test_a_training_step_of_the_code_book_is_that_of_its_library() -> None:
    """Features, the gradient that reaches the encoder, and the moved entries."""
    golden = load_file(GOLDEN)
    quantizer = CosineQuantizer(12, 6, 16)
    book = quantizer._codebook
    with torch.no_grad():
        fill(quantizer.state_dict(), 4)
        book.embed.copy_(nn.functional.normalize(book.embed, dim=-1))
        book.cluster_size.abs_().add_(0.5)
    features = {"x": torch.empty(2, 12, 4, 5)}
    fill(features, 5, gain=4)
    x = features["x"].requires_grad_()
    result = quantizer.train()(x)
    weight = torch.linspace(-1, 1, 12)[:, None, None]
    torch.autograd.backward((result * weight).sin().sum())
    assert x.grad is not None
    for name, got in (
        ("features", result.detach()),
        ("gradient", x.grad),
        ("embed", book.embed),
        ("cluster_size", book.cluster_size),
    ):
        want = golden[f"quantizer.train.{name}"]
        # Seen 6e-7 of the largest: the order of sums.
        assert float((got - want).abs().max() / want.abs().max()) < 1e-5, name


def test_halvings_follow_from_the_stride() -> None:
    assert {rate.stride: rate.halvings for rate in RATES} == {64: 3, 32: 2, 16: 1, 8: 0}
