"""A page that is served, and a browser that opens it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image
from served import QUEUE, UPLOAD_LIMIT, free_port

from restore.demo_config import DemoConfig

_FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]


@pytest.fixture(scope="module")  # its driver keeps an event loop in this thread meanwhile
def chromium() -> Iterator[Any]:
    """A running Chromium; the test is skipped where there is none."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("no chromium on this machine; Debian has it in the package chromium")
    with api.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=_FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")  # temporary files go into its folder meanwhile
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The page with small limits, served by this process."""
    tmp_path_factory.getbasetemp()  # so that the tests' own are not in that folder
    pytest.importorskip("gradio", reason="gradio is not installed")
    from restore.apps.demo.server import running

    config = DemoConfig(
        port=free_port(),
        model="compact-fast",
        max_upload=f"{UPLOAD_LIMIT}",
        device="cpu",
        queue=QUEUE,
    )
    with running(config) as served:
        yield served


@pytest.fixture
def photo(tmp_path: Path, make_picture: Callable[..., Any]) -> Path:
    """A JPEG of 40x30 pixels with the name of its photographer in it."""
    path = tmp_path / "photo.jpg"
    exif = Image.Exif()
    exif[0x013B] = "A. Photographer"
    Image.fromarray(make_picture(40, 30)).save(path, exif=exif, quality=90)
    return path


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MP4 of 2.4 s: 60 frames of 64x48 with a moving bar."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for index in range(60):
            frame = np.full((48, 64, 3), 90, np.uint8)
            frame[:, index : index + 4] = 220
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame)))
        container.mux(stream.encode())
    return path
