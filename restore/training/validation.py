"""Measuring a network between training steps, on pictures that it is never trained on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from restore.data_pipelines.patches import picture_files, read_picture
from restore.errors import OptionError
from restore.metrics import niqe, psnr, ssim
from restore.niqe import load_niqe_parameters
from restore.training.config import ValidationSet

Pixels = npt.NDArray[np.uint8]
SHOWN_SIDE = 512
"""Largest side of a picture in a side-by-side picture; larger ones are cut at the middle."""


def validation_pairs(config: ValidationSet) -> list[tuple[Path | None, Path]]:
    """Low-quality pictures and their references, evenly spread over the folder.

    Raises:
        OptionError: a folder is missing or empty, or a picture has no reference.
    """
    references = {path.stem: path for path in picture_files(Path(config.hr))}
    if config.lr is None:
        chosen = list(references.values())
        return [(None, path) for path in _spread(chosen, config.count)]
    low = picture_files(Path(config.lr))
    missing = next((path.name for path in low if path.stem not in references), None)
    if missing is not None:
        raise OptionError(
            f"{missing} of the validation set '{config.name}' has no reference in {config.hr}; "
            "give both the same name up to the suffix"
        )
    return [(path, references[path.stem]) for path in _spread(low, config.count)]


def _spread(files: list[Path], count: int) -> list[Path]:
    return files[:: max(1, len(files) // count)][:count]


@torch.inference_mode()
def validate(
    config: ValidationSet,
    restorer: Callable[[Tensor], Tensor],
    *,
    scale: int,
    device: torch.device,
    sheets: Path | None = None,
    label: str = "",
) -> dict[str, float]:
    """Mean PSNR-Y in dB, SSIM-Y and, when it has its statistics, NIQE on a set.

    Args:
        config: which pictures.
        restorer: `(1, 3, H, W)` in [0, 1] to `(1, 3, s H, s W)`, H and W even.
        scale: s.
        device: where the restorer works.
        sheets: folder that gets side-by-side pictures: bicubic, result, reference.
        label: begins their names.
    """
    statistics = None
    if config.niqe_params is not None:
        statistics = load_niqe_parameters(Path(config.niqe_params))
    values = []
    for i, (low_path, reference_path) in enumerate(validation_pairs(config)):
        reference = read_picture(reference_path)
        low = None if low_path is None else read_picture(low_path)
        low, reference = _fitted(low, reference, scale)
        result = _run(restorer, low, scale=scale, device=device)
        values.append([psnr(result, reference), ssim(result, reference)])
        if statistics is not None:
            values[-1].append(niqe(result, parameters=statistics))
        if sheets is not None and i < config.shown:
            sheets.mkdir(exist_ok=True)
            name = f"{label}_{config.name}_{reference_path.stem}.png"
            _write_sheet(sheets / name, low, result, reference)
    means = np.mean(values, axis=0)
    return dict(zip(config.measures, means.tolist(), strict=True))


def _fitted(low: Pixels | None, reference: Pixels, scale: int) -> tuple[Pixels, Pixels]:
    """The pair with a reference of `scale` times the size of the low-quality picture."""
    if low is None:
        height, width = (side // (2 * scale) * 2 for side in reference.shape[:2])
        if min(height, width) == 0:
            raise OptionError(
                f"a validation reference has {reference.shape[1]}x{reference.shape[0]} pixels; "
                f"give pictures with sides of {2 * scale} or more"
            )
        reference = reference[: height * scale, : width * scale]
        small = cv2.resize(reference, (width, height), interpolation=cv2.INTER_AREA)
        return np.asarray(small, np.uint8), reference
    height, width = (side * scale for side in low.shape[:2])
    factor = min(reference.shape[0] // height, reference.shape[1] // width)
    if factor < 1:
        raise OptionError(
            f"a validation reference has {reference.shape[1]}x{reference.shape[0]} pixels; a "
            f"result of {width}x{height} needs as many: give larger references"
        )
    reference = reference[: height * factor, : width * factor]
    if factor > 1:
        shrunk = cv2.resize(reference, (width, height), interpolation=cv2.INTER_AREA)
        reference = np.asarray(shrunk, np.uint8)
    return low, reference


def _run(
    restorer: Callable[[Tensor], Tensor], low: Pixels, *, scale: int, device: torch.device
) -> Pixels:
    x = torch.from_numpy(low).permute(2, 0, 1)[None].to(device).float() / 255
    height, width = x.shape[-2:]
    x = F.pad(x, (0, width % 2, 0, height % 2), mode="replicate")
    y = restorer(x)[0, :, : height * scale, : width * scale].float().clamp(0, 1)
    return y.mul(255).round().byte().permute(1, 2, 0).cpu().numpy()


def _write_sheet(path: Path, low: Pixels, result: Pixels, reference: Pixels) -> None:
    height, width = result.shape[:2]
    bicubic = cv2.resize(low, (width, height), interpolation=cv2.INTER_CUBIC)
    top, left = (max(0, side - SHOWN_SIDE) // 2 for side in (height, width))
    window = np.s_[top : top + SHOWN_SIDE, left : left + SHOWN_SIDE]
    sheet = np.concatenate([part[window] for part in (bicubic, result, reference)], axis=1)
    cv2.imwrite(str(path), np.ascontiguousarray(sheet[:, :, ::-1]))
