"""The page in a real browser: what people do with it, at the width of a desk and of a phone."""

from __future__ import annotations

import io
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from restore.apps.demo import video

SECONDS = 150_000  # milliseconds, for what takes a second on a machine with nothing else to do
WIDE, PHONE = {"width": 1440, "height": 1000}, {"width": 390, "height": 844}


@pytest.fixture
def open_page(chromium: Any, site: Any) -> Iterator[Callable[..., Any]]:
    """`open_page(viewport=...)`: the page in a browser with cookies of its own."""
    contexts = []
    elsewhere: list[str] = []

    def note(request: Any) -> None:
        if not request.url.startswith((site.address, "data:", "blob:")):
            elsewhere.append(request.url)

    def opened(*, viewport: Any = None) -> Any:
        context = chromium.new_context(viewport=viewport or WIDE, accept_downloads=True)
        context.set_default_timeout(SECONDS)
        contexts.append(context)
        page = context.new_page()
        page.on("request", note)
        page.goto(site.address)
        page.wait_for_selector("#photo-run")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert elsewhere == []  # it works without any other server


def press(page: Any, button: str, *, tab: str = "") -> str:
    """Press a button of a tab, wait for the end of what it does; what the status line says then."""
    tab = tab or button.split("-")[0]
    new = f"#{tab}-status :is(.done, .problem):not(.seen)"
    page.evaluate(f"document.querySelector('{new}')?.classList.add('seen')")
    page.click(f"#{button}")
    page.wait_for_selector(new)
    return str(page.inner_text(f"#{tab}-status"))


def choose(page: Any, tab: str) -> None:
    """Open a tab."""
    page.get_by_role("tab", name=tab).click()


def send(page: Any, tab: str, file: Path, shown: str) -> None:
    """Upload a file, and wait until it is shown."""
    page.set_input_files(f"#{tab}-input input[type=file]", str(file))
    page.wait_for_selector(f"#{tab}-input {shown}")


def downloaded(page: Any, tab: str) -> tuple[str, bytes]:
    """Name and content of what the button of a tab gives."""
    with page.expect_download() as waiting:
        page.click(f"#{tab}-download")
    return waiting.value.suggested_filename, Path(waiting.value.path()).read_bytes()


def restore_photo(page: Any, photo: Path) -> str:
    """Send a photo and restore it."""
    send(page, "photo", photo, "img")
    return press(page, "photo-run")


def slider_position(page: Any, tab: str) -> str:
    """How much of the result is covered."""
    return str(page.eval_on_selector(f"#{tab}-slider img.fixed", "e => e.style.clipPath"))


def until(condition: Callable[[], bool], seconds: float = 30) -> bool:
    """Whether it becomes true in time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def test_a_photo_is_restored_compared_and_downloaded_as_the_engine_wrote_it(
    open_page: Callable[..., Any], photo: Path, site: Any, tmp_path: Path
) -> None:
    page = open_page()
    assert restore_photo(page, photo).startswith("40x30 to 160x120 pixels")
    page.wait_for_function("document.querySelectorAll('#photo-slider img').length == 2")
    before = slider_position(page, "photo")
    handle = page.locator("#photo-slider [role=slider], #photo-slider .inner").first.bounding_box()
    x, y = handle["x"] + handle["width"] / 2, handle["y"] + handle["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 60, y, steps=4)
    page.mouse.up()
    assert slider_position(page, "photo") != before
    name, data = downloaded(page, "photo")
    assert name == "photo_x4.jpg"
    with Image.open(io.BytesIO(data)) as result:
        assert result.size == (160, 120)
        assert result.getexif()[0x013B] == "A. Photographer"
    assert str(site.desk.root) not in page.content()
    page.screenshot(path=str(tmp_path / "photo-1440.png"), full_page=True)


def test_a_picture_is_pasted(open_page: Callable[..., Any]) -> None:
    page = open_page()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.evaluate(
        """async () => {
            const canvas = new OffscreenCanvas(24, 20);
            canvas.getContext("2d").fillRect(2, 2, 9, 9);
            const blob = await canvas.convertToBlob({type: "image/png"});
            await navigator.clipboard.write([new ClipboardItem({"image/png": blob})]);
        }"""
    )
    page.click("#photo-input [aria-label='Paste from clipboard']")
    page.wait_for_selector("#photo-input img")
    assert press(page, "photo-run").startswith("24x20 to 96x80 pixels")


def test_a_clip_is_previewed_cancelled_and_restored(
    open_page: Callable[..., Any],
    clip: Path,
    site: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = video.restore_video
    held = threading.Event()

    def holdable(*inputs: Any, progress: Callable[[Any], None], **settings: Any) -> Any:
        def report(now: Any) -> None:
            progress(now)
            while held.is_set():  # it stays at this frame until it is cancelled, which raises here
                time.sleep(0.1)
                progress(now)

        return real(*inputs, progress=report, **settings)

    monkeypatch.setattr(video, "restore_video", holdable)
    page = open_page()
    choose(page, "Video")
    send(page, "video", clip, "video")
    done = press(page, "video-preview")
    assert done.startswith("The first 2 s: 50 frames of 64x48, now 256x192")

    held.set()
    page.click("#video-run")
    page.wait_for_selector("#video-status .bar")
    page.locator("#video-status", has_text="of 60, ").wait_for()
    assert site.desk.device.locked()
    page.screenshot(path=str(tmp_path / "running-1440.png"))
    assert press(page, "video-cancel") == "Cancelled."
    assert until(lambda: not site.desk.device.locked())
    assert not list(site.desk.root.glob("*/result/*"))  # the work so far, and the preview, are gone

    held.clear()
    assert press(page, "video-run").startswith("60 frames")
    page.wait_for_selector("#video-after video")
    page.wait_for_function("document.querySelectorAll('#video-pair video').length == 2")
    # The event, not the state: on a busy machine the clip may have ended before it is looked at.
    page.evaluate(
        """() => {
            const before = document.querySelector("#video-before video");
            before.addEventListener("play", () => { before.dataset.played = "yes"; });
            return document.querySelector("#video-after video").play();
        }"""
    )
    page.wait_for_function("document.querySelector('#video-before video').dataset.played == 'yes'")
    page.evaluate("document.querySelector('#video-after video').pause()")
    page.wait_for_function("document.querySelector('#video-before video').paused")
    page.evaluate("document.querySelector('#video-before video').currentTime = 1.5")
    page.wait_for_function(
        "Math.abs(document.querySelector('#video-after video').currentTime - 1.5) < 0.13"
    )
    name, data = downloaded(page, "video")
    assert name == "clip_x4.mp4" and data[4:8] == b"ftyp"
    page.screenshot(path=str(tmp_path / "video-1440.png"), full_page=True)


def test_a_recipe_shows_what_it_drew(
    open_page: Callable[..., Any], photo: Path, tmp_path: Path
) -> None:
    page = open_page()
    choose(page, "Degrade")
    send(page, "degrade", photo, "img")
    page.fill("#degrade-seed input", "7")
    assert "seed 7" in press(page, "degrade-run")
    assert '"steps"' in page.inner_text("#degrade-record")
    page.screenshot(path=str(tmp_path / "degrade-1440.png"), full_page=True)


def test_a_photo_is_compressed_and_its_file_opened_again(
    open_page: Callable[..., Any], photo: Path, tmp_path: Path
) -> None:
    page = open_page()
    choose(page, "Compress")
    send(page, "compress", photo, "img")
    assert "bits per pixel" in press(page, "compress-run")
    name, data = downloaded(page, "compress")
    assert name == "photo.rsc"
    page.screenshot(path=str(tmp_path / "compress-1440.png"), full_page=True)
    coded = tmp_path / name
    coded.write_bytes(data)
    page.click("#decompress-section > button")
    page.set_input_files("#decompress-input input[type=file]", str(coded))
    page.get_by_text("photo.rsc").first.wait_for()
    done = press(page, "decompress-run")
    assert done.startswith(f"40x30 pixels out of {len(data)} bytes")


def test_results_are_measured_and_the_report_downloaded(
    open_page: Callable[..., Any], photo: Path, tmp_path: Path
) -> None:
    page = open_page()
    choose(page, "Report")
    archive = tmp_path / "results.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        packed.write(photo, "set/photo.jpg")
    page.set_input_files("#report-restored input[type=file]", str(archive))
    page.get_by_text("results.zip").first.wait_for()
    page.set_input_files("#report-reference input[type=file]", str(photo))
    page.get_by_text("photo.jpg").first.wait_for()
    assert press(page, "report-run").startswith("1 of 1 files measured")
    assert "PSNR-Y" in page.inner_text("#report-summary")
    page.screenshot(path=str(tmp_path / "report-1440.png"), full_page=True)
    with page.expect_download() as waiting:
        page.locator("#report-files a[download]").first.click()
    assert waiting.value.suggested_filename == "report.html"


def test_two_browsers_do_not_see_each_other(
    open_page: Callable[..., Any], photo: Path, site: Any
) -> None:
    first, second = open_page(), open_page()
    restore_photo(first, photo)
    restore_photo(second, photo)
    ours = [
        page.eval_on_selector("#photo-slider img.fixed", "e => e.src") for page in (first, second)
    ]
    fetch = "url => fetch(url).then(answer => answer.status)"
    assert [first.evaluate(fetch, url) for url in ours] == [200, 404]
    assert [second.evaluate(fetch, url) for url in ours] == [404, 200]
    token = ours[0].split("/")[-3]
    assert (site.desk.root / token).is_dir()
    first.context.close()
    assert until(lambda: not (site.desk.root / token).exists())
    assert second.evaluate(fetch, ours[1]) == 200
    # The second browser sent the same photo, which is there as long as one of them is.
    assert press(second, "photo-run").startswith("40x30")


def test_an_upload_above_the_limit_is_refused_before_it_is_sent(
    open_page: Callable[..., Any], tmp_path: Path, site: Any
) -> None:
    large = tmp_path / "large.png"
    large.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(2_100_000))
    page = open_page()
    page.set_input_files("#photo-input input[type=file]", str(large))
    page.get_by_text("exceed the maximum").first.wait_for()
    assert not list(site.desk.root.rglob("large.png"))


def test_nothing_is_wider_than_a_phone(
    open_page: Callable[..., Any], photo: Path, tmp_path: Path
) -> None:
    page = open_page(viewport=PHONE)
    restore_photo(page, photo)
    for tab in ("Photo", "Video", "Degrade", "Compress", "Report"):
        choose(page, tab)
        page.wait_for_timeout(200)  # for the tab to be drawn
        page.screenshot(path=str(tmp_path / f"{tab.lower()}-390.png"), full_page=True)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, tab
