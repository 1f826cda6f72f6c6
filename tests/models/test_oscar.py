"""OSCAR: the authors' indices and pictures at all rates, tiles, and files that are refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from published import filled, make_unet, picture
from published_oscar import VELOCITY, make_oscar
from safetensors import safe_open
from torch import Tensor, nn

from restore.codec.contract import Coded
from restore.codec.engine import Coder, load_codec
from restore.errors import WeightsError
from restore.models import oscar
from restore.models.oscar import Oscar, align, channel_norms
from restore.models.parts.oscar import file as oscar_file
from restore.models.parts.oscar.hyper_encoder import reach, run_exactly
from restore.models.parts.oscar.rates import RATES
from restore.nested_weights import content_sha256, convert, named_tensors, open_nested
from restore.registry import codec_class

GOLDEN = Path(__file__).parents[1] / "golden" / "oscar.safetensors"
CPU = torch.device("cpu")
CASES = [("whole", rate) for rate in range(8)] + [("wide", 0), ("wide", 5), ("resized", 2)]
SIZES = {"whole": (128, 128), "wide": (128, 256), "resized": (150, 269)}


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    """What the authors' code gave; where and how is in the file's text."""
    with safe_open(GOLDEN, framework="pt") as file:
        assert "cb23f4e" in file.metadata()["source"]
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


@pytest.fixture(scope="module")
def base(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny base as one that predicts v."""
    return with_scheduler(tiny_base, tmp_path_factory.mktemp("velocity") / "base", VELOCITY)


@pytest.fixture(scope="module")
def unet() -> nn.Module:
    """That of the base."""
    return filled(make_unet(), 1).requires_grad_(False)


@pytest.fixture(scope="module")
def weights(unet: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_oscar(tmp_path_factory.mktemp("oscar") / "oscar.pkl", unet, seed=9)


@pytest.fixture(scope="module")
def content(weights: Path) -> dict[str, Any]:
    return open_nested(weights)


@pytest.fixture(scope="module")
def coder(weights: Path, base: Path) -> Coder:
    return load_codec("oscar", weights=str(weights), base=str(base), device="cpu")


@pytest.fixture
def codec(coder: Coder) -> Oscar:
    """The same networks for every test, with the options of the beginning."""
    codec = coder.codec
    assert isinstance(codec, Oscar)
    codec.use_tiles(codec.spec.own_tiles)
    codec.tune(tiling="exact", posterior="mode")
    return codec


def with_scheduler(source: Path, target: Path, changes: dict[str, Any]) -> Path:
    """A copy of a base; a setting that becomes None is left out."""
    shutil.copytree(source, target)
    file = target / "scheduler" / "scheduler_config.json"
    config = {**json.loads(file.read_text()), **changes}
    file.write_text(json.dumps({k: v for k, v in config.items() if v is not None}))
    return target


def none_drawn() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def relative(got: Tensor, want: Tensor) -> float:
    return float((got - want).abs().max() / want.abs().max())


def exact_norms(codec: Oscar, coded: Coded, x: Tensor) -> Coded:
    """The same with norms that were not rounded, as the authors' code has them."""
    z = codec.vae.encode(2 * x - 1, posterior="mode", generator=none_drawn())
    return replace(coded, side=channel_norms(z)[0])


def test_the_registry_names_exactly_this_class() -> None:
    assert codec_class("oscar") is Oscar


@pytest.mark.parametrize(("name", "rate"), CASES)
def test_indices_and_pictures_are_those_of_the_authors(
    name: str,
    rate: int,
    codec: Oscar,
    coder: Coder,
    golden: dict[str, Tensor],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At every rate; wider than high; and of a size that they resize first."""
    monkeypatch.setattr(coder, "config", replace(coder.config, tiling="published"))
    x = coder.fitted(picture(*SIZES[name], len(name)))
    height, width = x.shape[-2:]
    coded = codec.encode(x, rate, generator=none_drawn())
    assert torch.equal(coded.indices[0], golden[f"{name}.{rate}.indices"].int())
    same = exact_norms(codec, coded, x)
    with torch.inference_mode():
        latents = codec.latents(same)[0, :, ::2, ::2]
    assert relative(latents, golden[f"{name}.{rate}.latents"]) < 1e-6  # seen 1e-7
    want = golden[f"{name}.{rate}"]
    # The same arithmetic in another order: seen 1e-5. The issue allows 1e-3.
    got = 2 * codec.decode(same, height, width)[0, :, ::5, ::5] - 1
    assert relative(got, want) < 1e-4
    if rate % 3 == 0:  # what a file holds: fp16 norms, off by 2^-12 on average
        rounded = 2 * codec.decode(coded, height, width)[0, :, ::5, ::5] - 1
        assert 0 < float((rounded - want).abs().mean() / want.abs().mean()) < 1e-3


@contextmanager
def changed(target: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(target, name)
    setattr(target, name, value)
    try:
        yield
    finally:
        setattr(target, name, before)


def test_each_part_counts(codec: Oscar, unet: nn.Module) -> None:
    """Else the comparison with the authors' numbers would say nothing of it."""
    x, rate = picture(128, 128, 5), 2
    coded = codec.encode(x, rate, generator=none_drawn())
    plain = codec.decode(coded, 128, 128)
    shuffled = coded.indices.flatten()[torch.randperm(64, generator=none_drawn())]
    later = tuple(replace(one, t=one.t + 100) for one in RATES)
    results = {
        "indices": codec.decode(replace(coded, indices=shuffled.view_as(coded.indices)), 128, 128),
        "norms": codec.decode(replace(coded, side=coded.side.flip(0)), 128, 128),
    }
    with changed(codec, "unet", unet):
        results["LoRA"] = codec.decode(coded, 128, 128)
    with changed(codec, "context", codec.context.roll(1, -1)):
        results["context"] = codec.decode(coded, 128, 128)
    with changed(oscar, "RATES", later):
        results["time step"] = codec.decode(coded, 128, 128)
    with changed(codec, "alpha_bars", [0.9] * 8):
        results["schedule"] = codec.decode(coded, 128, 128)
    with changed(oscar, "x0_from_velocity", lambda z, v, a: (z - (1 - a) ** 0.5 * v) / a**0.5):
        results["v-prediction"] = codec.decode(coded, 128, 128)
    with changed(oscar, "align", lambda z, norms: z):
        results["alignment"] = codec.decode(coded, 128, 128)
    for name, result in results.items():
        # A hundred times what the comparison allows.
        assert relative(result, plain) > 1e-2, name
    codec.tune(posterior="sample")
    drawn = codec.encode(x, 7, generator=none_drawn())
    again = codec.encode(x, 7, generator=none_drawn())
    other = codec.encode(x, 7, generator=torch.Generator().manual_seed(1))
    codec.tune(posterior="mode")
    mode = codec.encode(x, 7, generator=none_drawn())
    assert torch.equal(drawn.indices, again.indices)
    assert not torch.equal(drawn.indices, other.indices)
    assert not torch.equal(drawn.indices, mode.indices)


def test_an_odd_size_is_padded_and_found_again(coder: Coder, codec: Oscar) -> None:
    x = picture(101, 83, 4)
    coded = coder.encode(x, 3)
    assert tuple(coded.indices.shape) == (1, 8, 8)
    padded = nn.functional.pad(x, (0, 128 - 83, 0, 128 - 101), mode="replicate")
    own = codec.encode(padded, 3, generator=none_drawn())
    assert torch.equal(own.indices, coded.indices)
    assert torch.equal(own.side, coded.side)
    files = coder.compress(x, rate=3)
    result = coder.decompress(files["strings"], files["shape"])["x_hat"]
    assert tuple(result.shape) == (1, 3, 101, 83)
    whole = codec.decode(coded, 128, 128)[..., :101, :83]
    torch.testing.assert_close(result, whole, atol=1e-5, rtol=0)


def test_published_tiling_resizes_as_pil_does(coder: Coder) -> None:
    x = picture(150, 269, 7)
    config = replace(coder.config, tiling="published")
    with changed(coder, "config", config):
        fitted = coder.fitted(x)
    image = Image.fromarray((x[0].permute(1, 2, 0) * 255).round().byte().numpy())
    expected = np.array(image.resize((256, 128), Image.Resampling.LANCZOS))
    assert np.array_equal((fitted[0].permute(1, 2, 0) * 255).round().byte().numpy(), expected)


@pytest.mark.parametrize("rate", [0, 1, 2, 4])
def test_tiles_of_the_hyper_encoder_give_what_the_whole_gives(rate: int, codec: Oscar) -> None:
    """Both ways, for every stride; with narrower borders they would not."""
    hyper = codec._hyper(rate)
    z = torch.randn(1, 4, 256, 72, generator=none_drawn())
    with torch.inference_mode():
        whole = hyper.backbone(z)
        border = reach(hyper.backbone)

        def tiled(around: int) -> Tensor:
            return run_exactly(hyper.backbone, z, tile=64, border=around, multiple=hyper.factor)

        assert relative(tiled(border), whole) < 1e-5  # the order of sums
        assert relative(tiled(border // 2), whole) > 1e-5
        indices = hyper.quantizer.encode(whole)
        assert torch.equal(hyper.encode(z, tile=64), indices)
        decoded = hyper.decode(indices, tile=10**6)
        assert relative(hyper.decode(indices, tile=64), decoded) < 1e-5


def test_tiles_do_not_change_what_is_written(codec: Oscar) -> None:
    """The norms are those of the whole picture, and so the latents before the U-Net are."""
    x = picture(128, 320, 3)
    whole = codec.encode(x, 4, generator=none_drawn())
    with torch.inference_mode():
        latents = codec.latents(whole)
        codec.use_tiles(128)  # 16 latents in the U-Net, 21 in the autoencoder, 64 here
        tiled = codec.encode(x, 4, generator=none_drawn())
        assert torch.equal(tiled.indices, whole.indices)
        torch.testing.assert_close(tiled.side, whole.side, rtol=2**-10, atol=0)  # one step of fp16
        assert relative(codec.latents(whole), latents) < 1e-5
    left = codec.encode(x[..., :128].contiguous(), 4, generator=none_drawn())
    assert (left.side < 0.9 * whole.side).all()  # those of a part are others
    result = codec.decode(whole, 128, 320)
    assert result.shape == x.shape
    assert result.isfinite().all()


def test_what_a_hostile_file_may_hold_gives_some_picture(codec: Oscar) -> None:
    for side in ([65504.0, -65504.0, 0.0, 6e-8], [0.0] * 4):
        indices = torch.zeros(1, 2, 2, dtype=torch.int32)
        result = codec.decode(Coded(rate=1, indices=indices, side=torch.tensor(side)), 64, 64)
        assert result.isfinite().all()
        assert 0 <= float(result.min()) <= float(result.max()) <= 1


def test_what_is_written_is_whole_numbers_and_fp16(codec: Oscar) -> None:
    coded = codec.encode(picture(64, 64, 1), 6, generator=none_drawn())
    assert coded.indices.dtype == torch.int32
    assert coded.side.dtype == torch.float32
    assert torch.equal(coded.side.half().float(), coded.side)
    # A bright flat picture of any size stays within fp16.
    assert align(torch.ones(1, 4, 2, 2), torch.full((1, 4), 65504.0)).isfinite().all()


def test_the_published_file_is_read_without_running_code_and_converts_to_the_same(
    weights: Path, coder: Coder, tmp_path: Path
) -> None:
    content = torch.load(weights, weights_only=True)
    assert isinstance(content["embeddings"], nn.Parameter)
    converted = tmp_path / "oscar.safetensors"
    convert(weights, converted)
    one, two = oscar_file.read(weights).content, oscar_file.read(converted).content
    for (name, a), (_, b) in zip(named_tensors(one), named_tensors(two), strict=True):
        assert torch.equal(a, b), name
    assert content_sha256(one) == content_sha256(two) == coder.weights_hash
    two["embeddings"] = two["embeddings"] + 1e-6
    assert content_sha256(two) != coder.weights_hash


FIRST = "0.backbone.0.weight"
LORA = "down_blocks.0.resnets.0.conv1.lora_A.default_encoder.weight"


OLDER = "0.backbone.4.attn.in_proj_weight"
"""Self-attention of the hyper-encoders of before 2025-10-19."""


def copied(content: dict[str, Any]) -> dict[str, Any]:
    """New dictionaries and lists, with the same tensors in them."""
    return {k: v.copy() if isinstance(v, dict | list) else v for k, v in content.items()}


def put(*keys: str, value: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Something else at the last of `keys`; a value that is None takes it out."""

    def edit(content: dict[str, Any]) -> dict[str, Any]:
        place = content
        for key in keys[:-1]:
            place = place[key]
        if value is None:
            del place[keys[-1]]
        else:
            place[keys[-1]] = value(place[keys[-1]]) if callable(value) else value
        return content

    return edit


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            put("hyper_encoders", OLDER, value=torch.ones(48, 16)),
            r"before 2025-10-19, whose two lowest rates .* write 0\.0313",
        ),
        (lambda c: {"hyper_enc": c["hyper_encoders"]}, "first stage"),
        (put("embeddings", value=None), "lacks 'embeddings': it is an altered or damaged"),
        (put("rank_vae", value=4), "also holds 'rank_vae'"),
        (put("hyper_encoders", value=torch.ones(3)), "has a Tensor in 'hyper_encoders'"),
        (put("rank_unet", value="4"), "has a str in 'rank_unet'"),
        (put("embeddings", value=torch.ones(5, 32)), r"context of \(5, 32\)"),
        (put("embeddings", value=torch.ones(77, 64)), "context of width 64"),
        (put("hyper_encoders", FIRST, value=None), f"has no tensor '{FIRST}'"),
        (put("hyper_encoders", "more", value=torch.ones(1)), "an unknown tensor 'more'"),
        (
            put("hyper_encoders", FIRST, value=torch.ones(16, 4, 1, 1)),
            r"\(16, 4, 1, 1\) in '0.backbone.0.weight'",
        ),
        (put("hyper_encoders", FIRST, value=3), "no tensor"),
        (put("hyper_encoders", value={"a": torch.ones(1)}), "of another kind"),
        (put("embeddings", value=torch.full((77, 32), float("nan"))), "NaN"),
        (put("state_dict_unet", LORA, value=None), "no factor A"),
        (put("state_dict_unet", "spare", value=torch.ones(2)), "unknown tensor 'spare'"),
        (put("rank_unet", value=8), "says rank 8"),
        (
            put("unet_lora_others_modules", value=["mid_block.none"]),
            "of the adapter 'default_others'",
        ),
        (
            put("state_dict_unet", "conv_in.base_layer.weight", value=lambda w: 1.01 * w),
            r"made with another base: its conv_in, which was not trained, differs .* 1\.0%",
        ),
        (lambda c: {"state_dict_vae": {}, **osediff(c)}, "OSEDiff's file: choose -n osediff"),
    ],
)
def test_a_file_that_does_not_fit_is_named_in_one_line(
    edit: Callable[[dict[str, Any]], dict[str, Any]],
    message: str,
    content: dict[str, Any],
    unet: nn.Module,
) -> None:
    edited = edit(copied(content))
    with pytest.raises(WeightsError, match=message) as caught:
        oscar_file.check(edited, Path("edited.pkl")).adapt(unet)
    assert "\n" not in str(caught.value)


def test_files_that_are_none_are_named(weights: Path, tmp_path: Path) -> None:
    for name, data, message in (
        ("pointer.pkl", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "LFS"),
        ("half.pkl", weights.read_bytes()[:9999], "damaged or cut short"),
        ("list.pkl", None, "holds a list"),
    ):
        torch.save([1], tmp_path / name) if data is None else (tmp_path / name).write_bytes(data)
        with pytest.raises(WeightsError, match=message) as caught:
            oscar_file.read(tmp_path / name)
        assert "\n" not in str(caught.value)


def osediff(content: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in content.items() if k not in ("hyper_encoders", "embeddings")}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prediction_type": "epsilon"}, "prediction_type epsilon.*needs v_prediction"),
        ({"prediction_type": None}, "says no prediction_type"),
    ],
)
def test_a_base_that_predicts_noise_is_refused(
    changes: dict[str, Any], message: str, weights: Path, base: Path, tmp_path: Path
) -> None:
    other = with_scheduler(base, tmp_path / "base", changes)
    with pytest.raises(WeightsError, match=message) as caught:
        Oscar.load(weights, base=other, device=CPU, dtype=torch.float32)
    assert "\n" not in str(caught.value)


def test_no_weights_name_the_command_that_gets_them(base: Path) -> None:
    with pytest.raises(WeightsError, match="restore models pull oscar"):
        Oscar.load(None, base=base, device=CPU, dtype=torch.float32)
