"""Recipes: seeds repeat, sizes and ranges hold, records tell, clips drift, changes arrive."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from degradation_scenes import generator, noise_pictures, smooth_pictures

from restore.degradations.blur import Blur
from restore.degradations.codec import Codec
from restore.degradations.draw import pick, uniform, wander
from restore.degradations.noise import Noise
from restore.degradations.presets import (
    BSRGAN,
    COMPACT,
    COMPACT_X2,
    OSEDIFF,
    REALBASICVSR,
    REALESRGAN,
    RECIPES,
    RecipeName,
    changed,
    plain,
    recipe_named,
)
from restore.degradations.recipe import (
    ClipDegrader,
    CompactRecipe,
    DegradationRecipe,
    Recipe,
    degrade,
    degrade_clip,
    degrade_clip_recorded,
    degrade_recorded,
)
from restore.degradations.resize import MODES, Decimate, Resize, resize
from restore.degradations.step import Scene
from restore.degradations.steps import Branch, Either, Shuffle, Step, drawn_order
from restore.errors import OptionError
from restore.training.build import build


@pytest.mark.parametrize("name", RECIPES)
def test_the_same_seed_repeats_a_batch_and_its_record_and_another_does_not(
    name: RecipeName,
) -> None:
    first, again, other = (
        degrade_recorded(noise_pictures(2), generator(seed), recipe_named(name), scale=4)
        for seed in (3, 3, 4)
    )
    assert torch.equal(first[0], again[0])
    assert first[1] == again[1]
    assert not torch.equal(first[0], other[0])
    assert first[1] != other[1]
    recorded = degrade(noise_pictures(2), generator(3), recipe_named(name), scale=4)
    assert torch.equal(recorded, first[0])  # recording draws nothing


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("scale", [1, 2, 3, 4])
def test_every_draw_has_the_right_size_and_is_a_picture(name: RecipeName, scale: int) -> None:
    recipe = recipe_named(name, scale=scale)
    for seed, (rows, columns) in enumerate([(12, 16), (5, 9), (1, 1), (16, 2)]):
        good = noise_pictures(2, rows * scale, columns * scale)
        bad = degrade(good, generator(seed), recipe, scale=scale)
        assert bad.shape == (2, 3, rows, columns)
        steps = bad * 255
        torch.testing.assert_close(steps, steps.round(), atol=1e-3, rtol=0)
        assert 0 <= float(bad.min()) <= float(bad.max()) <= 1


def test_sizes_that_do_not_divide_are_refused() -> None:
    with pytest.raises(ValueError, match="do not divide by the scale 4"):
        degrade(noise_pictures(1, 30), generator(), DegradationRecipe(), scale=4)


def test_a_nan_does_not_spread() -> None:
    good = noise_pictures(1, 32)
    good[0, 0, 3, 3] = math.nan
    for name in RECIPES:
        assert bool(torch.isfinite(degrade(good, generator(), recipe_named(name), scale=4)).all())


def test_a_recipe_of_nothing_only_resamples() -> None:
    nothing = DegradationRecipe(blur_prob=0, detour_prob=0, noise_prob=0, jpeg_prob=0)
    result, (record, *_) = degrade_recorded(noise_pictures(), generator(), nothing, scale=1)
    torch.testing.assert_close(result, noise_pictures(), atol=0.00197, rtol=0)  # half of 1/255
    assert [step["step"] for step in record["steps"]] == ["shrink"]


def test_a_camera_sharpens_between_the_noise_and_the_jpeg() -> None:
    clean = DegradationRecipe(blur_prob=1, detour_prob=0, noise_prob=1, jpeg_prob=1)
    recipe = replace(clean, sharpen_prob=1, sharpen_amount=(0.3, 0.9), sharpen_sigma=(1, 2))
    bad, (record, *_) = degrade_recorded(noise_pictures(), generator(), recipe, scale=4)
    steps = [step["step"] for step in record["steps"]]
    assert steps == ["blur", "shrink", "noise", "sharpen", "jpeg"]
    mask = record["steps"][3]
    assert 0.3 <= mask["amount"] <= 0.9
    assert 1 <= mask["sigma"] <= 2
    assert float(bad.var()) > float(degrade(noise_pictures(), generator(), clean, scale=4).var())


def test_good_pictures_are_left_as_they_are() -> None:
    good = noise_pictures(2)
    before = good.clone()
    for name in RECIPES:
        degrade(good, generator(), recipe_named(name), scale=4)
    assert torch.equal(good, before)


def test_pictures_of_a_batch_have_draws_of_their_own() -> None:
    recipe = DegradationRecipe(blur_prob=0.5, detour_prob=0, noise_prob=0.5, jpeg_prob=0.5)
    records = degrade_recorded(
        noise_pictures(1).expand(40, -1, -1, -1), generator(), recipe, scale=4
    )
    done = [[step["step"] for step in record["steps"]] for record in records[1]]
    for name in ("blur", "noise", "jpeg"):
        # 40 coins: 5 to 35 heads but once in a million.
        assert 5 <= sum(name in steps for steps in done) <= 35
    sigmas = {
        s["sigma"] for r in records[1] for s in r["steps"] if s["step"] == "blur" if "sigma" in s
    }
    assert len(sigmas) > 3


def test_a_step_touches_only_the_pictures_that_its_record_names() -> None:
    steps = (Step(noise=Noise(prob=0.5, kinds=("gaussian",), weights=(1,), sigma=(20, 30))),)
    good = (noise_pictures(8, 16) * 255).round() / 255
    bad, records = degrade_recorded(good, generator(), Recipe(steps=steps), scale=1)
    changes = [not torch.equal(b, g) for b, g in zip(bad, good, strict=True)]
    assert changes == [bool(record["steps"]) for record in records]
    assert 0 < sum(changes) < 8


def test_records_are_json_and_say_what_was_done() -> None:
    _, (record, _) = degrade_recorded(noise_pictures(2, 64), generator(1), REALESRGAN, scale=4)
    assert json.loads(json.dumps(record)) == record
    assert (record["recipe"], record["scale"]) == ("realesrgan", 4)
    assert (record["good"], record["bad"]) == ([64, 64], [16, 16])
    names = [step["step"] for step in record["steps"]]
    always = ["sharpen", "blur1", "resize1", "noise1", "jpeg1", "resize2", "noise2"]
    assert [name for name in names if name in always] == always
    assert {"jpeg2", "fit"} <= set(names)
    jpegs = [step["quality"] for step in record["steps"] if step["step"].startswith("jpeg")]
    assert len(jpegs) == 2
    assert all(30 <= quality <= 95 for quality in jpegs)


def test_strengths_of_zero_take_the_same_draws() -> None:
    """The trainer tells the noise of a bad picture from the rest by turning it down to nothing."""
    loud = DegradationRecipe(noise_prob=1, detour_prob=1)
    mute = replace(loud, noise_sigma=(0, 0), poisson_scale=(0, 0))
    good = smooth_pictures(2)
    for seed in range(6):
        noisy, records = degrade_recorded(good, generator(seed), loud, scale=4)
        clean, others = degrade_recorded(good, generator(seed), mute, scale=4)
        for record, other in zip(records, others, strict=True):
            for step, its in zip(record["steps"], other["steps"], strict=True):
                if "noise" not in step["step"]:
                    assert step == its
        assert float((noisy - clean).std()) > 0.004


def test_osediff_goes_by_a_quarter_of_the_size_whatever_the_scale() -> None:
    good = smooth_pictures(2, 64)
    small, records = degrade_recorded(good, generator(), OSEDIFF, scale=4)
    large, others = degrade_recorded(good, generator(), OSEDIFF, scale=1)
    assert [r["steps"] for r in records] == [r["steps"] for r in others]
    assert large.shape[-1] == 64
    back = resize(large, 16, 16, "area")
    # Enlarging is no loss but for the sides, where filters see less.
    assert float((back - small).abs()[..., 2:-2, 2:-2].mean()) < 0.02


def test_bsrgan_takes_its_steps_in_any_order_and_jpeg_last() -> None:
    orders = set()
    for seed in range(60):
        names = [name for name, _ in drawn_order(BSRGAN.steps, generator(seed))]
        assert names[-1] == "jpeg2"
        between = names.index("shrink") if "shrink" in names else names.index("decimate")
        assert between < names.index("fit")
        orders.add(tuple(name for name in names if name in ("blur1", "noise", "jpeg1", "camera")))
    assert len(orders) > 15  # of 24


def test_branches_are_taken_as_often_as_their_weights_say() -> None:
    halves = ["halve" in dict(drawn_order(BSRGAN.steps, generator(seed))) for seed in range(400)]
    assert 0.16 < sum(halves) / 400 < 0.34  # a quarter, four standard deviations
    shares = [
        degrade_recorded(noise_pictures(1, 8), generator(seed), COMPACT, scale=4)[1][0]["recipe"]
        for seed in range(200)
    ]
    assert set(shares) == {"compact, light", "compact, heavy"}
    assert 0.36 < shares.count("compact, light") / 200 < 0.64


def test_the_compact_recipe_depends_on_the_scale() -> None:
    assert recipe_named("compact", scale=4) is COMPACT
    assert recipe_named("compact", scale=2) is COMPACT_X2
    assert COMPACT_X2.heavy.blur_sigma[1] < COMPACT.heavy.blur_sigma[1]


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("scale", [2, 4])
def test_every_preset_survives_the_way_through_yaml(name: RecipeName, scale: int) -> None:
    recipe = recipe_named(name, scale=scale)
    content = json.loads(json.dumps(plain(recipe)))
    assert build(type(recipe), content) == recipe


def test_changes_of_steps_and_of_fields_arrive() -> None:
    changes: dict[str, Any] = {"noise2": {"sigma": [1, 9]}, "jpeg2": {"prob": 0.5}}
    recipe = build(Recipe, changed(REALESRGAN, changes))
    noises = {step.name: step.noise for step in recipe.steps if step.noise is not None}
    assert noises["noise2"].sigma == (1, 9)
    assert noises["noise2"].scale == (0.05, 2.5)  # the rest of it stays
    assert noises["noise1"].sigma == (1, 30)
    end = recipe.steps[-1].either
    assert end is not None
    jpegs = [step.jpeg.prob for branch in end.branches for step in branch.steps if step.jpeg]
    assert jpegs == [0.5, 0.5]  # in both branches
    heavy = build(CompactRecipe, changed(COMPACT, {"heavy": {"jpeg_prob": 0.1}})).heavy
    assert heavy == replace(COMPACT.heavy, jpeg_prob=0.1)
    with pytest.raises(OptionError, match="no step 'noise3' in realesrgan; there are blur1"):
        changed(REALESRGAN, {"noise3": {}})
    with pytest.raises(OptionError, match=r"unknown field 'steps\[0\]\.blur\.sigmas'"):
        build(Recipe, {"steps": [{"blur": {"sigmas": [1, 2]}}]})


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Step(), "a step holds nothing; give exactly one of blur"),
        (lambda: Step(blur=Blur(), resize=Resize()), "a step holds blur and resize"),
        (lambda: Blur(kinds=("iso",), weights=(1, 2)), "1 kinds and 2 weights"),
        (lambda: Blur(kinds=("round",), weights=(1,)), "kind 'round' is unknown; allowed: iso"),  # type: ignore[arg-type]
        (lambda: Noise(sigma=(9, 3)), r"noise sigma \[9, 3\] is not possible"),
        (lambda: DegradationRecipe(jpeg_prob=1.5), "jpeg_prob 1.5 is not possible; give 0 to 1"),
        (lambda: Resize(factor=(0, 1)), "resize factor"),
        (lambda: Shuffle(steps=(Step(blur=Blur()),), in_order=("fit",)), "no step 'fit'"),
        (lambda: Either(branches=(Branch(weight=-1),)), "branch weights"),
        (lambda: recipe_named("esrgan"), "recipe 'esrgan' is unknown; allowed: realesrgan"),
    ],
)
def test_impossible_recipes_are_refused_in_one_line(make: Any, said: str) -> None:
    with pytest.raises(OptionError, match=said) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_draws_fill_their_range() -> None:
    drawn = uniform(4000, 2, 5, generator=generator())
    assert 2 <= float(drawn.min()) < 2.05
    assert 4.95 < float(drawn.max()) < 5
    names = [pick(("a", "b"), (1, 3), generator=generator(i)) for i in range(400)]
    assert 0.65 < names.count("b") / 400 < 0.85


def test_a_walk_stays_in_its_room_and_takes_small_steps() -> None:
    start = torch.tensor([0.0, 0.5, 1.0])
    walk = wander(start, 200, step=0.1, low=0, high=1, generator=generator())
    assert torch.equal(walk[:, 0], start)
    assert float(walk.min()) >= 0
    assert float(walk.max()) <= 1
    assert 0.05 < float(walk.diff(dim=1).abs().max()) <= 0.1 + 1e-6
    after = wander(start, 3, step=0.1, low=0, high=1, generator=generator(), first=False)
    assert not torch.equal(after[:, 0], start)
    still = wander(start, 5, step=0, low=0, high=1, generator=generator())
    assert torch.equal(still, start[:, None].expand(-1, 5))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", [(16, 20), (70, 66), (48, 16)])
def test_resampling_keeps_the_mean(mode: str, size: tuple[int, int]) -> None:
    result = resize(smooth_pictures(2, 64), *size, mode)  # type: ignore[arg-type]
    assert result.shape == (2, 3, *size)
    mean = smooth_pictures(2, 64).mean((2, 3))
    torch.testing.assert_close(result.mean((2, 3)), mean, atol=0.01, rtol=0)


def test_resizing_goes_up_down_or_stays_as_often_as_it_should() -> None:
    draws = Resize(ways=(0.2, 0.7, 0.1), factor=(0.15, 1.5)).draw(4000, generator())["factor"]
    shares = [float(part.float().mean()) for part in (draws > 1, draws < 1, draws == 1)]
    assert shares == pytest.approx([0.2, 0.7, 0.1], abs=0.03)  # four standard deviations
    assert 0.15 <= float(draws.min()) < 0.17
    assert 1.48 < float(draws.max()) < 1.5


def test_decimation_leaves_the_picture_in_its_place() -> None:
    ramp = torch.linspace(0, 1, 64).expand(1, 3, 64, 64)
    scene = Scene(good=(64, 64), bad=(16, 16))
    sigma = {"sigma": torch.tensor([1.5])}
    got = Decimate(every=4).apply(ramp, sigma, generator(), scene)
    expected = resize(ramp, 16, 16, "area")
    inner = slice(3, -3)  # beside the border the mirror bends the ramp
    torch.testing.assert_close(got[..., inner], expected[..., inner], atol=1e-4, rtol=0)


def test_a_clip_drifts_slowly_and_its_record_has_each_frame() -> None:
    clips = smooth_pictures(2, 48)[:, None].expand(-1, 7, -1, -1, -1)
    seen = set()
    for seed in range(8):
        bad, records = degrade_clip_recorded(clips, generator(seed), REALBASICVSR, scale=4)
        assert bad.shape == (2, 7, 3, 12, 12)
        for record in records:
            assert record["frames"] == 7
            for step in record["steps"]:
                for name, room in (
                    ("sigma", 0.1 if "noise" in step["step"] else 0.02),
                    ("angle", 0.3142),
                ):
                    if isinstance(step.get(name), list):
                        seen.add((step["step"], name))
                        moves = torch.tensor(step[name]).diff().abs()
                        assert len(moves) == 6
                        assert float(moves.max()) <= room + 1e-5
    assert {("noise1", "sigma"), ("blur1", "angle")} <= seen


def test_without_steps_the_draws_of_a_clip_stay_and_its_noise_is_new_each_frame() -> None:
    clip = smooth_pictures(1, 48)[:, None].expand(-1, 5, -1, -1, -1)
    recipe = DegradationRecipe(noise_prob=1, noise_sigma=(8, 8), detour_prob=0, jpeg_prob=0)
    bad, (record,) = degrade_clip_recorded(clip, generator(), recipe, scale=2)
    assert not any(
        isinstance(v, list) for s in record["steps"] for k, v in s.items() if k != "size"
    )
    assert not torch.equal(bad[0, 0], bad[0, 1])
    still = replace(recipe, noise_prob=0)
    bad = degrade_clip(clip, generator(), still, scale=2)
    assert torch.equal(bad[0, 0], bad[0, 4])


def test_stretches_of_a_clip_go_on_where_the_one_before_ended() -> None:
    clip = smooth_pictures(1, 48).expand(9, -1, -1, -1)
    degrader = ClipDegrader(REALBASICVSR, generator(5), size=(48, 48), scale=4)
    parts = [degrader.push(clip[a:b]) for a, b in ((0, 4), (4, 8), (8, 9))]
    assert torch.cat(parts).shape == (9, 3, 12, 12)
    record = degrader.record()
    assert record["frames"] == 9
    noise = next(step for step in record["steps"] if step["step"] == "noise1")
    walk = torch.tensor(noise.get("sigma") or noise["scale"])
    assert len(walk) == 9
    assert bool((walk.diff() != 0).all())  # no value is repeated at a seam
    assert float(walk.diff().abs().max()) <= 0.1


def test_video_compression_is_for_clips_only_where_the_recipe_says_so() -> None:
    recipe = DegradationRecipe(codec_prob=1, codec_crf=(30, 30))
    _, (picture,) = degrade_recorded(noise_pictures(1, 32), generator(), recipe, scale=2)
    assert "codec" not in [step["step"] for step in picture["steps"]]
    _, (clip,) = degrade_clip_recorded(noise_pictures(1, 32)[:, None], generator(), recipe, scale=2)
    assert clip["steps"][-1]["step"] == "codec"
    both = Recipe(steps=(Step(codec=Codec(crf=(30, 30))),))
    _, (picture,) = degrade_recorded(noise_pictures(1, 32), generator(), both, scale=2)
    assert [step["step"] for step in picture["steps"]] == ["codec"]


def test_all_kinds_of_steps_work_together() -> None:
    content = {
        "name": "phone",
        "steps": [
            {"blur": {"kinds": ["motion", "shake", "defocus"], "weights": [1, 1, 1]}},
            {"camera": {"prob": 1.0, "shot": [1e-3, 1e-2]}},
            {"resize": {"to": "bad"}},
            {"webp": {"quality": [30, 60]}},
        ],
    }
    recipe = build(Recipe, content)
    bad, records = degrade_recorded(smooth_pictures(6, 64), generator(), recipe, scale=2)
    assert bad.shape == (6, 3, 32, 32)
    kinds = {record["steps"][0]["kind"] for record in records}
    assert kinds <= {"motion", "shake", "defocus"}
    assert len(kinds) > 1
    assert [step["step"] for step in records[0]["steps"]] == ["blur", "camera", "resize", "webp"]


@pytest.mark.gpu
@pytest.mark.parametrize("name", RECIPES)
def test_a_gpu_gives_the_same_pictures_from_a_generator_of_the_cpu(name: RecipeName) -> None:
    good = smooth_pictures(2, 64)
    here = degrade(good, generator(2), recipe_named(name), scale=4)
    there = degrade(good.cuda(), generator(2), recipe_named(name), scale=4)
    assert there.is_cuda
    # Rounding differs, and what JPEG makes of it.
    assert float((there.cpu() - here).abs().mean()) < 0.01
    own = degrade(good.cuda(), torch.Generator("cuda").manual_seed(2), recipe_named(name), scale=4)
    again = degrade(
        good.cuda(), torch.Generator("cuda").manual_seed(2), recipe_named(name), scale=4
    )
    assert own.is_cuda
    assert torch.equal(own, again)
