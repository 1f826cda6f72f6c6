"""Motion between the frames of a clip, and what it says about the result of the frame before.

    previous frame --+
                     +--> estimate_flow --> warp(previous frame) --> trust: is this the same thing?
    current frame ---+         |
                               +----------> warp(previous result): where its pixels are now

A flow says for each pixel of the current frame where it was in the previous one, in input pixels:
the pixel at (x, y) was at (x + flow[0], y + flow[1]).
"""

from __future__ import annotations

from typing import Any, cast

import cv2
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

MOST_LINES = 540
"""Frames with more lines than this are halved, once or more, before their motion is estimated."""

Plane = npt.NDArray[np.float32]

_LEAST_SIDE = 16  # pixels: smaller frames have no motion that the estimator could see
_BLUR = 0.8  # pixels: standard deviation of the blur that takes the edge off noise
_STILL = 1.4  # a motion must explain a frame better than no motion does, by this factor
_AROUND = 15  # pixels: side of the square in which the two are compared
_WINDOW = 5  # pixels: side of the squares whose means `trust` compares
_FLOOR = 4e-4  # mean square of a difference that is nothing: 5 of 255 levels
_TEXTURE = 0.1  # share of the local variance that misplaced detail may differ by


def estimate_flow(current: Tensor, *, previous: Tensor) -> Tensor:
    """Where each pixel of a frame was in the frame before.

    Dense inverse search on the luma (Kroeger et al., "Fast Optical Flow using Dense Inverse
    Search", ECCV 2016) as OpenCV has it: on the CPU, and the same for any number of threads. It
    sees motion in noise; so where the frame is explained nearly as well without motion, there is
    none, and what stands still in a clip stands still in its result.

    Args:
        current: RGB `(3, H, W)` in [0, 1].
        previous: the frame before, likewise.

    Returns:
        Float32 `(2, H, W)` on the device of `current`: to the right and down, in pixels.
    """
    height, width = current.shape[-2:]
    if min(height, width) < _LEAST_SIDE:
        return torch.zeros(2, height, width, device=current.device)
    now, before = _luma(current), _luma(previous)
    while min(now.shape) > MOST_LINES:
        half = ((now.shape[1] + 1) // 2, (now.shape[0] + 1) // 2)
        now, before = (cv2.resize(x, half, interpolation=cv2.INTER_AREA) for x in (now, before))
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    search.setFinestScale(1)
    search.setVariationalRefinementIterations(2)
    soft = [cv2.GaussianBlur(x, (0, 0), _BLUR) for x in (now, before)]
    flow = cast(Plane, search.calc(soft[0], soft[1], cast(Any, None)))
    flow *= _moves(now.astype(np.float32), before.astype(np.float32), flow)[..., None]
    if flow.shape[:2] != (height, width):
        factor = np.array([width / flow.shape[1], height / flow.shape[0]], np.float32)
        flow = cast(Plane, cv2.resize(flow, (width, height))) * factor
    return torch.from_numpy(np.ascontiguousarray(flow.transpose(2, 0, 1))).to(current.device)


def _moves(now: Plane, before: Plane, flow: Plane) -> npt.NDArray[np.bool_]:
    """Where a flow explains a frame better than standing still does; all `(H, W)`."""
    rows, columns = np.indices(now.shape, np.float32)
    moved = cv2.remap(
        before,
        columns + flow[..., 0],
        rows + flow[..., 1],
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    still, explained = (
        cv2.blur(np.square(cv2.blur(now - x, (3, 3))), (_AROUND, _AROUND)) for x in (before, moved)
    )
    return still > _STILL * explained


def warp(picture: Tensor, flow: Tensor, *, scale: int = 1) -> Tensor:
    """Move a picture along a flow: what was at the flow's end comes to its begin.

    Args:
        picture: `(B, C, s H, s W)` of the frame before.
        flow: `(B, 2, H, W)` in input pixels, as `estimate_flow` gives it.
        scale: s, picture pixels per input pixel.

    Returns:
        `(B, C, s H, s W)`; outside the frame its border goes on. Gradients reach `picture`.
    """
    height, width = picture.shape[-2:]
    # Places in the units of grid_sample: -1 and 1 are the outer edges of the picture.
    unit = torch.tensor([2 / flow.shape[3], 2 / flow.shape[2]], device=flow.device)
    grid = flow * unit[:, None, None]
    if scale > 1:
        grid = F.interpolate(grid, (height, width), mode="bilinear", align_corners=False)
    grid[:, 0] += _centres(width, flow) * (2 / width) - 1
    grid[:, 1] += (_centres(height, flow) * (2 / height) - 1)[:, None]
    moved = F.grid_sample(
        picture.float(),  # places in half precision would be off by whole pixels
        grid.permute(0, 2, 3, 1),
        mode="bicubic",
        padding_mode="border",
        align_corners=False,
    )
    return moved.to(picture.dtype)


def trust(current: Tensor, warped_previous: Tensor, flow: Tensor) -> Tensor:
    """How far the moved previous frame can be relied on, pixel by pixel.

    0 where the flow points outside the frame or the two pictures differ, as on uncovered ground
    and where the estimate is wrong; 1 where they are alike. They are compared as means over small
    squares, so that noise counts little, and in proportion to the detail there, of which a flow
    that is a fraction of a pixel off displaces some.

    Args:
        current: RGB `(B, 3, H, W)` in [0, 1].
        warped_previous: the frame before, moved by `warp`, likewise.
        flow: `(B, 2, H, W)` that it was moved by.

    Returns:
        `(B, 1, H, W)` in [0, 1].
    """
    height, width = current.shape[-2:]
    difference = _mean(_mean(current - warped_previous).square().mean(1, keepdim=True))
    gray = current.mean(1, keepdim=True)
    detail = _mean(gray.square()) - _mean(gray).square()
    likeness = torch.exp(-difference / (_FLOOR + _TEXTURE * detail.clamp(min=0)))
    x = _centres(width, flow) + flow[:, :1]
    y = _centres(height, flow)[:, None] + flow[:, 1:]
    return likeness * ((x >= 0) & (x <= width) & (y >= 0) & (y <= height))


def follow(
    current: Tensor, *, previous: Tensor, result: Tensor, scale: int
) -> tuple[Tensor, Tensor]:
    """What a recurrent method is given beside a frame.

    Args:
        current: RGB `(3, H, W)` in [0, 1].
        previous: the frame before, likewise.
        result: what was made of the frame before, `(3, s H, s W)`.
        scale: s.

    Returns:
        The result moved to the current frame, `(1, 3, s H, s W)`, and how far it can be relied
        on, `(1, 1, H, W)` in [0, 1].
    """
    flow = estimate_flow(current, previous=previous)[None]
    sure = trust(current[None], warp(previous[None], flow), flow)
    return warp(result[None], flow, scale=scale), sure


def _centres(length: int, like: Tensor) -> Tensor:
    """Where pixels are along a side, in pixels from its edge."""
    return torch.arange(length, device=like.device, dtype=torch.float32) + 0.5


def _mean(x: Tensor) -> Tensor:
    """Mean over a square around each pixel; the border goes on outside."""
    height, width = x.shape[-2:]
    x = F.pad(x, (_WINDOW // 2,) * 4, mode="replicate")
    x = _total([x[..., i : i + height, :] for i in range(_WINDOW)])
    return _total([x[..., i : i + width] for i in range(_WINDOW)]) / _WINDOW**2


def _total(parts: list[Tensor]) -> Tensor:
    """Sum; on a CPU five times as fast as the pooling that does the same."""
    result = parts[0]
    for part in parts[1:]:
        result = result + part
    return result


def _luma(frame: Tensor) -> npt.NDArray[Any]:
    rgb = frame.detach().float().clamp(0, 1).mul(255).round().byte().permute(1, 2, 0)
    gray = cv2.cvtColor(np.ascontiguousarray(rgb.cpu().numpy()), cv2.COLOR_RGB2GRAY)
    return cast(npt.NDArray[Any], gray)
