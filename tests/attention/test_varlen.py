"""Windows of unequal sizes: SeedVR2's partition, and attention in it window by window."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from restore.attention import varlen, windows_attention
from restore.attention.varlen import adaptive_windows, joint_windows_attention

LENGTHS = (5, 3, 5, 7, 3)


def qkv(tokens: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    q, k, v = torch.randn(3, 2, 3, tokens, 8, dtype=dtype)
    return q, k, v


def one_by_one(
    video: tuple[Tensor, ...], text: tuple[Tensor, ...], lengths: tuple[int, ...]
) -> tuple[Tensor, Tensor]:
    """Each window with the text, after another."""
    out, rest, start = [], [], 0
    for length in lengths:
        joined = [
            torch.cat([a[:, :, start : start + length], b], 2)
            for a, b in zip(video, text, strict=True)
        ]
        seen = F.scaled_dot_product_attention(*joined)
        out.append(seen[:, :, :length])
        rest.append(seen[:, :, length:])
        start += length
    return torch.cat(out, 2), torch.stack(rest).mean(0)


def variable_length_twin(
    q: Tensor, k: Tensor, v: Tensor, starts: Tensor, starts_k: Tensor, most: int, most_k: int
) -> Tensor:
    """What torch.nn.attention.varlen computes, in plain PyTorch."""
    out = torch.empty_like(q)
    for a, b in zip(starts.tolist(), starts[1:].tolist(), strict=False):
        assert b - a <= most
        part = [x[a:b].transpose(0, 1)[None] for x in (q, k, v)]
        out[a:b] = F.scaled_dot_product_attention(*part)[0].transpose(0, 1)
    return out


@pytest.mark.parametrize("path", ["by size", "packed"])
def test_joint_attention_is_that_of_each_window(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    video, text = qkv(sum(LENGTHS)), qkv(4)
    if path == "packed":
        monkeypatch.setattr(varlen, "variable_length", lambda q: variable_length_twin)
    out, rest = joint_windows_attention(video, text, LENGTHS)
    wanted, wanted_rest = one_by_one(video, text, LENGTHS)
    torch.testing.assert_close(out, wanted)
    torch.testing.assert_close(rest, wanted_rest)


@pytest.mark.parametrize("path", ["by size", "packed"])
def test_windows_without_text(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    video = qkv(sum(LENGTHS))
    none = tuple(x[:, :, :0] for x in video)
    if path == "packed":
        monkeypatch.setattr(varlen, "variable_length", lambda q: variable_length_twin)
    out = windows_attention(*video, LENGTHS)
    torch.testing.assert_close(out, one_by_one(video, none, LENGTHS)[0])


def test_the_scale_reaches_the_scores() -> None:
    q, k, v = qkv(sum(LENGTHS))
    scaled = windows_attention(q, k, v, LENGTHS, scale=8**-0.5 * 3)
    torch.testing.assert_close(scaled, windows_attention(q * 3, k, v, LENGTHS))


def test_bfloat16_stays_bfloat16() -> None:
    out, rest = joint_windows_attention(
        qkv(sum(LENGTHS), torch.bfloat16), qkv(4, torch.bfloat16), LENGTHS
    )
    assert out.dtype == rest.dtype == torch.bfloat16


def test_it_is_differentiable() -> None:
    video = [x.requires_grad_() for x in qkv(sum(LENGTHS))]
    text = qkv(4)
    args: Any = (tuple(video), text)
    got = torch.autograd.grad(sum(x.square().sum() for x in joint_windows_attention(
        *args, LENGTHS)), video)  # fmt: skip
    wanted = torch.autograd.grad(sum(x.square().sum() for x in one_by_one(*args, LENGTHS)), video)
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a, b)


def test_windows_have_to_fill_the_tokens() -> None:
    with pytest.raises(ValueError, match="do not fill 10 tokens"):
        windows_attention(*qkv(10), (5, 4))
    with pytest.raises(ValueError, match="do not fill 10 tokens"):
        windows_attention(*qkv(10), (10, 0))


@pytest.mark.parametrize(
    ("size", "shifted", "count", "first", "last"),
    [  # From make_720Pwindows_bysize and its shifted twin in SeedVR's code (673b563).
        ((1, 45, 80), False, 9, (1, 15, 27), (1, 15, 26)),
        ((1, 45, 80), True, 16, (1, 7, 13), (1, 8, 13)),
        ((25, 45, 80), False, 36, (7, 15, 27), (4, 15, 26)),
        ((25, 45, 80), True, 80, (3, 7, 13), (1, 8, 13)),
        ((7, 68, 120), True, 120, (1, 7, 13), (2, 1, 26)),
        ((31, 90, 160), False, 144, (8, 15, 27), (7, 15, 25)),
        ((31, 90, 160), True, 245, (4, 7, 13), (3, 8, 12)),
    ],
)
def test_windows_are_seedvr2s(
    size: tuple[int, int, int], shifted: bool, count: int, first: tuple[int, int, int],
    last: tuple[int, int, int],
) -> None:  # fmt: skip
    shapes = adaptive_windows(*size, shifted=shifted).shapes
    assert (len(shapes), shapes[0], shapes[-1]) == (count, first, last)


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("size", [(5, 17, 30), (1, 3, 200), (2, 1, 1), (40, 9, 9)])
def test_every_token_is_in_one_window(size: tuple[int, int, int], shifted: bool) -> None:
    windows = adaptive_windows(*size, shifted=shifted)
    tokens = size[0] * size[1] * size[2]
    assert sum(windows.lengths) == tokens
    assert torch.equal(windows.order.sort().values, torch.arange(tokens))
    assert torch.equal(windows.order[windows.inverse], torch.arange(tokens))


def test_a_window_is_a_box() -> None:
    windows = adaptive_windows(5, 17, 30, shifted=True)
    start = 0
    for shape, length in zip(windows.shapes, windows.lengths, strict=True):
        own = windows.order[start : start + length]
        places = torch.stack([own // 510, own // 30 % 17, own % 30])
        spans = places.amax(1) - places.amin(1) + 1
        assert tuple(spans.tolist()) == shape
        start += length


@pytest.mark.gpu
def test_variable_length_attention_equals_windows_by_size() -> None:
    video, text = (tuple(x.half().cuda() for x in qkv(n)) for n in (sum(LENGTHS), 4))
    assert varlen.variable_length(video[0]) is not None
    out, rest = joint_windows_attention(video, text, LENGTHS)  # type: ignore[arg-type]
    wanted, wanted_rest = one_by_one(video, text, LENGTHS)
    torch.testing.assert_close(out, wanted, rtol=2e-3, atol=2e-3)  # float16 outputs
    torch.testing.assert_close(rest, wanted_rest, rtol=2e-3, atol=2e-3)
