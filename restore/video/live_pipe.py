"""The two ends of a stream: a pipe to read from and a pipe to write to, as PyAV takes them.

PyAV's reads and writes run on threads of their own, so that Ctrl-C always finds the main thread
free; a read that waits for data looks now and then whether it is still wanted.
"""

from __future__ import annotations

import contextlib
import io
import os
import select
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from restore.errors import OutputError
from restore.live_config import STANDARD

_LOOK = 0.2  # seconds between two looks at `stop`
_SEGMENT, _CLUSTER = b"\x18\x53\x80\x67", b"\x1f\x43\xb6\x75"
_TS_PACKET = 188


class Readable(Protocol):
    """What a stream can be read from."""

    def read(self, size: int, /) -> bytes | None:
        """Up to `size` bytes, as soon as there are some; none = the end."""
        ...


class Writable(Protocol):
    """What a stream can be written to."""

    def write(self, data: bytes, /) -> int | None:
        """Write; the number of bytes taken, or None for all."""
        ...


class InputPipe:
    """Bytes of a stream as they come, until it ends or `stop` is set.

    Attributes:
        total: bytes read so far.
    """

    def __init__(self, file: Readable, stop: threading.Event) -> None:
        self.total = 0
        self._file, self._stop = file, stop
        self._elements = _Elements()
        self._poll = _poll_of(file)

    def read(self, size: int) -> bytes:
        """What has come, up to `size` bytes; nothing at the end."""
        while self._poll is not None and not self._stop.is_set():
            if self._poll.poll(1000 * _LOOK):
                break
        if self._stop.is_set():
            return b""
        data = self._file.read(size) or b""
        self.total += len(data)
        self._elements.feed(data)
        return data

    def seekable(self) -> bool:
        """PyAV asks."""
        return False

    def cut(self, container: str, end: int | None) -> str | None:
        """How the stream breaks off, in words for a message; None = no sign of it.

        Args:
            container: FFmpeg's name of its format.
            end: position behind the last whole packet, where known.
        """
        if container in ("rawvideo", "yuv4mpegpipe"):
            rest = self.total - (end or 0)
            return f"its last frame has {rest} bytes only" if rest > 0 else None
        if "matroska" in container:
            return self._elements.cut()
        if container == "mpegts" and self.total % _TS_PACKET:
            return f"its last packet has {self.total % _TS_PACKET} of {_TS_PACKET} bytes"
        return None


class OutputPipe:
    """Writes all of what it is given.

    Attributes:
        total: bytes written so far.
    """

    def __init__(self, file: Writable) -> None:
        self.total = 0
        self._file = file

    def write(self, data: bytes) -> int:
        """Write `data`, waiting for the reader.

        Raises:
            BrokenPipeError: the reader is gone.
            OSError: it cannot be written for another reason.
        """
        left = memoryview(data)
        while left:
            taken = self._file.write(left)  # type: ignore[arg-type]
            left = left[len(left) if taken is None else taken :]
        self.total += len(data)
        return len(data)

    def seekable(self) -> bool:
        """PyAV asks."""
        return False


@contextlib.contextmanager
def taken_stdout() -> Iterator[Writable]:
    """Stdout for the stream alone: what anybody else writes there goes to stderr until the end."""
    sys.stdout.flush()
    try:
        number = sys.stdout.fileno()
        errors = sys.stderr.fileno()
    except (io.UnsupportedOperation, ValueError):  # someone put another object there
        yield sys.stdout.buffer
        return
    own = os.dup(number)
    os.dup2(errors, number)
    try:
        with open(own, "wb", buffering=0, closefd=False) as file:
            yield file
    finally:
        os.dup2(own, number)
        os.close(own)


@contextlib.contextmanager
def opened_target(goal: str | Path | Writable, *, overwrite: bool) -> Iterator[Writable]:
    """Where a stream goes: `-` for stdout, a file, or an object with `write`.

    Raises:
        OutputError: the file is there already, or cannot be made.
    """
    if not isinstance(goal, str | Path):
        yield goal
    elif str(goal) == STANDARD:
        with taken_stdout() as file:
            yield file
    else:
        path = Path(goal)
        try:
            file = path.open("wb" if overwrite else "xb", buffering=0)
        except FileExistsError:
            raise OutputError(
                f"{path} is already there; give --overwrite to replace it, or another name with "
                "--output"
            ) from None
        except OSError as error:
            raise OutputError(
                f"{path} cannot be written ({error.strerror}); choose another --output"
            ) from error
        with file:
            yield file


def _poll_of(file: Readable) -> Any:
    """What tells when `file` has data; None where it cannot be told."""
    if not hasattr(select, "poll"):  # Windows
        return None
    try:
        number = file.fileno()  # type: ignore[attr-defined]
    except (AttributeError, OSError, ValueError):
        return None
    poll = select.poll()
    poll.register(number, select.POLLIN)
    return poll


class _Elements:
    """Follows the elements of a Matroska stream, to tell whether its end lies within one."""

    def __init__(self) -> None:
        self._skip = 0  # bytes of the element that are still to come
        self._head = b""  # of an element whose size is not known yet
        self._lost = False

    def feed(self, data: bytes) -> None:
        """The next bytes."""
        while data and not self._lost:
            if self._skip:
                passed = min(self._skip, len(data))
                self._skip -= passed
                data = data[passed:]
                continue
            known = len(self._head)
            self._head += data[: 12 - known]
            if self._head[0] == 0:
                self._lost = True
                return
            name = 9 - self._head[0].bit_length()
            if len(self._head) <= name:
                return
            first = self._head[name]
            length = 9 - first.bit_length()
            if first == 0 or name > 4:
                self._lost = True
                return
            if len(self._head) < name + length:
                return
            data = data[name + length - known :]
            self._begin(self._head[:name], self._head[name : name + length])
            self._head = b""

    def cut(self) -> str | None:
        """As `InputPipe.cut`."""
        if self._lost or not (self._skip or self._head):
            return None
        return "its last element is cut off"

    def _begin(self, name: bytes, size: bytes) -> None:
        if name in (_SEGMENT, _CLUSTER):  # their content follows, whatever their size
            return
        limit = 1 << (7 * len(size))
        self._skip = int.from_bytes(size, "big") & (limit - 1)
        self._lost = self._skip == limit - 1
