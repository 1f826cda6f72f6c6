"""Bases as they are found in the world: old names, pickles, half precision, more than is needed."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from restore.errors import WeightsError
from restore.models.parts.pretrained import check_base, load_part

NEW_TO_OLD = {
    ".to_q.": ".query.",
    ".to_k.": ".key.",
    ".to_v.": ".value.",
    ".to_out.0.": ".proj_attn.",
}
WEIGHTS = "diffusion_pytorch_model"


@pytest.fixture
def base(tiny_base: Path, tmp_path: Path) -> Path:
    """A copy to change."""
    return Path(shutil.copytree(tiny_base, tmp_path / "base"))


def load(folder: Path, part: str) -> nn.Module:
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextModel

    kinds: dict[str, Any] = {
        "vae": AutoencoderKL,
        "unet": UNet2DConditionModel,
        "text_encoder": CLIPTextModel,
    }
    return load_part(folder, part, kinds[part])  # type: ignore[arg-type]


def same(a: nn.Module, b: nn.Module, *, tolerance: float = 0.0) -> bool:
    pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    return all(torch.allclose(x, y, rtol=tolerance, atol=tolerance * 1e-2) for x, y in pairs)


def test_attention_by_its_old_names_is_read(tiny_base: Path, base: Path) -> None:
    """Stable Diffusion 2.1's own VAE file has them."""
    file = base / "vae" / f"{WEIGHTS}.safetensors"

    def old(name: str) -> str:
        if "attentions" in name:
            for new, before in NEW_TO_OLD.items():
                name = name.replace(new, before)
        return name

    state = {old(name): tensor for name, tensor in load_file(file).items()}
    assert any(".query." in name for name in state)
    save_file(state, file, {"format": "pt"})
    assert same(load(base, "vae"), load(tiny_base, "vae"))


def test_pickles_and_buffers_of_old_libraries_are_read(
    tiny_base: Path, base: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for part, name, pickled in (
        ("unet", WEIGHTS, WEIGHTS),
        ("text_encoder", "model", "pytorch_model"),
    ):
        file = base / part / f"{name}.safetensors"
        state: dict[str, Tensor] = load_file(file)
        if part == "text_encoder":
            state["text_model.embeddings.position_ids"] = torch.arange(77)[None]
        file.unlink()
        torch.save(state, base / part / f"{pickled}.bin")
        assert same(load(base, part), load(tiny_base, part))
    assert capfd.readouterr() == ("", "")


def test_half_precision_is_read_where_there_is_nothing_else(tiny_base: Path, base: Path) -> None:
    whole = base / "unet" / f"{WEIGHTS}.safetensors"
    half = {name: tensor.half() for name, tensor in load_file(whole).items()}
    save_file(half, base / "unet" / f"{WEIGHTS}.fp16.safetensors", {"format": "pt"})
    assert same(load(base, "unet"), load(tiny_base, "unet"))  # the whole ones are better
    whole.unlink()
    module = load(base, "unet")
    assert {parameter.dtype for parameter in module.parameters()} == {torch.float32}
    assert same(module, load(tiny_base, "unet"), tolerance=2**-10)


def test_a_pickle_with_code_is_refused(base: Path, tmp_path: Path) -> None:
    class Bad:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "was run",))

    (base / "unet" / f"{WEIGHTS}.safetensors").unlink()
    torch.save({"conv_in.weight": Bad()}, base / "unet" / f"{WEIGHTS}.bin")
    with pytest.raises(WeightsError, match="cannot be loaded"):
        load(base, "unet")
    assert not (tmp_path / "was run").exists()


def test_pointers_and_broken_files_are_named(base: Path) -> None:
    file = base / "vae" / f"{WEIGHTS}.safetensors"
    content = file.read_bytes()
    file.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(WeightsError, match="Git LFS pointer"):
        load(base, "vae")
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(WeightsError, match=r"cannot be loaded.*fetch them again"):
        load(base, "vae")
    (base / "vae" / "config.json").write_text("{")
    with pytest.raises(WeightsError, match="cannot be read as JSON"):
        load(base, "vae")
    (base / "vae" / "config.json").unlink()
    with pytest.raises(WeightsError, match=r"has no vae/config\.json"):
        load(base, "vae")


def test_another_network_in_the_folder_is_named(base: Path) -> None:
    with pytest.raises(
        WeightsError, match=r"unet of the base model .* is of the kind AutoencoderKL"
    ):
        shutil.copy(base / "vae" / "config.json", base / "unet" / "config.json")
        load(base, "unet")


def test_only_settings_that_are_there_are_compared(base: Path) -> None:
    check_base(base, "x", expected={"scheduler": {"prediction_type": "epsilon", "nothing": 3}})
    with pytest.raises(WeightsError, match=r"beta_end 0\.012 in its scheduler; 'x' needs 0\.02"):
        check_base(base, "x", expected={"scheduler": {"beta_end": 0.02}})
