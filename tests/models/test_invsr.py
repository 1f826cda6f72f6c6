"""InvSR: the authors' numbers, patches that do not show, and files and bases that are refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from published import picture
from published_invsr import FULL_PREDICTOR, make_invsr, make_turbo
from safetensors.torch import load_file
from torch import Tensor

import restore
from restore.errors import OptionError, WeightsError
from restore.models import invsr
from restore.models.invsr import InvSR
from restore.models.parts.noise_predictor import NoisePredictor
from restore.models.parts.patches import pad, shares, starts
from restore.nested_weights import convert

GOLDEN = Path(__file__).parents[1] / "golden" / "invsr.safetensors"
SEED = 12345
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_turbo(tmp_path_factory.mktemp("turbo"))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_invsr(tmp_path_factory.mktemp("invsr") / "noise_predictor.pth", seed=5)


@pytest.fixture(scope="module")
def loaded(base: Path, weights: Path) -> InvSR:
    return InvSR.load(weights, base=base, device=CPU, dtype=torch.float32)


@pytest.fixture
def method(loaded: InvSR) -> InvSR:
    """The same networks for every test, with the options of the beginning and small patches."""
    loaded.tune(tiling="exact", posterior="sample", steps=1, prompt=None, compile=False)
    loaded.use_tiles(32)
    loaded.batch = 1
    return loaded


def run(method: InvSR, x: Tensor, *, seed: int = SEED) -> Tensor:
    """`(1, 3, H, W)` through the method."""
    with torch.inference_mode():
        return method.restore(x[:, None], generator=torch.Generator().manual_seed(seed))[:, 0]


@pytest.mark.parametrize(
    ("name", "size", "seed", "side", "steps"),
    [
        ("small", (24, 20), 1, 32, 1),
        ("tiles", (48, 96), 2, 32, 1),
        ("odd", (45, 39), 3, 32, 5),
        ("vae", (48, 64), 4, 48, 2),
    ],
)
def test_published_tiling_gives_the_numbers_of_the_authors_code(
    method: InvSR,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    size: tuple[int, int],
    seed: int,
    side: int,
    steps: int,
) -> None:
    # small: padded to one patch; tiles: 10 patches, so two groups of draws; odd: 5 steps;
    # vae: with latent_tiled_size 16 and sample_tiled_size 128, so that a patch needs VAE tiles.
    if name == "vae":
        monkeypatch.setattr(invsr, "LATENT_TILE", 16)
        monkeypatch.setattr(invsr, "PIXEL_TILE", 128)
    method.tune(tiling="published", steps=steps)
    method.use_tiles(side)
    method.batch = 3
    result = run(method, picture(*size, seed))[0, :, ::3, ::3]
    expected = load_file(GOLDEN)[name]
    # Measured: 2e-6. The same numbers in another order of summation.
    assert float((result - expected).abs().max()) <= 1e-4 * float(expected.abs().max())
    assert float(((result * 255).round() - (expected * 255).round()).abs().max()) <= 1


def test_one_patch_is_the_same_in_both_tilings(method: InvSR) -> None:
    x = picture(32, 32, 6)
    exact = run(method, x)
    method.tune(tiling="published")
    torch.testing.assert_close(run(method, x), exact, atol=1e-5, rtol=0)


def test_the_same_seed_repeats_and_another_one_differs(method: InvSR) -> None:
    x = picture(24, 30, 7)
    first = run(method, x)
    assert torch.equal(run(method, x), first)
    assert float((run(method, x, seed=1) - first).abs().mean()) > 0.01


def test_the_mode_draws_nothing(method: InvSR) -> None:
    method.tune(posterior="mode")
    x = picture(24, 30, 7)
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    method.restore(x[:, None], generator=generator)
    assert torch.equal(generator.get_state(), before)
    assert torch.equal(run(method, x, seed=1), run(method, x, seed=2))


@pytest.mark.parametrize("options", [{"steps": 3}, {"prompt": "a cat"}, {"posterior": "mode"}])
def test_each_option_changes_the_result(method: InvSR, options: dict[str, Any]) -> None:
    x = picture(32, 32, 8)
    plain = run(method, x)
    method.tune(**options)
    assert float((run(method, x) - plain).abs().mean()) > 0.002  # half a grey level on average


def test_what_is_not_tuned_stays(method: InvSR) -> None:
    x = picture(32, 32, 8)
    method.tune(posterior="mode")
    first = run(method, x)
    method.tune(steps=1)
    assert torch.equal(run(method, x), first)


def test_compile_wraps_the_network_and_can_be_taken_back(
    method: InvSR, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def compiled(net: Any) -> Any:
        return lambda *args, **kwargs: calls.append(1) or net(*args, **kwargs)

    monkeypatch.setattr(torch, "compile", compiled)
    x = picture(32, 32, 8)
    plain = run(method, x)
    method.tune(compile=True, steps=1)
    assert torch.equal(run(method, x), plain)
    assert len(calls) == 1
    method.tune(compile=False)
    run(method, x)
    assert len(calls) == 1


@pytest.mark.parametrize("steps", [0, 6, 9])
def test_steps_without_time_steps_are_refused(method: InvSR, steps: int) -> None:
    with pytest.raises(OptionError, match="give 1 to 5"):
        method.tune(steps=steps)


def test_batches_do_not_show(method: InvSR) -> None:
    x = picture(32, 48, 9)
    alone = run(method, x)
    method.batch = 2
    # Batched convolutions may sum in another order.
    torch.testing.assert_close(run(method, x), alone, atol=1e-5, rtol=0)


def test_out_of_memory_makes_batches_smaller_not_results_worse(
    method: InvSR, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = picture(32, 48, 9)
    alone = run(method, x)
    enlarge, sizes = InvSR._enlarge, []

    def scarce(self: InvSR, patches: Tensor, draws: invsr.Draws) -> Tensor:
        sizes.append(len(patches))
        if len(patches) > 1:
            raise torch.OutOfMemoryError("out of memory")
        return enlarge(self, patches, draws)

    monkeypatch.setattr(InvSR, "_enlarge", scarce)
    method.batch = 2
    torch.testing.assert_close(run(method, x), alone, atol=1e-5, rtol=0)
    assert sizes == [2, 1, 1]


def test_out_of_memory_for_one_patch_goes_to_the_engine(
    method: InvSR, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(*_: Any) -> Tensor:
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(InvSR, "_enlarge", none_left)
    with pytest.raises(torch.OutOfMemoryError):
        run(method, picture(32, 32, 1))


def test_patches_of_the_exact_tiling_agree_where_they_meet(
    method: InvSR, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Two patches of the same flat picture: only the noise can tell them apart.
    results: list[Tensor] = []
    enlarge = InvSR._enlarge

    def kept(self: InvSR, patches: Tensor, draws: invsr.Draws) -> Tensor:
        results.append(enlarge(self, patches, draws))
        return results[-1]

    monkeypatch.setattr(InvSR, "_enlarge", kept)
    distance = {}
    for tiling in ("exact", "published"):
        results.clear()
        method.tune(tiling=tiling)
        run(method, torch.full((1, 3, 32, 48), 0.5))
        left, right = results[0][..., 64:], results[1][..., :64]
        distance[tiling] = float((left - right).abs().mean())
    assert distance["exact"] < 0.7 * distance["published"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_near_single(
    base: Path, weights: Path, method: InvSR, dtype: torch.dtype
) -> None:
    x = picture(24, 24, 10)
    half = InvSR.load(weights, base=base, device=CPU, dtype=dtype)
    for one in (half, method):
        one.tune(tiling="published")
        one.use_tiles(32)
    result = run(half, x)
    assert result.dtype == torch.float32
    # 11 and 8 bits through some 100 layers: below one grey level, and a few, on average.
    distance = float((result - run(method, x)).abs().mean())
    assert distance < (0.002 if dtype == torch.float16 else 0.02)


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (2, 33), (17, 31), (32, 32), (33, 50)])
def test_any_size_is_padded_to_patches_and_found_again(size: tuple[int, int]) -> None:
    x = torch.rand(1, 3, *size)
    padded, (top, left) = pad(x, 32, multiple=16)
    height, width = padded.shape[-2:]
    assert min(height, width) >= 32
    assert height % 16 == width % 16 == 0
    assert torch.equal(padded[..., top : top + size[0], left : left + size[1]], x)


def test_the_result_of_a_padded_picture_is_cut_out_in_place(method: InvSR) -> None:
    def nearest(patches: Tensor, draws: invsr.Draws) -> Tensor:
        return torch.nn.functional.interpolate(patches, scale_factor=4.0)

    x = picture(17, 45, 11)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(method, "_enlarge", nearest)
        result = run(method, x)
    torch.testing.assert_close(result, torch.nn.functional.interpolate(x, scale_factor=4.0))


@pytest.mark.parametrize("tiling", ["exact", "published"])
@pytest.mark.parametrize("length", [32, 48, 64, 80, 112])
def test_shares_of_patches_add_up_to_one(length: int, tiling: invsr.Tiling) -> None:
    places = starts(length, 32)
    total = torch.zeros(4 * length, dtype=torch.float64)
    for place, share in zip(
        places, shares(places, 32, length, scale=4, tiling=tiling), strict=True
    ):
        total[4 * place : 4 * place + 128] += share
    torch.testing.assert_close(total, torch.ones_like(total))


def test_published_weights_are_those_of_opencv() -> None:
    # Two patches: share / (1 - share) in the overlap is the quotient of the two kernels' values.
    first, second = shares([0, 16], 32, 48, scale=4, tiling="published")
    kernel = cv2.getGaussianKernel(129, 0.3 * (127 * 0.5 - 1) + 0.8, cv2.CV_64F)[1:, 0]
    expected = kernel[64:] / (kernel[64:] + kernel[:64])
    np.testing.assert_allclose(first[64:], expected, rtol=1e-9)
    np.testing.assert_allclose(second[:64], 1 - expected, rtol=1e-9)


def test_exact_weights_are_symmetric() -> None:
    first, second = shares([0, 16], 32, 48, scale=4, tiling="exact")
    torch.testing.assert_close(first, second.flip(0))


def test_published_network_has_the_parameters_of_the_paper() -> None:
    with torch.device("meta"):
        net = NoisePredictor(FULL_PREDICTOR)
    assert round(sum(p.numel() for p in net.parameters()) / 1e6, 2) == 33.84  # "33.84 M"


def state_of(weights: Path) -> dict[str, Tensor]:
    state: dict[str, Tensor] = torch.load(weights, weights_only=True)
    return state


def test_wrapped_and_converted_files_are_the_same_network(
    base: Path, weights: Path, tmp_path: Path, method: InvSR
) -> None:
    x = picture(32, 32, 8)
    expected = run(method, x)
    state = state_of(weights)
    wrapped = tmp_path / "wrapped.pth"
    torch.save({"state_dict": {f"module._orig_mod.{k}": v for k, v in state.items()}}, wrapped)
    converted = tmp_path / "converted.safetensors"
    convert(wrapped, converted)
    for file in (wrapped, converted):
        other = InvSR.load(file, base=base, device=CPU, dtype=torch.float32)
        other.use_tiles(32)
        # Not to the bit: how sums are ordered depends on where in memory the weights lie.
        torch.testing.assert_close(run(other, x), expected, atol=1e-5, rtol=0)


def spoiled(state: dict[str, Tensor], how: str) -> dict[str, Any]:
    name = "encoder.mid_block.resnets.0.conv1.weight"
    if how == "missing":
        del state[name]
    elif how == "extra":
        state["encoder.more.weight"] = torch.ones(1)
    elif how == "nan":
        state[name][0, 0, 0, 0] = float("nan")
    elif how == "shape":
        state[name] = state[name][:, :-1]
    elif how == "sixteen":
        state["encoder.conv_out.weight"] = torch.ones(32, 64, 3, 3)
    elif how == "osediff":
        return {"rank_unet": 4, "state_dict_unet": state, "state_dict_vae": {}}
    elif how == "other":
        return {"conv_in.weight": torch.ones(3, 3)}
    return state


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("missing", "does not fit the noise predictor"),
        ("extra", "does not fit the noise predictor"),
        ("shape", "does not fit the noise predictor"),
        ("nan", "NaN"),
        ("sixteen", "noise of 16 channels"),
        ("osediff", "no file of a known model"),
        ("other", "another model"),
    ],
)
def test_other_and_damaged_weights_are_refused_in_one_line(
    base: Path, weights: Path, tmp_path: Path, how: str, said: str
) -> None:
    file = tmp_path / "file.pth"
    torch.save(spoiled(state_of(weights), how), file)
    with pytest.raises(WeightsError, match=said) as caught:
        InvSR.load(file, base=base, device=CPU, dtype=torch.float32)
    assert "\n" not in str(caught.value)


def test_no_weights_name_the_command_that_gets_them(base: Path) -> None:
    with pytest.raises(WeightsError, match="restore models pull invsr"):
        InvSR.load(None, base=base, device=CPU, dtype=torch.float32)


@pytest.mark.parametrize(
    ("part", "changes", "said"),
    [
        ("scheduler", {"prediction_type": "v_prediction"}, "v_prediction"),
        # SD-2.1-base: the same networks; its scheduler is another, or says no spacing.
        ("scheduler", {"_class_name": "PNDMScheduler", "timestep_spacing": None}, "PNDMScheduler"),
        ("scheduler", {"timestep_spacing": None}, "trailing"),
        ("scheduler", {"timestep_spacing": "leading"}, "leading"),
        ("unet", {"addition_embed_type": "text_time"}, "text_time"),  # SDXL-Turbo
        ("vae", {"latent_channels": 16}, "latent_channels 16"),
    ],
)
def test_other_bases_are_refused_in_one_line(
    base: Path, weights: Path, tmp_path: Path, part: str, changes: dict[str, Any], said: str
) -> None:
    other = tmp_path / "base"
    shutil.copytree(base, other)
    path = other / part / ("scheduler_config.json" if part == "scheduler" else "config.json")
    config = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({k: v for k, v in config.items() if v is not None}))
    with pytest.raises(WeightsError, match=said) as caught:
        InvSR.load(weights, base=other, device=CPU, dtype=torch.float32)
    assert "\n" not in str(caught.value)


def test_the_engine_restores_with_it(base: Path, weights: Path) -> None:
    restorer = restore.load(
        "invsr", weights=str(weights), base=str(base), device="cpu", tile=32, steps=2, seed=3
    )
    array = (picture(21, 30, 12)[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    result = restorer.restore(array)
    assert result.shape == (84, 120, 3)
    assert result.dtype == np.uint8
    assert np.array_equal(restorer.restore(array), result)
    assert restorer.settings()["steps"] == 2
