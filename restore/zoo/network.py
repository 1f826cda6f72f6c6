"""How the network may be used, from flags and the environment."""

from __future__ import annotations

import os
from dataclasses import dataclass
from urllib.parse import urlsplit

from restore.zoo.entry import HUGGING_FACE

_NO = ("", "0", "false", "no", "off")


@dataclass(frozen=True, kw_only=True, slots=True)
class Network:
    """Settings of every download."""

    offline: bool = False
    """Never touch the network."""
    endpoint: str = HUGGING_FACE
    """Address that stands for the Hugging Face hub."""
    token: str | None = None
    """Key for the hub; sent there and nowhere else."""
    attempts: int = 5
    """Failures at one address, without a byte gained between them, before the next one is tried."""
    pause: float = 1.0
    """Seconds before the second attempt; doubled each time."""
    timeout: float = 30.0
    """Seconds without an answer after which a connection counts as broken."""

    @classmethod
    def from_environment(cls, *, offline: bool = False) -> Network:
        """What the variables `RESTORE_OFFLINE`, `HF_HUB_OFFLINE`, `HF_ENDPOINT`, `HF_TOKEN` say.

        Args:
            offline: True = offline whatever the variables say.
        """
        told = [os.environ.get(name, "") for name in ("RESTORE_OFFLINE", "HF_HUB_OFFLINE")]
        return cls(
            offline=offline or any(value.lower() not in _NO for value in told),
            endpoint=(os.environ.get("HF_ENDPOINT") or HUGGING_FACE).rstrip("/"),
            token=os.environ.get("HF_TOKEN") or None,
        )

    def address(self, url: str) -> str:
        """Where `url` is fetched from: files of the hub come from the endpoint."""
        if url.startswith(HUGGING_FACE + "/"):
            return self.endpoint + url.removeprefix(HUGGING_FACE)
        return url

    def headers(self, address: str) -> dict[str, str]:
        """Headers that go with every request to `address`."""
        import restore

        # Compressed bytes could not be counted, nor could a download be resumed among them.
        found = {"User-Agent": f"restore/{restore.__version__}", "Accept-Encoding": "identity"}
        ours, theirs = urlsplit(self.endpoint), urlsplit(address)
        if self.token and (ours.scheme, ours.netloc) == (theirs.scheme, theirs.netloc):
            found["Authorization"] = f"Bearer {self.token}"
        return found
