"""What goes into an encoder comes out again: pictures, times, colours; and wishes are checked."""

from __future__ import annotations

import dataclasses
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest
import torch
from video.clips import write_clip

from restore.config import VideoConfig
from restore.errors import OptionError, OutputError
from restore.video.decode import decode
from restore.video.encode import (
    EncoderSpec,
    SegmentWriter,
    add_encoder_stream,
    available_hardware_encoders,
    choose_encoder,
    read_segment,
)
from restore.video.pixels import PixelCoding
from restore.video.probe import ClipInfo, ColorTags, coding_of, probe

LOSSLESS = {
    "h264": ("qp=0",),
    "hevc": ("x265-params=lossless=1",),
    "ffv1": (),
}


def clip_info(**changes: Any) -> ClipInfo:
    """A plain SD clip with some fields changed; its coding follows from the rest."""
    fields: dict[str, Any] = {
        "path": Path("clip.mp4"),
        "stream_index": 0,
        "width": 64,
        "height": 48,
        "rotation": 0,
        "mirrored": False,
        "time_base": Fraction(1, 90_000),
        "frame_rate": Fraction(25),
        "pix_fmt": "yuv420p",
        "bit_depth": 8,
        "chroma": "420",
        "color": ColorTags(),
        "sample_aspect_ratio": Fraction(1),
        "interlaced": False,
        "frame_count": None,
        "duration": None,
        "start_time": 0.0,
        "codec": "h264",
        "container": "mov",
        "damage": None,
    } | changes
    coding = coding_of(fields["color"], fields["pix_fmt"], fields["width"], fields["height"])
    return ClipInfo(coding=coding, **fields)


def smooth(index: int, width: int = 64, height: int = 64) -> torch.Tensor:
    """A ramp in each colour that moves from frame to frame."""
    x = torch.linspace(0, 1, width).expand(height, width)
    y = torch.linspace(0, 1, height)[:, None].expand(height, width)
    return torch.stack([x, y, (x + y) / 4 + 0.02 * index])


def write_segment(
    path: Path, spec: EncoderSpec, times: list[int] | None = None, frames: int = 6
) -> list[torch.Tensor]:
    """Write a segment of moving ramps and return them."""
    times = [3600 * i for i in range(frames)] if times is None else times
    pictures = [smooth(i, spec.width, spec.height) for i in range(len(times))]
    with SegmentWriter(path, spec) as writer:
        for pts, picture in zip(times, pictures, strict=True):
            writer.write(picture, pts=pts, duration=3600)
    return pictures


def finish(segment: Path, spec: EncoderSpec, target: Path) -> Path:
    """Make a file for players of one segment, as the join does."""
    packets = list(read_segment(segment, spec))
    shown = sorted(packet.pts for packet in packets)
    step = shown[1] - shown[0]
    with av.open(str(target), "w") as output:
        stream = add_encoder_stream(output, spec)
        for place, packet in enumerate(packets):
            packet.stream = stream
            packet.dts = shown[place] - 4 * step
            output.mux(packet)
    return target


@pytest.mark.parametrize(
    ("codec", "pix_fmt", "tags"),
    [
        ("ffv1", "yuv420p", ColorTags(primaries=1, trc=1, matrix=1, range=1)),
        ("ffv1", "yuv422p10le", ColorTags(primaries=9, trc=16, matrix=9, range=1)),
        ("ffv1", "yuv444p12le", ColorTags(primaries=6, trc=6, matrix=6, range=2)),
        ("ffv1", "gray10le", ColorTags(range=1)),
        ("ffv1", "gbrp10le", ColorTags(primaries=1, trc=13, matrix=0)),
        ("ffv1", "bgr0", ColorTags()),
        ("h264", "yuv420p", ColorTags(primaries=6, trc=6, matrix=6, range=1, chroma_location=1)),
        ("h264", "yuvj420p", ColorTags(matrix=5, range=2, chroma_location=2)),
        ("h264", "yuv422p10le", ColorTags(primaries=1, trc=1, matrix=1, range=1)),
        ("h264", "yuv444p", ColorTags(matrix=1, range=2)),
        ("h264", "gray", ColorTags()),
        ("hevc", "yuv420p10le", ColorTags(primaries=9, trc=16, matrix=9, chroma_location=3)),
        ("hevc", "yuv444p12le", ColorTags(primaries=1, trc=1, matrix=1, range=2)),
    ],
)
def test_pictures_and_tags_survive_lossless_coding(
    tmp_path: Path, codec: str, pix_fmt: str, tags: ColorTags
) -> None:
    info = clip_info(pix_fmt=pix_fmt, color=tags)
    config = VideoConfig(codec=codec, encoder_option=LOSSLESS[codec])  # type: ignore[arg-type]
    spec = choose_encoder(config, info, width=64, height=64)
    assert spec.pix_fmt == pix_fmt.replace("yuvj", "yuv")
    pictures = write_segment(tmp_path / "segment", spec)
    result = probe(finish(tmp_path / "segment", spec, tmp_path / "clip.mkv"))
    assert (result.color.primaries, result.color.trc) == (tags.primaries, tags.trc)
    assert result.color.matrix == (0 if result.pix_fmt in ("bgr0", "gbrp10le") else tags.matrix)
    assert result.color.range == tags.range or result.coding.full_range == spec.coding.full_range
    if tags.chroma_location:
        assert result.color.chroma_location == tags.chroma_location
    assert result.coding.matrix == info.coding.matrix
    steps = 219 if result.bit_depth == 8 else 219 * 4
    frames = list(decode(result))
    assert len(frames) == len(pictures)
    for frame, picture in zip(frames, pictures, strict=True):
        wanted = picture
        if pix_fmt.startswith("gray"):
            wanted = (torch.tensor([0.299, 0.587, 0.114])[:, None, None] * picture).sum(0)
        error = (frame.rgb - wanted).abs()[:, 2:-2, 2:-2]
        assert error.max() <= 2.0 / steps, (pix_fmt, float(error.max()) * steps)


@pytest.mark.parametrize(
    ("codec", "suffix", "pix_fmt"),
    [
        ("h264", ".mp4", "yuv420p"),
        ("hevc", ".mp4", "yuv420p10le"),
        ("av1", ".mp4", "yuv420p10le"),
        ("ffv1", ".mkv", "yuv420p10le"),
        ("prores", ".mov", "yuv422p10le"),
    ],
)
def test_defaults_are_close_to_lossless_and_keep_tags(
    tmp_path: Path, codec: str, suffix: str, pix_fmt: str
) -> None:
    tags = ColorTags(primaries=9, trc=18, matrix=9, range=1, chroma_location=3)
    bits = {"color": tags, "pix_fmt": "yuv420p10le", "sample_aspect_ratio": Fraction(8, 9)}
    info = clip_info(**(bits if codec != "h264" else {**bits, "pix_fmt": "yuv420p"}))
    spec = choose_encoder(VideoConfig(codec=codec), info, width=64, height=64)  # type: ignore[arg-type]
    assert spec.pix_fmt == pix_fmt
    pictures = write_segment(tmp_path / "segment", spec)
    result = probe(finish(tmp_path / "segment", spec, tmp_path / f"clip{suffix}"))
    assert (result.color.primaries, result.color.matrix, result.color.range) == (9, 9, 1)
    assert result.color.trc == 18
    if codec in ("h264", "hevc", "av1", "prores"):
        assert result.sample_aspect_ratio == Fraction(8, 9)
    frames = list(decode(result))
    for frame, picture in zip(frames, pictures, strict=True):
        assert (frame.rgb - picture).square().mean() < 10**-3.8  # 38 dB


def test_times_are_kept_to_the_tick(tmp_path: Path) -> None:
    """Irregular, negative, and in clocks that other containers round."""
    times = [-5005, -4004, -1001, 0, 7, 1008, 1001 * 9, 1001 * 9 + 1, 2_000_000_000]
    for codec in ("h264", "hevc", "av1", "ffv1", "prores"):
        for unit in (Fraction(1, 90_000), Fraction(1001, 30_000), Fraction(1, 1_000_000)):
            if codec == "prores" and unit.denominator != 90_000:
                continue  # MOV holds 2^31 ticks of its unit; clips do not last for months
            info = clip_info(time_base=unit)
            spec = choose_encoder(VideoConfig(codec=codec), info, width=64, height=64)  # type: ignore[arg-type]
            some = times[:-1] if codec == "prores" else times
            write_segment(tmp_path / "segment", spec, some)
            packets = list(read_segment(tmp_path / "segment", spec))
            assert sorted(packet.pts for packet in packets) == some, (codec, unit)
            assert {packet.time_base for packet in packets} == {unit}
            assert packets[0].is_keyframe and packets[0].pts == some[0]


@pytest.mark.parametrize("codec", ["h264", "hevc", "av1", "ffv1", "prores"])
def test_same_frames_give_the_same_bytes(tmp_path: Path, codec: str) -> None:
    spec = choose_encoder(VideoConfig(codec=codec), clip_info(), width=96, height=64)  # type: ignore[arg-type]
    for name in ("one", "two"):
        write_segment(tmp_path / name, spec, frames=20)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_close_counts_packets(tmp_path: Path) -> None:
    spec = choose_encoder(VideoConfig(), clip_info(), width=64, height=64)
    writer = SegmentWriter(tmp_path / "segment", spec)
    for index in range(5):
        writer.write(smooth(index), pts=index, duration=1)
    assert writer.close() == 5


def test_failing_with_block_closes_the_file(tmp_path: Path) -> None:
    spec = choose_encoder(VideoConfig(), clip_info(), width=64, height=64)
    with pytest.raises(KeyError), SegmentWriter(tmp_path / "segment", spec) as writer:
        writer.write(smooth(0), pts=0, duration=1)
        raise KeyError("something else")
    # Windows refuses this while the file is open.
    (tmp_path / "segment").unlink(missing_ok=True)


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full is Linux's")
def test_full_disk_is_an_os_error() -> None:
    spec = choose_encoder(VideoConfig(codec="ffv1"), clip_info(), width=320, height=240)
    with pytest.raises(OSError, match="space"), SegmentWriter(Path("/dev/full"), spec) as writer:
        for index in range(8):
            writer.write(torch.rand(3, 240, 320), pts=index, duration=1)


def test_damaged_segment_is_said(tmp_path: Path) -> None:
    spec = choose_encoder(VideoConfig(), clip_info(), width=64, height=64)
    (tmp_path / "segment").write_bytes(b"nothing of the kind" * 20)
    with pytest.raises(OutputError, match="--resume"):
        list(read_segment(tmp_path / "segment", spec))


@pytest.mark.parametrize(
    ("size", "tags", "result_size", "matrix", "tag"),
    [
        ((640, 480), ColorTags(), (640, 480), 6, 2),  # read and shown as BT.601: nothing to say
        ((640, 480), ColorTags(), (2560, 1920), 6, 6),  # would be taken for BT.709
        ((1920, 1080), ColorTags(), (3840, 2160), 1, 2),
        ((1920, 1080), ColorTags(), (480, 270), 1, 1),  # would be taken for BT.601
        ((640, 480), ColorTags(matrix=9), (2560, 1920), 9, 9),
        ((640, 480), ColorTags(matrix=5), (2560, 1920), 5, 5),
    ],
)
def test_matrix_is_named_where_players_would_guess_another(
    size: tuple[int, int], tags: ColorTags, result_size: tuple[int, int], matrix: int, tag: int
) -> None:
    info = clip_info(width=size[0], height=size[1], color=tags)
    spec = choose_encoder(VideoConfig(), info, width=result_size[0], height=result_size[1])
    assert (spec.coding.matrix, spec.color.matrix) == (matrix, tag)
    assert (spec.color.primaries, spec.color.trc, spec.color.range) == (2, 2, 0)


@pytest.mark.parametrize(
    ("codec", "source", "chosen"),
    [
        ("h264", "yuv420p", "yuv420p"),
        ("h264", "yuvj422p", "yuv422p"),
        ("h264", "yuv444p10le", "yuv444p10le"),
        ("h264", "yuv420p12le", "yuv420p10le"),
        ("h264", "yuv410p", "yuv420p"),
        ("h264", "yuv411p", "yuv422p"),
        ("h264", "yuv440p", "yuv444p"),
        ("h264", "gray", "gray"),
        ("h264", "gbrp", "yuv444p"),
        ("h264", "rgb24", "yuv444p"),
        ("h264", "pal8", "yuv444p"),
        ("h264", "yuva420p", "yuv420p"),
        ("h264", "nv12", "yuv420p"),
        ("h264", "yuv420p9le", "yuv420p10le"),
        ("hevc", "yuv422p12le", "yuv422p12le"),
        ("hevc", "p010le", "yuv420p10le"),
        ("hevc", "yuv444p16le", "yuv444p12le"),
        ("av1", "yuv444p", "yuv420p"),
        ("av1", "yuv422p12le", "yuv420p10le"),
        ("av1", "gray", "yuv420p"),
        ("ffv1", "yuv422p12le", "yuv422p12le"),
        ("ffv1", "rgb24", "bgr0"),
        ("ffv1", "gbrp12le", "gbrp12le"),
        ("ffv1", "rgb48le", "gbrp16le"),
        ("ffv1", "yuv444p16be", "yuv444p16le"),
        ("prores", "yuv420p", "yuv422p10le"),
        ("prores", "yuv444p12le", "yuv444p10le"),
    ],
)
def test_pixel_format_keeps_what_the_encoder_can(codec: str, source: str, chosen: str) -> None:
    info = clip_info(pix_fmt=source)
    spec = choose_encoder(VideoConfig(codec=codec), info, width=64, height=64)  # type: ignore[arg-type]
    assert spec.pix_fmt == chosen
    if source in ("gbrp", "rgb24", "pal8") and codec == "h264":
        assert (spec.color.matrix, spec.color.range) == (6, 1)  # made here, so it is said
        assert spec.coding == PixelCoding(matrix=6, full_range=False)


def test_full_range_is_kept_said_or_converted() -> None:
    full = clip_info(pix_fmt="yuvj420p", color=ColorTags(range=2))
    h264 = choose_encoder(VideoConfig(), full, width=64, height=64)
    assert (h264.color.range, h264.coding.full_range) == (2, True)
    prores = choose_encoder(VideoConfig(codec="prores"), full, width=64, height=64)
    assert (prores.color.range, prores.coding.full_range) == (1, False)
    wished = choose_encoder(VideoConfig(pix_fmt="yuvj420p"), clip_info(), width=64, height=64)
    assert (wished.pix_fmt, wished.color.range, wished.coding.full_range) == ("yuv420p", 2, True)
    gray = clip_info(pix_fmt="gray")  # nameless gray is full range for FFmpeg
    for codec in ("h264", "av1"):
        spec = choose_encoder(VideoConfig(codec=codec), gray, width=64, height=64)  # type: ignore[arg-type]
        assert (spec.color.range, spec.coding.full_range) == (2, True)


def test_odd_sizes_become_even_where_they_must() -> None:
    def size(codec: str, width: int, height: int, pix_fmt: str = "yuv420p") -> tuple[int, int]:
        config = VideoConfig(codec=codec)  # type: ignore[arg-type]
        info = clip_info(pix_fmt=pix_fmt)
        spec = choose_encoder(config, info, width=width, height=height)
        return spec.width, spec.height

    assert size("h264", 129, 97) == (128, 96)
    assert size("h264", 129, 97, "yuv422p") == (128, 97)
    assert size("h264", 129, 97, "yuv444p") == (129, 97)
    assert size("ffv1", 129, 97) == (129, 97)
    assert size("hevc", 128, 96) == (128, 96)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"crf": 99.0}, "0 to 51"),
        ({"codec": "av1", "crf": 0.0}, "1 to 63"),
        ({"codec": "ffv1", "crf": 3.0}, "lossless"),
        ({"codec": "prores", "crf": 3.0}, "profile"),
        ({"preset": "quick"}, "ultrafast"),
        ({"codec": "av1", "preset": "99"}, "fast to slow"),
        ({"codec": "ffv1", "preset": "slow"}, "no presets"),
        ({"encoder_option": ("speed=3",)}, "no option 'speed'"),
        ({"encoder_option": ("crf=good",)}, "crf=good"),
        ({"pix_fmt": "yuv420p16le"}, "yuv420p10le"),
        ({"codec": "av1", "pix_fmt": "yuv444p"}, "allowed: yuv420p, yuv420p10le"),
        ({"codec": "prores", "encoder": "hardware"}, "leave --encoder out"),
    ],
)
def test_impossible_wishes_are_answered_with_what_is_possible(
    settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(OptionError, match=message) as caught:
        choose_encoder(VideoConfig(**settings), clip_info(), width=64, height=64)
    assert "\n" not in str(caught.value)


def test_size_beyond_the_encoder_is_refused_before_the_work() -> None:
    with pytest.raises(OptionError, match="40000x40000"):
        choose_encoder(VideoConfig(), clip_info(), width=40_000, height=40_000)


def test_x264_keeps_away_from_the_instructions_that_change_its_bits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    wishes = VideoConfig(encoder_option=("x264-params=bframes=2",))
    options = dict(choose_encoder(wishes, clip_info(), width=64, height=64).options)
    assert options["x264-params"] == "asm=avx2:bframes=2"


def test_user_options_reach_the_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    wishes = VideoConfig(crf=30.5, preset="medium", encoder_option=("tune=film", "threads=2"))
    options = dict(choose_encoder(wishes, clip_info(), width=64, height=64).options)
    assert options == {"threads": "2", "crf": "30.5", "preset": "medium", "tune": "film"}
    rated = VideoConfig(encoder_option=("b=2M",))
    assert "crf" not in dict(choose_encoder(rated, clip_info(), width=64, height=64).options)
    x265 = VideoConfig(codec="hevc", encoder_option=("x265-params=aq-mode=3",))
    options = dict(choose_encoder(x265, clip_info(), width=64, height=64).options)
    assert options["x265-params"].startswith("log-level=none:")
    assert options["x265-params"].endswith(":aq-mode=3")


def test_hardware_is_used_only_where_it_opens() -> None:
    found = available_hardware_encoders()
    config = VideoConfig(encoder="hardware")
    if any(name.startswith("h264_") for name in found):
        spec = choose_encoder(config, clip_info(), width=640, height=480)
        assert spec.encoder in found
    else:
        with pytest.raises(OptionError, match=r"h264_nvenc.*leave --encoder out"):
            choose_encoder(config, clip_info(), width=640, height=480)


def test_spec_comes_from_a_real_clip_too(tmp_path: Path) -> None:
    info = probe(write_clip(tmp_path / "clip.mp4", aspect=Fraction(4, 3), tags=(6, 6, 6, 1)))
    spec = choose_encoder(VideoConfig(), info, width=256, height=192)
    assert (spec.width, spec.height, spec.sample_aspect_ratio) == (256, 192, Fraction(4, 3))
    assert dataclasses.replace(spec.color, chroma_location=0) == ColorTags(
        primaries=6, trc=6, matrix=6, range=1
    )
    assert (spec.time_base, spec.frame_rate) == (info.time_base, info.frame_rate)


def test_lost_pixel_aspect_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    info = clip_info(sample_aspect_ratio=Fraction(8, 9))
    for codec, said in (("h264", 0), ("hevc", 0), ("ffv1", 1)):
        caplog.clear()
        spec = choose_encoder(VideoConfig(codec=codec), info, width=64, height=64)  # type: ignore[arg-type]
        write_segment(tmp_path / "segment", spec)
        result = probe(finish(tmp_path / "segment", spec, tmp_path / "clip.mkv"))
        assert caplog.text.count("pixel aspect") == said
        assert (result.sample_aspect_ratio == Fraction(8, 9)) == (not said)


@pytest.mark.parametrize("codec", ["h264", "hevc", "av1", "ffv1", "prores"])
def test_the_same_frames_give_the_same_file(codec: str, tmp_path: Path) -> None:
    """Resuming relies on it. Enough frames of noise and motion for B-frames and lookahead."""
    config = VideoConfig(codec=codec)  # type: ignore[arg-type]
    spec = choose_encoder(config, clip_info(), width=384, height=256)
    big = torch.rand(3, 320, 448)
    frames = [big[:, 2 * i : 2 * i + 256, 3 * i : 3 * i + 384] for i in range(16)]
    contents = set()
    for turn in range(4):
        path = tmp_path / f"{turn}.{spec.segment_format}"
        with SegmentWriter(path, spec) as writer:
            for index, frame in enumerate(frames):
                writer.write(frame, pts=index * 512, duration=512)
        with av.open(str(path)) as container:
            contents.add(b"".join(bytes(packet) for packet in container.demux() if packet.size))
    assert len(contents) == 1
