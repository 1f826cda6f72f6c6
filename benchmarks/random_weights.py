"""Random weights in the formats in which the one-step models are published.

For trying and timing the methods where their real weights cannot be had: what comes out is no
picture, but every file, tensor name, shape and multiplication is that of the published model.
`tiny` takes seconds; `full` is as large as the real thing (gigabytes).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from common import parser

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "models"))

import published
from published import FULL, TINY, BaseSize, filled, make_base, make_unet, make_vae

EXAMPLES = (
    "python benchmarks/random_weights.py osediff adcsr -o weights --size tiny",
    "restore image photo.jpg -n osediff --weights weights/osediff.pkl --base weights/sd21",
)


def make_osediff(folder: Path, size: BaseSize) -> str:
    """`osediff.pkl` and a base."""
    from published_osediff import make_osediff

    base = make_base(folder / "sd21", size)
    weights = folder / "osediff.pkl"
    make_osediff(weights, filled(make_unet(size), 1), make_vae(size), seed=9)
    return f"-n osediff --weights {weights} --base {base}"


def make_s3diff(folder: Path, size: BaseSize) -> str:
    """`s3diff.pkl`, `de_net.pth` and a base."""
    from published_s3diff import make_all

    weights, base = make_all(folder / "s3diff", size)
    return f"-n s3diff --weights {weights} --base {base}"


def make_invsr(folder: Path, size: BaseSize) -> str:
    """`noise_predictor_sd_turbo_v5.pth` and a base."""
    from published_invsr import FULL_PREDICTOR, TINY_PREDICTOR, make_invsr, make_turbo

    base = make_turbo(folder / "turbo", size)
    config = FULL_PREDICTOR if size is FULL else TINY_PREDICTOR
    weights = make_invsr(folder / "noise_predictor_sd_turbo_v5.pth", config, seed=5)
    return f"-n invsr --weights {weights} --base {base}"


def make_adcsr(folder: Path, size: BaseSize) -> str:
    """`net_params_200.pkl` and `halfDecoder.ckpt`."""
    import published_adcsr

    (folder / "adcsr").mkdir(exist_ok=True)
    config = published_adcsr.FULL if size is FULL else published_adcsr.TINY
    return f"-n adcsr --weights {published_adcsr.make_adcsr(folder / 'adcsr', config)}"


def make_flashvsr(folder: Path, size: BaseSize) -> str:
    """The folder of either version, with both decoders."""
    import published_flashvsr

    config = published_flashvsr.FULL if size is FULL else published_flashvsr.TINY
    return f"-n flashvsr --weights {published_flashvsr.make_folder(folder / 'flashvsr', config)}"


def make_dloral(folder: Path, size: BaseSize) -> str:
    """`model.pkl` and a base."""
    from published_dloral import make_all

    weights, base = make_all(folder / "dloral", size)
    return f"-n dloral --weights {weights} --base {base}"


def make_oscar(folder: Path, size: BaseSize) -> str:
    """`oscar.pkl` and a base that predicts v."""
    from published_oscar import make_all

    weights, base = make_all(folder / "oscar", size)
    return f"-n oscar --weights {weights} --base {base} -o OUT.oscar"


MAKERS: dict[str, Callable[[Path, BaseSize], str]] = {
    "osediff": make_osediff,
    "s3diff": make_s3diff,
    "invsr": make_invsr,
    "adcsr": make_adcsr,
    "flashvsr": make_flashvsr,
    "dloral": make_dloral,
    "oscar": make_oscar,
}
COMMANDS = {"flashvsr": "video", "dloral": "video", "oscar": "compress"}
"""What is not for pictures alone."""


def main() -> int:
    """Write the files, and say how they are used."""
    options = arguments()
    options.output.mkdir(parents=True, exist_ok=True)
    size = FULL if options.size == "full" else TINY
    for method in options.methods:
        command = COMMANDS.get(method, "image")
        print(f"restore {command} IN {MAKERS[method](options.output, size)}", flush=True)
    return 0


def arguments() -> argparse.Namespace:
    """The command line."""
    command = parser(published.__doc__, examples=EXAMPLES)
    command.add_argument("methods", nargs="+", choices=MAKERS, help="which")
    command.add_argument("-o", "--output", type=Path, default=Path("weights"), help="folder")
    command.add_argument("--size", choices=("tiny", "full"), default="tiny")
    return command.parse_args()


if __name__ == "__main__":
    sys.exit(main())
