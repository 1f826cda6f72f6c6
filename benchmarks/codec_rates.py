"""What the rates of `compact-codec` come to on whole pictures, and that written into its weights.

Training counts bits on patches that were shrunk and hold more detail than pictures do. What
`--bpp` chooses by is the text in the weight file, so it should be of pictures: this measures the
mean size of whole files, in bits per pixel of the original, and with --write puts it there. The
tensors stay as they are; the file's hash, and so the mark in files that it wrote, changes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from common import machine, parser, table
from PIL import Image

from restore.codec.engine import load_codec
from restore.data_pipelines.patches import picture_files
from restore.models.compact_codec_weights import read_head
from restore.weights import open_weights, save_weights

EXAMPLES = (
    "python benchmarks/codec_rates.py net.safetensors ../shared/data/bsds500/train",
    "python benchmarks/codec_rates.py net.safetensors PICTURES --count 40 --write",
)


def measured(weights: Path, pictures: list[Path]) -> list[float]:
    """Mean bits per pixel of each rate."""
    coder = load_codec("compact-codec", weights=str(weights), device="cpu")
    sums = np.zeros(len(coder.spec.rates))
    for path in pictures:
        with Image.open(path) as image:
            pixels = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
        for rate in range(len(sums)):
            packed = coder.compress(pixels[None].float() / 255, rate=rate)
            sums[rate] += 8 * len(packed["strings"][0][0]) / pixels[0].numel()
    return [float(value) for value in sums / len(pictures)]


def main() -> int:
    parse = parser(__doc__, examples=EXAMPLES)
    parse.add_argument("weights", type=Path)
    parse.add_argument("pictures", type=Path, help="folder of whole pictures")
    parse.add_argument("--count", type=int, default=24, help="pictures, evenly spread")
    parse.add_argument("--write", action="store_true", help="put the numbers into the file")
    options: argparse.Namespace = parse.parse_args()
    files = picture_files(options.pictures)
    chosen = files[:: max(1, len(files) // options.count)][: options.count]
    tensors, text = open_weights(options.weights)
    _, said = read_head(options.weights, text)
    found = measured(options.weights, chosen)
    print(machine())
    rows = [(i, f"{a:.4f}", f"{b:.4f}") for i, (a, b) in enumerate(zip(said, found, strict=True))]
    print(table(("rate", "bpp in the file", f"mean of {len(chosen)} pictures"), rows))
    if options.write:
        text["bpp"] = ",".join(f"{value:.4f}" for value in found)
        save_weights(options.weights, tensors, text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
