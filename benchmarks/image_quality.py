"""How close restored pictures come to their references, beside plain bicubic enlargement.

Prints mean PSNR-Y and SSIM-Y (luma by BT.601 as in BasicSR) and NIQE (lower is better). Pictures
are paired by name without suffix. With --sheet, cases are put side by side to look at.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
from common import exit_status, machine, parser, table
from PIL import Image, ImageDraw, ImageFont

from restore.errors import InputError, MissingExtraError
from restore.metrics import niqe, pair_by_stem, psnr, ssim
from restore.niqe import NiqeParameters, load_niqe_parameters

EXAMPLES = (
    "restore image ../shared/data/realsr/lr -o out",
    "python benchmarks/image_quality.py --restored out --reference ../shared/data/realsr/hr \\",
    "    --lr ../shared/data/realsr/lr --sheet out.png --cases 5",
    "python benchmarks/image_quality.py --restored heavy --lr ../shared/data/heavy/lr \\",
    "    --reference ../shared/data/bsds500/val --heavy",
)
LABEL_HEIGHT = 22


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """Numbers of one picture."""

    name: str
    """File name of the reference."""
    psnr_y: float
    """PSNR of the luma, dB."""
    ssim_y: float
    """SSIM of the luma."""
    niqe: float | None
    """NIQE; None = not asked for, or the picture cannot be judged."""


Reader = Callable[[Path, Image.Image], Image.Image]
"""Reads a picture for a reference."""


def files(folder: Path) -> list[Path]:
    """Pictures in a folder, sorted."""
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; give a folder of pictures")
    known = Image.registered_extensions()
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in known)
    if not found:
        raise InputError(f"{folder} holds no picture; give a folder of pictures")
    return found


def read(path: Path) -> Image.Image:
    """A picture as 8-bit RGB."""
    with Image.open(path) as image:
        return image.convert("RGB")


def read_reference(path: Path, multiple: int) -> Image.Image:
    """A reference, cropped at the top left to sides that are multiples of `multiple`."""
    image = read(path)
    width, height = (side - side % multiple for side in image.size)
    return image.crop((0, 0, width, height))


def read_enlarged(path: Path, reference: Image.Image) -> Image.Image:
    """A small picture, brought to the reference's size by Pillow's bicubic."""
    small = read(path)
    factors = {big / side for big, side in zip(reference.size, small.size, strict=True)}
    if len(factors) != 1 or not min(factors).is_integer():
        raise InputError(
            f"{path.name} has {small.width}x{small.height} pixels, its reference "
            f"{reference.width}x{reference.height}: no whole multiple; crop references by --heavy "
            "or --multiple"
        )
    return small.resize(reference.size, Image.Resampling.BICUBIC)


def read_restored(path: Path, _reference: Image.Image) -> Image.Image:
    """A restored picture as it is."""
    return read(path)


def judge(image: Image.Image, parameters: NiqeParameters) -> float | None:
    """NIQE, or None for a picture that is too small or too flat for it."""
    try:
        return niqe(np.asarray(image), parameters=parameters)
    except InputError:
        return None


def score(
    path: Path,
    image: Image.Image,
    reference: Image.Image,
    *,
    crop_border: int,
    parameters: NiqeParameters | None,
) -> Score:
    """Numbers of one picture; `parameters` None leaves NIQE out."""
    first, second = np.asarray(image), np.asarray(reference)
    try:
        return Score(
            name=path.name,
            psnr_y=psnr(first, second, crop_border=crop_border),
            ssim_y=ssim(first, second, crop_border=crop_border),
            niqe=None if parameters is None else judge(image, parameters),
        )
    except InputError as error:
        raise InputError(f"{path.name}: {error} (references: see --multiple)") from error


def score_folder(
    folder: Path,
    reader: Reader,
    options: argparse.Namespace,
    parameters: NiqeParameters | None,
) -> list[Score]:
    """Numbers of each picture of a folder."""
    scores = []
    for index, (path, target) in enumerate(pair_by_stem(files(folder), files(options.reference))):
        reference = read_reference(target, options.multiple)
        scores.append(
            score(
                path,
                reader(path, reference),
                reference,
                crop_border=options.crop_border,
                parameters=None if index % options.niqe_every else parameters,
            )
        )
    return scores


def means(scores: list[Score]) -> dict[str, float | int | None]:
    """Mean of each number; NIQE over the pictures that have one."""
    judged = [s.niqe for s in scores if s.niqe is not None]
    return {
        "pictures": len(scores),
        "psnr_y": float(np.mean([s.psnr_y for s in scores])),
        "ssim_y": float(np.mean([s.ssim_y for s in scores])),
        "niqe": float(np.mean(judged)) if judged else None,
        "niqe_pictures": len(judged),
    }


def row(name: str, scores: list[Score]) -> list[str]:
    """One line of the table."""
    mean = means(scores)
    judged = "-" if mean["niqe"] is None else f"{mean['niqe']:.2f} ({mean['niqe_pictures']})"
    return [name, str(len(scores)), f"{mean['psnr_y']:.2f}", f"{mean['ssim_y']:.4f}", judged]


def niqe_parameters(options: argparse.Namespace) -> NiqeParameters | None:
    """Statistics for NIQE, or None and one line that says why."""
    if options.niqe_every == 0:
        options.niqe_every = 1
        return None
    try:
        return load_niqe_parameters(options.niqe_params)
    except MissingExtraError as error:
        print(f"no NIQE: {error}", file=sys.stderr)
        return None


def sheet(options: argparse.Namespace) -> Image.Image:
    """Cases one below the other: bicubic, restored, reference; evenly spread over the folder."""
    pairs = pair_by_stem(files(options.restored), files(options.reference))
    chosen = np.unique(np.linspace(0, len(pairs) - 1, min(options.cases, len(pairs))).astype(int))
    small = {path.stem: path for path in files(options.lr)} if options.lr else {}
    strips = []
    for path, target in (pairs[i] for i in chosen):
        reference = read_reference(target, options.multiple)
        views = {"restored": read(path), "reference": reference}
        if path.stem in small:
            views = {"bicubic": read_enlarged(small[path.stem], reference), **views}
        strips.append(strip(path.stem, views, options.window))
    result = Image.new("RGB", (max(s.width for s in strips), sum(s.height for s in strips)))
    top = 0
    for part in strips:
        result.paste(part, (0, top))
        top += part.height
    return result


def strip(name: str, views: dict[str, Image.Image], window: int) -> Image.Image:
    """The middle of each view, side by side, under its label."""
    parts = []
    for label, view in views.items():
        left, top = (max(0, (side - window) // 2) for side in view.size)
        part = view.crop(
            (left, top, min(left + window, view.width), min(top + window, view.height))
        )
        parts.append((f"{name}: {label}", part))
    height = max(part.height for _, part in parts) + LABEL_HEIGHT
    result = Image.new("RGB", (sum(part.width for _, part in parts), height))
    draw, left = ImageDraw.Draw(result), 0
    for label, part in parts:
        draw.text((left + 4, 3), label, fill="white", font=ImageFont.load_default(14))
        result.paste(part, (left, LABEL_HEIGHT))
        left += part.width
    return result


def arguments() -> argparse.Namespace:
    """The command line."""
    take = parser(__doc__, examples=EXAMPLES)
    take.add_argument("--restored", type=Path, metavar="DIR", help="pictures to judge")
    take.add_argument("--reference", type=Path, metavar="DIR", required=True, help="true pictures")
    take.add_argument("--lr", type=Path, metavar="DIR", help="small pictures, for a bicubic row")
    take.add_argument("--references-too", action="store_true", help="a row for the references")
    take.add_argument(
        "--multiple", type=int, default=1, help="crop references to multiples of this (default 1)"
    )
    take.add_argument(
        "--heavy", dest="multiple", action="store_const", const=8, help="short for --multiple 8"
    )
    take.add_argument("--crop-border", type=int, default=0, help="pixels left out at each edge")
    take.add_argument(
        "--niqe-every", type=int, default=3, metavar="N", help="NIQE of each Nth picture; 0 = none"
    )
    take.add_argument(
        "--niqe-params", type=Path, metavar="FILE", help="niqe_pris_params.npz, without basicsr"
    )
    take.add_argument("--json", type=Path, metavar="FILE", help="write all numbers here")
    take.add_argument("--sheet", type=Path, metavar="PNG", help="write a side-by-side here")
    take.add_argument("--cases", type=int, default=5, help="rows of the sheet (default 5)")
    take.add_argument("--window", type=int, default=384, help="pixels of a picture on the sheet")
    take.add_argument("--threads", type=int, default=1, help="threads of OpenCV (default 1)")
    options = take.parse_args()
    if options.restored is None and options.lr is None:
        take.error("nothing to judge: give --restored, --lr, or both")
    if options.sheet is not None and options.restored is None:
        take.error("--sheet shows restored pictures: give --restored too")
    if options.multiple < 1 or options.cases < 1 or options.window < 1 or options.niqe_every < 0:
        take.error("--multiple, --cases and --window are 1 or more, --niqe-every 0 or more")
    return options


def run(options: argparse.Namespace) -> None:
    """Score, print, write."""
    cv2.setNumThreads(options.threads)
    parameters = niqe_parameters(options)
    sources: list[tuple[str, Path | None, Reader]] = [
        ("bicubic", options.lr, read_enlarged),
        ("restored", options.restored, read_restored),
        ("reference", options.reference if options.references_too else None, lambda _, r: r),
    ]
    scores = {
        name: score_folder(folder, reader, options, parameters)
        for name, folder, reader in sources
        if folder is not None
    }
    print(machine())
    print(f"Y of BT.601 as in BasicSR, {options.crop_border} pixels cropped at each edge\n")
    header = ("", "pictures", "PSNR-Y up", "SSIM-Y up", "NIQE down (pictures)")
    print(table(header, [row(name, found) for name, found in scores.items()]))
    if options.json is not None:
        report = {
            "machine": machine(),
            "color": "Y of BT.601",
            "crop_border": options.crop_border,
            "better": {"psnr_y": "higher", "ssim_y": "higher", "niqe": "lower"},
            "mean": {name: means(found) for name, found in scores.items()},
            "pictures": {name: [asdict(s) for s in found] for name, found in scores.items()},
        }
        text = json.dumps(report, indent=1).replace(": Infinity", ": null")  # not in JSON
        options.json.write_text(text, encoding="utf-8")
    if options.sheet is not None:
        sheet(options).save(options.sheet)
        print(f"\nside by side: {options.sheet}")


if __name__ == "__main__":
    OPTIONS = arguments()
    sys.exit(exit_status(lambda: run(OPTIONS)))
