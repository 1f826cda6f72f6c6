"""Which degradation a group of a batch gets, and how soft its good pictures are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from restore.degradations.blur import random_blur
from restore.degradations.draw import chance, number, pick_each
from restore.degradations.presets import RecipeName, changed, recipe_named
from restore.degradations.recipe import (
    AnyRecipe,
    CompactRecipe,
    DegradationRecipe,
    Recipe,
    degrade,
)
from restore.degradations.step import check_range
from restore.errors import OptionError
from restore.training.build import build


@dataclass(frozen=True, kw_only=True, slots=True)
class DegradationShare:
    """One of several degradations, and how often it is taken."""

    weight: float = 1.0
    """How often, relative to the others."""
    preset: RecipeName = "compact"
    """A recipe by name; some depend on the scale."""
    change: dict[str, Any] = field(default_factory=dict)
    """Other values for it: `{heavy: {jpeg_prob: 0.5}}` for compact, `{noise2: {sigma: [1, 9]}}` for
    those that have steps."""
    plain: DegradationRecipe | None = None
    """All of it here instead of a preset: blur, detour, noise and JPEG."""
    recipe: Recipe | None = None
    """All of it here, step by step."""
    part: Literal["light", "heavy"] | None = None
    """One half of the preset compact; None = both."""
    soft_prob: float = 0.0
    """Share of groups whose good picture is blurred a little first: at full size a camera is soft,
    and a network that has never seen it sharpens too much."""
    soft_sigma: tuple[float, float] = (0.05, 0.28)
    """Deviation of that blur in pixels of the bad picture."""

    def __post_init__(self) -> None:
        if self.weight < 0:
            raise OptionError(f"a degradation has the weight {self.weight:g}; give 0 or more")
        if self.plain is not None and self.recipe is not None:
            raise OptionError("a degradation has both 'plain' and 'recipe'; give one of them")
        if self.part is not None and (self.preset != "compact" or self.plain or self.recipe):
            raise OptionError("only the preset compact has a part; leave 'part' out")
        if not 0 <= self.soft_prob <= 1:
            raise OptionError(f"soft_prob is {self.soft_prob:g}; give 0 to 1")
        check_range("soft_sigma", self.soft_sigma, low=1e-3)

    def resolved(self, *, scale: int) -> AnyRecipe:
        """The recipe itself.

        Raises:
            OptionError: a change names nothing that the preset has.
        """
        own = self.plain or self.recipe
        if own is not None:
            return own
        recipe = recipe_named(self.preset, scale=scale)
        if self.change:
            where = f"degradation.{self.preset}"
            recipe = build(type(recipe), changed(recipe, _lists(self.change)), where=where)
        if self.part is not None:
            assert isinstance(recipe, CompactRecipe)
            return recipe.light if self.part == "light" else recipe.heavy
        return recipe


def _lists(value: Any) -> Any:
    """Texts of a recipe file as plain ones."""
    if isinstance(value, dict):
        return {str(name): _lists(own) for name, own in value.items()}
    return str(value) if isinstance(value, str) else value


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """What is done to one group of good pictures, or to one clip."""

    recipe: AnyRecipe
    """How it is made bad."""
    soft_prob: float
    """Probability that it is blurred a little first."""
    soft_sigma: tuple[float, float]
    """Deviation of that blur in pixels of the good picture."""

    def softened(self, good: Tensor, generator: torch.Generator, *, alike: bool = False) -> Tensor:
        """Good pictures `(B, 3, H, W)`, blurred or not; `alike` = all by the same deviation."""
        if not chance(self.soft_prob, generator=generator):
            return good
        sigma = self.soft_sigma
        if alike:
            sigma = (number(*sigma, generator=generator),) * 2
        return random_blur(good, generator, sigma=sigma, anisotropic=0.0, size=11)


class Mixture:
    """Degradations to draw from, for one scale."""

    def __init__(self, shares: Sequence[DegradationShare], *, scale: int) -> None:
        self.scale = scale
        self.choices = [
            Choice(
                recipe=share.resolved(scale=scale),
                soft_prob=share.soft_prob,
                soft_sigma=(scale * share.soft_sigma[0], scale * share.soft_sigma[1]),
            )
            for share in shares
        ]
        self.weights = [share.weight for share in shares]
        if not sum(self.weights) > 0:
            raise OptionError("no degradation has a weight above 0; give one of them more")

    def pick(self, generator: torch.Generator) -> Choice:
        """One of them, drawn in proportion to the weights."""
        return self.choices[int(pick_each(1, self.weights, generator=generator))]

    def degrade(
        self, group: Tensor, generator: torch.Generator, *, keep_noise: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Bad versions of a group `(B, 3, s H, s W)`, all by one recipe, and their targets.

        With `keep_noise` the targets have the noise of the bad pictures, enlarged: what differs
        between two runs of the same draws, one of them with the noise turned down to nothing. So
        it is the noise as it reached the bad picture, through resampling and JPEG.
        """
        choice = self.pick(generator)
        group = choice.softened(group, generator)
        if not keep_noise:
            return degrade(group, generator, choice.recipe, scale=self.scale), group
        again = torch.Generator(generator.device)
        again.set_state(generator.get_state())
        low = degrade(group, generator, choice.recipe, scale=self.scale)
        noise = low - degrade(group, again, without_noise(choice.recipe), scale=self.scale)
        size = group.shape[-2:]
        return low, group + F.interpolate(noise, size=size, mode="bicubic", align_corners=False)


def without_noise(recipe: AnyRecipe) -> AnyRecipe:
    """The same with noise of no strength, which takes the same draws.

    Raises:
        OptionError: the recipe may add noise in other ways.
    """
    if isinstance(recipe, CompactRecipe):
        light, heavy = without_noise(recipe.light), without_noise(recipe.heavy)
        assert isinstance(light, DegradationRecipe) and isinstance(heavy, DegradationRecipe)
        return replace(recipe, light=light, heavy=heavy)
    if isinstance(recipe, DegradationRecipe):
        return replace(recipe, noise_sigma=(0.0, 0.0), poisson_scale=(0.0, 0.0))
    raise OptionError(
        f"keep_noise cannot tell the noise of the degradation '{recipe.name}' from the rest; "
        "allowed: the preset compact, or 'plain'"
    )
