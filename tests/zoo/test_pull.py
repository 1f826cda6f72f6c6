"""Weights come into the cache once, are converted once, and are found there."""

from __future__ import annotations

import dataclasses
import hashlib
import pickle
import selectors
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from zoo.hosts import Host, bytes_of

from restore.errors import WeightsError
from restore.nested_weights import open_nested
from restore.zoo.cache import Shelf, cache_folder
from restore.zoo.entries import ENTRIES
from restore.zoo.entry import Entry, ZooFile
from restore.zoo.locate import locate, locate_base, locate_weights
from restore.zoo.network import Network
from restore.zoo.pull import Pulled, pull
from restore.zoo.verify import Check, verify

NESTED = {"rank": 4, "names": ["a", "b"], "net": {"w": torch.arange(2000.0)}}


def sha256(content: bytes) -> str:
    """Hash as hex."""
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def content(tmp_path: Path) -> bytes:
    """A published pickle."""
    torch.save(NESTED, tmp_path / "published.pkl")
    return (tmp_path / "published.pkl").read_bytes()


@pytest.fixture
def tiny(host: Host, content: bytes, monkeypatch: pytest.MonkeyPatch) -> Entry:
    """An entry with one pickle on the server."""
    file = ZooFile(path="tiny.pkl", urls=(host.put("/tiny", content),), sha256=sha256(content))
    return add(monkeypatch, "tiny", file)


@pytest.fixture
def folder(host: Host, monkeypatch: pytest.MonkeyPatch) -> Entry:
    """A base in two number formats, of which only a configuration has a published hash."""
    files = [ZooFile(path="unet/config.json", urls=(host.put("/c", b"{}"),), sha256=sha256(b"{}"))]
    for variant, seed in (("fp32", 1), ("fp16", 2)):
        end = ".fp16.safetensors" if variant == "fp16" else ".safetensors"
        url = host.put(f"/{variant}", bytes_of(1000, seed))
        files.append(ZooFile(path=f"unet/net{end}", urls=(url,), variant=variant))  # type: ignore[arg-type]
    return add(monkeypatch, "folder", *files, kind="base")


def add(monkeypatch: pytest.MonkeyPatch, name: str, *files: ZooFile, **more: Any) -> Entry:
    """Put an entry into the zoo for the time of the test."""
    settings = {"kind": "weights", "summary": "a test", "licence": "MIT", "pages": ("https://x/y",)}
    entry = Entry(name=name, files=files, **{**settings, **more})
    monkeypatch.setitem(ENTRIES, name, entry)
    return entry


def bring(name: str, network: Network, **more: Any) -> Pulled:
    """Pull one entry."""
    (pulled,) = pull([name], network=network, **more)
    return pulled


def states(*names: str) -> dict[str, str]:
    """What `verify` says, by file name."""
    return {check.path.name: check.state for check in verify(names)}


def test_a_pickle_is_fetched_and_converted_once(
    tiny: Entry, host: Host, content: bytes, network: Network, cache: Path
) -> None:
    pulled = bring("tiny", network)
    assert (pulled.fetched, pulled.converted, pulled.unpublished) == (len(content), True, ())
    assert pulled.path == locate_weights("tiny") == cache / "models/tiny/tiny.safetensors"
    assert [path.name for path in pulled.path.parent.iterdir()] == ["tiny.safetensors"]
    found = open_nested(pulled.path)
    assert (found["rank"], found["names"]) == (4, ["a", "b"])
    assert torch.equal(found["net"]["w"], NESTED["net"]["w"])  # type: ignore[index]
    again = bring("tiny", network)
    assert (again.fetched, again.converted, again.path) == (0, False, pulled.path)
    assert len(host.asked) == 1


def test_the_record_says_where_it_came_from_and_what_it_was_made_of(
    tiny: Entry, content: bytes, network: Network
) -> None:
    bring("tiny", network, keep=True)
    records = Shelf(tiny).records()
    original, made = records["tiny.pkl"], records["tiny.safetensors"]
    assert (original.url, original.size) == (tiny.files[0].urls[0], len(content))
    assert (original.sha256, original.trust) == (sha256(content), "published")
    assert (made.made_from, made.trust) == (original.sha256, "converted")
    assert Shelf(tiny).place(tiny.files[0]).read_bytes() == content


def test_a_base_is_whole_in_one_number_format(folder: Entry, network: Network) -> None:
    with pytest.raises(WeightsError, match="restore models pull folder"):
        locate_base("folder")
    pulled = bring("folder", network, variant="fp16")
    assert pulled.path == locate_base("folder") == locate("folder")
    names = sorted(path.name for path in (pulled.path / "unet").iterdir())
    assert names == ["config.json", "net.fp16.safetensors"]
    assert pulled.unpublished == ("unet/net.fp16.safetensors",)
    (pulled.path / "unet" / "config.json").unlink()
    with pytest.raises(WeightsError, match=r"unet/config\.json of 'folder': not on this machine"):
        locate_base("folder")


def test_an_entry_of_one_format_ignores_the_choice(tiny: Entry, network: Network) -> None:
    assert bring("tiny", network, variant="fp16").path.name == "tiny.safetensors"


@pytest.mark.parametrize("how", ["flag", "RESTORE_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline_touches_no_network_and_says_what_to_do(
    how: str, tiny: Entry, host: Host, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    if how != "flag":
        monkeypatch.setenv(how, "1")
    offline = Network.from_environment(offline=how == "flag")
    with pytest.raises(WeightsError, match=r"tiny\.pkl of 'tiny'.*'restore models pull tiny'"):
        bring("tiny", offline)
    assert host.asked == []
    bring("tiny", network)
    assert bring("tiny", offline).fetched == 0


def test_the_environment_names_hub_and_cache(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RESTORE_OFFLINE", "0")
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example/")
    monkeypatch.setenv("HF_TOKEN", "secret")
    network = Network.from_environment()
    assert not network.offline
    assert network.address("https://huggingface.co/a/b") == "https://mirror.example/a/b"
    assert network.address("https://example.org/a") == "https://example.org/a"
    assert "Authorization" in network.headers("https://mirror.example/a/b")
    assert "Authorization" not in network.headers("https://huggingface.co/a/b")
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("RESTORE_CACHE")
    assert "restore" in cache_folder().parts


def test_what_is_missing_is_named_with_command_and_page(tiny: Entry) -> None:
    with pytest.raises(WeightsError) as caught:
        locate_weights("tiny")
    said = str(caught.value)
    for part in ("tiny.pkl", "'restore models pull tiny'", "https://x/y", "--weights"):
        assert part in said
    with pytest.raises(WeightsError, match=r"nothing\.safetensors is missing"):
        locate_weights("nothing")


def test_weights_in_the_package_are_found_there() -> None:
    assert locate("compact").name == "compact.safetensors"


def test_two_processes_fetch_it_once(host: Host, content: bytes, cache: Path) -> None:
    gate = threading.Event()  # keeps the first in the middle of the file until the second waits
    url = host.put("/tiny", content, gate=gate)
    code = f"""
        from restore.zoo.entries import ENTRIES
        from restore.zoo.entry import Entry, ZooFile
        from restore.zoo.network import Network
        from restore.zoo.pull import pull
        file = ZooFile(path="tiny.pkl", urls=({url!r},), converter="")
        ENTRIES["tiny"] = Entry(name="tiny", kind="part", summary="", licence="", pages=("",),
            files=(file,))
        (pulled,) = pull(["tiny"], network=Network())
        print(pulled.fetched, pulled.path)
    """
    arguments = [sys.executable, "-c", textwrap.dedent(code)]
    settings: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with (
        subprocess.Popen(arguments, **settings) as first,
        subprocess.Popen(arguments, **settings) as second,
    ):
        waiting = selectors.DefaultSelector()
        for process in (first, second):
            waiting.register(process.stderr, selectors.EVENT_READ)  # type: ignore[arg-type]
        ((key, _),) = waiting.select(timeout=30)
        assert "another process is fetching 'tiny'" in key.fileobj.readline()  # type: ignore[union-attr]
        gate.set()
        said = sorted(process.communicate(timeout=30)[0].split() for process in (first, second))
    path = str(cache / "models/tiny/tiny.pkl")
    assert said == [["0", path], [str(len(content)), path]]
    assert (cache / "models/tiny/tiny.pkl").read_bytes() == content
    assert len(host.asked) == 1


def test_a_file_put_there_by_hand_is_taken(
    tiny: Entry, host: Host, content: bytes, network: Network
) -> None:
    place = Shelf(tiny).place(tiny.files[0])
    place.parent.mkdir(parents=True)
    place.write_bytes(content)
    assert locate_weights("tiny") == place
    assert bring("tiny", network).converted
    assert host.asked == []


def test_another_file_put_there_by_hand_is_refused(tiny: Entry, network: Network) -> None:
    place = Shelf(tiny).place(tiny.files[0])
    place.parent.mkdir(parents=True)
    torch.save({"w": torch.zeros(3)}, place)
    with pytest.raises(WeightsError, match="is not what was published: its SHA-256 is"):
        bring("tiny", network)


class Evil:
    """Runs something when it is unpickled without care."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return (print, ("code ran",))


def test_a_pickle_with_code_is_not_converted(
    host: Host, network: Network, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    url = host.put("/evil", pickle.dumps({"net": Evil()}, protocol=2))
    entry = add(monkeypatch, "evil", ZooFile(path="evil.pkl", urls=(url,)))
    with pytest.raises(WeightsError, match="was refused"):
        bring("evil", network)
    assert "code ran" not in capsys.readouterr().out
    assert not Shelf(entry).converted(entry.files[0]).exists()


def test_a_file_that_its_method_reads_itself_stays_a_pickle(
    tiny: Entry, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = dataclasses.replace(tiny.files[0], converter="")
    monkeypatch.setitem(ENTRIES, "tiny", dataclasses.replace(tiny, files=(plain,)))
    assert bring("tiny", network).path.name == "tiny.pkl"


def test_what_came_first_counts_where_nothing_was_published(
    folder: Entry, host: Host, network: Network
) -> None:
    bring("folder", network)
    (Shelf(folder).folder / "unet" / "net.safetensors").unlink()
    host.put("/fp32", bytes_of(1000, 9))
    with pytest.raises(WeightsError, match=r"at the first download was .*delete .*folder\.json"):
        bring("folder", network)
    Shelf(folder).records_path.unlink()
    assert bring("folder", network).fetched == 1000


def test_a_damaged_record_is_left_aside(tiny: Entry, network: Network) -> None:
    bring("tiny", network, keep=True)
    Shelf(tiny).records_path.write_text('{"files": {"tiny.pkl": {"size"')
    assert bring("tiny", network, keep=True).converted  # the pickle is here, its hash is known
    assert states("tiny") == {"tiny.safetensors": "unchanged", "tiny.pkl": "published"}


def test_verify_tells_what_was_published_from_what_has_changed(
    tiny: Entry, folder: Entry, network: Network
) -> None:
    bring("tiny", network, keep=True)
    bring("folder", network)
    assert states() == {
        "tiny.safetensors": "unchanged",
        "tiny.pkl": "published",
        "config.json": "published",
        "net.safetensors": "unchanged",
    }
    for path in (locate_weights("tiny"), locate_base("folder") / "unet" / "config.json"):
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
    (locate_base("folder") / "unet" / "net.safetensors").unlink()
    assert states() == {
        "tiny.safetensors": "changed",
        "tiny.pkl": "published",
        "config.json": "changed",
        "net.safetensors": "missing",
    }
    problems = [check.problem for check in verify() if check.problem]
    assert len(problems) == 3
    assert all("restore models pull" in problem for problem in problems)


def test_verify_has_nothing_to_compare_a_stranger_with(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = add(monkeypatch, "tiny", ZooFile(path="tiny.pkl", urls=("https://x/tiny.pkl",)))
    place = Shelf(entry).place(entry.files[0])
    place.parent.mkdir(parents=True)
    place.write_bytes(b"weights")
    (check,) = verify(["tiny"])
    assert check == Check(
        name="tiny", path=place, state="unknown", sha256=sha256(b"weights"), problem=None
    )
    assert states() == {"tiny.pkl": "unknown"}


def test_verify_says_that_what_was_asked_for_is_missing(tiny: Entry) -> None:
    (check,) = verify(["tiny"])
    assert check.state == "missing"
    assert list(verify()) == []
