"""Batches made ahead by threads, handed out in order."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import torch

from restore.training.recipe import Batch


def batches(
    make: Callable[[int], Batch], first: int, *, device: torch.device, workers: int
) -> Iterator[Batch]:
    """`make(first)`, `make(first + 1)`, ... without end.

    Args:
        make: makes one batch; called from `workers` threads.
        first: number of the first batch.
        device: where the batches lie.
        workers: threads; 0 = each batch is made when it is asked for.

    Yields:
        Batches in order, the same whatever `workers` is.
    """
    if workers == 0:
        while True:
            yield make(first)
            first += 1
    make = _on_own_stream(make, device)
    with ThreadPoolExecutor(workers, thread_name_prefix="batch") as pool:
        waiting: deque[Future[Batch]] = deque()
        try:
            while True:
                while len(waiting) <= workers:
                    waiting.append(pool.submit(make, first))
                    first += 1
                batch = waiting.popleft().result()
                if device.type == "cuda":
                    # The memory came from a thread's stream; it is in use on this one from now on.
                    for tensor in batch.values():
                        if tensor.is_cuda:
                            tensor.record_stream(torch.cuda.current_stream(device))
                yield batch
        finally:
            for future in waiting:
                future.cancel()


def _on_own_stream(make: Callable[[int], Batch], device: torch.device) -> Callable[[int], Batch]:
    """On a GPU each thread works on its own stream, or it would wait for the training's work."""
    if device.type != "cuda":
        return make
    own = threading.local()

    def on_stream(iteration: int) -> Batch:
        if not hasattr(own, "stream"):
            own.stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        with torch.cuda.stream(own.stream):
            batch = make(iteration)
        own.stream.synchronize()
        return batch

    return on_stream
