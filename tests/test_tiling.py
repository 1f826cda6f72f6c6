"""The plan covers every pixel once in total weight, whatever the sizes."""

import pytest
import torch

from restore.resampling import Axis
from restore.tiling import Span, Tile, add_tile, plan_spans, plan_tiles

SIZES = [(1, 32), (31, 32), (32, 32), (33, 32), (64, 32), (100, 32), (481, 64), (1000, 512)]


def coverage(spans: list[Span], size: int, scale: int = 1) -> torch.Tensor:
    total = torch.zeros(size * scale)
    for span in spans:
        inside = slice(span.start * scale, span.stop * scale)
        total[inside] += span.weights(
            Axis(source=1, target=scale).centres(inside.start, inside.stop)
        )
    return total


@pytest.mark.parametrize(("size", "tile"), SIZES)
@pytest.mark.parametrize("scale", [1, 4])
def test_weights_of_all_spans_add_up_to_one(size: int, tile: int, scale: int) -> None:
    total = coverage(plan_spans(size, tile), size, scale)
    torch.testing.assert_close(total, torch.ones(size * scale), atol=1e-6, rtol=0)


@pytest.mark.parametrize(("size", "tile"), SIZES)
def test_halved_spans_weigh_what_the_whole_did(size: int, tile: int) -> None:
    spans = [half for span in plan_spans(size, tile) for half in span.halves()]
    quarters = [half for span in spans for half in span.halves()]
    for parts in (spans, quarters):
        torch.testing.assert_close(coverage(parts, size), torch.ones(size), atol=1e-6, rtol=0)


@pytest.mark.parametrize(("size", "tile"), SIZES)
def test_spans_are_balanced_and_within_the_picture(size: int, tile: int) -> None:
    spans = plan_spans(size, tile)
    assert spans[0].start == 0
    assert spans[-1].stop == size
    bare = [s.length - (s.fade_in + s.fade_out) // 2 for s in spans]
    assert max(bare) <= tile
    assert max(bare) - min(bare) <= 1


def test_window_adds_context_within_the_picture_and_keeps_the_multiple() -> None:
    span = Span(start=10, stop=30)
    assert span.window(4, 100) == (6, 34)
    assert span.window(20, 32) == (0, 32)
    assert span.window(4, 96, multiple=8) == (0, 40)


def test_a_tile_is_cut_across_its_longer_side() -> None:
    tile = Tile(rows=Span(start=0, stop=10), columns=Span(start=0, stop=40))
    left, right = tile.halves()
    assert left.rows == right.rows == tile.rows
    assert left.columns.stop > right.columns.start


def test_tiles_of_a_picture_rebuild_it() -> None:
    picture = torch.rand(3, 70, 90)
    canvas = torch.zeros_like(picture)
    for tile in plan_tiles(70, 90, 32):
        top, bottom = tile.rows.window(5, 70)
        left, right = tile.columns.window(5, 90)
        window = picture[:, top:bottom, left:right]
        rows, columns = Axis(source=70, target=70), Axis(source=90, target=90)
        add_tile(canvas, window, tile, origin=(top, left), scale=1, rows=rows, columns=columns)
    torch.testing.assert_close(canvas, picture, atol=1e-6, rtol=0)
