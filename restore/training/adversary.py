"""The adversarial part of a recipe: a discriminator, its optimiser, and both losses."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from restore.errors import OptionError
from restore.training.config import OptimConfig
from restore.training.discriminator import (
    AdversarialKind,
    UNetDiscriminator,
    discriminator_loss,
    feature_distance,
    generator_loss,
)
from restore.training.recipe import Player, Stepper


@dataclass(frozen=True, kw_only=True, slots=True)
class AdversarialConfig:
    """A discriminator that tells results from good pictures, and how much it counts."""

    weight: float = 0.0
    """Weight of its loss beside the pixel loss; 0 = none."""
    kind: AdversarialKind = "bce"
    """Form of the loss."""
    width: int = 20
    """Channels of the discriminator at full size."""
    crop: int = 96
    """Side of the pieces of the results that it sees, in pixels; a multiple of 8."""
    feature_weight: float = 0.0
    """Weight of the distance of its features to those of the good picture."""
    start: int = 0
    """Iterations that it learns alone before its verdicts count."""
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(lr=4e-4, warmup=100, clip=10.0))
    """Its optimiser."""

    def __post_init__(self) -> None:
        if self.weight < 0 or self.feature_weight < 0:
            raise OptionError("a weight of 'adversarial' is negative; give 0 or more")
        if self.crop % 8 or self.crop < 16:
            raise OptionError(f"adversarial.crop is {self.crop}; give a multiple of 8 from 16")
        if self.width < 1:
            raise OptionError(f"adversarial.width is {self.width}; give 1 or more")


class Adversary:
    """A discriminator at work; the network is judged first, then it learns from the same batch."""

    loss_names = ("adversarial", "discriminator")

    def __init__(self, config: AdversarialConfig, *, device: torch.device) -> None:
        self.config = config
        network = UNetDiscriminator(config.width)
        self.network = network.to(device).to(memory_format=torch.channels_last).train()
        self.player = Player.of(list(self.network.parameters()), config.optim)

    def judge(
        self, result: Tensor, target: Tensor, *, counts: bool, stepper: Stepper
    ) -> tuple[Tensor, Tensor]:
        """The weighed loss of the network, and the plain adversarial one for the log.

        Args:
            result: `(B, 3, c, c)` pieces of results.
            target: the same pieces of the good pictures.
            counts: False = the verdicts do not reach the network yet.
            stepper: for the precision.
        """
        self.network.requires_grad_(False)  # the gradient goes through it, not into it
        with stepper.autocast():
            fake, fake_features = self.network(_channels_last(result))
            real, real_features = fake.detach(), fake_features
            if self.config.kind == "relativistic" or self.config.feature_weight:
                with torch.no_grad():
                    real, real_features = self.network(_channels_last(target))
        loss = generator_loss(fake.float(), real.float(), kind=self.config.kind)
        weighed = self.config.weight * loss
        if self.config.feature_weight:
            distance = feature_distance(fake_features, real_features)
            weighed = weighed + self.config.feature_weight * distance
        return (weighed if counts else 0 * weighed), loss.detach()

    def learn(self, result: Tensor, target: Tensor, *, stepper: Stepper) -> Tensor:
        """One step of the discriminator; its loss."""
        self.network.requires_grad_(True)
        with stepper.autocast():
            fake, _ = self.network(_channels_last(result.detach()))
            real, _ = self.network(_channels_last(target))
        loss = discriminator_loss(fake.float(), real.float(), kind=self.config.kind)
        stepper.update("discriminator", loss)
        return loss.detach()


def crop(pictures: Tensor, corner: Tensor, *, side: int) -> Tensor:
    """The square of `pictures` `(..., H, W)` whose upper left pixel is `corner` (y, x)."""
    top, left = corner.tolist()
    return pictures[..., top : top + side, left : left + side]


def random_corner(size: tuple[int, int], generator: torch.Generator, *, side: int) -> Tensor:
    """A place for such a square in pictures of `size` (H, W): `(2,)` on the CPU."""
    height, width = size
    place = torch.rand(2, generator=generator, device=generator.device).cpu()
    return (place * torch.tensor([height - side + 1, width - side + 1])).long()


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)
