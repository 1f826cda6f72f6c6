"""The engine of codecs: any size, both APIs, files that are of other weights, codecs or rates."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from codec.fake_codec import RATES, SPEC, FakeCodec, coder
from torch import Tensor

from restore.bitstream import OWN, read_container, write_container
from restore.codec.contract import Codec, Coded
from restore.codec.search import Trial, best_below, lowest_with, measure
from restore.errors import InputError, MissingExtraError, OptionError, RestoreError

pytestmark = pytest.mark.usefixtures("fake")

SIZES = [
    *[(1, 1), (1, 7), (33, 1), (2, 2), (31, 32), (32, 32), (33, 32), (63, 65), (64, 64)],
    *[(97, 101), (100, 75), (127, 129), (128, 96), (160, 5), (5, 160), (211, 99), (240, 135)],
    *[(255, 255), (256, 256), (257, 256), (300, 200), (321, 199), (333, 17), (400, 300)],
]
"""24 sizes, (width, height)."""


def picture(width: int, height: int) -> Tensor:
    """A smooth picture `(1, 3, H, W)` in [0, 1]."""
    y = torch.linspace(0, 1, height)[:, None].expand(height, width)
    x = torch.linspace(0, 1, width)[None].expand(height, width)
    return torch.stack([x, y, 0.5 * (x + y)])[None]


def files(folder: Path) -> list[Path]:
    """Files of all sizes and rates, written by this process."""
    engine = coder()
    for i, (width, height) in enumerate(SIZES):
        data = engine.compress(picture(width, height), rate=RATES[i % 4].index)["strings"][0][0]
        (folder / f"{i:02}.rsc").write_bytes(data)
    return sorted(folder.glob("*.rsc"))


def test_the_fake_is_a_codec() -> None:
    assert isinstance(FakeCodec(), Codec)


@pytest.mark.parametrize("size", SIZES)
def test_every_size_and_rate_comes_back(size: tuple[int, int]) -> None:
    width, height = size
    engine, x = coder(), picture(width, height)
    for rate in RATES:
        coded = engine.encode(x, rate.index)
        data = engine.write(coded, width, height)
        found = engine.read(read_container(data))
        assert torch.equal(found.indices, coded.indices) and torch.equal(found.side, coded.side)
        padded = [-(-side // 32) * 32 for side in size]
        assert found.indices.shape[1:] == (padded[1] // rate.stride, padded[0] // rate.stride)
        decoded = engine.decode(found, width, height)
        assert decoded.shape == x.shape and decoded.dtype == torch.float32
        # The fake keeps means of squares of one gray, or of colours: half a square, and the gray.
        assert (decoded - x).abs().mean() < 0.5


def test_another_process_with_other_threads_and_formats_reads_the_same_indices(
    tmp_path: Path, weights: Path
) -> None:
    """Sync depends on no float: one thread in bf16 there, two in fp32 here."""
    paths = files(tmp_path)
    code = """
        import sys, torch
        from pathlib import Path
        torch.set_num_threads(int(sys.argv[1]))
        sys.path.insert(0, sys.argv[3])
        import restore.codec.engine as engine
        from codec.fake_codec import FakeCodec, coder
        from restore.bitstream import read_container
        engine.codec_class = lambda name: FakeCodec
        engine.locate_weights = lambda name: Path(sys.argv[4])
        made = coder(dtype=sys.argv[2])
        for path in sys.argv[5:]:
            file = read_container(Path(path).read_bytes())
            coded = made.read(file)
            made.decode(coded, file.width, file.height)
            print(coded.indices.numpy().tobytes().hex(), coded.side.tolist())
    """
    source = "\n".join(line[8:] for line in code.splitlines())
    arguments = ["1", "bf16", str(Path(__file__).parents[1]), str(weights), *map(str, paths)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", source, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    engine = coder()
    here = [engine.read(read_container(path.read_bytes())) for path in paths]
    lines = [f"{one.indices.numpy().tobytes().hex()} {one.side.tolist()}" for one in here]
    assert done.stdout.splitlines() == lines


def test_the_overhead_of_a_file_is_24_bytes_beside_side_values_and_indices() -> None:
    x = torch.rand(1, 3, 512, 512, generator=torch.Generator().manual_seed(0))
    data = coder().compress(x, rate=0)["strings"][0][0]
    packed = 16 * 16 * 4 // 8
    assert len(data) - 2 * SPEC.side_values - packed <= 24


def test_compressais_calls_give_the_shape_and_the_pictures() -> None:
    engine = coder()
    batch = torch.cat([picture(70, 50), 1 - picture(70, 50)])
    packed = engine.compress(batch, bpp=0.4)
    assert packed["shape"] == (50, 70) and [len(group) for group in packed["strings"]] == [2]
    found = engine.decompress(packed["strings"], packed["shape"])["x_hat"]
    assert found.shape == batch.shape
    assert (found - batch).abs().mean() < 0.05
    with pytest.raises(InputError, match="70x50"):
        engine.decompress(packed["strings"], (70, 50))
    with pytest.raises(OptionError, match="has no rate 5"):
        engine.compress(batch, rate=5)
    with pytest.raises(OptionError, match=r"give \(B, 3, H, W\)"):
        engine.compress(batch[0])


@pytest.mark.parametrize(("bpp", "rate"), [(0.001, 0), (0.011, 0), (0.012, 1), (0.1, 2), (9, 7)])
def test_the_nearest_rate_is_taken(bpp: float, rate: int) -> None:
    assert coder().rate_near(bpp).index == rate
    assert coder().rate_near(None).index == 2


def test_files_of_others_are_refused_in_one_line() -> None:
    engine = coder()
    file = read_container(engine.compress(picture(40, 40))["strings"][0][0])
    for change, message in (
        ({"codec": "oscar"}, "codec 'oscar' made it and 'fake' is loaded"),
        ({"weights": bytes(8)}, f"weights {'00' * 8} of 'fake' made it, and {engine.id.hex()}"),
        ({"rate": 9}, "its rate is 9; 'fake' has 0, 1, 2, 7"),
        ({"width": 4000, "coding": 0}, "are there"),
        ({"width": 2**28 - 1, "height": 2**28 - 1, "coding": 0}, "are there"),
        ({"width": 2**28 - 1, "height": 2**28 - 1, "coding": 2}, "number up to 16|promises"),
        ({"body": file.body[:3]}, "2 side values are not whole"),
        ({"body": b"\0\x7c" + file.body[2:]}, "2 side values are not whole"),
        ({"coding": OWN}, "does not"),
    ):
        with pytest.raises(InputError, match=message) as error:
            engine.read(read_container(write_container(replace(file, **change))))  # type: ignore
        assert "\n" not in str(error.value)
    other = replace(file, weights=bytes(8))
    assert torch.equal(engine.read(other, force=True).indices, engine.read(file).indices)


def test_a_codec_may_write_its_indices_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    def write(self: Any, coded: Coded) -> bytes:
        return coded.indices.numpy().astype("<u2").tobytes()

    def read(self: Any, payload: bytes, rate: int, height: int, width: int) -> Tensor:
        count = SPEC.rate(rate).planes * height * width
        if len(payload) < 2 * count:
            raise InputError("its indices are cut off; get a whole copy")
        found = np.frombuffer(payload[: 2 * count], "<u2").astype(np.int32)
        return torch.from_numpy(found).reshape(-1, height, width)

    engine, x = coder(), picture(50, 40)
    monkeypatch.setattr(type(engine.codec), "write_payload", write, raising=False)
    monkeypatch.setattr(type(engine.codec), "read_payload", read, raising=False)
    coded = engine.encode(x, 7)
    file = read_container(engine.write(coded, 50, 40))
    assert file.coding == OWN
    assert torch.equal(engine.read(file).indices, coded.indices)
    with pytest.raises(InputError, match="promises"):
        engine.read(replace(file, width=1 << 20, height=1 << 20))


def test_nan_in_a_short_format_is_decoded_again_in_fp32() -> None:
    engine = coder(dtype="bf16")
    engine.codec.nan_below_fp32 = True  # type: ignore[attr-defined]
    x = picture(40, 40)
    coded = engine.encode(x, 7)
    assert bool(torch.isfinite(engine.decode(coded, 40, 40)).all())
    assert engine.codec.dtype == torch.bfloat16  # type: ignore[attr-defined]


def test_tiles_are_halved_when_memory_runs_out_or_one_line_says_so() -> None:
    engine = coder({"own_tiles": 512})
    engine._tile = 512
    engine.codec.memory_limit = 600  # type: ignore[attr-defined]
    engine.encode(picture(64, 64), 0)
    assert engine.codec.side == 128  # type: ignore[attr-defined]
    engine = coder()
    engine.codec.memory_limit = 600  # type: ignore[attr-defined]
    with pytest.raises(RestoreError, match="memory on cpu does not suffice"):
        engine.encode(picture(64, 64), 0)


def test_a_picture_that_cannot_fit_is_refused_before_it_is_made() -> None:
    engine = coder({"bytes_per_pixel": 1 << 40})
    with pytest.raises(InputError, match="GiB of memory"):
        engine.encode(picture(64, 64), 0)


def test_published_tiling_resizes_down_to_the_multiple() -> None:
    engine = coder(tiling="published")
    assert engine.fitted(picture(100, 70)).shape == (1, 3, 64, 96)
    assert engine.fitted(picture(10, 32)).shape == (1, 3, 32, 32)
    assert coder().fitted(picture(100, 70)).shape == (1, 3, 70, 100)


def test_options_that_the_codec_lacks_are_refused() -> None:
    for settings in ({"tile": 64}, {"base": "x"}):
        with pytest.raises(OptionError, match="leave --"):
            coder(**settings)
    coder(posterior="mode")


def test_the_best_rate_below_a_size_is_found() -> None:
    x = torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(1))
    trial = Trial(coder=coder(), pixels=x)
    sizes = {rate.index: len(trial.file(rate)) for rate in RATES}
    assert sorted(sizes.values()) == list(sizes.values())
    for rate in RATES:
        assert best_below(trial, sizes[rate.index]).index == rate.index
    assert best_below(trial, 10**6).index == 7
    with pytest.raises(InputError, match=f"its smallest file has {sizes[0]} bytes"):
        best_below(trial, sizes[0] - 1)


def test_the_lowest_rate_that_is_good_enough_is_found() -> None:
    trial = Trial(coder=coder(), pixels=picture(128, 96))
    values = [measure("psnr", trial.decoded(rate), trial.pixels) for rate in RATES]
    assert values[1] < values[2] < values[3]
    assert lowest_with(trial, "psnr", values[2]).index == 2
    assert lowest_with(trial, "psnr", values[2] + 0.01).index == 7
    assert lowest_with(trial, "ssim", 0.01).index == 0
    with pytest.raises(InputError, match=f"has psnr {values[3]:.4g} and not 99"):
        lowest_with(trial, "psnr", 99)


def test_lpips_that_is_missing_names_what_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lpips", None)
    with pytest.raises(MissingExtraError, match=r"lpips is not installed.*run pip install"):
        measure("lpips", picture(9, 9), picture(9, 9))
