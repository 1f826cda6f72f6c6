"""`restore_video`: one clip in, one clip out, resumable at every moment."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import av

from restore.config import EngineConfig, VideoConfig
from restore.durations import parse_time
from restore.errors import InputError, OutputError, RestoreError
from restore.streaming import FrameStream
from restore.tags import tags_of
from restore.video import pipeline
from restore.video.decode import Frame, decode
from restore.video.journal import Ending, Journal, fingerprint
from restore.video.mux import Join, join
from restore.video.plan import VideoPlan, merged_config, plan_passage, plan_video
from restore.video.scenes import LOOKBACK, mark_cuts
from restore.video.segments import SegmentSink, read_timing
from restore.video.stamp import frames_of_finished, make_stamp
from restore.video.workfolder import WorkFolder, writing

if TYPE_CHECKING:
    from restore.engine import Restorer

log = logging.getLogger("restore.video")

Stage = Literal["restore", "join"]

_SPEED_FRAMES = 32  # the speed shown is that of the latest frames


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoProgress:
    """How far a job is."""

    frames_done: int
    """Frames restored, those of an earlier run included."""
    frames_total: int | None
    """Frames of the clip as far as the file says; None = it does not."""
    fps: float
    """Frames restored per second of late; 0 before the second one."""
    eta_seconds: float | None
    """Seconds to go; None = unknown."""
    stage: Stage
    """restore: frames are restored; join: the result is put together."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoResult:
    """What a job did."""

    path: Path
    """The file that was written."""
    frames: int
    """Frames in it; 0 for a dry run."""
    width: int
    """Width of the result in pixels."""
    height: int
    """Height of the result in pixels."""
    seconds: float
    """Time that this run took."""
    network_seconds: float
    """Part of it that was spent in the restorer."""
    resumed_frames: int
    """Frames that were taken over from an earlier run."""
    cuts: int
    """Scene cuts found in this run."""
    warnings: tuple[str, ...]
    """What the user did not ask for and should know."""
    damaged: str | None
    """Where and why the input broke off; None = it is whole."""
    plan: VideoPlan
    """What was decided beforehand."""


def restore_video(
    src: str | Path,
    dst: str | Path | None = None,
    *,
    config: VideoConfig | None = None,
    restorer: Restorer | None = None,
    progress: Callable[[VideoProgress], None] | None = None,
    **settings: Any,
) -> VideoResult:
    """Restore a clip: every frame with its time stamp, sound and all else copied.

    Work is done in segments beside the result; after a crash or Ctrl-C the same call with
    `resume=True` goes on, and the result is frame for frame that of an undisturbed run.

    Args:
        src: the clip.
        dst: file or folder for the result; default `config.output`, else NAME_x4 beside the clip.
        config: settings; default those of the command line.
        restorer: a loaded method; default: the one that the settings name.
        progress: called after each frame, on the calling thread.
        settings: fields of `VideoConfig` to change, such as `scale=2` or `codec="hevc"`.

    Raises:
        InputError: the clip cannot be read.
        OptionError: a setting is outside what is allowed, or does not fit the clip.
        OutputError: the result cannot be written, its name is taken, or unfinished work of an
            earlier run is in the way.
    """
    begin = time.perf_counter()
    config = merged_config(config, settings)
    scale = None if restorer is None else restorer.spec.scale
    plan = plan_video(src, dst, config=config, scale=scale)
    if not config.resume:
        _check_name(plan)
    for warning in plan.warnings:
        log.warning("%s", warning)
    if config.dry_run:
        return _result(plan, begin, Ending(frames=0))
    with WorkFolder(plan.path) as work:
        previous = work.previous(resume=config.resume, overwrite=config.overwrite)
        if config.resume and (done := _finished(plan, work, previous)) is not None:
            return _result(plan, begin, done, resumed=done.frames)
        _check_name(plan)
        restorer = restorer or _load(plan.config, previous)
        if (tags := tags_of(plan.config, restorer.spec)) is not None:
            restorer.tune(tags=tags.of(plan.info.path.stem))
        work.begin(
            source=fingerprint(plan.info.path),
            settings=pixel_settings(plan, restorer),
            previous=previous,
        )
        resumed = work.journal.frames
        report = _Report(plan, progress, done=resumed)
        outcome = pipeline.Outcome()
        if work.journal.ending is None:
            outcome = _restore(plan, work, restorer, report)
        ending = work.journal.ending
        assert ending is not None
        report.stage("join")
        _join(plan, work, restorer)
        report.stage("join")
    return _result(plan, begin, ending, outcome=outcome, resumed=resumed)


class _Report:
    """Turns finished frames into `VideoProgress`."""

    def __init__(
        self, plan: VideoPlan, tell: Callable[[VideoProgress], None] | None, *, done: int
    ) -> None:
        self._tell = tell
        self._total = plan.frames
        self._done = done
        self._times: deque[float] = deque([time.perf_counter()], maxlen=_SPEED_FRAMES)

    def frame(self, index: int) -> None:
        """Frame `index` is restored."""
        self._done = index + 1
        self._times.append(time.perf_counter())
        self.stage("restore")

    def stage(self, stage: Stage) -> None:
        """Say how far the job is."""
        if self._tell is None:
            return
        if stage == "join":
            self._total = self._done
        passed = self._times[-1] - self._times[0]
        fps = (len(self._times) - 1) / passed if passed > 0 else 0.0
        left = None if self._total is None or fps == 0 else max(0, self._total - self._done) / fps
        self._tell(
            VideoProgress(
                frames_done=self._done,
                frames_total=self._total,
                fps=fps,
                eta_seconds=left,
                stage=stage,
            )
        )


def _check_name(plan: VideoPlan) -> None:
    if plan.path.exists() and not plan.config.overwrite:
        raise OutputError(
            f"{plan.path} is already there; give --overwrite to replace it, "
            "or another name with --output"
        )


def _finished(plan: VideoPlan, work: WorkFolder, previous: Journal | None) -> Ending | None:
    """How the frames ended when the result is complete already, else None.

    A run may be killed after it moved the file into place, and even after it cleaned up.
    """
    if previous is not None:
        if not work.delivered(previous):
            return None
        work.remove()
        return previous.ending
    frames = frames_of_finished(plan)
    return None if frames is None else Ending(frames=frames)


def _load(config: VideoConfig, previous: Journal | None) -> Restorer:
    """The method that the settings name, with the tile of the run to go on with."""
    from restore.engine import load

    fields = {field.name: getattr(config, field.name) for field in dataclasses.fields(EngineConfig)}
    if previous is not None and config.tile == 0:
        fields["tile"] = previous.settings.get("tile", 0)
    return load(**fields)


def pixel_settings(plan: VideoPlan, restorer: Restorer) -> dict[str, Any]:
    """Every setting that changes a pixel or a time stamp; a resumed run must repeat them."""
    config, spec = plan.config, plan.spec
    return {
        **restorer.settings(),
        "width": spec.width,
        "height": spec.height,
        "encoder": spec.encoder,
        "encoder_options": " ".join(f"{key}={value}" for key, value in spec.options),
        "pixel_format": spec.pix_fmt,
        "time_base": str(spec.time_base),
        "scene_threshold": config.scene_threshold,
        "segment": segment_length(config, restorer),
        "temporal": config.temporal and (restorer.spec.recurrent or restorer.spec.streaming),
        "start": None if config.start is None else parse_time(config.start),
        "end": None if config.end is None else parse_time(config.end),
        "libavcodec": ".".join(map(str, av.library_versions["libavcodec"])),
    }


def segment_length(config: VideoConfig, restorer: Restorer) -> int:
    """Frames between two points of resuming: as asked for, or what the method finds right."""
    if config.segment is not None:
        return config.segment
    spec, on_cpu = restorer.spec, restorer.device.type == "cpu"
    return spec.segment_on_cpu if on_cpu else spec.segment


def _restore(
    plan: VideoPlan, work: WorkFolder, restorer: Restorer, report: _Report
) -> pipeline.Outcome:
    """Run the frames that are not in finished segments through the network."""
    config, spec = plan.config, plan.spec
    first = work.journal.frames
    before = restorer.spec.frames_before
    lookback = LOOKBACK if config.scene_threshold > 0 else 0
    stream = FrameStream(restorer, size=(spec.width, spec.height), temporal=config.temporal)
    stream.restore_state(work.state())
    outcome = pipeline.run(
        mark_cuts(
            _frames(plan, work, lead_in=before + lookback),
            lambda frame: frame.rgb,
            threshold=config.scene_threshold,
        ),
        stream,
        SegmentSink(work, spec),
        segment=segment_length(config, restorer),
        first=first,
        lead_in=before,
        on_frame=report.frame,
    )
    frames = first + outcome.decoded
    if frames == 0:
        raise InputError(
            f"{plan.info.path} holds no frame"
            + (f" ({outcome.damaged})" if outcome.damaged else " in this range; check --start")
        )
    if not frames == first + outcome.restored == work.journal.frames:
        raise RestoreError(
            f"{frames} frames came in, but {work.journal.frames} went out: this is an error of "
            "restore; please report it with the clip"
        )
    work.end(Ending(frames=frames, damaged=outcome.damaged))
    return outcome


def _frames(plan: VideoPlan, work: WorkFolder, *, lead_in: int) -> Iterator[Frame]:
    """Frames to restore, after `lead_in` frames of what is finished already."""
    config = plan.config
    start = None if config.start is None else parse_time(config.start)
    end = None if config.end is None else parse_time(config.end)
    known: tuple[int, ...] = ()  # time stamps of the latest finished frames
    for segment in reversed(work.journal.segments):
        if len(known) > lead_in:
            break
        known = (*read_timing(work.path / segment.file, plan.spec).shown, *known)
    if not known:
        yield from decode(plan.info, start=start, end=end)
        return
    known = known[-1 - lead_in :]
    index = work.journal.frames - len(known)
    for frame in decode(
        plan.info, start=start, end=end, skip_until_pts=known[0], first_index=index
    ):
        place = frame.index - index
        if place < len(known) and frame.pts != known[place]:
            raise InputError(
                f"{plan.info.path} gives other frames than in the earlier run; "
                "give --overwrite without --resume to start again"
            )
        if place > 0 or lead_in:
            yield frame


def _join(plan: VideoPlan, work: WorkFolder, restorer: Restorer) -> None:
    journal = work.journal
    part = work.part("result" + plan.path.suffix)
    task = Join(
        source=plan.info.path,
        video=plan.info.stream_index,
        parts=tuple((work.path / segment.file, segment) for segment in journal.segments),
        spec=plan.spec,
        container=plan.container,
        passage=plan_passage(plan, journal),
        stamp=make_stamp(plan, restorer.settings(), journal),
    )
    try:
        with writing(part):
            written = join(task, part)
    except BaseException:
        part.unlink(missing_ok=True)  # of no use, and space may be what is missing
        raise
    if written != journal.frames:
        raise RestoreError(
            f"{journal.frames} frames were restored, but {written} joined: this is an error of "
            "restore; please report it with the clip"
        )
    work.deliver(part)


def _result(
    plan: VideoPlan,
    begin: float,
    ending: Ending,
    *,
    outcome: pipeline.Outcome | None = None,
    resumed: int = 0,
) -> VideoResult:
    outcome = outcome or pipeline.Outcome()
    return VideoResult(
        path=plan.path,
        frames=ending.frames,
        width=plan.spec.width,
        height=plan.spec.height,
        seconds=time.perf_counter() - begin,
        network_seconds=outcome.network_seconds,
        resumed_frames=resumed,
        cuts=outcome.cuts,
        warnings=plan.warnings,
        damaged=ending.damaged,
        plan=plan,
    )
