"""The network in the package: its size, its exactness under tiling, its worth."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

import restore
from restore.models.compact import Compact, CompactConfig, CompactNet
from restore.registry import METHODS, method_class
from restore.weights import packaged_weights


def test_the_registry_names_exactly_this_class() -> None:
    assert METHODS["compact"] == "restore.models.compact:Compact"
    assert method_class("compact") is Compact
    restorer = restore.load("compact", device="cpu")
    assert type(restorer.method) is Compact
    assert type(restorer.method.net) is CompactNet


def test_it_keeps_to_its_budget() -> None:
    restorer = restore.load("compact", device="cpu")
    net = restorer.method.net  # type: ignore[attr-defined]
    assert net.macs_per_pixel <= 1_300_000
    assert packaged_weights("compact").stat().st_size <= 8 << 20
    weights = load_file(packaged_weights("compact"))
    assert all(bool(torch.isfinite(w).all()) for w in weights.values())
    counted = sum(w.numel() for name, w in weights.items() if name.endswith("weight"))
    assert counted == net.macs_per_pixel  # one multiplication per weight and input pixel


def test_its_declared_overlap_is_its_receptive_field() -> None:
    net = CompactNet(CompactConfig(width=4, blocks=2)).eval()
    x = torch.rand(1, 3, 41, 41, requires_grad=True)
    net(x)[..., 80:84, 80:84].sum().backward()
    reached = x.grad.abs().sum((0, 1)).nonzero()  # type: ignore[union-attr]
    radius = int((reached - 20).abs().max())
    # The bicubic base reaches 2 pixels far and the convolutions 2 * blocks + 2.
    assert radius == net.receptive_radius


def test_tiled_equals_untiled_with_the_weights_in_the_package() -> None:
    x = torch.rand(1, 1, 3, 90, 130)
    whole = restore.load("compact", device="cpu", tile=512).restore_frames(x)
    tiled = restore.load("compact", device="cpu", tile=48).restore_frames(x)
    assert float((whole - tiled).abs().max()) <= 1 / 255


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_half_precision_stays_near_fp32(dtype: str) -> None:
    x = F.interpolate(torch.rand(1, 3, 12, 12), (24, 24), mode="bicubic").clamp(0, 1)[:, None]
    full = restore.load("compact", device="cpu").restore_frames(x)
    half = restore.load("compact", device="cpu", dtype=dtype).restore_frames(x)
    # bf16 keeps 8 bits: steps of 1/256 on values near 1, some layers deep.
    assert float((full - half).abs().mean()) < (0.01 if dtype == "bf16" else 0.002)


def test_working_memory_is_about_what_is_declared() -> None:
    restorer = restore.load("compact", device="cpu")
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
