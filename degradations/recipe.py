"""How a low-quality picture is made from a good one: recipes are data, `degrade` follows them.

recipe -> steps -> plan (all choices made) -> bad pictures, and a record of what was drawn
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from restore.degradations.blur import Blur, Sharpen
from restore.degradations.codec import Codec
from restore.degradations.compression import Jpeg
from restore.degradations.draw import chance
from restore.degradations.noise import Noise
from restore.degradations.plan import Plan, Record
from restore.degradations.resize import Resize
from restore.degradations.step import check_prob, check_range
from restore.degradations.steps import Branch, Either, Step


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """Any degradation: steps in order."""

    name: str = "custom"
    """What records call it."""
    steps: tuple[Step, ...]
    """What is done, in order. At the end the picture is brought to its size, if it has another."""
    base: int | None = None
    """Factor between the good picture and what the steps call the bad one; None = the scale that
    is asked for. A recipe with a base of 4 makes the same picture at any scale, resampled."""


_PROBS = ("blur", "anisotropic", "detour", "noise", "gray", "sharpen", "jpeg", "codec")


@dataclass(frozen=True, kw_only=True, slots=True)
class DegradationRecipe:
    """Two rounds of blur, resampling, noise and JPEG, after Real-ESRGAN (ICCVW 2021, section 3).

    Few fields, for a training recipe to set; `Recipe` has all freedom. Probabilities and strengths
    are of each picture unless a field says otherwise.
    """

    blur_prob: float = 0.9
    """Probability of the first blur."""
    blur_sigma: tuple[float, float] = (0.2, 3.0)
    """Standard deviation of the first blur in pixels of the good picture."""
    anisotropic_prob: float = 0.4
    """Probability of a blur with a direction."""
    kernel_size: int = 15
    """Side of the blur kernels in pixels, odd."""
    detour_prob: float = 0.4
    """Probability, for a whole batch, of a resampling to a size between, and a second round of
    noise and JPEG."""
    detour_range: tuple[float, float] = (0.3, 1.2)
    """Size of that detour over the size of the good picture, one for the batch."""
    noise_prob: float = 0.5
    """Probability of each round of noise."""
    noise_sigma: tuple[float, float] = (0.5, 14.0)
    """Standard deviation of white noise in steps of 1/255."""
    poisson_scale: tuple[float, float] = (0.05, 2.0)
    """Strength of photon noise."""
    gray_prob: float = 0.4
    """Probability of noise without colour."""
    sharpen_prob: float = 0.0
    """Probability of an unsharp mask on the bad picture, between its noise and its JPEG, as cameras
    do it: halos that a network should take back rather than enlarge."""
    sharpen_amount: tuple[float, float] = (0.1, 1.0)
    """How much of the difference from the blurred picture that mask adds."""
    sharpen_sigma: tuple[float, float] = (0.6, 2.0)
    """Deviation of its blur in pixels of the bad picture."""
    jpeg_prob: float = 0.6
    """Probability of each JPEG."""
    jpeg_quality: tuple[float, float] = (40, 95)
    """Quality of each JPEG."""
    codec_prob: float = 0.0
    """Probability, for a clip, of video compression at the end; pictures have none."""
    codec_crf: tuple[float, float] = (20, 36)
    """Its constant quality on x264's scale."""

    def __post_init__(self) -> None:
        for name in _PROBS:
            check_prob(f"{name}_prob", getattr(self, f"{name}_prob"))
        check_range("detour_range", self.detour_range, low=1e-3, high=4)

    @property
    def steps(self) -> tuple[Step, ...]:
        """The same as steps."""
        blur = Blur(
            prob=self.blur_prob,
            kinds=("iso", "aniso"),
            weights=(1 - self.anisotropic_prob, self.anisotropic_prob),
            size=(self.kernel_size, self.kernel_size),
            sigma=self.blur_sigma,
        )
        noise = Noise(
            prob=self.noise_prob,
            kinds=("gaussian", "photon"),
            weights=(1, 1),
            sigma=self.noise_sigma,
            scale=self.poisson_scale,
            gray=self.gray_prob,
        )
        jpeg = Jpeg(prob=self.jpeg_prob, quality=self.jpeg_quality)
        codec = Codec(
            prob=self.codec_prob,
            codecs=("h264", "mpeg4"),
            weights=(0.8, 0.2),
            crf=self.codec_crf,
            clips_only=True,
        )
        detour = (
            Step(name="detour", resize=Resize(to="good", factor=self.detour_range, antialias=True)),
            Step(name="detour_noise", noise=noise),
            Step(name="detour_jpeg", jpeg=jpeg),
        )
        return (
            Step(blur=blur),
            _perhaps(self.detour_prob, detour),
            Step(name="shrink", resize=Resize(to="bad", antialias=True)),
            Step(noise=noise),
            *self._camera_sharpening(),
            Step(jpeg=jpeg),
            Step(codec=codec),
        )

    def _camera_sharpening(self) -> tuple[Step, ...]:
        if self.sharpen_prob == 0:  # no step, no draws: seeds keep the pictures they had before
            return ()
        mask = Sharpen(
            prob=self.sharpen_prob,
            amount=self.sharpen_amount,
            sigma=self.sharpen_sigma,
            threshold=0,
        )
        return (Step(sharpen=mask),)


@dataclass(frozen=True, kw_only=True, slots=True)
class CompactRecipe:
    """The mixture that our own network is trained with: one of two strengths for each batch."""

    light: DegradationRecipe = field(default_factory=DegradationRecipe)
    """Pictures as good cameras give them: soft, with little noise."""
    heavy: DegradationRecipe = field(default_factory=DegradationRecipe)
    """Pictures that were scaled, recompressed and sent around."""
    light_share: float = 0.5
    """Probability of the light one."""

    def __post_init__(self) -> None:
        check_prob("light_share", self.light_share)


AnyRecipe = Recipe | DegradationRecipe | CompactRecipe


def degrade(
    pictures: Tensor, generator: torch.Generator, recipe: AnyRecipe, *, scale: int
) -> Tensor:
    """Low-quality versions of good pictures, `scale` times smaller.

    Sizes, and the order of the steps where it is drawn, are the same for the whole batch; all else
    is drawn for each picture.

    Args:
        pictures: RGB `(B, 3, H, W)` in [0, 1], H and W multiples of `scale`, on any device.
        generator: source of every draw; the same state gives the same result.
        recipe: what to do and how strongly.
        scale: factor between the good and the bad picture.

    Returns:
        `(B, 3, H / scale, W / scale)` in [0, 1], in steps of 1/255 as from a file.

    Raises:
        ValueError: the size does not divide by the scale.
    """
    return _degraded(pictures[:, None], generator, recipe, scale=scale, is_clip=False)[0][:, 0]


def degrade_recorded(
    pictures: Tensor, generator: torch.Generator, recipe: AnyRecipe, *, scale: int
) -> tuple[Tensor, list[Record]]:
    """`degrade`, and what was drawn for each picture, as plain values that JSON takes."""
    result, records = _degraded(
        pictures[:, None], generator, recipe, scale=scale, is_clip=False, told=True
    )
    return result[:, 0], records


def degrade_clip(
    frames: Tensor, generator: torch.Generator, recipe: AnyRecipe, *, scale: int
) -> Tensor:
    """Low-quality versions of good clips.

    Through a clip the draws stay, or drift where the recipe has steps for them; noise itself is new
    in each frame.

    Args:
        frames: RGB `(B, T, 3, H, W)` in [0, 1], H and W multiples of `scale`, on any device.
        generator, recipe, scale: as in `degrade`.

    Returns:
        `(B, T, 3, H / scale, W / scale)` in [0, 1], in steps of 1/255.

    Raises:
        ValueError: the size does not divide by the scale.
    """
    return _degraded(frames, generator, recipe, scale=scale, is_clip=True)[0]


def degrade_clip_recorded(
    frames: Tensor, generator: torch.Generator, recipe: AnyRecipe, *, scale: int
) -> tuple[Tensor, list[Record]]:
    """`degrade_clip`, and what was drawn for each clip; numbers that drift are lists."""
    return _degraded(frames, generator, recipe, scale=scale, is_clip=True, told=True)


class ClipDegrader:
    """Degrades one clip, a stretch of frames after the other, in bounded memory.

    Drifting numbers go on from stretch to stretch. A video encoder begins anew with each, as it
    does with a key frame, so the lengths of the stretches are part of the result.
    """

    def __init__(
        self,
        recipe: AnyRecipe,
        generator: torch.Generator,
        *,
        size: tuple[int, int],
        scale: int,
    ) -> None:
        """Make all choices.

        Args:
            recipe: what to do.
            generator: source of every draw.
            size: height and width of the good frames, multiples of `scale`.
            scale: factor between the good and the bad frames.
        """
        self._plan, self._name = _planned(
            recipe, generator, count=1, size=size, scale=scale, is_clip=True
        )

    def push(self, frames: Tensor) -> Tensor:
        """The next frames `(T, 3, H, W)` in [0, 1], degraded: `(T, 3, H / scale, W / scale)`."""
        return self._plan.run(frames[None])[0]

    def record(self) -> Record:
        """What was drawn so far."""
        return {"recipe": self._name, **self._plan.record(0)}


def _degraded(
    frames: Tensor,
    generator: torch.Generator,
    recipe: AnyRecipe,
    *,
    scale: int,
    is_clip: bool,
    told: bool = False,
) -> tuple[Tensor, list[Record]]:
    height, width = frames.shape[-2:]
    plan, name = _planned(
        recipe,
        generator,
        count=len(frames),
        size=(int(height), int(width)),
        scale=scale,
        is_clip=is_clip,
    )
    result = plan.run(frames)
    count = len(frames) if told else 0
    return result, [{"recipe": name, **plan.record(index)} for index in range(count)]


def _planned(
    recipe: AnyRecipe,
    generator: torch.Generator,
    *,
    count: int,
    size: tuple[int, int],
    scale: int,
    is_clip: bool,
) -> tuple[Plan, str]:
    """A plan, and the name of what it was made from."""
    name, base = "plain", None
    if isinstance(recipe, CompactRecipe):
        light = chance(recipe.light_share, generator=generator)
        name = "compact, light" if light else "compact, heavy"
        recipe = recipe.light if light else recipe.heavy
    if isinstance(recipe, Recipe):
        name, base = recipe.name, recipe.base
    plan = Plan(
        recipe.steps,
        generator,
        count=count,
        good=size,
        scale=scale,
        base=base,
        is_clip=is_clip,
    )
    return plan, name


def _perhaps(prob: float, steps: tuple[Step, ...]) -> Step:
    """Steps that are taken together with a probability."""
    branches = (Branch(weight=prob, steps=steps), Branch(weight=1 - prob))
    return Step(either=Either(branches=branches))
