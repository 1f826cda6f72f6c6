"""FlashVSR's decoders: the authors' frames, whatever the chunks, passes and tiles."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from published_flashvsr import FULL, TINY, clip, decoder_shapes, make_decoder, make_vae, vae_shapes
from safetensors import safe_open
from torch import Tensor

from restore.models.parts.flashvsr import wan_vae
from restore.models.parts.flashvsr.exact_tiles import ExactTiles
from restore.models.parts.flashvsr.tiny_decoder import MARGIN, TinyDecoder, unshuffle
from restore.models.parts.flashvsr.wan_vae import WanDecoder, diffusers_name, from_published

GOLDEN = Path(__file__).parents[2] / "golden" / "flashvsr_decoders.safetensors"
CPU = torch.device("cpu")
CHUNKS = (6, 2, 2)
Decoded = tuple[Tensor, list[Tensor]]
Net = TinyDecoder | WanDecoder

# Rounding of fp32 sums in another order; the frames' range is 2. Seen: 5e-7 and 3e-6.
CLOSE = 2e-5


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    """What the authors' code gave; where and how is in the file's text."""
    with safe_open(GOLDEN, framework="pt") as file:
        assert "ccac0ac" in file.metadata()["source"]
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def tiny() -> TinyDecoder:
    return TinyDecoder.load(make_decoder(), device=CPU, dtype=torch.float32)


def full() -> WanDecoder:
    return WanDecoder.load(from_published(make_vae()), device=CPU, dtype=torch.float32)


@pytest.fixture
def latents(golden: dict[str, Tensor]) -> Tensor:
    """A corner of the same, for what holds at every size."""
    return golden["latents"][..., :2, :3]


DECODERS = pytest.mark.parametrize("make", [tiny, full])


def condition(frames: int, height: int, width: int) -> Tensor:
    """Enlarged input for latents of that size, `(1, 3, frames, 8 height, 8 width)`."""
    return clip(frames, 8 * height, 8 * width, seed=4).transpose(0, 1)[None] * 2 - 1


def run(
    net: Net, latents: Tensor, chunks: Sequence[int], between: Callable[[Any], Any] = lambda m: m
) -> Decoded:
    """The clip in these chunks, and the memory at its end; `between` gets each memory."""
    large = condition(4 * latents.shape[2] - 3, *latents.shape[3:])
    memory: list[Tensor] = []
    frames: list[Tensor] = []
    start = 0
    with torch.inference_mode():
        for count in chunks:
            part = latents[:, :, start : start + count]
            first = max(0, 4 * start - 3)
            given = large[:, :, first : 4 * (start + count) - 3]
            made, memory = net.decode(part, given, between(memory))
            frames.append(made)
            start += count
    return torch.cat(frames, 2), memory


def apart(one: Tensor, other: Tensor) -> float:
    assert one.shape == other.shape
    return float((one - other).abs().max())


@DECODERS
def test_frames_are_the_authors(make: Callable[[], Net], golden: dict[str, Tensor]) -> None:
    expected = golden[make.__name__]
    frames, _ = run(make(), golden["latents"], CHUNKS)
    assert frames.shape == (1, 3, 37, 32, 40)
    assert apart(frames[..., ::3, ::3], expected) < CLOSE
    assert expected.std() > 0.1  # pictures, not one colour


@DECODERS
@pytest.mark.parametrize("chunks", [(10,), (1, 3, 1, 1, 4)])
def test_chunked_is_whole(
    make: Callable[[], Net], chunks: tuple[int, ...], latents: Tensor
) -> None:
    whole, after = run(make(), latents, CHUNKS)
    frames, memory = run(make(), latents, chunks)
    assert apart(frames, whole) < CLOSE
    assert len(memory) == len(after)
    assert all(apart(a, b) < CLOSE for a, b in zip(memory, after, strict=True))


@DECODERS
def test_a_decoder_goes_on_from_a_memory_that_was_saved(
    make: Callable[[], Net], latents: Tensor, tmp_path: Path
) -> None:
    """Also that neither the module nor a tensor shared with the caller remembers anything."""

    def reload(memory: list[Tensor]) -> list[Tensor]:
        torch.save(memory, tmp_path / "memory.pt")
        copies = torch.load(tmp_path / "memory.pt", weights_only=True)
        for one in memory:
            one.fill_(float("nan"))
        return copies

    whole, _ = run(make(), latents, CHUNKS)
    net = make()
    run(net, latents.flip(2), (2,))
    frames, _ = run(net, latents, CHUNKS, between=reload)
    assert torch.equal(frames, whole)


def test_the_full_decoder_takes_many_latents_at_once_or_one_by_one(latents: Tensor) -> None:
    results = []
    for span in (1, 4):
        net = full()
        net.span = span
        results.append(run(net, latents, CHUNKS)[0])
    assert apart(*results) < CLOSE


@pytest.mark.parametrize("fused", [True, False])
def test_layer_by_layer_is_step_by_step(fused: bool, latents: Tensor) -> None:
    """What a GPU does beside what a CPU does, with a memory and without one."""
    net = tiny()
    if not fused:
        net.fused.clear()
    x = torch.rand(2, 3, 768 + 16, 2, 3, generator=torch.Generator().manual_seed(3))
    memory = [
        torch.rand(2, block.channels, 2 * scale, 3 * scale, generator=torch.Generator())
        for block, scale in net._blocks()
    ]
    (frames, after), (others, kept) = net._layer_by_layer(x, memory), net._step_by_step(x, memory)
    assert frames.shape == (2, 12, 3, 16, 24)
    assert apart(frames, others) < CLOSE
    assert all(apart(a, b) < CLOSE for a, b in zip(after, kept, strict=True))


@DECODERS
def test_the_memory_does_not_grow(make: Callable[[], Net], latents: Tensor) -> None:
    net = make()
    short = run(net, latents[:, :, :3], (2, 1))[1]
    long = run(net, latents, (4, 4, 2))[1]
    assert [m.shape for m in short] == [m.shape for m in long]
    # Each by itself: no view of a longer tensor is kept alive.
    assert all(m.untyped_storage().nbytes() == m.numel() * 4 for m in long)


@DECODERS
def test_tiles_are_the_whole(make: Callable[[], Net]) -> None:
    """Three of them, so that one has neighbours on both sides."""
    latents = torch.randn(1, 16, 3, 2, 150, generator=torch.Generator().manual_seed(2))
    net = make()
    whole, after = run(net, latents, (2, 1))
    net.tiles.max_pixels = 64 * 2 * (52 + 2 * net.tiles.margin)
    assert len(net.tiles.plan(2, 150)) == 3
    frames, memory = run(net, latents, (2, 1))
    assert apart(frames, whole) < CLOSE
    assert all(apart(a, b) < CLOSE for a, b in zip(memory, after, strict=True))


@pytest.mark.parametrize(("make", "method"), [(tiny, "_run"), (full, "_enlarged")])
def test_a_frame_for_which_memory_does_not_suffice_is_cut(
    make: Callable[[], Net],
    method: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """From then on; and when no smaller tile can be made, the error is the allocator's own."""
    latents = torch.randn(1, 16, 3, 2, 64, generator=torch.Generator().manual_seed(2))
    whole, after = run(make(), latents, (2, 1))
    kind = type(make())
    run_whole = getattr(kind, method)
    room = 60

    def run_part(net: Net, x: Tensor, memory: list[Tensor]) -> Decoded:
        result: Decoded = run_whole(net, x, memory)
        if x.shape[-1] > room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return result

    monkeypatch.setattr(kind, method, run_part)
    net = make()
    frames, memory = run(net, latents, (2, 1))
    assert apart(frames, whole) < CLOSE
    assert all(apart(a, b) < CLOSE for a, b in zip(memory, after, strict=True))
    assert [record.message for record in caplog.records] == [
        f"out of memory: frames are decoded in parts of {net.tiles.max_pixels} pixels"
    ]
    room = 20
    with pytest.raises(torch.OutOfMemoryError, match=r"2\.00 GiB"):
        run(make(), latents, (2, 1))


def test_the_margin_of_a_tile_is_as_wide_as_it_must_be() -> None:
    """One latent less, and what lies outside changes the result.

    Every convolution takes the pixel to its right here, so that what is farthest counts most.
    """
    net = tiny().double()  # where rounding cannot be taken for it
    with torch.no_grad():
        for name, value in net.decoder.state_dict().items():
            if value.shape[-2:] == (3, 3):
                value.zero_()[:, :, 1, 2] = 1 / value.shape[1]
            elif value.ndim == 4:
                value.fill_(1 / value.shape[1])
            else:
                value.fill_(float(name == "1.bias"))
    net.fuse()
    latents = torch.randn(1, 16, 1, 2, 64, generator=torch.Generator().manual_seed(2)).double()
    whole = run(net, latents, (1,))[0]
    net.tiles.max_pixels = 64 * 2 * 60
    differences = []
    for margin in (MARGIN - 1, MARGIN):
        net.tiles.margin = margin
        differences.append(apart(run(net, latents, (1,))[0], whole))
    assert differences[1] < 1e-10 < 1e-3 < differences[0]


def test_the_margin_of_the_full_decoder_is_as_wide_as_it_must_be() -> None:
    """What lies beyond it changes nothing; two pixels nearer it does, and one nearer to 1e-15."""
    net = full().double()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for value in net.decoder.state_dict().values():
            if value.shape[-2:] == (3, 3):  # every pixel takes the one to its right
                value.zero_()[..., 1, 2] = torch.randn(value.shape[:-2], generator=generator)
    x = torch.randn(1, net.decoder.conv_in.out_channels, 1, 2, 40, generator=generator).double()

    def left_of_20(changed_from: int) -> Tensor:
        other = x.clone()
        other[..., changed_from:] = other[..., changed_from:].flip(1)
        return net._enlarged(other, [None] * net._slots)[0][..., : 8 * 20]

    plain = left_of_20(40)
    assert torch.equal(left_of_20(20 + wan_vae.MARGIN), plain)
    assert apart(left_of_20(20 + wan_vae.MARGIN - 2), plain) > 1e-10


@pytest.mark.parametrize("size", [(144, 240), (135, 240), (20, 400), (400, 20), (1, 1)])
@pytest.mark.parametrize("limit", [300_000, 1_000_000, 2**40])
def test_tiles_cover_a_frame_once_and_keep_to_the_limit(size: tuple[int, int], limit: int) -> None:
    height, width = size
    covered = torch.zeros(height, width, dtype=torch.int32)
    tiles = ExactTiles(MARGIN, max_pixels=limit).plan(height, width)
    for (top, bottom), (left, right) in tiles:
        covered[top:bottom, left:right] += 1
        rows = min(height, bottom + MARGIN) - max(0, top - MARGIN)
        assert 64 * rows * (min(width, right + MARGIN) - max(0, left - MARGIN)) <= limit
    assert bool((covered == 1).all())
    assert len(tiles) > 1 or 64 * height * width <= limit


def test_the_condition_is_unshuffled_with_its_first_frame_repeated() -> None:
    frames = torch.arange(3 * 5 * 16 * 8.0).view(1, 3, 5, 16, 8)
    packed = unshuffle(frames)
    assert packed.shape == (1, 768, 2, 2, 1)
    # Channel (c, k, y, x) of latent (t, h, w) is pixel (8h + y, 8w + x) of frame 4t + k - 3.
    for c, k, y, x, t, h in ((0, 0, 0, 0, 0, 0), (2, 3, 7, 5, 0, 1), (1, 1, 4, 2, 1, 0)):
        frame = max(0, 4 * t + k - 3)
        expected = frames[0, c, frame, 8 * h + y, x]
        assert packed[0, ((c * 4 + k) * 8 + y) * 8 + x, t, h, 0] == expected


def test_a_condition_of_another_length_is_our_mistake() -> None:
    net = tiny()
    with pytest.raises(ValueError, match=r"\(8, 16, 16\) in place of \(5, 16, 16\)"):
        net.decode(torch.zeros(1, 16, 2, 2, 2), torch.zeros(1, 3, 8, 16, 16))


def test_fusing_changes_nothing_and_leaves_the_weights(latents: Tensor) -> None:
    state = make_decoder()
    plain = TinyDecoder(channels=TINY.decoder).eval()
    plain.load_state_dict(state)
    expected, _ = run(plain, latents, CHUNKS)
    fused = plain.fuse()
    assert len(fused.fused) == 3
    assert fused.state_dict().keys() == state.keys()
    assert apart(run(fused, latents, CHUNKS)[0], expected) < CLOSE


def test_full_size_has_the_published_shapes() -> None:
    with torch.device("meta"):
        net = TinyDecoder()
    shapes = {name: tuple(value.shape) for name, value in net.state_dict().items()}
    assert shapes == decoder_shapes(FULL)
    assert sum(p.numel() for p in net.parameters()) == 45_338_371
    assert TinyDecoder.of(net.state_dict()).latent_channels == 16


def test_names_of_the_vae_are_those_of_diffusers_own_converter() -> None:
    from diffusers.loaders.single_file_utils import convert_wan_vae_to_diffusers

    shapes = vae_shapes(FULL)
    named = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    expected = {
        name: tuple(value.shape)
        for name, value in convert_wan_vae_to_diffusers(dict(named)).items()
        if not name.startswith(("encoder.", "quant_conv."))
    }
    assert {name: tuple(v.shape) for name, v in from_published(named).items()} == expected
    net = WanDecoder()
    assert {name: tuple(v.shape) for name, v in net.state_dict().items()} == expected
    assert diffusers_name("nobody.knows.it") == "nobody.knows.it"


@pytest.mark.gpu
def test_half_precision_on_a_gpu_is_near(golden: dict[str, Tensor]) -> None:
    """And parameters and frames lie with their channels last, as tensor cores want them."""
    expected, _ = run(tiny(), golden["latents"], CHUNKS)
    net = TinyDecoder.load(make_decoder(), device=torch.device("cuda"), dtype=torch.bfloat16)
    weight = net.get_parameter("decoder.5.conv.0.weight")
    assert weight.is_contiguous(memory_format=torch.channels_last)
    large = condition(21, 4, 5).cuda()
    with torch.inference_mode():
        frames, _ = net.decode(golden["latents"][:, :, :6].cuda(), large)
    # bf16 has 8 bits: 2^-8 of values of about 1, over some 30 layers.
    assert apart(frames.float().cpu(), expected[:, :, :21]) < 0.05
