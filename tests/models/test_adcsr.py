"""AdcSR: the authors' numbers, its two files and what is wrong with others, tiles, colours."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from published import picture
from published_adcsr import FULL, half_decoder, layout, make_adcsr, network
from safetensors import safe_open
from torch import Tensor, nn

import restore
from restore.errors import OptionError, WeightsError
from restore.models.adcsr import AdcSR, match_statistics, padded
from restore.models.adcsr_net import build
from restore.models.adcsr_weights import convert, read_adcsr
from restore.nested_weights import convert as convert_nested
from restore.registry import method_class

GOLDEN = Path(__file__).parents[1] / "golden" / "adcsr.safetensors"
# Made by tests/models/published_adcsr.py; `odd` is mirrored to a multiple of 16 by both sides.
PICTURES = {
    "square": picture(32, 32, 1),
    "wide": picture(32, 64, 2),
    "large": picture(64, 80, 3),
    "odd": picture(29, 51, 4),
}
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def golden() -> tuple[dict[str, Tensor], dict[str, str]]:
    with safe_open(GOLDEN, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_adcsr(tmp_path_factory.mktemp("adcsr"))


@pytest.fixture(scope="module")
def method(weights: Path) -> AdcSR:
    return AdcSR.load(weights, device=CPU, dtype=torch.float32)


@pytest.fixture(scope="module")
def published() -> tuple[dict[str, Any], dict[str, Any]]:
    return network(), half_decoder()


@pytest.fixture
def edited(tmp_path: Path, published: tuple[dict[str, Any], dict[str, Any]]) -> Callable[..., Path]:
    """Writes the published files with some tensors changed; None removes one."""

    def edit(net: dict[str, Any] | None = None, half: dict[str, Any] | None = None) -> Path:
        state, rest = (
            {name: value for name, value in {**own, **(new or {})}.items() if value is not None}
            for own, new in ((published[0], net), (published[1]["state_dict"], half))
        )
        torch.save(state, tmp_path / "net_params_200.pkl")
        torch.save({**published[1], "state_dict": rest}, tmp_path / "halfDecoder.ckpt")
        return tmp_path / "net_params_200.pkl"

    return edit


def run(method: AdcSR, low: Tensor) -> Tensor:
    """`(1, 3, H, W)` to `(3, 4 H, 4 W)`."""
    with torch.inference_mode():
        return method.restore(low[:, None], generator=torch.Generator())[0, 0]


def load(path: Path) -> AdcSR:
    return AdcSR.load(path, device=CPU, dtype=torch.float32)


def test_the_registry_names_exactly_this_class() -> None:
    assert method_class("adcsr") is AdcSR


@pytest.mark.parametrize("name", PICTURES)
def test_results_are_those_of_the_authors_code(
    name: str, method: AdcSR, golden: tuple[dict[str, Tensor], dict[str, str]]
) -> None:
    numbers, facts = golden
    assert facts["commit"].startswith("d0b2871")
    result = run(method, PICTURES[name])
    assert result.shape == tuple(4 * side if side > 3 else 3 for side in PICTURES[name].shape[1:])
    part, theirs = result[:, ::5, ::5], numbers[name]
    # Seen: 1e-5, from convolutions of other versions that sum up in another order.
    assert float((part - theirs).abs().max() / theirs.abs().max()) < 1e-4
    levels = (part * 255).round() - numbers[f"{name}.png"].float()  # they cut off, we round
    assert float(levels.abs().max()) <= 1


def test_the_full_size_network_has_the_authors_layers(
    golden: tuple[dict[str, Tensor], dict[str, str]],
) -> None:
    """Names, shapes, number of parameters and groups of the normalisations, without making it."""
    facts = golden[1]

    def digest(lines: list[str]) -> str:
        return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()

    names = layout(FULL)
    assert len(names) == int(facts["full_names"])
    assert digest([f"{k} {v}" for k, v in names.items()]) == facts["full_layout_sha256"]
    net = build(FULL)
    assert sum(p.numel() for p in net.parameters()) == int(facts["full_parameters"]) == 456_073_683
    norms = [(k, m) for k, m in net.unet.named_modules() if isinstance(m, nn.GroupNorm)]
    lines = [f"{name} {norm.num_groups} {norm.eps}" for name, norm in norms]
    assert digest(lines) == facts["full_groups_sha256"]
    heads = [m.heads for m in net.unet.modules() if hasattr(m, "heads")]
    assert sorted(set(heads)) == [5, 10, 20]  # as in Stable Diffusion 2.1
    decoder = {f"{k} {tuple(v.shape)}" for k, v in net.decoder.state_dict().items()}
    more = {f"conv_in.weight {(256, 4, 3, 3)}", f"conv_in.bias {(256,)}"}
    assert digest(list(decoder | more)) == facts["full_decoder_layout_sha256"]


def test_every_part_of_the_weights_counts(
    method: AdcSR, edited: Callable[..., Path], published: tuple[dict[str, Any], dict[str, Any]]
) -> None:
    """Also that the middle block is the trained one, and which parts of the half decoder idle."""
    low = PICTURES["square"]
    before = run(method, low)
    middle = "resnets.0.conv1.weight"
    unet_middle = f"module.body.1.mid_block.{middle}"
    zero = torch.zeros_like(published[0][unet_middle])
    copies = {unet_middle: zero, f"module.body.1.body.4.{middle}": zero}
    attention = "module.body.1.{}.attentions.0.transformer_blocks.0.attn1.to_v.weight"
    for net, half in (
        (copies, {}),
        (
            {attention.format(place): torch.zeros(48, 48) for place in ("down_blocks.0", "body.0")},
            {},
        ),
        ({f"module.body.2.{middle}": torch.zeros(64, 64, 3, 3)}, {}),
        ({}, {"decoder.up_blocks.3.resnets.2.conv2.weight": torch.zeros(32, 32, 3, 3)}),
    ):
        assert float((run(load(edited(net, half)), low) - before).abs().max()) > 2 / 255
    unused = {"decoder.conv_in.bias": torch.ones(64), f"decoder.mid_block.{middle}": None}
    assert torch.equal(run(load(edited({}, unused)), low), before)


def test_one_file_made_of_both_gives_the_same(weights: Path, tmp_path: Path) -> None:
    low = PICTURES["square"]
    before = run(load(weights), low)
    alone = tmp_path / "alone"
    alone.mkdir()
    convert(weights, alone / "adcsr.safetensors")
    assert torch.equal(run(load(alone / "adcsr.safetensors"), low), before)
    # The network's file alone needs the half decoder still, here in the authors' subfolder.
    shutil.copy(weights, tmp_path / "net.pkl")
    convert(tmp_path / "net.pkl", tmp_path / "net.safetensors")
    convert_nested(tmp_path / "net.pkl", tmp_path / "nested.safetensors")
    with pytest.raises(WeightsError, match=r"halfDecoder\.ckpt is missing"):
        AdcSR.describe(tmp_path / "net.safetensors")
    (tmp_path / "pretrained").mkdir()
    shutil.copy(weights.parent / "halfDecoder.ckpt", tmp_path / "pretrained")
    for name in ("net.safetensors", "nested.safetensors", "net.pkl"):
        assert AdcSR.describe(tmp_path / name) is AdcSR.spec
        assert torch.equal(run(load(tmp_path / name), low), before)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"rank_unet": 4, "unet_lora_encoder_modules": []}, "OSEDiff's file: choose -n osediff"),
        ({"vae": {"a": torch.zeros(1)}, "unet": {"b": torch.zeros(1)}}, "AdcSR's teacher"),
        (half_decoder(), "the half decoder of AdcSR"),
        (
            {"body.0.weight": torch.zeros(1)},
            r"no file of a known model \(it holds 'body.0.weight'\)",
        ),
        ({}, r"no file of a known model \(it holds 'nothing'\)"),
    ],
)
def test_files_of_others_are_named(content: Any, said: str, weights: Path, tmp_path: Path) -> None:
    path = tmp_path / "osediff.pkl"
    torch.save(content, path)
    shutil.copy(weights.parent / "halfDecoder.ckpt", tmp_path)
    with pytest.raises(WeightsError, match=said) as caught:
        load(path)
    assert "\n" not in str(caught.value)


NORM = "conv_norm_out.weight"


@pytest.mark.parametrize(
    ("net", "half", "said"),
    [
        ({"module.body.1.conv_in.bias": None}, {}, "Missing key.*conv_in.bias"),
        ({"module.body.1.extra.weight": torch.zeros(1)}, {}, "Unexpected key.*extra.weight"),
        ({"module.body.3.weight": torch.zeros(1)}, {}, "holds 'body.3.weight'"),
        ({f"module.body.1.body.9.{NORM[14:]}": torch.zeros(48)}, {}, "differs from its original"),
        ({"module.body.1.body.12.weight": torch.zeros(1)}, {}, "has no original"),
        ({"module.body.1.conv_in.bias": torch.full((48,), torch.nan)}, {}, "holds NaN"),
        ({}, {"decoder.conv_out.bias": torch.full((3,), torch.inf)}, r"halfDecoder.*infinity"),
        ({}, {"decoder.conv_out.weight": None}, "holds no half decoder"),
        ({}, {f"decoder.{NORM}": None}, f"Missing key.*{NORM}"),
        ({}, {"decoder.more.weight": torch.zeros(1)}, r"Unexpected key.*more\.weight"),
        ({"module.body.2.resnets.0.conv1.weight": torch.zeros(64, 64, 1, 1)}, {}, "size mismatch"),
    ],
)
def test_damaged_files_are_refused(
    net: dict[str, Any], half: dict[str, Any], said: str, edited: Callable[..., Path]
) -> None:
    with pytest.raises(WeightsError, match=said) as caught:
        load(edited(net, half))
    assert "\n" not in str(caught.value)


def test_a_missing_or_unread_half_decoder_is_found_before_the_weights_are_read(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("the weights were read"))
    path = Path(shutil.copy(weights, tmp_path))
    with pytest.raises(WeightsError, match=r"halfDecoder\.ckpt is missing.*restore models pull"):
        AdcSR.describe(path)
    (tmp_path / "halfDecoder.ckpt").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(WeightsError, match="Git LFS pointer"):
        AdcSR.describe(path)
    assert AdcSR.describe(None) is AdcSR.spec  # of what was pulled


class Callback:
    """Stands for a class of Lightning; its state is not wanted."""

    def __init__(self) -> None:
        self.best = 0.5


class Harmful:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> Any:
        return (os.mkdir, (str(self.folder),))


def test_objects_of_lightning_are_passed_over_and_nothing_runs(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its older versions file callbacks under their classes, which this machine may not have."""
    path = Path(shutil.copy(weights, tmp_path))
    place = tmp_path / "halfDecoder.ckpt"
    module = ModuleType("pytorch_lightning.callbacks")
    module.Callback = Callback  # type: ignore[attr-defined]
    monkeypatch.setattr(Callback, "__module__", module.__name__)
    monkeypatch.setitem(sys.modules, "pytorch_lightning", ModuleType("pytorch_lightning"))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    torch.save({**half_decoder(), "callbacks": {Callback: Callback()}}, place)
    monkeypatch.delitem(sys.modules, module.__name__)
    monkeypatch.delitem(sys.modules, "pytorch_lightning")
    assert "conv_out.weight" in read_adcsr(path).decoder
    torch.save({**half_decoder(), "callbacks": {"a": Harmful(tmp_path / "harm")}}, place)
    with pytest.raises(WeightsError, match="pickle that holds code"):
        load(path)
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 20), (5, 3), (17, 33)])
def test_any_size_is_possible(height: int, width: int, method: AdcSR) -> None:
    result = run(method, picture(height, width, 5))
    assert result.shape == (3, 4 * height, 4 * width)
    assert bool(result.isfinite().all())


def test_padding_mirrors_the_picture() -> None:
    x = torch.arange(2 * 18 * 13.0).view(1, 2, 18, 13)
    assert torch.equal(padded(x), F.pad(x, (0, 3, 0, 14), mode="reflect"))
    assert padded(x[..., :3, :2])[0, 0, 0].tolist() == [0, 1] * 8  # more than there is to mirror
    assert torch.equal(padded(x[..., :1, :1]), x[..., :1, :1].expand(1, 2, 16, 16))


def test_colours_are_those_of_the_input_over_the_whole_picture(
    method: AdcSR, weights: Path
) -> None:
    """Also when the picture was made of tiles."""
    low = 0.4 + 0.2 * picture(32, 64, 6)  # narrow, so that nothing is cut off at 0 and 1
    tiled = load(weights)
    tiled.use_tiles(32)
    for result in (run(method, low), run(tiled, low)):
        torch.testing.assert_close(result.mean((1, 2)), low[0].mean((1, 2)), atol=2e-3, rtol=0)
        torch.testing.assert_close(result.std((1, 2)), low[0].std((1, 2)), atol=2e-3, rtol=0)
    flat = torch.full((1, 3, 16, 16), 0.25)
    assert torch.allclose(run(method, flat), torch.tensor(0.25), atol=1e-6)
    assert torch.allclose(match_statistics(flat, low), low.mean((2, 3), keepdim=True), atol=1e-6)


def test_tiles_do_not_show(weights: Path, method: AdcSR) -> None:
    tiled = load(weights)
    tiled.use_tiles(32)
    low = PICTURES["large"]
    with torch.inference_mode():
        features = method.net.unet(F.pixel_unshuffle(low * 2 - 1, 2))
        whole = method._decode(features)
        # The decoder's tiles have the statistics of the whole: only rounding differs.
        assert float((tiled._decode(features) - whole).abs().max() / whole.abs().max()) < 1e-5
    # The UNet's tiles do not, so the results differ; but no step is larger where tiles meet.
    result, single = run(tiled, low), run(method, low)
    assert not torch.allclose(result, single, atol=0.02)
    for axis in (1, 2):
        steps, usual = (x.diff(dim=axis).abs().mean((0, 3 - axis)) for x in (result, single))
        assert steps.max() / steps.median() < 1.2 * usual.max() / usual.median()


def test_published_tiling_runs_any_picture_whole(weights: Path) -> None:
    restorer = restore.load("adcsr", weights=str(weights), device="cpu", tiling="published")
    method = restorer.method
    assert isinstance(method, AdcSR)
    with pytest.raises(OptionError, match="--tiling published"):
        method.use_tiles(256)
    sizes = []
    method.net.unet.register_forward_pre_hook(lambda _, args: sizes.append(args[0].shape[-2:]))
    method._side = 32
    restorer.restore(PICTURES["large"])
    assert sizes == [(32, 40)]


def test_the_engine_hands_on_its_tile_and_options(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[str] = []
    monkeypatch.setattr(nn.Module, "compile", lambda self: compiled.append(type(self).__name__))
    settings: dict[str, Any] = {"weights": str(weights), "device": "cpu", "tile": 40}
    restorer = restore.load("adcsr", compile=True, **settings)
    restorer.tune()  # again, as for the next picture
    assert compiled == ["PrunedUNet", "Decoder"]
    sizes = []
    assert isinstance(restorer.method, AdcSR)
    restorer.method.net.unet.register_forward_pre_hook(lambda _, a: sizes.append(a[0].shape[-2:]))
    low = Image.new("RGB", (70, 33), (90, 60, 200))
    result = restorer.restore(low)
    assert result.size == (280, 132)
    assert set(sizes) == {(16, 16)}  # 40 goes down to 32 pixels, half of them after unshuffling
    with pytest.raises(OptionError, match="stands on no other model"):
        restore.load("adcsr", base="anywhere", **settings)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_formats_stay_near(dtype: torch.dtype, method: AdcSR, weights: Path) -> None:
    low = picture(16, 16, 7)
    half = AdcSR.load(weights, device=CPU, dtype=dtype)
    result = run(half, low)
    assert result.dtype == torch.float32
    # Random weights enlarge rounding errors; bf16 has 8 bits, fp16 has 11.
    error = float((result - run(method, low)).abs().mean())
    assert error < (0.02 if dtype == torch.bfloat16 else 0.003)
