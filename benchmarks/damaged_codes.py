"""10,000 damaged files of `restore compress`: flips, cuts, swaps, other versions, hostile sizes.

All are decoded in one process whose memory is limited and whose alarm rings when a file takes too
long. What is wanted is a picture or one line of error; a crash, a hang, a large allocation or any
other exception is a failure.
"""

from __future__ import annotations

import resource
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from types import FrameType

import numpy as np
import torch
from common import parser

from restore.codec.engine import Coder, load_codec
from restore.codec.job import read_coded
from restore.codec.pictures import check_alpha, picture_of
from restore.errors import RestoreError

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from codec.damage import HOSTILE_KINDS, PLAIN_KINDS, damaged

EXAMPLES = (
    "python benchmarks/damaged_codes.py",
    "python benchmarks/damaged_codes.py -n fake --count 1000",
)
SECONDS = 10
"""A file that takes longer hangs."""
ADDED = 1 << 30
"""Bytes that the process may take beyond what it has when the codec is loaded."""
MAX_PIXELS = 1_000_000


def fake_coder() -> Coder:
    """The codec of the tests: no network, so that the reader alone is tried."""
    import tempfile

    from codec.fake_codec import FakeCodec, coder

    import restore.codec.engine as engine
    from restore.weights import save_weights

    weights = Path(tempfile.mkdtemp()) / "fake.safetensors"
    save_weights(weights, {"x": torch.zeros(1)}, {})
    engine.codec_class = lambda name: FakeCodec
    engine.locate_weights = lambda name: weights
    return coder()


def originals(coder: Coder) -> list[bytes]:
    """Whole files of each rate, in two sizes."""
    generator = torch.Generator().manual_seed(0)
    files = []
    for height, width in ((70, 90), (200, 131)):
        coarse = torch.rand(1, 3, 9, 9, generator=generator)
        x = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bicubic")
        for rate in coder.rates:
            files += coder.compress(x.clamp(0, 1), rate=rate.index)["strings"][0]
    return files


def try_file(coder: Coder, data: bytes) -> str:
    """`picture`, or `error` for one line; anything else comes out as an exception."""
    try:
        file, _ = read_coded(data, max_pixels=MAX_PIXELS)
        coded = coder.read(file)
        check_alpha(file)
        picture_of(file, coder.decode(coded, file.width, file.height)[0])
    except RestoreError as error:
        assert str(error) and "\n" not in str(error), f"not one line: {error!r}"
        return "error"
    return "picture"


def too_long(_: int, __: FrameType | None) -> None:
    """Ends a file that hangs."""
    raise TimeoutError(f"more than {SECONDS} s")


def main() -> int:
    """Exit status 1 when a file made anything but a picture or one line."""
    arguments = parser(__doc__, examples=EXAMPLES)
    arguments.add_argument("-n", "--model", default="compact-codec", help="codec, or fake")
    arguments.add_argument("--weights", help="its weights")
    arguments.add_argument("--base", help="its base")
    arguments.add_argument("--count", type=int, default=10_000, help="files")
    arguments.add_argument("--seed", type=int, default=0)
    given = arguments.parse_args()
    if given.model == "fake":
        coder = fake_coder()
    else:
        coder = load_codec(given.model, weights=given.weights, base=given.base)
    files, rng = originals(coder), np.random.default_rng(given.seed)
    for data in files:
        assert try_file(coder, data) == "picture"
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + ADDED, used + ADDED))
    signal.signal(signal.SIGALRM, too_long)
    kinds = [*PLAIN_KINDS, *HOSTILE_KINDS]
    counts: Counter[tuple[str, str]] = Counter()
    slowest, failures = 0.0, []
    for i in range(given.count):
        kind = kinds[i % len(kinds)]
        data = damaged(files[int(rng.integers(len(files)))], kind, rng)
        start = time.perf_counter()
        signal.alarm(SECONDS)
        try:
            outcome = try_file(coder, data)
        except Exception as error:
            outcome = "FAILURE"
            failures.append(f"file {i} ({kind}): {type(error).__name__}: {error}")
        signal.alarm(0)
        slowest = max(slowest, time.perf_counter() - start)
        counts[kind, outcome] += 1
    print(f"{'damage':<14}{'one line':>10}{'picture':>10}{'failure':>10}")
    for kind in kinds:
        row = [counts[kind, outcome] for outcome in ("error", "picture", "FAILURE")]
        print(f"{kind:<14}{row[0]:>10}{row[1]:>10}{row[2]:>10}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(f"{given.count} files, slowest {slowest:.2f} s, peak memory {peak} MiB")
    print("\n".join(failures[:20]))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
