"""What a clip says about itself is understood, and what is no clip is refused with one line."""

from __future__ import annotations

import io
import os
from fractions import Fraction
from pathlib import Path

import av
import pytest
from PIL import Image
from video.clips import CLOCK, cut, turn_mp4, write_clip

from restore.errors import InputError
from restore.video.pixels import BT601, BT709
from restore.video.probe import probe


def test_plain_clip_is_described(tmp_path: Path) -> None:
    info = probe(write_clip(tmp_path / "Ünïcode 视频 %03d.mp4", frames=5, audio=False))
    assert (info.width, info.height, info.rotation, info.mirrored) == (64, 48, 0, False)
    assert (info.time_base, info.frame_rate) == (Fraction(1, 90_000), 25)
    assert (info.pix_fmt, info.bit_depth, info.chroma, info.codec) == ("yuv420p", 8, "420", "h264")
    assert (info.frame_count, info.duration, info.start_time) == (5, pytest.approx(0.2), 0)
    assert info.sample_aspect_ratio == 1 and not info.interlaced and info.damage is None


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
def test_color_tags_are_read_from_every_container(tmp_path: Path, suffix: str) -> None:
    path = write_clip(
        tmp_path / f"clip{suffix}",
        codec="libx264",
        pix_fmt="yuv420p10le",
        tags=(9, 16, 9, 2),
        options={"chroma_sample_location": "topleft"},
    )
    color = probe(path).color
    assert (color.primaries, color.trc, color.matrix, color.range) == (9, 16, 9, 2)
    assert color.chroma_location == 3
    coding = probe(path).coding
    assert (coding.matrix, coding.full_range, coding.chroma_location) == (9, True, 3)


def test_missing_tags_stay_missing_and_the_matrix_is_guessed_as_players_do(tmp_path: Path) -> None:
    small = probe(write_clip(tmp_path / "sd.mp4", size=(64, 48)))
    wide = probe(write_clip(tmp_path / "hd.mp4", size=(1280, 534), frames=1))
    for info in (small, wide):
        assert (info.color.primaries, info.color.trc, info.color.matrix) == (2, 2, 2)
        assert info.color.range == 0 and not info.coding.full_range
    assert (small.coding.matrix, wide.coding.matrix) == (BT601, BT709)


@pytest.mark.parametrize(
    ("pix_fmt", "chroma", "bits"),
    [
        ("yuv422p", "422", 8),
        ("yuv444p10le", "444", 10),
        ("yuv420p12le", "420", 12),
        ("gray", "400", 8),
        ("gbrp10le", "444", 10),
        ("bgr0", "444", 8),
        ("yuva420p", "420", 8),
    ],
)
def test_pixel_format_is_taken_apart(tmp_path: Path, pix_fmt: str, chroma: str, bits: int) -> None:
    path = write_clip(
        tmp_path / "clip.mkv", codec="ffv1", pix_fmt=pix_fmt, fill=lambda i, f: None, frames=1
    )
    info = probe(path)
    assert (info.pix_fmt, info.chroma, info.bit_depth) == (pix_fmt, chroma, bits)


def test_old_jpeg_formats_are_full_range(tmp_path: Path) -> None:
    info = probe(write_clip(tmp_path / "clip.avi", codec="mjpeg", pix_fmt="yuvj420p"))
    assert info.color.range == 2 and info.coding.full_range
    assert info.coding.chroma_location == 2  # JPEG's samples lie in the middle of four


@pytest.mark.parametrize(
    ("matrix", "rotation", "mirrored", "size"),
    [
        ((1, 0, 0, 1), 0, False, (64, 48)),
        ((0, 1, -1, 0), 90, False, (48, 64)),
        ((-1, 0, 0, -1), 180, False, (64, 48)),
        ((0, -1, 1, 0), 270, False, (48, 64)),
        ((-1, 0, 0, 1), 0, True, (64, 48)),
        ((1, 0, 0, -1), 180, True, (64, 48)),
    ],
)
def test_turn_is_read_and_size_and_aspect_follow(
    tmp_path: Path, matrix: tuple[int, ...], rotation: int, mirrored: bool, size: tuple[int, int]
) -> None:
    path = turn_mp4(write_clip(tmp_path / "clip.mp4", aspect=Fraction(8, 9)), matrix)
    info = probe(path)
    assert (info.rotation, info.mirrored, (info.width, info.height)) == (rotation, mirrored, size)
    assert info.sample_aspect_ratio == (Fraction(9, 8) if size == (48, 64) else Fraction(8, 9))


def test_interlaced_clip_is_recognised(tmp_path: Path) -> None:
    fields = {"flags": "+ilme+ildct", "x264-params": "interlaced=1"}
    assert probe(write_clip(tmp_path / "clip.mp4", options=fields)).interlaced
    assert probe(
        write_clip(
            tmp_path / "clip.mpg",
            codec="mpeg2video",
            time_base=Fraction(1, 25),
            options={"flags": "+ilme+ildct"},
        )
    ).interlaced


def test_transport_stream_starts_late_and_counts_nothing(tmp_path: Path) -> None:
    info = probe(write_clip(tmp_path / "clip.ts"))
    assert info.frame_count is None
    assert 0 < info.start_time < 2  # the muxer's own delay


def test_cover_is_not_taken_for_the_video(tmp_path: Path) -> None:
    path = tmp_path / "song.mp3"
    picture = io.BytesIO()
    Image.new("RGB", (16, 16)).save(picture, "PNG")
    with av.open(str(path), "w", format="mp3") as output:
        sound = output.add_stream("mp3", rate=44100)
        cover = output.add_stream("png", rate=1)
        cover.width = cover.height = 16
        cover.pix_fmt = "rgb24"
        cover.disposition = av.stream.Disposition.attached_pic.value
        output.mux(cover.encode(av.VideoFrame(16, 16, "rgb24")))
        frame = av.AudioFrame(format="s16p", layout="stereo", samples=1152)
        frame.sample_rate, frame.pts = 44100, 0
        for packet in [*sound.encode(frame), *sound.encode(None)]:
            output.mux(packet)
    with pytest.raises(InputError, match="only picture is a cover"):
        probe(path)


def test_sound_alone_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "sound.wav"
    with av.open(str(path), "w") as output:
        stream = output.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame(format="s16", layout="mono", samples=800)
        frame.sample_rate = 8000
        output.mux(stream.encode(frame))
    with pytest.raises(InputError, match="holds only audio"):
        probe(path)


def test_what_is_no_video_is_refused_in_one_line(tmp_path: Path) -> None:
    contents = {
        "empty.mp4": (b"", "empty"),
        "text.mp4": (b"These are words, not pictures.\n" * 50, "cannot be opened"),
        "text.txt": (b"These are words, not pictures.\n" * 50, "cannot be opened|not a video"),
        "list.mp4": (b"#EXTM3U\n#EXTINF:1,\nhttp://localhost:9/a.ts\n", "cannot be opened"),
        "noise.mkv": (bytes(range(256)) * 40, "cannot be opened"),
    }
    for name, (content, message) in contents.items():
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(InputError, match=message) as caught:
            probe(path)
        assert "\n" not in str(caught.value)
    Image.new("RGB", (16, 16)).save(tmp_path / "picture.mp4", "PNG")
    with pytest.raises(InputError, match="restore image"):
        probe(tmp_path / "picture.mp4")
    with pytest.raises(InputError, match="does not exist"):
        probe(tmp_path / "missing.mp4")
    with pytest.raises(InputError, match="folder"):
        probe(tmp_path)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may read everything")
def test_forbidden_file_is_refused(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4")
    path.chmod(0)
    with pytest.raises(InputError, match="permissions"):
        probe(path)


def test_mp4_without_its_index_is_refused_with_the_reason(tmp_path: Path) -> None:
    path = cut(write_clip(tmp_path / "clip.mp4"), 0.5)
    with pytest.raises(InputError, match=r"index \(moov\) is missing"):
        probe(path)


@pytest.mark.parametrize("suffix", [".mkv", ".avi", ".ts", ".mp4"])
def test_cut_file_is_recognised_by_its_own_headers(tmp_path: Path, suffix: str) -> None:
    codec = "mpeg4" if suffix == ".avi" else "libx264"
    begin = {"movflags": "faststart"} if suffix == ".mp4" else None
    clock = Fraction(1, 25) if suffix == ".avi" else CLOCK  # MPEG-4 counts to 65535
    path = write_clip(
        tmp_path / f"clip{suffix}", codec=codec, frames=60, container=begin, time_base=clock
    )
    assert probe(path).damage is None
    assert "bytes" in (probe(cut(path, 0.83)).damage or "")


def test_frames_of_absurd_size_are_refused_before_they_are_decoded(tmp_path: Path) -> None:
    path = tmp_path / "clip.y4m"
    path.write_bytes(b"YUV4MPEG2 W12000 H9000 F25:1 Ip A1:1 C420\nFRAME\n" + bytes(100))
    with pytest.raises(InputError, match=r"12000x9000.*million pixels"):
        probe(path)
