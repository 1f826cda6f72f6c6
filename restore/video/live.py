"""`restore_stream`: frames in, restored frames out, with little delay and without an end in sight.

    reader thread           main thread              writer thread
    input -> frames, cuts -> [queue] -> FrameStream -> [queue] -> encoder -> output
         \\-> sound ---------------------------------------------/

Each queue holds one frame, so that the delay is bounded whatever the input's pace is. What ends a
run early, an error or Ctrl-C, lets go out what is restored already and ends the stream properly.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, TimeoutError
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from restore.config import EngineConfig
from restore.errors import DamagedTailError, OptionError, OutputError
from restore.live_config import DEFAULT_DELAY, STANDARD, LiveConfig
from restore.streaming import FrameStream
from restore.tags import tags_of
from restore.video.live_input import LiveFrame, LiveInput, open_input, source_name
from restore.video.live_output import EncodedOutput, Output, PlainOutput, Ready
from restore.video.live_pipe import OutputPipe, Readable, Writable, opened_target
from restore.video.live_plan import LivePlan, PlainSpec, plan_live
from restore.video.live_queue import Delay, Delays, FrameQueue
from restore.video.live_sound import Sound, sound_streams
from restore.video.pipeline import Channel, StoppedError
from restore.video.scenes import mark_cuts

if TYPE_CHECKING:
    from restore.engine import Restorer

log = logging.getLogger("restore.video")

_GROUP = 8  # results of a method that gives them in groups may wait for the writer together
_POLL = 0.5  # seconds: Windows delivers Ctrl-C only between waits
_TELL = 0.2  # seconds between two progress reports
_PATIENCE = 10.0  # seconds that the writer gets to end a stream that is broken off


@dataclass(frozen=True, kw_only=True, slots=True)
class LiveProgress:
    """How a live run goes."""

    frames: int
    """Frames that went out."""
    dropped: int
    """Frames that were left out as they would have been too late."""
    fps: float
    """Frames that went out per second, from the first one on."""
    delay: Delay
    """Of the frames that went out."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LiveResult:
    """What a live run did."""

    frames: int
    """Frames that went out."""
    dropped: int
    """Frames that were left out as they would have been too late; 0 without `drop`."""
    width: int
    """Width of the result in pixels."""
    height: int
    """Height of the result in pixels."""
    seconds: float
    """Time that the run took, waiting for input included."""
    network_seconds: float
    """Part of it that was spent in the restorer."""
    fps: float
    """Frames that went out per second, from the first one on."""
    cuts: int
    """Scene cuts."""
    delay: Delay
    """From the arrival of a frame to its going out; before the network is loaded none counts."""
    damaged: str | None
    """Where and why the input broke off; None = it did not."""
    plan: LivePlan
    """What was decided when the first frame had come."""


@dataclass(kw_only=True, slots=True)
class _Tally:
    """What the threads count; each field has one writer."""

    delays: Delays = dataclasses.field(default_factory=Delays)
    written: int = 0
    first: float = 0.0
    last: float = 0.0
    network_seconds: float = 0.0
    cuts: int = 0
    damaged: str | None = None

    @property
    def fps(self) -> float:
        """Frames per second between the first and the last one that went out."""
        passed = self.last - self.first
        return (self.written - 1) / passed if passed > 0 else 0.0


def restore_stream(
    source: str | Path | Readable = STANDARD,
    target: str | Path | Writable | None = None,
    *,
    config: LiveConfig | None = None,
    restorer: Restorer | None = None,
    progress: Callable[[LiveProgress], None] | None = None,
    **settings: Any,
) -> LiveResult:
    """Restore a video while it comes in.

    The frames are those of `restore_video`, with their time stamps; sound is copied. Nothing waits
    longer than it must: at most one frame before and one behind the network, one in the hands of
    reader and writer each, and those that the method itself asks for.

    Args:
        source: `-` for stdin, a file, a device or an address that FFmpeg reads, or a binary object
            with `read`, which should give what is there instead of waiting for more.
        target: `-` for stdout, a file, or a binary object with `write`; default `config.output`,
            else stdout.
        config: settings; default those of the command line with `--stream`.
        restorer: a loaded method; default: the one that the settings name.
        progress: called at most five times a second, and at the end, on the calling thread.
        settings: fields of `LiveConfig` to change, such as `scale=2` or `stream_format="nut"`.

    Raises:
        InputError: the input is empty or not a video.
        OptionError: a setting is outside what is allowed, or does not fit the input.
        OutputError: the result cannot be written, or its reader is gone.
    """
    begin = time.perf_counter()
    config = _merged(config, settings)
    goal = target if target is not None else config.output or STANDARD
    run = _Run(source, config, progress)
    with opened_target(goal, overwrite=config.overwrite) as file:
        name = Path(goal) if isinstance(goal, str | Path) and goal != STANDARD else None
        plan = run.work(OutputPipe(file), name, restorer)
    tally = run.tally
    return LiveResult(
        frames=tally.written,
        dropped=run.queue.dropped,
        width=plan.spec.width,
        height=plan.spec.height,
        seconds=time.perf_counter() - begin,
        network_seconds=tally.network_seconds,
        fps=tally.fps,
        cuts=tally.cuts,
        delay=tally.delays.so_far(),
        damaged=tally.damaged,
        plan=plan,
    )


class _Run:
    """The three threads of a run and what they share."""

    def __init__(
        self,
        source: str | Path | Readable,
        config: LiveConfig,
        progress: Callable[[LiveProgress], None] | None,
    ) -> None:
        self.tally = _Tally()
        self.queue = FrameQueue(limit=(config.max_delay or DEFAULT_DELAY) if config.drop else None)
        self._source, self._config, self._progress = source, config, progress
        self._stop = threading.Event()
        self._clip: Future[LiveInput] = Future()
        self._chosen = threading.Event()  # the sound to pass on is chosen
        self._loaded = 0.0  # when the network was ready
        self._late = False
        self._told = 0.0
        self._ready: Channel[Ready] = Channel(items=1)

    def work(self, pipe: OutputPipe, name: Path | None, restorer: Restorer | None) -> LivePlan:
        """Do all of it."""
        reader = _started(self._read, "restore-read")
        writer: threading.Thread | None = None
        try:
            clip = self._opened_clip()
            scale = None if restorer is None else restorer.spec.scale
            plan = plan_live(clip.info, self._config, name=name, scale=scale)
            for warning in plan.warnings:
                log.warning("%s", warning)
            output = self._output(clip, plan, pipe)
            self._chosen.set()
            restorer = restorer or _load(plan.config)
            if (tags := tags_of(plan.config, restorer.spec)) is not None:
                restorer.tune(tags=tags.of(Path(source_name(self._source)).stem))
            if restorer.spec.streaming:
                self._ready = Channel(items=_GROUP)
            self._loaded = time.perf_counter()
            writer = _started(lambda: self._write(output), "restore-write")
            self._restore(restorer, plan)
            self._ready.end()
            _join(writer)
            self._ready.check()
            _join(reader)
            self._tell(now=True)
        except BaseException as error:
            self._leave(reader, writer)
            self._tell(now=True)
            if isinstance(error, BrokenPipeError | ConnectionResetError):
                raise OutputError(
                    f"the reader of the stream has left after {self.tally.written} frames; "
                    "start it again together with restore"
                ) from error
            raise
        return plan

    def _leave(self, reader: threading.Thread, writer: threading.Thread | None) -> None:
        """Stop the input, and let the writer end what it has; it may be stuck, so not for ever."""
        self._stop.set()
        self._chosen.set()
        self.queue.fail(StoppedError())
        self._ready.end()
        if writer is not None:
            writer.join(_PATIENCE)
        reader.join(1.0)

    def _opened_clip(self) -> LiveInput:
        while True:
            with contextlib.suppress(TimeoutError):
                return self._clip.result(_POLL)

    def _read(self) -> None:
        """Body of the reader thread."""
        clip: LiveInput | None = None
        try:
            clip = open_input(self._source, self._config, self._stop)
            self._clip.set_result(clip)
            self._chosen.wait()
            frames = mark_cuts(
                self._wanted(clip),
                lambda item: item.frame.rgb,
                threshold=self._config.scene_threshold,
            )
            for frame, cut in frames:
                self.queue.put(frame, cut=cut)
        except DamagedTailError as error:
            self.tally.damaged = str(error)
        except BaseException as error:
            if self._clip.done():
                self.queue.fail(error)
            else:
                self._clip.set_exception(error)
        finally:
            self.queue.end()
            if clip is not None:
                clip.close()

    def _wanted(self, clip: LiveInput) -> Iterator[LiveFrame]:
        for frame in clip.frames():
            if self._stop.is_set():
                return
            yield frame

    def _output(self, clip: LiveInput, plan: LivePlan, pipe: OutputPipe) -> Output:
        if self._config.audio:
            streams = sound_streams(clip.audio, plan.form)
            clip.sound = [Sound(stream, clip.head_of(stream)) for stream in streams]
        done = self._done(clip)
        if isinstance(plan.spec, PlainSpec):
            return PlainOutput(pipe, plan.spec, on_out=done)
        return EncodedOutput(pipe, plan.spec, plan.form, sound=clip.sound, on_out=done)

    def _restore(self, restorer: Restorer, plan: LivePlan) -> None:
        """Frames through the network, on the calling thread."""
        config, spec = plan.config, plan.spec
        stream = FrameStream(restorer, size=(spec.width, spec.height), temporal=config.temporal)
        inside: dict[int, tuple[LiveFrame, float]] = {}

        def step(call: Callable[..., list[tuple[int, Any]]], *given: object) -> None:
            begin = time.perf_counter()
            results = call(*given)
            self.tally.network_seconds += time.perf_counter() - begin
            for index, rgb in results:
                item, taken = inside.pop(index)
                frame = item.frame
                ready = Ready(
                    pts=frame.pts,
                    duration=frame.duration,
                    arrival=item.arrival,
                    taken=taken,
                    rgb=rgb,
                )
                self._ready.put(ready, size=rgb.numel() * rgb.element_size())
                self._tell()

        for item, cut in self.queue:
            if cut:
                self.tally.cuts += 1
                step(stream.flush)
                stream.reset()
            frame = item.frame
            taken = time.perf_counter()
            inside[frame.index] = _without_picture(item), taken
            step(stream.push, frame.rgb, frame.index)
        step(stream.flush)

    def _write(self, output: Output) -> None:
        """Body of the writer thread."""
        try:
            for frame in self._ready:
                output.write(frame)
            output.finish()
        except BaseException as error:
            self._ready.fail(error)
            self._stop.set()
            self.queue.fail(error)  # the network may be waiting for a frame that never comes
            output.abort()

    def _done(self, clip: LiveInput) -> Callable[[Ready], None]:
        """What the output calls with each frame that went out."""
        limit = self._config.max_delay

        def note(frame: Ready) -> None:
            now, tally = time.perf_counter(), self.tally
            delay = now - max(frame.arrival.seconds, self._loaded)
            tally.delays.add(delay, clip.arrived - frame.arrival.number)
            self.queue.note_cost(now - frame.taken)
            tally.first = tally.first if tally.written else now
            tally.last = now
            tally.written += 1
            if limit is not None and delay > limit and not self._late:
                self._late = True
                log.warning(
                    "a frame came out %.2f s late, later than --max-delay %g: a smaller model "
                    "(-n compact-fast) or --scale is faster, --drop leaves frames out",
                    *(delay, limit),
                )

        return note

    def _tell(self, *, now: bool = False) -> None:
        if self._progress is not None and (now or time.monotonic() - self._told > _TELL):
            self._told = time.monotonic()
            tally = self.tally
            self._progress(
                LiveProgress(
                    frames=tally.written,
                    dropped=self.queue.dropped,
                    fps=tally.fps,
                    delay=tally.delays.so_far(),
                )
            )


def _merged(config: LiveConfig | None, settings: dict[str, Any]) -> LiveConfig:
    known = {field.name for field in dataclasses.fields(LiveConfig)}
    unknown = sorted(settings.keys() - known)
    if unknown:
        raise OptionError(f"unknown setting '{unknown[0]}'; allowed: {', '.join(sorted(known))}")
    return dataclasses.replace(config or LiveConfig(stream=True), **{"stream": True, **settings})


def _load(config: LiveConfig) -> Restorer:
    from restore.engine import load

    return load(**{f.name: getattr(config, f.name) for f in dataclasses.fields(EngineConfig)})


def _started(body: Callable[[], None], name: str) -> threading.Thread:
    thread = threading.Thread(target=body, name=name, daemon=True)
    thread.start()
    return thread


def _join(thread: threading.Thread) -> None:
    while thread.is_alive():
        thread.join(_POLL)


def _without_picture(item: LiveFrame) -> LiveFrame:
    """What is kept of a frame while the network has it."""
    frame = dataclasses.replace(item.frame, rgb=item.frame.rgb.new_empty(0))
    return dataclasses.replace(item, frame=frame)
