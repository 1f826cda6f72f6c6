"""The live mode: the frames of `restore_video`, at once, in bounded memory, and a proper end."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from video.clips import FRAME, cut, fill_grain, write_clip
from video.fakes import FakeRestorer, at, fail, run_job, video_frames
from video.live_clips import (
    RAW,
    Through,
    enlarged,
    feeding,
    frames_of,
    piped,
    raw_frame,
    run_live,
    slow,
    sound_of,
)

import restore
from restore.errors import InputError, OptionError, OutputError
from restore.live_config import LiveConfig, parse_rate, parse_size
from restore.video import live_sound
from restore.video.encode import choose_encoder
from restore.video.live_plan import low_delay_options
from restore.video.live_queue import Delays
from restore.video.live_sound import Sound
from restore.video.probe import probe

PLAIN: dict[str, Any] = {"stream_format": "rgb24"}
FFV1: dict[str, Any] = {"codec": "ffv1", "stream_format": "nut"}
UNEVEN = [FRAME * tick for tick in (0, 1, 2, 4, 7, 8, 9, 10, 15, 16)]
IN_FLIGHT = 8
"""Frames that may be inside at once: reader, queue, network, queue and writer, one each, and a few
that the decoder holds to bring them into order."""


@pytest.mark.parametrize("suffix", ["mkv", "nut", "ts"])
@pytest.mark.parametrize(
    "kind",
    [{}, {"recurrent": True}, {"frames_before": 1, "frames_after": 2}, {"streaming": True}],
    ids=["alone", "recurrent", "window", "groups"],
)
def test_the_frames_and_times_are_those_of_the_file_mode(
    tmp_path: Path, suffix: str, kind: dict[str, Any]
) -> None:
    source = write_clip(tmp_path / f"in.{suffix}", times=UNEVEN, fill=fill_grain)
    whole = run_job(
        source, FakeRestorer(**kind), dst=tmp_path / "whole.mkv", codec="ffv1", preset=None
    )
    wanted = [frame for _, frame in video_frames(whole.path)]
    result, data = piped(source, FakeRestorer(**kind), **FFV1)
    got = frames_of(data)
    assert result.frames == len(got) == len(UNEVEN)
    with av.open(str(source)) as container:
        times = [float(f.pts * f.time_base) for f in container.decode(video=0)]
    assert [time for time, _ in got] == times
    for (_, frame), other in zip(got, wanted, strict=True):
        np.testing.assert_array_equal(frame, other)


def test_a_cut_resets_the_stream_as_in_the_file_mode(tmp_path: Path) -> None:
    def fill(index: int, frame: av.VideoFrame) -> None:
        fill_grain(0 if index < 5 else 9, frame)
        samples = np.frombuffer(memoryview(frame.planes[0]), "u1").reshape(48, -1)
        samples[: 24 if index < 5 else 40, : 20 if index < 5 else 60] = 30 if index < 5 else 220

    source = write_clip(tmp_path / "in.nut", codec="ffv1", frames=10, fill=fill)
    whole = run_job(
        source, FakeRestorer(recurrent=True), dst=tmp_path / "w.mkv", codec="ffv1", preset=None
    )
    assert whole.cuts == 1
    result, data = piped(source, FakeRestorer(recurrent=True), **FFV1)
    assert result.cuts == 1
    for (_, frame), (_, other) in zip(frames_of(data), video_frames(whole.path), strict=True):
        np.testing.assert_array_equal(frame, other)


def test_each_frame_goes_out_before_the_next_one_comes_in() -> None:
    """Not one frame of delay, with the search for cuts switched on."""
    with Through(**RAW, stream_format="rgb24") as run:
        for index in range(30):
            run.giver.write(raw_frame(index))
            assert run.take(48 * 32 * 3) == enlarged(raw_frame(index))
        run.giver.close()
        result = run.ended()
    assert (result.frames, result.dropped, result.damaged) == (30, 0, None)
    assert result.delay.worst_frames <= 1  # given while the frame before was being counted


@pytest.mark.parametrize("codec", ["h264", "hevc", "av1", "ffv1"])
def test_each_encoder_gives_a_packet_for_each_frame_at_once(codec: str) -> None:
    settings = {"codec": codec, "stream_format": "nut", "raw_size": "64x64"}
    settings |= {"preset": "ultrafast"} if codec in ("h264", "hevc") else {}
    frame = bytes(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
    with Through(**{**RAW, **settings}) as run:
        # What comes out is read by another thread, or the pipe would be full some day.
        drain = threading.Thread(target=run.taker.read)
        drain.start()
        for _ in range(6):
            run.giver.write(frame)
        run.giver.close()
        result = run.ended()
        drain.join(10)
    assert result.frames == 6
    assert result.delay.worst_frames <= IN_FLIGHT


def test_a_packet_is_out_before_the_next_frame_comes() -> None:
    frames, whole = [raw_frame(index) for index in range(8)], io.BytesIO()
    with feeding(b"".join(frames)) as source:
        run_live(source, whole, **RAW, **FFV1)
    with av.open(io.BytesIO(whole.getvalue())) as container:
        ends = [p.pos + p.size for p in container.demux() if p.size and p.pos is not None]
    assert len(ends) == len(frames)
    with Through(**RAW, **FFV1) as run:
        got = b""
        for frame, end in zip(frames, ends, strict=True):
            run.giver.write(frame)
            got += run.take(end - len(got))
        run.giver.close()
        assert got + run.taker.read() == whole.getvalue()


def test_the_first_line_of_y4m_says_what_follows(tmp_path: Path) -> None:
    settings = {"raw_input": "yuv420p", "raw_size": "6x4", "raw_fps": "30000/1001"}
    data = bytes(range(36)) * 2
    target = io.BytesIO()
    with feeding(data) as source:
        result = run_live(source, target, stream_format="auto", **settings)
    assert result.plan.form == "y4m"
    head, *frames = target.getvalue().split(b"FRAME\n")
    assert head == b"YUV4MPEG2 W12 H8 F30000:1001 Ip A1:1 C420mpeg2 XCOLORRANGE=LIMITED\n"
    assert [len(frame) for frame in frames] == [12 * 8 * 3 // 2] * 2
    again = io.BytesIO()
    with feeding(target.getvalue()) as source:  # and restore reads what it writes
        assert run_live(source, again, **FFV1).frames == 2
    assert [t for t, _ in frames_of(again.getvalue())] == pytest.approx([0, 1001 / 30000])


def test_sound_is_copied_in_time_with_the_picture(tmp_path: Path) -> None:
    source = write_clip(tmp_path / "in.mkv", frames=50, audio=True, seconds=2)
    for form in ("matroska", "nut"):
        _, data = piped(source, stream_format=form, codec="ffv1")
        assert sound_of(data) == sound_of(source.read_bytes())
        with av.open(io.BytesIO(data)) as container:
            ahead = {"audio": 0.0, "video": 0.0}
            for packet in container.demux():
                if packet.size:
                    ahead[packet.stream.type] = float(packet.pts * packet.time_base)
            assert ahead["video"] == pytest.approx(49 / 25)
    _, data = piped(source, audio=False, **FFV1)
    with av.open(io.BytesIO(data)) as container:
        assert not container.streams.audio


def test_aac_of_a_transport_stream_goes_into_matroska(tmp_path: Path) -> None:
    source = tmp_path / "in.ts"
    with av.open(str(source), "w") as output:
        video: Any = output.add_stream("mpeg2video", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        sound: Any = output.add_stream("aac", rate=16000, layout="mono")
        for index in range(20):
            silence = av.AudioFrame(format="fltp", layout="mono", samples=640)
            silence.planes[0].update(bytes(silence.planes[0].buffer_size))
            silence.sample_rate, silence.pts = 16000, 640 * index
            output.mux(sound.encode(silence))
            frame = av.VideoFrame(64, 48, "yuv420p")
            fill_grain(index, frame)
            frame.pts, frame.time_base = index, Fraction(1, 25)
            output.mux(video.encode(frame))
        output.mux(video.encode(None))
        output.mux(sound.encode(None))
    result, data = piped(source, codec="ffv1", stream_format="matroska")
    assert result.frames == 20
    with av.open(io.BytesIO(data)) as container:
        stream = container.streams.audio[0]
        assert (stream.rate, stream.channels) == (16000, 1)
        assert sum(frame.samples for frame in container.decode(stream)) >= 640 * 18


def test_sound_that_nobody_takes_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(live_sound, "WAITING_BYTES", 10_000)
    source = write_clip(tmp_path / "in.mkv", audio=True)
    with av.open(str(source)) as container, av.open(io.BytesIO(), "w", format="nut") as result:
        sound = Sound(container.streams.audio[0])
        sound.add_to(result, "nut")
        for _ in range(30):
            packet = av.Packet(bytes(1000))
            packet.time_base = sound.source.time_base
            sound.put(packet)
        taken = sound.take(None)
    assert len(taken) == 10
    assert "its oldest part is left out" in caplog.text


def test_a_thousand_frames_pass_with_few_in_memory() -> None:
    frames = [raw_frame(index) for index in range(1000)]
    most = 0

    def count(index: int) -> None:
        nonlocal most
        most = max(most, given[0] - index)

    given = [0]
    with Through(FakeRestorer(on_frame=count), **RAW, stream_format="rgb24") as run:

        def give() -> None:
            for frame in frames:
                run.giver.write(frame)
                given[0] += 1
            run.giver.close()

        giver = threading.Thread(target=give)
        giver.start()
        got = run.taker.read()
        giver.join()
        result = run.ended()
    assert result.frames == 1000
    assert got == b"".join(enlarged(frame) for frame in frames)
    # The pipe itself holds 64 KiB, and libavformat one read of it.
    in_pipe = 2 * (1 << 16) // len(frames[0])
    assert most <= in_pipe + IN_FLIGHT
    assert result.delay.worst_frames <= IN_FLIGHT + in_pipe


def test_a_slow_network_makes_the_giver_wait() -> None:
    size = {"raw_size": "192x120"}  # a frame fills the pipe
    frame = bytes(192 * 120 * 3)
    given = 0
    with Through(
        FakeRestorer(on_frame=slow(0.03)), **{**RAW, **size}, stream_format="rgb24"
    ) as run:
        drain = threading.Thread(target=run.taker.read)
        drain.start()
        begin = time.perf_counter()
        for _ in range(30):
            run.giver.write(frame)
            given += 1
        passed = time.perf_counter() - begin
        run.giver.close()
        result = run.ended()
        drain.join(10)
    assert (result.frames, result.dropped) == (given, 0)
    assert passed > (30 - IN_FLIGHT) * 0.03
    assert result.delay.worst_frames <= IN_FLIGHT


def test_with_drop_late_frames_are_left_out_and_counted() -> None:
    limit = 0.3
    with Through(
        FakeRestorer(on_frame=slow(0.05)), **RAW, stream_format="rgb24", drop=True, max_delay=limit
    ) as run:
        drain = threading.Thread(target=run.taker.read)
        drain.start()
        for index in range(120):
            run.giver.write(raw_frame(index))
            time.sleep(0.01)
        run.giver.close()
        result = run.ended()
        drain.join(10)
    assert result.frames + result.dropped == 120
    assert result.dropped > 20
    assert result.frames > 5
    # One frame of 0.05 s more than the estimate, on a busy machine, and then some.
    assert result.delay.worst_ms < 1000 * limit + 400


def test_a_frame_later_than_asked_is_said_but_not_dropped(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with feeding(b"".join(map(raw_frame, range(5)))) as source:
        result = run_live(
            source,
            io.BytesIO(),
            FakeRestorer(on_frame=slow(0.02)),
            **RAW,
            max_delay=0.01,
            stream_format="rgb24",
        )
    assert (result.frames, result.dropped) == (5, 0)
    assert caplog.text.count("later than --max-delay 0.01") == 1


def test_a_reader_that_leaves_ends_the_run_with_one_line() -> None:
    with Through(FakeRestorer(on_frame=slow(0.01)), **RAW, stream_format="rgb24") as run:
        for index in range(3):
            run.giver.write(raw_frame(index))
        run.taker.read(100)
        run.taker.close()
        with pytest.raises(BrokenPipeError):
            for index in range(10_000):
                run.giver.write(raw_frame(index))
    assert isinstance(run.error, OutputError)
    assert "the reader of the stream has left after" in str(run.error)


@pytest.mark.parametrize("form", ["nut", "matroska", "mpegts"])
def test_a_reader_that_leaves_an_encoded_stream_does_too(form: str, tmp_path: Path) -> None:
    source = write_clip(tmp_path / "in.nut", codec="ffv1", frames=40, fill=fill_grain)
    reading, writing = os.pipe()
    os.close(reading)
    with (
        os.fdopen(writing, "wb", buffering=0) as target,
        feeding(source.read_bytes()) as pipe,
        pytest.raises(OutputError, match="the reader of the stream has left"),
    ):
        run_live(pipe, target, stream_format=form, preset="ultrafast")


@pytest.mark.parametrize("interruption", [KeyboardInterrupt(), SystemExit(143), RuntimeError("x")])
def test_what_is_restored_goes_out_when_a_run_is_broken_off(
    tmp_path: Path, interruption: BaseException
) -> None:
    source = write_clip(tmp_path / "in.mkv", frames=30, audio=True)
    target = io.BytesIO()
    with feeding(source.read_bytes()) as pipe, pytest.raises(type(interruption)):
        run_live(pipe, target, FakeRestorer(on_frame=at(10, lambda: fail(interruption)())), **FFV1)
    assert len(frames_of(target.getvalue())) == 10


def test_a_run_waiting_for_input_can_be_broken_off(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb", buffering=0) as source:
        os.write(writing, raw_frame(0))  # and then nothing more comes
        begin = time.perf_counter()
        with pytest.raises(KeyboardInterrupt):
            run_live(source, io.BytesIO(), FakeRestorer(on_frame=fail(KeyboardInterrupt())), **RAW)
        assert time.perf_counter() - begin < 5
    os.close(writing)


@pytest.mark.parametrize(("suffix", "keep"), [("mkv", 0.7), ("nut", 0.7), ("y4m", 0.55)])
def test_of_an_input_that_breaks_off_what_came_is_restored(
    tmp_path: Path, suffix: str, keep: float
) -> None:
    if suffix == "y4m":
        source = tmp_path / "in.y4m"
        frame = b"FRAME\n" + bytes(64 * 48 * 3 // 2)
        source.write_bytes(b"YUV4MPEG2 W64 H48 F25:1\n" + 12 * frame)
    else:
        source = write_clip(tmp_path / f"in.{suffix}", codec="ffv1", frames=12, fill=fill_grain)
    assert piped(source, **FFV1)[0].damaged is None
    result, data = piped(cut(source, keep), **FFV1)
    assert (
        result.damaged is not None and f"breaks off after {result.frames} frames" in result.damaged
    )
    assert 4 <= result.frames < 12
    assert len(frames_of(data)) == result.frames


def test_a_raw_frame_that_is_cut_is_said() -> None:
    target = io.BytesIO()
    with feeding(raw_frame(0) + raw_frame(1) + raw_frame(2)[:500]) as source:
        result = run_live(source, target, **RAW, stream_format="rgb24")
    assert result.frames == 2
    assert result.damaged == ("it breaks off after 2 frames: its last frame has 500 bytes only")


@pytest.mark.parametrize("settings", [{}, RAW, {"input_format": "mpegts"}])
def test_an_empty_input_is_said(settings: dict[str, Any]) -> None:
    target = io.BytesIO()
    with feeding(b"") as source, pytest.raises(InputError, match=r"is empty \(0 bytes\)"):
        run_live(source, target, **settings)
    assert target.getvalue() == b""


def test_what_is_no_video_is_refused(tmp_path: Path) -> None:
    with feeding(b"no video at all\n" * 5000) as source, pytest.raises(InputError):
        run_live(source, io.BytesIO())
    with feeding(raw_frame(0)[:99]) as source, pytest.raises(InputError, match="no frame"):
        run_live(source, io.BytesIO(), **RAW)
    with pytest.raises(InputError, match="does not exist"):
        run_live(tmp_path / "none.mkv", io.BytesIO())


def test_a_file_is_streamed_into_a_file(tmp_path: Path) -> None:
    source = write_clip(tmp_path / "in.mp4", frames=6)
    target = tmp_path / "out.ts"
    result = run_live(source, target, preset="ultrafast")
    assert (result.frames, result.plan.form) == (6, "mpegts")
    assert len(video_frames(target)) == 6
    with pytest.raises(OutputError, match="already there"):
        run_live(source, target)
    with pytest.raises(OptionError, match="prores video does not fit mpegts"):
        run_live(source, target, codec="prores", overwrite=True)


def test_uneven_times_are_said_where_they_cannot_be_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = write_clip(tmp_path / "in.mkv", times=UNEVEN)
    result, data = piped(source, stream_format="y4m")
    assert result.frames == data.count(b"FRAME\n") == len(UNEVEN)
    assert caplog.text.count("frames come at uneven times") == 1


def test_key_frames_come_every_second(tmp_path: Path) -> None:
    info = probe(write_clip(tmp_path / "in.mkv"))
    spec = choose_encoder(LiveConfig(stream=True), info, width=64, height=48)
    assert low_delay_options(spec) == {"tune": "zerolatency", "g": "25"}


def test_the_median_and_the_worst_delay_are_told() -> None:
    delays = Delays()
    assert delays.so_far().worst_ms == 0
    for number in range(1, 102):
        delays.add(number / 10, number % 3)
    told = delays.so_far()
    assert told.median_ms == pytest.approx(5100, rel=0.01)
    assert told.worst_ms == pytest.approx(10_100)
    assert (told.median_frames, told.worst_frames) == (1, 2)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"output": "-"}, "-o - is a stream: add --stream"),
        ({"drop": True}, "--drop belongs to --stream"),
        ({"raw_input": "rgb24"}, "--raw-input belongs to --stream"),
        ({"stream": True, "resume": True}, "--resume needs a whole clip"),
        ({"stream": True, "json": True}, "both the stream and --json want stdout"),
        ({"stream": True, "max_delay": 0.0}, "max delay 0 is not possible"),
        ({"stream": True, "raw_size": "4x4"}, "add --raw-input"),
        ({"stream": True, "raw_input": "rgb24"}, "give --size 640x360 --fps 25"),
        ({"stream": True, **RAW, "raw_fps": "0"}, "fps '0' is not possible"),
        ({"stream": True, **RAW, "raw_size": "4"}, "size '4' is not a size"),
        ({"stream": True, **RAW, "input_format": "nut"}, "give one of them"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        LiveConfig(**settings)


def test_sizes_and_rates_as_people_write_them() -> None:
    assert parse_size("640X360") == (640, 360)
    assert parse_rate("30000/1001") == Fraction(30000, 1001)
    assert parse_rate("23.976") == Fraction(23976, 1000)


def test_what_others_print_stays_out_of_the_stream() -> None:
    code = (
        "import os\n"
        "from restore.video.live_pipe import taken_stdout\n"
        "with taken_stdout() as stream:\n"
        "    print('said', flush=True)\n"
        "    os.write(1, b'written')\n"
        "    stream.write(b'frames')\n"
        "print('after')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60)
    assert done.stdout == b"framesafter\n"
    assert done.stderr == b"said\nwritten"


def test_the_network_in_the_package_gives_the_frames_of_the_file_mode(tmp_path: Path) -> None:
    restorer = restore.load("compact-fast", scale=2, device="cpu", dtype="fp32")
    source = write_clip(tmp_path / "in.mkv", frames=5, fill=fill_grain)
    settings: dict[str, Any] = {"restorer": restorer, "codec": "ffv1"}
    whole = restore.restore_video(source, tmp_path / "whole.mkv", **settings)
    target = io.BytesIO()
    with feeding(source.read_bytes()) as pipe:
        assert restore.restore_stream(pipe, target, stream_format="nut", **settings).frames == 5
    wanted = video_frames(whole.path)
    for (_, frame), (_, other) in zip(frames_of(target.getvalue()), wanted, strict=True):
        np.testing.assert_array_equal(frame, other)
