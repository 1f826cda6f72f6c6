"""`restore models`: what is here, what is missing, and what brings it."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from zoo.hosts import Host, running_host

from restore.cli.commands import app
from restore.inventory import describe_model, licence_notice
from restore.method import MethodSpec
from restore.nested_weights import open_nested
from restore.registry import METHODS
from restore.zoo.entries import ENTRIES
from restore.zoo.entry import Entry, ZooFile
from restore.zoo.locate import locate


def run(*arguments: str) -> Result:
    """Run the program in this process."""
    return CliRunner().invoke(app, arguments)


def json_lines(result: Result) -> list[dict[str, Any]]:
    """What the program wrote to stdout, all of which must be JSON objects."""
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and nothing of the user's environment."""
    for name in ("RESTORE_OFFLINE", "HF_HUB_OFFLINE", "HF_ENDPOINT", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("RESTORE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def host() -> Iterator[Host]:
    """A server of this test."""
    with running_host() as running:
        yield running


@pytest.fixture
def wheels(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Entry:
    """A method's weights (`car`) and what they stand on (`wheels`), on the server."""
    torch.save({"net": {"w": torch.ones(500)}}, tmp_path / "car.pkl")
    content = (tmp_path / "car.pkl").read_bytes()
    for name, path, body, licence, requires in (
        ("wheels", "unet/config.json", b"{}", "S-Lab License (non-commercial)", ()),
        ("car", "car.pkl", content, "MIT", ("wheels",)),
    ):
        entry = Entry(
            name=name,
            kind="base" if name == "wheels" else "weights",
            summary=f"{name} of a test",
            files=(
                ZooFile(
                    path=path,
                    urls=(host.put(f"/{name}", body),),
                    size=len(body),
                    sha256=hashlib.sha256(body).hexdigest(),
                ),
            ),
            licence=licence,
            pages=("https://example.org/page",),
            requires=requires,
        )
        monkeypatch.setitem(ENTRIES, name, entry)
    return ENTRIES["wheels"]


@pytest.fixture
def car(wheels: Entry, monkeypatch: pytest.MonkeyPatch) -> MethodSpec:
    """A registered method that needs both."""
    spec = MethodSpec(name="car", summary="a car", scale=4, overlap=1, base="wheels", licence="MIT")
    module = SimpleNamespace(Car=SimpleNamespace(spec=spec))
    monkeypatch.setitem(sys.modules, "car_of_this_test", module)  # type: ignore[misc]
    monkeypatch.setitem(METHODS, "car", "car_of_this_test:Car")
    return spec


def test_pull_fetches_what_is_needed_and_says_what_it_did(wheels: Entry, cache: Path) -> None:
    result = run("models", "pull", "car")
    assert result.exit_code == 0
    assert result.stdout == ""
    note, base, weights = result.stderr.splitlines()
    assert note.startswith("restore: note: the weights of 'wheels' are under 'S-Lab")
    assert base == f"wheels: 2 bytes fetched: {cache / 'models/wheels'}"
    assert weights.startswith("car: ")
    assert weights.endswith(f"converted to safetensors: {cache / 'models/car/car.safetensors'}")
    assert "car: was here: " in run("models", "pull", "car", "--offline").stderr


def test_pull_alone_leaves_the_rest(wheels: Entry, host: Host) -> None:
    assert run("models", "pull", "car", "--alone").exit_code == 0
    assert [path for path, _ in host.asked] == ["/car"]


def test_pull_writes_events_as_json(wheels: Entry) -> None:
    lines = json_lines(run("models", "pull", "car", "--json"))
    done = [line for line in lines if line["event"] == "done"]
    assert [line["name"] for line in done] == ["wheels", "car"]
    assert [line["converted"] for line in done] == [False, True]
    progress = next(line for line in lines if line["event"] == "progress")
    assert (progress["name"], progress["done"], progress["total"]) == ("wheels", 2, 2)


def test_what_cannot_be_fetched_does_not_stop_the_others(wheels: Entry, host: Host) -> None:
    host.put("/wheels", status=404)
    result = run("models", "pull", "car")
    assert result.exit_code == 1
    (failed,) = [line for line in result.stderr.splitlines() if "failed" in line]
    assert failed.startswith("restore: failed: wheels: config.json could not be fetched (127.0.0.1")
    assert "HTTP 404" in failed
    assert "https://example.org/page" in failed
    assert locate("car").is_file()
    (event,) = [
        e for e in json_lines(run("models", "pull", "car", "--json")) if e["event"] == "failed"
    ]
    assert event["name"] == "wheels"


def test_offline_names_file_and_command(wheels: Entry, host: Host) -> None:
    result = run("models", "pull", "wheels", "--offline")
    assert result.exit_code == 1
    assert "unet/config.json of 'wheels': not on this machine" in result.stderr
    assert "run 'restore models pull wheels' with a network" in result.stderr
    assert host.asked == []


def test_wrong_names_are_wrong_use() -> None:
    for command in ("pull", "info", "verify"):
        result = run("models", command, "osedif")
        assert result.exit_code == 2
        assert "did you mean 'osediff'?" in result.stderr
        assert result.stderr.count("\n") == 1


def test_weights_of_the_package_need_no_pull() -> None:
    result = run("models", "pull", "compact")
    assert (result.exit_code, result.stderr) == (0, "compact: its weights are in the package\n")


def test_list_shows_what_a_method_lacks_and_then_that_it_is_ready(car: MethodSpec) -> None:
    entry = describe_model("car")
    assert (entry.ready, entry.missing, entry.weights) == (False, ("wheels", "car"), None)
    assert "'restore models pull car'" in (entry.problem or "")
    text = run("models", "list").stdout
    assert "missing: wheels, car; run: restore models pull car" in text
    assert "wheels (base, 2 bytes): wheels of a test\n    not here; licence: S-Lab" in text
    run("models", "pull", "car")
    entry = describe_model("car")
    assert (entry.ready, entry.missing, entry.problem) == (True, (), None)
    lines = {line["name"]: line for line in json_lines(run("models", "list", "--json"))}
    assert (lines["car"]["kind"], lines["car"]["ready"]) == ("method", True)
    assert (lines["wheels"]["kind"], lines["wheels"]["commercial_use"]) == ("base", False)
    assert lines["compact"]["ready"] is True
    assert {name for name in ENTRIES if name not in METHODS} <= set(lines)


def test_the_licence_of_the_base_is_said_where_the_weights_are_free(car: MethodSpec) -> None:
    assert "'wheels' are under 'S-Lab" in (licence_notice(car) or "")
    assert describe_model("car").commercial_use is False


def test_info_says_where_it_comes_from_and_where_it_lies(wheels: Entry, cache: Path) -> None:
    text = run("models", "info", "car").stdout
    file = ENTRIES["car"].files[0]
    for part in (file.sha256, file.urls[0], "MIT", "needs: wheels", "not here", "pull car"):
        assert str(part) in text
    run("models", "pull", "car")
    text = run("models", "info", "car").stdout
    assert f"here: {cache / 'models/car/car.safetensors'}" in text
    assert "(as published)" in text
    (values,) = json_lines(run("models", "info", "car", "--json"))
    (described,) = values["weights"]["files"]
    assert described["record"]["sha256"] == file.sha256
    assert described["converted"]["made_from"] == file.sha256
    assert values["method"] is None


def test_info_of_real_entries_says_what_is_not_known() -> None:
    text = run("models", "info", "sd-turbo").stdout
    assert "SHA-256 not known" in text
    assert "number formats to choose from: fp32, fp16" in text
    assert "compact (x4, default)" in run("models", "info", "compact").stdout


def test_verify_ends_with_status_1_when_a_file_has_changed(wheels: Entry) -> None:
    result = run("models", "verify")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "no pulled weights are here" in result.stderr
    run("models", "pull", "wheels")
    result = run("models", "verify")
    assert result.exit_code == 0
    assert "wheels: config.json: as published (SHA-256 44136fa3" in result.stdout
    (locate("wheels") / "unet" / "config.json").write_bytes(b"[]")
    result = run("models", "verify", "wheels")
    assert result.exit_code == 1
    assert "has changed: its SHA-256 is" in result.stderr
    (line,) = json_lines(run("models", "verify", "--json"))
    assert (line["state"], line["name"]) == ("changed", "wheels")


def test_convert_writes_all_that_the_pickle_held(tmp_path: Path) -> None:
    source, target = tmp_path / "net.pkl", tmp_path / "net.safetensors"
    torch.save({"rank": 4, "net": {"w": torch.arange(6.0)}}, source)
    (line,) = json_lines(run("models", "convert", str(source), "--json"))
    assert line["sha256"] == hashlib.sha256(target.read_bytes()).hexdigest()
    found = open_nested(target)
    assert found["rank"] == 4
    assert torch.equal(found["net"]["w"], torch.arange(6.0))
    result = run("models", "convert", str(source))
    assert result.exit_code == 1
    assert "is there; give --overwrite" in result.stderr
    assert run("models", "convert", str(source), "--overwrite").exit_code == 0
    result = run("models", "convert", str(source), "-o", str(tmp_path / "net.bin"))
    assert "give one that ends in .safetensors" in result.stderr
    result = run("models", "convert", str(tmp_path / "no.pkl"))
    assert result.exit_code == 1
    assert "no weight file at" in result.stderr
