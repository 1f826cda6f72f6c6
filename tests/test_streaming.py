"""A stream gives every frame, in order, as the whole clip would."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from fake_method import FakeClip, fake_restorer
from safetensors.torch import load, save

from restore.errors import RestoreError
from restore.flow import follow
from restore.resampling import resample
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


RECURRENT = {"recurrent": True}


def moving(count: int) -> torch.Tensor:
    """A noisy texture that goes two pixels to the right with every frame, `(T, 3, 40, 56)`."""
    cells = torch.rand(1, 3, 10, 30)
    wide = F.interpolate(cells, scale_factor=4, mode="bicubic").clamp(0, 1)[0]
    frames = [wide[..., 60 - 2 * i : 116 - 2 * i] for i in range(count)]
    return (torch.stack(frames) + 0.02 * torch.randn(count, 3, 40, 56)).clamp(0, 1)


def pushed(stream: FrameStream, clip: torch.Tensor, first: int = 0) -> torch.Tensor:
    """Results of the frames of a clip, numbered from `first`, without a flush."""
    results = [r for i, frame in enumerate(clip, first) for r in stream.push(frame, i)]
    assert [index for index, _ in results] == list(range(first, first + len(clip)))
    return torch.stack([frame for _, frame in results])


@pytest.mark.parametrize("size", [None, (70, 51)])
def test_each_result_goes_on_from_the_last_one_moved_along(
    size: tuple[int, int] | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    restorer = fake_restorer(monkeypatch, tmp_path, spec=RECURRENT)
    clip = moving(4)
    results = pushed(FrameStream(restorer, size=size), clip)
    last = None
    for i, frame in enumerate(clip):
        past: dict[str, torch.Tensor] = {}
        if last is not None:
            previous, trusted = follow(frame, previous=clip[i - 1], result=last, scale=2)
            past = {"previous": previous, "trust": trusted}
        last = restorer.restore_frames(frame[None, None], index=i, **past)[0, 0]
        wanted = last if size is None else resample(last, size)
        # The stream keeps the last frame and result in fp16, which moves the flow a little.
        assert float((results[i] - wanted).abs().mean()) < 1e-3


def test_a_still_clip_becomes_steadier_and_frame_by_frame_does_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    restorer = fake_restorer(monkeypatch, tmp_path, spec=RECURRENT)
    scene = F.interpolate(torch.rand(1, 3, 6, 8), (40, 56), mode="bicubic")[0]
    clip = (0.1 + 0.8 * scene + 0.03 * torch.randn(10, 3, 40, 56)).clamp(0, 1)

    def change(results: torch.Tensor) -> float:
        return float(results[4:].diff(dim=0).square().mean())

    alone = torch.cat([restorer.restore_frames(f[None, None])[0] for f in clip])
    still = pushed(FrameStream(restorer, temporal=False), clip)
    assert torch.equal(still, alone)
    # Half of each result is the past: noise falls to a third, its change to a sixth.
    assert change(pushed(FrameStream(restorer), clip)) < 0.3 * change(alone)


def test_a_cut_forgets_the_last_result(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    restorer = fake_restorer(monkeypatch, tmp_path, spec=RECURRENT)
    scene = moving(3)

    def run(lead: torch.Tensor, *, cut: bool) -> torch.Tensor:
        stream = FrameStream(restorer)
        for i, frame in enumerate(lead):
            stream.push(frame, i)
        if cut:
            stream.flush()
            stream.reset()
        return pushed(stream, scene, 10)

    fresh = run(scene[:0], cut=False)
    assert torch.equal(run(moving(3), cut=True), fresh)
    assert not torch.equal(run(scene, cut=False), fresh)


@pytest.mark.parametrize("at", [0, 1, 3, 5])
def test_broken_off_and_gone_on_equals_the_whole(
    at: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The state goes through a file, as that of a killed run does."""
    restorer = fake_restorer(monkeypatch, tmp_path, spec=RECURRENT)
    clip = moving(6)
    whole = pushed(FrameStream(restorer, size=(70, 51)), clip)
    first, second = (FrameStream(restorer, size=(70, 51)) for _ in range(2))
    for i in range(at):
        first.push(clip[i], i)
    stored = load(save(dict(first.state())))
    for i in range(at, 6):  # the first stream runs on: what was taken out of it stays as it is
        first.push(clip[i], i)
    second.restore_state(stored)
    assert torch.equal(pushed(second, clip[at:], at), whole[at:])


def test_only_a_recurrent_stream_has_a_state(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    clip = moving(2)
    plain = FrameStream(fake_restorer(monkeypatch, tmp_path, spec={"frames_before": 1}))
    pushed(plain, clip)
    assert plain.state() == {}
    stream = FrameStream(fake_restorer(monkeypatch, tmp_path, spec=RECURRENT))
    assert stream.state() == {}
    pushed(stream, clip)
    state = stream.state()
    assert {key: tuple(value.shape) for key, value in state.items()} == {
        "frame": (3, 40, 56),
        "result": (3, 80, 112),
    }
    stream.reset()
    assert stream.state() == {}
    for wrong in ({"frame": state["frame"]}, {**state, "result": state["frame"]}):
        with pytest.raises(ValueError, match="frame"):
            stream.restore_state(wrong)
    with pytest.raises(ValueError, match="carries nothing over"):
        plain.restore_state(state)


def through(stream: FrameStream, clip: torch.Tensor, first: int = 0) -> torch.Tensor:
    """All results of a clip whose frames are numbered from `first`."""
    results = [r for i, frame in enumerate(clip, first) for r in stream.push(frame, i)]
    return torch.stack([frame for _, frame in results + stream.flush()])


STREAMING = {"streaming": True, "size_multiple": 4, "min_size": 12}


@pytest.mark.parametrize("count", [1, 3, 6, 7, 12])
def test_a_streaming_method_gives_every_frame_in_groups(
    count: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Padded on the way in, cropped on the way out, in its groups, with nothing left inside."""
    restorer = fake_restorer(monkeypatch, tmp_path, spec=STREAMING, seed=3)
    clip = torch.rand(count, 3, 9, 14)
    stream = FrameStream(restorer)
    groups = [stream.push(frame, i) for i, frame in enumerate(clip)]
    assert {i: len(group) for i, group in enumerate(groups) if group} == {
        i: n for i, n in {5: 4, 8: 3, 11: 3}.items() if i < count
    }
    results = [result for group in [*groups, stream.flush()] for result in group]
    assert [index for index, _ in results] == list(range(count))
    mean = torch.full((3, 9, 14), 0.3)
    for (_, result), frame in zip(results, clip, strict=True):
        mean = 0.5 * mean + 0.5 * frame
        expected = F.interpolate((0.5 * frame + 0.5 * mean)[None], scale_factor=2)[0]
        torch.testing.assert_close(result, expected)
    again = FrameStream(restorer, temporal=False)  # each frame a clip of its own
    assert through(again, clip).shape == (count, 3, 18, 28)


def test_a_streaming_method_goes_on_from_its_state(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The frames that it had taken ahead are pushed again, and not taken twice."""
    restorer = fake_restorer(monkeypatch, tmp_path, spec=STREAMING)
    clip = torch.rand(14, 3, 12, 16)
    whole = through(FrameStream(restorer, size=(20, 18)), clip)
    first = FrameStream(restorer, size=(20, 18))
    for i in range(6):
        first.push(clip[i], i)
    stored = load(save(dict(first.state())))
    second = FrameStream(restorer, size=(20, 18))
    second.restore_state(stored)
    assert torch.equal(through(second, clip[4:], 4), whole[4:])
    with pytest.raises(ValueError, match="frame_size"):
        second.restore_state({"mean": torch.zeros(1)})


def test_a_streaming_method_says_in_one_line_what_is_wrong(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    restorer = fake_restorer(monkeypatch, tmp_path, spec=STREAMING)
    stream = FrameStream(restorer)
    stream.push(torch.rand(3, 12, 12), 0)
    with pytest.raises(ValueError, match=r"a frame of \(12, 16\) in a clip"):
        stream.push(torch.rand(3, 12, 16), 1)
    restorer.method.always_nan = True
    broken = FrameStream(restorer)
    with pytest.raises(RestoreError, match="NaN in frame 0"):
        for i in range(6):
            broken.push(torch.rand(3, 12, 12), i)
    restorer.method.memory_limit = 10
    with pytest.raises(RestoreError, match="memory on cpu does not suffice"):
        FrameStream(restorer).push(torch.rand(3, 12, 12), 0)


def test_a_streaming_method_with_its_own_tiles_gets_smaller_ones_when_memory_runs_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The call is made again, and nothing is lost or taken twice."""
    frames = torch.rand(8, 3, 12, 16)
    restorer = fake_restorer(monkeypatch, tmp_path, spec={**STREAMING, "own_tiles": 128})
    expected = through(FrameStream(restorer), frames)
    sides: list[int] = []
    enough, push = 32, FakeClip.push

    def tight(clip: FakeClip, frame: torch.Tensor) -> torch.Tensor:
        if (sides or [128])[-1] > enough:
            raise torch.OutOfMemoryError("fake: out of memory")
        return push(clip, frame)

    monkeypatch.setattr(FakeClip, "push", tight)
    monkeypatch.setattr(restorer.method, "use_tiles", sides.append, raising=False)
    assert torch.equal(through(FrameStream(restorer), frames), expected)
    assert sides == [64, 32]
    enough = 16
    with pytest.raises(RestoreError, match="does not suffice for a tile of 32 pixels"):
        FrameStream(restorer).push(frames[0], 0)
