"""ONNX Runtime in the place of PyTorch: the same pictures, made once, with errors that help."""

from __future__ import annotations

import importlib.util
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_method import fake_restorer
from torch import nn

import restore
from restore.errors import MissingExtraError, OptionError
from restore.runtimes import cache, onnx_runtime
from restore.runtimes.calibration import make_inputs, make_picture
from restore.runtimes.onnx_runtime import OnnxNet, graph_of

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

MODELS = ["compact-x2", "compact-fast"]
EXACT = 1e-4
"""Of float32 sums in another order; the promise of 1/255 is forty times as much."""


def load(name: str, weights: dict[str, str], **settings: Any) -> restore.Restorer:
    return restore.load(name, weights=weights[name], device="cpu", **settings)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("size", [(1, 1), (1, 65), (2, 2), (37, 50), (64, 48), (300, 9)])
def test_pictures_of_any_size_equal_those_of_pytorch(
    name: str, size: tuple[int, int], weights: dict[str, str]
) -> None:
    frames = torch.rand(2, 1, 3, *size)
    ours = load(name, weights, runtime="onnx", dtype="fp32").restore_frames(frames)
    theirs = load(name, weights, dtype="fp32").restore_frames(frames)
    torch.testing.assert_close(ours, theirs, atol=EXACT, rtol=0)


@pytest.mark.parametrize("size", [(31, 44), (64, 48)])
@pytest.mark.parametrize(
    "name", ["compact-x2", pytest.param("compact-fast", marks=pytest.mark.slow)]
)
def test_frames_after_others_equal_those_of_pytorch(
    name: str, size: tuple[int, int], weights: dict[str, str]
) -> None:
    frames, trust = torch.rand(1, 1, 3, *size), torch.rand(1, 1, *size)
    results = []
    for runtime in ("onnx", "torch"):
        restorer = load(name, weights, runtime=runtime, dtype="fp32")
        scale = restorer.spec.scale
        previous = torch.rand(
            1, 3, scale * size[0], scale * size[1], generator=torch.Generator().manual_seed(1)
        )
        results.append(restorer.restore_frames(frames, previous=previous, trust=trust))
    torch.testing.assert_close(*results, atol=EXACT, rtol=0)
    alone = restorer.restore_frames(frames)
    assert float((results[1] - alone).abs().max()) > 0.05  # what came before does matter here


def test_tiles_do_not_show(weights: dict[str, str]) -> None:
    frames = torch.rand(1, 1, 3, 70, 90)
    whole, tiled = (
        load("compact-x2", weights, runtime="onnx", dtype="fp32", tile=tile).restore_frames(frames)
        for tile in (512, 32)
    )
    torch.testing.assert_close(tiled, whole, atol=EXACT, rtol=0)


@pytest.mark.parametrize("temporal", [False, True])
def test_8_bits_stay_near_pytorch(temporal: bool, weights: dict[str, str]) -> None:
    restorer = load("compact-x2", weights, runtime="onnx")
    theirs = load("compact-x2", weights, dtype="fp32")
    assert restorer.settings()["dtype"] == "int8"
    assert restorer.settings()["runtime"] == "onnx"
    # Other pictures than those that the ranges were taken from.
    (frames, *before) = next(make_inputs(theirs.method.net, temporal=temporal, seed=7))  # type: ignore[attr-defined]
    given = dict(zip(("previous", "trust"), before, strict=False))
    ours, exact = (r.restore_frames(frames[:, None], **given) for r in (restorer, theirs))
    difference = (ours - exact).abs()
    # Rounding of 7 or 8 bits after each layer; one that is off by much more is not calibrated.
    assert 0 < float(difference.mean()) < 2 / 255
    assert float(difference.max()) < 20 / 255


def test_only_the_first_convolutions_are_left_in_float(weights: dict[str, str]) -> None:
    net = load("compact-x2", weights, dtype="fp32").method.net  # type: ignore[attr-defined]
    spec = load("compact-x2", weights).spec
    model = onnx.load_from_string(graph_of(net, spec, precision="int8", temporal=False))
    produced = {output: node for node in model.graph.node for output in node.output}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    in_8_bits = [n for n in convolutions if produced[n.input[0]].op_type == "DequantizeLinear"]
    # head and enlargement read the picture; down, two of the block, up and tail read features
    assert (len(convolutions), len(in_8_bits)) == (7, 5)


def test_a_graph_is_made_once(
    weights: dict[str, str],
    graphs: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    frames = torch.rand(1, 1, 3, 8, 8)
    first = load("compact-x2", weights, runtime="onnx").restore_frames(frames)
    monkeypatch.setattr(onnx_runtime, "make_graph", None)  # another call would fail
    monkeypatch.setattr(onnx_runtime, "in_8_bits", None)
    again = load("compact-x2", weights, runtime="onnx").restore_frames(frames)
    assert torch.equal(first, again)


def test_other_weights_are_another_graph(weights: dict[str, str]) -> None:
    keys = {
        cache.cache_key(load("compact-x2", weights, fidelity=f, dtype="fp32").method.net, about)  # type: ignore[attr-defined]
        for f in (1.0, 0.5)
        for about in ("int8", "fp32")
    }
    assert len(keys) == 4


def test_damaged_and_old_graphs_go_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "cache_folder", lambda: tmp_path)
    made: list[bytes] = []

    def make(content: bytes) -> bytes:
        made.append(content)
        return content

    assert cache.remembered("a", lambda: make(b"graph")) == b"graph"
    assert cache.remembered("a", lambda: make(b"graph")) == b"graph"
    assert len(made) == 1
    (tmp_path / "a.graph").write_bytes(b"graph of half a length" * 3)
    assert cache.remembered("a", lambda: make(b"graph")) == b"graph"
    assert len(made) == 2
    for i in range(cache.KEPT + 5):
        cache.remembered(f"b{i}", lambda: b"x")
    assert len(list(tmp_path.iterdir())) == cache.KEPT


def test_a_folder_that_cannot_be_written_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setattr(cache, "cache_folder", lambda: tmp_path / "file" / "graphs")
    assert cache.remembered("a", lambda: b"graph") == b"graph"


def test_without_the_extra_the_command_is_named(
    weights: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    there = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "onnxscript" else there(name)
    )
    with pytest.raises(MissingExtraError, match=r"installed: onnxscript; run: .*'\.\[onnx\]'"):
        load("compact-x2", weights, runtime="onnx")


def test_a_method_without_a_graph_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(OptionError, match=r"'fake' is more than one network.*leave --runtime out"):
        fake_restorer(monkeypatch, tmp_path, runtime="onnx")


def test_tiles_are_halved_when_its_memory_runs_out(
    weights: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    restorer = load("compact-x2", weights, runtime="onnx", dtype="fp32", tile=64)
    frames = torch.rand(1, 1, 3, 64, 64)
    whole = restorer.restore_frames(frames)
    net: OnnxNet = restorer.method.net  # type: ignore[attr-defined]
    session = net._session(temporal=False)

    class Small:
        def run(self, names: None, given: dict[str, Any]) -> Any:
            if given["frames"].size > 3 * 60 * 60:
                raise ValueError("Failed to allocate memory for requested buffer of size 1")
            return session.run(names, given)

    net._sessions[False] = Small()
    with caplog.at_level(logging.WARNING, logger="restore"):
        tiled = restorer.restore_frames(frames)
    assert "tiles are halved" in caplog.text
    torch.testing.assert_close(tiled, whole, atol=EXACT, rtol=0)


def test_calibration_depends_on_its_seed_alone() -> None:
    def shown(seed: int) -> list[torch.Tensor]:
        net = nn.Upsample(scale_factor=2)
        return [value for given in make_inputs(net, temporal=True, seed=seed) for value in given]

    first, other = shown(0), shown(1)
    assert all(torch.equal(a, b) for a, b in zip(first, shown(0), strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, other, strict=True))
    for value in first:
        assert 0 <= float(value.min()) < float(value.max()) <= 1


def test_calibration_pictures_have_the_spectrum_of_photographs() -> None:
    generator = torch.Generator().manual_seed(0)
    power = torch.zeros(96, 96)
    for _ in range(24):
        power += torch.fft.fft2(make_picture(generator)[0].mean(0)).abs() ** 2
    y, x = (torch.fft.fftfreq(96)[:, None] * 96, torch.fft.fftfreq(96)[None] * 96)
    radius = (x**2 + y**2).sqrt()
    low, high = (float(power[(radius >= r) & (radius < 2 * r)].mean()) for r in (3, 12))
    # Photographs: about 1 / f^2 (Field 1987); two octaves between the bands are a factor of 16.
    assert 6 < low / high < 60
