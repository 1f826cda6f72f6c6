"""The network that says how bad a picture is."""

from __future__ import annotations

import pytest
import torch
from published import picture
from published_s3diff import make_estimator

from restore.models.parts import degradation_estimator
from restore.models.parts.degradation_estimator import DegradationEstimator, read_estimator


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> DegradationEstimator:
    return read_estimator(make_estimator(tmp_path_factory.mktemp("net") / "de_net.pth", seed=1))


def test_strips_do_not_change_the_degrees(
    net: DegradationEstimator, monkeypatch: pytest.MonkeyPatch
) -> None:
    low = picture(101, 9, 1)
    with torch.inference_mode():
        whole = net(low)
        monkeypatch.setattr(degradation_estimator, "STRIP", 22)
        strips = net(low)
        monkeypatch.setattr(degradation_estimator, "REACH", 4)
        too_near = net(low)
    torch.testing.assert_close(strips, whole, atol=1e-6, rtol=0)
    assert not torch.allclose(too_near, whole, atol=1e-6, rtol=0)
