"""The command line: flags reach the settings, events become lines, errors become statuses."""

from __future__ import annotations

import json
import os
import shlex
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest
import torch
from click.testing import CliRunner, Result

import restore.cli.commands
import restore.image.job
import restore.inventory
import restore.video
from restore.batch import BatchReport, BatchStatus
from restore.batch.events import ItemDone, ItemRetried, WorkerLost
from restore.bitstream import Container, write_container
from restore.cli.commands import app
from restore.config import ImageConfig, VideoConfig
from restore.errors import InputError, OptionError
from restore.export import ExportConfig, Exported
from restore.image.events import Advanced, Done, Failed, ImageReport, Planned, Skipped, Started
from restore.live_config import LiveConfig
from restore.method import MethodSpec
from restore.reports.config import ReportConfig
from restore.reports.report import Report
from restore.training.run import TrainResult
from restore.video import LiveProgress, LiveResult, VideoProgress, VideoResult
from restore.video.live_queue import Delay

PROGRAM = ["--debug", "--help", "--verbose", "-v"]
ENGINE = [
    *["--color-fix", "--device", "--dtype", "--model", "--seed", "--tile", "--tile-overlap"],
    *["--denoise", "--fidelity", "--runtime", "--weights", "-g", "-n", "-t"],
    *["--base", "--compile", "--posterior", "--prompt", "--steps", "--tagger", "--tagger-adapter"],
    *["--consistency", "--decoder", "--detail", "--local-range", "--sparse-ratio"],
    *["--tags", "--tags-file", "--tiling"],
]
SIZE = ["--outscale", "--scale", "--target", "-s"]
FILES = ["--input", "--output", "-i", "-o"]
CODEC = [
    *["--base", "--device", "--dtype", "--posterior", "--seed", "--tile", "--tiling"],
    *["--weights", "-g", "-t"],
]
CODED = [
    *[*FILES, "--json", "--max-pixels", "--overwrite", "--recursive", "--skip-existing", "-r"],
]
FLAGS: dict[str, list[str]] = {
    "": [*PROGRAM, "--version"],
    "image": [
        *[*PROGRAM, *ENGINE, *SIZE, *FILES, "--dry-run", "--ext", "--json", "--max-pixels"],
        *["--overwrite", "--quality", "--recursive", "--skip-existing", "--suffix", "-r"],
    ],
    "video": [
        *[*PROGRAM, *ENGINE, *SIZE, *FILES, "--audio", "--codec", "--crf", "--dry-run"],
        *["--encoder", "--encoder-option", "--end", "--json", "--no-audio", "--overwrite"],
        *["--pix-fmt", "--preset", "--resume", "--scene-threshold", "--segment", "--start", "-e"],
        *["--no-temporal", "--temporal"],
        *["--drop", "--fps", "--input-format", "--max-delay", "--raw-input", "--size"],
        *["--stream", "--stream-format"],
    ],
    "batch": PROGRAM,
    "batch run": [
        *[*PROGRAM, *ENGINE, *SIZE, "--address", "--attempts", "--audio", "--codec", "--crf"],
        *["--dry-run", "--encoder", "--encoder-option", "--engine", "--exclude", "--ext"],
        *["--include", "--json", "--max-pixels", "--no-audio", "--no-temporal", "--overwrite"],
        *["--pix-fmt", "--poll", "--preset", "--quality", "--scene-threshold", "--segment"],
        *["--temporal", "--watch", "--workers", "-e", "-w"],
    ],
    "batch status": [*PROGRAM, "--json"],
    "compress": [
        *[*PROGRAM, *CODEC, *CODED, "--bpp", "--metadata", "--model", "--quality", "--report"],
        *["--size", "-n"],
    ],
    "decompress": [*PROGRAM, *CODEC, *CODED, "--ext", "--force", "--quality"],
    "info": [*PROGRAM, "--json"],
    "metrics": [
        *[*PROGRAM, "--cases", "--crop-border", "--device", "--fetch", "--fit", "--json", "--list"],
        *["--max-pixels", "--metric", "--niqe-params", "--output", "--overwrite", "--reference"],
        *["--restored", "--seed", "--strict", "--workers", "-g", "-m", "-o"],
    ],
    "models": PROGRAM,
    "models list": [*PROGRAM, "--json"],
    "models info": [*PROGRAM, "--json"],
    "models pull": [*PROGRAM, "--alone", "--json", "--keep", "--offline", "--variant"],
    "models verify": [*PROGRAM, "--json"],
    "models convert": [*PROGRAM, "--json", "--output", "--overwrite", "-o"],
    "models export": [
        *[*PROGRAM, "--denoise", "--fidelity", "--int8", "--output", "--overwrite", "--scale"],
        *["--temporal", "--weights", "-o", "-s"],
    ],
    "doctor": [*PROGRAM, "--json"],
    "train": [*PROGRAM, "--output", "--overwrite", "--resume", "--set", "--stop-after", "-o"],
    "pack": [
        *[*PROGRAM, "--codec", "--count", "--frames", "--output", "--overwrite", "--patch"],
        *["--quality", "--seed", "--shrink", "-o"],
    ],
    "degrade": [
        *[*PROGRAM, "--codec", "--dry-run", "--ext", "--json", "--max-pixels", "--output"],
        *["--overwrite", "--quality", "--recipe", "--recursive", "--scale", "--seed"],
        *["--skip-existing", "-o", "-r", "-s"],
    ],
    "demo": [
        *[*PROGRAM, "--auth", "--device", "--dtype", "--host", "--max-frame", "--max-pixels"],
        *["--max-seconds", "--max-upload", "--model", "--open", "--port", "--queue"],
        *["-g", "-n", "-p"],
    ],
    "completion": PROGRAM,
}
"""The promise to scripts: a flag that goes away, or a new one, changes this list."""


EXPORTED = Exported(
    path=Path("x.onnx"), model="compact", scale=4, bytes=3 << 20, largest=0.5 / 255, mean=0.02 / 255
)


STANDING = BatchStatus(
    target="out",
    items=9,
    done=4,
    running=2,
    left=2,
    failed=1,
    pieces_done=3,
    pieces=5,
    frames=77,
    per_minute=12.0,
    eta_seconds=20.0,
    failures=(("a.png", "damaged"),),
)


def commands(command: click.Command = app, path: tuple[str, ...] = ()) -> dict[str, click.Command]:
    """Every command by the words that call it."""
    found = {" ".join(path): command}
    if isinstance(command, click.Group):
        for name, child in command.commands.items():
            found.update(commands(child, (*path, name)))
    return found


def run(*arguments: str, **settings: Any) -> Result:
    """Run the program in this process."""
    return CliRunner().invoke(app, arguments, **settings)


def json_lines(result: Result) -> list[dict[str, Any]]:
    """What the program wrote to stdout, all of which must be JSON objects."""
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.fixture
def images(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Stands for `restore_images`: keeps its arguments, plays `events`, raises `error`."""
    fake = SimpleNamespace(inputs=None, config=None, events=[], error=None)

    def restore_images(inputs: Any, *, config: ImageConfig, on_event: Any) -> ImageReport:
        fake.inputs, fake.config = inputs, config
        report = ImageReport(seconds=1.5)
        for event in fake.events:
            on_event(event)
            if isinstance(event, Failed):
                report.failed.append((event.source, event.message))
            elif isinstance(event, Done | Planned | Skipped):
                getattr(report, type(event).__name__.lower()).append(event)
        if fake.error is not None:
            raise fake.error
        return report

    monkeypatch.setattr(restore.image.job, "restore_images", restore_images)
    return fake


@pytest.fixture
def clip(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Stands for `restore_video` and `restore_stream`."""
    fake = SimpleNamespace(source=None, target=None, config=None, damaged=None, error=None)

    def restore_video(source: Any, *, config: VideoConfig, progress: Any) -> VideoResult:
        fake.source, fake.config = source, config
        first = VideoProgress(
            frames_done=1, frames_total=2, fps=4.0, eta_seconds=0.5, stage="restore"
        )
        last = replace(first, frames_done=2)
        for report in (first, last, replace(last, stage="join")):
            progress(report)
        if fake.error is not None:
            raise fake.error
        plan = SimpleNamespace(
            config=config,
            info=SimpleNamespace(width=24, height=14),
            spec=SimpleNamespace(encoder="libx264", pix_fmt="yuv420p"),
            frames=2,
        )
        return VideoResult(
            path=Path("clip_x4.mp4"),
            frames=2,
            width=96,
            height=56,
            seconds=2.0,
            network_seconds=1.5,
            resumed_frames=0,
            cuts=0,
            warnings=(),
            damaged=fake.damaged,
            plan=plan,  # type: ignore[arg-type]
        )

    def restore_stream(
        source: Any, target: Any, *, config: LiveConfig, progress: Any
    ) -> LiveResult:
        fake.source, fake.target, fake.config = source, target, config
        delay = Delay(median_ms=41.5, worst_ms=80, median_frames=1, worst_frames=2)
        progress(LiveProgress(frames=3, dropped=1, fps=24, delay=delay))
        if fake.error is not None:
            raise fake.error
        return LiveResult(
            frames=9,
            dropped=1,
            width=96,
            height=56,
            seconds=2.0,
            network_seconds=1.5,
            fps=24.0,
            cuts=0,
            delay=delay,
            damaged=fake.damaged,
            plan=SimpleNamespace(  # type: ignore[arg-type]
                info=SimpleNamespace(width=24, height=14), form="nut"
            ),
        )

    monkeypatch.setattr(restore.video, "restore_video", restore_video)
    monkeypatch.setattr(restore.video, "restore_stream", restore_stream)
    return fake


def done(source: str) -> Done:
    """A picture that was restored."""
    sizes = {"size_in": (8, 6), "size_out": (32, 24)}
    return Done(source=source, destination=f"x4/{source}", seconds=0.5, notes=(), **sizes)


def test_the_flags_are_those_that_were_promised() -> None:
    found = {
        path: sorted(
            name
            for parameter in command.get_params(click.Context(command))
            if isinstance(parameter, click.Option)
            for name in [*parameter.opts, *parameter.secondary_opts]
        )
        for path, command in commands().items()
    }
    assert found == {path: sorted(flags) for path, flags in FLAGS.items()}


@pytest.mark.parametrize("path", [path for path in FLAGS if path != "models"])
def test_each_help_page_has_examples_that_the_program_takes(
    path: str,
    images: SimpleNamespace,
    clip: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("RESTORE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    Path("FlashVSR").mkdir()
    for name in ("osediff.pkl", "FlashVSR/net.pth"):  # what 'models convert' is shown with
        torch.save({"w": torch.zeros(3)}, name)
    monkeypatch.setattr("restore.cli.model_commands.pull_one", lambda *_, **__: None)
    trained = TrainResult(weights=Path("net"), iteration=9, finished=True)
    monkeypatch.setattr("restore.export.export_method", lambda *_: EXPORTED)
    monkeypatch.setattr("restore.training.run.train_from_file", lambda *_, **__: trained)
    monkeypatch.setattr("restore.data_pipelines.pack.pack_patches", lambda *_, **__: 1)
    monkeypatch.setattr("restore.degrading.job.degrade_files", lambda *_, **__: ImageReport())
    monkeypatch.setattr("restore.batch.run.restore_batch", lambda *_, **__: BatchReport())
    monkeypatch.setattr("restore.batch.status.read_status", lambda *_: STANDING)
    empty = Report(config=ReportConfig(), methods=(), metrics=(), results=[])
    monkeypatch.setattr("restore.reports.job.run", lambda *_, **__: empty)
    monkeypatch.setattr("restore.reports.report.Report.write", lambda *_: None)
    monkeypatch.setattr("restore.cli.demo_command.open_page", lambda *_: None)
    for name in ("compress_images", "decompress_images"):
        monkeypatch.setattr(f"restore.codec.job.{name}", lambda *_, **__: ImageReport())
    coded = Container(codec="oscar", weights=bytes(8), rate=0, width=9, height=9, body=b"")
    Path("photo.rsc").write_bytes(write_container(coded))  # what 'info' is shown with
    examples = commands()[path].examples  # type: ignore[attr-defined]
    page = run(*path.split(), "--help").stdout
    assert examples
    for line in examples:
        assert f"\n  {line}\n" in page
        words = shlex.split(line.replace('eval "$(', "").replace(')"', ""), comments=True)
        until = next((i for i, word in enumerate(words) if word in ("<", "|")), len(words))
        assert words[0] == "restore"
        result = run(*words[1:until])
        assert result.exit_code != 2, line
        assert "restore: error" not in result.stderr, line


def test_a_batch_is_told_of_in_lines_and_in_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []

    def restore_batch(src: str, dst: str, *, config: Any, on_event: Any) -> BatchReport:
        given.append((src, dst, config.workers, config.include))
        on_event(ItemRetried(source="a.png", message="it died", attempt=1))
        on_event(WorkerLost(worker=1, reason="was killed"))
        done = {"seconds": 1.0, "frames": 1, "worker": 0, "notes": (), "damaged": ""}
        on_event(ItemDone(source="b.png", destination="b.png", **done))
        return BatchReport(done=1, skipped=2, failed=[("a.png", "it died")], seconds=2.0)

    monkeypatch.setattr("restore.batch.run.restore_batch", restore_batch)
    arguments = ("in", "out", "-w", "3", "--include", "*.png")
    result = run("batch", *arguments)
    assert given == [("in", "out", 3, ("*.png",))]
    assert (result.exit_code, result.stdout) == (1, "")
    for line in (
        "restore: a.png: attempt 1 failed, it died",
        "restore: worker 1 was killed",
        "restore: failed: a.png: it died",
        "1 restored, 1 failed, 2 already done in 0:02, 0.50 a second",
    ):
        assert f"{line}\n" in result.stderr
    result = run("batch", *arguments, "--json")
    kinds = [line["event"] for line in json_lines(result)]
    assert (result.exit_code, kinds) == (1, ["retried", "worker_lost", "done", "summary"])


def test_the_status_of_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("restore.batch.status.read_status", lambda dst: STANDING)
    said = run("batch", "status", "out").stdout
    for part in (
        "9 items",
        "2 (3 of 5 pieces)",
        "12.0 items a minute, about 0:20 left",
        "a.png: d",
    ):
        assert part in said
    assert json_lines(run("batch", "status", "out", "--json"))[0]["failures"] == [
        ["a.png", "damaged"]
    ]


def test_flags_of_export_reach_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []
    monkeypatch.setattr("restore.export.export_method", lambda *a: given.append(a) or EXPORTED)
    flags = "-o a.onnx -s 2 --weights w --fidelity 0.5 --denoise 0 --temporal --int8 --overwrite"
    result = run("models", "export", "compact", *flags.split())
    assert result.exit_code == 0
    assert "x.onnx: compact, x4, 3.0 MiB; differs from PyTorch by 0.5 of 255" in result.stderr
    wanted = ExportConfig(
        output="a.onnx",
        scale=2,
        weights="w",
        fidelity=0.5,
        denoise=0.0,
        temporal=True,
        int8=True,
        overwrite=True,
    )
    assert given == [("compact", wanted)]
    assert run("models", "export", "compact", "-o", "a.pth").exit_code == 2


def test_the_program_asks_for_large_pages_unless_told_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[str | None] = []
    monkeypatch.setattr(
        restore.cli.commands, "app", lambda: seen.append(os.environ.get("THP_MEM_ALLOC_ENABLE"))
    )
    monkeypatch.setattr(restore.cli.commands, "exit_on_sigterm", lambda: None)
    monkeypatch.setenv("THP_MEM_ALLOC_ENABLE", "0")
    restore.cli.commands.main()
    monkeypatch.delenv("THP_MEM_ALLOC_ENABLE")
    restore.cli.commands.main()
    assert seen == ["0", "1"]


def test_without_flags_the_settings_are_the_defaults(
    images: SimpleNamespace, clip: SimpleNamespace
) -> None:
    assert run("image", "a.png", "b").exit_code == 0
    assert (images.inputs, images.config) == (("a.png", "b"), ImageConfig())
    assert run("video", "a.mp4").exit_code == 0
    assert (clip.source, clip.config) == ("a.mp4", VideoConfig())


@pytest.mark.parametrize(
    ("flags", "changes"),
    [
        ("-o out -r --suffix _big --ext webp --quality 80", None),
        ("--scale 2.5", {"scale": 2.5}),
        ("--outscale 3", {"scale": 3.0}),
        ("-s 0.5", {"scale": 0.5}),
        ("--target 1080p", {"target": "1080p"}),
        ("-n compact --weights w.pth", {"weights": "w.pth"}),
        ("-t 64 --tile-overlap 8", {"tile": 64, "tile_overlap": 8}),
        ("--tile_overlap 8", {"tile_overlap": 8}),
        ("--fidelity 0.25 --denoise 0", {"fidelity": 0.25, "denoise": 0.0}),
        ("--runtime onnx --dtype int8", {"runtime": "onnx", "dtype": "int8"}),
        ("-g cuda:1 --dtype bf16 --seed 7", {"device": "cuda:1", "dtype": "bf16", "seed": 7}),
        ("--color_fix wavelet", {"color_fix": "wavelet"}),
        ("--skip_existing", {"skip_existing": True}),
        ("--overwrite --dry-run", {"overwrite": True, "dry_run": True}),
        ("--max-pixels 9", {"max_pixels": 9}),
    ],
)
def test_flags_of_image_reach_the_settings(
    flags: str, changes: dict[str, Any] | None, images: SimpleNamespace
) -> None:
    if changes is None:
        changes = {"output": "out", "recursive": True, "suffix": "_big"}
        changes |= {"ext": "webp", "quality": 80}
    assert run("image", "a.png", *flags.split()).exit_code == 0
    assert images.config == replace(ImageConfig(), **changes)


@pytest.mark.parametrize(
    ("flags", "changes"),
    [
        ("--codec hevc --crf 20.5 --preset slow", {"codec": "hevc", "crf": 20.5, "preset": "slow"}),
        ("-e a=1 -e b=2", {"encoder_option": ("a=1", "b=2")}),
        ("--encoder hardware --pix_fmt yuv444p", {"encoder": "hardware", "pix_fmt": "yuv444p"}),
        ("--start 1:30 --end 95", {"start": "1:30", "end": "95"}),
        ("--no-audio", {"audio": False}),
        ("--audio", {}),
        ("--scene-threshold 0 --segment 30", {"scene_threshold": 0.0, "segment": 30}),
        ("--resume --overwrite", {"resume": True, "overwrite": True}),
    ],
)
def test_flags_of_video_reach_the_settings(
    flags: str, changes: dict[str, Any], clip: SimpleNamespace
) -> None:
    assert run("video", *flags.split(), "a.mp4").exit_code == 0
    assert clip.config == replace(VideoConfig(), **changes)


def test_inputs_may_also_be_written_with_a_flag(
    images: SimpleNamespace, clip: SimpleNamespace
) -> None:
    assert run("image", "-i", "a.png", "--input", "b.png").exit_code == 0
    assert images.inputs == ("a.png", "b.png")
    assert run("video", "-i", "a.mp4").exit_code == 0
    assert clip.source == "a.mp4"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["image"], "no input was given"),
        (["image", "a.png", "--tile", "3"], "tile 3 is too small; allowed: 0"),
        (["image", "a.png", "--scale", "0"], "scale 0 is not possible"),
        (["image", "a.png", "--scale", "big"], "'big' is not a valid float"),
        (["image", "a.png", "--ext", "bmp"], "'bmp' is not one of 'auto', 'png'"),
        (["image", "a.png", "-n", "compat"], "did you mean 'compact'?"),
        (["image", "a.png", "--scal", "2"], "Did you mean"),
        (["image", "a.png", "--output"], "'--output' requires an argument"),
        (["video"], "0 clips were given; give one"),
        (["video", "a.mp4", "b.mp4"], "2 clips were given; give one"),
        (["video", "a.mp4", "-e", "x"], "write it as key=value"),
        (["video", "a.mp4", "-o", "-"], "-o - is a stream: add --stream"),
        (["video", "-"], "- is stdin, which is read as a stream only; add --stream"),
        (["video", "a.mp4", "--drop"], "--drop belongs to --stream; add --stream"),
        (["video", "-", "--stream", "--resume"], "--resume needs a whole clip"),
        (["video", "-", "--stream", "--stream-format", "avi"], "'avi' is not one of 'auto'"),
        (["imagine"], "no command 'imagine'; did you mean 'image'? commands: image, video"),
        (["train", "a.yaml", "--resume", "--overwrite"], "give one of them"),
        (["completion", "tcsh"], "'tcsh' is not one of 'bash', 'zsh', 'fish'"),
    ],
)
def test_wrong_use_is_one_line_and_status_2(
    arguments: list[str], said: str, images: SimpleNamespace, clip: SimpleNamespace
) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert said in result.stderr
    assert result.stderr.startswith("restore: error: ")
    assert result.stderr.count("\n") == 1


def test_without_a_command_the_help_page_is_shown_as_wrong_use() -> None:
    result = run()
    assert result.exit_code == 2
    assert result.stderr == run("--help").stdout


def test_what_failed_is_listed_at_the_end(images: SimpleNamespace) -> None:
    images.events = [
        Started(source="a.png", destination="x4/a.png", index=1, total=3),
        Failed(source="a.png", message="is empty; give a picture"),
        done("b.png"),
        Skipped(source="c.png", reason="x4/c.png is there"),
    ]
    result = run("image", "a.png", "b.png", "c.png")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.splitlines() == [
        "b.png -> x4/b.png (8x6 -> 32x24, 0.5 s)",
        "c.png: skipped, x4/c.png is there",
        "restore: failed: a.png: is empty; give a picture",
        "1 restored, 1 skipped, 1 failed in 0:02",
    ]


def test_a_dry_run_says_what_would_be_done(images: SimpleNamespace, clip: SimpleNamespace) -> None:
    sizes = {"size_in": (8, 6), "size_out": (32, 24)}
    images.events = [Planned(source="a.png", destination="x4/a.png", **sizes)]
    result = run("image", "a.png", "--dry-run")
    assert (result.exit_code, result.stderr) == (0, "a.png -> x4/a.png (8x6 -> 32x24)\n")
    result = run("video", "a.mp4", "--dry-run")
    assert result.exit_code == 0
    expected = "a.mp4 -> clip_x4.mp4 (24x14 -> 96x56, 2 frames, libx264, yuv420p)"
    assert result.stderr.splitlines()[-1] == expected


def test_json_is_all_that_stands_on_stdout(images: SimpleNamespace, clip: SimpleNamespace) -> None:
    images.events = [
        Started(source="a.png", destination="x4/a.png", index=1, total=2),
        *[Advanced(source="a.png", done=n, total=90) for n in range(90)],
        done("a.png"),
        Failed(source="b\udcff.png", message="is empty"),
    ]
    result = run("image", "a.png", "b", "--json")
    assert result.exit_code == 1
    assert result.stderr == ""
    lines = json_lines(result)
    # Progress is not told for every tile, but at a pace that a reader can follow.
    assert [line["event"] for line in lines] == ["started", "advanced", "done", "failed", "summary"]
    assert lines[2]["size_out"] == [32, 24]
    assert lines[3] == {"event": "failed", "source": "b\udcff.png", "message": "is empty"}
    assert (lines[4]["done"], lines[4]["failed"]) == (1, 1)

    lines = json_lines(run("video", "a.mp4", "--json"))
    assert [line["event"] for line in lines] == ["progress", "progress", "done"]
    assert [line["stage"] for line in lines[:2]] == ["restore", "join"]
    assert lines[2]["destination"] == "clip_x4.mp4"
    assert lines[2]["encoder"] == "libx264"


def test_a_stream_is_told_of_in_one_line_on_stderr(clip: SimpleNamespace) -> None:
    flags = "--stream --stream-format nut --drop --max-delay 0.5 --input-format mpegts"
    result = run("video", "-", *flags.split())
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == (
        "stdin -> stdout (24x14 -> 96x56, nut, 9 frames, 24.00 fps, 1 left out, delay 42 ms (worst "
        "80), 1 frames (worst 2))\n"
    )
    assert (clip.source, clip.target) == ("-", "-")
    assert clip.config == LiveConfig(
        stream=True, stream_format="nut", drop=True, max_delay=0.5, input_format="mpegts"
    )
    clip.damaged = "the input breaks off"
    assert run("video", "-", "--stream").exit_code == 1
    lines = json_lines(run("video", "a.mkv", "--stream", "-o", "b.nut", "--json"))
    assert [line["event"] for line in lines] == ["progress", "done"]
    assert lines[1]["delay"]["worst_ms"] == 80
    assert (lines[1]["destination"], lines[1]["format"]) == ("b.nut", "nut")
    clip.error = KeyboardInterrupt()
    result = run("video", "-", "--stream")
    assert result.exit_code == 130
    assert result.stderr.strip().startswith("restore: interrupted; 3 frames went out, 24.00 fps")


def test_errors_are_json_objects_too(clip: SimpleNamespace) -> None:
    clip.error = InputError("a.mp4 is empty; give a clip")
    result = run("video", "a.mp4", "--json")
    assert result.exit_code == 1
    expected = {"event": "error", "kind": "InputError", "message": "a.mp4 is empty; give a clip"}
    assert json_lines(result)[-1] == expected


def test_a_damaged_clip_is_kept_and_said(clip: SimpleNamespace) -> None:
    clip.damaged = "the data breaks off after frame 2"
    result = run("video", "a.mp4")
    assert result.exit_code == 1
    assert "a.mp4 -> clip_x4.mp4" in result.stderr
    assert "restore: failed: a.mp4: the data breaks off after frame 2" in result.stderr


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (OptionError("scale 9 does not fit"), 2, "restore: error: scale 9 does not fit\n"),
        (InputError("a.mp4 is empty"), 1, "restore: error: a.mp4 is empty\n"),
        (
            ZeroDivisionError("two\nlines"),
            1,
            "restore: error: unexpected ZeroDivisionError: two; add --debug to see where\n",
        ),
        (
            KeyboardInterrupt(),
            130,
            "restore: interrupted; the same command with --resume goes on\n",
        ),
        (SystemExit(143), 143, "restore: terminated; the same command with --resume goes on\n"),
    ],
)
def test_errors_are_one_line_and_a_status(
    error: BaseException, status: int, said: str, clip: SimpleNamespace
) -> None:
    clip.error = error
    result = run("video", "a.mp4")
    assert result.exit_code == status
    assert result.stderr.endswith(said)
    assert "Traceback" not in result.output


@pytest.mark.parametrize("arguments", [["--debug", "video", "a"], ["video", "a", "--debug"]])
def test_debug_shows_the_trace_wherever_it_stands(
    arguments: list[str], clip: SimpleNamespace
) -> None:
    clip.error = InputError("a is empty")
    result = run(*arguments)
    assert result.exit_code == 1
    assert "Traceback" in result.stderr
    assert result.stderr.endswith("restore: error: a is empty\n")


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["image", "a"], ["a warning"]),
        (["-v", "image", "a"], ["a choice", "a warning"]),
        (["image", "a", "--verbose"], ["a choice", "a warning"]),
        (["image", "a", "--debug"], ["a detail", "a choice", "a warning"]),
    ],
)
def test_log_lines_go_to_stderr_as_far_as_asked_for(
    arguments: list[str], shown: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def restore_images(*_: Any, **__: Any) -> ImageReport:
        import logging

        log = logging.getLogger("restore.somewhere")
        log.debug("a detail")
        log.info("a choice")
        log.warning("a warning")
        return ImageReport()

    monkeypatch.setattr(restore.image.job, "restore_images", restore_images)
    result = run(*arguments)
    assert result.stdout == ""
    assert [line.split(": ")[-1] for line in result.stderr.splitlines()] == shown


def test_the_failures_so_far_are_listed_after_an_interruption(images: SimpleNamespace) -> None:
    images.events = [Failed(source="a.png", message="is empty")]
    images.error = KeyboardInterrupt()
    result = run("image", "folder")
    assert result.exit_code == 130
    assert "restore: failed: a.png: is empty" in result.stderr
    assert "--skip-existing" in result.stderr


def test_a_restricted_licence_is_said(
    monkeypatch: pytest.MonkeyPatch, images: SimpleNamespace
) -> None:
    assert "note" not in run("image", "a.png").stderr
    spec = MethodSpec(name="x", summary="", scale=4, overlap=1, licence="CC-BY-NC-4.0")
    monkeypatch.setattr("restore.registry.method_class", lambda name: SimpleNamespace(spec=spec))
    assert "'CC-BY-NC-4.0': check it before any commercial" in run("image", "a.png").stderr


@pytest.mark.parametrize(
    ("licence", "free"),
    [
        ("Apache-2.0", True),
        ("MIT", True),
        ("BSD-3-Clause", True),
        ("CC-BY-4.0", True),
        ("CC-BY-NC-4.0", False),
        ("FLUX.1 [dev] Non-Commercial License", False),
        ("S-Lab License 1.0", False),
        ("", False),
    ],
)
def test_which_licences_allow_commercial_use(licence: str, free: bool) -> None:
    assert restore.inventory.allows_commercial_use(licence) is free


def test_models_are_listed_with_scale_licence_and_weights() -> None:
    text = run("models", "list").stdout
    assert "compact (x4, default)" in text
    assert "Apache-2.0" in text
    (entry,) = [e for e in json_lines(run("models", "list", "--json")) if e["name"] == "compact"]
    assert (entry["scale"], entry["default"], entry["licence"]) == (4, True, "Apache-2.0")
    assert Path(entry["weights"]).stat().st_size == entry["weights_bytes"]


def test_a_model_without_weights_is_listed_with_its_problem(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("restore.weights.ASSETS", tmp_path)
    (entry,) = [e for e in json_lines(run("models", "list", "--json")) if e["name"] == "compact"]
    assert entry["weights"] is None
    assert "compact.safetensors is missing" in entry["problem"]
    assert "problem: " in run("models", "list").stdout
