"""A stream gives every frame, in order, as the whole clip would."""

from pathlib import Path

import pytest
import torch
from fake_method import fake_restorer

from restore.streaming import FrameStream

WINDOWS = [(0, 0), (1, 0), (0, 1), (2, 3)]


@pytest.mark.parametrize(("before", "after"), WINDOWS)
@pytest.mark.parametrize("count", [1, 2, 3, 9])
def test_frames_in_equal_frames_out_and_match_the_whole_clip(
    before: int, after: int, count: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    spec = {"frames_before": before, "frames_after": after}
    restorer = fake_restorer(monkeypatch, tmp_path, spec=spec)
    clip = torch.rand(count, 3, 8, 10)
    stream = FrameStream(restorer)
    results = [r for i, frame in enumerate(clip) for r in stream.push(frame, i)]
    results += stream.flush()
    assert [index for index, _ in results] == list(range(count))
    whole = restorer.restore(clip[None])[0]
    torch.testing.assert_close(torch.stack([frame for _, frame in results]), whole)


def test_nothing_crosses_a_reset(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    spec = {"frames_before": 2, "frames_after": 1}
    restorer = fake_restorer(monkeypatch, tmp_path, spec=spec)
    scene = torch.rand(4, 3, 8, 8)

    def run(lead: torch.Tensor) -> torch.Tensor:
        stream = FrameStream(restorer)
        for i, frame in enumerate(lead):
            stream.push(frame, i)
        stream.flush()
        results = [r for i, frame in enumerate(scene) for r in stream.push(frame, 10 + i)]
        return torch.stack([frame for _, frame in results + stream.flush()])

    assert torch.equal(run(torch.rand(3, 3, 8, 8)), run(torch.zeros(0, 3, 8, 8)))


def test_the_result_has_the_size_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stream = FrameStream(fake_restorer(monkeypatch, tmp_path), size=(33, 17))
    (result,) = stream.push(torch.rand(3, 8, 10), 0)
    assert result[1].shape == (3, 17, 33)
