"""`restore_images`: one bad picture never stops the others, and nothing is lost."""

from __future__ import annotations

import io
import json
import os
import struct
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from image.samples import (
    HEIGHT,
    WIDTH,
    cv_encoded,
    exif_block,
    gray_profile,
    pillow,
    planes,
    png_header,
    saved,
)
from PIL import Image
from torch import Tensor

import restore.image.job as job_room
from restore.errors import OptionError, OutputError
from restore.image.color import srgb_profile
from restore.image.events import Advanced, Done, Event, Failed, Planned, Skipped, Started
from restore.image.files import read_image
from restore.image.job import restore_images
from restore.method import MethodSpec

LIMIT = 100_000


class Doubler:
    """Repeats each pixel twice along each side, and counts its calls."""

    def __init__(self, **needs: Any) -> None:
        self.spec = MethodSpec(name="doubler", summary="for tests", scale=2, overlap=0, **needs)
        self.seen: list[Tensor] = []

    def restore_frames(
        self,
        frames: Tensor,
        *,
        size: tuple[int, int] | None = None,
        index: int = 0,
        progress: Callable[[int, int], None] | None = None,
    ) -> Tensor:
        self.seen.append(frames)
        middle = frames[:, self.spec.frames_before]
        large = middle.repeat_interleave(2, dim=-1).repeat_interleave(2, dim=-2)
        if size is not None and size != (large.shape[-1], large.shape[-2]):
            large = torch.nn.functional.interpolate(large, size=size[::-1], mode="bilinear")
        if progress is not None:
            progress(1, 1)
        return large[:, None]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*inputs: str | Path, **settings: Any) -> Any:
    settings.setdefault("restorer", Doubler())
    return restore_images(list(inputs), **settings)


def names(folder: str = ".") -> list[str]:
    return sorted(path.name for path in Path(folder).iterdir())


def broken_files() -> dict[str, bytes]:
    """Twenty kinds of what is in people's folders under the name of a picture."""
    png, jpg = saved(pillow(), "PNG"), saved(pillow(), "JPEG")
    webp, tiff = saved(pillow(), "WEBP"), saved(pillow(), "TIFF")
    gif = saved(pillow().quantize(8), "GIF")
    return {
        "00 empty.png": b"",
        "01 text.jpg": b"not a picture\n",
        "02 half.png": png[: len(png) // 2],
        "03 half.jpg": jpg[: len(jpg) // 2],
        "04 half.webp": webp[: len(webp) // 2],
        "05 half.tif": tiff[: len(tiff) // 2],
        "06 half16.png": cv_encoded(".png")[:900],
        "07 half16.tiff": cv_encoded(".tiff")[:900],
        "08 half.gif": gif[: len(gif) // 2],
        "09 half.bmp": saved(pillow(), "BMP")[:500],
        "10 bomb.png": png_header(60_000, 60_000),
        "11 no width.png": png_header(0, 20),
        "12 zeros.png": bytes(4000),
        "13 zeros behind.jpg": jpg[:200] + bytes(len(jpg) - 200),
        "14 bad checksum.png": png.replace(b"IDAT", b"IDAU", 1),
        "15 phone.heic": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
        "16 clip.jpg": b"\0\0\0\x18ftypisom\0\0\2\0isomiso2",
        "17 web page.webp": b"<!DOCTYPE html><title>404</title>",
        "18 floats.tiff": saved(Image.fromarray(np.full((9, 9), 2, np.float32)), "TIFF"),
        "19 line\nbreak.png": b"PK\3\4" + bytes(60),
    }


def test_twenty_broken_files_do_not_stop_three_good_ones() -> None:
    Path("in").mkdir()
    for name, data in broken_files().items():
        Path("in", name).write_bytes(data)
    for name in ("05 good.png", "13 good.jpg", "99 good.png"):
        format = "PNG" if name.endswith("png") else "JPEG"
        Path("in", name).write_bytes(saved(pillow(), format))
    events: list[Event] = []
    report = run("in", output="out", on_event=events.append)
    assert len(report.failed) == 20 and not report.skipped
    assert names("out") == ["05 good.png", "13 good.jpg", "99 good.png"]
    for name, message in report.failed:
        assert message and "\n" not in message and name not in message
        assert "unexpected" not in message
    assert [e.source for e in events if isinstance(e, Failed)] == [n for n, _ in report.failed]
    assert all(json.dumps(asdict(event)) for event in events)


def test_a_result_is_the_restored_picture_with_all_that_belonged_to_it() -> None:
    data = saved(pillow(), "PNG", icc_profile=srgb_profile(), exif=exif_block(6))
    Path("a.png").write_bytes(data)
    report = run("a.png")
    result = read_image(Path("a_x2.png"), max_pixels=LIMIT)
    source = read_image(Path("a.png"), max_pixels=LIMIT)
    assert source.size == (HEIGHT, WIDTH)  # turned
    assert torch.equal(result.rgb[:, ::2, ::2], source.rgb)
    assert result.icc == srgb_profile()
    assert result.exif is not None and b"maker\0notes\xff" in result.exif
    assert struct.pack("<HHII", 0xA002, 4, 1, 2 * HEIGHT) in result.exif
    assert report.done[0].size_in == (HEIGHT, WIDTH)
    assert report.done[0].size_out == (2 * HEIGHT, 2 * WIDTH)


@pytest.mark.parametrize("deep", [False, True], ids=["8 bits", "16 bits"])
def test_gray_goes_in_as_three_equal_channels_and_comes_out_as_one(deep: bool) -> None:
    gray = planes(16 if deep else 8)[0]
    array = (
        (gray * (65535 if deep else 255)).round().numpy().astype(np.uint16 if deep else np.uint8)
    )
    Path("a.png").write_bytes(saved(Image.fromarray(array), "PNG", icc_profile=gray_profile()))
    doubler = Doubler()
    run("a.png", restorer=doubler)
    (seen,) = doubler.seen
    assert seen.shape == (1, 1, 3, HEIGHT, WIDTH)
    assert torch.equal(seen[0, 0, 0], seen[0, 0, 2])
    with Image.open("a_x2.png") as result:
        assert result.mode == ("I;16" if deep else "L")
        assert np.array_equal(np.asarray(result)[::2, ::2], array)
        assert result.info["icc_profile"] == gray_profile()


def test_alpha_is_restored_along_and_hidden_colors_stay_hidden() -> None:
    array = np.zeros((12, 12, 4), np.uint8)
    array[:, 6:] = (200, 10, 10, 255)
    array[:, :6, 1] = 255  # green under full transparency
    Path("a.png").write_bytes(saved(Image.fromarray(array), "PNG"))
    doubler = Doubler()
    run("a.png", restorer=doubler)
    alpha, colors = doubler.seen
    assert set(alpha.flatten().tolist()) == {0.0, 1.0}
    assert torch.allclose(colors[0, 0, 1], torch.tensor(10 / 255))  # no green reaches the network
    result = read_image(Path("a_x2.png"), max_pixels=LIMIT)
    assert result.alpha is not None
    assert torch.equal(
        result.alpha, alpha[0, 0, :1].repeat_interleave(2, 1).repeat_interleave(2, 2)
    )


@pytest.mark.parametrize("value", [0, 128, 255])
def test_flat_alpha_needs_no_network(value: int) -> None:
    image = pillow("RGBA")
    image.putalpha(value)
    Path("a.png").write_bytes(saved(image, "PNG"))
    doubler = Doubler()
    run("a.png", restorer=doubler)
    assert len(doubler.seen) == 1
    result = read_image(Path("a_x2.png"), max_pixels=LIMIT)
    assert result.alpha is not None and set(result.alpha.flatten().tolist()) == {
        np.float32(value / 255)
    }


def test_alpha_for_a_jpeg_is_put_on_white_before_the_network_with_a_note() -> None:
    image = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    Path("a.png").write_bytes(saved(image, "PNG"))
    doubler = Doubler()
    report = run("a.png", output="a.jpg", restorer=doubler)
    assert len(doubler.seen) == 1 and float(doubler.seen[0].min()) == 1
    assert "white" in report.done[0].notes[0]


def test_a_method_for_clips_sees_a_clip_that_stands_still() -> None:
    Path("a.png").write_bytes(saved(pillow(), "PNG"))
    doubler = Doubler(frames_before=2, frames_after=1)
    run("a.png", restorer=doubler)
    (seen,) = doubler.seen
    assert seen.shape[1] == 4 and torch.equal(seen[:, 0], seen[:, 3])


@pytest.mark.parametrize(
    ("settings", "size"),
    [({}, (68, 42)), ({"scale": 1.5}, (51, 32)), ({"target": "90x60"}, (90, 60))],
)
def test_the_result_has_the_size_that_was_asked_for(
    settings: dict[str, Any], size: tuple[int, int]
) -> None:
    Path("a.png").write_bytes(saved(pillow(), "PNG"))
    report = run("a.png", output="b.png", **settings)
    assert report.done[0].size_out == size
    assert read_image(Path("b.png"), max_pixels=LIMIT).size == size


def test_a_result_above_the_limit_or_the_memory_fails_before_the_network(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Path("a.png").write_bytes(saved(pillow(), "PNG"))
    doubler = Doubler()
    report = run("a.png", max_pixels=2000, restorer=doubler)
    assert "above the limit of 2000" in report.failed[0][1]
    monkeypatch.setattr(job_room, "free_memory", lambda _: 10_000)
    assert "memory" in run("a.png", restorer=doubler).failed[0][1]
    report = run("a.png", output="a.webp", target="20000x20", restorer=doubler)
    assert "16383" in report.failed[0][1]
    assert not doubler.seen and names() == ["a.png"]


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (MemoryError(), "not enough memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "not enough memory"),
        (OSError(5, "Input/output error"), "Input/output error"),
        (ZeroDivisionError("a\nbug"), "unexpected ZeroDivisionError: a bug; add --debug"),
    ],
)
def test_any_trouble_with_one_picture_is_one_line_and_the_next_one_runs(
    error: Exception, why: str
) -> None:
    for name in ("a.png", "b.png"):
        Path(name).write_bytes(saved(pillow(), "PNG"))

    class FailsOnce(Doubler):
        def restore_frames(self, frames: Tensor, **more: Any) -> Tensor:
            result = super().restore_frames(frames, **more)
            if len(self.seen) == 1:
                raise error
            return result

    report = run("a.png", "b.png", restorer=FailsOnce())
    assert [name for name, _ in report.failed] == ["a.png"]
    assert why in report.failed[0][1]
    assert [done.source for done in report.done] == ["b.png"]


def test_ctrl_c_goes_through_and_leaves_whole_files_only() -> None:
    for name in ("a.png", "b.png"):
        Path(name).write_bytes(saved(pillow(), "PNG"))

    class Interrupted(Doubler):
        def restore_frames(self, frames: Tensor, **more: Any) -> Tensor:
            if self.seen:
                raise KeyboardInterrupt
            return super().restore_frames(frames, **more)

    with pytest.raises(KeyboardInterrupt):
        run("a.png", "b.png", restorer=Interrupted())
    assert names() == ["a.png", "a_x2.png", "b.png"]


def test_an_output_folder_that_cannot_be_written_is_found_before_any_work() -> None:
    Path("a.png").write_bytes(saved(pillow(), "PNG"))
    Path("file").write_bytes(b"")
    doubler = Doubler()
    with pytest.raises(OutputError, match=r"cannot be written.*-o"):
        run("a.png", output="file/out", restorer=doubler)
    with pytest.raises(OptionError, match="give a folder"):
        run("a.png", "missing.png", output="file", restorer=doubler)
    assert not doubler.seen


def test_a_disk_that_fills_up_fails_that_picture_and_leaves_no_half_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Path("a.png").write_bytes(saved(pillow(), "PNG"))

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    report = run("a.png")
    assert "No space left on device; free some space" in report.failed[0][1]
    assert names() == ["a.png"]


def test_events_tell_the_whole_story_in_order() -> None:
    Path("a.png").write_bytes(saved(pillow("RGBA"), "PNG"))
    Path("b.png").write_bytes(b"")
    Path("c.png").write_bytes(saved(pillow(), "PNG"))
    Path("out").mkdir()
    Path("out/c.png").write_bytes(b"")
    events: list[Event] = []
    report = run(
        "a.png", "b.png", "c.png", output="out", skip_existing=True, on_event=events.append
    )
    kinds = [type(event) for event in events]
    assert kinds == [Started, Advanced, Advanced, Done, Started, Failed, Skipped]
    assert events[0] == Started(source="a.png", destination="out/a.png", index=1, total=3)
    assert [(e.done, e.total) for e in events if isinstance(e, Advanced)] == [(1, 2), (2, 2)]
    assert report.failed == [("b.png", "it is empty (0 bytes); get a whole copy")]
    assert report.seconds >= report.done[0].seconds > 0


def test_a_dry_run_reads_headers_only_and_writes_nothing() -> None:
    Path("a.jpg").write_bytes(saved(pillow(), "JPEG", exif=b"Exif\0\0" + exif_block(6)))
    Path("bomb.png").write_bytes(png_header(60_000, 60_000))
    report = run("a.jpg", "bomb.png", "no.png", output="out", dry_run=True, restorer=None)
    size = (HEIGHT, WIDTH)
    large = (4 * HEIGHT, 4 * WIDTH)  # the default model's scale
    planned = Planned(source="a.jpg", destination="out/a.jpg", size_in=size, size_out=large)
    assert report.planned == [planned]
    assert [name for name, _ in report.failed] == ["bomb.png", "no.png"]
    assert names() == ["a.jpg", "bomb.png"]


def test_nothing_to_do_loads_no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("restore.engine.load")
    Path("a.png").write_bytes(saved(pillow(), "PNG"))
    Path("a_x4.png").write_bytes(b"")
    report = restore_images("a.png", skip_existing=True)
    assert len(report.skipped) == 1


def test_stdin_to_stdout_keeps_the_format(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.BytesIO()
    for stream, buffer in (("stdin", io.BytesIO(saved(pillow(), "JPEG"))), ("stdout", out)):
        fake = SimpleNamespace(buffer=buffer, isatty=lambda: False)
        monkeypatch.setattr(sys, stream, fake)
    report = run("-", output="-")
    assert report.done[0].source == report.done[0].destination == "-"
    result = read_image(out.getvalue(), max_pixels=LIMIT)
    assert result.format == "jpg" and result.size == (2 * WIDTH, 2 * HEIGHT)


def test_a_terminal_is_neither_read_nor_flooded(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("a.png").write_bytes(saved(pillow(), "PNG"))
    for stream in ("stdin", "stdout"):
        monkeypatch.setattr(sys, stream, SimpleNamespace(isatty=lambda: True))
    assert "stdin is a terminal" in run("-", output="-").failed[0][1]
    assert "stdout is a terminal" in run("a.png", output="-").failed[0][1]


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss counts in KiB on Linux only")
def test_memory_of_a_large_result_stays_near_the_result_itself() -> None:
    """12 Mpx out are 144 MB of floats, and 48 MB for the encoder; a second copy would show."""
    Image.new("RGB", (1000, 750), "gray").save("a.png")
    code = """
        import resource, sys
        sys.path.insert(0, sys.argv[1])
        import torch
        from image.test_job import Doubler
        from restore.image.job import restore_images
        class Quadrupler(Doubler):
            def restore_frames(self, frames, *, size=None, index=0, progress=None):
                h, w = frames.shape[-2:]
                return frames[0].expand(1, 3, h, w)[:, :, :, None, :, None].expand(
                    1, 3, h, 4, w, 4).reshape(1, 1, 3, 4 * h, 4 * w)
        restorer = Quadrupler()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        report = restore_images("a.png", scale=4.0, restorer=restorer)
        assert not report.failed, report.failed
        print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(Path(__file__).parents[1])]
    grown = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert grown < 2 * 12 * 12_000_000
