"""Made clips move as they say they do."""

from __future__ import annotations

import pytest
import torch

from restore.data_pipelines.motion import KnownClip, MotionConfig, make_clip, needed_pictures
from restore.errors import OptionError
from restore.flow import warp

STILL = MotionConfig(still_prob=1.0, objects=(1.0,))
ONE_THING = MotionConfig(still_prob=1.0, objects=(0.0, 1.0), speed=30.0)


def smooth_pictures(count: int, side: int) -> torch.Tensor:
    """Pictures without sharp edges, which may be resampled at will: `(N, 3, S, S)`."""
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    waves = [
        torch.stack([torch.sin((x * (c + 1) + y * (i + 1)) / 13 + i) for c in range(3)])
        for i in range(count)
    ]
    return 0.5 + 0.4 * torch.stack(waves)


def clip(config: MotionConfig, seed: int, *, frames: int = 4, side: int = 64) -> KnownClip:
    pictures = smooth_pictures(needed_pictures(config), side + 32)
    generator = torch.Generator().manual_seed(seed)
    return make_clip(pictures, generator, config, frames=frames, side=side)


@pytest.mark.parametrize("seed", range(6))
def test_the_frame_before_moved_by_the_flow_is_the_frame(seed: int) -> None:
    made = clip(MotionConfig(), seed)
    assert made.frames.shape == (4, 3, 64, 64)
    assert made.flow.shape == (3, 2, 64, 64) and made.seen.shape == (3, 1, 64, 64)
    moved = warp(made.frames[:-1], made.flow)
    error = (moved - made.frames[1:]).abs() * made.seen
    # OpenCV places pixels to 1/32, which is half a level on these waves; at a mirrored border they
    # have kinks besides.
    assert float(error.mean()) < 0.6 / 255
    assert float(error.max()) < 5 / 255
    assert float(made.seen.mean()) > 0.5


def test_uncovered_ground_is_not_seen_and_all_the_rest_is() -> None:
    found = 0
    for seed in range(8):
        made = clip(ONE_THING, seed)
        moved = warp(made.frames[:-1], made.flow)
        wrong = (moved - made.frames[1:]).abs().amax(1, keepdim=True) > 0.05
        assert not bool((wrong & (made.seen == 1)).any())
        found += int(wrong.sum())
    assert found > 100  # things moved, and uncovered something


def test_a_camera_that_stands_still_gives_equal_frames() -> None:
    made = clip(STILL, 0)
    assert float(made.flow.abs().max()) == 0
    assert torch.equal(made.frames[0], made.frames[3])
    assert float(made.seen.min()) == 1


def test_the_same_generator_makes_the_same_clip() -> None:
    first, again, other = (clip(MotionConfig(), seed).frames for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_speed_bounds_the_motion() -> None:
    config = MotionConfig(
        still_prob=0.0, objects=(1.0,), speed=3.0, turn=0, zoom=0, tilt=0, shake=0
    )
    flows = [clip(config, seed).flow for seed in range(10)]
    lengths = torch.stack([flow.norm(dim=1).amax() for flow in flows])
    assert float(lengths.max()) <= 3.0 + 1e-4
    assert float(lengths.min()) > 0


def test_impossible_motion_is_named() -> None:
    with pytest.raises(OptionError, match=r"motion\.speed is -1"):
        MotionConfig(speed=-1)
    with pytest.raises(OptionError, match=r"motion\.objects"):
        MotionConfig(objects=())
