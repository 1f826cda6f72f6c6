"""Both stages of OSCAR's training, down to a file that the codec loads; and what they stand on."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from published import picture
from published_oscar import make_velocity_base
from torch import Tensor

from restore.codec.engine import load_codec
from restore.errors import OptionError, WeightsError
from restore.models.oscar import Oscar
from restore.models.parts.oscar.hyper_encoder import HyperConfig, HyperEncoder
from restore.models.parts.oscar.rates import RATES
from restore.nested_weights import open_nested
from restore.training import dists, oscar
from restore.training.config import read_train_config
from restore.training.oscar import OscarTraining
from restore.training.oscar_hyper import load_hyper, unlikeness
from restore.training.recipe import Stepper
from restore.training.run import train_from_file

NETWORK = {"inner": 8, "outer": 12, "code": 4}
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a base, and pictures."""
    folder = tmp_path_factory.mktemp("oscar")
    make_velocity_base(folder / "base")
    (folder / "pictures").mkdir()
    for seed in range(2):
        array = (picture(200, 208, seed)[0].permute(1, 2, 0).numpy() * 255).round()
        Image.fromarray(array.astype(np.uint8)).save(folder / "pictures" / f"{seed}.png")
    return folder


def write(place: Path, name: str, **fields: Any) -> Path:
    content = {
        "name": name,
        "base": "base",
        "network": NETWORK,
        "data": [{"path": "pictures"}],
        "device": "cpu",
        "batch": 1,
        **fields,
    }
    path = place / f"{name}.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def stage_two(place: Path, name: str, **fields: Any) -> Path:
    settings = {"recipe": "oscar", "rank": 2, "patch": 192, "iterations": 2, **fields}
    return write(place, name, **{"adversarial": {"rank": 2}, **settings})


@pytest.fixture(scope="module")
def first(place: Path) -> Path:
    """A hyper-encoder after the first stage."""
    path = write(
        place,
        "first",
        recipe="oscar-hyper",
        rate=5,
        patch=64,
        batch=2,
        iterations=40,
        posterior="mode",  # the random VAE's Gaussians are wide, and a draw is all noise
        optim={"lr": 3e-3, "schedule": "constant", "warmup": 2},
        log_every=10,
    )
    return train_from_file(path, output=place / "first").weights


@pytest.fixture(scope="module")
def second(place: Path, first: Path) -> Path:
    """The codec after the second stage, which is not long enough to be any good."""
    path = stage_two(
        place,
        "second",
        hyper_encoders=[str(first)],
        optim={"lr": 5e-3, "warmup": 1},
        validation=[{"hr": "pictures", "count": 1, "shown": 1}],
    )
    return train_from_file(path, output=place / "second").weights


def column(folder: Path, name: str) -> list[float]:
    lines = (folder / "log.csv").read_text().splitlines()
    where = lines[0].split(",").index(name)
    return [float(line.split(",")[where]) for line in lines[1:]]


def test_the_first_stage_learns_and_writes_what_the_second_reads(place: Path, first: Path) -> None:
    losses = column(place / "first", "loss")
    assert losses[-1] < losses[0] - 0.05
    assert losses[-1] < -0.3  # of -1: latents and their code point the same way
    networks = [HyperEncoder(HyperConfig(**NETWORK), rate) for rate in RATES]
    assert load_hyper(networks, first) == 5
    book = networks[5].quantizer._codebook
    torch.testing.assert_close(book.embed.norm(dim=-1), torch.ones(1, 32))
    assert float((book.cluster_size - 1).abs().max()) > 0.5  # it has learned in training


def test_a_hyper_encoder_of_other_widths_is_refused(first: Path, second: Path) -> None:
    others = [HyperEncoder(HyperConfig(inner=8, outer=16, code=4), rate) for rate in RATES]
    with pytest.raises(WeightsError, match="another rate or of other widths"):
        load_hyper(others, first)
    with pytest.raises(WeightsError, match="no hyper-encoder of OSCAR's first stage"):
        load_hyper(others, second)


def test_the_second_stage_writes_a_file_that_the_codec_loads(place: Path, second: Path) -> None:
    """Merged in the codec, the weights give what they gave beside the base's in training."""
    coder = load_codec("oscar", weights=str(second), base=str(place / "base"), device="cpu")
    assert isinstance(coder.codec, Oscar)
    changes = [f"init={second}", "hyper_encoders=[]"]
    config = read_train_config(place / "second.yaml", changes=changes)
    recipe = OscarTraining(config, device=CPU)  # type: ignore[arg-type]
    state = {
        name: {key: tensor.clone() for key, tensor in recipe.modules[name].state_dict().items()}
        for name in recipe.averaged
    }
    x = picture(70, 64, 3)
    expected = recipe.restorer(state)(x)
    coded = coder.encode(x, config.shown_rate)  # type: ignore[attr-defined]
    got = coder.decode(coded, 64, 70)
    # The norms are fp16 in a file. Without the trained LoRA they differ a hundred times as much.
    assert float((got - expected).abs().mean()) < 2e-4
    for name, parameter in recipe.adapters.named_parameters():
        if name.endswith("up"):
            torch.nn.init.zeros_(parameter)
    # Validation takes the weights that it is given, and leaves those in training alone.
    assert float((recipe.restorer(state)(x) - expected).abs().mean()) < 1e-6
    assert not any(p.any() for n, p in recipe.adapters.named_parameters() if n.endswith("up"))
    state["adapters"] = {k: 0 * v if k.endswith("up") else v for k, v in state["adapters"].items()}
    assert float((recipe.restorer(state)(x) - expected).abs().mean()) > 2e-3


def test_what_is_trained_has_moved_and_the_base_is_not_in_the_files(
    place: Path, second: Path
) -> None:
    content = open_nested(second)
    lora = content["state_dict_unet"]
    ups = [t for name, t in lora.items() if ".lora_B." in name]
    assert sum(bool(t.abs().max() > 0) for t in ups) > 0.9 * len(ups)  # they began at 0
    assert float(content["embeddings"].std()) > 0.02
    base = sum(p.stat().st_size for p in (place / "base").rglob("*.safetensors"))
    assert second.stat().st_size < base / 2
    assert len(column(place / "second", "validation.psnr_y")) >= 1
    for name in ("adversarial", "discriminator", "latent", "pixel"):
        assert np.isfinite(column(place / "second", name)).all()


@pytest.fixture(scope="module")
def recipe(place: Path) -> OscarTraining:
    config = read_train_config(stage_two(place, "alone"))
    torch.manual_seed(0)
    made = OscarTraining(config, device=CPU)  # type: ignore[arg-type]
    with torch.no_grad():  # as after some steps: A gets no gradient while B is 0
        for name, parameter in made.adapters.named_parameters():
            if name.endswith("up"):
                parameter.normal_(std=0.1)
    return made


def test_the_verdicts_reach_the_generator(recipe: OscarTraining) -> None:
    """The authors' discriminator runs without gradients, so that its loss trains nothing."""
    batch = recipe.batch(0)
    stepper = Stepper(recipe.players, device=CPU, precision="fp32")
    z = recipe.latents.encode(batch["good"], batch["noise"])
    _, clean = recipe.forward(z, 4)
    assert recipe.judge is not None
    loss = recipe._judged(recipe.judge, clean, batch, stepper)
    torch.autograd.backward(loss)
    trained = [
        *recipe.hyper_encoders[4].backbone.named_parameters(),  # type: ignore[union-attr]
        *recipe.hyper_encoders[4].proj.named_parameters(),  # type: ignore[union-attr]
        *recipe.adapters.named_parameters(),
        *recipe.context.named_parameters(),
    ]
    without = [n for n, p in trained if p.grad is None or not bool(p.grad.abs().max() > 0)]
    assert not without
    assert all(p.grad is None for p in recipe.judge.parameters())
    frozen = [p for n, p in recipe.unet.named_parameters() if not n.endswith((".up", ".down"))]
    assert frozen
    assert all(p.grad is None and not p.requires_grad for p in frozen)
    recipe.players["network"].optimiser.zero_grad()


def test_a_step_trains_the_judge_too_and_adds_dists_when_it_is_there(
    recipe: OscarTraining, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert recipe.judge is not None
    before = {name: p.clone() for name, p in recipe.judge.named_parameters()}
    seen: list[Tensor] = []

    def distance(result: Tensor, target: Tensor) -> Tensor:
        seen.append(result)
        return (result - target).abs().mean()

    monkeypatch.setattr(recipe, "dists", distance)
    stepper = Stepper(recipe.players, device=CPU, precision="bf16")
    losses = recipe.step(recipe.batch(3), stepper)
    assert set(losses) == {*recipe.loss_names, "dists", "edges"}
    assert len(seen) == 2  # the picture, and its edges
    moved = [
        name for name, p in recipe.judge.named_parameters() if not torch.equal(p, before[name])
    ]
    assert {name.split(".")[0] for name in moved} == {"adapters", "context", "head"}


def test_each_rate_comes_and_a_batch_repeats(recipe: OscarTraining) -> None:
    rates = {int(recipe.batch(i)["rate"]) for i in range(40)}
    assert rates == set(range(8))
    one, two = recipe.batch(7), recipe.batch(7)
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"patch": 100}, "patch is 100; give a multiple of 64"),
        ({"patch": 128}, "too little for the discriminator"),
        ({"shown_rate": 8}, "give 0 to 7"),
        ({"init": "a.pkl", "hyper_encoders": ["b"]}, "leave hyper_encoders out"),
    ],
)
def test_what_is_not_possible_is_said(place: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        read_train_config(stage_two(place, "wrong", **changes))


def test_unlikeness_is_minus_the_cosine() -> None:
    x = torch.randn(2, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    assert float(unlikeness(3 * x, x, dim=1)) == pytest.approx(-1, abs=1e-6)
    assert float(unlikeness(-x, x, dim=(2, 3))) == pytest.approx(1, abs=1e-6)
    expected = torch.nn.functional.cosine_similarity(x, x.flip(0), dim=1).mean()
    assert float(unlikeness(x, x.flip(0), dim=1)) == pytest.approx(-float(expected), abs=1e-6)


@pytest.fixture
def small_dists(monkeypatch: pytest.MonkeyPatch) -> dists.Dists:
    monkeypatch.setattr(dists, "Dists", partial(dists.Dists, (4, 4, 4, 4, 4)))
    torch.manual_seed(1)
    return dists.Dists().requires_grad_(False)


def test_dists_is_a_distance_with_a_gradient(small_dists: dists.Dists) -> None:
    x = picture(48, 40, 2)
    blurred = torch.nn.functional.avg_pool2d(x, 3, 1, 1)
    noisy = (x + 0.3 * torch.randn(x.shape, generator=torch.Generator().manual_seed(2))).clamp(0, 1)
    assert float(small_dists(x, x)) == pytest.approx(0, abs=1e-5)
    assert 0.001 < float(small_dists(blurred, x)) < float(small_dists(noisy, x)) < 1
    assert float(small_dists(blurred, x)) == pytest.approx(float(small_dists(x, blurred)), abs=1e-6)
    blurred.requires_grad_()
    torch.autograd.backward(small_dists(blurred, x))
    assert blurred.grad is not None
    assert float(blurred.grad.abs().min()) >= 0
    assert float(blurred.grad.abs().max()) > 0


def test_dists_is_read_from_its_two_files_or_left_out(
    small_dists: dists.Dists,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    assert dists.load_dists(device=CPU) is None
    assert "goes on without DISTS" in caplog.text
    state = small_dists.state_dict()
    for file in (dists.VGG_FILE, dists.DISTS_FILES[0]):
        (tmp_path / file).parent.mkdir(exist_ok=True)
    torch.save({k: state[k] for k in ("alpha", "beta")}, tmp_path / dists.DISTS_FILES[0])
    assert dists.load_dists(device=CPU) is None  # VGG is still missing
    torch.save(
        {"features." + k.split(".", 2)[2]: v for k, v in state.items() if "stages" in k},
        tmp_path / dists.VGG_FILE,
    )
    loaded = dists.load_dists(device=CPU)
    assert loaded is not None
    x, y = picture(48, 40, 2), picture(48, 40, 3)
    assert float(loaded(x, y)) == pytest.approx(float(small_dists(x, y)), abs=1e-6)


def test_edges_are_sobels() -> None:
    x = torch.zeros(1, 3, 6, 6)
    x[..., 3:] = 1  # an edge of height 1: the filter's weights on one side add up to 4
    found = oscar.edges(x)
    assert found.shape == x.shape
    torch.testing.assert_close(found[0, 0, 2, 2:4], torch.full((2,), 3.9996), atol=1e-3, rtol=0)
    assert float(found[0, 0, 2, 1]) < 2e-3
