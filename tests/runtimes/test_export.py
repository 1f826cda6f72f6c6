"""`restore models export`: the file says what it is, computes the same, and is whole or absent."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import restore
from restore.errors import OptionError, OutputError, RestoreError
from restore.runtimes import onnx_runtime

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

NAME = "compact-x2"


def test_the_file_computes_what_the_engine_does(weights: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.onnx"
    exported = restore.export_onnx(NAME, path, weights=weights[NAME])
    assert (exported.path, exported.model, exported.scale) == (path, NAME, 2)
    assert exported.bytes == path.stat().st_size
    assert 0 <= exported.mean <= exported.largest <= 1 / 255
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    restorer = restore.load(NAME, weights=weights[NAME], device="cpu", dtype="fp32")
    for size in ((1, 3, 29, 40), (2, 3, 16, 51)):
        frames = np.random.default_rng(0).random(size, np.float32)
        (result,) = session.run(None, {"frames": frames})
        wanted = restorer.restore_frames(torch.from_numpy(frames)[:, None])[:, 0].numpy()
        assert result.dtype == np.float32
        assert 0 <= result.min() <= result.max() <= 1
        np.testing.assert_allclose(result, wanted, atol=1 / 255, rtol=0)


@pytest.mark.parametrize("temporal", [False, True])
def test_the_file_says_what_it_is(temporal: bool, weights: dict[str, str], tmp_path: Path) -> None:
    settings = {"weights": weights[NAME], "temporal": temporal}
    restore.export_onnx(NAME, tmp_path / "a.onnx", **settings)
    model = onnx.load(str(tmp_path / "a.onnx"))
    onnx.checker.check_model(model, full_check=True)
    about = {prop.key: prop.value for prop in model.metadata_props}
    assert about["model"] == NAME
    assert about["scale"] == "2"
    assert about["range"] == "0 to 1"
    assert about["licence"] == "Apache-2.0"
    assert about["restore_version"] == model.producer_version == restore.__version__
    shapes = {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in [*model.graph.input, *model.graph.output]
    }
    before = {
        "previous": ["batch", 3, "2*height", "2*width"],
        "trust": ["batch", 1, "height", "width"],
    }
    assert shapes == {
        "frames": ["batch", 3, "height", "width"],
        **(before if temporal else {}),
        "result": ["batch", 3, "2*height", "2*width"],
    }


def test_8_bits_are_smaller_and_said(weights: dict[str, str], tmp_path: Path) -> None:
    whole = restore.export_onnx(NAME, tmp_path / "a.onnx", weights=weights[NAME])
    small = restore.export_onnx(NAME, tmp_path / "b.onnx", weights=weights[NAME], int8=True)
    assert small.largest > 10 * whole.largest
    about = onnx.load(str(small.path)).metadata_props
    assert next(prop.value for prop in about if prop.key == "precision") == "int8"


def test_a_file_that_is_there_is_kept_unless_told_otherwise(
    weights: dict[str, str], tmp_path: Path
) -> None:
    path = tmp_path / "a.onnx"
    path.write_bytes(b"mine")
    with pytest.raises(OutputError, match="already there; add --overwrite"):
        restore.export_onnx(NAME, path, weights=weights[NAME])
    assert path.read_bytes() == b"mine"
    restore.export_onnx(NAME, path, weights=weights[NAME], overwrite=True)
    assert path.stat().st_size > 1000
    assert list(tmp_path.iterdir()) == [path]


def test_a_graph_that_computes_something_else_is_not_written(
    weights: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    restorer = restore.load(NAME, weights=weights[NAME], device="cpu", dtype="fp32")
    graph = onnx_runtime.graph_of(
        restorer.method.net,  # type: ignore[attr-defined]
        restorer.spec,
        precision="fp32",
        temporal=False,
    )
    monkeypatch.setattr(onnx_runtime, "graph_of", lambda *_, **__: graph)
    path = tmp_path / "a.onnx"
    with pytest.raises(RestoreError, match=r"something else than PyTorch.*nothing was written"):
        restore.export_onnx(NAME, path, weights=weights[NAME], fidelity=0.0)
    assert not path.exists()


def test_a_place_that_cannot_be_written_is_said(weights: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="cannot be written"):
        restore.export_onnx(NAME, tmp_path / "file" / "a.onnx", weights=weights[NAME])


def test_what_cannot_be_is_refused_with_what_can(
    weights: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OptionError, match=r"unknown model 'compat'; did you mean 'compact'"):
        restore.export_onnx("compat")
    with pytest.raises(OptionError, match=r"unknown setting 'tile'; allowed: .*temporal"):
        restore.export_onnx(NAME, tile=3)
    with pytest.raises(OptionError, match=r"'a.pth' is another format's; end it \.onnx"):
        restore.export_onnx(NAME, "a.pth")
    with pytest.raises(OptionError, match=r"no variant for x3, the nearest is x2"):
        restore.export_onnx(NAME, weights=weights[NAME], scale=3)
    kind = restore.load(NAME, weights=weights[NAME], device="cpu").method.__class__
    for change, said in (
        ({"recurrent": False}, "carries nothing between frames; leave --temporal out"),
        ({"exportable": False}, "has no ONNX graph"),
    ):
        monkeypatch.setattr(kind, "spec", replace(kind.spec, **change))  # type: ignore[attr-defined]
        with pytest.raises(OptionError, match=said):
            restore.export_onnx(NAME, weights=weights[NAME], temporal=True)
    assert not list(tmp_path.iterdir())


def test_the_variant_for_a_scale_names_the_file(
    weights: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("restore.engine.locate_weights", lambda _: Path(weights[NAME]))
    exported = restore.export_onnx("compact", scale=2)
    assert (exported.model, exported.path.name) == (NAME, f"{NAME}.onnx")
    assert math.isfinite(exported.largest)
