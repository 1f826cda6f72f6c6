"""Packed sets give back what was packed, and only read what they are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from restore.data_config import PackConfig
from restore.data_pipelines.clips import ClipFile, ClipSource
from restore.data_pipelines.pack import pack_patches
from restore.data_pipelines.packed import PackedSet, write_packed
from restore.data_pipelines.patches import PatchFolder, PatchSource
from restore.errors import InputError, OptionError, OutputError
from restore.weights import save_weights


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two noise pictures, one with nine times the pixels of the other."""
    folder = tmp_path / "photos"
    folder.mkdir()
    random = np.random.default_rng(0)
    for name, side in (("small", 64), ("large", 192)):
        pixels = random.integers(0, 256, (side, side, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}.png")
    return folder


def config(tmp_path: Path, **fields: object) -> PackConfig:
    plain = PackConfig(output=str(tmp_path / "set.safetensors"), patch=32, count=20, codec="png")
    return replace(plain, **fields)  # type: ignore[arg-type]


def test_png_patches_come_back_bit_for_bit(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    patches = [random.integers(0, 256, (8, 8, 3), dtype=np.uint8) for _ in range(5)]
    assert write_packed(tmp_path / "a.safetensors", patches, codec="png", quality=1) == 5
    packed = PackedSet(tmp_path / "a.safetensors")
    assert len(packed) == 5
    for i, patch in enumerate(patches):
        np.testing.assert_array_equal(packed.picture(i), patch)


def test_jpeg_patches_come_back_nearly_with_their_colours(tmp_path: Path) -> None:
    patch = np.zeros((16, 16, 3), np.uint8)
    patch[:, ::2] = (255, 0, 0)  # columns of red and blue: lost where colour is stored coarsely
    patch[:, 1::2] = (0, 0, 255)
    write_packed(tmp_path / "a.safetensors", [patch], codec="jpeg", quality=95)
    back = PackedSet(tmp_path / "a.safetensors").picture(0)
    assert np.abs(back.astype(int) - patch).mean() < 8


def test_every_patch_is_a_piece_of_a_picture(photos: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    size = pack_patches(
        [str(photos)],
        config=config(tmp_path),
        progress=lambda done, total: seen.append((done, total)),
    )
    path = tmp_path / "set.safetensors"
    assert size == path.stat().st_size
    assert seen == [(i, 20) for i in range(1, 21)]
    known = set()
    for file in photos.iterdir():
        picture = np.asarray(Image.open(file))
        windows = np.lib.stride_tricks.sliding_window_view(picture, (32, 32, 3))
        known |= {w.tobytes() for w in windows.reshape(-1, 32, 32, 3)}
    packed = PackedSet(path)
    assert len(packed) == 20
    assert all(packed.picture(i).tobytes() in known for i in range(20))


def test_the_same_seed_packs_the_same_bytes(photos: Path, tmp_path: Path) -> None:
    files = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        files.append(tmp_path / f"{name}.safetensors")
        pack_patches(
            [str(photos)], config=config(tmp_path, output=str(files[-1]), seed=seed, shrink=0.5)
        )
    first, again, other = (path.read_bytes() for path in files)
    assert first == again != other


def test_places_with_detail_are_preferred(tmp_path: Path) -> None:
    """Half of a picture is noise, half is flat: with one place of two, 3 of 4 have noise."""
    pixels = np.full((64, 1024, 3), 128, np.uint8)
    pixels[:, 512:] = np.random.default_rng(0).integers(0, 256, (64, 512, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "half.png")
    pack_patches([str(tmp_path / "half.png")], config=config(tmp_path, count=200))
    packed = PackedSet(tmp_path / "set.safetensors")
    noisy = sum(packed.picture(i).std() > 1 for i in range(200))
    assert 0.65 * 200 < noisy < 0.87 * 200  # 3 / 4 and 3 standard deviations, and the border


def test_a_recipe_reads_a_packed_set_as_it_reads_a_folder(photos: Path, tmp_path: Path) -> None:
    pack_patches([str(photos)], config=config(tmp_path))
    source = PatchSource([PatchFolder(path=str(tmp_path / "set.safetensors"))], patch=16)
    first = source.draw(3, torch.Generator().manual_seed(0))
    assert first.shape == (3, 3, 16, 16)
    assert torch.equal(first, source.draw(3, torch.Generator().manual_seed(0)))


def test_other_files_are_refused(photos: Path, tmp_path: Path) -> None:
    save_weights(tmp_path / "net.safetensors", {"a": torch.zeros(2)}, {"format": "other"})
    for path in (tmp_path / "net.safetensors", next(photos.iterdir())):
        with pytest.raises(InputError, match="is not a packed patch set"):
            PatchSource([PatchFolder(path=str(path))], patch=16)
    pack_patches([str(photos)], config=config(tmp_path))
    with pytest.raises(OutputError, match="already there; add --overwrite"):
        pack_patches([str(photos)], config=config(tmp_path))
    with pytest.raises(InputError, match="none is not there"):
        pack_patches([str(tmp_path / "none")], config=config(tmp_path, overwrite=True))
    below = str(next(photos.iterdir()) / "set.safetensors")
    with pytest.raises(OutputError, match="cannot be made"):
        pack_patches([str(photos)], config=config(tmp_path, output=below))
    (photos / "text.png").write_text("no picture")
    with pytest.raises(InputError, match=r"text\.png is not a readable picture"):
        pack_patches([str(photos)], config=config(tmp_path, overwrite=True))
    with pytest.raises(OptionError, match="holds clips of 1 frames; 3 are asked for"):
        ClipSource([ClipFile(path=str(tmp_path / "set.safetensors"))], frames=3, side=16)


def test_a_picture_too_large_to_be_one_is_named(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 64)  # refused from twice that on
    with pytest.raises(InputError, match=r"large\.png is too large to be a picture"):
        pack_patches([str(photos)], config=config(tmp_path))
    assert not (tmp_path / "set.safetensors").exists()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"patch": 8}, "patch 8 is not possible; give 32 to 4096"),
        ({"shrink": 0.0}, "shrink 0 is not possible"),
        ({"codec": "gif"}, "codec 'gif' is unknown; allowed: jpeg, png"),
        ({"output": "set.npz"}, "end it .safetensors"),
        ({"seed": -1}, "seed -1 is negative"),
        ({"seed": 2**64}, "seed 18446744073709551616 is too large"),
    ],
)
def test_impossible_settings_are_named(fields: dict[str, object], said: str) -> None:
    with pytest.raises(OptionError, match=said.replace("[", r"\[")):
        PackConfig(**fields)  # type: ignore[arg-type]
