"""A server, an empty cache, and nothing of the user's environment."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from zoo.hosts import Host, running_host

from restore.zoo.network import Network

VARIABLES = ("RESTORE_OFFLINE", "HF_HUB_OFFLINE", "HF_ENDPOINT", "HF_TOKEN")


@pytest.fixture
def host() -> Iterator[Host]:
    """A server of this test."""
    with running_host() as running:
        yield running


@pytest.fixture
def other_host() -> Iterator[Host]:
    """A second one."""
    with running_host() as running:
        yield running


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache of this test."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("RESTORE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def network() -> Network:
    """Impatient, so that tests are quick."""
    return Network(attempts=3, pause=0.01, timeout=5)
