"""Settings of `restore metrics`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from restore.config import EngineConfig, ImageConfig, check_choice, check_seed, flag, same_flag
from restore.errors import OptionError

FitChoice = Literal["fail", "crop", "resize"]

REPORT_SUFFIXES = (".html", ".csv", ".json", ".md")
"""Endings of the files that a report can be written to."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportConfig:
    """`restore metrics`: results in, a report on them out."""

    restored: tuple[str, ...] = flag(
        (),
        "--restored",
        metavar="[NAME=]PATH",
        multiple=True,
        help="Folder of results, or one file; again with another name for a comparison.",
    )
    reference: str | None = flag(
        None,
        "--reference",
        metavar="PATH",
        help="Folder of true pictures or clips, or one file; pairs are made by name.",
    )
    metric: tuple[str, ...] = flag(
        (),
        "-m",
        "--metric",
        metavar="NAME",
        multiple=True,
        help="What to measure; see --list. Default: psnr, ssim; without a reference niqe.",
    )
    output: tuple[str, ...] = flag(
        (),
        "-o",
        "--output",
        metavar="FILE",
        multiple=True,
        help="Report, by its ending .html, .csv, .json or .md; may be given again.",
    )
    crop_border: int = flag(
        0,
        "--crop-border",
        metavar="PIXELS",
        help="Left out along each edge before every metric; 4 is BasicSR's habit for x4.",
    )
    fit: FitChoice = flag(
        "fail",
        "--fit",
        help="Where sizes differ: crop = both to what they share at the top left; resize = result "
        "to the reference's size.",
    )
    niqe_params: str | None = flag(
        None,
        "--niqe-params",
        metavar="FILE",
        help="niqe_pris_params.npz of basicsr 1.4.2, where basicsr is not installed.",
    )
    fetch: bool = flag(
        False, "--fetch", help="Let pyiqa download weights that it lacks; otherwise it may not."
    )
    strict: bool = flag(
        False, "--strict", help="A metric that cannot be computed here is a failure."
    )
    cases: int = flag(3, "--cases", help="Worst and best cases of each metric in HTML, 0 to 20.")
    workers: int = flag(0, "--workers", help="Files measured at a time; 0 = one for each core.")
    device: str = same_flag(EngineConfig, "device")
    seed: int = flag(0, "--seed", help="Seed of the intervals and tests, 0 or more.")
    overwrite: bool = flag(False, "--overwrite", help="Replace reports that are already there.")
    json: bool = flag(False, "--json", help="Report to stdout as one JSON object a line.")
    max_pixels: int = same_flag(
        ImageConfig, "max_pixels", help="Refuse pictures with more pixels than this."
    )

    def __post_init__(self) -> None:
        check_choice("fit", self.fit, get_args(FitChoice))
        check_seed(self.seed)
        for name, low, high in (
            ("crop_border", 0, 10_000),
            ("cases", 0, 20),
            ("workers", 0, 256),
            ("max_pixels", 1, 1 << 56),
        ):
            if not low <= getattr(self, name) <= high:
                raise OptionError(
                    f"{name.replace('_', ' ')} {getattr(self, name)} is not possible; "
                    f"give {low} to {high}"
                )
        for output in self.output:
            report_suffix(output)


def report_suffix(path: str | Path) -> str:
    """The ending that says how a report is written.

    Raises:
        OptionError: it is none of `REPORT_SUFFIXES`.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in REPORT_SUFFIXES:
        raise OptionError(
            f"'{path}' does not end like a report; use one of {', '.join(REPORT_SUFFIXES)}"
        )
    return suffix
