"""One file over a network that fails in every way: the right bytes in the end, or one line.

The servers run on this machine; the real addresses were not tried.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
from zoo.hosts import Host, bytes_of

from restore.errors import OutputError, WeightsError
from restore.zoo import download
from restore.zoo.download import Receipt, fetch_file
from restore.zoo.entry import ZooFile
from restore.zoo.network import Network

# Several blocks of the downloader, so that a cut leaves whole blocks behind.
CONTENT = bytes_of(5 * (1 << 16))
CHANGED = bytes_of(len(CONTENT), seed=1)
STOPS = [100_000, *[0] * 9]
"""A host that breaks off after 100 kB, and then sends nothing any more."""
ONCE = Network(attempts=1, pause=0, timeout=5)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of 4 KiB: what arrives before a cut is written."""
    monkeypatch.setattr(download, "_BLOCK", 1 << 12)


def sha256(content: bytes) -> str:
    """Hash as hex."""
    return hashlib.sha256(content).hexdigest()


def git_blob(content: bytes) -> str:
    """Git's name for a file."""
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()


def described(*urls: str, **facts: Any) -> ZooFile:
    """A file with the hash of `CONTENT`, unless told otherwise."""
    facts.setdefault("sha256", sha256(CONTENT))
    return ZooFile(path="net.pkl", urls=urls, **facts)


def fetch(file: ZooFile, folder: Path, network: Network, **more: Any) -> Receipt:
    """Fetch into `folder`."""
    return fetch_file(
        file, folder / "here" / file.path, part=folder / "part" / "x.part", network=network, **more
    )


def arrived(folder: Path) -> bytes:
    """What lies at its place."""
    return (folder / "here" / "net.pkl").read_bytes()


def parts(folder: Path) -> list[str]:
    """What lies where the pieces gather."""
    return sorted(path.name for path in (folder / "part").glob("*"))


def test_a_whole_file_is_checked_and_put_in_its_place(
    host: Host, tmp_path: Path, network: Network
) -> None:
    seen: list[tuple[int, int | None]] = []
    file = described(host.put("/a", CONTENT), size=len(CONTENT))
    receipt = fetch(file, tmp_path, network, progress=lambda *n: seen.append(n))
    assert receipt == Receipt(
        url=host.url + "/a", size=len(CONTENT), sha256=sha256(CONTENT), trust="published"
    )
    assert arrived(tmp_path) == CONTENT
    assert parts(tmp_path) == []
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


@pytest.mark.parametrize("known", [True, False])
def test_a_cut_connection_is_taken_up_where_it_broke(
    known: bool, host: Host, tmp_path: Path, network: Network
) -> None:
    cut = len(CONTENT) * 6 // 10
    url = host.put("/a", CONTENT, cuts=[cut])
    fetch(described(url, sha256=sha256(CONTENT) if known else None), tmp_path, network)
    assert arrived(tmp_path) == CONTENT
    first, second = host.ranges()
    assert first is None
    assert second is not None
    resumed = int(second.removeprefix("bytes=").removesuffix("-"))
    assert cut - (1 << 12) <= resumed <= cut


def test_many_cuts_are_borne_while_each_brings_something(
    host: Host, tmp_path: Path, network: Network
) -> None:
    url = host.put("/a", CONTENT, cuts=[30_000] * 9)  # more than the attempts of the network
    fetch(described(url), tmp_path, network)
    assert arrived(tmp_path) == CONTENT
    assert len(host.asked) == 10


def test_a_host_that_never_gets_further_is_left(
    host: Host, tmp_path: Path, network: Network
) -> None:
    url = host.put("/a", CONTENT, ranges=False, etag=None, cuts=[30_000] * 99)
    with pytest.raises(WeightsError, match=r"\(30000 bytes read"):
        fetch(described(url), tmp_path, network)
    assert len(host.asked) <= 1 + network.attempts


@pytest.mark.parametrize("known", [True, False])
def test_a_file_that_changed_meanwhile_is_not_spliced(
    known: bool, host: Host, tmp_path: Path, network: Network
) -> None:
    """The first piece is of an old file; the whole is the new one, and nothing of the old."""
    url = host.put("/a", CHANGED, cuts=[*STOPS])
    file = described(url, sha256=sha256(CONTENT) if known else None)
    with pytest.raises(WeightsError):
        fetch(file, tmp_path, ONCE)
    assert parts(tmp_path) == ["x.part", "x.part.json"]
    host.put("/a", CONTENT, etag='"2"')
    receipt = fetch(file, tmp_path, network)
    assert arrived(tmp_path) == CONTENT
    assert receipt.sha256 == sha256(CONTENT)
    assert host.asked[-1][1]["if-range"] == '"1"'


def test_pieces_that_do_not_fit_together_are_thrown_away(
    host: Host, tmp_path: Path, network: Network
) -> None:
    """A host that ignores If-Range sends the rest of another file: only the hash can tell."""
    url = host.put("/a", CHANGED, cuts=[*STOPS])
    with pytest.raises(WeightsError):
        fetch(described(url), tmp_path, ONCE)
    host.put("/a", CONTENT, honest=False)
    before = len(host.asked)
    fetch(described(url), tmp_path, network)
    assert arrived(tmp_path) == CONTENT
    assert [r is None for r in host.ranges()[before:]] == [False, True]


def test_without_hash_and_etag_it_starts_again(
    host: Host, tmp_path: Path, network: Network
) -> None:
    url = host.put("/a", CONTENT, etag=None, cuts=[100_000])
    fetch(described(url, sha256=None), tmp_path, network)
    assert arrived(tmp_path) == CONTENT
    assert host.ranges() == [None, None]


def test_a_weak_etag_does_not_vouch_for_bytes(host: Host, tmp_path: Path, network: Network) -> None:
    url = host.put("/a", CONTENT, etag='W/"1"', cuts=[100_000])
    fetch(described(url, sha256=None), tmp_path, network)
    assert host.ranges() == [None, None]


def test_all_had_arrived_before_it_was_broken_off(
    host: Host, tmp_path: Path, network: Network
) -> None:
    url = host.put("/a", CONTENT)
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / "x.part").write_bytes(CONTENT)
    fetch(described(url), tmp_path, network)
    assert arrived(tmp_path) == CONTENT
    assert host.ranges() == [f"bytes={len(CONTENT)}-"]


@pytest.mark.parametrize("known", [True, False])
def test_a_mirror_goes_on(
    known: bool, host: Host, other_host: Host, tmp_path: Path, network: Network
) -> None:
    """With a hash the mirror sends the rest only; without one its file may be another."""
    broken = host.put("/a", CONTENT, cuts=[100_000] + [0] * 9)
    good = other_host.put("/b", CONTENT)
    file = described(broken, good, sha256=sha256(CONTENT) if known else None)
    receipt = fetch(file, tmp_path, network)
    assert arrived(tmp_path) == CONTENT
    assert receipt.url == good
    (asked,) = other_host.ranges()
    assert (asked is not None) == known


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n"


@pytest.mark.parametrize(
    ("page", "said"),
    [
        ({"status": 404}, "HTTP 404"),
        ({"status": 403}, "HTTP 403, it wants a login: HF_TOKEN"),
        ({"status": 503}, "HTTP 503, 3 times"),
        ({"content": LFS}, "a Git LFS pointer instead of the file"),
        ({"content": b"<!DOCTYPE html><html>"}, "a web page instead of the file"),
        ({"content": b"\n  <html>"}, "a web page instead of the file"),
        ({"content": b"quota", "kind": "text/html; charset=utf-8"}, "a web page"),
        ({"content": CHANGED}, f"its SHA-256 is {sha256(CHANGED)}, not {sha256(CONTENT)}"),
        ({"content": b""}, "an empty file"),
    ],
)
def test_what_is_not_the_file_is_refused_and_the_mirror_is_asked(
    page: dict[str, Any], said: str, host: Host, tmp_path: Path, network: Network
) -> None:
    bad = host.put("/bad", **page)
    with pytest.raises(WeightsError, match="could not be fetched") as caught:
        fetch(described(bad), tmp_path, network)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "here" / "net.pkl").exists()
    receipt = fetch(described(bad, host.put("/good", CONTENT)), tmp_path, network)
    assert receipt.url == host.url + "/good"
    assert arrived(tmp_path) == CONTENT


def test_a_portal_does_not_cost_what_had_arrived(
    host: Host, tmp_path: Path, network: Network
) -> None:
    """A hotel's login page in place of the rest of the file leaves the pieces alone."""
    url = host.put("/a", CONTENT, cuts=[*STOPS])
    with pytest.raises(WeightsError):
        fetch(described(url), tmp_path, ONCE)
    size = (tmp_path / "part" / "x.part").stat().st_size
    assert size > 90_000
    host.put("/a", b"<html>please log in", etag='"p"')
    with pytest.raises(WeightsError, match="a web page"):
        fetch(described(url), tmp_path, ONCE)
    assert (tmp_path / "part" / "x.part").stat().st_size == size


def test_a_wrong_size_is_found_before_the_transfer(
    host: Host, tmp_path: Path, network: Network
) -> None:
    url = host.put("/a", CHANGED + b"x")
    with pytest.raises(WeightsError, match=f"has {len(CHANGED) + 1} bytes there, not 9"):
        fetch(described(url, size=9), tmp_path, network)
    assert parts(tmp_path) == []


def test_a_git_blob_id_tells_the_content(host: Host, tmp_path: Path, network: Network) -> None:
    bad, good = host.put("/bad", CHANGED), host.put("/good", CONTENT)
    file = described(bad, good, sha256=None, git_blob=git_blob(CONTENT))
    assert fetch(file, tmp_path, network).url == good


def test_the_hash_that_the_hub_states_on_the_way_counts(
    host: Host, other_host: Host, tmp_path: Path, network: Network
) -> None:
    """The hub sends on to its storage, and says the hash of large files while doing so."""
    store = other_host.put("/store", CONTENT)
    stated = {"X-Linked-ETag": f'"{sha256(CONTENT)}"'}
    url = host.put("/a", status=302, redirect=store, headers=stated)
    assert fetch(described(url, sha256=None), tmp_path, network).trust == "host"
    other_host.put("/store", CHANGED)
    with pytest.raises(WeightsError, match="but the host states"):
        fetch(described(url, sha256=None), tmp_path, network)


def test_without_any_hash_the_first_download_counts_from_then_on(
    host: Host, tmp_path: Path, network: Network
) -> None:
    file = described(host.put("/a", CONTENT), sha256=None)
    first = fetch(file, tmp_path, network)
    assert first.trust == "first"
    host.put("/a", CHANGED)
    with pytest.raises(WeightsError, match="at the first download was"):
        fetch(file, tmp_path, network, known_sha256=first.sha256)


def test_a_disk_without_room_is_found_before_the_transfer(
    host: Host, tmp_path: Path, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(9, 9, len(CONTENT)))
    url = host.put("/a", CONTENT)
    with pytest.raises(OutputError, match=r"needs 0\.1 GiB .* RESTORE_CACHE"):
        fetch(described(url), tmp_path, network)
    assert parts(tmp_path) == []


def test_a_disk_that_fills_up_keeps_what_has_arrived(
    host: Host, tmp_path: Path, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, os.strerror(28))

    url = host.put("/a", CONTENT)
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(OutputError, match=r"No space left on device.*is kept"):
            fetch(described(url), tmp_path, network)
    assert (tmp_path / "part" / "x.part").stat().st_size == len(CONTENT)
    fetch(described(url), tmp_path, network)
    assert arrived(tmp_path) == CONTENT


def test_the_token_goes_to_the_hub_and_nowhere_else(
    host: Host, other_host: Host, tmp_path: Path
) -> None:
    store = other_host.put("/store", CONTENT)
    host.put("/OAOA/x", status=302, redirect=store.replace("127.0.0.1", "localhost"))
    elsewhere = other_host.put("/elsewhere", status=404)
    network = Network(attempts=1, pause=0, timeout=5, endpoint=host.url, token="secret")
    fetch(described(elsewhere, "https://huggingface.co/OAOA/x"), tmp_path, network)
    assert host.asked[-1][1]["authorization"] == "Bearer secret"
    assert all("authorization" not in headers for _, headers in other_host.asked)
    assert [path for path, _ in other_host.asked] == ["/elsewhere", "/store"]


def test_nobody_there_is_one_line(tmp_path: Path, network: Network) -> None:
    with pytest.raises(WeightsError, match=r"127\.0\.0\.1:9: .*refused.*, 3 times") as caught:
        fetch(described("http://127.0.0.1:9/a"), tmp_path, network)
    assert "\n" not in str(caught.value)


def test_a_host_that_cannot_be_reached_is_tried_once(tmp_path: Path, network: Network) -> None:
    with pytest.raises(WeightsError) as caught:
        fetch(described("http://127.0.0.1:9/a", "http://127.0.0.1:9/b"), tmp_path, network)
    assert str(caught.value).count("127.0.0.1:9") == 1


@pytest.mark.parametrize("known", [True, False])
def test_a_killed_download_gives_the_same_bytes_later(
    known: bool, host: Host, tmp_path: Path, network: Network
) -> None:
    gate = threading.Event()
    url = host.put("/a", CONTENT, gate=gate)
    part = tmp_path / "part" / "x.part"
    sha = sha256(CONTENT) if known else None
    code = f"""
        from pathlib import Path
        from restore.zoo import download
        from restore.zoo.entry import ZooFile
        from restore.zoo.network import Network
        download._BLOCK = 1 << 12
        file = ZooFile(path="net.pkl", urls=({url!r},), sha256={sha!r})
        def progress(done, total):
            if done >= total // 2:
                print("half", flush=True)
        download.fetch_file(file, Path({str(tmp_path)!r}) / "here" / "net.pkl",
            part=Path({str(part)!r}), network=Network(), progress=progress)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "half\n"
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    process.stdout.close()
    gate.set()
    size = part.stat().st_size
    assert 0 < size <= len(CONTENT) // 2
    host.put("/a", CONTENT)
    fetch(described(url, sha256=sha), tmp_path, network)
    assert arrived(tmp_path) == CONTENT
    assert host.ranges()[-1] == f"bytes={size}-"
