"""The metrics that a report can hold: what each means, and how it is computed.

`restore` computes its own; any other name is one of pyiqa's, which `restore.reports.iqa` loads.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias

import restore
from restore.errors import InputError, MissingExtraError, OptionError
from restore.metrics import Picture, load_niqe_parameters, ms_ssim, niqe, psnr, ssim
from restore.reports.config import ReportConfig

Kind = Literal["picture", "clip", "set", "size"]
"""What a metric looks at: one picture or frame, two frames of a clip in a row, all results of a
method at once, or the file."""

Compute: TypeAlias = Callable[[Picture, Picture | None], float]
"""Value of a picture `(H, W, 3)` beside its reference; both as `restore.metrics` takes them."""

PYIQA_PREFIX = "pyiqa:"
"""Before a name: pyiqa's metric, where we have one of that name too."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MetricSpec:
    """What the numbers of a metric mean."""

    name: str
    """As the user writes it."""
    title: str
    """As a heading has it."""
    lower_better: bool
    """Direction; False = higher is better."""
    reference: bool
    """It compares with a reference."""
    kind: Kind = "picture"
    """What it looks at."""
    unit: str = ""
    """Such as dB; empty = none."""
    digits: int = 4
    """Digits after the point that are shown."""
    color: str = ""
    """Color space that it is computed in."""
    source: str = "restore"
    """Package that computes it."""
    version: str = restore.__version__
    """Version of that."""
    definition: str = ""
    """One line."""

    @property
    def arrow(self) -> str:
        """Where better is."""
        return "\N{DOWNWARDS ARROW}" if self.lower_better else "\N{UPWARDS ARROW}"

    @property
    def better(self) -> str:
        """The same as a word."""
        return "lower" if self.lower_better else "higher"

    def shown(self, value: float | None) -> str:
        """A value as text; a dash where there is none."""
        if value is None:
            return "\N{EN DASH}"
        return "inf" if value == float("inf") else f"{value:,.{self.digits}f}".replace(",", " ")

    def between(self, low: float | None, high: float | None) -> str:
        """An interval as text; a dash where there is none."""
        if low is None or high is None:
            return self.shown(None)
        return f"{self.shown(low)} to {self.shown(high)}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Metric:
    """A metric that can be computed here."""

    spec: MetricSpec
    """What it means."""
    compute: Compute | None = None
    """For pictures and frames; None = of another kind."""
    compute_set: Callable[[Path, Path | None], float] | None = None
    """For all results at once: folders of PNG files of results and references."""
    alone: bool = False
    """Only one thread may compute it at a time."""


_Y, _RGB = "luma of BT.601, as BasicSR and MATLAB have it", "R'G'B'"
_PSNR = "10 log10(255\N{SUPERSCRIPT TWO} / mean square error)"
_SSIM = "Gaussian window 11x11, sigma 1.5, valid area only (Wang et al. 2004)"
_MS_SSIM = "five scales (Wang et al. 2003), same window"
_WITH_MOTION = "along the motion of the reference, or of the result where there is none"


def _full(name: str, title: str, **more: Any) -> MetricSpec:
    return MetricSpec(
        **{"name": name, "title": title, "lower_better": False, "reference": True, **more}
    )


def _steady(name: str, title: str, **more: Any) -> MetricSpec:
    return _full(name, title, lower_better=True, kind="clip", color=_RGB, **more)


OWN: dict[str, MetricSpec] = {
    spec.name: spec
    for spec in (
        _full("psnr", "PSNR-Y", unit="dB", digits=2, color=_Y, definition=_PSNR),
        _full("psnr-rgb", "PSNR-RGB", unit="dB", digits=2, color=_RGB, definition=_PSNR),
        _full("ssim", "SSIM-Y", color=_Y, definition=_SSIM),
        _full("ssim-rgb", "SSIM-RGB", color=f"{_RGB}, mean of the channels", definition=_SSIM),
        _full("ms-ssim", "MS-SSIM-Y", color=_Y, definition=_MS_SSIM),
        _full("ms-ssim-rgb", "MS-SSIM-RGB", color=f"{_RGB}, mean", definition=_MS_SSIM),
        MetricSpec(
            name="niqe",
            title="NIQE",
            lower_better=True,
            reference=False,
            digits=2,
            color=f"{_Y}, in whole numbers",
            definition="Mittal et al. 2013, as BasicSR computes it, with its parameters",
        ),
        _steady(
            "warping-error",
            "Warping error",
            reference=False,
            digits=3,
            definition=f"Lai et al. 2018, x 10 000, {_WITH_MOTION}",
        ),
        _steady(
            "frame-difference",
            "Frame difference",
            digits=3,
            definition="mean |dO - dR| of the changes from frame to frame, levels of 255",
        ),
        _steady(
            "tlp-like",
            "tLP-like",
            digits=3,
            definition="|mean |dO| - mean |dR||, levels of 255: tLP (Chu et al. 2020) without "
            "LPIPS",
        ),
        _full(
            "bytes",
            "Bytes",
            lower_better=True,
            reference=False,
            kind="size",
            digits=0,
            definition="size of the file, with all that is in it",
        ),
        _full(
            "bpp",
            "Bits per pixel",
            lower_better=True,
            reference=False,
            kind="size",
            definition="8 x bytes over the pixels of the reference (of the result without one; "
            "of all frames of a clip)",
        ),
    )
}
"""What restore computes itself."""

_FULL: dict[str, Callable[..., float]] = {
    "psnr": psnr,
    "psnr-rgb": partial(psnr, channel="rgb"),
    "ssim": ssim,
    "ssim-rgb": partial(ssim, channel="rgb"),
    "ms-ssim": ms_ssim,
    "ms-ssim-rgb": partial(ms_ssim, channel="rgb"),
}
DEFAULTS = ("psnr", "ssim")
"""Without `-m`, where there is a reference."""
DEFAULTS_ALONE = ("niqe",)
"""Without `-m`, where there is none."""


def choose_metrics(
    config: ReportConfig, *, clips: bool, coded: bool
) -> tuple[list[Metric], list[tuple[str, str]]]:
    """The metrics of a run, and those that cannot be computed here with one line each.

    Args:
        config: what is asked for.
        clips: there are clips among the results.
        coded: the results are compressed pictures, whose bytes are of interest.

    Raises:
        OptionError: a name is unknown, or wants a reference or clips where there are none.
    """
    names = config.metric or (DEFAULTS if config.reference else DEFAULTS_ALONE)
    names += ("bytes", "bpp") if coded else ()
    found: list[Metric] = []
    skipped: list[tuple[str, str]] = []
    for name in dict.fromkeys(name.strip().lower() for name in names):
        try:
            metric = _load(name, config)
        except (MissingExtraError, InputError) as error:
            skipped.append((name, str(error)))
            continue
        _check_use(metric.spec, config, clips=clips)
        found.append(metric)
    return found, skipped


def _load(name: str, config: ReportConfig) -> Metric:
    if name == "niqe":
        path = None if config.niqe_params is None else Path(config.niqe_params)
        parameters = load_niqe_parameters(path)
        return Metric(spec=OWN[name], compute=lambda image, _: niqe(image, parameters=parameters))
    if name in _FULL:
        return Metric(spec=OWN[name], compute=_FULL[name])
    if name in OWN:
        return Metric(spec=OWN[name])

    near = difflib.get_close_matches(name, OWN, n=1, cutoff=0.75)
    from restore.reports.iqa import installed, load_iqa

    if near and not installed():
        raise OptionError(f"no metric '{name}'; did you mean '{near[0]}'? See --list")
    return load_iqa(name.removeprefix(PYIQA_PREFIX), config, shown=name)


def _check_use(spec: MetricSpec, config: ReportConfig, *, clips: bool) -> None:
    if spec.reference and config.reference is None:
        raise OptionError(
            f"'{spec.name}' compares with a reference, and none was given; add --reference, or "
            "take a metric without one, such as niqe"
        )
    if spec.kind == "clip" and not clips:
        raise OptionError(f"'{spec.name}' is for clips, and there are only pictures; leave it out")


def own_lines() -> Sequence[tuple[str, str]]:
    """Name and one line for each metric of our own."""
    return [
        (
            spec.name,
            f"{spec.better} is better; {spec.definition}"
            + (f"; {spec.color}" if spec.color else ""),
        )
        for spec in OWN.values()
    ]
