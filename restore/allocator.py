"""Large blocks of memory are kept for the next tensor instead of being given back each time.

glibc takes every block above 32 MiB from the system anew, which has to clear its pages first: two
fifths of the processor time of a large video frame went into that. Kept on its heap, a block is
cleared once. The price is memory between the blocks, up to two fifths more at the peak; so it is
for clips, whose frames follow each other for hours, and not for single pictures.
"""

from __future__ import annotations

import ctypes
import os
import sys

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # numbers of malloc.h
_KEPT = 512 << 20
"""Bytes that may lie idle at the top of the heap before they are given back."""


class _Info(ctypes.Structure):
    """glibc's `struct mallinfo2`."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    ]


def keep_large_blocks() -> bool:
    """Let this process keep large blocks; for programs, not for libraries.

    Does nothing where the C library is not glibc, and where the user has chosen otherwise by
    `MALLOC_...` or `GLIBC_TUNABLES`.

    Returns:
        Whether it was done.
    """
    chosen = any(name.startswith("MALLOC_") for name in os.environ)
    library = _glibc()
    if library is None or chosen or "GLIBC_TUNABLES" in os.environ:
        return False
    return bool(library.mallopt(_MMAP_MAX, 0) and library.mallopt(_TRIM_THRESHOLD, _KEPT))


def idle_bytes() -> int:
    """Bytes that this process holds, but that the next tensor can have."""
    library = _glibc()
    if library is None:
        return 0
    library.mallinfo2.restype = _Info
    return int(library.mallinfo2().fordblks)


def _glibc() -> ctypes.CDLL | None:
    """The C library, when it is glibc 2.33 or later."""
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(None)
    known = ("gnu_get_libc_version", "mallopt", "mallinfo2")
    return library if all(hasattr(library, name) for name in known) else None
