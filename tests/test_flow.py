"""Motion: pictures go where the flow says, and what cannot be relied on is not trusted."""

from __future__ import annotations

import cv2
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from restore.flow import MOST_LINES, estimate_flow, follow, trust, warp

NOISE = 0.03


def texture(height: int, width: int, *, grain: int = 6) -> Tensor:
    """Smooth random colours `(3, H, W)` in [0, 1] with detail of about `grain` pixels."""
    cells = torch.rand(1, 3, height // grain + 3, width // grain + 3)
    large = F.interpolate(cells, scale_factor=grain, mode="bicubic", align_corners=False)
    return large[0, :, :height, :width].clamp(0, 1).contiguous()


def constant(x: float, y: float, height: int, width: int) -> Tensor:
    return torch.tensor([float(x), float(y)]).view(1, 2, 1, 1).expand(1, 2, height, width)


def noisy(frame: Tensor) -> Tensor:
    return (frame + NOISE * torch.randn(frame.shape)).clamp(0, 1)


@pytest.mark.parametrize("scale", [1, 2, 4])
@pytest.mark.parametrize(("x", "y"), [(0, 0), (3, -2), (-5, 1)])
def test_a_moved_picture_is_exact_inside(x: int, y: int, scale: int) -> None:
    height, width = 24, 30
    picture = torch.rand(1, 3, scale * height, scale * width)
    moved = warp(picture, constant(x, y, height, width), scale=scale)
    margin = 6 * scale
    inside = moved[..., margin:-margin, margin:-margin]
    there = picture.roll((-scale * y, -scale * x), (2, 3))[..., margin:-margin, margin:-margin]
    # Places are computed in float32: a ten-thousandth of a pixel on this size.
    torch.testing.assert_close(inside, there, atol=5e-4, rtol=0)


def test_a_ramp_moves_by_part_of_a_pixel() -> None:
    ramp = torch.linspace(0, 1, 40).expand(1, 1, 20, 40).contiguous()
    moved = warp(ramp, constant(0.3, -0.6, 20, 40))[..., 3:-3]
    way = (moved - ramp[..., 3:-3]) * 39
    # Keys' cubic with a = -0.75, as torch has it, misplaces a ramp by 0.05 pixels at most.
    torch.testing.assert_close(way, torch.full_like(way, 0.3), atol=0.055, rtol=0)


def test_the_flow_is_that_of_the_larger_picture_in_input_pixels() -> None:
    """A motion that varies over the frame: the large picture moves as the small one does."""
    small = texture(32, 48, grain=8)[None]
    flow = 2 * torch.sin(torch.linspace(0, 3, 48)).expand(1, 2, 32, 48)
    large = F.interpolate(small, scale_factor=3, mode="bicubic", align_corners=False)
    shrunk = F.avg_pool2d(warp(large, flow, scale=3), 3)
    # Enlarging and averaging blur a little; a factor left out would show ten times as much.
    assert float((shrunk - warp(small, flow))[..., 4:-4, 4:-4].abs().mean()) < 0.01


def test_gradients_reach_the_picture_that_is_moved() -> None:
    picture = torch.rand(1, 3, 16, 16, requires_grad=True)
    warp(picture, constant(1, 0, 8, 8), scale=2).sum().backward()
    assert picture.grad is not None
    assert float(picture.grad.abs().sum()) > 0


@pytest.mark.parametrize(("x", "y"), [(4, -3), (-1.5, 0.5), (0.25, 0)])
def test_a_translation_is_found(x: float, y: float) -> None:
    before = texture(120, 160)
    now = warp(before[None], constant(x, y, 120, 160))[0]
    flow = estimate_flow(now, previous=before)[:, 16:-16, 16:-16]
    error = (flow - torch.tensor([x, y]).view(2, 1, 1)).norm(dim=0)
    assert float(error.median()) < 0.15


def test_what_stands_still_in_noise_has_no_motion() -> None:
    scene = 0.2 + 0.6 * texture(120, 160, grain=20)
    flow = estimate_flow(noisy(scene), previous=noisy(scene))
    assert float((flow.abs().sum(0) > 0).float().mean()) < 0.2
    assert float(estimate_flow(scene, previous=scene).abs().max()) == 0


def test_large_frames_are_measured_in_their_own_pixels() -> None:
    height = MOST_LINES + 40
    before = texture(height, 600, grain=24)
    now = before.roll(8, 2)
    flow = estimate_flow(now, previous=before)[:, 40:-40, 40:-40]
    assert flow.shape == (2, height - 80, 520)
    assert abs(float(flow[0].median()) + 8) < 0.3
    assert abs(float(flow[1].median())) < 0.3


def test_the_number_of_threads_changes_nothing() -> None:
    before = texture(120, 160)
    now = noisy(before.roll((2, 3), (1, 2)))
    threads = cv2.getNumThreads()
    try:
        flows = []
        for number in (1, 4):
            cv2.setNumThreads(number)
            flows.append(estimate_flow(now, previous=before))
    finally:
        cv2.setNumThreads(threads)
    assert torch.equal(flows[0], flows[1])


@pytest.mark.parametrize("size", [(1, 1), (8, 200), (15, 15), (16, 16), (17, 300)])
def test_frames_of_any_size_have_a_flow(size: tuple[int, int]) -> None:
    previous, trusted = follow(
        torch.rand(3, *size), previous=torch.rand(3, *size), result=torch.rand(3, *size), scale=1
    )
    assert previous.shape == (1, 3, *size)
    assert trusted.shape == (1, 1, *size)
    assert bool(torch.isfinite(previous).all())
    assert bool(((trusted >= 0) & (trusted <= 1)).all())


@pytest.mark.parametrize("noise", [False, True])
def test_a_still_scene_is_trusted(noise: bool) -> None:
    scene = 0.1 + 0.8 * texture(80, 100)
    frames = [noisy(scene) if noise else scene for _ in range(2)]
    trusted = trust(frames[0][None], frames[1][None], torch.zeros(1, 2, 80, 100))
    assert float(trusted.mean()) > (0.8 if noise else 0.9999)


def test_nothing_outside_the_frame_is_trusted() -> None:
    scene = torch.full((1, 3, 40, 50), 0.5)
    trusted = trust(scene, scene, constant(10, 0, 40, 50))
    assert float(trusted[..., 41:].max()) == 0
    assert float(trusted[..., :39].min()) == 1
    trusted = trust(scene, scene, constant(0, -7, 40, 50))
    assert float(trusted[..., :6, :].max()) == 0
    assert float(trusted[..., 8:, :].min()) == 1


def test_ground_that_a_square_uncovers_is_not_trusted() -> None:
    """A bright textured square goes 10 pixels to the right over dark texture."""
    ground, square = 0.5 * texture(120, 160), 0.5 + 0.5 * texture(40, 40)
    frames = []
    for left in (50, 60):
        frame = ground.clone()
        frame[:, 40:80, left : left + 40] = square
        frames.append(frame)
    _, trusted = follow(frames[1], previous=frames[0], result=frames[0], scale=1)
    uncovered = trusted[0, 0, 44:76, 52:58]
    inside = trusted[0, 0, 46:74, 68:92]
    far = trusted[0, 0, :, 120:]
    assert float(uncovered.mean()) < 0.1
    assert float(inside.mean()) > 0.9
    assert float(far.mean()) > 0.99


def test_a_still_scene_hands_the_result_on_as_it_is() -> None:
    frame, result = texture(40, 60), torch.rand(3, 80, 120)
    previous, trusted = follow(frame, previous=frame, result=result, scale=2)
    torch.testing.assert_close(previous[0], result, atol=1e-3, rtol=0)
    assert float(trusted.min()) > 0.999
