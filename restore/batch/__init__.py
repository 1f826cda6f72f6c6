"""The batch room: thousands of pictures and clips, shared out among workers, and never done twice.

    SRC -> listing -> manifest (SQLite) <-> driver -> pool (processes or Ray) -> workers -> DST

The driver alone writes the manifest; a worker holds the model and does one task at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from restore.batch.events import BatchReport as BatchReport
    from restore.batch.run import restore_batch as restore_batch
    from restore.batch.status import BatchStatus as BatchStatus
    from restore.batch.status import read_status as read_status

_LAZY = {
    "BatchReport": "restore.batch.events",
    "BatchStatus": "restore.batch.status",
    "read_status": "restore.batch.status",
    "restore_batch": "restore.batch.run",
}

__all__ = ["BatchReport", "BatchStatus", "read_status", "restore_batch"]


def __getattr__(name: str) -> Any:
    import importlib

    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'restore.batch' has no attribute '{name}'")


def __dir__() -> list[str]:
    return __all__
