"""NumPy arrays, PIL pictures and tensors of the caller, to the engine's tensor and back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from restore.errors import OptionError

ALLOWED = (
    "allowed: a PIL picture; a NumPy array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) of uint8, "
    "uint16 or float in [0, 1]; a tensor (C, H, W), (B, C, H, W) or (B, T, C, H, W), likewise"
)


def to_frames(image: Any) -> tuple[Tensor, Callable[[Tensor], Any]]:
    """The engine's view of a picture, and the way back to the caller's kind.

    Args:
        image: a PIL picture, a NumPy array or a tensor, with 1 to 4 channels (gray, gray and
            alpha, RGB, RGB and alpha).

    Returns:
        Float32 `(B, T, C, H, W)` in [0, 1] on the CPU, C as given, and a function from such a
        tensor of any size to the kind, shape and number format of `image`.

    Raises:
        OptionError: the kind, shape or number format is not one of those.
    """
    if isinstance(image, Tensor):
        return _from_tensor(image)
    if isinstance(image, np.ndarray):
        return _from_array(image)
    if hasattr(image, "convert") and hasattr(image, "mode"):
        return _from_pil(image)
    raise OptionError(f"cannot restore a {type(image).__name__}; {ALLOWED}")


def _from_tensor(image: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    if not 3 <= image.ndim <= 5 or not 1 <= image.shape[-3] <= 4 or 0 in image.shape:
        raise OptionError(f"cannot restore a tensor of shape {tuple(image.shape)}; {ALLOWED}")
    frames = image if image.ndim == 5 else image.unsqueeze(-4)
    frames = frames if frames.ndim == 5 else frames[None]
    dtype, device, ndim = image.dtype, image.device, image.ndim

    def back(result: Tensor) -> Tensor:
        result = _from_unit(result, dtype).to(device)
        return result if ndim == 5 else result[:, 0] if ndim == 4 else result[0, 0]

    return _to_unit(frames.detach().cpu()), back


def _from_array(image: np.ndarray) -> tuple[Tensor, Callable[[Tensor], np.ndarray]]:
    flat = image.ndim == 2
    planes = image[:, :, None] if flat else image
    if planes.ndim != 3 or not 1 <= planes.shape[2] <= 4 or 0 in image.shape:
        raise OptionError(f"cannot restore an array of shape {image.shape}; {ALLOWED}")
    if not image.dtype.isnative:
        planes = planes.astype(image.dtype.newbyteorder("="))
    if image.dtype.kind not in "uf" or image.dtype.itemsize > 8:
        raise OptionError(f"cannot restore an array of {image.dtype}; {ALLOWED}")
    # A copy, since arrays of PIL pictures are read-only, which PyTorch warns of.
    tensor = torch.from_numpy(np.array(planes, order="C")).permute(2, 0, 1)

    def back(result: Tensor) -> np.ndarray:
        array = _from_unit(result[0, 0], tensor.dtype).permute(1, 2, 0).contiguous().numpy()
        return array[:, :, 0] if flat else array

    return _to_unit(tensor[None, None]), back


def _from_pil(image: Any) -> tuple[Tensor, Callable[[Tensor], Any]]:
    from PIL import Image

    mode = image.mode
    if mode == "1":
        image, mode = image.convert("L"), "L"
    elif mode in ("P", "PA") or (mode not in ("L", "LA", "RGB", "RGBA") and mode[0] not in "IF"):
        transparent = mode == "PA" or "transparency" in image.info or mode == "RGBa"
        image = image.convert("RGBA" if transparent else "RGB")
        mode = image.mode
    if mode.startswith("I"):  # 16 bits of gray
        array = np.asarray(image)
        if array.min() < 0 or array.max() > 65535:
            raise OptionError(
                f"cannot restore a PIL picture of mode {mode} with values outside 0 to 65535; "
                "scale it to 16 bits first"
            )
        array = array.astype(np.uint16)
    else:
        array = np.asarray(image)
    frames, array_back = _from_array(array)
    return frames, lambda result: Image.fromarray(array_back(result))


def _to_unit(values: Tensor) -> Tensor:
    """Float32 in [0, 1] of 8-bit, 16-bit or float values."""
    if values.dtype == torch.uint8:
        return values.float().div_(255)
    if values.dtype == torch.uint16:
        return values.to(torch.int32).float().div_(65535)
    if not values.dtype.is_floating_point:
        raise OptionError(f"cannot restore values of {values.dtype}; {ALLOWED}")
    if not bool(torch.isfinite(values).all()):
        raise OptionError("the picture holds NaN or infinity; give values in [0, 1]")
    low, high = float(values.min()), float(values.max())
    if low < -0.01 or high > 1.01:
        raise OptionError(
            f"the picture's float values go from {low:g} to {high:g}; give values in [0, 1], "
            "or 8 bits as uint8"
        )
    return values.float().clamp(0, 1)


def _from_unit(values: Tensor, dtype: torch.dtype) -> Tensor:
    if dtype.is_floating_point:
        return values.to(dtype)
    if dtype == torch.uint8:
        return values.mul(255).round_().to(torch.uint8)
    return values.mul(65535).round_().to(torch.int32).to(torch.uint16)
