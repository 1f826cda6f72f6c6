"""The models in the package: size, exactness under tiling, options, worth."""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

import restore
from restore.config import EngineConfig
from restore.engine import describe, fitting
from restore.errors import OptionError, WeightsError
from restore.models.compact import Compact, CompactFast, CompactFastX2, CompactX2
from restore.models.compact_net import CompactConfig, CompactNet
from restore.models.compact_weights import (
    CompactFile,
    SetName,
    interpolate,
    read_compact,
    write_compact,
)
from restore.registry import METHODS, method_class, variant_for
from restore.weights import open_weights, packaged_weights, save_weights

CLASSES: dict[str, type[Compact]] = {
    "compact": Compact,
    "compact-x2": CompactX2,
    "compact-fast": CompactFast,
    "compact-fast-x2": CompactFastX2,
}
SHAPES = [
    CompactConfig(scale=2, width=4, outer=1, deep=8, inner=2),
    CompactConfig(scale=4, width=0, outer=0, deep=8, inner=2),
]


@pytest.mark.parametrize("name", CLASSES)
def test_the_registry_names_exactly_this_class(name: str) -> None:
    assert METHODS[name] == f"restore.models.compact:{CLASSES[name].__name__}"
    assert method_class(name) is CLASSES[name]
    restorer = restore.load(name, device="cpu")
    assert type(restorer.method) is CLASSES[name]
    assert restorer.spec.name == name
    assert restorer.spec.scale == (2 if name.endswith("x2") else 4)
    assert restorer.spec == describe(EngineConfig(model=name))
    # What the class says without its file is what the file makes of it.
    assert restorer.spec == CLASSES[name].spec


@pytest.mark.parametrize("name", CLASSES)
def test_it_keeps_to_its_budget(name: str) -> None:
    net = restore.load(name, device="cpu").method.net  # type: ignore[attr-defined]
    assert net.macs_per_pixel <= (300_000 if "fast" in name else 1_300_000)
    assert packaged_weights(name).stat().st_size <= 8 << 20
    weights = load_file(packaged_weights(name))
    assert all(bool(torch.isfinite(w).all()) for w in weights.values())


@pytest.mark.parametrize("config", SHAPES)
def test_the_declared_work_is_that_of_the_convolutions(config: CompactConfig) -> None:
    net, side = CompactNet(config), 16
    counted = 0

    def count(conv: torch.nn.Module, _: object, result: torch.Tensor) -> None:
        nonlocal counted
        assert isinstance(conv, torch.nn.Conv2d)
        counted += conv.weight.numel() * result.shape[-2] * result.shape[-1]

    for module in net.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(count)
    large = torch.rand(1, 3, config.scale * side, config.scale * side)
    net(torch.rand(1, 3, side, side), large, torch.ones(1, 1, side, side))
    assert counted == net.macs_per_pixel * side * side


@pytest.mark.parametrize("config", SHAPES)
def test_the_declared_overlap_is_the_receptive_field(config: CompactConfig) -> None:
    net = CompactNet(config).eval()
    x = torch.rand(1, 3, 80, 80, requires_grad=True)
    s, reached = config.scale, []
    for place in (40, 41):  # an even and an odd pixel: those at half size see them differently
        (grad,) = torch.autograd.grad(net(x)[..., s * place : s * place + s, s * 40].sum(), x)
        reached.append(int((grad.abs().sum((0, 1, 3)).nonzero() - place).abs().max()))
    assert max(reached) == net.receptive_radius


@pytest.mark.parametrize("config", SHAPES)
def test_a_previous_result_that_is_not_trusted_changes_nothing(config: CompactConfig) -> None:
    net = CompactNet(config).eval()
    torch.nn.init.normal_(net.state.weight, std=0.1)
    torch.nn.init.normal_(net.gate.weight, std=0.1)
    x, s = torch.rand(1, 3, 16, 16), config.scale
    previous = torch.rand(1, 3, s * 16, s * 16)
    alone = net(x)
    torch.testing.assert_close(net(x, previous, torch.zeros(1, 1, 16, 16)), alone)
    assert float((net(x, previous, torch.ones(1, 1, 16, 16)) - alone).abs().max()) > 0.01


@pytest.mark.parametrize("name", CLASSES)
def test_tiled_equals_untiled_with_the_weights_in_the_package(name: str) -> None:
    x = torch.rand(1, 1, 3, 91, 131)
    whole = restore.load(name, device="cpu", tile=512).restore_frames(x)
    tiled = restore.load(name, device="cpu", tile=48).restore_frames(x)
    assert float((whole - tiled).abs().max()) <= 1 / 255


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
@pytest.mark.parametrize("name", CLASSES)
def test_half_precision_stays_near_fp32(name: str, dtype: str) -> None:
    x = F.interpolate(torch.rand(1, 3, 12, 12), (24, 24), mode="bicubic").clamp(0, 1)[:, None]
    full = restore.load(name, device="cpu", dtype="fp32").restore_frames(x)
    half = restore.load(name, device="cpu", dtype=dtype).restore_frames(x)
    # Only the detail over the bicubic enlargement is computed in fewer bits.
    assert float((full - half).abs().mean()) < (0.004 if dtype == "bf16" else 0.0005)


def test_working_memory_is_about_what_is_declared() -> None:
    restorer = restore.load("compact", device="cpu", dtype="fp32")
    net = restorer.method.net  # type: ignore[attr-defined]
    live: list[int] = []
    hooks = [
        m.register_forward_hook(lambda m, i, o: live.append(o.numel() * 4))
        for m in net.modules()
        if isinstance(m, torch.nn.Conv2d)
    ]
    restorer.restore_frames(torch.rand(1, 1, 3, 32, 32))
    for hook in hooks:
        hook.remove()
    # Three maps of a block live at once, and at the end detail, base and the result.
    assert 3 * max(live) / 32**2 <= Compact.spec.bytes_per_pixel


@pytest.mark.parametrize(
    ("name", "scale", "chosen"),
    [
        ("compact", 4, "compact"),
        ("compact", 2, "compact-x2"),
        ("compact", 1, "compact-x2"),
        ("compact", 2.5, "compact"),
        ("compact", 8, "compact"),
        ("compact-x2", 4, "compact"),
        ("compact-fast", 1.5, "compact-fast-x2"),
        ("compact-fast-x2", 3, "compact-fast"),
    ],
)
def test_the_variant_fits_the_scale(name: str, scale: float, chosen: str) -> None:
    assert variant_for(name, scale) == chosen
    assert fitting(EngineConfig(model=name), scale).model == chosen
    assert restore.load(name, scale=scale, device="cpu").spec.name == chosen
    given = EngineConfig(model=name, weights="mine.safetensors")
    assert fitting(given, scale) is given  # weights that were named are used


def sets_of(config: CompactConfig) -> CompactFile:
    names = ("faithful", "realistic", "noisy")
    return CompactFile(config=config, sets={n: CompactNet(config).state_dict() for n in names})


def test_options_move_between_the_weight_sets() -> None:
    file = sets_of(SHAPES[0])
    key = "tail.weight"
    ends = {name: weights[key] for name, weights in file.sets.items()}

    def at(fidelity: float, denoise: float) -> torch.Tensor:
        return interpolate(file, fidelity=fidelity, denoise=denoise)[key]

    torch.testing.assert_close(at(1, 1), ends["faithful"])
    torch.testing.assert_close(at(0, 1), ends["realistic"])
    torch.testing.assert_close(at(1, 0), ends["noisy"])
    torch.testing.assert_close(at(0.5, 1), (ends["faithful"] + ends["realistic"]) / 2)
    moved = at(0.75, 0.5) - ends["faithful"]
    wanted = 0.25 * (ends["realistic"] - ends["faithful"])
    torch.testing.assert_close(moved, wanted + 0.5 * (ends["noisy"] - ends["faithful"]))


def test_a_file_comes_back_as_it_was_written(tmp_path: Path) -> None:
    file = sets_of(SHAPES[1])
    write_compact(tmp_path / "a.safetensors", file.config, file.sets, {"recipe": "test"})
    read = read_compact(tmp_path / "a.safetensors")
    assert read.config == file.config
    for key, value in file.sets["faithful"].items():
        # stored in fp16: 11 bits of each weight
        torch.testing.assert_close(read.sets["faithful"][key], value, atol=1e-7, rtol=2**-11)
        for name in ("realistic", "noisy"):
            # 127 steps up to the largest difference of a channel; half of one is rounded away
            added = (file.sets[name][key] - value).abs().max()
            error = (read.sets[name][key] - file.sets[name][key]).abs().max()
            assert error <= 0.51 * added / 127 + 2**-14, (name, key)


def test_a_file_with_every_set_in_fp16_is_still_read(tmp_path: Path) -> None:
    file = sets_of(SHAPES[1])
    state = {f"{n}.{k}": v.half() for n, weights in file.sets.items() for k, v in weights.items()}
    shape = {name: str(value) for name, value in asdict(file.config).items()}
    save_weights(tmp_path / "old.safetensors", state, {"format": "restore.compact.v2", **shape})
    read = read_compact(tmp_path / "old.safetensors")
    for name, weights in file.sets.items():
        torch.testing.assert_close(
            read.sets[name]["tail.weight"], weights["tail.weight"], atol=1e-7, rtol=2**-11
        )


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    network = CompactConfig(scale=2, width=8, outer=1, deep=8, inner=1)
    path, weights = tmp_path / "net.safetensors", CompactNet(network).state_dict()
    write_compact(path, network, {"faithful": weights, "realistic": weights})
    tensors, text = open_weights(path)
    damages: dict[str, tuple[torch.Tensor, str]] = {
        "faithful.head.weight": (tensors["faithful.head.weight"] * torch.nan, "is not finite"),
        "faithful.head.bias": (torch.zeros(8, dtype=torch.int32), "holds numbers of torch.int32"),
        "realistic.head.weight.step": (torch.ones(3), "sets that do not fit each other"),
        "realistic.other": (torch.zeros(2), "sets that do not fit each other"),
        "faithful.head.weight ": (torch.zeros(2), "does not fit the compact network"),
    }
    for key, (value, said) in damages.items():
        save_weights(path, {**tensors, key: value}, text)
        with pytest.raises(WeightsError, match=said):
            Compact.load(path, device=torch.device("cpu"), dtype=torch.float32)


def test_weights_beyond_fp16_do_not_replace_a_file(tmp_path: Path) -> None:
    network = CompactConfig(scale=2, width=8, outer=1, deep=8, inner=1)
    path, weights = tmp_path / "net.safetensors", CompactNet(network).state_dict()
    write_compact(path, network, {"faithful": weights})
    good = path.read_bytes()
    names: tuple[SetName, ...] = ("faithful", "realistic")
    for large in (1e6, torch.nan):
        spoilt = {**weights, "head.bias": torch.full_like(weights["head.bias"], large)}
        for name in names:
            with pytest.raises(WeightsError, match=f"cannot hold '{name}.head.bias'"):
                write_compact(path, network, {"faithful": weights, name: spoilt})
    assert path.read_bytes() == good


def test_options_reach_the_network_and_are_part_of_the_settings(tmp_path: Path) -> None:
    file = sets_of(SHAPES[0])
    path = tmp_path / "a.safetensors"
    write_compact(path, file.config, file.sets)
    x = torch.rand(1, 1, 3, 16, 16)

    def restorer(**options: float) -> restore.Restorer:
        return restore.load("compact", weights=str(path), device="cpu", dtype="fp32", **options)

    plain, moved = restorer(), restorer(fidelity=0.3, denoise=0.6)
    assert not torch.allclose(plain.restore_frames(x), moved.restore_frames(x), atol=1e-3)
    assert torch.equal(plain.restore_frames(x), restorer(fidelity=1, denoise=1).restore_frames(x))
    settings = moved.settings()
    assert (settings["fidelity"], settings["denoise"]) == (0.3, 0.6)


def test_options_that_cannot_be_are_refused(tmp_path: Path) -> None:
    file = sets_of(SHAPES[0])
    path = str(tmp_path / "a.safetensors")
    write_compact(Path(path), file.config, {"faithful": file.sets["faithful"]})
    with pytest.raises(OptionError, match=r"fidelity 1.5 is not possible; give 0 to 1"):
        restore.load("compact", fidelity=1.5)
    with pytest.raises(OptionError, match=r"--fidelity 0.5 needs weights.*sets: faithful"):
        restore.load("compact", weights=path, fidelity=0.5, device="cpu")
    with pytest.raises(OptionError, match=r"--denoise 0 needs weights"):
        restore.load("compact", weights=path, denoise=0, device="cpu")


def test_it_beats_bicubic_on_real_pictures(shared_data: Path) -> None:
    from PIL import Image

    from restore.metrics import psnr, ssim

    restorer = restore.load("compact", device="cpu")
    names = sorted(p.name for p in (shared_data / "realsr" / "lr").glob("*.png"))[::20]
    gains = []
    for name in names:
        low = Image.open(shared_data / "realsr" / "lr" / name).convert("RGB")
        high = np.asarray(Image.open(shared_data / "realsr" / "hr" / name).convert("RGB"))
        ours = np.asarray(restorer.restore(low))
        bicubic = np.asarray(low.resize((512, 512), Image.Resampling.BICUBIC))
        gains.append([m(ours, high) - m(bicubic, high) for m in (psnr, ssim)])
    psnr_gain, ssim_gain = torch.tensor(gains).mean(0).tolist()
    # Over all 100 pictures the README's table says more; five of them must agree in sign.
    assert psnr_gain > 0
    assert ssim_gain > 0.015
