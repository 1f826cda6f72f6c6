"""Intervals cover, tests are exact where they can be, and equal pictures swallow nothing."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from restore.reports.statistics import (
    PSNR_CAP,
    compare,
    holm,
    interval,
    sign_flip_p,
    summarise,
)


def test_an_equal_picture_counts_as_the_cap_and_is_told() -> None:
    found = summarise([30.0, 40.0, math.inf], unit="dB", seed=0, name="psnr")
    assert found.mean == pytest.approx((30 + 40 + PSNR_CAP) / 3)
    assert found.equal == 1
    assert found.median == 40
    assert summarise([math.inf, math.inf], unit="dB", seed=0, name="psnr").mean == math.inf
    # Values of other units are as they are.
    assert summarise([200.0, 400.0], unit="", seed=0, name="bytes").mean == 300


def test_one_file_has_no_interval() -> None:
    found = summarise([3.0], unit="", seed=0, name="x")
    assert (found.mean, found.low, found.high, found.deviation) == (3.0, None, None, None)


def test_the_interval_is_that_of_the_normal_law() -> None:
    values = np.random.default_rng(1).normal(5, 2, 400)
    low, high = interval(values, seed=0, name="x")
    half = 1.96 * values.std() / math.sqrt(400)
    # 2,000 draws place a percentile of the mean to about 3 % of the width.
    assert low == pytest.approx(values.mean() - half, abs=0.15 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.15 * half)


def test_few_differences_are_tested_exactly() -> None:
    gaps = np.array([0.3, -0.1, 0.7, 0.2, 0.4])
    sums = [abs(np.dot(s, gaps)) for s in itertools.product((1, -1), repeat=5)]
    expected = np.mean([s >= abs(gaps.sum()) - 1e-12 for s in sums])
    assert sign_flip_p(gaps, seed=0, name="x") == expected


def test_many_differences_agree_with_the_normal_law() -> None:
    gaps = np.random.default_rng(2).normal(0.13, 1, 300)
    z = gaps.sum() / math.sqrt(float(np.square(gaps).sum()))
    expected = math.erfc(abs(z) / math.sqrt(2))
    # Of 9,999 draws the standard error of p is below 0.005.
    assert sign_flip_p(gaps, seed=0, name="x") == pytest.approx(expected, abs=0.015)
    assert sign_flip_p(gaps + 1, seed=0, name="x") == 1e-4


def test_no_difference_is_no_significance() -> None:
    assert sign_flip_p(np.zeros(40), seed=0, name="x") == 1


def test_holm_is_the_published_correction() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.6, 0.9]) == [1.0, 1.0]


@pytest.mark.parametrize("lower_better", [False, True])
def test_the_best_is_judged_on_the_files_of_all(lower_better: bool) -> None:
    sign = -1 if lower_better else 1
    keys = [f"k{i}" for i in range(20)]
    a = {key: sign * (1.0 + i % 3) for i, key in enumerate(keys)}
    b = {key: value + sign * 0.5 for key, value in a.items()}
    a["only"] = sign * 1e6  # b has no such file
    found = compare("m", {"a": a, "b": b, "none": {}}, unit="", lower_better=lower_better, seed=0)
    assert [(one.best, one.method, one.count) for one in found] == [("b", "a", 20)]
    assert found[0].difference == pytest.approx(-sign * 0.5)
    assert found[0].significant


def test_the_same_seed_gives_the_same_numbers() -> None:
    values = np.random.default_rng(3).normal(size=50)
    assert interval(values, seed=4, name="a") == interval(values, seed=4, name="a")
    assert interval(values, seed=4, name="a") != interval(values, seed=5, name="a")
