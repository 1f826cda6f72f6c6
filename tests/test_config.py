"""Settings: what is refused is refused with one line that says what is allowed."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from restore.batch_config import BatchConfig
from restore.config import (
    EngineConfig,
    ImageConfig,
    SizeConfig,
    VideoConfig,
    output_size,
    parse_target,
)
from restore.durations import parse_time
from restore.errors import OptionError


@pytest.mark.parametrize(
    ("kind", "settings", "said"),
    [
        (EngineConfig, {"tile": 3}, "tile 3 is too small; allowed: 0"),
        (EngineConfig, {"tile": -1}, "tile -1"),
        (EngineConfig, {"tile_overlap": -1}, "give 0 or more"),
        (EngineConfig, {"seed": -1}, "seed -1"),
        (EngineConfig, {"dtype": "fp8"}, "allowed: auto, fp32, bf16, fp16"),
        (EngineConfig, {"color_fix": "lab"}, "allowed: auto, none, wavelet, adain"),
        (SizeConfig, {"scale": 0.0}, "give a number above 0"),
        (SizeConfig, {"scale": -2.0}, "give a number above 0"),
        (SizeConfig, {"scale": float("nan")}, "give a number above 0"),
        (SizeConfig, {"scale": float("inf")}, "up to 16"),
        (SizeConfig, {"scale": 2.0, "target": "1080p"}, "give one of them"),
        (SizeConfig, {"target": "big"}, "3840x2160"),
        (SizeConfig, {"target": "0x10"}, "1 to 65536"),
        (ImageConfig, {"ext": "bmp"}, "allowed: auto, png"),
        (ImageConfig, {"quality": 0}, "give 1 to 100"),
        (ImageConfig, {"quality": 101}, "give 1 to 100"),
        (ImageConfig, {"skip_existing": True, "overwrite": True}, "give one of them"),
        (ImageConfig, {"max_pixels": 0}, "give 1 or more"),
        (VideoConfig, {"codec": "mpeg2"}, "allowed: h264, hevc, av1, ffv1, prores"),
        (VideoConfig, {"encoder": "gpu"}, "allowed: software, hardware"),
        (VideoConfig, {"scene_threshold": 1.5}, "give 0 to 1"),
        (VideoConfig, {"segment": 0}, "1 frame or more"),
        (VideoConfig, {"encoder_option": ("crf",)}, "key=value"),
        (VideoConfig, {"encoder_option": ("=4",)}, "key=value"),
        (VideoConfig, {"start": "soon"}, "HH:MM:SS"),
        (VideoConfig, {"start": "10", "end": "5"}, "give a later end"),
    ],
)
def test_what_is_not_possible_is_refused_in_one_line(
    kind: type, settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(OptionError) as caught:
        kind(**settings)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", [EngineConfig, SizeConfig, ImageConfig, VideoConfig])
def test_defaults_are_allowed_and_frozen(kind: type) -> None:
    config = kind()
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.seed = 5


@pytest.mark.parametrize("kind", [ImageConfig, VideoConfig])
def test_every_field_is_an_option_with_help(kind: type) -> None:
    for field in dataclasses.fields(kind):
        assert field.metadata["flags"], field.name
        text = field.metadata["help"]
        assert text.endswith(".") and text[0].isalnum(), field.name


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0.0), ("12.5", 12.5), ("1:30", 90.0), ("01:02:03.25", 3723.25), ("0:90", 90.0)],
)
def test_times(text: str, seconds: float) -> None:
    assert parse_time(text) == seconds


@pytest.mark.parametrize("text", ["", "x", "1:2:3:4", "-5", "1:-2", "nan", "inf", "::"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(OptionError, match="not a time"):
        parse_time(text)


def test_targets() -> None:
    assert parse_target("3840x2160") == (3840, 2160)
    assert parse_target("640X480") == (640, 480)
    assert parse_target("1080p") == 1080


@pytest.mark.parametrize("text", ["", "x", "10x", "1x2x3", "p", "3.5x2", "65537x1", "-4p"])
def test_what_is_no_target_is_refused(text: str) -> None:
    with pytest.raises(OptionError, match="target"):
        parse_target(text)


@pytest.mark.parametrize(
    ("settings", "size"),
    [
        ({}, (400, 200)),
        ({"scale": 2.5}, (250, 125)),
        ({"scale": 0.001}, (1, 1)),
        ({"target": "30x40"}, (30, 40)),
        ({"target": "100p"}, (200, 100)),
    ],
)
def test_size_of_the_result(settings: dict[str, Any], size: tuple[int, int]) -> None:
    assert output_size(SizeConfig(**settings), 100, 50, 4) == size


def test_a_batch_has_the_defaults_of_the_commands_whose_results_it_makes() -> None:
    assert BatchConfig().pictures() == ImageConfig(overwrite=True)
    assert BatchConfig().clips() == VideoConfig(overwrite=True, resume=True)
