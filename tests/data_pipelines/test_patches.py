"""Patches come out of folders as they are, once decoded."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from restore.data_pipelines.patches import PatchFolder, PatchSource, picture_files
from restore.errors import InputError, OptionError


def make_pictures(folder: Path, *, count: int = 3, side: int = 40) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    for i in range(count):
        pixels = random.integers(0, 256, (side, side + 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"bild-ü{i}.png")


def test_a_patch_is_a_piece_of_a_picture(tmp_path: Path) -> None:
    make_pictures(tmp_path, count=1)
    picture = np.asarray(Image.open(next(tmp_path.glob("*.png"))))
    source = PatchSource([PatchFolder(path=str(tmp_path))], patch=8)
    patches = source.draw(6, torch.Generator().manual_seed(1))
    assert patches.shape == (6, 3, 8, 8)
    windows = np.lib.stride_tricks.sliding_window_view(picture, (8, 8, 3)).reshape(-1, 8, 8, 3)
    known = {w.tobytes() for w in windows}
    for patch in patches.mul(255).round().byte().permute(0, 2, 3, 1).numpy():
        turned = [np.rot90(p, k) for p in (patch, patch[:, ::-1]) for k in range(4)]
        assert any(np.ascontiguousarray(t).tobytes() in known for t in turned)


def test_the_same_generator_draws_the_same_patches(tmp_path: Path) -> None:
    make_pictures(tmp_path)
    folder = PatchFolder(path=str(tmp_path), shrink=0.5)
    first, again = (
        PatchSource([folder], patch=16).draw(5, torch.Generator().manual_seed(2)) for _ in range(2)
    )
    assert torch.equal(first, again)


def test_weights_decide_between_folders(tmp_path: Path) -> None:
    for name, value in (("dark", 0), ("bright", 255)):
        (tmp_path / name).mkdir()
        Image.new("RGB", (16, 16), (value,) * 3).save(tmp_path / name / "a.png")
    folders = [
        PatchFolder(path=str(tmp_path / "dark"), weight=0.2),
        PatchFolder(path=str(tmp_path / "bright"), weight=0.8),
    ]
    patches = PatchSource(folders, patch=8).draw(300, torch.Generator().manual_seed(0))
    assert 0.7 < float(patches.mean()) < 0.9


def test_pictures_smaller_than_a_patch_are_enlarged(tmp_path: Path) -> None:
    make_pictures(tmp_path, side=10)
    source = PatchSource([PatchFolder(path=str(tmp_path))], patch=32)
    assert source.draw(2, torch.Generator()).shape == (2, 3, 32, 32)


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="no training folder at"):
        PatchSource([PatchFolder(path=str(tmp_path / "none"))], patch=8)
    with pytest.raises(OptionError, match="holds no pictures"):
        PatchSource([PatchFolder(path=str(tmp_path))], patch=8)
    (tmp_path / "a.png").write_bytes(b"no picture")
    source = PatchSource([PatchFolder(path=str(tmp_path))], patch=8)
    with pytest.raises(InputError, match=r"a\.png is not a readable picture"):
        source.draw(1, torch.Generator())
    (tmp_path / "a.png").unlink()
    with pytest.raises(InputError, match=r"a\.png cannot be read \(No such file"):
        source.draw(1, torch.Generator())


def test_what_only_looks_like_a_picture_is_passed_over(tmp_path: Path) -> None:
    make_pictures(tmp_path, count=1)
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    assert [file.name for file in picture_files(tmp_path)] == ["bild-ü0.png"]
