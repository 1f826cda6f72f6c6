"""Block-sparse attention: one contract, several programs that compute it, and what goes round it.

    mask (which blocks see which) -> lists (count, index) -> block_sparse_attention -> output

Tensors are `(B, H, N, D)` with N a multiple of the block (128 tokens). `selection` chooses the
blocks, `lists` compacts the choice on the device, `ring` keeps the keys of a stream where they
are, `operator` is the contract and `backends` the programs behind it (`triton` on CUDA, `cpu`
elsewhere), `reference` the plain twin that all of them are held against. `varlen` is dense
attention over unequal windows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from restore.attention.backends import BACKENDS as BACKENDS
    from restore.attention.lists import BlockLists as BlockLists
    from restore.attention.lists import frame_blocks as frame_blocks
    from restore.attention.lists import from_mask as from_mask
    from restore.attention.lists import tile_pattern as tile_pattern
    from restore.attention.lists import to_mask as to_mask
    from restore.attention.lists import to_slots as to_slots
    from restore.attention.lists import transposed as transposed
    from restore.attention.operator import block_sparse_attention as block_sparse_attention
    from restore.attention.ring import RingCache as RingCache
    from restore.attention.selection import flat_topk as flat_topk
    from restore.attention.selection import local_window as local_window
    from restore.attention.selection import pooled as pooled
    from restore.attention.selection import row_topk as row_topk
    from restore.attention.varlen import adaptive_windows as adaptive_windows
    from restore.attention.varlen import joint_windows_attention as joint_windows_attention
    from restore.attention.varlen import windows_attention as windows_attention

_LAZY = {
    "BACKENDS": "backends",
    "BlockLists": "lists",
    "RingCache": "ring",
    "adaptive_windows": "varlen",
    "block_sparse_attention": "operator",
    "flat_topk": "selection",
    "frame_blocks": "lists",
    "from_mask": "lists",
    "joint_windows_attention": "varlen",
    "local_window": "selection",
    "pooled": "selection",
    "row_topk": "selection",
    "tile_pattern": "lists",
    "to_mask": "lists",
    "to_slots": "lists",
    "transposed": "lists",
    "windows_attention": "varlen",
}

__all__ = [
    "BACKENDS",
    "BlockLists",
    "RingCache",
    "adaptive_windows",
    "block_sparse_attention",
    "flat_topk",
    "frame_blocks",
    "from_mask",
    "joint_windows_attention",
    "local_window",
    "pooled",
    "row_topk",
    "tile_pattern",
    "to_mask",
    "to_slots",
    "transposed",
    "windows_attention",
]


def __getattr__(name: str) -> Any:
    import importlib

    if name in _LAZY:
        return getattr(importlib.import_module(f"restore.attention.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'restore.attention' has no attribute '{name}'")


def __dir__() -> list[str]:
    return __all__
