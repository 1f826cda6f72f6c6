"""The program as a process: exit status, signals, pipes, completion, a terminal's progress."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import restore
from restore.cli.progress import Meter, count
from restore.durations import clock
from restore.registry import CODECS, METHODS

PROGRAM = [sys.executable, "-m", "restore"]


def run(*arguments: str, **settings: Any) -> subprocess.CompletedProcess[bytes]:
    """Run the program and wait for its end."""
    return subprocess.run([*PROGRAM, *arguments], capture_output=True, timeout=100, **settings)


def test_a_picture_goes_through_the_whole_program(
    tmp_path: Path, make_picture: Callable[..., Any]
) -> None:
    source = tmp_path / "büro 写真.png"
    Image.fromarray(make_picture(20, 14)).save(source)
    done = run("image", str(source), "--json", "--scale", "2", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [event["event"] for event in events if event["event"] != "advanced"] == [
        *["started", "done", "summary"]
    ]
    result = Path(events[-2]["destination"])
    assert result == tmp_path / "büro 写真_x2.png"
    with Image.open(result) as image:
        assert image.size == (40, 28)


def test_a_picture_goes_through_pipes(make_picture: Callable[..., Any]) -> None:
    small = io.BytesIO()
    Image.fromarray(make_picture(9, 7)).save(small, "PNG")
    done = run("image", "-", "-o", "-", "--device", "cpu", input=small.getvalue())
    assert done.returncode == 0, done.stderr
    with Image.open(io.BytesIO(done.stdout)) as image:
        assert image.size == (36, 28)


def test_a_missing_clip_is_one_line_and_status_1(tmp_path: Path) -> None:
    done = run("video", str(tmp_path / "none.mp4"))
    assert done.returncode == 1
    assert done.stdout == b""
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith("restore: error: ") and "none.mp4" in line


def test_the_installed_command_and_the_module_are_the_same() -> None:
    script = Path(sys.executable).with_name("restore")
    if not script.exists():
        pytest.skip("restore is not installed as a command here")
    done = subprocess.run([script, "--version"], capture_output=True, text=True, timeout=60)
    assert done.stdout == f"restore {restore.__version__}\n" == run("--version").stdout.decode()


def test_a_reader_that_leaves_early_gets_no_trace() -> None:
    reader, writer = os.pipe()
    os.close(reader)  # gone before the first line, however quick the program is
    try:
        done = subprocess.run(
            [*PROGRAM, "completion", "zsh"], stdout=writer, stderr=subprocess.PIPE, timeout=60
        )
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (1, b"")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM that can be caught")
def test_sigterm_leaves_through_the_same_doors_as_an_error() -> None:
    code = (
        "import time\n"
        "from restore.cli.app import exit_on_sigterm\n"
        "exit_on_sigterm()\n"
        "try:\n"
        "    print('ready', flush=True)\n"
        "    time.sleep(60)\n"
        "finally:\n"
        "    print('cleaned up', flush=True)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.read() == b"cleaned up\n"
        assert process.wait(60) == 143


@pytest.mark.skipif(os.name == "nt", reason="Windows sends Ctrl-C to whole consoles only")
def test_ctrl_c_leaves_no_half_file_and_says_how_to_go_on(
    tmp_path: Path, make_picture: Callable[..., Any]
) -> None:
    source = tmp_path / "a.png"
    Image.fromarray(make_picture(900, 600)).save(source)  # seconds of work, in small steps
    command = [*PROGRAM, "image", str(source), "--json", "--tile", "32", "--device", "cpu"]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # A shell that runs this in the background has SIGINT ignored, which children inherit.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        assert json.loads(process.stdout.readline())["event"] == "started"
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        assert b"restore: interrupted; the same command with --skip-existing" in (
            process.stderr.read()
        )
    assert list(tmp_path.iterdir()) == [source]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_script_is_valid_in_its_shell(shell: str, tmp_path: Path) -> None:
    done = run("completion", shell)
    assert done.returncode == 0
    assert b"_RESTORE_COMPLETE" in done.stdout
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"no {shell} here to check the script with")
    script = tmp_path / "script"
    script.write_bytes(done.stdout)
    subprocess.run([program, "-n", str(script)], check=True, timeout=60)


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (
            "restore ",
            {"image", "video", "degrade", "models", "doctor", "train", "pack", "completion"}
            | {"compress", "decompress", "info", "demo", "batch", "metrics"},
        ),
        ("restore compress -n ", set(CODECS)),
        ("restore image -n ", set(METHODS)),
        ("restore image --dtype b", {"bf16"}),
        ("restore video --no", {"--no-audio", "--no-temporal"}),
    ],
)
def test_completion_offers_commands_models_and_choices(words: str, offered: set[str]) -> None:
    environment = {
        **os.environ,
        "_RESTORE_COMPLETE": "bash_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(words.count(" ")),
    }
    done = run(env=environment)
    assert {line.split(",")[1] for line in done.stdout.decode().split()} == offered


class Terminal(io.StringIO):
    """A stderr that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_progress_is_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    meter = Meter("frames")
    meter.update(3, 12, note="2.00 fps [bold]")
    meter.close()
    assert "3 of 12 frames" in terminal.getvalue()
    assert "[bold]" in terminal.getvalue()  # names are shown as they are, not as markup


def test_progress_is_a_line_now_and_then_elsewhere(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 100.0
    monkeypatch.setattr("restore.cli.progress.time.monotonic", lambda: now)
    meter = Meter("frames")
    for done in range(1, 121):
        now += 0.125
        meter.update(done, None if done < 60 else 120, note="10.00 fps")
    meter.close()
    assert capsys.readouterr().err.splitlines() == [
        "40 frames, 10.00 fps",
        "80 of 120 frames, 10.00 fps",
        "120 of 120 frames, 10.00 fps",
    ]


def test_progress_is_silent_when_it_is_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    meter = Meter("frames", shown=False)
    meter.update(1, 2)
    meter.close()
    assert capsys.readouterr() == ("", "")


def test_times_and_counts_as_people_write_them() -> None:
    assert [clock(s) for s in (-1, 0, 7.4, 750, 3723)] == [
        "0:00",
        "0:00",
        "0:07",
        "12:30",
        "1:02:03",
    ]
    assert (count(3, None), count(3, 4)) == ("3", "3 of 4")
