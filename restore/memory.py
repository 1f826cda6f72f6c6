"""How much memory is free, and the tile size that fits into it."""

from __future__ import annotations

import math
from pathlib import Path

import psutil
import torch

from restore.allocator import idle_bytes

SHARE = 0.5
"""Part of the free memory that one tile may take; the rest is for the picture and others."""
CPU_TILE = 512
GPU_TILE = 1024
"""Largest automatic tile in pixels: beyond it nothing gets faster."""
SMALLEST_TILE = 32


def free_memory(device: torch.device) -> int:
    """Bytes that can be allocated on `device` now."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        reserved = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(free + reserved)
    free = psutil.virtual_memory().available
    limit = container_memory(Path("/sys/fs/cgroup"))
    return int(free if limit is None else min(free, limit)) + idle_bytes()


def container_memory(root: Path) -> int | None:
    """Bytes that the container's limit leaves, or None where there is no limit.

    Args:
        root: mount point of the control groups, version 2 or 1.
    """
    files = [("memory.max", "memory.current")]
    files += [("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes")]
    for limit, used in files:
        try:
            room = int((root / limit).read_text()) - int((root / used).read_text())
        except (OSError, ValueError):  # no such file, or "max"
            continue
        return max(0, room) if room < 1 << 60 else None
    return None


def automatic_tile(free: int, *, bytes_per_pixel: float, overlap: int, largest: int) -> int:
    """Side of the largest square tile whose working memory fits.

    Args:
        free: bytes at hand.
        bytes_per_pixel: working memory of the network per input pixel.
        overlap: input pixels that the network sees on each side of a tile.
        largest: bound of the result.

    Returns:
        Pixels, from `SMALLEST_TILE` to `largest`.
    """
    window = math.isqrt(max(0, int(free * SHARE / bytes_per_pixel)))
    return max(SMALLEST_TILE, min(largest, (window - 2 * overlap) // 8 * 8))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that memory ran out, on a GPU or on the CPU."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and (
        "can't allocate memory" in text  # CPU allocator
        or "out of memory" in text.lower()  # MPS, cuDNN, drivers
        or "could not create a memory object" in text  # oneDNN
        or "CUBLAS_STATUS_ALLOC_FAILED" in text
    )
