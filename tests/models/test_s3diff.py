"""S3Diff: the authors' numbers, weights that follow the picture, and files that are refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner
from published import TINY, make_base, make_unet, make_vae, picture
from published_osediff import make_osediff
from published_s3diff import (
    make_all,
    make_s3diff,
    make_turbo,
)
from safetensors import safe_open
from torch import Tensor

import restore
from restore.cli.commands import app
from restore.color import wavelet
from restore.errors import WeightsError
from restore.models import s3diff, s3diff_weights
from restore.models.parts.vae_tiles import TilePlan, VaePlan
from restore.models.s3diff import S3Diff, enlarge
from restore.models.s3diff_weights import find_estimator
from restore.nested_weights import convert
from restore.registry import METHODS, method_class

GOLDEN = Path(__file__).parents[1] / "golden" / "s3diff.safetensors"
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    """What the authors' code printed; where and how is in the file's text."""
    with safe_open(GOLDEN, framework="pt") as file:
        assert "6a2e0a4" in file.metadata()["source"]
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """`s3diff.pkl` with `de_net.pth` beside it, and a tiny SD-Turbo."""
    return make_all(tmp_path_factory.mktemp("s3diff"))


@pytest.fixture(scope="module")
def loaded(files: tuple[Path, Path]) -> S3Diff:
    return load(*files)


@pytest.fixture
def method(loaded: S3Diff) -> S3Diff:
    """The same networks for every test, with the options of the beginning, but nothing drawn."""
    loaded.tune(tiling="exact", posterior="mode")
    loaded.use_tiles(loaded.spec.own_tiles)
    loaded.vae.published = type(loaded.vae)(loaded.vae.vae).published
    return loaded


def load(weights: Path, base: Path) -> S3Diff:
    return S3Diff.load(weights, base=base, device=CPU, dtype=torch.float32)


def run(method: S3Diff, pictures: Tensor, *, seed: int = 0) -> Tensor:
    """`(B, 3, H, W)` through the method."""
    with torch.inference_mode():
        generator = torch.Generator().manual_seed(seed)
        return method.restore(pictures[:, None], generator=generator)[:, 0]


def test_the_registry_names_exactly_this_class() -> None:
    assert METHODS["s3diff"] == "restore.models.s3diff:S3Diff"
    assert method_class("s3diff") is S3Diff


@pytest.mark.parametrize(
    ("name", "size", "seed", "steps"),
    [
        ("whole", (32, 32), 1, (5, 5)),
        ("odd", (37, 29), 2, (5, 5)),
        ("tiled", (61, 45), 4, (5, 5)),
        pytest.param("large", (497, 75), 3, (17, 5), marks=pytest.mark.slow),
    ],
)
def test_published_tiling_gives_the_numbers_of_the_authors_code(
    name: str,
    size: tuple[int, int],
    seed: int,
    steps: tuple[int, int],
    method: S3Diff,
    golden: dict[str, Tensor],
) -> None:
    """`tiled` has small tiles in both halves of the VAE and in the U-Net, `large` their own."""
    method.tune(tiling="published")
    if name == "tiled":
        method.tile = 16
        method.vae.published = VaePlan(
            encoder=TilePlan(tile=96, border=32, limit=96 + 64, exact=False),
            decoder=TilePlan(tile=8, border=11, limit=8 + 22, exact=False),
        )
    low = picture(*size, seed)
    result = run(method, low)
    assert result.shape[-2:] == (4 * size[0], 4 * size[1])

    def strided(x: Tensor) -> Tensor:
        return x[0, :, :: steps[0], :: steps[1]]

    got, want = strided(result) * 2 - 1, golden[name]
    # The same arithmetic in another order: seen 1e-5.
    assert (got - want).abs().max() / want.abs().max() < 1e-4
    # Their script writes 8 bits by truncation, before the colour fix and after it.
    large = F.interpolate(low, scale_factor=4, mode="bilinear", align_corners=False)
    result, large = ((x * 255).floor() / 255 for x in (result, large))
    fixed = (strided(wavelet(result, large)) * 255).floor().permute(1, 2, 0)
    assert (fixed - golden[f"{name}.wavelet"].float()).abs().max() <= 1
    with torch.inference_mode():
        degrees = method.estimator(low)[0]
    # Sums in another order.
    torch.testing.assert_close(degrees, golden[f"{name}.degrees"], atol=1e-6, rtol=1e-5)


class _Other:
    """A modulation that gives wrong matrices."""

    def __init__(self, own: Any, kind: str) -> None:
        self.own, self.kind = own, kind

    def matrices(self, degrees: Tensor) -> Tensor:
        m: Tensor = self.own.matrices(degrees)
        return m.mT if self.kind == "transposed" else m.roll(1, 0)


def test_each_part_counts(method: S3Diff, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the comparison with the authors' numbers would say nothing of it."""
    low = picture(24, 20, 5)
    first = run(method, low)

    def changes(what: str) -> None:
        assert (run(method, low) - first).abs().max() > 1 / 255, what

    for degrees in ((0.6, 0.9), (0.1, 0.03)):
        with monkeypatch.context() as patch:
            patch.setattr(method.estimator, "forward", lambda x, d=degrees: torch.tensor([d]))
            changes(f"degrees {degrees}")
    for net, own in method.modulation.items():
        for kind in ("transposed", "of other blocks"):
            with monkeypatch.context() as patch:
                patch.setitem(method.modulation, net, _Other(own, kind))
                changes(f"matrices of the {net} {kind}")
    with monkeypatch.context() as patch:
        patch.setattr(s3diff, "GUIDANCE", 1.0)
        changes("guidance")
    with monkeypatch.context() as patch:
        patch.setattr(method, "words", method.words.flip(0))
        changes("words")
    assert torch.equal(run(method, low), first)


def test_pictures_of_a_batch_have_weights_of_their_own(method: S3Diff) -> None:
    two = torch.cat([picture(20, 16, 1), picture(20, 16, 2) / 2])
    assert torch.equal(run(method, two), torch.cat([run(method, x) for x in two.split(1)]))


def test_the_draw_is_that_of_the_seed(method: S3Diff) -> None:
    method.tune(posterior="sample")
    low = picture(16, 16, 1)
    assert torch.equal(run(method, low, seed=1), run(method, low, seed=1))
    assert (run(method, low, seed=1) - run(method, low, seed=2)).abs().max() > 1 / 255


def test_both_sentences_in_one_pass_are_the_same(method: S3Diff) -> None:
    low = picture(16, 24, 1)
    first = run(method, low)
    method.together = True
    # A batch of two takes other kernels; the sampler enlarges what they differ in 15 times.
    torch.testing.assert_close(run(method, low), first, atol=1e-4, rtol=0)
    method.use_tiles(64)  # memory has run out
    assert not method.together


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (16, 3)])
def test_small_pictures_are_mirrored_until_they_fill(method: S3Diff, size: tuple[int, int]) -> None:
    result = run(method, picture(17, 17, 1)[..., : size[0], : size[1]])
    assert result.shape == (1, 3, 4 * size[0], 4 * size[1])
    assert torch.isfinite(result).all()


def test_enlarging_is_bilinear_and_mirrored_below_and_at_the_right() -> None:
    low = picture(21, 18, 1)
    large = F.interpolate(low, scale_factor=4, mode="bilinear", align_corners=False)
    assert torch.equal(enlarge(low), F.pad(large, (0, 128 - 72, 0, 128 - 84), mode="reflect"))


def test_a_converted_file_is_the_same_method(
    method: S3Diff, files: tuple[Path, Path], tmp_path: Path
) -> None:
    weights, base = files
    convert(weights, tmp_path / "s3diff.safetensors")
    convert(weights.with_name("de_net.pth"), tmp_path / "de_net.safetensors")
    low = picture(16, 16, 1)
    other = load(tmp_path / "s3diff.safetensors", base)
    other.tune(posterior="mode")
    # The same numbers at other addresses in memory, for which other kernels are taken.
    torch.testing.assert_close(run(other, low), run(method, low), atol=1e-4, rtol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_gives_nearly_the_same(
    method: S3Diff, files: tuple[Path, Path], dtype: torch.dtype
) -> None:
    low = picture(16, 16, 1)
    half = S3Diff.load(files[0], base=files[1], device=CPU, dtype=dtype)
    half.tune(posterior="mode")
    # eps has 8 bits in bf16 and 11 in fp16, and the sampler enlarges its error 15 times: seen 3e-3
    # and 3e-4 on average.
    error = (run(half, low) - run(method, low)).abs().mean()
    assert error < (1e-2 if dtype == torch.bfloat16 else 1e-3)


def test_a_frame_costs_the_merge_and_gives_the_weights_back(method: S3Diff) -> None:
    """Nothing of one frame of a clip stays for the next."""
    before = {name: tensor.clone() for name, tensor in method.unet.state_dict().items()}
    one, other = picture(16, 16, 1), picture(16, 16, 2) / 3
    first = run(method, one)
    run(method, other)
    assert torch.equal(run(method, one), first)
    for name, tensor in method.unet.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_memory_that_runs_out_makes_smaller_tiles(
    files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    restorer = restore.load(
        "s3diff", weights=str(files[0]), base=str(files[1]), device="cpu", posterior="mode"
    )
    method = restorer.method
    assert isinstance(method, S3Diff)
    decode, tiles = method.vae.decode, []

    def short(latents: Tensor) -> Tensor:
        tiles.append(method.tile)
        if method.tile > 24:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return decode(latents)

    monkeypatch.setattr(method.vae, "decode", short)
    assert restorer.restore(picture(64, 80, 1)).shape == (1, 3, 256, 320)
    assert tiles == sorted(tiles, reverse=True)
    assert len(tiles) > 1


def test_the_command_restores_a_picture_and_names_what_is_missing(
    files: tuple[Path, Path],
    make_picture: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RESTORE_CACHE", str(tmp_path / "cache"))
    weights, base = files
    source, target = tmp_path / "in.png", tmp_path / "out.png"
    cv2.imwrite(str(source), make_picture(23, 18))
    line = ["image", str(source), "-o", str(target), "-n", "s3diff", "--base", str(base)]
    line += ["--device", "cpu", "--weights"]
    done = CliRunner().invoke(app, [*line, str(weights)])
    assert done.exit_code == 0, done.output
    result = cv2.imread(str(target))
    assert result is not None
    assert result.shape == (72, 92, 3)
    assert np.std(result) > 10
    alone = tmp_path / "alone" / "s3diff.pkl"
    alone.parent.mkdir()
    shutil.copy(weights, alone)
    target.unlink()
    done = CliRunner().invoke(app, [*line, str(alone)])
    assert done.exit_code != 0
    said = " ".join(done.output.split())
    assert "de_net.pth is missing" in said
    assert "restore models pull s3diff-de-net" in said
    assert not target.exists()


FIRST = "down_blocks.0.resnets.0.conv1.lora_A.default.weight"


def _spoil(content: dict[str, Any], part: str, name: str) -> None:
    content[part][name] = content[part][name].clone().fill_(float("nan"))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda c: c.pop("w"), "lacks 'w': it is an altered or damaged file of this model"),
        (lambda c: c.update(more=3), "also holds 'more'"),
        (lambda c: c["state_dict_unet"].pop("conv_in.bias"), "lacks the U-Net's 'conv_in'"),
        (lambda c: c["state_dict_unet"].pop(FIRST), "no factor A"),
        (lambda c: c["state_dict_unet"].update(spare=torch.ones(2)), "unknown tensor 'spare'"),
        (lambda c: c["state_dict_vae"].clear(), "0 adapters"),
        (lambda c: _spoil(c, "state_dict_unet", FIRST), "NaN"),
        (lambda c: _spoil(c, "state_dict_vae_fuse_mlp", "weight"), "NaN"),
        (lambda c: c.update(rank_vae=8), "of the vae in .* 6 of rank 8"),
        (lambda c: c.update(unet_lora_target_modules=["to_q"]), "unlisted LoRA for"),
        (lambda c: c.update(vae_lora_target_modules="(("), "no regular expression"),
        (lambda c: c.update(state_dict_vae=[1]), "no named tensors under 'state_dict_vae'"),
        (lambda c: c.update(w=c["w"][:7]), "modulation of the .* takes"),
        (lambda c: c["state_dict_vae_de_mlp"].pop("0.bias"), "modulation of the vae"),
        (lambda c: c["state_dict_unet"]["conv_in.weight"].mul_(-1), "trained on another base"),
    ],
)
def test_a_file_that_does_not_fit_is_named_in_one_line(
    edit: Callable[[dict[str, Any]], Any], message: str, files: tuple[Path, Path], tmp_path: Path
) -> None:
    weights, base = files
    content = torch.load(weights, weights_only=True)
    edit(content)
    torch.save(content, tmp_path / "s3diff.pkl")
    shutil.copy(weights.with_name("de_net.pth"), tmp_path)
    with pytest.raises(WeightsError, match=message) as caught:
        load(tmp_path / "s3diff.pkl", base)
    assert "\n" not in str(caught.value)


def test_files_of_other_methods_are_named(files: tuple[Path, Path], tmp_path: Path) -> None:
    weights, base = files
    estimator = weights.with_name("de_net.pth")
    shutil.copy(estimator, tmp_path)
    make_osediff(tmp_path / "osediff.pkl", make_unet(), make_vae(), seed=1)
    with pytest.raises(WeightsError, match="OSEDiff's file: choose -n osediff"):
        load(tmp_path / "osediff.pkl", base)
    with pytest.raises(WeightsError, match="the degradation estimator"):
        load(tmp_path / "de_net.pth", base)


def test_a_pulled_estimator_is_found(
    files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The zoo keeps it in a folder of its own; one beside the weights goes before it."""
    pulled = tmp_path / "zoo" / "de_net.safetensors"
    monkeypatch.setattr(s3diff_weights, "locate_weights", {"s3diff-de-net": pulled}.__getitem__)
    assert find_estimator(tmp_path / "s3diff.safetensors") == pulled
    assert find_estimator(files[0]) == files[0].with_name("de_net.pth")


def test_another_estimator_is_refused(files: tuple[Path, Path], tmp_path: Path) -> None:
    weights, base = files
    shutil.copy(weights, tmp_path)
    state = torch.load(weights.with_name("de_net.pth"), weights_only=True)
    edits: dict[str, Callable[[dict[str, Tensor]], Any]] = {
        "lacks 'body.1.8.conv2.bias'": lambda s: s.pop("body.1.8.conv2.bias"),
        "unknown or differently shaped 'spare'": lambda s: s.update(spare=torch.ones(1)),
        "unknown or differently shaped 'conv_first.0.bias'": lambda s: s.update(
            {"conv_first.0.bias": torch.ones(3)}
        ),
        "holds NaN": lambda s: s.update({"conv_first.0.bias": torch.full((64,), float("nan"))}),
    }
    for message, edit in edits.items():
        changed = dict(state)
        edit(changed)
        torch.save(changed, tmp_path / "de_net.pth")
        with pytest.raises(WeightsError, match=message):
            load(tmp_path / "s3diff.pkl", base)
    (tmp_path / "de_net.pth").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(WeightsError, match="LFS pointer"):
        S3Diff.describe(tmp_path / "s3diff.pkl")


def test_another_base_is_refused(files: tuple[Path, Path], tmp_path: Path) -> None:
    """SD 2.1 for 768 pixels predicts a velocity; SD 2.1 base is no SD-Turbo; one may be wider."""
    weights, _ = files
    velocity = replace(TINY, scheduler={"prediction_type": "v_prediction"})
    with pytest.raises(WeightsError, match=r"prediction_type v_prediction.*needs epsilon"):
        load(weights, make_base(tmp_path / "v", velocity))
    leading = replace(TINY, scheduler={"timestep_spacing": "leading"})
    with pytest.raises(WeightsError, match=r"timestep_spacing leading.*needs trailing"):
        load(weights, make_base(tmp_path / "sd21", leading))
    with pytest.raises(WeightsError, match="makes a weight of"):
        load(weights, make_turbo(tmp_path / "wide", replace(TINY, text=64)))


def test_another_seed_makes_another_file(tmp_path: Path) -> None:
    """What the golden numbers rest on: the maker gives the same for the same, and only then."""

    def first(seed: int) -> Tensor:
        path = make_s3diff(tmp_path / "x.pkl", make_unet(), make_vae(), seed=seed)
        return torch.load(path, weights_only=True)["state_dict_unet"][FIRST]

    a, b, c = first(1), first(1), first(2)
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
