"""Cuts are found; what only looks like one is not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from restore.errors import DamagedTailError
from restore.video.scenes import LOOKBACK, change, mark_cuts, thumbnail

THRESHOLD = 0.35  # the default of the command line


def picture(seed: int, *, width: int = 160, height: int = 90) -> Tensor:
    """A smooth random scene `(3, height, width)`, different for each seed."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 6, 10, generator=generator)
    return F.interpolate(coarse, (height, width), mode="bicubic")[0].clamp(0, 1)


def cuts(frames: list[Tensor], threshold: float = THRESHOLD) -> list[int]:
    marks = mark_cuts(enumerate(frames), lambda item: item[1], threshold=threshold)
    return [index for (index, _), cut in marks if cut]


def noisy(frame: Tensor, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (frame + 0.05 * torch.randn(frame.shape, generator=generator)).clamp(0, 1)


@pytest.mark.parametrize("level", [1.0, 0.3])
@pytest.mark.parametrize("seed", range(4))
def test_a_cut_between_scenes_is_found_in_bright_and_in_dark_ones(seed: int, level: float) -> None:
    first, second = level * picture(2 * seed), level * picture(2 * seed + 1)
    clip = [noisy(first, i) for i in range(6)] + [noisy(second, i) for i in range(6)]
    assert cuts(clip) == [6]


def test_a_cut_on_the_second_and_on_the_last_frame_is_found() -> None:
    assert cuts([picture(0), picture(1), picture(1), picture(1)]) == [1]
    assert cuts([picture(0), picture(0), picture(0), picture(1)]) == [3]


def test_the_first_frame_never_begins_a_new_scene() -> None:
    assert cuts([picture(0)]) == []
    assert cuts([]) == []


def test_a_flash_of_one_frame_is_no_cut() -> None:
    flash = torch.ones(3, 90, 160)
    assert cuts([*[picture(0)] * 5, flash, *[picture(0)] * 5]) == []


@pytest.mark.parametrize("length", [8, 25])
def test_fades_and_dissolves_are_no_cuts(length: int) -> None:
    steps = [i / length for i in range(length + 1)]
    to_black = [picture(0) * (1 - s) for s in steps]
    dissolve = [picture(0) * (1 - s) + picture(1) * s for s in steps]
    assert cuts(to_black) == []
    assert cuts(to_black[::-1]) == []
    assert cuts(dissolve) == []


@pytest.mark.parametrize("speed", [2, 8, 30])
def test_a_pan_is_no_cut_however_fast(speed: int) -> None:
    wide = picture(3, width=160 + 20 * speed)
    assert cuts([wide[:, :, i * speed : i * speed + 160] for i in range(20)]) == []


def test_a_cut_during_a_pan_is_found() -> None:
    before, after = picture(4, width=240), picture(5, width=240)
    clip = [before[:, :, 4 * i : 4 * i + 160] for i in range(8)]
    clip += [after[:, :, 4 * i : 4 * i + 160] for i in range(8)]
    assert cuts(clip) == [8]


def test_threshold_zero_finds_nothing_and_holds_nothing_back() -> None:
    read = []

    def frames() -> Iterator[Tensor]:
        for seed in range(3):
            read.append(seed)
            yield picture(seed)

    for count, (_, cut) in enumerate(mark_cuts(frames(), lambda f: f, threshold=0), start=1):
        assert not cut
        assert len(read) == count


def test_only_a_frame_that_may_begin_a_shot_is_held_back() -> None:
    """What a live stream waits for: the frame after is asked for when it can decide."""
    clip = [picture(0), picture(0), picture(1), picture(1), picture(1)]
    given, held = 0, []

    def frames() -> Iterator[Tensor]:
        nonlocal given
        for frame in clip:
            given += 1
            yield frame

    for number, (_, cut) in enumerate(mark_cuts(frames(), lambda f: f, threshold=THRESHOLD)):
        held.append(given - number - 1)
        assert cut == (number == 2)
    assert held == [0, 0, 1, 0, 0]


def test_a_resumed_run_decides_as_an_undisturbed_one() -> None:
    wide = picture(6, width=400)
    clip = [wide[:, :, 12 * i : 12 * i + 160] for i in range(10)]
    clip += [picture(7), picture(8), picture(8), torch.ones(3, 90, 160), picture(8), picture(9)]
    whole = cuts(clip)
    assert whole
    for start in range(1, len(clip)):
        begin = max(0, start - LOOKBACK)
        resumed = [begin + index for index in cuts(clip[begin:])]
        assert [i for i in resumed if i >= start] == [i for i in whole if i >= start]


def test_no_frame_is_lost_where_a_clip_breaks_off() -> None:
    def broken() -> Iterator[Tensor]:
        yield from (picture(0), picture(0), picture(1))
        raise DamagedTailError("ends early")

    seen = []
    with pytest.raises(DamagedTailError):
        for item in mark_cuts(broken(), lambda f: f, threshold=THRESHOLD):
            seen.append(item[1])
    assert seen == [False, False, True]


@pytest.mark.parametrize("size", [(1, 1), (2, 500), (37, 53), (1080, 1920)])
def test_a_thumbnail_is_made_of_any_size(size: tuple[int, int]) -> None:
    flat = torch.full((3, *size), 0.25)
    np.testing.assert_allclose(thumbnail(flat), np.full((18, 32, 3), 0.25), rtol=1e-6)


def test_change_is_zero_for_equal_and_about_one_for_unrelated_frames() -> None:
    assert change(thumbnail(picture(0)), thumbnail(picture(0))) == 0
    values = [change(thumbnail(picture(i)), thumbnail(picture(i + 1))) for i in range(10)]
    assert sum(values) / len(values) == pytest.approx(1, abs=0.15)  # ten random pairs


def test_real_footage(shared_data: Path) -> None:
    """Seen by eye: frame 100 of the animation is its only cut, the car and the bird have none."""
    import av

    for name, expected in [("onepiece_demo", [100]), ("running_car", []), ("cockatoo", [])]:
        with av.open(str(shared_data / "video" / f"{name}.mp4")) as clip:
            small = [
                frame.reformat(width=160, height=90, format="rgb24").to_ndarray()
                for frame in clip.decode(video=0)
            ]
        frames = [torch.from_numpy(a.transpose(2, 0, 1) / np.float32(255)) for a in small]
        assert cuts(frames) == expected
