"""The engine: tiles equal the whole, faults cost nothing that is finished, seeds repeat."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fake_method import fake_restorer
from PIL import Image

import restore
from restore.config import EngineConfig
from restore.devices import available_devices, choose_device
from restore.errors import OptionError, RestoreError, WeightsError
from restore.method import MethodSpec

STEP = 1 / 255  # what the issue allows between a tiled and an untiled result


@pytest.mark.parametrize("size", [(50, 70), (33, 200), (64, 64)])
@pytest.mark.parametrize("tile", [32, 48])
def test_tiled_equals_untiled(
    size: tuple[int, int], tile: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    frames = torch.rand(1, 1, 3, *size)
    whole = fake_restorer(monkeypatch, tmp_path, tile=512).restore_frames(frames)
    tiled = fake_restorer(monkeypatch, tmp_path, tile=tile).restore_frames(frames)
    # The overlap holds the receptive field, so only rounding differs.
    torch.testing.assert_close(tiled, whole, atol=1e-5, rtol=0)


def carried(frames: torch.Tensor) -> dict[str, torch.Tensor]:
    """A previous result and a trust for frames that are enlarged x2."""
    batch, _, _, height, width = frames.shape
    previous = torch.rand(batch, 3, 2 * height, 2 * width)
    return {"previous": previous, "trust": torch.rand(batch, 1, height, width)}


@pytest.mark.parametrize("size", [(50, 70), (33, 200)])
@pytest.mark.parametrize("final", [None, (90, 61)])
def test_tiled_equals_untiled_with_a_previous_result(
    size: tuple[int, int],
    final: tuple[int, int] | None,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    spec = {"recurrent": True, "size_multiple": 4}
    frames = torch.rand(2, 1, 3, *size)
    past = carried(frames)

    def run(tile: int, **past: torch.Tensor) -> torch.Tensor:
        restorer = fake_restorer(monkeypatch, tmp_path, spec=spec, tile=tile)
        return restorer.restore_frames(frames, size=final, **past)

    whole = run(512, **past)
    torch.testing.assert_close(run(32, **past), whole, atol=1e-5, rtol=0)
    assert float((whole - run(512)).abs().max()) > 0.1


def test_out_of_memory_cuts_the_previous_result_as_the_frame(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    frames = torch.rand(1, 1, 3, 96, 160)
    past = carried(frames)
    spec = {"recurrent": True}
    whole = fake_restorer(monkeypatch, tmp_path, spec=spec, tile=512).restore_frames(frames, **past)
    restorer = fake_restorer(monkeypatch, tmp_path, spec=spec, tile=128)
    restorer.method.memory_limit = 60 * 60  # type: ignore[attr-defined]
    result = restorer.restore_frames(frames, **past)
    torch.testing.assert_close(result, whole, atol=1e-5, rtol=0)
    assert restorer.tile < 128


def test_a_previous_result_that_has_no_use_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    frames = torch.rand(1, 1, 3, 16, 16)
    past = carried(frames)
    with pytest.raises(OptionError, match="carries nothing from frame to frame") as caught:
        fake_restorer(monkeypatch, tmp_path).restore_frames(frames, **past)
    assert "\n" not in str(caught.value)
    restorer = fake_restorer(monkeypatch, tmp_path, spec={"recurrent": True})
    with pytest.raises(ValueError, match="belong together"):
        restorer.restore_frames(frames, previous=past["previous"])
    with pytest.raises(ValueError, match="shape"):
        restorer.restore_frames(frames, previous=frames[:, 0], trust=past["trust"])


@pytest.mark.parametrize(
    "both",
    [
        {"recurrent": True, "frames_before": 1},
        {"recurrent": True, "streaming": True},
        {"streaming": True, "frames_after": 1},
    ],
)
def test_a_method_has_a_window_or_a_past(both: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="one of them at a time"):
        MethodSpec(name="both", summary="", scale=2, overlap=0, **both)


def test_tiles_without_context_do_differ(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    frames = torch.rand(1, 1, 3, 64, 64)
    whole = fake_restorer(monkeypatch, tmp_path, tile=512).restore_frames(frames)
    blind = fake_restorer(monkeypatch, tmp_path, tile=32, tile_overlap=0).restore_frames(frames)
    assert float((blind - whole).abs().max()) > STEP


@pytest.mark.parametrize("size", [(5, 7), (33, 47), (40, 61)])
def test_padding_to_a_multiple_and_a_smallest_size_is_cropped_again(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    spec = {"size_multiple": 8, "min_size": 16}
    restorer = fake_restorer(monkeypatch, tmp_path, spec=spec, tile=32)
    assert restorer.restore_frames(torch.rand(1, 1, 3, *size)).shape[-2:] == (
        2 * size[0],
        2 * size[1],
    )


@pytest.mark.parametrize("limit", [60 * 60, 45 * 45])
def test_out_of_memory_halves_the_tiles_and_keeps_what_is_done(
    limit: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    frames = torch.rand(1, 1, 3, 96, 160)
    whole = fake_restorer(monkeypatch, tmp_path, tile=512).restore_frames(frames)
    restorer = fake_restorer(monkeypatch, tmp_path, tile=128)
    restorer.method.memory_limit = limit  # type: ignore[attr-defined]
    result = restorer.restore_frames(frames)
    torch.testing.assert_close(result, whole, atol=1e-5, rtol=0)
    assert restorer.tile < 128
    assert restorer.method.largest_window <= limit  # type: ignore[attr-defined]


def test_memory_that_never_suffices_is_said_in_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    restorer = fake_restorer(monkeypatch, tmp_path, tile=64)
    restorer.method.memory_limit = 0  # type: ignore[attr-defined]
    with pytest.raises(RestoreError, match="does not suffice for a tile of 32") as caught:
        restorer.restore_frames(torch.rand(1, 1, 3, 64, 64))
    assert "\n" not in str(caught.value)


def test_other_errors_are_not_taken_for_lack_of_memory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    restorer = fake_restorer(monkeypatch, tmp_path)

    def broken(frames: torch.Tensor, *, generator: torch.Generator) -> torch.Tensor:
        raise RuntimeError("shape mismatch")

    monkeypatch.setattr(restorer.method, "restore", broken)
    with pytest.raises(RuntimeError, match="shape mismatch"):
        restorer.restore_frames(torch.rand(1, 1, 3, 8, 8))


def test_nan_in_half_precision_is_computed_again_in_fp32(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    frames = torch.rand(1, 1, 3, 40, 40)
    plain = fake_restorer(monkeypatch, tmp_path).restore_frames(frames)
    spec = {"dtypes": ("bf16", "fp32")}
    restorer = fake_restorer(monkeypatch, tmp_path, spec=spec, dtype="bf16")
    restorer.method.nan_below_fp32 = True  # type: ignore[attr-defined]
    torch.testing.assert_close(restorer.restore_frames(frames), plain, atol=0.02, rtol=0)
    assert restorer.method.dtype == torch.bfloat16  # type: ignore[attr-defined]


def test_nan_in_fp32_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    restorer = fake_restorer(monkeypatch, tmp_path)
    restorer.method.always_nan = True  # type: ignore[attr-defined]
    with pytest.raises(RestoreError, match="NaN in fp32"):
        restorer.restore_frames(torch.rand(1, 1, 3, 8, 8))


def test_the_same_seed_and_frame_repeat_and_others_differ(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    frames = torch.full((1, 1, 3, 40, 70), 0.5)

    def run(seed: int, index: int) -> torch.Tensor:
        restorer = fake_restorer(monkeypatch, tmp_path, seed=seed, tile=32)
        restorer.method.noise = 0.1  # type: ignore[attr-defined]
        return restorer.restore_frames(frames, index=index)

    first = run(1, 7)
    assert torch.equal(first, run(1, 7))
    assert not torch.equal(first, run(2, 7))
    assert not torch.equal(first, run(1, 8))


@pytest.mark.parametrize("kind", ["wavelet", "adain"])
def test_color_fix_brings_back_the_mean_color(
    kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    frames = torch.rand(1, 1, 3, 48, 48) * 0.2 + torch.tensor([0.2, 0.4, 0.6])[:, None, None]
    plain = fake_restorer(monkeypatch, tmp_path).restore_frames(frames)
    fixed = fake_restorer(monkeypatch, tmp_path, color_fix=kind).restore_frames(frames)
    error = (fixed.mean((-2, -1)) - frames.mean((-2, -1))).abs().max()
    before = (plain.mean((-2, -1)) - frames.mean((-2, -1))).abs().max()
    assert float(error) < 0.4 * float(before)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(20, 30), (20, 30, 1), (20, 30, 2), (20, 30, 3), (20, 30, 4)])
def test_numpy_in_numpy_out(
    dtype: type, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    highest = np.iinfo(dtype).max if np.issubdtype(dtype, np.integer) else 1
    image = (np.random.default_rng(0).random(shape) * highest).astype(dtype)
    result = fake_restorer(monkeypatch, tmp_path).restore(image)
    assert result.dtype == image.dtype
    assert result.shape == (40, 60, *shape[2:])


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P", "CMYK", "1", "I;16"])
def test_pil_in_pil_out(mode: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    image = Image.effect_noise((30, 20), 50)
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image).astype(np.uint16) * 257)
    else:
        image = image.convert("RGB").convert(mode)
    result = fake_restorer(monkeypatch, tmp_path).restore(image)
    assert isinstance(result, Image.Image)
    assert result.size == (60, 40)
    kept = {"P": "RGB", "CMYK": "RGB", "1": "L"}.get(mode, mode)
    assert result.mode == kept


@pytest.mark.parametrize("shape", [(3, 8, 9), (2, 3, 8, 9), (2, 4, 3, 8, 9), (1, 8, 9)])
def test_tensor_in_tensor_out(
    shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    result = fake_restorer(monkeypatch, tmp_path).restore(torch.rand(shape))
    assert result.shape == (*shape[:-2], 16, 18)


def test_a_clip_tensor_gives_each_frame_its_neighbours(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    spec = {"frames_before": 1, "frames_after": 1}
    restorer = fake_restorer(monkeypatch, tmp_path, spec=spec)
    clip = torch.rand(1, 4, 3, 8, 8)
    result = restorer.restore(clip)
    first = restorer.restore_frames(clip[:, [0, 0, 1]], index=0)
    torch.testing.assert_close(result[:, :1], first)


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ("a.png", "cannot restore a str"),
        (np.zeros((4, 4, 5), np.uint8), "shape"),
        (np.zeros((0, 4, 3), np.uint8), "shape"),
        (np.zeros((4, 4, 3), np.int32), "int32"),
        (np.full((4, 4, 3), 200.0), "float values go from"),
        (np.full((4, 4, 3), np.nan), "NaN"),
        (torch.zeros(4, 4), "shape"),
    ],
)
def test_impossible_inputs_are_named(
    bad: object, said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(OptionError, match=said):
        fake_restorer(monkeypatch, tmp_path).restore(bad)


@pytest.mark.parametrize(("scale", "expected"), [(2, (40, 60)), (1.5, (30, 45)), (0.5, (10, 15))])
def test_any_scale_is_reached_by_resampling(
    scale: float, expected: tuple[int, int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    result = fake_restorer(monkeypatch, tmp_path).restore(torch.rand(3, 20, 30), scale=scale)
    assert result.shape[-2:] == expected


@pytest.mark.parametrize("size", [(75, 91), (140, 100), (300, 411), (33, 20)])
def test_tiles_resampled_one_by_one_equal_the_whole_resampled(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    frames = torch.rand(1, 1, 3, 70, 90)
    whole = fake_restorer(monkeypatch, tmp_path, tile=512).restore_frames(frames, size=size)
    tiled = fake_restorer(monkeypatch, tmp_path, tile=32).restore_frames(frames, size=size)
    assert whole.shape == (1, 1, 3, size[1], size[0])
    torch.testing.assert_close(tiled, whole, atol=1e-5, rtol=0)


def test_wrong_names_are_answered_with_the_right_ones() -> None:
    with pytest.raises(OptionError, match="did you mean 'compact'"):
        restore.load("compac")
    with pytest.raises(OptionError, match="unknown setting 'tiles'"):
        restore.load("compact", tiles=3)
    with pytest.raises(OptionError, match="devices of this machine"):
        choose_device("cuda:99")
    with pytest.raises(WeightsError, match="no weight file"):
        restore.load("compact", weights="missing.safetensors", device="cpu")
    assert available_devices()[-1] == "cpu"


def test_a_number_format_that_a_method_lacks_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(OptionError, match="does not run in fp16; allowed: fp32"):
        fake_restorer(monkeypatch, tmp_path, dtype="fp16")


def test_settings_repeat_a_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    restorer = fake_restorer(monkeypatch, tmp_path)
    settings = restorer.settings()
    names = set(EngineConfig.__dataclass_fields__) - {"weights", "base"}
    names |= {"weights_hash", "base_hash"}
    assert set(settings) == names
    assert settings["tile"] == restorer.tile > 0
