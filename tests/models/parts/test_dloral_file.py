"""DLoRAL's file: strengths of its LoRAs, and every file that is not its own."""

from __future__ import annotations

import copy
import io
import logging
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from published import TINY, make_unet
from published_dloral import change
from torch import Tensor

import restore
from restore.engine import Restorer
from restore.errors import WeightsError
from restore.models.dloral import DLoRAL
from restore.models.parts.dloral import file as file_module
from restore.models.parts.dloral.file import Strengths, read
from restore.models.parts.dloral.file import make_unet as merged_unet
from restore.models.parts.lora import PEFT_ALPHA
from restore.nested_weights import convert


@pytest.fixture(scope="module")
def load(dloral_files: tuple[Path, Path]) -> Callable[..., Restorer]:
    def load(**settings: Any) -> Restorer:
        given = {"weights": str(dloral_files[0]), "base": str(dloral_files[1]), "device": "cpu"}
        return restore.load("dloral", **{**given, "tags": "a dog", **settings})

    return load


@pytest.fixture(scope="module")
def content(dloral_files: tuple[Path, Path]) -> dict[str, Any]:
    """What `model.pkl` holds."""
    return read(dloral_files[0])


def test_the_strengths_scale_what_each_lora_adds(dloral_files: tuple[Path, Path]) -> None:
    content = read(dloral_files[0])
    config = dict(make_unet().config)  # type: ignore[arg-type]

    def weights(**strengths: float) -> dict[str, Tensor]:
        return merged_unet(content, config, Strengths(**strengths), dloral_files[0]).state_dict()

    base = weights(consistency=0.0, detail=0.0)
    both, c, d = weights(), weights(detail=0.0), weights(consistency=0.0, detail=2.0)
    name = "up_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
    lora = content["state_dict_unet"]
    assert torch.equal(base[f"{name}.weight"], lora[f"{name}.base_layer.weight"])
    for got, branch, times in ((c, "consistency", 1), (d, "quality", 2)):
        rank = content[f"lora_rank_unet_{branch}"]
        a, b = (lora[f"{name}.lora_{s}.default_decoder_{branch}.weight"] for s in "AB")
        added = got[f"{name}.weight"] - base[f"{name}.weight"]
        torch.testing.assert_close(added, times * PEFT_ALPHA / rank * b @ a)
    for key, value in both.items():  # sums in another order
        expected = c[key] + (d[key] - base[key]) / 2
        torch.testing.assert_close(value, expected, atol=1e-5, rtol=1e-5)


def test_a_converted_file_is_the_same_method(
    load: Callable[..., Restorer], dloral_files: tuple[Path, Path], tmp_path: Path
) -> None:
    convert(dloral_files[0], tmp_path / "model.safetensors")
    one, two = (load(**w).method for w in ({}, {"weights": str(tmp_path / "model.safetensors")}))
    assert isinstance(two, DLoRAL)
    for part in ("unet", "spynet", "retrieval"):
        first, second = (getattr(m, part).state_dict() for m in (one, two))
        assert first.keys() == second.keys()
        assert all(torch.equal(first[name], second[name]) for name in first)
    two.tune(detail=0.0)  # merges into a file that is mapped, and leaves it as it is
    again = read(tmp_path / "model.safetensors")["state_dict_unet"]
    first = read(dloral_files[0])["state_dict_unet"]
    assert all(torch.equal(again[name], first[name]) for name in first)


FIRST = "down_blocks.0.resnets.0.conv1"
LORA = f"{FIRST}.lora_A.default_encoder_quality.weight"


def no_retrieval(content: dict[str, Any]) -> None:
    state = content["state_dict_bpp"]
    for name in [name for name in state if name.startswith("cross_attn_module")]:
        del state[name]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda c: {"state_embeddings": {}, "w": torch.zeros(1)}, "S3Diff's file"),
        (
            lambda c: {"unet_lora_encoder_modules": [], "rank_unet": 4},
            "OSEDiff's file: choose -n osediff",
        ),
        (
            lambda c: c.pop("state_dict_unet") and None,
            "lacks 'state_dict_unet'.*altered or damaged",
        ),
        (lambda c: c.update(more=3), "also holds 'more'"),
        (lambda c: c.update(lora_rank_unet_quality="4"), "has a str for 'lora_rank_unet_quality'"),
        (lambda c: c.update(lora_rank_unet_quality=8), "says rank 8 for its quality LoRA"),
        (lambda c: c["state_dict_unet"].pop(LORA) is None or None, "no factor A"),
        (lambda c: c["state_dict_unet"].update(spare=torch.ones(2)), "unknown tensor 'spare'"),
        (
            lambda c: c["state_dict_unet"].pop("time_embedding.linear_1.bias") is None or None,
            "lacks the tensor 'time_embedding.linear_1.bias'",
        ),
        (
            lambda c: c["state_dict_unet"].pop(f"{FIRST}.base_layer.bias") is None or None,
            f"lacks the tensor '{FIRST}.bias'",
        ),
        (
            lambda c: c["unet_lora_others_modules_quality"].append("mid_block.none"),
            "no weights of the adapted layer 'mid_block.none'",
        ),
        (
            lambda c: c["unet_lora_others_modules_consistency"].pop() and None,
            "unlisted LoRA for 'mid_block",
        ),
        (
            lambda c: c["state_dict_unet"].update({LORA.replace("quality", "x"): torch.ones(4, 2)}),
            "no factor B|unknown",
        ),
        (lambda c: c["state_dict_bpp"].update(spare=torch.ones(2)), "'spare' in state_dict_bpp"),
        (no_retrieval, "no Cross-Frame Retrieval"),
        (
            lambda c: (
                c["state_dict_bpp"].pop("spynet.basic_module.0.basic_module.0.conv.bias") is None
                or None
            ),
            "lacks the tensor 'basic_module.0.basic_module.0.conv.bias'",
        ),
        (
            lambda c: c["state_dict_bpp"].update(
                {"cross_attn_module.query_conv.weight": torch.ones(576, 3, 1, 1)}
            ),
            r"'query_conv.weight' of \(576, 3, 1, 1\)",
        ),
        (lambda c: c["state_dict_unet"].update({LORA: torch.full((4, 2), math.nan)}), "NaN"),
    ],
)
def test_a_file_that_does_not_fit_is_named_in_one_line(
    edit: Callable[[dict[str, Any]], Any],
    message: str,
    dloral_files: tuple[Path, Path],
    content: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parts = {key: copy.copy(part) for key, part in content.items()}  # tensors are left alone
    edited = edit(parts)
    monkeypatch.setattr(
        file_module, "open_nested", lambda path: parts if edited is None else edited
    )
    with pytest.raises(WeightsError, match=message) as caught:
        DLoRAL(dloral_files[0], dloral_files[1])
    assert str(caught.value).startswith(str(dloral_files[0]))
    assert "\n" not in str(caught.value)


def test_layers_that_nothing_runs_may_be_missing(
    dloral_files: tuple[Path, Path], tmp_path: Path
) -> None:
    def edit(content: dict[str, Any]) -> None:
        del content["state_dict_bpp"]["conv_hr.weight"], content["state_dict_bpp"]["spynet.mean"]

    assert (
        DLoRAL(
            change(dloral_files[0], tmp_path / "less.pkl", edit), dloral_files[1]
        ).spynet.mean.mean()
        > 0.4
    )


def test_a_retrieval_that_was_never_trained_is_said(
    dloral_files: tuple[Path, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from restore.models.parts.dloral.cfr import CrossFrameRetrieval

    def edit(content: dict[str, Any], moved: float) -> None:
        fresh = CrossFrameRetrieval().state_dict()
        step = torch.randn(fresh["query_conv.weight"].shape).sign() * moved
        fresh["query_conv.weight"] += step
        content["state_dict_bpp"].update({f"cross_attn_module.{k}": v for k, v in fresh.items()})

    with caplog.at_level(logging.WARNING, "restore.models.dloral"):
        DLoRAL(*dloral_files)
        # A hundred steps of the published training, of 5e-5 each.
        DLoRAL(
            change(dloral_files[0], tmp_path / "few.pkl", lambda c: edit(c, 5e-3)), dloral_files[1]
        )
        assert not caplog.records
        DLoRAL(
            change(dloral_files[0], tmp_path / "none.pkl", lambda c: edit(c, 0)), dloral_files[1]
        )
    assert "random start" in caplog.text


def test_pointers_pages_and_halves_of_files_are_named(
    dloral_files: tuple[Path, Path], tmp_path: Path, load: Callable[..., Restorer]
) -> None:
    listed = io.BytesIO()
    torch.save([1, 2], listed)
    for name, content, message in (
        ("pointer.pkl", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "LFS"),
        ("page.pkl", b"<!DOCTYPE html><html>", "web page"),
        ("half.pkl", dloral_files[0].read_bytes()[:9_999_999], "damaged or cut short"),
        ("empty.pkl", b"", "is empty"),
        ("list.pkl", listed.getvalue(), "holds a list"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(WeightsError, match=message):
            load(weights=str(tmp_path / name))
    with pytest.raises(WeightsError, match="DLoRAL's file, for clips: choose -n dloral"):
        load_osediff(dloral_files)


def load_osediff(dloral_files: tuple[Path, Path]) -> None:
    restore.load("osediff", weights=str(dloral_files[0]), base=str(dloral_files[1]), device="cpu")


def test_a_base_of_another_shape_or_kind_is_refused(
    dloral_files: tuple[Path, Path], tmp_path: Path, load: Callable[..., Restorer]
) -> None:
    from published import make_base

    wider = make_base(tmp_path / "wide", replace(TINY, text=64))
    with pytest.raises(WeightsError, match=r"give Stable Diffusion 2\.1 base with --base"):
        load(base=str(wider))
    velocity = replace(TINY, scheduler={"prediction_type": "v_prediction"})
    with pytest.raises(WeightsError, match=r"prediction_type v_prediction.*needs epsilon"):
        load(base=str(make_base(tmp_path / "v", velocity)))
