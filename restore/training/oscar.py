"""The recipe `oscar`: the second stage of OSCAR, everything together and at all rates.

    good -> VAE -> z -> hyper-encoder -> z^ -> U-Net + LoRA, context -> z0 -> VAE -> result
                         (of a rate)      |                             |            |
                              - cos(z, z^) for each channel       LatentJudge   L1, DISTS, of edges

The VAE and the U-Net's own weights are frozen. A step has one rate, each as often as the others.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from restore.errors import OptionError
from restore.models.oscar import align, channel_norms, check_velocity
from restore.models.parts.oscar import file as oscar_file
from restore.models.parts.oscar.hyper_encoder import HyperEncoder
from restore.models.parts.oscar.rates import LATENT, RATES
from restore.models.parts.pretrained import load_part, read_config
from restore.models.parts.schedule import alphas_cumprod, x0_from_velocity
from restore.nested_weights import Nested, save_nested
from restore.training.adapters import adapted_layers, attach, named_factors, read_factors
from restore.training.build import path_field
from restore.training.config import OptimConfig, TrainConfig
from restore.training.discriminator import discriminator_loss, generator_loss
from restore.training.dists import edges, load_dists
from restore.training.oscar_hyper import (
    Latents,
    OscarDataConfig,
    load_hyper,
    on_unit_sphere,
    oscar_optim,
    padded,
    unlikeness,
)
from restore.training.oscar_judge import FIRST_STEP, LAST_STEP, SMALLEST, LatentJudge
from restore.training.recipe import Batch, Player, Stepper, Weights, step_generator

log = logging.getLogger("restore.training")


@dataclass(frozen=True, kw_only=True, slots=True)
class JudgeConfig:
    """The discriminator of latents."""

    weight: float = 5e-3
    """Weight of its verdicts; 0 = there is none."""
    rank: int = 16
    """Rank of its LoRA."""
    optim: OptimConfig = field(default_factory=oscar_optim)
    """Its optimiser."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OscarConfig(OscarDataConfig):
    """A run of the recipe `oscar`."""

    hyper_encoders: tuple[str, ...] = path_field(default=())
    """Files that `oscar-hyper` wrote; rates without one start from scratch."""
    init: str | None = path_field(default=None)
    """Or an `oscar.pkl`, or a file of an earlier run, to start from."""
    rank: int = 16
    """Rank of the LoRA."""
    pixel_weight: float = 1.0
    """Weight of the mean absolute difference."""
    dists_weight: float = 1.0
    """Weight of DISTS, when its weights are there."""
    edge_weight: float = 1.0
    """Weight of DISTS of the edges, likewise."""
    latent_weight: float = 2.0
    """Weight of - cos(z, z^)."""
    adversarial: JudgeConfig = field(default_factory=JudgeConfig)
    """Adversarial loss."""
    shown_rate: int = 2
    """Rate that validation measures."""

    def __post_init__(self) -> None:
        super(OscarConfig, self).__post_init__()
        if self.init is not None and self.hyper_encoders:
            raise OptionError("init holds hyper-encoders too; leave hyper_encoders out")
        if not 0 <= self.shown_rate < len(RATES):
            raise OptionError(f"shown_rate is {self.shown_rate}; give 0 to {len(RATES) - 1}")
        if self.adversarial.weight and self.patch < SMALLEST * LATENT:
            raise OptionError(
                f"patch is {self.patch}, too little for the discriminator; give "
                f"{SMALLEST * LATENT} or more, or adversarial.weight: 0"
            )


class Context(nn.Module):
    """The learned context."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embeddings = nn.Parameter(0.02 * torch.randn(oscar_file.TOKENS, width))


class OscarTraining:
    """Trains all hyper-encoders, the LoRA and the context."""

    Config: ClassVar[type[TrainConfig]] = OscarConfig
    scale = 1
    averaged = ("hyper_encoders", "context", "adapters")

    def __init__(self, config: OscarConfig, *, device: torch.device) -> None:
        from diffusers import UNet2DConditionModel

        self.config, self.device = config, device
        base = Path(config.base)
        check_velocity(base)
        self.latents = Latents(config, device=device)
        alphas = alphas_cumprod(read_config(base, "scheduler"))
        self.alpha_bars = [float(alphas[rate.t]) for rate in RATES]
        self.unet: Any = load_part(base, "unet", UNet2DConditionModel)
        self.conv_in = {
            f"conv_in.base_layer.{name}": tensor.clone()
            for name, tensor in self.unet.conv_in.state_dict().items()
        }
        self.groups = adapted_layers(self.unet)
        layers = [name for group in self.groups.values() for name in group]
        self.adapters = attach(self.unet, layers, rank=config.rank)
        self.context = Context(self.unet.config["cross_attention_dim"])
        self.hyper_encoders = nn.ModuleList(HyperEncoder(config.network, rate) for rate in RATES)
        self._begin()
        self.modules: dict[str, nn.Module] = {
            "hyper_encoders": self.hyper_encoders,
            "context": self.context,
            "adapters": self.adapters,
        }
        trained = [p for module in self.modules.values() for p in module.parameters()]
        self.unet.to(device)
        for module in self.modules.values():
            module.to(device).train()
        self.players = {"network": Player.of(trained, config.optim)}
        wanted = config.dists_weight or config.edge_weight
        self.dists = load_dists(device=device) if wanted else None
        self.loss_names: tuple[str, ...] = ("loss", "pixel", "latent")
        if self.dists is not None:
            self.loss_names += ("dists", "edges")
        self.judge = None
        if config.adversarial.weight:
            self.judge = self._make_judge(base, alphas)
            self.loss_names += ("adversarial", "discriminator")

    def _begin(self) -> None:
        """Take the weights to start from."""
        networks = [n for n in self.hyper_encoders if isinstance(n, HyperEncoder)]
        for name in self.config.hyper_encoders:
            log.info("%s starts rate %s", name, RATES[load_hyper(networks, Path(name))].name)
        if self.config.init is None:
            return
        file = oscar_file.read(Path(self.config.init))
        content = file.content
        if file.hyper != self.config.network or content["rank_unet"] != self.config.rank:
            raise OptionError(
                f"{self.config.init} has other widths ({file.hyper}, rank "
                f"{content['rank_unet']}); set 'network' and 'rank' to them"
            )
        self.hyper_encoders.load_state_dict(content["hyper_encoders"], strict=True)
        self.context.load_state_dict({"embeddings": content["embeddings"]}, strict=True)
        self.adapters.load_state_dict(read_factors(content["state_dict_unet"]), strict=True)

    def _make_judge(self, base: Path, alphas: Tensor) -> LatentJudge:
        from diffusers import UNet2DConditionModel

        config = self.config.adversarial
        unet = load_part(base, "unet", UNet2DConditionModel).to(self.device)
        judge = LatentJudge(unet, alphas, rank=config.rank).to(self.device).train()
        self.modules["judge"] = judge
        self.players["judge"] = Player.of(list(judge.parameters()), config.optim)
        return judge

    def batch(self, iteration: int) -> Batch:
        """As `Latents.batch`, and the `rate`; for the judge `steps` (3, B) and `judged` noise
        (3, B, 4, p / 8, p / 8): for its verdict on results, then to learn from those and from good
        pictures."""
        draw = step_generator(self.config.seed, iteration)
        made = self.latents.batch(draw)
        shape = (3, *made["noise"].shape)
        made["steps"] = torch.randint(FIRST_STEP, LAST_STEP, shape[:2], generator=draw)
        made["judged"] = torch.randn(shape, generator=draw)
        result = {name: x.to(self.device, non_blocking=True) for name, x in made.items()}
        result["rate"] = torch.randint(len(RATES), (1,), generator=draw)
        return result

    def forward(self, z: Tensor, rate: int) -> tuple[Tensor, Tensor]:
        """z^ and the clean latents of latents `(B, 4, h, w)`, as `models.oscar` makes them."""
        decoded = self.hyper_encoders[rate](z).float()
        noisy = align(decoded, channel_norms(z))
        context = self.context.embeddings.expand(len(z), -1, -1)
        v = self.unet(noisy, RATES[rate].t, context).sample
        return decoded, x0_from_velocity(noisy, v, self.alpha_bars[rate])

    def step(self, batch: Batch, stepper: Stepper) -> dict[str, Tensor]:
        """One step of the codec, and one of the judge."""
        config, good = self.config, batch["good"]
        with stepper.autocast():
            z = self.latents.encode(good, batch["noise"])
            decoded, clean = self.forward(z, int(batch["rate"]))
            result = self.latents.decode(clean)
        pixel = F.l1_loss(result, good)
        latent = unlikeness(decoded, z, dim=(2, 3))
        losses = {"pixel": pixel, "latent": latent}
        loss = config.pixel_weight * pixel + config.latent_weight * latent
        if self.dists is not None:
            losses["dists"] = self.dists(result, good)
            losses["edges"] = self.dists(edges(result), edges(good))
            loss = loss + config.dists_weight * losses["dists"]
            loss = loss + config.edge_weight * losses["edges"]
        if self.judge is not None:
            losses["adversarial"] = self._judged(self.judge, clean, batch, stepper)
            loss = loss + config.adversarial.weight * losses["adversarial"]
        stepper.update("network", loss)
        if self.judge is not None:
            losses["discriminator"] = self._learn(self.judge, clean.detach(), z, batch, stepper)
        return {"loss": loss.detach(), **{name: x.detach() for name, x in losses.items()}}

    def _judged(self, judge: LatentJudge, clean: Tensor, batch: Batch, stepper: Stepper) -> Tensor:
        """What the codec pays; the gradient goes through the judge, not into its weights."""
        judge.requires_grad_(False)
        with stepper.autocast():
            verdicts = judge(clean, batch["steps"][0], batch["judged"][0]).float()
        return generator_loss(verdicts, verdicts.detach(), kind="bce")

    def _learn(
        self, judge: LatentJudge, clean: Tensor, z: Tensor, batch: Batch, stepper: Stepper
    ) -> Tensor:
        """One step of the judge."""
        judge.requires_grad_(True)
        with stepper.autocast():
            fake = judge(clean, batch["steps"][1], batch["judged"][1]).float()
            real = judge(z, batch["steps"][2], batch["judged"][2]).float()
        loss = discriminator_loss(fake, real, kind="bce")
        stepper.update("judge", loss)
        return loss

    def save(self, path: Path, averages: Mapping[str, Weights], *, iteration: int) -> None:
        """Write what `oscar.pkl` holds, for `restore compress -n oscar --weights`."""
        factors = named_factors(dict(averages["adapters"]), self.groups)
        content: Nested = {
            "hyper_encoders": on_unit_sphere(averages["hyper_encoders"]),
            "embeddings": averages["context"]["embeddings"],
            "rank_unet": self.config.rank,
            **{f"unet_lora_{group}_modules": names for group, names in self.groups.items()},
            "state_dict_unet": {**factors, **self.conv_in},
        }
        save_nested(path, content, {"recipe": self.config.name, "iteration": str(iteration)})

    def restorer(self, averages: Mapping[str, Weights]) -> Callable[[Tensor], Tensor]:
        """The averaged codec: there and back at the rate `shown_rate`."""

        def there_and_back(pixels: Tensor) -> Tensor:
            with torch.no_grad(), self._averaged(averages):
                return padded(pixels, self._whole)

        return there_and_back

    def _whole(self, pixels: Tensor) -> Tensor:
        z = self.latents.encode(pixels, None)
        return self.latents.decode(self.forward(z, self.config.shown_rate)[1])

    @contextlib.contextmanager
    def _averaged(self, averages: Mapping[str, Weights]) -> Iterator[None]:
        """Inside, the averaged weights are in the networks: they are too large to have twice."""
        kept = {}
        for name in self.averaged:
            module = self.modules[name].eval()
            kept[name] = {key: x.clone() for key, x in module.state_dict().items()}
            state = averages[name]
            module.load_state_dict(on_unit_sphere(state) if name == "hyper_encoders" else state)
        try:
            yield
        finally:
            for name, state in kept.items():
                self.modules[name].load_state_dict(state)
                self.modules[name].train()
