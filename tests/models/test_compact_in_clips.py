"""The compact network goes on from its last result: in tiles as in the whole, and steadier."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

import restore
from restore.method import Recurrent
from restore.models.compact_net import CompactConfig, CompactNet
from restore.models.compact_weights import write_compact
from restore.streaming import FrameStream

SHAPES = [
    CompactConfig(scale=2, width=4, outer=1, deep=8, inner=1),
    CompactConfig(scale=4, width=0, outer=0, deep=8, inner=1),
]


@pytest.fixture(params=SHAPES, ids=["both sizes", "half size"])
def weights(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Random weights whose gate keeps about half of the past."""
    net = CompactNet(request.param)
    with torch.no_grad():
        net.state.weight.normal_(std=0.05)
        net.gate.weight.normal_(std=0.05)
        net.gate.bias.zero_()
    path = tmp_path / "a.safetensors"
    write_compact(path, request.param, {"faithful": net.state_dict()})
    return path


def loaded(weights: Path, **settings: object) -> restore.Restorer:
    return restore.load("compact", weights=str(weights), device="cpu", dtype="fp32", **settings)


def test_tiled_equals_untiled_with_a_previous_result(weights: Path) -> None:
    whole, tiled = loaded(weights, tile=512), loaded(weights, tile=32)
    assert isinstance(whole.method, Recurrent)
    s = whole.spec.scale
    frames = torch.rand(1, 1, 3, 61, 83)  # odd: padded to the network's multiple
    past = {"previous": torch.rand(1, 3, s * 61, s * 83), "trust": torch.rand(1, 1, 61, 83)}
    result = whole.restore_frames(frames, **past)
    # The overlap holds the receptive field, that of the previous result included.
    torch.testing.assert_close(tiled.restore_frames(frames, **past), result, atol=1e-5, rtol=0)
    assert float((result - whole.restore_frames(frames)).abs().max()) > 0.1


def test_a_still_noisy_clip_flickers_less_than_frame_by_frame(weights: Path) -> None:
    restorer = loaded(weights)
    scene = F.interpolate(torch.rand(1, 3, 6, 8), (36, 48), mode="bicubic")[0]
    clip = (0.2 + 0.6 * scene + 0.02 * torch.randn(8, 3, 36, 48)).clamp(0, 1)
    change = []
    for temporal in (True, False):
        stream = FrameStream(restorer, temporal=temporal)
        results = torch.stack([stream.push(frame, i)[0][1] for i, frame in enumerate(clip)])
        change.append(float(results[3:].diff(dim=0).square().mean()))
    # With half of the past in each frame, the change of white noise falls to a sixth.
    assert change[0] < 0.5 * change[1]


@pytest.mark.gpu
def test_a_gpu_gives_the_clip_that_the_cpu_gives(weights: Path) -> None:
    clip = F.interpolate(torch.rand(4, 3, 9, 12), (36, 48), mode="bicubic").clamp(0, 1)
    results = []
    for device in ("cpu", "cuda"):
        restorer = restore.load("compact", weights=str(weights), device=device, dtype="fp32")
        stream = FrameStream(restorer)
        results.append(torch.stack([stream.push(frame, i)[0][1] for i, frame in enumerate(clip)]))
    # TF32 convolutions and another order of sums: a fraction of a level.
    torch.testing.assert_close(results[1], results[0], atol=2e-3, rtol=0)
