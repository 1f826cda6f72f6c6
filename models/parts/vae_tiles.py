"""A VAE's encoder or decoder over tiles that advance in lock-step.

The network is taken apart into steps. Each tile runs up to the next group normalisation, whose
mean and variance must be those of the whole picture; when all tiles have come there, their
statistics are joined, and all go on.

    conv -> | norm -> silu -> conv -> | norm -> silu -> conv -> add -> | norm -> attention -> ...
            ^ tiles wait here          ^ and here                       ^ and here

Two plans differ in what is joined:

- PUBLISHED is what the numbers of OSEDiff, S3Diff and others were made with (the "tiled VAE" of
  multidiffusion-upscaler): 11 latents or 32 pixels of border, variances averaged as if the tiles'
  means were equal, each tile's border counted again, attention within a tile.
- EXACT gives the result of the whole picture: the border is as wide as the convolutions reach, each
  pixel is counted once, and the attention, cheap at an eighth of the size, sees all tiles.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from diffusers.models.autoencoders.vae import Decoder, Encoder

_QUERIES = 4096
"""Places that attend at a time."""
_PIECES = 4
"""Parts in which the groups of a normalisation are measured."""

Kind = Literal["layer", "silu", "norm", "save", "add", "attention", "whole"]


@dataclass(frozen=True, kw_only=True, slots=True)
class TilePlan:
    """How one half of the network is tiled, in places of its input."""

    tile: int
    """Side of a tile without its border."""
    border: int
    """Places around it that it also sees."""
    limit: int
    """Longest side that is run whole."""
    exact: bool
    """Statistics and attention of the whole picture."""
    multiple: int = 1
    """Tiles begin at a multiple of this."""

    def with_tile(self, side: int) -> TilePlan:
        """The same with other tiles; pictures up to a tile with its borders stay whole."""
        return replace(self, tile=side, limit=side + 2 * self.border)


@dataclass(frozen=True, kw_only=True, slots=True)
class VaePlan:
    """Plans of both halves."""

    encoder: TilePlan
    """In pixels."""
    decoder: TilePlan
    """In latents."""


PUBLISHED = VaePlan(
    encoder=TilePlan(tile=1024, border=32, limit=1024 + 64, exact=False),
    decoder=TilePlan(tile=224, border=11, limit=224 + 22, exact=False),
)
# Borders: the convolutions of the encoder reach 91 pixels up to its attention, those of the
# decoder 15 latents after it; what comes behind and before the attention reaches less.
EXACT = VaePlan(
    encoder=TilePlan(tile=1024, border=96, limit=1024 + 192, exact=True, multiple=8),
    decoder=TilePlan(tile=128, border=16, limit=128 + 32, exact=True),
)


@dataclass(frozen=True, slots=True)
class Step:
    """A piece of the network."""

    kind: Kind
    """`save` puts (a convolution of) the features aside for the next `add`."""
    module: nn.Module | None = None


@dataclass(slots=True)
class Tile:
    """A tile on its way through the network."""

    core: tuple[int, int, int, int]
    """Top, bottom, left, right of what it is responsible for, in places of the input."""
    window: tuple[int, int, int, int]
    """The same of what it sees."""
    output: tuple[int, int, int, int]
    """What it writes, in places of the input."""
    x: Tensor
    """Its features."""
    saved: Tensor | None = None
    """Features that are to be added."""

    def cut(self, box: tuple[int, int, int, int]) -> tuple[slice, slice]:
        """Rows and columns of `box` within the features, at their present size."""
        top, bottom, left, right = self.window
        down, across = self.x.shape[-2] / (bottom - top), self.x.shape[-1] / (right - left)
        rows = slice(round((box[0] - top) * down), round((box[1] - top) * down))
        return rows, slice(round((box[2] - left) * across), round((box[3] - left) * across))


def run_tiled(net: Encoder | Decoder, x: Tensor, plan: TilePlan) -> Tensor:
    """Run one half of a VAE.

    Args:
        net: `encoder` or `decoder` of diffusers' `AutoencoderKL`.
        x: `(B, C, H, W)`: pixels with H and W multiples of 8, or latents.
        plan: how.

    Returns:
        What `net(x)` gives, when the plan is exact up to rounding.
    """
    height, width = x.shape[-2:]
    if max(height, width) <= plan.limit:
        return net(x)
    tiles = [
        Tile(core=core, window=window, output=output, x=_part(x, window))
        for core, window, output in plan_tiles(height, width, plan)
    ]
    steps = list(steps_of(net, exact=plan.exact))
    store = _store(x, tiles)
    while steps:
        if steps[0].kind == "norm":
            _join_statistics(tiles, steps.pop(0).module, exact=plan.exact)
        elif steps[0].kind == "whole":
            _attend_whole(tiles, steps.pop(0).module, size=(height, width))
        until = next((i for i, s in enumerate(steps) if s.kind in ("norm", "whole")), len(steps))
        now, steps = steps[:until], steps[until:]
        for tile in tiles:
            _advance(tile, now, device=x.device, store=store)
    return _assemble(tiles, size=(height, width), device=x.device)


def steps_of(net: nn.Module, *, exact: bool) -> Iterator[Step]:
    """The network as a line of steps."""
    blocks: Any = getattr(net, "down_blocks", None) or getattr(net, "up_blocks", None)
    encoder = hasattr(net, "down_blocks")
    yield Step("layer", net.conv_in)  # type: ignore[arg-type]
    if not encoder:
        yield from _middle(net.mid_block, exact=exact)
    for block in blocks:
        for resnet in block.resnets:
            yield from _residual(resnet)
        for sampler in (block.downsamplers if encoder else block.upsamplers) or ():
            yield Step("layer", sampler)
    if encoder:
        yield from _middle(net.mid_block, exact=exact)
    yield Step("norm", net.conv_norm_out)  # type: ignore[arg-type]
    yield Step("silu")
    yield Step("layer", net.conv_out)  # type: ignore[arg-type]


def _middle(block: Any, *, exact: bool) -> Iterator[Step]:
    yield from _residual(block.resnets[0])
    for attention, resnet in zip(block.attentions, block.resnets[1:], strict=True):
        if attention is not None and exact:
            yield Step("whole", attention)  # its norm and its identity path are within
        elif attention is not None:
            yield Step("save")
            yield Step("norm", attention.group_norm)
            yield Step("attention", attention)
            yield Step("add")
        yield from _residual(resnet)


def _residual(block: Any) -> Iterator[Step]:
    yield Step("save", block.conv_shortcut)
    for norm, conv in ((block.norm1, block.conv1), (block.norm2, block.conv2)):
        yield Step("norm", norm)
        yield Step("silu")
        yield Step("layer", conv)
    yield Step("add")


def _advance(tile: Tile, steps: list[Step], *, device: torch.device, store: torch.device) -> None:
    """Run a tile up to where it has to wait."""
    x = tile.x.to(device)
    for step in steps:
        if step.kind == "save":
            tile.saved = (x if step.module is None else step.module(x)).to(store)
        elif step.kind == "add":
            assert tile.saved is not None
            x = x + tile.saved.to(device)
            tile.saved = None
        elif step.kind == "silu":
            x = F.silu(x, inplace=True)  # the norm before made it anew
        elif step.kind == "attention":
            x = _attend(step.module, x)
        else:
            assert step.module is not None
            x = step.module(x)
    tile.x = x.to(store)


def _attend(attention: Any, x: Tensor) -> Tensor:
    """Self-attention over `(B, C, H, W)`, without the norm before and the identity path around."""
    batch, channels, height, width = x.shape
    tokens = x.flatten(2).transpose(1, 2)  # (B, N, C)
    q, k, v = (
        project(tokens).unflatten(2, (attention.heads, -1)).transpose(1, 2)
        for project in (attention.to_q, attention.to_k, attention.to_v)
    )
    # In pieces, because without a fused kernel (a head has 512 channels) the product is stored.
    pieces = [
        F.scaled_dot_product_attention(piece, k, v, scale=attention.scale)
        for piece in q.split(_QUERIES, dim=2)
    ]
    tokens = torch.cat(pieces, dim=2)
    tokens = attention.to_out[0](tokens.transpose(1, 2).flatten(2))
    return tokens.transpose(1, 2).reshape(batch, channels, height, width)


def _join_statistics(tiles: list[Tile], norm: nn.Module | None, *, exact: bool) -> None:
    """Normalise all tiles with one mean and one variance for each group."""
    assert isinstance(norm, nn.GroupNorm)
    groups = norm.num_groups
    means, variances, sizes = [], [], []
    for tile in tiles:
        rows, columns = tile.cut(tile.core) if exact else (slice(None), slice(None))
        counted = tile.x[..., rows, columns].to(norm.weight.device)
        mean, variance = _moments(counted, groups)
        means.append(mean)
        variances.append(variance)
        sizes.append(counted[0].numel())
    share = torch.tensor(sizes, dtype=torch.float32, device=norm.weight.device)
    share = (share / share.sum()).view(-1, 1, 1)
    mean, variance = torch.stack(means), torch.stack(variances)
    joined = (share * mean).sum(0)
    if exact:  # the variance of the whole is that within the tiles and that between them
        variance = variance + (mean - joined).square()
    for tile in tiles:
        _normalise(tile, norm, mean=joined, variance=(share * variance).sum(0))


def _moments(x: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """Mean and variance of each group `(B, G)`, float32.

    In pieces: in half precision the squares need float32, which takes twice the memory.
    """
    pieces = _PIECES if groups % _PIECES == 0 else 1
    found = [
        torch.var_mean(
            torch.unflatten(part, 1, (groups // pieces, -1)).flatten(2).float(), 2, correction=0
        )
        for part in x.chunk(pieces, dim=1)
    ]
    variance, mean = (torch.cat(parts, dim=1) for parts in zip(*found, strict=True))
    return mean, variance


def _normalise(tile: Tile, norm: nn.GroupNorm, *, mean: Tensor, variance: Tensor) -> None:
    """Normalise with given statistics `(B, G)`, float32, and no copy of the features in float32."""
    per_group = norm.num_channels // norm.num_groups
    mean, variance = (x.repeat_interleave(per_group, 1).flatten() for x in (mean, variance))
    x = tile.x.to(norm.weight.device)
    result = F.batch_norm(
        x.reshape(1, -1, *x.shape[2:]),  # the pictures of a batch have statistics of their own
        mean,
        variance,
        norm.weight.float().repeat(len(x)),
        norm.bias.float().repeat(len(x)),
        eps=norm.eps,
    )
    tile.x = result.view(x.shape).to(tile.x.device)


def _attend_whole(tiles: list[Tile], module: Any, *, size: tuple[int, int]) -> None:
    """An attention block over the features of all tiles together, its identity path included."""
    device = module.to_q.weight.device
    whole = _assemble(tiles, size=size, device=device)
    scale = whole.shape[-1] / size[1]
    whole = whole + _attend(module, module.group_norm(whole))
    for tile in tiles:
        top, bottom, left, right = (round(edge * scale) for edge in tile.window)
        tile.x = whole[..., top:bottom, left:right].to(tile.x.device)


def _assemble(tiles: list[Tile], *, size: tuple[int, int], device: torch.device) -> Tensor:
    """The features that each tile is responsible for, side by side."""
    first = tiles[0]
    top, bottom, _, _ = first.window
    scale = first.x.shape[-2] / (bottom - top)
    height, width = (round(side * scale) for side in size)
    result = first.x.new_empty(*first.x.shape[:2], height, width, device=device)
    for tile in tiles:
        a, b, c, d = (round(edge * scale) for edge in tile.output)
        rows, columns = tile.cut(tile.output)
        result[..., a:b, c:d] = tile.x[..., rows, columns].to(device)
    return result


def plan_tiles(
    height: int, width: int, plan: TilePlan
) -> Iterator[tuple[tuple[int, int, int, int], ...]]:
    """Core, window and output of each tile, as top, bottom, left, right."""
    rows, columns = plan_axis(height, plan), plan_axis(width, plan)
    for row in rows:
        for column in columns:
            yield tuple((*r, *c) for r, c in zip(row, column, strict=True))


def plan_axis(length: int, plan: TilePlan) -> list[tuple[tuple[int, int], ...]]:
    """Core, window and output along one axis: the first place and the one past the last."""
    if plan.exact:
        count = -(-length // plan.tile)
        edges = [round(i * length / count / plan.multiple) * plan.multiple for i in range(count)]
        edges.append(length)
        cores = [(edges[i], edges[i + 1]) for i in range(count)]
        return [
            (core, (max(0, core[0] - plan.border), min(length, core[1] + plan.border)), core)
            for core in cores
        ]
    border = plan.border
    count = max(1, -(-(length - 2 * border) // plan.tile))
    side = _rounded(-(-(length - 2 * border) // count), plan.tile)
    spans: list[tuple[tuple[int, int], ...]] = []
    for i in range(count):
        first, last = border + i * side, min(border + (i + 1) * side, length)
        window = (max(0, first - border), min(length, last + border))
        output = (first if first > border else 0, last if last < length - border else length)
        spans.append(((first, last), window, output))
    return spans


def _rounded(side: int, largest: int) -> int:
    """`side` raised to a multiple of 32, or else of 16, 8, 4, 2, that is not above `largest`."""
    for divisor in (32, 16, 8, 4, 2):
        raised = -(-side // divisor) * divisor
        if raised <= largest:
            return raised
    return side


def _part(x: Tensor, box: tuple[int, int, int, int]) -> Tensor:
    top, bottom, left, right = box
    return x[..., top:bottom, left:right]


def _store(x: Tensor, tiles: list[Tile]) -> torch.device:
    """Where tiles wait: on the GPU when its free memory holds them several times over."""
    if x.device.type != "cuda":
        return x.device
    widest = 256 * 64 if x.shape[1] > 3 else 256  # channels per place at the largest size
    places = sum(t.x.shape[-1] * t.x.shape[-2] for t in tiles) * x.shape[0]
    free, _ = torch.cuda.mem_get_info(x.device)
    return x.device if 4 * places * widest * x.element_size() < free else torch.device("cpu")
