"""Workers of any kind, as the driver sees them."""

from __future__ import annotations

from typing import Protocol

from restore.batch.tasks import Finished, Task

STARTS = 3
"""How often workers may die in a row before any of them was ready."""


class Pool(Protocol):
    """Some workers, each with at most one task; one that dies is replaced."""

    def free(self) -> list[int]:
        """Numbers of the workers that are ready and have nothing to do."""
        ...

    def give(self, task: Task, worker: int) -> None:
        """Hand a task to a free worker."""
        ...

    def wait(self, seconds: float) -> list[Finished]:
        """What was finished, waiting up to some seconds for the first.

        Raises:
            RestoreError: the model cannot be loaded, or workers die as they start.
        """
        ...

    def close(self) -> None:
        """End all workers at once; what they had in hand is lost."""
        ...
