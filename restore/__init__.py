"""restore: photos, videos and a bit budget, restored in one network pass.

    import restore
    picture = restore.load("compact").restore(picture)      # NumPy, PIL or tensor; same kind out
    restore.restore_video("in.mp4", "out.mp4", scale=4)

Importing this package loads nothing heavy: torch comes with the first call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from restore.batch import restore_batch as restore_batch
    from restore.codec.engine import Coder as Coder
    from restore.codec.engine import load_codec as load_codec
    from restore.codec.job import compress_images as compress_images
    from restore.codec.job import decompress_images as decompress_images
    from restore.engine import Restorer as Restorer
    from restore.engine import load as load
    from restore.export import export_onnx as export_onnx
    from restore.image.job import restore_images as restore_images
    from restore.video import restore_stream as restore_stream
    from restore.video import restore_video as restore_video

__version__ = "0.1.0"

_LAZY = {
    "Coder": "restore.codec.engine",
    "Restorer": "restore.engine",
    "compress_images": "restore.codec.job",
    "decompress_images": "restore.codec.job",
    "export_onnx": "restore.export",
    "load": "restore.engine",
    "load_codec": "restore.codec.engine",
    "restore_batch": "restore.batch",
    "restore_images": "restore.image.job",
    "restore_stream": "restore.video",
    "restore_video": "restore.video",
}

__all__ = [
    "Coder",
    "Restorer",
    "__version__",
    "compress_images",
    "decompress_images",
    "export_onnx",
    "load",
    "load_codec",
    "restore_batch",
    "restore_images",
    "restore_stream",
    "restore_video",
]


def __getattr__(name: str) -> Any:
    import importlib

    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'restore' has no attribute '{name}'")


def __dir__() -> list[str]:
    return __all__
