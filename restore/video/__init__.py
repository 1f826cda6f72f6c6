"""The video room: decode, restore, encode and join a clip.

restore_video -> plan -> pipeline (decode | network | encode) -> segments -> join -> file
restore_stream -> reader | network | writer -> pipe
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from restore.video.job import VideoProgress as VideoProgress
    from restore.video.job import VideoResult as VideoResult
    from restore.video.job import restore_video as restore_video
    from restore.video.live import LiveProgress as LiveProgress
    from restore.video.live import LiveResult as LiveResult
    from restore.video.live import restore_stream as restore_stream
    from restore.video.plan import VideoPlan as VideoPlan
    from restore.video.plan import plan_video as plan_video

_LAZY = {
    "LiveProgress": "restore.video.live",
    "LiveResult": "restore.video.live",
    "VideoPlan": "restore.video.plan",
    "VideoProgress": "restore.video.job",
    "VideoResult": "restore.video.job",
    "plan_video": "restore.video.plan",
    "restore_stream": "restore.video.live",
    "restore_video": "restore.video.job",
}

__all__ = [
    "LiveProgress",
    "LiveResult",
    "VideoPlan",
    "VideoProgress",
    "VideoResult",
    "plan_video",
    "restore_stream",
    "restore_video",
]


def __getattr__(name: str) -> Any:
    import importlib

    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'restore.video' has no attribute '{name}'")


def __dir__() -> list[str]:
    return __all__
