"""The recipe `oscar-hyper`: the first stage of OSCAR, one hyper-encoder by itself.

good -> VAE (frozen) -> z -> hyper-encoder -> z^ -> - cos(z, z^), over the channels of each place
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from restore.data_pipelines.patches import PatchFolder, PatchSource
from restore.errors import OptionError, WeightsError
from restore.method import Posterior
from restore.models.oscar import Oscar, align, channel_norms
from restore.models.parts.oscar.hyper_encoder import HyperConfig, HyperEncoder
from restore.models.parts.oscar.rates import LATENT, RATES
from restore.models.parts.pretrained import load_part
from restore.models.parts.vae import Autoencoder
from restore.nested_weights import check_finite, open_nested, save_nested
from restore.training.build import path_field
from restore.training.config import OptimConfig, TrainConfig
from restore.training.recipe import Batch, Player, Stepper, Weights, step_generator

MULTIPLE = Oscar.spec.multiple


def oscar_optim() -> OptimConfig:
    """The optimiser of the authors."""
    return OptimConfig(
        lr=5e-5, warmup=10, schedule="constant", betas=(0.9, 0.999), weight_decay=1e-2
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class OscarDataConfig(TrainConfig):
    """What both stages share."""

    base: str = path_field()
    """Folder of Stable Diffusion 2.1 (768-v), as diffusers writes it."""
    network: HyperConfig = field(default_factory=HyperConfig)
    """Widths of the hyper-encoders."""
    data: tuple[PatchFolder, ...]
    """Folders of good pictures, or packed sets."""
    patch: int = 256
    """Side of the patches in pixels, a multiple of 64."""
    posterior: Posterior = "sample"
    """What is taken of the VAE's Gaussian."""
    optim: OptimConfig = field(default_factory=oscar_optim)
    """Optimiser of the codec."""
    ema: float = 0.0
    """Decay of the moving average of the weights; 0 = the last weights are saved, as the code books
    are averages themselves."""

    def __post_init__(self) -> None:
        super(OscarDataConfig, self).__post_init__()
        if self.patch < MULTIPLE or self.patch % MULTIPLE:
            raise OptionError(f"patch is {self.patch}; give a multiple of {MULTIPLE}")


@dataclass(frozen=True, kw_only=True, slots=True)
class OscarHyperConfig(OscarDataConfig):
    """A run of the recipe `oscar-hyper`."""

    rate: int
    """Which of the eight rates: 0 (0.0019 bits per pixel) to 7 (0.125)."""
    init: str | None = path_field(default=None)
    """File of an earlier run to start from; None = from scratch."""

    def __post_init__(self) -> None:
        super(OscarHyperConfig, self).__post_init__()
        if not 0 <= self.rate < len(RATES):
            raise OptionError(f"rate is {self.rate}; give 0 to {len(RATES) - 1}")


class Latents:
    """Patches and the latents that the frozen VAE makes of them."""

    def __init__(self, config: OscarDataConfig, *, device: torch.device) -> None:
        from diffusers import AutoencoderKL

        self.config, self.device = config, device
        self.source = PatchSource(config.data, patch=config.patch)
        self.vae = Autoencoder(load_part(Path(config.base), "vae", AutoencoderKL).to(device))

    def batch(self, draw: torch.Generator) -> Batch:
        """`good` (B, 3, p, p), and `noise` (B, 4, p / 8, p / 8) for the VAE's Gaussian."""
        config = self.config
        side = config.patch // LATENT
        good = self.source.draw(config.batch, draw)
        return {"good": good, "noise": torch.randn(config.batch, 4, side, side, generator=draw)}

    @torch.no_grad()
    def encode(self, good: Tensor, noise: Tensor | None) -> Tensor:
        """Latents of pictures in [0, 1]; without noise, or with `mode`, their means."""
        mean, log_variance = self.vae.moments(2 * good - 1)
        if noise is not None and self.config.posterior == "sample":
            mean = mean + (0.5 * log_variance).exp() * noise
        return mean.float() * self.vae.scaling_factor

    def decode(self, latents: Tensor) -> Tensor:
        """Pictures in about [0, 1]."""
        return self.vae.decode(latents).float().clamp(-1, 1) / 2 + 0.5


class OscarHyperTraining:
    """Trains one hyper-encoder."""

    Config: ClassVar[type[TrainConfig]] = OscarHyperConfig
    scale = 1
    averaged = ("network",)
    loss_names = ("loss",)

    def __init__(self, config: OscarHyperConfig, *, device: torch.device) -> None:
        self.config, self.device = config, device
        self.latents = Latents(config, device=device)
        self.network = HyperEncoder(config.network, RATES[config.rate])
        if config.init is not None:
            load_hyper([self.network], Path(config.init))
        self.network.to(device).train()
        self.modules: dict[str, nn.Module] = {"network": self.network}
        self.players = {"network": Player.of(list(self.network.parameters()), config.optim)}

    def batch(self, iteration: int) -> Batch:
        """As `Latents.batch`."""
        made = self.latents.batch(step_generator(self.config.seed, iteration))
        return {name: x.to(self.device, non_blocking=True) for name, x in made.items()}

    def step(self, batch: Batch, stepper: Stepper) -> dict[str, Tensor]:
        """One step of the hyper-encoder."""
        with stepper.autocast():
            z = self.latents.encode(batch["good"], batch["noise"])
            decoded = self.network(z).float()
        loss = unlikeness(decoded, z, dim=1)
        stepper.update("network", loss)
        return {"loss": loss.detach()}

    def save(self, path: Path, averages: Mapping[str, Weights], *, iteration: int) -> None:
        """Write the hyper-encoder, as the authors' first stage does: for `hyper_encoders` of the
        recipe `oscar`."""
        text = {"recipe": self.config.name, "iteration": str(iteration)}
        save_nested(path, {"hyper_enc": on_unit_sphere(averages["network"])}, text)

    def restorer(self, averages: Mapping[str, Weights]) -> Callable[[Tensor], Tensor]:
        """The averaged hyper-encoder: what the VAE makes of z^, without the U-Net."""
        network = HyperEncoder(self.config.network, RATES[self.config.rate])
        network.load_state_dict(on_unit_sphere(averages["network"]), strict=True)
        network.to(self.device).eval()

        def there_and_back(pixels: Tensor) -> Tensor:
            return padded(pixels, lambda x: self.latents.decode(self._decoded(network, x)))

        return torch.no_grad()(there_and_back)

    def _decoded(self, network: HyperEncoder, pixels: Tensor) -> Tensor:
        z = self.latents.encode(pixels, None)
        return align(network(z), channel_norms(z))


def unlikeness(result: Tensor, target: Tensor, *, dim: int | tuple[int, ...]) -> Tensor:
    """- cos of the angle between vectors along `dim`, the mean over the others."""
    product = (result * target).sum(dim)
    sizes = result.square().sum(dim) * target.square().sum(dim)
    return -(product / sizes.clamp_min(1e-24).sqrt()).mean()


def on_unit_sphere(state: Weights) -> dict[str, Tensor]:
    """The weights of hyper-encoders, the entries of their code books being unit vectors again:
    means of unit vectors are shorter."""
    return {
        name: F.normalize(tensor, dim=-1) if name.endswith("_codebook.embed") else tensor
        for name, tensor in state.items()
    }


def padded(pixels: Tensor, work: Callable[[Tensor], Tensor]) -> Tensor:
    """`work` on pictures of any size: their last row and column are repeated for it."""
    height, width = pixels.shape[-2:]
    margin = (0, -width % MULTIPLE, 0, -height % MULTIPLE)
    return work(F.pad(pixels, margin, mode="replicate"))[..., :height, :width]


def load_hyper(networks: Sequence[HyperEncoder], path: Path) -> int:
    """Fill the one of `networks` that a file of `oscar-hyper` fits, and say which.

    The rates differ in stride or in the size of the code book, so that shapes tell them apart.

    Raises:
        WeightsError: it fits none; damaged, unsafe, or another kind of file.
    """
    content = open_nested(path)
    state: Any = content.get("hyper_enc")
    if not isinstance(state, Mapping):
        raise WeightsError(
            f"{path} holds no hyper-encoder of OSCAR's first stage; give a file that the recipe "
            "'oscar-hyper' wrote"
        )
    check_finite(path, content)
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    for i, network in enumerate(networks):
        own = network.state_dict()
        if shapes == {name: tuple(tensor.shape) for name, tensor in own.items()}:
            network.load_state_dict(dict(state), strict=True)
            return i
    raise WeightsError(
        f"{path} holds a hyper-encoder of another rate or of other widths; give one that was "
        "trained with the same 'network'"
    )
