"""Compiles a Triton kernel for sm_90 without a GPU and reads what came out."""

from __future__ import annotations

import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from restore.attention.triton_launch import Tiles

SIZES = {"heads", "rows", "columns", "capacity", "tokens"}  # not specialised by the kernels


@dataclass(frozen=True, kw_only=True)
class Code:
    """What a compiled kernel needs and holds."""

    registers: int
    stack: int
    shared: int
    instructions: list[str]

    def number(self, name: str) -> int:
        """Instructions whose name begins like this."""
        return sum(instruction.startswith(name) for instruction in self.instructions)

    def longest_burst(self) -> int:
        """Most matrix products in a row without waiting for one of them."""
        longest = burst = 0
        for instruction in self.instructions:
            if instruction.startswith("HGMMA"):
                burst += 1
                longest = max(longest, burst)
            elif instruction.startswith("WARPGROUP.DEPBAR"):
                burst = 0
        return longest

    def overlapped(self) -> int:
        """Exponentials between the first product of a burst and the wait for it."""
        found = pending = 0
        running = False
        for instruction in self.instructions:
            if instruction.startswith("HGMMA"):
                running = True
            elif instruction.startswith("WARPGROUP.DEPBAR"):
                found, pending, running = found + pending, 0, False
            elif instruction.startswith("MUFU.EX2") and running:
                pending += 1
        return found


def tool() -> Path | None:
    """The disassembler that triton's wheel brings, where it does."""
    import triton

    path = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    return path if path.exists() else None


def compiled(
    kernel: Any, dtype: str, channels: int, tiles: Tiles, *, bulk: bool, valid: bool = False
) -> Code:
    """Compile `kernel` as a launch on an H100 with blocks of 128 would."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    constants = {
        "D": channels, "BLOCK": 128, "BLOCK_M": tiles.m, "BLOCK_N": tiles.n, "TMA": bulk,
        "AHEAD": tiles.ahead and not valid, "HAS_VALID": valid, "UPCAST": False,
        "PRECISION": "ieee",
    }  # fmt: skip
    tile_rows = {"q": tiles.m, "dout": tiles.m, "k": tiles.n, "v": tiles.n}
    signature = {}
    for name in kernel.arg_names:
        if name in constants:
            kind = "constexpr"
        elif name in tile_rows:
            box = f"tensordesc<{dtype}[1,1,{tile_rows[name]},{channels}]>"
            kind = box if bulk else f"*{dtype}"
        elif name in ("out", "dq", "dk", "dv"):
            kind = f"*{dtype}"
        elif name in ("count", "index", "order", "kv_valid"):
            kind = "*i32"
        elif name in ("lse", "delta", "shift"):
            kind = "*fp32"
        else:
            kind = "fp32" if name.startswith("scale") else "i32"
        signature[name] = kind
    aligned = {
        (place,): [["tt.divisibility", 16]]
        for place, (name, kind) in enumerate(signature.items())
        if kind.startswith("*") or (kind == "i32" and name not in SIZES)
    }
    source = ASTSource(
        kernel,
        signature=signature,
        constexprs={n: v for n, v in constants.items() if n in signature},
        attrs=aligned,
    )
    made = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=tiles.options())
    return _read(made.asm["cubin"], made.metadata.shared)


def _read(cubin: bytes, shared: int) -> Code:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()

        def dump(what: str) -> str:
            command = [str(tool()), what, file.name]
            return subprocess.run(command, capture_output=True, text=True, check=True).stdout

        usage = re.search(r"REG:(\d+) STACK:(\d+)", dump("-res-usage"))
        text = dump("-sass")
    assert usage is not None
    lines = re.findall(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\d+ )?([A-Z][^;]*);", text)
    return Code(registers=int(usage[1]), stack=int(usage[2]), shared=shared, instructions=lines)
