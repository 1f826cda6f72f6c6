"""How steady a restored clip is, beside bicubic and beside each frame restored by itself.

E is the mean square of O(t) - W(O(t-1)) over the pixels that are visible in both frames and over
the colour channels, where W moves a result along the motion of the *input* clip (Lai et al.,
"Learning Blind Video Temporal Consistency", ECCV 2018). The motion is that of dense
inverse search at full size, finer than what the program itself uses; a pixel is visible where the
motions there and back agree and no border between motions runs (Sundaram et al., ECCV 2010). E is
given times 10,000, for values in [0, 1]. A blurred clip is steady as well, so its sharpness stands
beside it: the mean length of the gradient, in levels of 255. The exit status is 1 when a stream's
error is more than --limit percent above that of bicubic.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from common import machine, parser, table
from torch import Tensor

import restore
from restore.degradations.codec import through_codec
from restore.errors import RestoreError
from restore.metrics.temporal import Motion, motion_between, sharpness, warping_step
from restore.resampling import resample
from restore.streaming import FrameStream

EXAMPLES = (
    "python benchmarks/flicker.py ../shared/data/video --only bottle cockatoo running_car",
    "python benchmarks/flicker.py in.mp4 --models compact-fast --scales 2 --crop 320x180",
    "python benchmarks/flicker.py in.mp4 --noise 12 --crf 32 --fidelity 1",
    "python benchmarks/flicker.py in.mp4 --models dloral --scales 4 --tags 'a bird' --frames 8",
)
SUFFIXES = (".mp4", ".mkv", ".mov", ".webm", ".avi", ".m4v", ".ts")


@dataclass(kw_only=True, slots=True)
class Score:
    """Sums over the frames of one result."""

    errors: list[float] = field(default_factory=list)
    """E of each frame but the first."""
    gradients: list[float] = field(default_factory=list)
    """Sharpness of each frame but the first."""

    @property
    def error(self) -> float:
        """Mean warping error, times 10,000."""
        return 1e4 * float(np.nanmean(self.errors))

    @property
    def sharpness(self) -> float:
        """Mean length of the gradient, in levels of 255."""
        return float(np.mean(self.gradients))


def read(path: Path, *, first: int, count: int, crop: str | None) -> Tensor:
    """Frames `(T, 3, H, W)` in [0, 1], of even sides."""
    frames = []
    with av.open(str(path)) as container:
        for frame in itertools.islice(container.decode(video=0), first, first + count):
            rgb = torch.from_numpy(frame.to_ndarray(format="rgb24"))
            frames.append(rgb.permute(2, 0, 1).float() / 255)
    if len(frames) < 2:
        raise RestoreError(f"{path} has {len(frames)} frames from number {first} on; 2 are needed")
    clip = torch.stack(frames)
    height, width = (side // 2 * 2 for side in clip.shape[-2:])
    if crop is not None:
        across, down = (int(side) for side in crop.lower().split("x"))
        height, width = min(height, down), min(width, across)
    top, left = (clip.shape[-2] - height) // 2, (clip.shape[-1] - width) // 2
    return clip[..., top : top + height, left : left + width].contiguous()


def measure(results: Iterable[Tensor], motions: list[Motion], *, scale: int) -> Score:
    """Score of results `(3, s H, s W)`, one for each frame of the input."""
    score, last = Score(), None
    for number, result in enumerate(results):
        if last is not None:
            error = warping_step(result, last, motions[number - 1], scale=scale)
            score.errors.append(error)
            score.gradients.append(sharpness(result))
        last = result
    return score


def bicubic(clip: Tensor, scale: int) -> Iterator[Tensor]:
    """Frames enlarged without a network."""
    size = (scale * clip.shape[-1], scale * clip.shape[-2])
    for frame in clip:
        yield resample(frame, size)


def streamed(
    restorer: restore.Restorer, clip: Tensor, *, scale: int, temporal: bool
) -> Iterator[Tensor]:
    """Frames as `restore video` makes them."""
    size = (scale * clip.shape[-1], scale * clip.shape[-2])
    stream = FrameStream(restorer, size=size, temporal=temporal)
    for index, frame in enumerate(clip):
        for _, result in stream.push(frame, index):
            yield result
    for _, result in stream.flush():
        yield result


def rows_of(
    name: str, clip: Tensor, options: argparse.Namespace
) -> Iterator[tuple[list[str], bool]]:
    """Table rows of one clip, each with whether it keeps to the limit."""
    motions = [motion_between(clip[i], clip[i - 1]) for i in range(1, len(clip))]
    seen = float(torch.cat([motion.visible for motion in motions]).mean())
    length = float(torch.cat([motion.flow.norm(dim=1) for motion in motions]).median())
    facts = f"{name}, {len(clip)} frames {clip.shape[-1]}x{clip.shape[-2]}"
    facts += f", {100 * seen:.0f} % visible, median motion {length:.1f}"
    for scale in options.scales:
        base = measure(bicubic(clip, scale), motions, scale=scale)
        yield row(facts, scale, "bicubic", base, base), True
        for model, fidelity in itertools.product(options.models, options.fidelity):
            wanted = {"fidelity": fidelity, "base": options.base, "tags": options.tags}
            settings: Any = {name: value for name, value in wanted.items() if value is not None}
            restorer = restore.load(
                model, scale=scale, weights=options.weights, device=options.device, **settings
            )
            label = f"{model}" + ("" if fidelity is None else f" --fidelity {fidelity:g}")
            for temporal in (False, True):
                results = streamed(restorer, clip, scale=scale, temporal=temporal)
                score = measure(results, motions, scale=scale)
                kind = f"{label}, {'stream' if temporal else 'frame by frame'}"
                kept = not temporal or score.error <= (1 + options.limit / 100) * base.error
                yield row(facts, scale, kind, score, base), kept


def row(clip: str, scale: int, kind: str, score: Score, base: Score) -> list[str]:
    """One line of the table."""
    more = 100 * (score.error / base.error - 1)
    sharper = 100 * (score.sharpness / base.sharpness - 1)
    cells = [f"{score.error:.3f}", f"{more:+.0f} %", f"{score.sharpness:.3f}", f"{sharper:+.0f} %"]
    return [clip, f"x{scale}", kind, *cells]


def clips_of(options: argparse.Namespace) -> Iterator[tuple[str, Tensor]]:
    """The clips by name; with --noise a noisy, coded copy of each as well."""
    for path in options.clips:
        files = [path]
        if path.is_dir():
            files = sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES)
            files = [p for p in files if not options.only or p.stem.startswith(tuple(options.only))]
        for file in files:
            clip = read(file, first=options.first, count=options.frames, crop=options.crop)
            if options.noise is None:
                yield file.stem, clip
                continue
            generator = torch.Generator().manual_seed(options.seed)
            noise = torch.randn(clip.shape, generator=generator) * options.noise / 255
            noisy = through_codec((clip + noise).clamp(0, 1), "h264", crf=options.crf)
            yield f"{file.stem}, noise {options.noise:g}, crf {options.crf:g}", noisy


def arguments() -> argparse.Namespace:
    """The command line."""
    take = parser(__doc__, examples=EXAMPLES)
    take.add_argument("clips", type=Path, nargs="+", metavar="CLIP", help="clips, or their folder")
    take.add_argument(
        "--only", nargs="*", metavar="NAME", help="of a folder: names begin like this"
    )
    take.add_argument("--frames", type=int, default=40, help="frames of each clip (default 40)")
    take.add_argument("--first", type=int, default=0, help="number of the first one (default 0)")
    take.add_argument("--crop", metavar="WxH", help="only the middle of each frame")
    take.add_argument("--models", nargs="*", default=["compact", "compact-fast"], metavar="NAME")
    take.add_argument("--scales", nargs="+", type=int, default=[2, 4], metavar="S")
    take.add_argument(
        "--fidelity", nargs="+", type=float, default=[None], metavar="F", help="such as 1 0"
    )
    take.add_argument("--weights", metavar="FILE", help="instead of the models' own")
    take.add_argument("--base", metavar="PATH", help="folder that the models stand on")
    take.add_argument("--tags", metavar="TEXT", help="tags of the clips; no tagger is run")
    take.add_argument("--device", default="auto")
    take.add_argument("--noise", type=float, metavar="LEVELS", help="add noise and code as H.264")
    take.add_argument("--crf", type=float, default=30, help="quality of that (default 30)")
    take.add_argument("--seed", type=int, default=0, help="of the noise (default 0)")
    take.add_argument("--limit", type=float, default=10, help="percent over bicubic (default 10)")
    return take.parse_args()


def main() -> int:
    """0 = all streams are steady, 1 = one is not, 2 = a clip or an option is of no use."""
    options = arguments()
    rows, steady = [], True
    try:
        with torch.inference_mode():
            for name, clip in clips_of(options):
                for cells, kept in rows_of(name, clip, options):
                    print(*cells, sep=" | ", file=sys.stderr)
                    rows.append(cells)
                    steady &= kept
    except (RestoreError, OSError, av.FFmpegError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(machine())
    print()
    header = ("clip", "scale", "result", "E x 10^4", "over bicubic", "sharpness", "over bicubic")
    print(table(header, rows))
    return 0 if steady else 1


if __name__ == "__main__":
    sys.exit(main())
