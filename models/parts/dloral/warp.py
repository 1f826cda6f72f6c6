"""Moves latents and frames along a flow, as DLoRAL does it."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Outside = Literal["zeros", "border"]
"""What is outside of a picture: nothing, or its border goes on."""


def warp_latent(latent: Tensor, flow: Tensor) -> Tensor:
    """What was at the flow's end comes to its begin; outside of the picture there is nothing.

    Args:
        latent: `(B, C, h, w)` of the frame before.
        flow: `(B, 2, h, w)`, to the right and down, in elements of the latent.

    Returns:
        `(B, C, h, w)` in the latent's dtype; NaN where the flow is no number, which sampling alone
        would hide. Gradients reach both.
    """
    known = flow.isfinite().all(1, keepdim=True)
    return torch.where(known, sample(latent, flow, outside="zeros"), torch.nan)


def sample(picture: Tensor, flow: Tensor, *, outside: Outside) -> Tensor:
    """Bilinear, with -1 and 1 at the centres of the outer elements: not the convention of
    `restore.flow.warp`, but the one that these networks were trained with.

    Places are computed in float32 at least: in half precision they would be off by up to half an
    element from 512 on.

    Args:
        picture: `(B, C, h, w)`.
        flow: `(B, 2, h, w)` in elements of it.
        outside: what is outside of it.

    Returns:
        `(B, C, h, w)` in the picture's dtype.
    """
    height, width = picture.shape[-2:]
    flow = flow.to(torch.promote_types(flow.dtype, torch.float32))
    x = torch.arange(width, device=flow.device) + flow[:, 0]
    y = torch.arange(height, device=flow.device)[:, None] + flow[:, 1]
    places = torch.stack([2 * x / max(width - 1, 1) - 1, 2 * y / max(height - 1, 1) - 1], dim=-1)
    moved = F.grid_sample(
        picture.to(places.dtype), places, mode="bilinear", padding_mode=outside, align_corners=True
    )
    return moved.to(picture.dtype)
