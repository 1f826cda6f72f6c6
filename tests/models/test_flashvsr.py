"""FlashVSR: the authors' numbers, and a stream that gives every frame, can stop and go on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from published_flashvsr import FULL, TINY, clip, dit_shapes, lq_shapes, make_folder
from safetensors import safe_open
from torch import Tensor

import restore
from restore.method import ClipStream, Streaming
from restore.models.flashvsr import FlashVSR, FlashVSR11
from restore.models.parts.flashvsr import clip as clip_module
from restore.models.parts.flashvsr import dit as dit_module
from restore.models.parts.flashvsr.clip import FlashClip, Plan
from restore.models.parts.flashvsr.dit import DitShape, FlashDiT
from restore.models.parts.flashvsr.enlarge import Frame
from restore.models.parts.flashvsr.lq_projection import LQProjection
from restore.registry import METHODS, method_class
from restore.streaming import FrameStream

GOLDEN = Path(__file__).parents[1] / "golden" / "flashvsr.safetensors"
CPU = torch.device("cpu")
FRAMES = (0, 1, 4, 20, 21, 22, 28, 29, 36)
"""Of the clip, those whose numbers are kept."""


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    """What the authors' code printed; where and how is in the file's text."""
    with safe_open(GOLDEN, framework="pt") as file:
        assert "ccac0ac" in file.metadata()["source"]
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("flashvsr"))


@pytest.fixture(scope="module")
def method(folder: Path) -> FlashVSR:
    return FlashVSR.load(folder, device=CPU, dtype=torch.float32)


@pytest.fixture(scope="module")
def newer(folder: Path) -> FlashVSR:
    return FlashVSR11.load(folder, device=CPU, dtype=torch.float32)


@pytest.fixture
def tiny_clip(newer: FlashVSR) -> Callable[..., FlashClip]:
    """Opens clips of 32x32: one block of attention."""

    def open_clip(seed: int = 3, **plan: Any) -> FlashClip:
        frame = Frame(height=32, width=32, tiling="exact")
        return FlashClip(newer.networks(), frame, seed=seed, plan=Plan(**plan))

    return open_clip


def run(stream: ClipStream, frames: Tensor) -> Tensor:
    return torch.cat([*(stream.push(frame) for frame in frames), stream.finish()])


def error(got: Tensor, want: Tensor) -> float:
    return float((got - want).abs().max() / want.abs().max())


@pytest.mark.parametrize(("name", "kind"), [("flashvsr", FlashVSR), ("flashvsr-1.1", FlashVSR11)])
def test_the_registry_names_exactly_these_classes(name: str, kind: type[FlashVSR]) -> None:
    assert method_class(name) is kind
    assert kind.spec.name == name
    assert kind.version == ("1.1" if name in METHODS and "1.1" in name else "1")


def test_it_is_a_streaming_method(method: FlashVSR) -> None:
    assert isinstance(method, Streaming)
    assert method.spec.streaming


def test_full_size_has_the_published_names_and_shapes() -> None:
    with torch.device("meta"):
        dit, lq = FlashDiT(DitShape()), LQProjection(version="1")
    for net, shapes in ((dit, dit_shapes(FULL)), (lq, lq_shapes(FULL))):
        assert {k: tuple(v.shape) for k, v in net.state_dict().items()} == shapes
    # The numbers of parameters of Wan2.1-T2V-1.3B, and of the authors' projection.
    assert sum(p.numel() for p in dit.parameters()) == 1_418_996_800
    assert sum(p.numel() for p in lq.parameters()) == 287_845_888


@pytest.mark.parametrize("version", ["1", "1.1"])
def test_published_tiling_gives_the_numbers_of_the_authors_code(
    version: str,
    method: FlashVSR,
    newer: FlashVSR,
    golden: dict[str, Tensor],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Three chunks, six blocks of attention, a window that leaves some out, a crop of 12 and 8."""
    flash = method if version == "1" else newer
    noise = torch.randn(1, 16, 10, 32, 48, generator=torch.Generator().manual_seed(7))
    masks, tokens, latents = [], [], []

    def choose(*args: Tensor, **settings: Any) -> Tensor:
        masks.append(flat_topk(*args, **settings))
        return masks[-1]

    def decode(latent: Tensor, *rest: Any) -> Any:
        latents.append(latent[0].transpose(0, 1))
        return decoder(latent, *rest)

    flat_topk, decoder = dit_module.flat_topk, flash.networks().decoder.decode
    monkeypatch.setattr(dit_module, "flat_topk", choose)
    monkeypatch.setattr(
        clip_module, "latent_noise", lambda _, first, count, *__: noise[:, :, first : first + count]
    )
    monkeypatch.setattr(flash.networks().decoder, "decode", decode)
    hook = flash.lq.register_forward_hook(lambda _, __, made: tokens.append(made[0].flatten(1, 2)))
    flash.tune(tiling="published", sparse_ratio=0.115, local_range=3)
    low = clip(37, 70, 100)
    result = run(flash.open_clip(70, 100, seed=0), low)
    hook.remove()
    flash.tune(tiling="exact", sparse_ratio=2.0, local_range=11)

    assert result.shape == (37, 3, 280, 400)
    for i, mask in enumerate(masks):
        assert np.array_equal(np.packbits(mask.numpy()), golden[f"{version}.mask.{i}"].numpy())
    assert len(masks) == 3 * TINY.layers
    seen = result[:, :, 12:268, 8:392]
    # The same arithmetic in another order: seen 2e-6.
    assert error(torch.cat(tokens)[:, ::16, ::4], golden[f"{version}.tokens"]) < 1e-5
    assert error(torch.cat(latents)[:, ::3, ::5, ::7], golden[f"{version}.latents"]) < 1e-5
    frames = seen[[*FRAMES]]
    assert error(frames[..., ::17, ::23] * 2 - 1, golden[f"{version}.frames"]) < 1e-5
    fixed = published_colours(frames, low[[*FRAMES]], flash)
    assert error(fixed[..., ::17, ::23], golden[f"{version}.colours"]) < 1e-5


def published_colours(frames: Tensor, low: Tensor, flash: FlashVSR) -> Tensor:
    """AdaIN in [-1, 1] with the variance of the population; ours is in [0, 1] with the sample's.

    The two are compared in `test_colours_of_the_engine_are_close_to_the_published_ones`.
    """
    frame = Frame(height=70, width=100, tiling="published")
    style = torch.stack([frame.middle(frame.enlarge(one)) for one in low]) * 2 - 1
    x = frames * 2 - 1

    def moments(of: Tensor) -> tuple[Tensor, Tensor]:
        variance = of.var((2, 3), keepdim=True, unbiased=False)
        return of.mean((2, 3), keepdim=True), (variance + 1e-5).sqrt()

    (mean_x, std_x), (mean_y, std_y) = moments(x), moments(style)
    return ((x - mean_x) / std_x * std_y + mean_y).clamp(-1, 1)


def test_colours_of_the_engine_are_close_to_the_published_ones() -> None:
    from restore.color import adain

    low = clip(2, 70, 100)
    frames = clip(2, 256, 384, seed=4) * 0.8
    frame = Frame(height=70, width=100, tiling="published")
    style = torch.stack([frame.middle(frame.enlarge(one)) for one in low])
    theirs = published_colours(frames, low, None) / 2 + 0.5  # type: ignore[arg-type]
    # 1e-5 is added to a variance four times as large there: less than half a grey level.
    assert (adain(frames, style) - theirs).abs().max() < 5e-4


@pytest.mark.parametrize("count", [1, 2, 5, 20, 21, 25, 33, 50])
def test_as_many_frames_come_out_as_go_in(count: int, tiny_clip: Callable[..., FlashClip]) -> None:
    stream = tiny_clip()
    result = run(stream, clip(50, 32, 32)[:count])
    assert result.shape == (count, 3, 128, 128)
    assert torch.isfinite(result).all()
    assert stream.ahead == 0


def test_frames_come_in_groups_four_behind(tiny_clip: Callable[..., FlashClip]) -> None:
    """Those of the first chunk, 21, in three groups, so that no more than 8 are held at once."""
    stream = tiny_clip()
    groups = [len(stream.push(frame)) for frame in clip(41, 32, 32)]
    assert {i: n for i, n in enumerate(groups) if n} == {24: 5, 25: 8, 26: 8, 32: 8, 40: 8}
    assert stream.ahead == 4


def test_what_is_out_does_not_change_with_what_follows(
    tiny_clip: Callable[..., FlashClip],
) -> None:
    frames = clip(50, 32, 32)
    short, long = run(tiny_clip(), frames[:33]), run(tiny_clip(), frames)
    assert torch.equal(short[:29], long[:29])
    assert not torch.equal(short[32], long[32])  # whose future the shorter one made up


@pytest.mark.parametrize(
    ("overlap", "pushed", "ahead", "goes_on_overlapping"),
    [
        (False, 41, 4, False),
        (True, 41, 12, True),
        (False, 25, 20, True),
        (True, 34, 21, False),
    ],
)
def test_a_clip_goes_on_from_its_state_to_the_bit(
    overlap: bool,
    pushed: int,
    ahead: int,
    goes_on_overlapping: bool,
    tiny_clip: Callable[..., FlashClip],
) -> None:
    """In the middle of the first chunk's groups too, and with the other way of decoding."""
    frames = clip(50, 32, 32)
    stream = tiny_clip(overlap=overlap)
    came = sum(len(stream.push(frame)) for frame in frames[:pushed])
    state = {name: tensor.clone() for name, tensor in stream.state().items()}
    assert stream.ahead == pushed - came == ahead
    other = tiny_clip(overlap=goes_on_overlapping)
    other.push(frames[0])  # what it had before is forgotten
    other.restore_state(state)
    assert other.ahead == stream.ahead
    assert torch.equal(run(other, frames[pushed:]), run(stream, frames[pushed:]))


def test_the_state_of_something_else_is_refused(tiny_clip: Callable[..., FlashClip]) -> None:
    stream = tiny_clip()
    for frame in clip(25, 32, 32):
        stream.push(frame)
    state = stream.state()
    with pytest.raises(ValueError, match="not the state"):
        tiny_clip().restore_state({"frame": torch.zeros(3)})
    with pytest.raises(ValueError, match="frames of"):
        tiny_clip().restore_state({**state, "inputs": torch.zeros(4, 3, 64, 32)})


def test_decoding_beside_the_next_chunk_gives_the_same_frames_later(
    tiny_clip: Callable[..., FlashClip],
) -> None:
    frames = clip(45, 32, 32)
    stream = tiny_clip(overlap=True)
    groups = [stream.push(frame) for frame in frames]
    assert {i: len(group) for i, group in enumerate(groups) if len(group)} == dict(
        zip((32, 33, 34, 40), (5, 8, 8, 8), strict=True)
    )
    assert torch.equal(torch.cat([*groups, stream.finish()]), run(tiny_clip(), frames))


def test_positions_moved_back_change_nothing(
    tiny_clip: Callable[..., FlashClip], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond the table the cached keys are turned back; here the table ends after two chunks."""
    frames = clip(41, 32, 32)
    plain = run(tiny_clip(sparse_ratio=0.05), frames)
    monkeypatch.setattr(clip_module, "TABLE", 9)
    stream = tiny_clip(sparse_ratio=0.05)
    moved = run(stream, frames)
    assert stream._time <= 9  # it was moved, twice
    assert not torch.equal(moved, plain)
    # Turned twice instead of once, in float32: seen 1e-6.
    torch.testing.assert_close(moved, plain, atol=1e-4, rtol=0)


def test_the_two_versions_are_told_apart_by_name_alone(method: FlashVSR, newer: FlashVSR) -> None:
    frames = clip(25, 32, 32)
    results = [run(flash.open_clip(32, 32, seed=0), frames) for flash in (method, newer)]
    assert (results[0] - results[1]).abs().max() > 1e-3


def test_the_seed_says_what_the_noise_is(tiny_clip: Callable[..., FlashClip]) -> None:
    frames = clip(5, 32, 32)
    first, again, other = (run(tiny_clip(seed), frames) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert (first - other).abs().max() > 1e-2


def test_published_tiling_leaves_the_border_as_it_was_enlarged(method: FlashVSR) -> None:
    low = clip(1, 40, 70)
    frame = Frame(height=40, width=70, tiling="published")
    assert frame.size == (128, 256)
    method.tune(tiling="published")
    assert (method.spec.size_multiple, method.spec.min_size) == (1, 32)
    result = run(method.open_clip(40, 70, seed=0), low)
    method.tune(tiling="exact")
    assert method.spec.size_multiple == 32
    large = frame.enlarge(low[0])
    border = torch.ones(160, 280, dtype=torch.bool)
    frame.middle(border)[:] = False
    assert torch.equal(result[0][:, border], large[:, border])
    assert (result[0] - large)[:, ~border].abs().mean() > 0.01


@pytest.mark.parametrize("tiling", ["exact", "published"])
def test_clips_of_any_size_go_through_the_engine(tiling: str, folder: Path) -> None:
    low = clip(2, 40, 70)
    restorer = restore.load(
        "flashvsr", weights=str(folder), device="cpu", tiling=tiling, color_fix="none"
    )
    stream = FrameStream(restorer)
    results = [*stream.push(low[0], 0), *stream.push(low[1], 1), *stream.flush()]
    assert [index for index, _ in results] == [0, 1]
    assert all(result.shape == (3, 160, 280) for _, result in results)
    # The published crop is of the frame itself: its edge is enlarged, and not of padding.
    large = Frame(height=40, width=70, tiling="published").enlarge(low[0])
    assert torch.equal(results[0][1][:, 0], large[:, 0]) is (tiling == "published")


def test_the_decoder_works_in_tiles_of_the_side_that_is_asked_for(folder: Path) -> None:
    """And gives what it gives for the whole frame, in a clip and for a picture."""
    frames = clip(2, 32, 416)
    results = []
    for tile in (32, 0):
        restorer = restore.load("flashvsr", weights=str(folder), device="cpu", tile=tile)
        stream = FrameStream(restorer)
        outs = [*stream.push(frames[0], 0), *stream.push(frames[1], 1), *stream.flush()]
        method = restorer.method
        assert isinstance(method, FlashVSR)
        cut = method.networks().decoder.tiles.plan(16, 208)
        assert len(cut) == (2 if tile else 1)
        results.append(torch.stack([out for _, out in outs]))
        results.append(restorer.restore_frames(frames[None, :1])[0])
    torch.testing.assert_close(results[0], results[2], atol=2e-5, rtol=0)
    torch.testing.assert_close(results[1], results[3], atol=2e-5, rtol=0)


def test_exact_tiling_sees_the_whole_frame(method: FlashVSR) -> None:
    low = clip(1, 32, 64)
    assert run(method.open_clip(32, 64, seed=0), low).shape == (1, 3, 128, 256)
    with pytest.raises(ValueError, match="multiple of 32"):
        method.open_clip(40, 70, seed=0)


def test_memory_is_flat_in_the_length_of_a_clip(tiny_clip: Callable[..., FlashClip]) -> None:
    stream = tiny_clip()
    frames = clip(8, 32, 32)
    sizes, came = set(), 0
    for i in range(300):
        came += len(new := stream.push(frames[i % 8]))
        assert torch.isfinite(new).all()
        if len(new) and i > 26:
            held = [*stream.state().values()]
            held += [part for ring in stream._rings for part in (ring.k, ring.v)]
            sizes.add((len(held), sum(part.nbytes for part in held)))
    assert len(sizes) == 1
    assert came + len(stream.finish()) == 300


def test_bfloat16_is_close_to_float32(folder: Path, tiny_clip: Callable[..., FlashClip]) -> None:
    half = FlashVSR11.load(folder, device=CPU, dtype=torch.bfloat16)
    frames = clip(21, 32, 32)
    got = run(half.open_clip(32, 32, seed=3), frames)
    assert got.dtype == torch.float32
    # The noise is the same; eight bits of mantissa through two layers and a decoder.
    assert (got - run(tiny_clip(), frames)).abs().mean() < 0.01


def test_the_full_decoder_is_read_when_it_is_asked_for(folder: Path) -> None:
    flash = FlashVSR.load(folder, device=CPU, dtype=torch.float32)
    frames = clip(2, 32, 32)
    tiny = run(flash.open_clip(32, 32, seed=0), frames)
    flash.tune(decoder="full")
    full = run(flash.open_clip(32, 32, seed=0), frames)
    assert full.shape == tiny.shape
    assert (full - tiny).abs().max() > 0.01
    flash.tune(decoder="tiny")
    assert torch.equal(run(flash.open_clip(32, 32, seed=0), frames), tiny)


def test_a_picture_is_a_clip_of_one_frame(method: FlashVSR) -> None:
    pictures = clip(2, 32, 32)[:, None]
    result = method.restore(pictures, generator=torch.Generator().manual_seed(0))
    first = method.restore(pictures[:1], generator=torch.Generator().manual_seed(0))
    assert result.shape == (2, 1, 3, 128, 128)
    assert torch.equal(result[:1], first)
    assert 0 <= result.min() < result.max() <= 1


@pytest.mark.slow
def test_compiled_blocks_give_the_same(newer: FlashVSR) -> None:
    frames = clip(33, 32, 32)
    plain = run(newer.open_clip(32, 32, seed=0), frames)
    newer.tune(compile=True)
    compiled = run(newer.open_clip(32, 32, seed=0), frames)
    newer.tune(compile=False)
    # Fused arithmetic in float32.
    torch.testing.assert_close(compiled, plain, atol=1e-4, rtol=0)


@pytest.mark.gpu
def test_a_recorded_graph_and_a_side_stream_give_the_same(folder: Path) -> None:
    flash = FlashVSR11.load(folder, device=torch.device("cuda"), dtype=torch.float32)
    frames = clip(65, 64, 96).cuda()
    frame = Frame(height=64, width=96, tiling="exact")
    plans = (Plan(), Plan(graphs=True), Plan(graphs=True, overlap=True))
    plain, played, beside = (
        run(FlashClip(flash.networks(), frame, seed=1, plan=plan), frames) for plan in plans
    )
    # Kernels may add in another order from one run to the next.
    torch.testing.assert_close(played, plain, atol=1e-4, rtol=0)
    torch.testing.assert_close(beside, plain, atol=1e-4, rtol=0)
