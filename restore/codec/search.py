"""Which rate a picture gets: the nearest, the best below a size, or the lowest that is good enough.

Bytes and quality are taken from what is really written and decoded, never from nominal rates.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from restore.codec.contract import Coded, Rate
from restore.codec.engine import Coder
from restore.codec_config import CompressConfig, Metric, parse_bytes, parse_quality
from restore.errors import InputError, MissingExtraError, install_command
from restore.metrics import psnr, ssim

LPIPS_FILE = "alexnet-owt-7be5be79.pth"
"""What LPIPS stands on, as torch.hub names it."""


@dataclass(kw_only=True, slots=True)
class Trial:
    """One picture, encoded at whatever rates are asked for, each once."""

    coder: Coder
    pixels: Tensor
    """RGB `(1, 3, H, W)` in [0, 1]."""
    fields: dict[str, Any] = field(default_factory=dict)
    """What else goes into its file."""
    on_rate: Callable[[Rate], None] | None = None
    """Called before a rate is tried."""
    _coded: dict[int, Coded] = field(default_factory=dict)
    _files: dict[int, bytes] = field(default_factory=dict)
    _decoded: dict[int, Tensor] = field(default_factory=dict)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return int(self.pixels.shape[-1]), int(self.pixels.shape[-2])

    def file(self, rate: Rate) -> bytes:
        """The file at a rate."""
        if rate.index not in self._files:
            if self.on_rate is not None:
                self.on_rate(rate)
            coded = self.coder.encode(self.pixels, rate.index)
            self._coded[rate.index] = coded
            self._files[rate.index] = self.coder.write(coded, *self.size, **self.fields)
        return self._files[rate.index]

    def decoded(self, rate: Rate) -> Tensor:
        """What a decoder makes of it, rounded to 8 bits as it will be."""
        self.file(rate)
        if rate.index not in self._decoded:
            pixels = self.coder.decode(self._coded[rate.index], *self.size)
            if self.fields.get("gray"):
                pixels = pixels.mean(1, keepdim=True).expand(-1, 3, -1, -1)
            self._decoded[rate.index] = (255 * pixels).round() / 255
        return self._decoded[rate.index]


def choose_rate(trial: Trial, config: CompressConfig) -> Rate:
    """The rate that the settings ask for.

    Raises:
        InputError: no rate reaches it; the line says what is possible.
        MissingExtraError: LPIPS is asked for and not installed.
    """
    if config.size is not None:
        return best_below(trial, parse_bytes(config.size))
    if config.quality is not None:
        return lowest_with(trial, *parse_quality(config.quality))
    return trial.coder.rate_near(config.bpp)


def best_below(trial: Trial, size: int) -> Rate:
    """The highest rate whose file has at most `size` bytes.

    Raises:
        InputError: the smallest file is larger.
    """
    rates = trial.coder.rates
    found = _first(rates[::-1], lambda rate: len(trial.file(rate)) <= size)
    if found is None:
        least = len(trial.file(rates[0]))
        raise InputError(
            f"its smallest file has {least} bytes, above the {size} of --size; give --size {least}"
            ", --metadata none or a smaller picture"
        )
    return found


def lowest_with(trial: Trial, metric: Metric, value: float) -> Rate:
    """The lowest rate whose decoded picture is at least as good as `value`.

    Raises:
        InputError: none is; the best one is said.
        MissingExtraError: LPIPS is asked for and not installed.
    """
    better_below = metric == "lpips"
    rates = trial.coder.rates

    def good(rate: Rate) -> bool:
        got = measure(metric, trial.decoded(rate), trial.pixels)
        return got <= value if better_below else got >= value

    found = _first(rates, good)
    if found is None:
        best = measure(metric, trial.decoded(rates[-1]), trial.pixels)
        raise InputError(
            f"its best rate, {rates[-1].bpp:g} bpp, has {metric} {best:.4g} and not {value:g}; "
            f"give --quality {metric}={best:.4g} or another codec with -n"
        )
    return found


def _first(rates: tuple[Rate, ...], fits: Callable[[Rate], bool]) -> Rate | None:
    """The first rate that fits, by halving, as those after it fit as well; at most eight tries."""
    low, high = 0, len(rates)
    while low < high:
        middle = (low + high) // 2
        if fits(rates[middle]):
            high = middle
        else:
            low = middle + 1
    return rates[low] if low < len(rates) else None


def measure(metric: Metric, decoded: Tensor, original: Tensor) -> float:
    """How near a decoded picture is to the original, both `(1, 3, H, W)` in [0, 1].

    `psnr` is over R, G and B at once, `ssim` that of luma, `lpips` with AlexNet.

    Raises:
        InputError: the picture is too small for the metric.
        MissingExtraError: LPIPS is not installed.
    """
    if metric == "lpips":
        return float(lpips_network()(decoded, original, normalize=True))
    images = _array(decoded), _array(original)
    return psnr(*images, channel="rgb") if metric == "psnr" else ssim(*images)


def _array(pixels: Tensor) -> npt.NDArray[np.uint8]:
    return (255 * pixels[0]).round().byte().permute(1, 2, 0).contiguous().cpu().numpy()


@functools.cache
def lpips_network() -> Any:
    """LPIPS with AlexNet (Zhang et al., CVPR 2018); nothing is downloaded.

    Raises:
        MissingExtraError: the package, or the network it stands on, is not here.
    """
    try:
        import lpips
    except ImportError as error:
        raise MissingExtraError(
            f"lpips is not installed, which --quality lpips needs; run {install_command('train')}"
        ) from error
    file = Path(torch.hub.get_dir()) / "checkpoints" / LPIPS_FILE
    if not file.is_file():
        raise MissingExtraError(
            f"{file} is missing, which --quality lpips needs; put it there, or use ssim or psnr"
        )
    return lpips.LPIPS(net="alex", verbose=False).eval().requires_grad_(False)
