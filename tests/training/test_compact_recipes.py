"""What the recipes of `compact` train, and towards what."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from training.conftest import CLIP, GAN, KINDS, NETWORK, Write

from restore import flow as motion
from restore.errors import OptionError
from restore.models.compact_net import CompactConfig, CompactNet
from restore.models.compact_weights import read_compact, write_compact
from restore.training.compact import CompactTrainConfig, CompactTraining
from restore.training.compact_clip import CompactClipConfig, CompactClipTraining
from restore.training.config import read_train_config
from restore.training.recipe import Stepper
from restore.training.run import train_from_file

CPU = torch.device("cpu")


def pictures_recipe(path: Path) -> CompactTraining:
    config = read_train_config(path)
    assert isinstance(config, CompactTrainConfig)
    return CompactTraining(config, device=CPU)


def clip_recipe(path: Path) -> CompactClipTraining:
    config = read_train_config(path)
    assert isinstance(config, CompactClipConfig)
    return CompactClipTraining(config, device=CPU)


def test_a_set_is_added_and_the_others_are_carried_over(
    write_recipe: Write, faithful: Path, tmp_path: Path
) -> None:
    real = train_from_file(write_recipe(**KINDS["realistic"]), output=tmp_path / "r").weights
    noisy = {**KINDS["noisy"], "init": str(real)}
    final = read_compact(train_from_file(write_recipe(**noisy), output=tmp_path / "n").weights)
    first, second = read_compact(faithful), read_compact(real)
    assert set(final.sets) == {"faithful", "realistic", "noisy"}
    for key, value in final.sets["faithful"].items():
        assert torch.equal(value, first.sets["faithful"][key])
        assert torch.equal(final.sets["realistic"][key], second.sets["realistic"][key])
    moved = [key for key, x in final.sets["noisy"].items() if "body" in key]
    assert any(not torch.equal(final.sets["noisy"][k], final.sets["faithful"][k]) for k in moved)
    # Faithful weights that were trained on do not fit the sets that began with the old ones.
    again = train_from_file(write_recipe(init=str(final_path(tmp_path))), output=tmp_path / "f")
    assert set(read_compact(again.weights).sets) == {"faithful"}


def final_path(tmp_path: Path) -> Path:
    return tmp_path / "n" / "net.safetensors"


@pytest.mark.usefixtures("faithful")
def test_only_the_chosen_parts_are_trained(
    write_recipe: Write, faithful: Path, tmp_path: Path
) -> None:
    fields = {**CLIP, "init": "faithful.safetensors", "train_only": ["state", "gate"]}
    fields |= {"temporal_weight": 1.0, "iterations": 4, "ema": 0.0}
    result = train_from_file(write_recipe(**fields), output=tmp_path / "run")
    before, after = (read_compact(p).sets["faithful"] for p in (faithful, result.weights))
    changed = {key.split(".")[0] for key in before if not torch.equal(before[key], after[key])}
    assert changed == {"state", "gate"}


def test_pictures_leave_the_parts_for_clips_alone(
    write_recipe: Write, faithful: Path, tmp_path: Path
) -> None:
    recipe = write_recipe(init="faithful.safetensors", optim={"lr": 0.01, "weight_decay": 0.1})
    result = train_from_file(recipe, output=tmp_path / "run")
    before, after = (read_compact(p).sets["faithful"] for p in (faithful, result.weights))
    same = {key.split(".")[0] for key in before if torch.equal(before[key], after[key])}
    assert same == {"state", "gate"}


@pytest.mark.usefixtures("faithful")
def test_the_first_judged_steps_do_not_reach_the_network(
    write_recipe: Write, tmp_path: Path
) -> None:
    """With `start` beyond the end, an adversarial run moves the network as a plain one does."""
    plain = {"set": "realistic", "init": "faithful.safetensors"}
    waits = {**GAN, "adversarial": {**GAN["adversarial"], "start": 100}}
    counts = GAN
    nets = []
    for name, fields in (("plain", plain), ("waits", waits), ("counts", counts)):
        result = train_from_file(write_recipe(**fields), output=tmp_path / name)
        nets.append(read_compact(result.weights).sets["realistic"])
    assert all(torch.equal(nets[0][key], nets[1][key]) for key in nets[0])
    assert not all(torch.equal(nets[0][key], nets[2][key]) for key in nets[0])


@pytest.mark.parametrize("kind", ["bce", "relativistic"])
@pytest.mark.usefixtures("faithful")
def test_both_players_move(kind: str, write_recipe: Write) -> None:
    recipe = pictures_recipe(
        write_recipe(**{**GAN, "adversarial": {**GAN["adversarial"], "kind": kind}})
    )
    before = {n: [p.clone() for p in m.parameters()] for n, m in recipe.modules.items()}
    stepper = Stepper(recipe.players, device=CPU, precision="fp32")
    for player in recipe.players.values():
        player.optimiser.param_groups[0]["lr"] = 1e-2
    losses = recipe.step(recipe.batch(0), stepper)
    assert set(losses) == set(recipe.loss_names)
    for name, module in recipe.modules.items():
        pairs = zip(before[name], module.parameters(), strict=True)
        assert sum(not torch.equal(a, b) for a, b in pairs) > 5, name


def test_the_noisy_target_keeps_the_noise_of_the_input(write_recipe: Write) -> None:
    """Without blur, resampling or JPEG, what is left of target less picture is the noise."""
    plain = {"blur_prob": 0.0, "detour_prob": 0.0, "jpeg_prob": 0.0, "noise_prob": 1.0}
    fields: dict[str, Any] = {
        "degradation": [{"plain": {**plain, "noise_sigma": [10, 10], "poisson_scale": [1, 1]}}],
        "keep_noise": True,
        "groups": 4,
    }
    noisy = pictures_recipe(write_recipe(**fields)).batch(3)
    clean = pictures_recipe(write_recipe(**{**fields, "keep_noise": False})).batch(3)
    assert torch.equal(noisy["bad"], clean["bad"])  # the input is the same
    noise = noisy["good"] - clean["good"]
    assert 4 / 255 < noise.std() < 12 / 255
    # Shrunk again it is the input's: bicubic enlarging and averaging lose little of it.
    small = torch.nn.functional.avg_pool2d(noise, 2)
    assert torch.corrcoef(torch.stack([small.flatten(), noise_of(clean).flatten()]))[0, 1] > 0.9


def noise_of(batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """The noise of bad pictures that were only shrunk, by whichever filter."""
    return batch["bad"] - torch.nn.functional.avg_pool2d(batch["good"], 2)


def test_a_quiet_target_equals_the_picture(write_recipe: Write) -> None:
    quiet = {"noise_sigma": [0, 0], "poisson_scale": [0, 0]}
    fields = {"degradation": [{"plain": quiet}]}
    kept = pictures_recipe(write_recipe(**fields, keep_noise=True)).batch(0)
    plain = pictures_recipe(write_recipe(**fields)).batch(0)
    assert torch.equal(kept["good"], plain["good"])


def test_the_other_shape_of_a_start_is_named_or_fitted(
    write_recipe: Write, faithful: Path, tmp_path: Path
) -> None:
    larger = {**NETWORK, "scale": 4}
    fields = {"network": larger, "init": "faithful.safetensors"}
    with pytest.raises(OptionError, match=r"another network \(scale 2 for 4\).*init_fitting"):
        train_from_file(write_recipe(**fields), output=tmp_path / "run")
    recipe = pictures_recipe(write_recipe(**fields, init_fitting=True))
    start = read_compact(faithful).sets["faithful"]
    own = recipe.network.state_dict()
    assert torch.equal(own["body.0.conv1.weight"], start["body.0.conv1.weight"])
    assert own["tail.weight"].shape != start["tail.weight"].shape
    with pytest.raises(OptionError, match="has no set 'noisy'"):
        pictures_recipe(write_recipe(init="faithful.safetensors", init_set="noisy"))


def test_a_made_clip_has_what_the_engine_would_give(write_recipe: Write) -> None:
    batch = clip_recipe(write_recipe(**CLIP, estimated_share=1.0)).batch(1)
    bad, flow = batch["bad"], batch["flow"]
    assert bad.shape == (2, 3, 3, 16, 16) and batch["good"].shape == (2, 3, 3, 32, 32)
    expected = motion.estimate_flow(bad[0, 2], previous=bad[0, 1])
    assert torch.equal(flow[0, 1], expected)
    moved = motion.warp(bad[:, 1], flow[:, 1])
    assert torch.equal(batch["trust"][:, 1], motion.trust(bad[:, 2], moved, flow[:, 1]))


def test_noise_changes_from_frame_to_frame_and_blur_does_not(write_recipe: Write) -> None:
    still = {"still_prob": 1.0, "objects": [1.0]}
    degradation = {"noise_prob": 0.0, "jpeg_prob": 0.0}
    for noise in (0.0, 1.0):
        fields = {**CLIP, "motion": still}
        fields["degradation"] = [{"plain": {**degradation, "noise_prob": noise}}]
        bad = clip_recipe(write_recipe(**fields)).batch(0)["bad"]
        changes = (bad[:, 1] - bad[:, 0]).abs().amax((1, 2, 3))
        assert bool((changes == 0).all()) == (noise == 0.0)


def test_training_on_clips_makes_results_steadier(write_recipe: Write, tmp_path: Path) -> None:
    """The gate starts nearly closed; on still, noisy clips it pays to open it."""
    config = CompactConfig(**NETWORK)
    torch.manual_seed(1)
    network = CompactNet(config)
    network.gate.bias.data.fill_(-3.0)
    write_compact(tmp_path / "start.safetensors", config, {"faithful": network.state_dict()})
    fields = {
        **CLIP,
        "init": "start.safetensors",
        "train_only": ["state", "gate"],
        "motion": {"still_prob": 1.0, "objects": [1.0]},
        "degradation": [{"plain": {"noise_prob": 1.0, "noise_sigma": [15, 15]}}],
        "temporal_weight": 1.0,
        "optim": {"lr": 0.03, "warmup": 1},
        "iterations": 40,
        "save_every": 40,
        "log_every": 10,
    }
    temporal: list[float] = []
    train_from_file(
        write_recipe(**fields),
        output=tmp_path / "run",
        progress=lambda step, _: temporal.append(step.losses["temporal"]),
    )
    assert sum(temporal[-10:]) < 0.7 * sum(temporal[:10])
