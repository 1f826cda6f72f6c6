"""Settings of `restore demo`, the page in the browser."""

from __future__ import annotations

from dataclasses import dataclass

from restore.codec_config import parse_bytes
from restore.config import (
    DTypeChoice,
    EngineConfig,
    check_choice,
    flag,
    same_flag,
)
from restore.errors import OptionError
from restore.registry import METHODS

AUTH_VARIABLE = "RESTORE_DEMO_AUTH"
"""Environment variable that holds USER:PASSWORD, which the list of processes does not show."""

LOCAL_HOSTS = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, kw_only=True, slots=True)
class DemoConfig:
    """`restore demo`: who may reach the page, and how much of the machine they may use."""

    host: str = flag(
        "127.0.0.1",
        "--host",
        metavar="ADDRESS",
        help="Address to listen at; 0.0.0.0 = every machine in the network reaches the page.",
    )
    port: int = flag(7860, "-p", "--port", help="Port to listen at, 1 to 65535.")
    auth: str | None = flag(
        None,
        "--auth",
        metavar="USER:PASSWORD",
        help=f"Ask for these; better given in {AUTH_VARIABLE}, which other users cannot see.",
    )
    model: str = same_flag(EngineConfig, "model", help="Model that is chosen at first.")
    device: str = same_flag(EngineConfig, "device")
    dtype: DTypeChoice = same_flag(EngineConfig, "dtype")
    max_upload: str = flag(
        "100MB", "--max-upload", metavar="BYTES", help="Largest upload: 20kB, 100MB, 2000MB."
    )
    max_pixels: int = flag(
        100_000_000, "--max-pixels", help="Refuse pictures and results with more pixels than this."
    )
    max_frame: int = flag(
        2_100_000, "--max-frame", metavar="PIXELS", help="Refuse clips with larger frames."
    )
    max_seconds: float = flag(300.0, "--max-seconds", help="Refuse clips that are longer.")
    queue: int = flag(
        20, "--queue", metavar="JOBS", help="Jobs that may wait; further ones are refused."
    )
    open: bool = flag(False, "--open", help="Open the page in this machine's browser.")

    def __post_init__(self) -> None:
        parse_bytes(self.max_upload)
        check_choice("model", self.model, tuple(METHODS))
        if not 1 <= self.port <= 65535:
            raise OptionError(f"port {self.port} is not possible; give 1 to 65535")
        for name, low in (("max_pixels", 1), ("max_frame", 1), ("queue", 1)):
            if getattr(self, name) < low:
                raise OptionError(
                    f"{name.replace('_', ' ')} {getattr(self, name)} is not possible; "
                    f"give {low} or more"
                )
        if not self.max_seconds > 0:
            raise OptionError(
                f"max seconds {self.max_seconds:g} is not possible; give a number above 0"
            )
        if self.auth is not None:
            parse_auth(self.auth)

    @property
    def upload_bytes(self) -> int:
        """Largest upload in bytes."""
        return parse_bytes(self.max_upload)


def parse_auth(text: str) -> tuple[str, str]:
    """User and password in `"user:password"`; the password may hold further colons.

    Raises:
        OptionError: one of them is missing. The message does not repeat what was given.
    """
    user, _, password = text.partition(":")
    if not user or not password:
        raise OptionError("auth is not USER:PASSWORD; write both with a colon between them")
    return user, password
