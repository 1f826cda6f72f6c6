"""Give a restored picture the colours of its input: wavelet and AdaIN transfer, pure functions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from restore.method import ColorFix
from restore.resampling import resample

LEVELS = 5


def low_frequencies(x: Tensor, *, levels: int = LEVELS) -> Tensor:
    """What remains of a picture after `levels` rounds of the a-trous B-spline filter.

    Round i filters with [1, 2, 1]/4 along both axes, its taps 2^i pixels apart, the border
    repeated: the low-pass of StableSR's wavelet colour fix (Wang et al., IJCV 2024).

    Args:
        x: `(B, C, H, W)`.
        levels: rounds; 5 reach 31 pixels far.
    """
    channels = x.shape[1]
    taps = torch.tensor([0.25, 0.5, 0.25], dtype=x.dtype, device=x.device)
    along = taps.view(1, 1, 1, 3).repeat(channels, 1, 1, 1)
    down = taps.view(1, 1, 3, 1).repeat(channels, 1, 1, 1)
    for level in range(levels):
        step = 2**level
        x = F.pad(x, (step, step, 0, 0), mode="replicate")
        x = F.conv2d(x, along, dilation=(1, step), groups=channels)
        x = F.pad(x, (0, 0, step, step), mode="replicate")
        x = F.conv2d(x, down, dilation=(step, 1), groups=channels)
    return x


def wavelet(result: Tensor, reference: Tensor) -> Tensor:
    """Details of `result` on the low frequencies of `reference`.

    The filter is linear, so high(result) + low(reference) = result + low(reference - result).

    Args:
        result: `(B, C, H, W)` in [0, 1].
        reference: the same shape: the input, enlarged.
    """
    return (result + low_frequencies(reference - result)).clamp_(0, 1)


def adain(result: Tensor, reference: Tensor) -> Tensor:
    """`result` with mean and deviation of each channel as in `reference`.

    Adaptive instance normalisation (Huang and Belongie, ICCV 2017, equation 8), with the unbiased
    variance and 1e-5 added before the root, as StableSR and OSEDiff have it.

    Args:
        result: `(B, C, H, W)` in [0, 1].
        reference: the same shape: the input, enlarged.
    """
    mean_x = result.mean((2, 3), keepdim=True)
    mean_y = reference.mean((2, 3), keepdim=True)
    std_x = (result.var((2, 3), keepdim=True) + 1e-5).sqrt()
    std_y = (reference.var((2, 3), keepdim=True) + 1e-5).sqrt()
    return ((result - mean_x) / std_x * std_y + mean_y).clamp_(0, 1)


def fix_colors(result: Tensor, source: Tensor, method: ColorFix) -> Tensor:
    """Apply the colour fix `method`.

    Args:
        result: `(B, C, H, W)` in [0, 1], restored.
        source: `(B, C, h, w)` in [0, 1], the input at its own size.
        method: which; `"none"` returns `result` itself.
    """
    if method == "none":
        return result
    reference = resample(source, (result.shape[-1], result.shape[-2]))
    return wavelet(result, reference) if method == "wavelet" else adain(result, reference)
