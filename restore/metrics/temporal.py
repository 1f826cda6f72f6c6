"""How steady a clip is: warping error along its motion, and its changes beside the reference's.

A blurred clip is steady as well, so none of these numbers says much alone: `sharpness` or a metric
of single frames belongs beside it. Frames are RGB `(3, H, W)`, float, in [0, 1].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from restore.flow import warp


@dataclass(frozen=True, kw_only=True, slots=True)
class Motion:
    """From one frame to the one before."""

    flow: Tensor
    """Where each pixel was, `(1, 2, H, W)`, in pixels."""
    visible: Tensor
    """1 where it was visible there, else 0, `(1, 1, H, W)`."""


def motion_between(current: Tensor, before: Tensor) -> Motion:
    """Motion between two frames `(3, H, W)`, by an estimator finer than the program's own.

    Dense inverse search at full size. A pixel is visible where the motions there and back agree
    and no border between motions runs (Sundaram et al., "Dense point trajectories by GPU-
    accelerated large displacement optical flow", ECCV 2010).
    """
    flow, back = _search(current, before), _search(before, current)
    returned = warp(back, flow)
    gap = (flow + returned).square().sum(1, keepdim=True)
    length = (flow.square() + returned.square()).sum(1, keepdim=True)
    right = F.pad(flow.diff(dim=3), (0, 1, 0, 0)).square()
    below = F.pad(flow.diff(dim=2), (0, 0, 0, 1)).square()
    bend = (right + below).sum(1, keepdim=True)
    seen = (gap < 0.01 * length + 0.5) & (bend < 0.01 * flow.square().sum(1, keepdim=True) + 0.002)
    height, width = current.shape[-2:]
    x = torch.arange(width) + flow[:, :1]
    y = torch.arange(height)[:, None] + flow[:, 1:]
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    return Motion(flow=flow, visible=(seen & inside).float())


def _search(current: Tensor, before: Tensor) -> Tensor:
    luma = []
    for frame in (current, before):
        rgb = (frame.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
        luma.append(cv2.cvtColor(np.ascontiguousarray(rgb), cv2.COLOR_RGB2GRAY))
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    search.setFinestScale(0)
    search.setGradientDescentIterations(50)
    search.setVariationalRefinementIterations(10)
    flow = search.calc(luma[0], luma[1], cast(Any, None))
    return torch.from_numpy(np.asarray(flow, np.float32)).permute(2, 0, 1)[None].contiguous()


def warping_step(result: Tensor, before: Tensor, motion: Motion, *, scale: int = 1) -> float:
    """Mean square of what changed along the motion, 0 to 1; NaN where nothing is visible twice.

    Lai et al., "Learning Blind Video Temporal Consistency", ECCV 2018: of O(t) - W(O(t-1)) over the
    pixels that are visible in both frames and over the colour channels, where W moves a result
    along the motion. Taken from results by their own motion it would praise what it should blame,
    so the motion is that of the input or of the reference.

    Args:
        result: `(3, s H, s W)`.
        before: the result of the frame before, likewise.
        motion: between the two frames, of pictures `H` x `W`.
        scale: s.
    """
    moved = warp(before[None], motion.flow, scale=scale)
    error = (result[None] - moved).square().mean(1, keepdim=True)
    seen = motion.visible
    if scale > 1:
        seen = F.interpolate(seen, scale_factor=float(scale), mode="nearest")
    count = float(seen.sum())
    return float((error * seen).sum()) / count if count else float("nan")


def frame_difference_step(
    result: Tensor, before: Tensor, reference: Tensor, reference_before: Tensor
) -> float:
    """How differently the pixels change: mean of |dO - dR| in levels of 255, lower is better.

    dO and dR are the changes of result and reference from one frame to the next. It is 0 where the
    result changes exactly as the reference does, whatever its own error is.
    """
    gap = (result - before) - (reference - reference_before)
    return 255 * float(gap.abs().mean())


def tlp_like_step(
    result: Tensor, before: Tensor, reference: Tensor, reference_before: Tensor
) -> float:
    """How differently much the clips change: |D(O(t-1), O(t)) - D(R(t-1), R(t))|, levels of 255.

    The form of tLP (Chu et al., "Learning Temporal Coherence via Self-Supervision for GAN-based
    Video Generation", 2020), with the mean absolute difference in place of LPIPS for D, as
    no weights are needed for that. Numbers are not those of tLP.
    """
    own, true = result - before, reference - reference_before
    return 255 * abs(float(own.abs().mean()) - float(true.abs().mean()))


def sharpness(frame: Tensor) -> float:
    """Mean length of the gradient of a frame `(3, H, W)`, in levels of 255."""
    right, below = frame[:, :-1].diff(dim=2), frame[..., :-1].diff(dim=1)
    return 255 * float((right.square() + below.square()).sqrt().mean())
