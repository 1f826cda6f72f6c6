"""The published recipes, and our own, as data.

Figures are from the authors' code and settings, which is right where a paper says otherwise:
Real-ESRGAN `options/train_realesrgan_x4plus.yml`, OSEDiff `params_realesrgan.yml`, BSRGAN
`utils_blindsr.py: degradation_bsrgan`, RealBasicVSR's configuration for MMEditing.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal, get_args

from restore.degradations.blur import Blur, KernelKind, Sharpen
from restore.degradations.camera import Camera
from restore.degradations.codec import Codec
from restore.degradations.compression import Jpeg
from restore.degradations.noise import Noise
from restore.degradations.recipe import AnyRecipe, CompactRecipe, DegradationRecipe, Recipe
from restore.degradations.resize import Decimate, Resize
from restore.degradations.steps import KINDS, Branch, Either, Shuffle, Step, all_steps
from restore.errors import OptionError

RecipeName = Literal["realesrgan", "osediff", "bsrgan", "realbasicvsr", "compact"]
RECIPES: tuple[RecipeName, ...] = get_args(RecipeName)

_FAMILIES: tuple[KernelKind, ...] = (
    *("iso", "aniso", "generalized_iso", "generalized_aniso", "plateau_iso", "plateau_aniso"),
    "sinc",
)
_SHARES = (0.405, 0.225, 0.108, 0.027, 0.108, 0.027, 0.1)
"""A sinc in a tenth of all cases, else .45 .25 .12 .03 .12 .03."""

_BLUR1 = Blur(kinds=_FAMILIES, weights=_SHARES, size=(7, 21), sigma=(0.2, 3.0))
_BLUR2 = Blur(prob=0.8, kinds=_FAMILIES, weights=_SHARES, size=(7, 21), sigma=(0.2, 1.5))
_SINC = Blur(prob=0.8, kinds=("sinc",), weights=(1,), size=(7, 21), cutoff=(math.pi / 3, math.pi))
_RESIZE1 = Resize(ways=(0.2, 0.7, 0.1), factor=(0.15, 1.5))
_RESIZE2 = Resize(to="bad", ways=(0.3, 0.4, 0.3), factor=(0.3, 1.2))
_NOISE1 = Noise(sigma=(1, 30), scale=(0.05, 3), gray=0.4)
_NOISE2 = Noise(sigma=(1, 25), scale=(0.05, 2.5), gray=0.4)
_JPEG = Jpeg(quality=(30, 95))


def _end(compression: Step, sinc: Blur) -> Step:
    """Resampling and sinc, with the last compression before or after the two."""
    fit = Step(name="fit", resize=Resize(to="bad")), Step(name="sinc", blur=sinc)
    before, after = Branch(steps=(compression, *fit)), Branch(steps=(*fit, compression))
    return Step(name="end", either=Either(branches=(after, before)))


_SECOND_ORDER = (
    Step(name="blur1", blur=_BLUR1),
    Step(name="resize1", resize=_RESIZE1),
    Step(name="noise1", noise=_NOISE1),
    Step(name="jpeg1", jpeg=_JPEG),
    Step(name="blur2", blur=_BLUR2),
    Step(name="resize2", resize=_RESIZE2),
    Step(name="noise2", noise=_NOISE2),
    _end(Step(name="jpeg2", jpeg=_JPEG), _SINC),
)
_SHARPEN = Step(name="sharpen", sharpen=Sharpen())

REALESRGAN = Recipe(name="realesrgan", steps=(_SHARPEN, *_SECOND_ORDER))
"""Real-ESRGAN x4plus. Its good pictures are sharpened first, here as there; to train towards
pictures as they are, give `sharpen` a probability of 0."""

OSEDIFF = Recipe(name="osediff", steps=_SECOND_ORDER, base=4)
"""OSEDiff: the same without sharpening, and always by way of a quarter of the size. Its network
takes pictures that were enlarged again, which a scale of 1 gives."""


def _drifting(blur: Blur) -> Blur:
    return replace(
        blur,
        sigma_step=0.02,
        angle_step=math.pi / 10,
        generalized_step=0.05,
        plateau_step=0.1,
        cutoff_step=0.0628,
    )


_VIDEO_JPEG = Jpeg(quality=(30, 95), quality_step=3)
_VIDEO_CODEC = Codec(
    # "libx264" and "h264" in the published list are one encoder.
    codecs=("h264", "mpeg4"),
    weights=(2 / 3, 1 / 3),
    crf=None,
    # Published: 10,000 to 100,000 bits a frame, made from crops of 256x256 good pixels.
    bits=(1e4 / 256**2, 1e5 / 256**2),
    fps=1,
    speed="medium",
)

REALBASICVSR = Recipe(
    name="realbasicvsr",
    steps=(
        _SHARPEN,
        Step(name="blur1", blur=_drifting(_BLUR1)),
        Step(name="resize1", resize=replace(_RESIZE1, factor_step=0.015)),
        Step(name="noise1", noise=replace(_NOISE1, sigma_step=0.1, scale_step=0.005)),
        Step(name="jpeg1", jpeg=_VIDEO_JPEG),
        Step(name="codec1", codec=_VIDEO_CODEC),
        Step(name="blur2", blur=_drifting(_BLUR2)),
        Step(name="resize2", resize=replace(_RESIZE2, to="current", factor_step=0.03)),
        Step(name="noise2", noise=replace(_NOISE2, sigma_step=0.1, scale_step=0.005)),
        Step(name="jpeg2", jpeg=_VIDEO_JPEG),
        _end(Step(name="codec2", codec=_VIDEO_CODEC), replace(_SINC, cutoff_step=0.0628)),
    ),
)
"""RealBasicVSR: as Real-ESRGAN, each number wandering from frame to frame, with two encoders. Its
second resampling counts from the picture as it is, so the way can be by a very small one."""


def _bsrgan(scale: int) -> Recipe:
    """BSRGAN: two blurs, a resampling in two parts, noise, JPEG and a camera in any order, and a
    last JPEG. For x4, a quarter of the pictures is halved first."""
    rounds = Step(name="rounds", shuffle=_bsrgan_rounds(scale))
    steps: tuple[Step, ...] = (rounds,)
    if scale == 4:
        plain = Resize(factor=(0.5, 0.5))
        smooth = replace(plain, modes=("bicubic",), antialias=True)
        halved = _one_of(Step(name="halve", resize=plain), Step(name="halve", resize=smooth))
        half = Step(name="rounds", shuffle=_bsrgan_rounds(2))
        first = Branch(weight=0.25, steps=(halved, half)), Branch(weight=0.75, steps=(rounds,))
        steps = (Step(name="start", either=Either(branches=first)),)
    return Recipe(name="bsrgan", steps=(*steps, Step(name="jpeg2", jpeg=_JPEG)))


def _bsrgan_rounds(scale: int) -> Shuffle:
    low = 0.05  # stands for the published 0, whose kernel is the same
    # Drawn evenly there: the deviation of a round kernel, the variances of the other.
    even = Blur(kinds=("iso",), weights=(1,), size=(7, 25), sigma=(low, 2 + 0.2 * scale))
    wide = replace(even, kinds=("aniso",), sigma=(low, math.sqrt(4 + scale)), spread="variance")
    shrink = (
        Branch(weight=0.75, steps=(_shrink(Resize(factor=(1, 2 * scale), divide=True)),)),
        Branch(weight=0.25, steps=(_shrink(Decimate(every=scale, sigma=(0.1, 0.6 * scale))),)),
    )
    noise = Noise(kinds=("gaussian", "correlated"), weights=(0.8, 0.2), sigma=(2, 25), gray=0.5)
    return Shuffle(
        steps=(
            _one_of(Step(name="blur1", blur=even), Step(name="blur1", blur=wide)),
            _one_of(Step(name="blur2", blur=even), Step(name="blur2", blur=wide)),
            Step(name="to_between", either=Either(branches=shrink)),
            Step(name="fit", resize=Resize(to="bad")),
            Step(name="noise", noise=noise),
            Step(name="jpeg1", jpeg=replace(_JPEG, prob=0.9)),
            Step(name="camera", camera=Camera(prob=0.25)),
        ),
        in_order=("to_between", "fit"),
    )


def _shrink(kind: Resize | Decimate) -> Step:
    if isinstance(kind, Decimate):
        return Step(name="decimate", decimate=kind)
    return Step(name="shrink", resize=kind)


def _one_of(first: Step, second: Step) -> Step:
    return Step(either=Either(branches=(Branch(steps=(first,)), Branch(steps=(second,)))))


BSRGAN = _bsrgan(4)
"""BSRGAN for x4. In place of its learned or recorded camera there is `Camera`."""


def _compact(light_sigma: float, heavy_sigma: float) -> CompactRecipe:
    light = DegradationRecipe(
        blur_prob=0.9,
        blur_sigma=(0.3, light_sigma),
        anisotropic_prob=0.2,
        detour_prob=0.0,
        noise_prob=0.4,
        noise_sigma=(0.3, 4.0),
        poisson_scale=(0.05, 0.6),
        jpeg_prob=0.25,
        jpeg_quality=(70, 97),
        codec_prob=0.3,
        codec_crf=(16, 26),
    )
    heavy = DegradationRecipe(
        blur_prob=0.9,
        blur_sigma=(0.2, heavy_sigma),
        anisotropic_prob=0.4,
        detour_prob=0.6,
        detour_range=(0.3, 1.1),
        noise_prob=0.7,
        noise_sigma=(0.5, 15.0),
        poisson_scale=(0.05, 2.0),
        jpeg_prob=0.8,
        jpeg_quality=(40, 95),
        codec_prob=0.7,
        codec_crf=(20, 36),
    )
    return CompactRecipe(light=light, heavy=heavy, light_share=0.5)


COMPACT = _compact(2.8, 2.8)
"""What `compact` is trained with for x4: half of the batches light, half heavy."""

COMPACT_X2 = _compact(1.6, 1.8)
"""The same for x2: half the way to the good picture needs less blur."""


def recipe_named(name: str, *, scale: int = 4) -> AnyRecipe:
    """A published recipe, or our own.

    Args:
        name: one of `RECIPES`.
        scale: factor between the good and the bad pictures; BSRGAN and our own depend on it.

    Raises:
        OptionError: there is none of that name.
    """
    if name not in RECIPES:
        raise OptionError(f"recipe '{name}' is unknown; allowed: {', '.join(RECIPES)}")
    if name == "bsrgan":
        return BSRGAN if scale == 4 else _bsrgan(scale)
    if name == "compact":
        return COMPACT if scale > 2 else COMPACT_X2
    return {"realesrgan": REALESRGAN, "osediff": OSEDIFF, "realbasicvsr": REALBASICVSR}[name]


def changed(recipe: AnyRecipe, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a recipe as plain values, some of them changed, from which to build it again.

    For a `Recipe` the changes are of its steps by name, such as `{"noise2": {"sigma": [1, 9]}}`;
    a name that stands in several branches is changed in all of them. For the others they are of
    their own fields, such as `{"heavy": {"jpeg_prob": 0.5}}`.

    Raises:
        OptionError: there is no step of that name.
    """
    content = plain(recipe)
    if not isinstance(recipe, Recipe):
        return _merged(content, changes)
    labels = sorted({step.label for step in all_steps(recipe.steps)})
    for name, change in changes.items():
        if name not in labels:
            raise OptionError(f"no step '{name}' in {recipe.name}; there are {', '.join(labels)}")
        _change_steps(content, name, change)
    return content


def plain(value: Any) -> Any:
    """A recipe as dicts, lists and numbers, as YAML has them; kinds that a step is not are left
    out."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        absent = KINDS if isinstance(value, Step) else ()
        return {
            name: plain(own) for name, own in fields.items() if not (own is None and name in absent)
        }
    return [plain(item) for item in value] if isinstance(value, tuple) else value


def _change_steps(content: Any, name: str, change: Mapping[str, Any]) -> None:
    """Change every step of that name inside plain content, in place."""
    if isinstance(content, list):
        for item in content:
            _change_steps(item, name, change)
    elif isinstance(content, dict):
        what = next((kind for kind in KINDS if kind in content), None)
        if what is not None and name == (content.get("name") or what):
            content[what] = _merged(content[what], change)
        for item in content.values():
            _change_steps(item, name, change)


def _merged(content: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(content)
    for name, change in changes.items():
        own = result.get(name)
        both = isinstance(own, dict) and isinstance(change, Mapping)
        result[name] = _merged(own, change) if both else change  # type: ignore[arg-type]
    return result
