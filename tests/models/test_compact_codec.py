"""The codec in the package: whole numbers decide what an index is, and a file holds the picture."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from restore.codec.contract import Codec, Coded, SelfCoding
from restore.errors import InputError, OptionError, WeightsError
from restore.models import compact_codec, compact_codec_integers
from restore.models.compact_codec import CompactCodec
from restore.models.compact_codec_context import ContextNet, bits, passes, phase_map
from restore.models.compact_codec_integers import (
    EIGHTHS,
    LARGEST_WEIGHT,
    SCALES,
    SYMBOLS,
    TABLE_BITS,
    IntegerContext,
    distribution_tables,
    to_floats,
    to_integers,
)
from restore.models.compact_codec_net import REACH, STRIDE, CodecConfig, CodecNet, cosines, rounded
from restore.models.compact_codec_weights import read_codec, write_codec
from restore.registry import CODECS, codec_class
from restore.weights import open_metadata, packaged_weights

TINY = CodecConfig(rates=3, latent=12, outer=8, middle=8, deep=12, down=1, up=1, hidden=8)
SIZE = (5, 7)  # rows and columns of latents, both odd
CPU = torch.device("cpu")


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A tiny codec with random weights, means and scales that vary with their context."""
    network, context = CodecNet(TINY), ContextNet(TINY)
    with torch.no_grad():
        network.analysis["tail"].weight *= 6  # so that not everything rounds to 0
        for i in range(len(context.passes)):
            torch.nn.init.normal_(context.v[i], std=0.1)
            torch.nn.init.normal_(context.c[i], std=0.3)
            torch.nn.init.normal_(context.b1[i], std=0.3)
        context.typical.copy_(torch.tensor([0.1, 0.2, 0.4]))
    path = tmp_path / "tiny.safetensors"
    write_codec(path, TINY, {"network": network.state_dict(), "context": context.state_dict()})
    return path


@pytest.fixture
def codec(weights: Path) -> CompactCodec:
    return CompactCodec.load(weights, device=CPU, dtype=torch.float32)


def picture(height: int, width: int) -> torch.Tensor:
    small = torch.rand(1, 3, height // 8, width // 8)
    return torch.nn.functional.interpolate(small, (height, width), mode="bilinear")


def latents(seed: int, *, spread: float = 3.0) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    q = torch.randn(TINY.latent, *SIZE, generator=draw) * spread
    return q.round().clamp(-REACH, REACH).int() + REACH


def test_the_registry_names_exactly_this_class() -> None:
    assert CODECS["compact-codec"] == "restore.models.compact_codec:CompactCodec"
    assert codec_class("compact-codec") is CompactCodec


def test_it_is_a_codec_that_codes_by_itself(codec: CompactCodec) -> None:
    assert isinstance(codec, Codec)
    assert isinstance(codec, SelfCoding)
    assert codec.tables(0) is None


def test_the_spec_is_that_of_the_file(weights: Path, codec: CompactCodec) -> None:
    assert CompactCodec.describe(weights) == codec.spec
    assert [rate.bpp for rate in codec.spec.rates] == [0.1, 0.2, 0.4]
    assert {rate.planes for rate in codec.spec.rates} == {TINY.latent}
    with pytest.raises(TypeError):
        codec.tune(tiling="published")


@pytest.mark.parametrize("rate", [0, 2])
def test_a_picture_comes_back_in_its_size(codec: CompactCodec, rate: int) -> None:
    pixels = picture(48, 80)
    coded = codec.encode(pixels, rate, generator=torch.Generator())
    assert (coded.rate, coded.indices.dtype) == (rate, torch.int32)
    assert tuple(coded.indices.shape) == (TINY.latent, 3, 5)
    assert 0 <= int(coded.indices.min()) < int(coded.indices.max()) <= 2 * REACH
    assert coded.side.shape == (0,)
    result = codec.decode(coded, 48, 80)
    assert (result.shape, result.dtype) == (pixels.shape, torch.float32)
    assert 0 <= float(result.min()) <= float(result.max()) <= 1


def test_the_same_picture_gives_the_same_indices(codec: CompactCodec) -> None:
    pixels = picture(64, 64)
    first, second = (codec.encode(pixels, 1, generator=torch.Generator()) for _ in range(2))
    assert torch.equal(first.indices, second.indices)


def test_higher_rates_have_finer_steps(codec: CompactCodec) -> None:
    pixels = picture(64, 64)
    sizes = []
    for rate in range(TINY.rates):
        coded = codec.encode(pixels, rate, generator=torch.Generator())
        sizes.append(int((coded.indices - REACH).abs().sum()))
    assert sizes[0] < sizes[1] < sizes[2]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_other_number_formats_give_nearly_the_same_picture(
    codec: CompactCodec, dtype: torch.dtype
) -> None:
    coded = codec.encode(picture(64, 64), 1, generator=torch.Generator())
    expected = codec.decode(coded, 64, 64)
    other = codec.to(CPU, dtype).decode(coded, 64, 64)
    assert codec.net.ungain.dtype == torch.float32
    # bf16 has 8 bits; the layers of the decoder add up to less than 4 of its steps.
    assert float((other - expected).abs().max()) < 4 / 256


def test_rounding_leads_no_latent_out_of_range() -> None:
    y = torch.tensor([-REACH - 5.0, -1.4, 1.6, REACH + 5.0, REACH + 5.0], requires_grad=True)
    q = rounded(y)
    assert q.tolist() == [-REACH, -1, 2, REACH, REACH]
    q.backward(torch.tensor([1.0, 1.0, -1.0, -1.0, 1.0]))
    assert y.grad is not None
    # A step goes against its gradient: only the two that would lead further out are gone.
    assert y.grad.tolist() == [0.0, 1.0, -1.0, 0.0, 1.0]


def test_before_training_it_is_a_cosine_transform() -> None:
    """Its first functions keep a coarse picture nearly whole: training starts from there."""
    matrix = cosines(96)
    assert torch.allclose(matrix @ matrix.T, torch.eye(96), atol=1e-5)
    net = CodecNet(CodecConfig()).eval()
    small = torch.rand(1, 3, 6, 6)
    pixels = torch.nn.functional.interpolate(small, (96, 96), mode="bicubic").clamp(0, 1)
    number = torch.tensor([7])
    with torch.no_grad():
        result = net.synthesise(rounded(net.analyse(pixels, number)), number)
    # 96 of 768 functions, steps of a tenth, and networks that begin as small noise.
    assert float((result - pixels).square().mean().log10()) < -2.3


def test_a_picture_that_gives_no_numbers_is_refused(codec: CompactCodec) -> None:
    pixels = picture(32, 32)
    pixels[..., 5, 5] = float("nan")
    with pytest.raises(Exception, match="no number"):
        codec.encode(pixels, 0, generator=torch.Generator())


def test_strips_change_nothing(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # As many blocks as the largest codec that the margin is made for.
    config = dataclasses.replace(TINY, down=2, up=3)
    states = {"network": CodecNet(config).state_dict(), "context": ContextNet(config).state_dict()}
    write_codec(weights, config, states)
    codec = CompactCodec.load(weights, device=CPU, dtype=torch.float32)
    pixels = picture(40 * STRIDE, 2 * STRIDE)
    whole = codec.encode(pixels, 2, generator=torch.Generator())
    expected = codec.decode(whole, *pixels.shape[-2:])
    monkeypatch.setattr(compact_codec, "_STRIP_PLACES", 1)
    assert len(list(compact_codec._strips(40, 2))) > 1
    parts = codec.encode(pixels, 2, generator=torch.Generator())
    differing = (parts.indices != whole.indices).float().mean()
    assert float(differing) < 1e-3  # a value on the edge between two may round either way
    result = codec.decode(whole, *pixels.shape[-2:])
    assert float((result - expected).abs().max()) < 1e-5  # sums in another order


@pytest.mark.parametrize("size", [(1, 1), (1, 6), (2, 2), (5, 7)])
def test_each_latent_is_coded_exactly_once(size: tuple[int, int]) -> None:
    seen = torch.zeros(TINY.latent, *size)
    for one in passes(TINY.latent):
        seen[one.first : one.last] += phase_map(*size) == one.phase
    assert bool((seen == 1).all())


def test_a_context_sees_nothing_that_comes_later(codec: CompactCodec) -> None:
    model = codec.index_model(1, *SIZE)
    indices, done = latents(0).numpy(), np.zeros(TINY.latent * SIZE[0] * SIZE[1], bool)
    for step in range(model.steps):
        other = np.where(done.reshape(indices.shape), indices, latents(step + 1).numpy())
        for one, two in zip(model.plan(step, indices), model.plan(step, other), strict=True):
            assert np.array_equal(one, two)
        done[model.plan(step, indices)[0]] = True
    assert done.all()


def test_a_context_sees_what_came_before(codec: CompactCodec) -> None:
    model = codec.index_model(1, *SIZE)
    tables = [model.plan(5, latents(seed).numpy())[1] for seed in (0, 1)]
    assert not np.array_equal(*tables)


def test_whole_numbers_say_what_the_trained_floats_say(weights: Path) -> None:
    """Or training would make something small that files do not pay."""
    file = read_codec(weights)
    context = ContextNet(TINY)
    context.load_state_dict(file.context)
    q = (latents(0) - REACH)[None].float()
    for rate in range(TINY.rates):
        with torch.no_grad():
            index, mean = context(q, torch.tensor([rate]))
        model = IntegerContext(file.integers, TINY, rate=rate, size=SIZE)
        for step in range(model.steps):
            places, table, shift = (
                torch.from_numpy(x) for x in model.plan(step, latents(0).numpy())
            )
            # Half a step of rounding, and what the rounded hidden values add.
            assert (table // EIGHTHS - index.flatten()[places]).abs().max() < 0.7
            found = (shift + REACH) + (table % EIGHTHS) / EIGHTHS
            assert (found - mean.flatten()[places]).abs().max() < 0.1


def test_the_bytes_are_what_training_counts(codec: CompactCodec, weights: Path) -> None:
    context = ContextNet(TINY)
    context.load_state_dict(read_codec(weights).context)
    coded = Coded(rate=2, indices=latents(3, spread=0.8), side=torch.zeros(0))
    q = (coded.indices - REACH)[None].float()
    with torch.no_grad():
        expected = float(bits(q, *context(q, torch.tensor([2]))).sum()) / 8
    # Rounded scales and means cost a little, the end of the coder a few bytes.
    assert len(codec.write_payload(coded)) == pytest.approx(expected, rel=0.03, abs=4)


def test_large_pictures_are_predicted_in_parts(
    codec: CompactCodec, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, indices = codec.index_model(1, *SIZE), latents(0).numpy()
    expected = [model.plan(step, indices) for step in range(model.steps)]
    monkeypatch.setattr(compact_codec_integers, "_CHUNK", 4)
    for step in range(model.steps):
        for one, two in zip(model.plan(step, indices), expected[step], strict=True):
            assert np.array_equal(one, two)


@pytest.mark.parametrize("spread", [0.0, 0.3, 3.0, 40.0])
def test_any_indices_survive_their_bytes(codec: CompactCodec, spread: float) -> None:
    coded = Coded(rate=1, indices=latents(4, spread=spread), side=torch.zeros(0))
    payload = codec.write_payload(coded)
    for data in (payload, payload + bytes(50)):
        assert torch.equal(codec.read_payload(data, 1, *SIZE), coded.indices)


def test_the_end_of_the_bytes_is_not_wasted(codec: CompactCodec) -> None:
    coded = Coded(rate=1, indices=latents(4), side=torch.zeros(0))
    payload = codec.write_payload(coded)
    with_less = codec.read_payload(payload[:-1], 1, *SIZE)
    assert not torch.equal(with_less, coded.indices)


def test_damaged_bytes_give_some_picture_or_one_error(codec: CompactCodec) -> None:
    payload = codec.write_payload(Coded(rate=1, indices=latents(4), side=torch.zeros(0)))
    random, refused = np.random.default_rng(0), 0
    for _ in range(40):
        data = bytearray(payload[: random.integers(len(payload) + 1)])
        for place in random.integers(0, max(1, len(data)), 3):
            data[place : place + 1] = bytes([random.integers(256)])
        try:
            indices = codec.read_payload(bytes(data), 1, *SIZE)
        except InputError as error:
            assert "damaged" in str(error)
            refused += 1
            continue
        assert 0 <= int(indices.min()) <= int(indices.max()) <= 2 * REACH
        pixels = codec.decode(Coded(rate=1, indices=indices, side=torch.zeros(0)), 80, 112)
        assert bool(torch.isfinite(pixels).all())
    assert refused < 40


DECODER = """
import sys, hashlib, torch
from pathlib import Path
from restore.models.compact_codec import CompactCodec
torch.set_num_threads(int(sys.argv[2]))
codec = CompactCodec.load(Path(sys.argv[1]), device=torch.device("cpu"), dtype=torch.bfloat16)
indices = codec.read_payload(sys.stdin.buffer.read(), 2, 40, 60)
print(hashlib.sha256(indices.numpy().tobytes()).hexdigest())
"""


def test_another_process_reads_the_same_indices(codec: CompactCodec, weights: Path) -> None:
    import hashlib

    draw = torch.Generator().manual_seed(0)
    q = torch.randn(TINY.latent, 40, 60, generator=draw).mul(2).round().clamp(-REACH, REACH)
    coded = Coded(rate=2, indices=q.int() + REACH, side=torch.zeros(0))
    expected = hashlib.sha256(coded.indices.numpy().tobytes()).hexdigest()
    done = subprocess.run(
        [sys.executable, "-c", DECODER, str(weights), "2"],
        input=codec.write_payload(coded),
        capture_output=True,
        env={**os.environ, "OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2"},
        check=True,
    )
    assert done.stdout.decode().strip() == expected


def test_the_tables_are_distributions() -> None:
    tables = distribution_tables()
    assert tuple(tables.shape) == (SCALES * EIGHTHS, SYMBOLS)
    assert int(tables.min()) >= 1
    assert bool((tables.long().sum(1) == 1 << TABLE_BITS).all())
    # The mean of a symmetric distribution is the place it is made for.
    symbols = torch.arange(SYMBOLS) - 2 * REACH
    means = (tables.double() * symbols).sum(1) / (1 << TABLE_BITS)
    wanted = torch.arange(EIGHTHS).repeat(SCALES) / EIGHTHS
    wide = torch.arange(SCALES).repeat_interleave(EIGHTHS)
    chosen = (wide > 20) & (wide < 36)  # neither narrower than a step nor cut off at the ends
    assert float((means - wanted)[chosen].abs().max()) < 0.02


def test_sums_cannot_overflow() -> None:
    huge = {k: v * 1e9 for k, v in ContextNet(TINY).state_dict().items()}
    integers = to_integers(huge)
    for key in ("w1", "w2"):
        assert int(integers[f"{key}.11"].abs().max()) == LARGEST_WEIGHT
    # The largest network there can be: 15 x 8191 x 9 x 384 + 2^24, and 2047 x 8191 x 64 + 2^24.
    assert 15 * LARGEST_WEIGHT * 9 * 384 + (1 << 24) < 2**31
    assert 2047 * LARGEST_WEIGHT * 64 + (1 << 24) + 4096 < 2**31


def test_training_goes_on_from_a_file(weights: Path) -> None:
    file = read_codec(weights)
    again = to_integers({**to_floats(file.integers)})
    assert all(torch.equal(again[key], value) for key, value in file.integers.items())


def _changed(path: Path, key: str, value: torch.Tensor | None) -> None:
    state, text = load_file(path), open_metadata(path)
    if value is None:
        del state[key]
    else:
        state[key] = value
    save_file(state, path, text)


def test_a_file_that_does_not_fit_is_refused(weights: Path) -> None:
    good = weights.read_bytes()
    state = load_file(weights)
    table = state["context.tables"].clone()
    table[3, 3] += 1
    for key, value, said in (
        ("context.tables", table, "do not add up"),
        ("context.w1.4", torch.full_like(state["context.w1.4"], 9000), "beyond 8191"),
        ("context.b2.0", None, "does not fit"),
        ("network.gain", state["network.gain"].float(), "does not fit"),
        ("network.more", torch.zeros(1), "does not fit"),
        ("network.gain", torch.full_like(state["network.gain"], torch.nan), "not a finite number"),
    ):
        weights.write_bytes(good)
        _changed(weights, key, value)
        with pytest.raises(WeightsError, match=said):
            read_codec(weights)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"format": "restore.compact.v3"}, "weights of another model"),
        ({"latent": "13"}, "does not say the shape"),
        ({"bpp": "0.1,0.2"}, "does not say the shape"),
        ({"bpp": "0.1,nan,0.2"}, "does not say the shape"),
    ],
)
def test_a_head_that_is_wrong_is_refused(weights: Path, changes: dict[str, str], said: str) -> None:
    save_file(load_file(weights), weights, {**open_metadata(weights), **changes})
    for read in (CompactCodec.describe, read_codec):
        with pytest.raises(WeightsError, match=said):
            read(weights)


def test_a_shape_out_of_range_is_said() -> None:
    for fields in ({"latent": 10}, {"rates": 0}, {"hidden": 65}):
        with pytest.raises(OptionError, match=r"network\."):
            CodecConfig(**fields)


class TestTheWeightsOfThePackage:
    """They came with the package."""

    @pytest.fixture
    def shipped(self) -> CompactCodec:
        return CompactCodec.load(None, device=CPU, dtype=torch.float32)

    def test_they_keep_to_their_budget(self, shipped: CompactCodec) -> None:
        assert packaged_weights("compact-codec").stat().st_size <= 8 << 20
        bpp = [rate.bpp for rate in shipped.spec.rates]
        assert bpp == sorted(bpp)
        assert sum(0.02 <= value <= 0.6 for value in bpp) >= 4
        # What `restore models list` says of the class is about what the file says.
        said = [rate.bpp for rate in CompactCodec.spec.rates]
        assert said == pytest.approx(bpp, rel=0.5)

    def test_more_bytes_give_a_better_picture(
        self, shipped: CompactCodec, shared_data: Path
    ) -> None:
        from PIL import Image

        path = sorted((shared_data / "bsds500" / "val").glob("*.jpg"))[3]
        array = np.array(Image.open(path).convert("RGB"))[:256, :256]
        pixels = torch.from_numpy(array).permute(2, 0, 1)[None] / 255
        sizes, errors = [], []
        for rate in shipped.spec.rates:
            coded = shipped.encode(pixels, rate.index, generator=torch.Generator())
            sizes.append(len(shipped.write_payload(coded)))
            errors.append(float((shipped.decode(coded, 256, 256) - pixels).square().mean()))
        assert sizes == sorted(sizes)
        assert errors == sorted(errors, reverse=True)
