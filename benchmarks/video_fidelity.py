"""What a restored clip kept of its input: frames, times, sound, subtitles, chapters, colour tags.

Both files are read with PyAV and put side by side. A line that ends in LOST makes the exit
status 1. With --make, writes small clips of odd kinds to try the program on.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
from clip_facts import ClipFacts, Track, read_facts
from common import machine, parser, table
from odd_clips import make_all

EXAMPLES = (
    "python benchmarks/video_fidelity.py in.mp4 in_x4.mp4",
    "restore video in.mp4 -o out.mp4 --end 2",
    "python benchmarks/video_fidelity.py in.mp4 out.mp4 --prefix",
    "python benchmarks/video_fidelity.py --make odd",
)
UNSPECIFIED = {"primaries": 2, "transfer": 2, "matrix": 2, "range": 0}
RGB_MATRIX = 0
GRAY = (0, 0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """One row of the table."""

    item: str
    """What is compared."""
    before: object
    """In the input."""
    after: object
    """In the result."""
    verdict: str
    """same, changed, added, or LOST."""


def line(item: str, before: object, after: object, *, lost: bool, note: str = "") -> Line:
    """A row: LOST when `lost`, or else whether both are the same."""
    verdict = "LOST" if lost else "same" if before == after else "changed"
    return Line(item=item, before=before, after=after, verdict=f"{verdict} {note}".strip())


def compare(before: ClipFacts, after: ClipFacts, *, prefix: bool) -> list[Line]:
    """All rows.

    Args:
        before: the input.
        after: the result.
        prefix: the result holds only the beginning, so lengths are not compared.
    """
    lines = [*_timing(before, after, prefix), *_picture(before, after), *_color(before, after)]
    lines += _tracks(before.tracks, after.tracks, prefix)
    lines += _chapters(before, after, prefix)
    for key, value in before.metadata.items():
        kept = after.metadata.get(key, after.metadata.get(key.upper(), "-"))
        lines.append(line(f"metadata {key}", value, kept, lost=kept != value))
    return lines


def _timing(before: ClipFacts, after: ClipFacts, prefix: bool) -> Iterator[Line]:
    count, kept = len(before.times), len(after.times)
    yield line("frames", count, kept, lost=kept > count if prefix else kept != count)
    # Half a tick of the coarser clock is what rounding a time stamp to it may move.
    tolerance = max(before.tick, after.tick) / 2
    pairs = list(zip(before.times, after.times, strict=False))
    moved = [i for i, (a, b) in enumerate(pairs) if abs(a - b) > tolerance]
    if moved:
        i = moved[0]
        note = f"first at frame {i}, {len(moved)} in all"
        yield line("time stamps", seconds(pairs[i][0]), seconds(pairs[i][1]), lost=True, note=note)
    else:
        yield line("time stamps", f"{len(pairs)} read", f"{len(pairs)} read", lost=False)
    yield line(
        "start",
        seconds(before.times[0]),
        seconds(after.times[0]),
        lost=bool(moved and not moved[0]),
    )
    yield line("mean rate", before.rate, after.rate, lost=False)
    frame = (before.times[-1] - before.times[0]) / max(1, count - 1)
    lost = not prefix and _differ(before, after, tolerance=frame + Fraction(1, 20))
    yield line("duration", seconds(before.duration), seconds(after.duration), lost=lost)


def _differ(before: ClipFacts, after: ClipFacts, *, tolerance: Fraction) -> bool:
    """Whether the stated lengths disagree; some containers count from zero, some from the start."""
    if before.duration is None or after.duration is None:
        return False
    old = (before.duration, before.duration + before.times[0])
    new = (after.duration, after.duration + after.times[0])
    return all(abs(float(a - b)) > tolerance for a in old for b in new)


def _picture(before: ClipFacts, after: ClipFacts) -> Iterator[Line]:
    size, result = shown_size(before), shown_size(after)
    factors = (result[0] / size[0], result[1] / size[1])
    # Encoders of 4:2:0 need even sides: up to two samples may be added or taken.
    bent = abs(factors[0] - factors[1]) * min(size) > 2
    note = f"x{factors[0]:.3g}"
    yield line("shown size", "{}x{}".format(*size), "{}x{}".format(*result), lost=bent, note=note)
    # A turned picture that is stored upright has lost nothing, if its shown size follows.
    turned = before.rotation != after.rotation and after.rotation != 0
    yield line("rotation", before.rotation, after.rotation, lost=turned)
    aspects = before.sample_aspect, after.sample_aspect
    turned_aspect = aspects[0] if before.rotation % 180 == after.rotation % 180 else 1 / aspects[0]
    yield line("sample aspect", *aspects, lost=aspects[1] != turned_aspect)
    yield line("codec", before.codec, after.codec, lost=False)
    fewer_bits = after.bits < before.bits
    coarser = after.chroma[0] < before.chroma[0] or after.chroma[1] < before.chroma[1]
    yield line("pixel format", before.pix_fmt, after.pix_fmt, lost=fewer_bits or coarser)
    yield line("interlaced frames", before.interlaced, after.interlaced, lost=False)


def _color(before: ClipFacts, after: ClipFacts) -> Iterator[Line]:
    for tag, value in before.color.items():
        untagged = value == UNSPECIFIED[tag]
        if tag == "matrix":  # says nothing about gray, and cannot stay when RGB becomes YUV
            untagged |= value == RGB_MATRIX or before.chroma == GRAY
        lost = after.color[tag] != value and not untagged
        yield line(f"color {tag}", value, after.color[tag], lost=lost)
    missing = set(before.hdr) - set(after.hdr)
    if before.hdr or after.hdr:
        yield line("HDR data", ", ".join(before.hdr), ", ".join(after.hdr), lost=bool(missing))


def _tracks(before: tuple[Track, ...], after: tuple[Track, ...], prefix: bool) -> Iterator[Line]:
    """Other streams, matched in order within their kind."""
    for kind in dict.fromkeys(track.kind for track in (*before, *after)):
        old = [t for t in before if t.kind == kind]
        new = [t for t in after if t.kind == kind]
        for i in range(max(len(old), len(new))):
            a, b = (old[i] if i < len(old) else None), (new[i] if i < len(new) else None)
            yield _track(f"{kind} {i}", a, b, prefix)


def _track(item: str, a: Track | None, b: Track | None, prefix: bool) -> Line:
    if a is None:
        return Line(item=item, before="-", after=describe(b), verdict="added")
    if b is None:
        return line(item, describe(a), "-", lost=a.kind != "data")
    # A subtitle may be written in another container's way; sound is copied as it is.
    lost = b.language != a.language or (b.codec != a.codec and a.kind != "subtitle")
    lost |= a.kind == "attachment" and a.payload != b.payload
    lost |= b.packets > a.packets if prefix else b.packets < a.packets
    if a.start is not None and b.start is not None and not prefix:
        lost |= abs(a.start - b.start) > Fraction(1, 500)
    same = a.payload == b.payload
    note = "" if prefix or not a.packets else "bit for bit" if same else "other bytes"
    return line(item, describe(a), describe(b), lost=lost, note=note)


def _chapters(before: ClipFacts, after: ClipFacts, prefix: bool) -> Iterator[Line]:
    if not before.chapters and not after.chapters:
        return
    near = len(before.chapters) == len(after.chapters) and all(
        abs(a[0] - b[0]) <= Fraction(1, 500)
        and abs(a[1] - b[1]) <= Fraction(1, 500)
        and a[2] == b[2]
        for a, b in zip(before.chapters, after.chapters, strict=True)
    )
    shown = [
        "; ".join(f"{seconds(start)} {title}".strip() for start, _, title in facts.chapters)
        for facts in (before, after)
    ]
    yield line("chapters", *shown, lost=not near and not prefix)


def describe(track: Track | None) -> str:
    """A stream in a few words."""
    if track is None:
        return "-"
    if track.kind == "attachment":
        return track.codec
    return (
        f"{track.codec} {track.language}, {track.packets} packets, "
        f"{seconds(track.start)} to {seconds(track.end)}"
    )


def shown_size(facts: ClipFacts) -> tuple[int, int]:
    """Width and height as a player shows them, before the sample aspect."""
    size = (facts.width, facts.height)
    return size[::-1] if facts.rotation % 180 else size


def seconds(time: Fraction | None) -> str:
    """A time to the tenth of a millisecond."""
    return "-" if time is None else f"{float(time):.4f} s"


def arguments() -> argparse.Namespace:
    """The command line."""
    take = parser(__doc__, examples=EXAMPLES)
    take.add_argument("before", type=Path, nargs="?", metavar="IN", help="clip before")
    take.add_argument("after", type=Path, nargs="?", metavar="OUT", help="clip after")
    take.add_argument(
        "--prefix", action="store_true", help="OUT holds only the beginning of IN (--end)"
    )
    take.add_argument("--make", type=Path, metavar="DIR", help="write odd clips into this folder")
    options = take.parse_args()
    if options.make is None and options.after is None:
        take.error("give IN and OUT, or --make DIR")
    return options


def main() -> int:
    """0 = all kept, 1 = something lost, 2 = a file cannot be read."""
    options = arguments()
    if options.make is not None:
        for path in make_all(options.make, say=lambda text: print(text, file=sys.stderr)):
            print(path)
    if options.after is None:
        return 0
    try:
        after = read_facts(options.after)
        limit = len(after.times) if options.prefix else None
        before = read_facts(options.before, limit=limit)
    except (av.FFmpegError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    lines = compare(before, after, prefix=options.prefix)
    print(machine())
    print(f"{options.before.name} -> {options.after.name}\n")
    rows = [(entry.item, entry.before, entry.after, entry.verdict) for entry in lines]
    print(table(("", "before", "after", ""), rows))
    lost = [entry.item for entry in lines if entry.verdict.startswith("LOST")]
    print(f"\nlost: {', '.join(lost)}" if lost else "\nnothing lost")
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
