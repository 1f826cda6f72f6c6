"""Quality over bytes: `compact-codec` beside JPEG, WebP and AVIF (Pillow's), on the same pictures.

Each format writes every picture at several of its qualities. Of each quality the mean size in bits
per pixel of the original (whole files, with everything in them) and the mean PSNR-Y, SSIM-Y,
MS-SSIM and SSIMULACRA2 make one point of its curve. "At equal bytes" is read off the curves, along
the logarithm of the size between two points; beyond its ends a curve is not drawn out.

MS-SSIM is that of the luma (Wang et al., Asilomar 2003, five scales). SSIMULACRA2 needs
`pip install ssimulacra2`; without it that column is left out.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from common import machine, parser, table
from curves import Curve, write_curves
from PIL import Image

from restore.codec.engine import Coder, load_codec
from restore.metrics import ms_ssim, psnr, ssim

EXAMPLES = (
    "python benchmarks/rate_distortion.py ../shared/data/bsds500/val --plot out.svg",
    "python benchmarks/rate_distortion.py PICTURES --count 20 --weights net.safetensors",
    "python benchmarks/rate_distortion.py PICTURES --speed photo.jpg --threads 2",
)
Pixels = npt.NDArray[np.uint8]
MEASURES = ("PSNR-Y", "SSIM-Y", "MS-SSIM", "SSIMULACRA2")
SETTINGS: dict[str, tuple[int, ...]] = {
    "JPEG": (1, 3, 5, 8, 12, 18, 27, 40, 55),
    "WebP": (0, 3, 8, 15, 25, 40, 60, 75),
    "AVIF": (5, 10, 17, 25, 33, 42, 50, 60),
}
"""Qualities of the other formats, in Pillow's numbers."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Written:
    """One picture in one format."""

    data: bytes
    """The file."""
    pixels: Pixels
    """What it decodes to."""
    encode_seconds: float
    """Time to write it."""
    decode_seconds: float
    """Time to read it."""


def with_pillow(name: str, pixels: Pixels, quality: int) -> Written:
    """A picture through one of Pillow's formats, as small as it writes it."""
    options: dict[str, Any] = {"quality": quality}
    if name == "JPEG":
        options |= {"optimize": True, "progressive": True}
    elif name == "WebP":
        options |= {"method": 6}
    else:
        options |= {"speed": 4}
    started = time.perf_counter()
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, name.upper(), **options)
    written = time.perf_counter()
    with Image.open(io.BytesIO(buffer.getvalue())) as image:
        decoded = np.array(image.convert("RGB"))
    return Written(
        data=buffer.getvalue(),
        pixels=decoded,
        encode_seconds=written - started,
        decode_seconds=time.perf_counter() - written,
    )


def with_codec(coder: Coder, pixels: Pixels, rate: int) -> Written:
    """A picture through one of our codecs."""
    x = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
    started = time.perf_counter()
    packed = coder.compress(x, rate=rate)
    written = time.perf_counter()
    result = coder.decompress(packed["strings"], packed["shape"])["x_hat"][0]
    seconds = time.perf_counter() - written
    decoded = result.mul(255).round().byte().permute(1, 2, 0).numpy()
    return Written(
        data=packed["strings"][0][0],
        pixels=decoded,
        encode_seconds=written - started,
        decode_seconds=seconds,
    )


def ssimulacra2() -> Callable[[Pixels, Pixels], float] | None:
    """The measure, when its package is installed."""
    try:
        from ssimulacra2 import compute_ssimulacra2
    except ImportError:
        return None

    def measure(image: Pixels, reference: Pixels) -> float:
        files = []
        for pixels in (reference, image):
            files.append(io.BytesIO())
            Image.fromarray(pixels).save(files[-1], "PNG", compress_level=1)
        return float(compute_ssimulacra2(*files))

    return measure


def curve(
    name: str,
    pictures: Sequence[Pixels],
    settings: Sequence[int],
    write: Callable[[Pixels, int], Written],
) -> Curve:
    """Mean size and qualities at each setting."""
    simulacra = ssimulacra2()
    points = []
    for setting in settings:
        rows = []
        for reference in pictures:
            written = write(reference, setting)
            image = written.pixels
            row = [8 * len(written.data) / reference[..., 0].size]
            row += [psnr(image, reference), ssim(image, reference), ms_ssim(image, reference)]
            row += [math.nan if simulacra is None else simulacra(image, reference)]
            rows.append(row)
        mean = np.mean(rows, axis=0).tolist()
        points.append((setting, mean[0], dict(zip(MEASURES, mean[1:], strict=True))))
        print(f"{name} {setting}: {mean[0]:.4f} bpp", flush=True)
    return Curve(name=name, points=tuple(sorted(points, key=lambda point: point[1])))


def read_pictures(folder: Path, count: int) -> list[Pixels]:
    """Up to `count` pictures of a folder, evenly spread."""
    known = Image.registered_extensions()
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in known)
    if not found:
        raise SystemExit(f"{folder} holds no picture; give a folder of pictures")
    chosen = found[:: max(1, len(found) // count)][:count]
    return [np.array(Image.open(path).convert("RGB")) for path in chosen]


def rows_at_equal_bytes(ours: Curve, others: Sequence[Curve]) -> Iterator[list[str]]:
    """For each rate of ours, what the others reach with as many bytes; a dash = not so few."""
    for _, bpp, values in ours.points:
        for measure in MEASURES:
            if math.isnan(values[measure]):
                continue
            row = [f"{bpp:.4f}", measure, _number(measure, values[measure])]
            for other in others:
                found = other.at(bpp, measure)
                row.append("-" if found is None else _number(measure, found))
            yield row


def rows_at_lowest(ours: Curve, others: Sequence[Curve]) -> Iterator[list[str]]:
    """What ours reaches with as many bytes as the smallest files of the others."""
    for other in others:
        _, bpp, values = other.points[0]
        for measure in MEASURES:
            mine = ours.at(bpp, measure)
            if math.isnan(values[measure]) or mine is None:
                continue
            found = [_number(measure, value) for value in (values[measure], mine)]
            yield [other.name, f"{bpp:.4f}", measure, *found]


def _number(measure: str, value: float) -> str:
    return f"{value:.2f}" if measure in ("PSNR-Y", "SSIMULACRA2") else f"{value:.4f}"


def speed_rows(coder: Coder, pixels: Pixels) -> Iterator[list[str]]:
    """Seconds per megapixel, the least of three."""
    megapixels = pixels[..., 0].size / 1e6
    ways = [
        (f"{coder.name}, {rate.bpp:g} bpp", partial(with_codec, coder, pixels, rate.index))
        for rate in (coder.rates[0], coder.rates[-1])
    ]
    for name, quality in (("JPEG", 12), ("WebP", 15), ("AVIF", 25)):
        ways.append((name, partial(with_pillow, name, pixels, quality)))
    for name, write in ways:
        write()  # warms up
        found = [write() for _ in range(3)]
        encode = min(one.encode_seconds for one in found) / megapixels
        decode = min(one.decode_seconds for one in found) / megapixels
        yield [name, f"{encode:.2f}", f"{decode:.2f}"]


def main() -> None:
    """Measure, and print tables."""
    options = arguments()
    torch.set_num_threads(options.threads)
    print(machine())
    coder = load_codec(options.codec, weights=options.weights, device="cpu", dtype=options.dtype)
    if options.speed:
        photo = np.array(Image.open(options.speed).convert("RGB"))
        print(f"\nseconds per megapixel, {options.threads} threads, {options.dtype}")
        print(table(["format", "encode", "decode"], speed_rows(coder, photo)))
        return
    pictures = read_pictures(options.pictures, options.count)
    rates = [rate.index for rate in coder.rates]
    ours = curve(coder.name, pictures, rates, partial(with_codec, coder))
    others = [
        curve(name, pictures, settings, partial(with_pillow, name))
        for name, settings in SETTINGS.items()
    ]
    curves = [ours, *others]
    rows = [
        [one.name, setting, f"{bpp:.4f}", *(_number(m, values[m]) for m in MEASURES)]
        for one in curves
        for setting, bpp, values in one.points
    ]
    names = [one.name for one in curves]
    print(f"\n{len(pictures)} pictures of {options.pictures}")
    print(table(["format", "quality", "bpp", *MEASURES], rows))
    print("\nat equal bytes")
    print(table(["bpp", "measure", *names], rows_at_equal_bytes(ours, others)))
    print("\nat the smallest files of the others")
    print(table(["format", "bpp", "measure", "its", coder.name], rows_at_lowest(ours, others)))
    if options.plot:
        write_curves(options.plot, curves, measures=MEASURES, highest=options.highest)
    if options.json:
        options.json.write_text(json.dumps([one.compressai() for one in curves], indent=2))


def arguments() -> argparse.Namespace:
    """The command line."""
    command = parser(__doc__, examples=EXAMPLES)
    command.add_argument("pictures", type=Path, help="folder of good pictures")
    command.add_argument("--codec", default="compact-codec", help="one of ours")
    command.add_argument("--weights", help="its weights; default: those in the package")
    command.add_argument("--dtype", default="auto", help="number format: auto, fp32, bf16")
    command.add_argument("--count", type=int, default=100, help="pictures, evenly spread")
    command.add_argument("--threads", type=int, default=1)
    command.add_argument("--plot", type=Path, help="SVG file of the curves")
    command.add_argument("--highest", type=float, default=0.7, help="bits per pixel of the plot")
    command.add_argument(
        "--json", type=Path, help="the points, as CompressAI's plot tool reads them"
    )
    command.add_argument("--speed", type=Path, help="measure time on this picture instead")
    return command.parse_args()


if __name__ == "__main__":
    main()
