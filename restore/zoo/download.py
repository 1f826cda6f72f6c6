"""Fetch one file: from the first address that has it, resumed, checked, and moved into place whole.

    address -> .part file, grown piece by piece -> size -> hash -> renamed to its place
       |               ^                             |
       |  broken: again, from where it stopped       |  differs: from the start, then
       +--> refused: the next address <--------------+  the next address

What has arrived is kept when the program ends, however it ends, and gone on with next time. A
piece is only joined to what is there when the server says that the file is unchanged (`If-Range`),
or when the hash is known and tells in the end.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from restore.errors import OutputError, WeightsError
from restore.zoo.answers import (
    BrokenError,
    RefusedError,
    check_head,
    check_status,
    first_line,
    identity,
    whole_size,
)
from restore.zoo.cache import Trust, write_text, writing
from restore.zoo.entry import ZooFile
from restore.zoo.hashing import Digests, hash_file
from restore.zoo.network import Network

if TYPE_CHECKING:
    from requests import Response, Session

log = logging.getLogger("restore.zoo")

ByteProgress = Callable[[int, int | None], None]
"""Called with the bytes that are here and with those of the whole file, None where nobody knows."""

_BLOCK = 1 << 20
_SPARE = 64 << 20  # bytes of disk left for others
_LONGEST_PAUSE = 60.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Receipt:
    """What came of a download."""

    url: str
    """Address it came from."""
    size: int
    """Bytes."""
    sha256: str
    """Hash of the content."""
    trust: Trust
    """What the hash was compared with."""


def fetch_file(
    file: ZooFile,
    target: Path,
    *,
    part: Path,
    network: Network,
    known_sha256: str | None = None,
    room: float = 1.0,
    progress: ByteProgress | None = None,
) -> Receipt:
    """Fetch `file` to `target`.

    Args:
        file: what is fetched, and from where.
        target: where it shall lie; only a whole and checked file is put there.
        part: where the pieces gather, on the same disk.
        network: how the network may be used; it is not `offline`.
        known_sha256: hash of an earlier download, which counts where none was published.
        room: disk space that must be free, in sizes of the file.
        progress: called while bytes arrive.

    Raises:
        WeightsError: no address has the file, or what they have is another one.
        OutputError: there is no space for it, or it cannot be written.
    """
    from requests import Session

    assert not network.offline
    refused: list[str] = []
    unreachable: set[str] = set()
    with Session() as session:
        for url in file.urls:
            host = urlsplit(network.address(url)).netloc
            if host in unreachable:
                continue
            source = _Source(
                session=session,
                url=url,
                network=network,
                file=file,
                part=_Part(part),
                known=known_sha256,
                room=room,
                progress=progress or (lambda done, total: None),
            )
            try:
                receipt = source.fetch()
            except RefusedError as error:
                log.info("%s: %s", url, error)
                refused.append(f"{host}: {error}")
                if error.host:
                    unreachable.add(host)
                continue
            with writing(target):
                target.parent.mkdir(parents=True, exist_ok=True)
                source.part.path.replace(target)
                source.part.discard()
            return receipt
    raise WeightsError(f"{Path(file.path).name} could not be fetched ({'; '.join(refused)})")


class _Part:
    """Pieces of a file that have arrived, with a note of what they are pieces of."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._note = path.with_name(path.name + ".json")

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.is_file() else 0

    def note(self) -> dict[str, Any]:
        """URL, validator and hash of the host, as far as they are known."""
        try:
            content = json.loads(self._note.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}

    def begin(self, note: Mapping[str, Any]) -> None:
        """Throw away what is there, and say what comes next."""
        with writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_bytes(b"")  # first: a note never speaks of other bytes
            write_text(self._note, json.dumps(note))

    def discard(self) -> None:
        """Throw all of it away."""
        with writing(self.path):
            self.path.unlink(missing_ok=True)
            self._note.unlink(missing_ok=True)


@dataclass(kw_only=True, slots=True)
class _Source:
    """One address of one file."""

    session: Session
    url: str
    network: Network
    file: ZooFile
    part: _Part
    known: str | None
    room: float
    progress: ByteProgress
    resumed: bool = False
    answered: bool = False

    def fetch(self) -> Receipt:
        """Receive the whole file into the part, and check it."""
        reason = ""
        for again in (True, False):
            self.receive_all()
            with writing(self.part.path):
                digests = hash_file(self.part.path)
            wrong = self.compare(digests)
            if wrong is None:
                return Receipt(
                    url=self.url,
                    size=digests.size,
                    sha256=digests.sha256,
                    trust=self.trust(),
                )
            reason = wrong
            self.part.discard()
            if not (self.resumed and again):
                break
            log.info(
                "%s: %s; it was put together from pieces: again from the start", self.url, wrong
            )
        raise RefusedError(reason)

    def receive_all(self) -> None:
        """Receive until the last byte is there; broken connections are taken up again."""
        failures, most = 0, self.part.size
        while True:
            try:
                self.receive()
                return
            except BrokenError as error:
                failures = 0 if self.part.size > most else failures + 1
                most = max(most, self.part.size)
                if failures >= self.network.attempts:
                    reason = f"{error}, {failures} times"
                    raise RefusedError(reason, host=not self.answered) from error
                pause = max(error.wait, self.network.pause * 2 ** max(0, failures - 1))
                log.info("%s: %s; again in %.0f s", self.url, error, pause)
                time.sleep(min(pause, _LONGEST_PAUSE))

    def receive(self) -> None:
        """Make one request, and write what it brings."""
        from requests import RequestException
        from requests.exceptions import InvalidSchema, InvalidURL, SSLError, TooManyRedirects

        address = self.network.address(self.url)
        start, headers = self.resume_point()
        try:
            with self.session.get(
                address,
                headers={**self.network.headers(address), **headers},
                stream=True,
                timeout=self.network.timeout,
            ) as response:
                self.answered = True
                self.take(response, start)
        except (SSLError, InvalidURL, InvalidSchema, TooManyRedirects) as error:
            raise RefusedError(first_line(error)) from error
        except RequestException as error:
            raise BrokenError(first_line(error)) from error

    def resume_point(self) -> tuple[int, dict[str, str]]:
        """How many bytes are of use, and the headers that ask for the rest."""
        start, note = self.part.size, self.part.note()
        validator = note.get("validator")
        if start and validator and note.get("url") == self.url:
            return start, {"Range": f"bytes={start}-", "If-Range": str(validator)}
        if start and self.file.checkable:  # from wherever it is: the hash tells
            return start, {"Range": f"bytes={start}-"}
        if start:
            self.part.discard()
        return 0, {}

    def take(self, response: Response, start: int) -> None:
        """Append or replace what is there with the body of `response`."""
        if response.status_code == 416 and start:
            if whole_size(response) == start:  # all of it had arrived
                self.resumed = True
                return
            self.part.discard()
            raise BrokenError("it is shorter there than what had arrived")
        check_status(response)
        if response.status_code == 206:
            match = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
            if match is None or int(match[1]) != start:
                self.part.discard()
                raise BrokenError("it answered with another piece than was asked for")
            self.resumed = self.resumed or start > 0
        else:
            start = 0
        total = whole_size(response)
        if total is not None:
            self.check_size(total, start)
        blocks = response.iter_content(_BLOCK)
        first = next(blocks, b"")
        if start == 0:
            check_head(first, response)
            self.part.begin({"url": self.url, **identity(response)})
        done = self.write(first, blocks, start, total)
        if total is not None and done < total:
            raise BrokenError(f"the connection broke off after {done} of {total} bytes")
        if total is not None and done > total:
            self.part.discard()
            raise BrokenError(f"it sent {done} bytes instead of {total}")
        if done == 0:
            raise RefusedError("it sent an empty file")

    def write(self, first: bytes, blocks: Any, start: int, total: int | None) -> int:
        """Write blocks behind `start`; the size of the part afterwards."""
        from requests import RequestException

        done = start
        try:
            with self.part.path.open("r+b") as file:
                file.seek(start)
                file.truncate()
                block: bytes | None = first
                while block is not None:
                    file.write(block)
                    done += len(block)
                    self.progress(done, total)
                    block = next(blocks, None)
                file.flush()
                os.fsync(file.fileno())
        except RequestException:  # these are OSErrors, too, but none of the disk
            raise
        except OSError as error:
            raise OutputError(
                f"cannot write {self.part.path} ({error.strerror or error}); free some space or "
                "check the disk, then run the same command again: what has arrived is kept"
            ) from error
        return done

    def check_size(self, total: int, start: int) -> None:
        """Find out before the transfer that the file is another one, or does not fit the disk."""
        if self.file.size is not None and total != self.file.size:
            raise RefusedError(f"it has {total} bytes there, not {self.file.size}")
        needed = int(total * self.room) - start + _SPARE
        folder = next(p for p in self.part.path.parents if p.is_dir())
        free = shutil.disk_usage(folder).free
        if free < needed:
            raise OutputError(
                f"{Path(self.file.path).name} needs {needed / 2**30:.1f} GiB on the disk of "
                f"{folder}, where {free / 2**30:.1f} GiB are free; free some, or choose another "
                "folder with RESTORE_CACHE"
            )

    def compare(self, digests: Digests) -> str | None:
        """How what has arrived is not what it should be; None when nothing speaks against it."""
        if (wrong := digests.differs(self.file)) is not None or self.file.checkable:
            return wrong
        if self.known is not None and digests.sha256 != self.known:
            return f"its SHA-256 is {digests.sha256}, and at the first download was {self.known}"
        stated = self.part.note().get("sha256")
        if stated is not None and digests.sha256 != stated:
            return f"its SHA-256 is {digests.sha256}, but the host states {stated}"
        return None

    def trust(self) -> Trust:
        """What the hash was compared with."""
        if self.file.checkable:
            return "published"
        return "host" if self.part.note().get("sha256") else "first"
