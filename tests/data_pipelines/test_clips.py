"""Pieces of clips are consecutive frames, from the times that were asked for."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
import torch

from restore.data_config import PackConfig
from restore.data_pipelines.clips import ClipFile, ClipSource, VideoClips, read_frames
from restore.data_pipelines.pack import pack_patches
from restore.data_pipelines.packed import PackedSet
from restore.errors import InputError, OptionError

RATE, FRAMES = 10, 20


@pytest.fixture
def film(tmp_path: Path) -> Path:
    """Two seconds in which frame n is gray of level 10 n, without loss."""
    path = tmp_path / "film.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "bgr0"
        for n in range(FRAMES):
            pixels = np.full((48, 64, 3), 10 * n, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def levels(frames: torch.Tensor) -> list[int]:
    """Number of each gray frame."""
    return [round(float(frame.mean()) * 255 / 10) for frame in frames]


@pytest.mark.parametrize("first", [0, 7, 17])
def test_frames_from_a_time_on_are_those(film: Path, first: int) -> None:
    frames = read_frames(film, start=first / RATE, count=3)
    assert frames.shape == (3, 48, 64, 3)
    assert levels(torch.from_numpy(frames) / 255) == [first, first + 1, first + 2]


def test_samples_are_consecutive_and_lie_between_start_and_end(film: Path) -> None:
    file = ClipFile(path=str(film), start=0.5, end=1.5, places=4)
    source = ClipSource([file], frames=3, side=32)
    seen = set()
    for seed in range(30):
        sample = source.draw(torch.Generator().manual_seed(seed))
        assert sample.shape == (3, 3, 32, 32)
        first, *rest = levels(sample)
        assert rest == [first + 1, first + 2]
        assert first >= 5 and rest[-1] < 15
        seen.add(first)
    assert len(seen) == 4
    again = source.draw(torch.Generator().manual_seed(29))
    assert torch.equal(sample, again)


def test_small_frames_are_enlarged_and_large_ones_shrunk(film: Path) -> None:
    for side, shrink in ((96, 1.0), (16, 0.5)):
        source = ClipSource([ClipFile(path=str(film), shrink=shrink)], frames=2, side=side)
        assert source.draw(torch.Generator()).shape == (2, 3, side, side)


def test_packed_clips_are_read_like_the_film(film: Path, tmp_path: Path) -> None:
    path = tmp_path / "clips.safetensors"
    settings = PackConfig(output=str(path), patch=32, count=6, frames=4, codec="png")
    done: list[int] = []
    pack_patches([str(tmp_path)], config=settings, progress=lambda n, _: done.append(n))
    assert done == [1, 2, 3, 4, 5, 6]
    packed = PackedSet(path)
    assert (packed.clips, packed.frames, len(packed)) == (6, 4, 24)
    source = ClipSource([ClipFile(path=str(path))], frames=3, side=32)
    first, *rest = levels(source.draw(torch.Generator().manual_seed(0)))
    assert rest == [first + 1, first + 2]


def test_clips_that_do_not_do_are_named(film: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="fewer than 30 frames"):
        VideoClips(ClipFile(path=str(film)), frames=30)
    (tmp_path / "no.mp4").write_bytes(b"no clip")
    with pytest.raises(InputError, match=r"no\.mp4 is not a readable clip"):
        VideoClips(ClipFile(path=str(tmp_path / "no.mp4")), frames=2)
    with pytest.raises(InputError, match=r"has 1 frames after 1\.90 seconds where 2 are needed"):
        read_frames(film, start=1.9, count=2)
    with pytest.raises(OptionError, match="every clip has the weight 0"):
        ClipSource([ClipFile(path=str(film), weight=0)], frames=2, side=16)
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match="holds no video files"):
        settings = PackConfig(output=str(tmp_path / "a.safetensors"), frames=2)
        pack_patches([str(tmp_path / "none")], config=settings)
    for fields, said in (({"start": -1.0}, "start -1"), ({"places": 0}, "places 0")):
        with pytest.raises(OptionError, match=said):
            ClipFile(path="a.mp4", **fields)  # type: ignore[arg-type]
