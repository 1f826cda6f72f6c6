"""Which workers a run gets: how many, of which kind, and with what of the machine each."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from restore.batch.events import BatchEvent
from restore.batch.local import LocalPool, Room
from restore.batch.pool import Pool
from restore.batch.tasks import Setup
from restore.batch_config import BatchConfig

CORES_EACH = 4  # of a worker without a GPU: networks gain little from more


def make_pool(
    config: BatchConfig, *, source: str, target: str, tell: Callable[[BatchEvent], None]
) -> tuple[Pool, int]:
    """Start the workers that the settings ask for; also how many they are.

    Raises:
        MissingExtraError: Ray is not installed.
        OptionError: there is no cluster at the address.
    """

    def setup(workers: int) -> Setup:
        return Setup(config=config, source=source, target=target, workers=workers)

    if config.engine == "ray":
        from restore.batch.ray_pool import Cluster, RayPool

        on_gpu = config.device not in ("cpu", "mps") and config.runtime != "onnx"
        cluster = Cluster(config.address, workers=config.workers, on_gpu=on_gpu)
        try:
            return RayPool(setup(cluster.workers), cluster=cluster, tell=tell), cluster.workers
        except BaseException:
            cluster.close()
            raise
    rooms = local_rooms(config)
    return LocalPool(setup(len(rooms)), rooms=rooms, tell=tell), len(rooms)


def local_rooms(config: BatchConfig) -> list[Room]:
    """What each worker on this machine gets."""
    gpus = _gpus(config)
    if gpus:
        count = config.workers or len(gpus)
        return [Room(gpu=gpus[number % len(gpus)]) for number in range(count)]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    cores = cores or 1
    count = config.workers or max(1, cores // CORES_EACH)
    if config.device not in ("auto", "cpu"):  # one GPU that the user named, or Apple's
        return [Room()] * (config.workers or 1)
    return [Room(threads=max(1, cores // count))] * count


def _gpus(config: BatchConfig) -> list[str]:
    """The GPUs to share out, as CUDA_VISIBLE_DEVICES names them."""
    if config.device not in ("auto", "cuda") or config.runtime == "onnx":
        return []
    import torch

    count = torch.cuda.device_count()
    seen = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return seen[:count] if len(seen) >= count else [str(number) for number in range(count)]


def model_stamp(config: BatchConfig) -> dict[str, Any]:
    """What tells the weights of a run from others, found before any worker is started.

    Raises:
        OptionError: there is no such model.
        WeightsError: the weights are not here, or of another model.
    """
    from restore.engine import describe, fitting
    from restore.video.journal import fingerprint
    from restore.zoo.locate import locate_weights

    fitted = config if config.scale is None else fitting(config, config.scale)
    path = locate_weights(fitted.model) if config.weights is None else Path(config.weights)
    describe(fitted)
    return {} if path.is_dir() else {"weights": fingerprint(path)}
