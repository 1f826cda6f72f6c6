"""The live mode as a process between two pipes: what goes where, and how it ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from typing import Any

import pytest

COMMAND = [
    *[sys.executable, "-m", "restore", "video", "-", "-o", "-", "--stream", "-n", "compact-fast"],
    *["--scale", "2", "--device", "cpu"],
]
RAW = ["--raw-input", "rgb24", "--size", "24x16", "--fps", "25"]
FRAME = bytes(range(256)) * 4 + bytes(128)  # 24 x 16 x 3


def start(*arguments: str) -> Any:
    """Start the program between two pipes."""
    return subprocess.Popen(
        [*COMMAND, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # A shell that runs this in the background has SIGINT ignored, which children inherit.
        preexec_fn=None if os.name == "nt" else _take_ctrl_c,
    )


def _take_ctrl_c() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_raw_frames_come_out_as_y4m_and_nothing_else_does() -> None:
    with start(*RAW) as process:
        out, said = process.communicate(5 * FRAME, timeout=100)
    assert process.returncode == 0, said
    head, *frames = out.split(b"FRAME\n")
    assert head == b"YUV4MPEG2 W48 H32 F25:1 Ip A1:1 C444 XCOLORRANGE=LIMITED\n"
    assert [len(frame) for frame in frames] == [48 * 32 * 3] * 5
    (line,) = said.decode().splitlines()
    assert re.fullmatch(
        r"stdin -> stdout \(24x16 -> 48x32, y4m, 5 frames, [\d.]+ fps, "
        r"delay \d+ ms \(worst \d+\), \d frames \(worst \d\)\)",
        line,
    )


def test_of_a_cut_input_the_frames_are_kept_and_the_status_is_1() -> None:
    with start(*RAW, "--stream-format", "rgb24") as process:
        out, said = process.communicate(2 * FRAME + FRAME[:100], timeout=100)
    assert process.returncode == 1
    assert len(out) == 2 * 4 * len(FRAME)
    report, failure = said.decode().splitlines()
    assert report.startswith("stdin -> stdout (24x16 -> 48x32, rgb24, 2 frames, ")
    assert failure == (
        "restore: failed: stdin: it breaks off after 2 frames: its last frame has 100 bytes only"
    )


def test_an_empty_input_is_one_line_and_status_1() -> None:
    with start() as process:
        out, said = process.communicate(b"", timeout=100)
    assert (process.returncode, out) == (1, b"")
    assert said == b"restore: error: stdin is empty (0 bytes); pipe a video into it\n"


def test_a_reader_that_leaves_is_one_line_and_status_1() -> None:
    with start(*RAW, "--stream-format", "rgb24") as process:
        process.stdin.write(3 * FRAME)
        process.stdin.flush()
        assert len(process.stdout.read(100)) == 100
        process.stdout.close()
        process.stdin.write(8 * FRAME)
        process.stdin.close()
        said = process.stderr.read().decode()
        assert process.wait(60) == 1
    assert re.fullmatch(
        r"restore: error: the reader of the stream has left after \d+ frames; .*\n", said
    )


@pytest.mark.skipif(os.name == "nt", reason="Windows sends Ctrl-C to whole consoles only")
def test_ctrl_c_ends_the_stream_properly_while_it_waits_for_input() -> None:
    with start(*RAW, "--stream-format", "rgb24") as process:
        process.stdin.write(4 * FRAME)
        process.stdin.flush()
        assert len(process.stdout.read(4 * 4 * len(FRAME))) == 4 * 4 * len(FRAME)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        said = process.stderr.read().decode()
        assert process.stdout.read() == b""
    assert re.fullmatch(r"restore: interrupted; 4 frames went out, .*", said.strip())
