"""Compression: the real encoders, and the arithmetic that stands for one of them."""

from __future__ import annotations

import pytest
import torch
from degradation_scenes import generator, noise_pictures, smooth_pictures
from torch import Tensor

from restore.degradations.codec import Codec, CodecName, through_codec
from restore.degradations.compression import Jpeg, WebP, through_file
from restore.degradations.jpeg import jpeg
from restore.degradations.step import Scene
from restore.errors import OptionError

CODECS: tuple[CodecName, ...] = ("h264", "hevc", "mpeg4", "mpeg2", "vp9")


def error(result: Tensor, pictures: Tensor) -> float:
    return float((result - pictures).square().mean())


@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
def test_lower_quality_costs_more(suffix: str) -> None:
    x = smooth_pictures(2, 64)
    x = (x + 0.05 * (noise_pictures(2, 64) - 0.5)).clamp(0, 1)
    results = [through_file(x, torch.full((2,), q), suffix) for q in (95.0, 60.0, 20.0)]  # type: ignore[arg-type]
    errors = [error(result, x) for result in results]
    assert errors == sorted(errors)
    assert 2 * errors[0] < errors[2]


def test_each_picture_has_its_own_quality() -> None:
    x = smooth_pictures(1, 48).expand(2, -1, -1, -1)
    y = through_file(x, torch.tensor([95.0, 20.0]), ".jpg")
    assert 2 * error(y[0], x[0]) < error(y[1], x[1])
    step, scene = Jpeg(quality=(20, 95)), Scene(good=(48, 48), bad=(12, 12))
    drawn = step.apply(x, step.draw(2, generator()), generator(), scene)
    assert not torch.equal(drawn[0], drawn[1])


def test_channels_come_back_in_their_order() -> None:
    x = torch.tensor([0.9, 0.5, 0.1])[None, :, None, None].expand(1, 3, 32, 32)
    for result in (
        through_file(x, torch.tensor([95.0]), ".jpg"),
        through_file(x, torch.tensor([95.0]), ".webp"),
        jpeg(x, torch.tensor([95.0])),
        through_codec(x, "h264", crf=10),
    ):
        torch.testing.assert_close(result, x, atol=0.02, rtol=0)


@pytest.mark.parametrize("quality", [10, 35, 49, 50, 75, 95, 100])
@pytest.mark.parametrize("shape", [(64, 80), (33, 47)])
def test_the_arithmetic_agrees_with_the_real_encoder(shape: tuple[int, int], quality: int) -> None:
    x = smooth_pictures(1, *shape) * 0.9 + 0.05
    for pictures, room in (
        # In gray they differ where libjpeg's whole-number DCT rounds another way.
        (x.mean(1, keepdim=True).expand(-1, 3, -1, -1), 0.3),
        # A chroma value that is rounded another way changes four pixels, and more where a
        # coefficient falls to another step by it. The loss itself is 2 to 14 steps of 8 bits.
        (x, 2.0),
    ):
        pictures = (pictures * 255).round() / 255
        real = through_file(pictures, torch.tensor([float(quality)]), ".jpg")
        ours = jpeg(pictures, torch.tensor([float(quality)]))
        assert float((ours - real).abs().mean()) * 255 < room
        if quality < 100:  # there nearly all that is lost is rounding
            ratio = error(ours, pictures) / error(real, pictures)
            assert ratio == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("shape", [(1, 5), (8, 1), (17, 16)])
def test_the_arithmetic_takes_any_size(shape: tuple[int, int]) -> None:
    x = torch.full((2, 3, *shape), 0.6)
    torch.testing.assert_close(jpeg(x, torch.tensor([50.0, 90.0])), x, atol=0.01, rtol=0)


@pytest.mark.parametrize("rounding", ["soft", "straight"])
def test_gradients_flow_through_the_arithmetic(rounding: str) -> None:
    x = smooth_pictures(2, 24, 40).requires_grad_()
    result = jpeg(x, torch.tensor([30.0, 90.0]), rounding=rounding)  # type: ignore[arg-type]
    result.square().sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    assert bool(torch.isfinite(x.grad).all())
    assert float(x.grad.abs().mean()) > 0.05
    hard = jpeg(x.detach(), torch.tensor([30.0, 90.0]))
    # Values differ by the rounding of the input and the output, and for soft by at most 1/8 step.
    assert float((result.detach() - hard).abs().mean()) * 255 < 3


def test_both_methods_are_a_choice_of_the_step() -> None:
    x, scene = smooth_pictures(3, 32), Scene(good=(32, 32), bad=(8, 8))
    file, formula = Jpeg(quality=(30, 40)), Jpeg(quality=(30, 40), method="formula")
    draws = file.draw(3, generator())
    first = file.apply(x, draws, generator(), scene)
    second = formula.apply(x, draws, generator(), scene)
    assert float((first - second).abs().mean()) * 255 < 2
    assert WebP(quality=(50, 60)).told({"quality": 55.4}) == {"quality": 55}


@pytest.mark.parametrize("codec", CODECS)
def test_a_clip_keeps_its_frames_and_loses_more_at_lower_quality(codec: CodecName) -> None:
    soft = smooth_pictures(1, 50, 71)  # sides that 4:2:0 and blocks do not divide
    clip = torch.cat([torch.roll(soft, 3 * t, dims=3) for t in range(5)])
    errors = []
    for crf in (12, 28, 44):
        result = through_codec(clip, codec, crf=crf)
        assert result.shape == clip.shape
        assert torch.equal(result, through_codec(clip, codec, crf=crf))  # bit by bit
        errors.append(error(result, clip))
        # Each frame is nearest to its own original: none is lost, doubled or out of order.
        table = (result[:, None] - clip[None]).square().mean((2, 3, 4))
        assert table.argmin(1).tolist() == list(range(5))
    assert errors == sorted(errors)
    assert errors[0] < 0.5 * errors[2]


@pytest.mark.parametrize("codec", CODECS)
def test_fewer_bits_cost_more(codec: CodecName) -> None:
    x = noise_pictures(1, 64)
    clip = torch.cat([torch.roll(x, t, dims=3) for t in range(4)])
    many = through_codec(clip, codec, bits=60000, fps=1)
    few = through_codec(clip, codec, bits=4000, fps=1)
    assert error(many, clip) < error(few, clip)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("shape", [(1, 1), (7, 5)])
def test_single_and_small_frames_go_through(codec: CodecName, shape: tuple[int, int]) -> None:
    x = torch.full((1, 3, *shape), 0.6)
    result = through_codec(x, codec, crf=20)
    torch.testing.assert_close(result, x, atol=0.03, rtol=0)


def test_each_clip_of_a_batch_is_encoded_alone() -> None:
    codec = Codec(codecs=("h264", "mpeg4"), weights=(1, 1), crf=(20, 40))
    clips = smooth_pictures(2, 32)[:, None].expand(-1, 3, -1, -1, -1).flatten(0, 1)
    draws = {
        "codec": torch.tensor([0, 0, 0, 1, 1, 1]),
        "strength": torch.tensor([20.0, 20, 20, 40, 40, 40]),
    }
    scene = Scene(good=(128, 128), bad=(32, 32), frames=3, is_clip=True)
    result = codec.apply(clips, draws, generator(), scene)
    assert torch.equal(result[:3], through_codec(clips[:3], "h264", crf=20))
    assert torch.equal(result[3:], through_codec(clips[3:], "mpeg4", crf=40))


def test_a_codec_needs_a_strength() -> None:
    with pytest.raises(OptionError, match="either crf or bits"):
        Codec(crf=None)
    with pytest.raises(OptionError, match="either crf or bits"):
        Codec(bits=(0.1, 1))
