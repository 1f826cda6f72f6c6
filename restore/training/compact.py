"""The recipe `compact`: pictures for the network of the package, for pixels or for texture.

good -> (soft lens) -> degrade -> network -> pixel, SSIM, frequency, texture, perceptual losses
                                         -> random piece -> discriminator -> adversarial loss
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from restore.data_pipelines.patches import PatchFolder, PatchSource
from restore.errors import OptionError
from restore.models.compact_net import CompactConfig, CompactNet
from restore.models.compact_weights import CompactFile, SetName, read_compact, write_compact
from restore.training.adversary import AdversarialConfig, Adversary, crop, random_corner
from restore.training.build import path_field
from restore.training.config import TrainConfig
from restore.training.losses import LpipsNet, charbonnier, dissimilarity, perceptual, spectral_l1
from restore.training.mixture import DegradationShare, Mixture, without_noise
from restore.training.recipe import Batch, Player, Stepper, Weights, step_generator
from restore.training.texture import SMALLEST_SPECTRUM, TextureConfig, texture_loss


@dataclass(frozen=True, kw_only=True, slots=True)
class CompactTrainConfig(TrainConfig):
    """A run of the recipe `compact`."""

    network: CompactConfig = field(default_factory=CompactConfig)
    """Shape of the network."""
    set: SetName = "faithful"
    """Which weight set of the file is trained; the others are carried over from `init`."""
    init: str | None = path_field(default=None)
    """Weight file to start from; None = from scratch."""
    init_set: SetName | None = None
    """Which set of it; None = `set` when the file has it, else faithful."""
    init_fitting: bool = False
    """The file may hold a network of another shape: what fits is taken, the rest starts anew."""
    train_only: tuple[str, ...] = ()
    """Beginnings of the names of what is trained, such as state and gate; none = everything."""
    compile: bool = False
    """Let torch.compile fuse the network; worth its start-up on a GPU."""

    data: tuple[PatchFolder, ...]
    """Folders of good pictures, or packed sets."""
    degradation: tuple[DegradationShare, ...] = (DegradationShare(),)
    """How the bad pictures are made: each group of a batch takes one of these."""
    groups: int = 4
    """Parts of a batch that are degraded separately, each with its own resampling sizes."""
    patch: int = 40
    """Side of the low-quality patches in pixels, even."""
    keep_noise: bool = False
    """The noise of the bad picture is part of the target, enlarged: a set that leaves noise."""

    pixel_weight: float = 1.0
    """Weight of the pixel loss (Charbonnier)."""
    ssim_weight: float = 0.0
    """Weight of 1 - SSIM."""
    frequency_weight: float = 0.0
    """Weight of the spectral L1 loss."""
    perceptual_weight: float = 0.0
    """Weight of LPIPS, when its weights are there."""
    perceptual_net: LpipsNet = "alex"
    """Network of LPIPS."""
    coarse_weight: float = 0.0
    """Weight of the pixel loss at a quarter of the size, where texture does not count."""
    texture: TextureConfig = field(default_factory=TextureConfig)
    """Losses on the statistics of texture."""
    adversarial: AdversarialConfig = field(default_factory=AdversarialConfig)
    """Adversarial loss."""

    def __post_init__(self) -> None:
        super(CompactTrainConfig, self).__post_init__()
        for name in ("groups", "patch"):
            if getattr(self, name) < 1:
                raise OptionError(f"{name} is {getattr(self, name)}; give 1 or more")
        for name in ("pixel", "ssim", "frequency", "perceptual", "coarse"):
            weight = getattr(self, f"{name}_weight")
            if weight < 0:
                raise OptionError(f"{name}_weight is {weight:g}; give 0 or more")
        if self.patch % 2:
            raise OptionError(f"patch is {self.patch}; give an even number")
        if self.batch % self.groups:
            raise OptionError(
                f"a batch of {self.batch} does not divide into {self.groups} groups; "
                "give a multiple"
            )
        if self.set != "faithful" and (self.init is None or self.init_fitting):
            raise OptionError(
                f"the set '{self.set}' starts from faithful weights of the same network; give "
                "their file as init, without init_fitting"
            )
        if self.texture.weight and self.texture.window > self.patch * self.network.scale - 6:
            raise OptionError(
                f"texture.window is {self.texture.window}, too much for a result of "
                f"{self.patch * self.network.scale} pixels; give less, or larger patches"
            )
        spectra = self.texture.weight and self.texture.spectrum_weight
        if spectra and self.patch * self.network.scale < SMALLEST_SPECTRUM:
            raise OptionError(
                f"texture.spectrum_weight needs results of {SMALLEST_SPECTRUM} pixels, not of "
                f"{self.patch * self.network.scale}; set it to 0, or give larger patches"
            )
        if self.adversarial.weight and self.adversarial.crop > self.patch * self.network.scale:
            raise OptionError(
                f"adversarial.crop is {self.adversarial.crop}, more than a result of "
                f"{self.patch * self.network.scale} pixels; give less, or larger patches"
            )


class CompactTraining:
    """Trains one weight set of `compact` on pictures."""

    Config: ClassVar[type[TrainConfig]] = CompactTrainConfig

    def __init__(self, config: CompactTrainConfig, *, device: torch.device) -> None:
        self.config, self.device = config, device
        self.scale = config.network.scale
        self.source = PatchSource(config.data, patch=self._source_side())
        self.mixture = Mixture(config.degradation, scale=self.scale)
        if config.keep_noise:
            for choice in self.mixture.choices:
                without_noise(choice.recipe)  # says now what it cannot do
        network = CompactNet(config.network)
        self.file = None if config.init is None else read_compact(Path(config.init))
        if self.file is not None:
            network.load_state_dict(_initial(self.file, config, network), strict=True)
        self.network = network.to(device).to(memory_format=torch.channels_last).train()
        self._forward: Callable[..., Tensor] = (
            torch.compile(self.network) if config.compile else self.network
        )
        self.adversary = None
        if config.adversarial.weight:
            self.adversary = Adversary(config.adversarial, device=device)
        self.perceptual = None
        if config.perceptual_weight:
            self.perceptual = perceptual(config.perceptual_net, device=device)
        self.modules: dict[str, nn.Module] = {"network": self.network}
        self.players = {"network": Player.of(trained(self.network, config), config.optim)}
        self.averaged = ("network",)
        self.loss_names: tuple[str, ...] = ("loss", "pixel")
        if config.texture.weight:
            self.loss_names += ("texture",)
        if self.adversary is not None:
            self.modules["discriminator"] = self.adversary.network
            self.players["discriminator"] = self.adversary.player
            self.loss_names += self.adversary.loss_names

    def _source_side(self) -> int:
        return self.config.patch * self.scale

    def batch(self, iteration: int) -> Batch:
        """`bad` (B, 3, p, p), `good` (B, 3, s p, s p), and the `corner` of the judged piece."""
        config = self.config
        draw = step_generator(config.seed, iteration)
        source = self.source.draw(config.batch, draw).to(self.device, non_blocking=True)
        generator = draw
        if self.device.type != "cpu":
            generator = step_generator(config.seed, iteration, device=self.device)
        bad, good = [], []
        for group in source.chunk(config.groups):
            low, target = self.mixture.degrade(group, generator, keep_noise=config.keep_noise)
            bad.append(low)
            good.append(target)
        side = config.patch * self.scale
        corner = random_corner((side, side), draw, side=min(side, config.adversarial.crop))
        return {
            "bad": torch.cat(bad),
            "good": torch.cat(good),
            "corner": corner,
            "iteration": torch.tensor(iteration),
        }

    def step(self, batch: Batch, stepper: Stepper) -> dict[str, Tensor]:
        """One step of the network, and one of the discriminator when there is one."""
        with stepper.autocast():
            result = self._forward(_channels_last(batch["bad"])).float()
        loss, losses = self.picture_loss(result, batch["good"], int(batch["iteration"]))
        return self.update(
            loss, losses, result=result, good=batch["good"], batch=batch, stepper=stepper
        )

    def update(
        self,
        loss: Tensor,
        losses: dict[str, Tensor],
        *,
        result: Tensor,
        good: Tensor,
        batch: Batch,
        stepper: Stepper,
    ) -> dict[str, Tensor]:
        """Step down the gradient of `loss`, the adversarial one being added when there is one.

        Args:
            loss: of the results, without the discriminator.
            losses: its parts, for the log.
            result: results `(N, 3, s p, s p)`.
            good: what they should be.
            batch: the piece that is judged, and the number of the step.
            stepper: what updates.
        """
        if self.adversary is None:
            stepper.update("network", loss)
            return {"loss": loss.detach(), **losses}
        side = self.config.adversarial.crop
        fake, real = (crop(x, batch["corner"], side=side) for x in (result, good))
        counts = int(batch["iteration"]) >= self.config.adversarial.start
        extra, verdict = self.adversary.judge(fake, real, counts=counts, stepper=stepper)
        stepper.update("network", loss + extra)
        learned = self.adversary.learn(fake, real, stepper=stepper)
        total = (loss + extra).detach()
        return {"loss": total, **losses, "adversarial": verdict, "discriminator": learned}

    def picture_loss(
        self, result: Tensor, good: Tensor, iteration: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighed sum of the losses that need no discriminator, and its parts for the log."""
        config = self.config
        pixel = charbonnier(result, good)
        loss, losses = config.pixel_weight * pixel, {"pixel": pixel.detach()}
        if config.coarse_weight:
            small, small_good = (F.avg_pool2d(x, 4) for x in (result, good))
            loss = loss + config.coarse_weight * charbonnier(small, small_good)
        if config.texture.weight:
            draw = step_generator(config.seed + 1, iteration)
            texture = texture_loss(result, good, config.texture, draw, scale=self.scale)
            loss, losses["texture"] = loss + texture, texture.detach()
        if config.ssim_weight:
            loss = loss + config.ssim_weight * dissimilarity(result, good)
        if config.frequency_weight:
            loss = loss + config.frequency_weight * spectral_l1(result, good)
        if self.perceptual is not None:
            loss = loss + config.perceptual_weight * self.perceptual(result, good)
        return loss, losses

    def save(self, path: Path, averages: Mapping[str, Weights], *, iteration: int) -> None:
        """Write the averaged set, and beside it the others of the file that it began with."""
        config = self.config
        sets: dict[SetName, Weights] = {}
        if self.file is not None and config.set != "faithful":
            sets |= self.file.sets
        sets[config.set] = averages["network"]
        text = {"recipe": config.name, "iteration": str(iteration)}
        write_compact(path, config.network, sets, text)

    def restorer(self, averages: Mapping[str, Weights]) -> Callable[[Tensor], Tensor]:
        """The averaged network: `(1, 3, H, W)` to `(1, 3, s H, s W)`, H and W even."""
        network = CompactNet(self.config.network)
        network.load_state_dict(dict(averages["network"]), strict=True)
        return network.to(self.device).to(memory_format=torch.channels_last).eval()


def trained(network: nn.Module, config: CompactTrainConfig) -> list[nn.Parameter]:
    """Parameters that the optimiser moves; the others are frozen.

    Raises:
        OptionError: a beginning of `train_only` fits no parameter.
    """
    names = config.train_only
    for name in names:
        if not any(_belongs(key, name) for key, _ in network.named_parameters()):
            known = ", ".join(dict.fromkeys(key.split(".")[0] for key in network.state_dict()))
            raise OptionError(f"train_only '{name}' is no part of the network; parts: {known}")
    for key, parameter in network.named_parameters():
        parameter.requires_grad_(not names or any(_belongs(key, name) for name in names))
    return [parameter for parameter in network.parameters() if parameter.requires_grad]


def _belongs(key: str, name: str) -> bool:
    return key == name or key.startswith(name + ".")


def _initial(
    file: CompactFile, config: CompactTrainConfig, network: nn.Module
) -> dict[str, Tensor]:
    """Weights to start from.

    Raises:
        OptionError: the file holds a network of another shape, or lacks the set.
    """
    if file.config != config.network and not config.init_fitting:
        have, want = asdict(file.config), asdict(config.network)
        other = ", ".join(f"{k} {have[k]} for {want[k]}" for k in have if have[k] != want[k])
        raise OptionError(
            f"{config.init} holds another network ({other}); change 'network', or take what fits "
            "with init_fitting: true"
        )
    name = config.init_set or (config.set if config.set in file.sets else "faithful")
    if name not in file.sets:
        raise OptionError(
            f"{config.init} has no set '{name}' (sets: {', '.join(file.sets)}); give another "
            "init_set"
        )
    start, own = file.sets[name], network.state_dict()
    fitting = {
        key: start[key] for key in own if key in start and start[key].shape == own[key].shape
    }
    if not fitting:
        raise OptionError(f"nothing of {config.init} fits this network; take 'init' out")
    return own | fitting


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)
