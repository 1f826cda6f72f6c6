"""A run over folders: right numbers, one bad file stops nothing, every format holds them."""

from __future__ import annotations

import csv
import json
import math
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from restore.codec.job import compress_images
from restore.errors import InputError, OptionError
from restore.metrics import ms_ssim, psnr, ssim
from restore.reports import job
from restore.reports.config import ReportConfig
from restore.reports.events import Left, Measured, ReportEvent
from restore.reports.job import run
from restore.reports.report import Report

Pixels = npt.NDArray[Any]


def noisy(picture: Pixels, sigma: float, seed: int = 0) -> Pixels:
    top = np.iinfo(picture.dtype).max
    noise = np.random.default_rng(seed).normal(0, sigma / 255 * top, picture.shape)
    return np.clip(picture + noise, 0, top).round().astype(picture.dtype)


@pytest.fixture
def folders(tmp_path: Path, make_picture: Callable[..., Pixels]) -> Path:
    """`hr`, and the results `good` and `bad`, of four pictures of different sizes."""
    for name in ("hr", "good", "bad"):
        (tmp_path / name).mkdir()
    for number in range(4):
        true = make_picture(70 + 6 * number, 60)
        Image.fromarray(true).save(tmp_path / "hr" / f"p{number}.png")
        for name, sigma in (("good", 4), ("bad", 12)):
            result = noisy(true, sigma, number)
            Image.fromarray(result).save(tmp_path / name / f"p{number}_x4.png")
    return tmp_path


def measured(folder: Path, *metrics: str, **more: Any) -> Report:
    restored = more.pop("restored", (str(folder / "good"),))
    reference = more.pop("reference", str(folder / "hr"))
    return run(ReportConfig(restored=restored, reference=reference, metric=metrics, **more))


def read(path: Path) -> Pixels:
    return np.asarray(Image.open(path))


def test_numbers_are_those_of_the_metrics(folders: Path) -> None:
    report = measured(folders, "psnr", "psnr-rgb", "ssim", "ssim-rgb", crop_border=4)
    assert report.ok
    for result in report.results:
        image, true = read(folders / "good" / f"{result.pair.key}_x4.png"), None
        true = read(folders / "hr" / f"{result.pair.key}.png")
        assert result.values == {
            "psnr": psnr(image, true, crop_border=4),
            "psnr-rgb": psnr(image, true, channel="rgb", crop_border=4),
            "ssim": ssim(image, true, crop_border=4),
            "ssim-rgb": ssim(image, true, channel="rgb", crop_border=4),
        }


def independent(image: Pixels, true: Pixels) -> dict[str, float]:
    """PSNR, SSIM and MS-SSIM of luma by PyTorch's convolutions, from the papers."""
    weights = torch.tensor([65.481, 128.553, 24.966], dtype=torch.float64) / 255
    x, y = (
        (torch.from_numpy(one.astype(np.float64)) @ weights + 16)[None, None]
        for one in (image, true)
    )
    line = torch.exp(-((torch.arange(11, dtype=torch.float64) - 5) ** 2) / 4.5)
    window = (line / line.sum())[None, None]

    def maps(a: torch.Tensor, b: torch.Tensor) -> tuple[float, float]:
        def mean(z: torch.Tensor) -> torch.Tensor:
            return F.conv2d(F.conv2d(z, window[..., None]), window[..., None, :])

        m, n = mean(a), mean(b)
        spread = mean(a * a) - m * m + mean(b * b) - n * n
        structure = (2 * (mean(a * b) - m * n) + 58.5225) / (spread + 58.5225)
        light = (2 * m * n + 6.5025) / (m * m + n * n + 6.5025)
        return float((light * structure).mean()), float(structure.mean())

    found = {"psnr": 10 * math.log10(255**2 / float((x - y).square().mean()))}
    found["ssim"] = maps(x, y)[0]
    product = 1.0
    for scale, weight in enumerate((0.0448, 0.2856, 0.3001, 0.2363, 0.1333)):
        product *= max(0.0, maps(x, y)[0 if scale == 4 else 1]) ** weight
        x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
    return found | {"ms-ssim": product}


def test_ms_ssim_agrees_with_an_independent_computation(
    make_picture: Callable[..., Pixels],
) -> None:
    true = make_picture(192, 176)
    for image in (noisy(true, 10), 255 - true):  # the second has negative structure
        expected = independent(image, true)
        # Both are float64; what differs is the order of sums.
        assert psnr(image, true) == pytest.approx(expected["psnr"], abs=1e-9)
        assert ssim(image, true) == pytest.approx(expected["ssim"], abs=1e-9)
        assert ms_ssim(image, true) == pytest.approx(expected["ms-ssim"], abs=1e-9)


def test_ms_ssim_has_a_smallest_size_and_takes_odd_ones(
    make_picture: Callable[..., Pixels],
) -> None:
    true = make_picture(161, 175)
    assert ms_ssim(true, true, channel="rgb") == pytest.approx(1, abs=1e-12)
    assert 0 < ms_ssim(noisy(true, 10), true, channel="rgb") < 1
    with pytest.raises(InputError, match="161x161"):
        ms_ssim(true[:160], true[:160])


def test_real_pictures_agree_with_an_independent_computation(
    shared_data: Path, tmp_path: Path
) -> None:
    truth = sorted((shared_data / "realsr" / "hr").iterdir())[:2]
    for path in truth:
        with Image.open(shared_data / "realsr" / "lr" / path.name) as small:
            large = small.convert("RGB").resize((512, 512), Image.Resampling.BICUBIC)
        large.save(tmp_path / path.name, compress_level=1)
    report = run(
        ReportConfig(
            restored=(str(tmp_path),),
            reference=str(truth[0].parent),
            metric=("psnr", "ssim", "ms-ssim"),
        )
    )
    assert len(report.unpaired) == 98
    for result in report.results:
        assert result.pair.reference is not None
        expected = independent(read(result.pair.restored), read(result.pair.reference))
        assert result.values == pytest.approx(expected, abs=1e-9)


def test_the_numbers_do_not_depend_on_the_workers(folders: Path) -> None:
    one, four = (measured(folders, "psnr", "ssim", workers=n) for n in (1, 4))
    assert [r.values for r in one.results] == [r.values for r in four.results]
    assert [r.pair.key for r in four.results] == ["p0", "p1", "p2", "p3"]


def test_pictures_are_let_go(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many pairs there are, only those in work are held."""
    held, most, lock = set[int](), [0], threading.Lock()
    real = job.measure_picture

    def watch(pair: Any, *args: Any) -> Any:
        with lock:
            held.add(id(pair))
            most[0] = max(most[0], len(held))
        try:
            return real(pair, *args)
        finally:
            with lock:
                held.discard(id(pair))

    monkeypatch.setattr(job, "measure_picture", watch)
    begun = []
    real_next = job._next
    monkeypatch.setattr(job, "_next", lambda rest, n: begun.append(n) or real_next(rest, n))
    measured(folders, "psnr", workers=2)
    assert most[0] <= 2
    assert max(begun) <= 4  # begun or waiting, of two workers


def test_one_bad_file_stops_nothing(folders: Path) -> None:
    whole = (folders / "good" / "p1_x4.png").read_bytes()
    (folders / "good" / "p1_x4.png").write_bytes(whole[: len(whole) // 2])
    Image.new("RGB", (50, 50)).save(folders / "good" / "p2_x4.png")
    (folders / "good" / "stray.png").write_bytes(b"")
    (folders / "hr" / "lonely.png").write_bytes(b"")
    events: list[ReportEvent] = []
    config = ReportConfig(restored=(str(folders / "good"),), reference=str(folders / "hr"))
    report = run(config, events.append)
    assert not report.ok
    failed = {r.pair.key: r.failed or "" for r in report.failed}
    assert set(failed) == {"p1", "p2"}
    assert "damaged or cut off" in failed["p1"]
    assert "50x50" in failed["p2"]
    assert "82x60" in failed["p2"]
    assert str(folders) not in " ".join(failed.values())  # a report goes to others
    assert {one.name for one in report.unpaired} == {"stray.png", "lonely.png"}
    assert len(report.values("psnr")["good"]) == 2
    assert sum(isinstance(event, Measured) for event in events) == 4
    assert sum(isinstance(event, Left) for event in events) == 2


@pytest.mark.parametrize("fit", ["crop", "resize"])
def test_sizes_are_made_alike_only_when_asked(folders: Path, fit: Any) -> None:
    with Image.open(folders / "good" / "p0_x4.png") as image:
        image.crop((0, 0, 64, 56)).save(folders / "good" / "p0_x4.png")
    report = measured(folders, "psnr", fit=fit)
    assert report.ok
    first = report.results[0]
    assert first.size == ((64, 56) if fit == "crop" else (70, 60))
    assert "the result has 64x56" in first.notes[0]
    if fit == "crop":
        true = read(folders / "hr" / "p0.png")[:56, :64]
        assert first.values["psnr"] == psnr(read(folders / "good" / "p0_x4.png"), true)


def test_equal_gray_deep_and_transparent_pictures(
    tmp_path: Path, make_picture: Callable[..., Pixels]
) -> None:
    for name in ("hr", "good"):
        (tmp_path / name).mkdir()
    color = make_picture(40, 30)
    gray = make_picture(40, 30, 1)
    deep = make_picture(40, 30, 1, np.uint16)
    clear = np.dstack([color, np.full((30, 40), 255, np.uint8)])
    clear[:, :20, 3] = 0
    painted = clear.copy()
    painted[:, :20, :3] = 99  # nobody sees it
    for name, one, other in (
        ("equal", color, color),
        ("gray", gray, noisy(gray, 5)),
        ("deep", deep, noisy(deep, 5)),
        ("clear", clear, painted),
    ):
        Image.fromarray(one).save(tmp_path / "hr" / f"{name}.png")
        Image.fromarray(other).save(tmp_path / "good" / f"{name}.png")
    report = measured(tmp_path, "psnr", "ssim")
    assert report.ok
    values = report.values("psnr")["good"]
    assert values["equal"] == math.inf
    assert values["clear"] == math.inf
    # As BasicSR, which reads gray as three equal channels: luma spans 219 of 255.
    three = [np.dstack([one] * 3) for one in (noisy(gray, 5), gray)]
    assert values["gray"] == pytest.approx(psnr(*three), abs=1e-9)
    three = [np.dstack([one] * 3) for one in (noisy(deep, 5), deep)]
    assert values["deep"] == pytest.approx(psnr(*three), abs=1e-9)
    assert report.summaries["psnr", "good"].equal == 2
    assert any("on white" in note for note in report.results[0].notes)


def test_methods_are_compared_on_the_same_files(folders: Path) -> None:
    (folders / "bad" / "p3_x4.png").unlink()
    both = (f"good={folders / 'good'}", f"bad={folders / 'bad'}")
    report = measured(folders, "psnr", "bytes", restored=both)
    spec = report.metrics[0]
    assert report.standing(spec, "good") == "best"
    # Three pairs can give no p below 1/4: nothing is claimed from them.
    assert report.standing(spec, "bad") == "tied"
    (one,) = report.comparisons["psnr"]
    assert (one.best, one.method, one.count, one.p) == ("good", "bad", 3, 0.25)
    assert report.summaries["psnr", "good"].count == 3
    assert report.files_of("good") == "4, 3 in common"
    assert not report.ok


def test_coded_pictures_get_their_bits_per_pixel(folders: Path) -> None:
    for number in range(1, 4):  # one is enough: the codec's network takes its time
        (folders / "hr" / f"p{number}.png").unlink()
    coded, jpegs = folders / "coded", folders / "jpegs"
    compress_images(str(folders / "hr"), output=str(coded), device="cpu")
    jpegs.mkdir()
    with Image.open(folders / "hr" / "p0.png") as image:
        image.save(jpegs / "p0.jpg", quality=30)
    both = (f"coded={coded}", f"jpeg={jpegs}")
    report = measured(folders, "psnr-rgb", restored=both)
    assert report.ok, [r.failed for r in report.failed]
    first = report.results[0]
    assert first.pair.restored.suffix == ".rsc"
    size = first.pair.restored.stat().st_size
    assert first.values["bytes"] == size
    assert first.values["bpp"] == 8 * size / (70 * 60)
    report.write(folders / "curve.json")
    content = json.loads((folders / "curve.json").read_text())
    assert set(content["results"]) == {"psnr-rgb", "bpp", "bytes"}
    assert content["results"]["bpp"] == sorted(content["results"]["bpp"])
    assert sorted(content["points"]) == ["coded", "jpeg"]


def test_a_metric_that_refuses_one_file_is_told_of_it(folders: Path) -> None:
    report = measured(folders, "psnr", "ms-ssim")
    assert {tuple(r.problems) for r in report.results} == {("ms-ssim",)}
    assert report.mean(report.metrics[1], "good") is None
    assert not report.ok


def test_what_cannot_be_meant_is_refused_before_any_work(folders: Path) -> None:
    with pytest.raises(OptionError, match="no metric"):
        measured(folders, "psrn")
    with pytest.raises(OptionError, match="compares with a reference"):
        measured(folders, "psnr", reference=None)
    with pytest.raises(OptionError, match="for clips"):
        measured(folders, "warping-error")
    (folders / "old.html").write_text("mine")
    with pytest.raises(OptionError, match="--overwrite"):
        measured(folders, "psnr", output=(str(folders / "old.html"),))
    with pytest.raises(OptionError, match="does not end like a report"):
        ReportConfig(output=("report.pdf",))
    with pytest.raises(OptionError, match="crop border -1"):
        ReportConfig(crop_border=-1)


def test_csv_and_json_hold_every_number(folders: Path) -> None:
    Image.open(folders / "hr" / "p0.png").save(folders / "good" / "p0_x4.png")  # equal
    report = measured(folders, "psnr", "ssim")
    for suffix in ("csv", "json"):
        report.write(folders / f"r.{suffix}")
    rows = list(csv.DictReader((folders / "r.csv").open(encoding="utf-8")))
    assert [row["name"] for row in rows] == ["p0", "p1", "p2", "p3", "mean"]
    for row, result in zip(rows, report.results, strict=False):
        assert float(row["psnr"]) == result.values["psnr"]
    assert float(rows[-1]["ssim"]) == report.summaries["ssim", "good"].mean
    content = json.loads((folders / "r.json").read_text(encoding="utf-8"))
    assert content["items"][0]["values"]["psnr"] == "inf"
    assert content["items"][1]["values"]["psnr"] == report.results[1].values["psnr"]
    facts = {spec["name"]: spec for spec in content["metrics"]}
    assert facts["psnr"]["better"] == "higher"
    assert "BT.601" in facts["psnr"]["color"]
    assert facts["psnr"]["version"] == content["restore"]
    assert content["settings"]["crop_border"] == 0
    assert content["results"]["psnr-y"] == [report.summaries["psnr", "good"].mean]
