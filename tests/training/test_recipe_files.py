"""Recipe files: what is wrong is said with the field's name; all shipped ones are right."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
import torch
from training.conftest import Write

import restore
from restore.errors import InputError, OptionError
from restore.training.build import build
from restore.training.compact import CompactTrainConfig
from restore.training.compact_clip import CompactClipConfig
from restore.training.config import choose_device, read_train_config
from restore.training.mixture import Mixture
from restore.training.registry import RECIPES, recipe_class
from restore.training.run import train_from_file

FILES = sorted((Path(restore.__file__).parent / "training" / "recipes").glob("*.yaml"))
SHIPPED = [path for path in FILES if path.stem.startswith(("compact_x", "compact_fast"))]
"""Recipes of the restorers of the package."""


@dataclass(frozen=True, kw_only=True)
class Inner:
    number: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Outer:
    kind: Literal["a", "b", 3] = "a"
    table: dict[str, float] = field(default_factory=dict)
    inner: Inner | None = None
    either: int | tuple[int, int] = 0
    several: tuple[Inner, ...] = ()
    switch: bool = False


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"kind": "b"}, Outer(kind="b")),
        ({"kind": 3}, Outer(kind=3)),
        ({"table": {"x": 1, "y": "2e-3"}}, Outer(table={"x": 1.0, "y": 0.002})),
        ({"inner": {"number": 2}}, Outer(inner=Inner(number=2.0))),
        ({"inner": None}, Outer()),
        ({"either": 4}, Outer(either=4)),
        ({"either": [4, 5]}, Outer(either=(4, 5))),
        ({"several": [{}, {"number": 3}]}, Outer(several=(Inner(), Inner(number=3.0)))),
    ],
)
def test_plain_values_become_dataclasses(content: dict[str, object], expected: Outer) -> None:
    assert build(Outer, content) == expected


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"kind": "c"}, "field 'kind' is 'c'; allowed: a, b, 3"),
        ({"kind": True}, "field 'kind' is True; allowed: a, b, 3"),
        ({"table": {"x": "y"}}, "field 'table.x' is 'y'; it must be of type float"),
        ({"table": [1]}, "field 'table' is [1]; write it as 'name: value'"),
        ({"inner": {"nummer": 2}}, "unknown field 'inner.nummer'; did you mean 'number'?"),
        ({"either": "x"}, "field 'either' is 'x'; it must be of type int"),
        ({"either": [1]}, "field 'either' has 1 values; it must have 2"),
        ({"several": [{}, 3]}, "several[1] is a int; write fields as"),
        ({"several": [{"number": []}]}, "field 'several[0].number' is []"),
        ({"switch": 1}, "field 'switch' is 1; it must be of type bool"),
        ([], "the recipe is a list; write fields as"),
    ],
)
def test_what_does_not_fit_is_named_in_full(content: object, said: str) -> None:
    with pytest.raises(OptionError) as caught:
        build(Outer, content)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"batch": "four"}, "field 'batch' is 'four'; it must be of type int"),
        ({"batch": 5}, "does not divide into 2 groups"),
        ({"batch": 0}, "batch is 0"),
        ({"pach": 8}, "unknown field 'pach'; did you mean 'patch'? allowed: name, recipe"),
        ({"patch": 7}, "patch is 7; give an even number"),
        ({"network": {"wide": 8}}, "unknown field 'network.wide'"),
        ({"network": {"width": 0}}, "network.outer needs a width above 0"),
        ({"data": [{"path": "none"}]}, "no training folder at"),
        ({"data": [{"path": "pictures", "weight": -1}]}, "weight -1"),
        ({"data": [{"path": "pictures", "weight": 0}]}, "every training folder has the weight 0"),
        ({"optim": {"lr": "fast"}}, "field 'optim.lr' is 'fast'; it must be of type float"),
        ({"degradation": [{"plain": {"jpeg_quality": 60}}]}, "plain.jpeg_quality' is 60; it must"),
        ({"degradation": [{"preset": "none"}]}, "field 'degradation[0].preset' is 'none'; allowed"),
        ({"degradation": [{"change": {"light": {"x": 1}}}]}, "unknown field 'degradation.compact"),
        ({"recipe": "compcat"}, "did you mean 'compact'?"),
        ({"set": "realistic"}, "starts from faithful weights"),
        ({"adversarial": {"weight": 1, "crop": 24}}, "adversarial.crop is 24, more than a result"),
        ({"adversarial": {"crop": 20}}, "give a multiple of 8"),
        ({"train_only": ["gat"]}, "train_only 'gat' is no part of the network; parts: head, state"),
        ({"optim": {"lr": float("nan")}}, "field 'optim.lr' is nan; give a finite number"),
        ({"optim": {"betas": [2, 3]}}, "betas is [2.0, 3.0]; give two from 0"),
        ({"optim": {"weight_decay": -1}}, "weight_decay is -1; give 0 or more"),
        ({"seed": 2**70}, "seed 1180591620717411303424 is not possible; give 0 to"),
        ({"workers": -1}, "workers is -1; give 0 to 256"),
        ({"workers": 10**6}, "workers is 1000000; give 0 to 256"),
        ({"validation": [{"hr": "low", "count": 0}]}, "count of 'validation' is 0; give 1"),
        ({"validation": [{"hr": "low", "name": "a/b"}]}, "leave slashes out"),
        ({"precision": "fp8"}, "field 'precision' is 'fp8'; allowed: fp32, bf16"),
        ({"device": "tpu"}, "device 'tpu' is unknown"),
        ({"device": "cpu:7"}, "device 'cpu:7' is unknown"),
        (
            {"patch": 22, "texture": {"weight": 1, "spectrum_weight": 1, "window": 16}},
            "texture.spectrum_weight needs results of 47 pixels, not of 44",
        ),
        ({"pixel_weight": -1}, "pixel_weight is -1; give 0 or more"),
        ({"degradation": [{"soft_sigma": [-1, -2]}]}, "soft_sigma [-1.0, -2.0] is not possible"),
        ({"recipe": "compact-clip", "temporal_weight": -1}, "temporal_weight is -1; give 0"),
        ({"validation": [{"hr": "none"}]}, "no training folder at"),
        ({"validation": [{"hr": "low"}, {"hr": "low"}]}, "two validation sets have one name"),
        (
            {"keep_noise": True, "degradation": [{"preset": "bsrgan"}]},
            "keep_noise cannot tell the noise of the degradation 'bsrgan'",
        ),
        ({"recipe": "compact-clip", "frames": 1}, "frames is 1; give 2 or more"),
        ({"recipe": "compact-clip", "keep_noise": True}, "keep_noise is for pictures"),
        ({"recipe": "compact-clip", "clips": [{"path": "x.mp4"}]}, "is not a readable clip"),
    ],
)
def test_a_wrong_recipe_is_answered_with_the_field(
    fields: dict[str, object], said: str, write_recipe: Write, tmp_path: Path
) -> None:
    with pytest.raises((OptionError, InputError)) as caught:
        train_from_file(write_recipe(**fields), output=tmp_path / "run")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: [", "not valid YAML"),
        ("- name", "is a list; write fields as"),
        ("extends: own.yaml", "own.yaml extends itself"),
        ("extends: none.yaml", "none.yaml cannot be read"),
        ("extends: [a]", "field 'extends' is ['a']; give the name"),
        ("batch: 3", "field 'name' is missing"),
        ("optim: &a {lr: *a}", "a field of own.yaml holds itself"),
    ],
)
def test_a_file_that_is_no_recipe_is_named(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(text)
    with pytest.raises((OptionError, InputError)) as caught:
        read_train_config(path)
    assert said in str(caught.value)


def test_a_recipe_extends_another_and_paths_stay_with_their_file(
    write_recipe: Write, tmp_path: Path
) -> None:
    base = write_recipe("base")
    (tmp_path / "below").mkdir()
    own = tmp_path / "below" / "own.yaml"
    own.write_text("extends: ../base.yaml\nname: own\noptim: {clip: 2}\ninit: net.safetensors\n")
    config, before = read_train_config(own), read_train_config(base)
    assert isinstance(config, CompactTrainConfig) and isinstance(before, CompactTrainConfig)
    assert config.name == "own"
    assert (config.optim.lr, config.optim.clip) == (before.optim.lr, 2.0)
    assert config.data == before.data
    assert Path(config.data[0].path) == tmp_path / "pictures"
    assert config.init == str(tmp_path / "below" / "net.safetensors")


def test_changes_win_over_the_file(
    write_recipe: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    changes = ["optim.lr=1e-4", "batch=8", "init=here.safetensors", "degradation=[]", "seed=3"]
    config = read_train_config(write_recipe(), changes=changes)
    assert isinstance(config, CompactTrainConfig)
    assert (config.optim.lr, config.optim.warmup, config.batch) == (1e-4, 2, 8)
    assert config.init == str(tmp_path / "here.safetensors")
    assert config.degradation == ()
    for change, said in (("batch", "write it as field=value"), ("a=[", "is not YAML")):
        with pytest.raises(OptionError, match=said):
            read_train_config(write_recipe(), changes=[change])


def test_fields_below_cuda_hold_on_a_gpu_only(
    write_recipe: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = write_recipe(cuda={"batch": 64, "optim": {"lr": 0.1}}, device="auto")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert read_train_config(recipe).batch == 4
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    config = read_train_config(recipe, changes=["optim.lr=0.2"])
    assert (config.device, config.batch, config.optim.lr) == ("cuda", 64, 0.2)
    assert choose_device("cuda:0") == "cuda:0"
    with pytest.raises(OptionError, match="device 'cuda:1' is not there"):
        choose_device("cuda:1")


def test_each_name_in_the_registry_is_a_recipe() -> None:
    for name, path in RECIPES.items():
        kind = recipe_class(name)
        assert f"{kind.__module__}:{kind.__name__}" == path
        assert kind.Config.__dataclass_fields__.keys() >= {"name", "recipe", "iterations"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_recipe_file_is_named_after_its_run(path: Path) -> None:
    config = read_train_config(path, changes=["device=cpu"])
    assert config.name == path.stem
    init = getattr(config, "init", None)
    assert init is None or Path(init).parent.name in [shipped.stem for shipped in FILES]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_shipped_recipes_are_valid(
    path: Path, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    config = read_train_config(path, changes=[f"device={device}"])
    assert config.name == path.stem
    assert isinstance(config, CompactTrainConfig)
    assert isinstance(config, CompactClipConfig) == ("temporal" in path.stem)
    before = Path(config.init).parent.name if config.init else None
    assert before is None or before in [shipped.stem for shipped in SHIPPED]
    generator = torch.Generator().manual_seed(0)
    mixture = Mixture(config.degradation, scale=config.network.scale)
    side = 24 * config.network.scale
    low, good = mixture.degrade(torch.rand(1, 3, side, side), generator)
    assert (low.shape[-1], good.shape[-1]) == (24, side)


@pytest.mark.parametrize(
    ("recipe", "asset"),
    [
        ("compact_x4", "compact"),
        ("compact_x2", "compact-x2"),
        ("compact_fast_x4", "compact-fast"),
        ("compact_fast_x2", "compact-fast-x2"),
    ],
)
def test_the_recipes_are_those_of_the_shipped_weights(recipe: str, asset: str) -> None:
    path = next(path for path in SHIPPED if path.stem == recipe)
    config = read_train_config(path)
    assert isinstance(config, CompactTrainConfig)
    shipped = restore.load(asset, device="cpu").method.net.config  # type: ignore[attr-defined]
    assert config.network == shipped


def test_the_script_for_all_weights_shares_out_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(__file__).resolve().parents[2] / "benchmarks"
    monkeypatch.syspath_prepend(str(folder))
    script = importlib.import_module("train_weights")
    stages = list(script.stages(list(script.VARIANTS), 25.0))
    assert sum(stage.minutes for stage in stages) == pytest.approx(25.0)
    assert sorted(stage.name for stage in stages) == [path.stem for path in SHIPPED]
    done: set[str | None] = {None}
    for stage in stages:  # what a stage starts from is trained before it
        assert stage.before in done
        done.add(stage.name)
