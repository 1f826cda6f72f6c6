"""Curves of quality over bits per pixel: between their points, as JSON, and as an SVG picture."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_COLOURS = ("#d1495b", "#8d96a3", "#2e86ab", "#66a182", "#edae49")
_WIDTH, _HEIGHT, _LEFT, _TOP = 360, 240, 52, 34
_STEPS = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50)


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """One format."""

    name: str
    """Its name."""
    points: tuple[tuple[int, float, Mapping[str, float]], ...]
    """Setting, bits per pixel, and qualities by name; from few bits to many."""

    def at(self, bpp: float, measure: str) -> float | None:
        """Quality at `bpp`, along the logarithm between two points; None beyond the ends."""
        for (_, low, before), (_, high, after) in zip(self.points, self.points[1:], strict=False):
            if low <= bpp <= high:
                part = math.log(bpp / low) / math.log(high / low) if high > low else 0.0
                return before[measure] + part * (after[measure] - before[measure])
        return None

    def compressai(self) -> dict[str, Any]:
        """`name` and `results` as CompressAI's plot tool reads them."""
        keys = {"PSNR-Y": "psnr-y", "SSIM-Y": "ssim-y", "MS-SSIM": "ms-ssim"}
        results = {"bpp": [bpp for _, bpp, _ in self.points]}
        for measure in self.points[0][2]:
            key = keys.get(measure, measure.lower())
            results[key] = [values[measure] for _, _, values in self.points]
        return {"name": self.name, "description": "mean over the pictures", "results": results}


def write_curves(
    path: Path, curves: Sequence[Curve], *, measures: Sequence[str], highest: float
) -> None:
    """Write an SVG picture with one field for each measure.

    Args:
        path: file to write.
        curves: what is drawn.
        measures: which qualities.
        highest: bits per pixel at the right edge; points beyond it are left out.
    """
    shown = [m for m in measures if not math.isnan(curves[0].points[0][2][m])]
    columns = 2
    height = _HEIGHT * -(-len(shown) // columns) + 30
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH * columns}" height="{height}" '
        'font-family="sans-serif" font-size="11">',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for i, measure in enumerate(shown):
        x, y = _WIDTH * (i % columns), _HEIGHT * (i // columns)
        parts.append(f'<g transform="translate({x},{y})">')
        parts += _field(curves, measure, highest)
        parts.append("</g>")
    for i, curve in enumerate(curves):
        x, y, colour = _LEFT + 130 * i, height - 12, _COLOURS[i % len(_COLOURS)]
        parts.append(f'<path d="M{x} {y - 4}h24" stroke="{colour}" stroke-width="2"/>')
        parts.append(f'<text x="{x + 30}" y="{y}">{curve.name}</text>')
    path.write_text("\n".join([*parts, "</svg>"]) + "\n", encoding="utf-8")


def _field(curves: Sequence[Curve], measure: str, highest: float) -> Iterator[str]:
    """Axes, grid and lines of one measure."""
    lines = [
        [(bpp, values[measure]) for _, bpp, values in one.points if bpp <= highest]
        for one in curves
    ]
    values = [value for line in lines for _, value in line]
    low, high = min(values), max(values)
    wide, tall = _WIDTH - _LEFT - 14, _HEIGHT - _TOP - 30

    def place(bpp: float, value: float) -> tuple[float, float]:
        return (
            _LEFT + wide * bpp / highest,
            _TOP + tall * (high - value) / max(high - low, 1e-9),
        )

    yield f'<text x="{_LEFT}" y="{_TOP - 12}" font-weight="bold">{measure}</text>'
    for value in _ticks(low, high):
        y = place(0, value)[1]
        yield f'<path d="M{_LEFT} {y:.1f}h{wide}" stroke="#ddd"/>'
        yield f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>'
    for bpp in _ticks(0, highest):
        x = place(bpp, low)[0]
        yield f'<path d="M{x:.1f} {_TOP}v{tall}" stroke="#eee"/>'
        yield f'<text x="{x:.1f}" y="{_TOP + tall + 15}" text-anchor="middle">{bpp:g}</text>'
    yield f'<text x="{_LEFT + wide}" y="{_TOP + tall + 27}" text-anchor="end">bits per pixel</text>'
    for i, line in enumerate(lines):
        dots = [place(*point) for point in line]
        drawn = " ".join(f"{x:.1f},{y:.1f}" for x, y in dots)
        colour = _COLOURS[i % len(_COLOURS)]
        yield f'<polyline points="{drawn}" fill="none" stroke="{colour}" stroke-width="2"/>'
        for x, y in dots:
            yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{colour}"/>'


def _ticks(low: float, high: float) -> list[float]:
    """About five round numbers in a range."""
    step = next((one for one in _STEPS if (high - low) / one <= 7), 100)
    first = math.ceil(low / step - 1e-9)
    count = math.floor(high / step + 1e-9) - first + 1
    return [round((first + i) * step, 6) for i in range(count)]
