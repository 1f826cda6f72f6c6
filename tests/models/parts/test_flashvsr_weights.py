"""FlashVSR's folder: read as published, as converted and as pulled; refused in one line if bad."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from published_flashvsr import (
    FULL,
    TINY,
    dit_shapes,
    make_decoder,
    make_dit,
    make_folder,
    make_lq,
    make_vae,
)
from safetensors.torch import save_file
from torch import Tensor

from restore.cli.commands import app
from restore.errors import WeightsError
from restore.models.parts.flashvsr import weights as flash_weights
from restore.models.parts.flashvsr.dit import DitShape, FlashDiT
from restore.models.parts.flashvsr.weights import FlashFolder, check_files, read_decoder
from restore.models.parts.flashvsr.weights import dit_shapes as expected_shapes

DIT = "diffusion_pytorch_model_streaming_dmd.safetensors"
LQ = "LQ_proj_in.ckpt"
DECODER = "TCDecoder.ckpt"
VAE = "Wan2.1_VAE.pth"
PROMPT = "posi_prompt.pth"
PAGE = "https://huggingface.co/JunhaoZhuang/FlashVSR"
Change = Callable[[Path], object]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("flashvsr"))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing is pulled."""
    monkeypatch.setenv("RESTORE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def folder(published: Path, tmp_path: Path) -> Path:
    """A folder of this test."""
    return Path(shutil.copytree(published, tmp_path / "given"))


def same(one: FlashFolder, other: FlashFolder) -> bool:
    """Whether both hold the same tensors under the same names."""
    states = [{**f.dit, **f.lq, **f.decoder, "": f.prompt} for f in (one, other)]
    assert states[0].keys() == states[1].keys()
    return one.shape == other.shape and all(
        torch.equal(value, states[1][name]) for name, value in states[0].items()
    )


def test_the_published_folder_gives_every_tensor(published: Path) -> None:
    tiny, full = (FlashFolder.read(published, decoder=d) for d in ("tiny", "full"))  # type: ignore[arg-type]
    assert tiny.shape == DitShape(dim=64, heads=2, layers=2, ffn=128, text=48, freq=256)
    assert same(tiny, dataclasses.replace(full, decoder=tiny.decoder))
    assert {name: tuple(value.shape) for name, value in tiny.dit.items()} == dit_shapes(TINY)
    assert tiny.lq["conv1.weight"].dtype == torch.bfloat16  # as published
    assert tiny.decoder.keys() == make_decoder().keys()
    assert tiny.prompt.shape == (1, TINY.words, TINY.text)
    assert torch.equal(full.decoder["decoder.conv_in.weight"], make_vae()["decoder.conv1.weight"])


def test_names_are_those_of_the_network() -> None:
    """At full size: 825 tensors, as Wan 2.1's transformer of 1.3 billion has them."""
    shape = DitShape(**{key: getattr(FULL, key) for key in ("dim", "heads", "layers", "ffn")})
    with torch.device("meta"):
        net = FlashDiT(shape)
    shapes = expected_shapes(shape)
    assert {name: tuple(value.shape) for name, value in net.state_dict().items()} == shapes
    assert shapes == dit_shapes(FULL)
    assert len(shapes) == 825


def test_heads_of_128_channels_need_no_configuration(tmp_path: Path) -> None:
    size = dataclasses.replace(TINY, dim=256, heads=2, ffn=16, layers=1)
    folder = make_folder(tmp_path / "wide", size, full=False)
    (folder / "config.json").write_text('{"framework": "PyTorch"}')  # as on the hub
    assert FlashFolder.read(folder).shape.heads == 2


def test_a_decoder_that_was_not_asked_for_may_be_missing(folder: Path) -> None:
    (folder / VAE).unlink()
    alone = read_decoder(folder, decoder="tiny")
    assert alone.keys() == FlashFolder.read(folder).decoder.keys()
    shutil.move(folder / DECODER, folder.with_name("kept"))
    with pytest.raises(WeightsError, match=r"restore models pull wan2\.1-vae"):
        FlashFolder.read(folder, decoder="full")


def test_other_tensors_in_the_decoders_file_are_left_out(folder: Path) -> None:
    """The published file is larger than its decoder, and its authors' loader does the same."""
    torch.save({**make_decoder(), "encoder.0.weight": torch.zeros(2)}, folder / DECODER)
    assert FlashFolder.read(folder).decoder.keys() == make_decoder().keys()


def convert(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["models", "convert", *arguments])


def test_a_converted_folder_is_the_same(published: Path, tmp_path: Path) -> None:
    target = tmp_path / "converted"
    assert convert(str(published), "-o", str(target)).exit_code == 0
    assert {file.suffix for file in target.iterdir()} == {".safetensors", ".json"}
    for decoder in ("tiny", "full"):
        expected = FlashFolder.read(published, decoder=decoder)  # type: ignore[arg-type]
        assert same(FlashFolder.read(target, decoder=decoder), expected)  # type: ignore[arg-type]
    result = convert(str(published), "-o", str(target))
    assert result.exit_code == 1
    assert "is there; give --overwrite" in result.stderr
    assert convert(str(published), "-o", str(target), "--overwrite").exit_code == 0


def test_a_folder_can_be_converted_in_place(folder: Path) -> None:
    expected = FlashFolder.read(folder)
    result = convert(str(folder), "--json")
    names = [Path(json.loads(line)["path"]).name for line in result.stdout.splitlines()]
    stems = ("LQ_proj_in", "TCDecoder", "Wan2.1_VAE", "posi_prompt")
    assert names == [f"{stem}.safetensors" for stem in stems]
    for file in (LQ, DECODER, VAE, PROMPT):
        (folder / file).unlink()
    assert same(FlashFolder.read(folder), expected)
    result = convert(str(folder))
    assert result.exit_code == 1
    assert "holds nothing to convert" in result.stderr


def remove(name: str) -> Change:
    return lambda folder: (folder / name).unlink()


def write(name: str, content: bytes) -> Change:
    return lambda folder: (folder / name).write_bytes(content)


def store(name: str, content: Any) -> Change:
    def change(folder: Path) -> None:
        value = content()
        save = save_file if name.endswith(".safetensors") else torch.save
        save(value, folder / name)  # type: ignore[operator]

    return change


def without(state: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    del state[name]
    return state


def with_nan(state: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    state[name].view(-1)[1] = float("nan")
    return state


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"
BAD: dict[str, tuple[Change, str]] = {
    "no transformer": (remove(DIT), rf"{DIT} is missing in .*: get it from {PAGE}"),
    "no projection": (remove(LQ), rf"{LQ} is missing in .*: get it from {PAGE}"),
    "no decoder": (remove(DECODER), rf"{DECODER} is missing in .*: get it from {PAGE}"),
    "no prompt": (remove(PROMPT), rf"{PROMPT} is missing in .*OpenImagingLab/FlashVSR/ccac0ac"),
    "a pointer": (write(LQ, POINTER), "Git LFS pointer"),
    "a web page": (write(DECODER, b"<html>"), "is a web page"),
    "cut short": (write(DIT, b"\x10\0\0\0\0\0\0\0{"), "damaged or cut short"),
    "code": (lambda f: torch.save({"a": shutil.rmtree}, f / LQ), "refused"),
    "names of numbers": (store(LQ, lambda: {"a": 1}), "named tensors alone"),
    "lacks a tensor": (
        store(DIT, lambda: without(make_dit(), "blocks.1.ffn.2.bias")),
        r"lacks 'blocks\.1\.ffn\.2\.bias': it is a transformer .*, but altered or damaged",
    ),
    "lacks the patches": (
        store(DIT, lambda: without(make_dit(), "patch_embedding.weight")),
        r"lacks 'patch_embedding\.weight'",
    ),
    "holds more": (
        store(DIT, lambda: {**make_dit(), "blocks.0.vace.weight": torch.zeros(1)}),
        r"also holds 'blocks\.0\.vace\.weight'",
    ),
    "other shape": (
        store(DIT, lambda: {**make_dit(), "head.modulation": torch.zeros(1, 2, 32)}),
        r"'head\.modulation' of \(1, 2, 32\) in place of \(1, 2, 64\)",
    ),
    "NaN in the transformer": (
        store(DIT, lambda: with_nan(make_dit(), "blocks.0.modulation")),
        r"'blocks\.0\.modulation' holds NaN",
    ),
    "NaN in the decoder": (
        store(DECODER, lambda: with_nan(make_decoder(), "decoder.24.weight")),
        r"'decoder\.24\.weight' holds NaN",
    ),
    "NaN in the prompt": (
        store(PROMPT, lambda: torch.full((1, 7, TINY.text), float("nan"))),
        r"holds NaN",
    ),
    "projection of another size": (
        store(LQ, lambda: make_lq(dataclasses.replace(TINY, dim=96))),
        r"'linear_layers\.0\.weight' of \(96, 32\) in place of \(64, 32\)",
    ),
    "the VAE as a decoder": (
        store(DECODER, make_vae),
        r"it is the VAE of Wan 2\.1.*get the file of that name from",
    ),
    "the decoder as a projection": (
        store(LQ, make_decoder),
        r"lacks 'conv1\.weight': it is the tiny decoder of FlashVSR's folder;",
    ),
    "another model": (
        store(DECODER, lambda: {"state_embeddings": torch.zeros(1)}),
        r"S3Diff's file: choose -n s3diff",
    ),
    "prompt of another size": (
        store(PROMPT, lambda: torch.zeros(1, 7, 32)),
        r"of \(1, 7, 32\) in place of an embedding of \(1, n, 48\)",
    ),
    "prompt with a name": (
        store(PROMPT, lambda: {"prompt": torch.zeros(1, 7, 48)}),
        "one tensor alone belongs there",
    ),
    "heads unknown": (remove("config.json"), "num_heads in a config.json"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_folder_is_refused_in_one_line(case: str, folder: Path) -> None:
    change, words = BAD[case]
    change(folder)
    with pytest.raises(WeightsError, match=words) as caught:
        FlashFolder.read(folder)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)


def test_a_bad_vae_is_refused(folder: Path) -> None:
    for content, words in (
        (make_decoder(), r"lacks 'decoder\.head\.0\.gamma': it is the tiny decoder"),
        (without(make_vae(), "conv2.bias"), r"lacks 'post_quant_conv\.bias': it is the VAE"),
        (with_nan(make_vae(), "decoder.conv1.bias"), r"'decoder\.conv_in\.bias' holds NaN"),
        ({**make_vae(), "decoder.more": torch.zeros(1)}, r"also holds 'decoder\.more'"),
    ):
        torch.save(content, folder / VAE)
        with pytest.raises(WeightsError, match=words):
            FlashFolder.read(folder, decoder="full")


def test_missing_files_are_found_before_anything_is_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The transformer has 5.7 GB."""
    (folder / PROMPT).unlink()
    monkeypatch.setattr(flash_weights, "open_nested", lambda _: pytest.fail("it was read"))
    with pytest.raises(WeightsError, match=r"posi_prompt\.pth is missing"):
        FlashFolder.read(folder, name="flashvsr-1.1")
    with pytest.raises(WeightsError, match="is a file; the weights of 'flashvsr' are a folder"):
        check_files(folder / LQ)
    with pytest.raises(WeightsError, match=f"there is no folder .*pull flashvsr'.*{PAGE}"):
        check_files(folder / "none")


def test_the_prompt_of_a_pulled_version_serves_a_folder_without_one(
    folder: Path, cache: Path
) -> None:
    """A clone of the repository on the hub has no prompt."""
    expected = FlashFolder.read(folder).prompt
    place = cache / "models" / "flashvsr-1.1" / PROMPT
    place.parent.mkdir(parents=True)
    shutil.move(folder / PROMPT, place)
    with pytest.raises(WeightsError, match="is missing"):  # of another size than the published one
        FlashFolder.read(folder)
    record = {"url": "", "size": place.stat().st_size, "trust": "first", "time": ""}
    record["sha256"] = hashlib.sha256(place.read_bytes()).hexdigest()
    (cache / "models" / "flashvsr-1.1.json").write_text(json.dumps({"files": {PROMPT: record}}))
    assert torch.equal(FlashFolder.read(folder).prompt, expected)


def test_a_shape_builds_the_network(published: Path) -> None:
    folder = FlashFolder.read(published)
    with torch.device("meta"):
        net = FlashDiT(DitShape(**asdict(folder.shape)))
    net.load_state_dict(folder.dit, strict=True, assign=True)
    assert {name: x.shape for name, x in net.state_dict().items()} == {
        name: x.shape for name, x in folder.dit.items()
    }
