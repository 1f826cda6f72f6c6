"""How strong restored pictures are at each fineness of detail, beside their references.

Prints, per band of frequencies: `amplitude`, the size of the result's spectrum over that of the
reference (1 = as strong); `coherence` (1 = the reference's detail, 0 = detail of its own); and
`gain`, the factor on the band that brings the result nearest to the reference, <a, b> / <a, a>.
A gain below 1 where the coherence is high is contrast that the reference does not have: halos of a
camera that sharpens, or sharpening that went too far. Of BT.601 luma, under a Hann window, each
picture with the same weight. Pictures are paired by name without suffix.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from common import exit_status, machine, parser, table
from image_quality import files, read_enlarged, read_reference, read_restored
from PIL import Image

from restore.errors import InputError
from restore.metrics import pair_by_stem

EXAMPLES = (
    "restore image ../shared/data/realsr/lr -o out",
    "python benchmarks/spectrum.py --restored out --lr ../shared/data/realsr/lr \\",
    "    --reference ../shared/data/realsr/hr",
)
LUMA = np.array([65.481, 128.553, 24.966]) / 255
Floats = npt.NDArray[np.float64]


class Bands:
    """Sums over pictures, for each of `count` bands between 0 and half a cycle per pixel."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.own, self.other, self.both = (np.zeros(count) for _ in range(3))

    def add(self, result: Floats, reference: Floats) -> None:
        """Count a picture, `(H, W)` like its reference."""
        a, b = spectrum(result), spectrum(reference)
        place = (frequencies(result.shape) * 2 * self.count).astype(int)
        inside, share = place < self.count, 1 / max(float((abs(b) ** 2).sum()), 1e-12)
        for sums, values in (
            (self.own, abs(a) ** 2),
            (self.other, abs(b) ** 2),
            (self.both, (a * b.conj()).real),
        ):
            sums += share * np.bincount(place[inside], values[inside], self.count)

    def rows(self) -> Iterator[list[str]]:
        """Lines of the table."""
        for band in range(self.count):
            low, high = band / 2 / self.count, (band + 1) / 2 / self.count
            own, other, both = (sums[band] for sums in (self.own, self.other, self.both))
            yield [
                f"{low:.3f} to {high:.3f}",
                f"{np.sqrt(own / other):.2f}",
                f"{both / np.sqrt(own * other):.2f}",
                f"{both / own:.2f}",
            ]


def spectrum(luma: Floats) -> npt.NDArray[np.complex128]:
    """Fourier transform `(H, W)` of what differs from the mean, under a window."""
    window = np.outer(np.hanning(luma.shape[0]), np.hanning(luma.shape[1]))
    return np.fft.fft2((luma - luma.mean()) * window)


def frequencies(shape: tuple[int, ...]) -> Floats:
    """Cycles per pixel of each value of a spectrum `(H, W)`."""
    return np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.fftfreq(shape[1])[None])


def luma(image: Image.Image) -> Floats:
    """`(H, W)`, 16 to 235."""
    return np.asarray(image).astype(np.float64) @ LUMA + 16


def arguments() -> argparse.Namespace:
    """The command line."""
    take = parser(__doc__, examples=EXAMPLES)
    take.add_argument("--restored", type=Path, metavar="DIR", help="pictures to judge")
    take.add_argument("--reference", type=Path, metavar="DIR", required=True, help="true pictures")
    take.add_argument("--lr", type=Path, metavar="DIR", help="small pictures, for a bicubic table")
    take.add_argument(
        "--multiple", type=int, default=1, help="crop references to multiples of this (default 1)"
    )
    take.add_argument("--bands", type=int, default=24, help="bands of frequencies (default 24)")
    options = take.parse_args()
    if options.restored is None and options.lr is None:
        take.error("nothing to judge: give --restored, --lr, or both")
    if options.multiple < 1 or not 1 <= options.bands <= 256:
        take.error("--multiple is 1 or more, --bands 1 to 256")
    return options


def run(options: argparse.Namespace) -> None:
    """Measure and print."""
    sources = (
        ("bicubic", options.lr, read_enlarged),
        ("restored", options.restored, read_restored),
    )
    print(machine())
    for name, folder, reader in sources:
        if folder is None:
            continue
        bands = Bands(options.bands)
        pairs = pair_by_stem(files(folder), files(options.reference))
        for path, target in pairs:
            reference = read_reference(target, options.multiple)
            image = reader(path, reference)
            if image.size != reference.size:
                raise InputError(
                    f"{path.name} has {image.width}x{image.height} pixels, its reference "
                    f"{reference.width}x{reference.height}; crop references by --multiple"
                )
            bands.add(luma(image), luma(reference))
        print(f"\n{name}, {len(pairs)} pictures\n")
        print(table(("cycles per pixel", "amplitude", "coherence", "gain"), list(bands.rows())))


if __name__ == "__main__":
    OPTIONS = arguments()
    sys.exit(exit_status(lambda: run(OPTIONS)))
