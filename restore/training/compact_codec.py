"""The recipe `compact-codec`: the codec of the package, at all its rates at once.

    good -> encoder x gain -> round -> / gain -> decoder -> squares, SSIM at four sizes, (texture)
                    |            |
                    + noise      + -> context model -> scale, mean -> bits

Each picture of a batch has a rate of its own. The loss is that of rate-distortion theory,
bits + lambda[rate] distortion (Balle et al., "End-to-end Optimized Image Compression", ICLR 2017,
equation 10); bits are counted with noise in place of rounding, and the decoder gets what is rounded
(Minnen and Singh, "Channel-wise Autoregressive Entropy Models", ICIP 2020, section 3.3).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from restore.data_pipelines.patches import PatchFolder, PatchSource
from restore.errors import OptionError
from restore.models.compact_codec_context import ContextNet, bits
from restore.models.compact_codec_net import STRIDE, CodecConfig, CodecNet, held, rounded
from restore.models.compact_codec_weights import read_codec, write_codec
from restore.training.build import path_field
from restore.training.config import TrainConfig
from restore.training.losses import dissimilarities
from restore.training.recipe import Batch, Player, Stepper, Weights, step_generator
from restore.training.texture import TextureConfig, texture_loss

SIZES = 4
"""SSIM is taken at the full size, a half, a quarter and an eighth."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CodecTrainConfig(TrainConfig):
    """A run of the recipe `compact-codec`."""

    network: CodecConfig = field(default_factory=CodecConfig)
    """Shape of the networks."""
    init: str | None = path_field(default=None)
    """Weight file of the same shape to start from; None = from scratch."""
    data: tuple[PatchFolder, ...]
    """Folders of good pictures, or packed sets."""
    patch: int = 128
    """Side of the patches in pixels, a multiple of 16 and 64 at least."""
    lambdas: tuple[float, float] = (0.04, 4.5)
    """Weight of the distortion against bits per pixel at the first and at the last rate; the
    others lie between them in equal ratios."""
    square_weight: float = 40.0
    """Part of the mean squared error in the distortion."""
    ssim_weight: float = 1.0
    """Part of 1 - SSIM, the mean over four sizes."""
    texture: TextureConfig = field(default_factory=TextureConfig)
    """Losses on the statistics of texture, beside the whole; the coarse rates gain most by them."""
    shown_rate: int | None = None
    """Rate that validation measures; None = the middle one."""

    def __post_init__(self) -> None:
        super(CodecTrainConfig, self).__post_init__()
        if self.patch < 64 or self.patch % STRIDE:
            raise OptionError(f"patch is {self.patch}; give a multiple of {STRIDE} from 64 on")
        if not 0 < self.lambdas[0] <= self.lambdas[1]:
            raise OptionError(f"lambdas are {list(self.lambdas)}; give two that rise, above 0")
        if self.shown_rate is not None and not 0 <= self.shown_rate < self.network.rates:
            raise OptionError(
                f"shown_rate is {self.shown_rate}; give 0 to {self.network.rates - 1}"
            )


class CodecTraining:
    """Trains the networks and the context model of `compact-codec`."""

    Config: ClassVar[type[TrainConfig]] = CodecTrainConfig
    scale = 1

    def __init__(self, config: CodecTrainConfig, *, device: torch.device) -> None:
        self.config, self.device = config, device
        self.source = PatchSource(config.data, patch=config.patch)
        torch.manual_seed(config.seed)
        network, context = CodecNet(config.network), ContextNet(config.network)
        if config.init is not None:
            file = read_codec(Path(config.init))
            if file.config != config.network:
                raise OptionError(
                    f"{config.init} holds networks of another shape; change 'network' to "
                    f"{file.config}"
                )
            network.load_state_dict(file.network, strict=True)
            context.load_state_dict(file.context, strict=True)
        self.network = network.to(device).to(memory_format=torch.channels_last).train()
        self.context = context.to(device).train()
        self.modules: dict[str, nn.Module] = {"network": self.network, "context": self.context}
        self.averaged = ("network", "context")
        parameters = [*self.network.parameters(), *self.context.parameters()]
        self.players = {"network": Player.of(parameters, config.optim)}
        self.loss_names: tuple[str, ...] = ("loss", "bpp", "bpp_first", "square", "dissimilarity")
        if config.texture.weight:
            self.loss_names += ("texture",)
        first, last = config.lambdas
        ladder = torch.linspace(0, 1, config.network.rates)
        self.lambdas = (first * (last / first) ** ladder).to(device)

    def batch(self, iteration: int) -> Batch:
        """`good` (B, 3, p, p), the `rate` of each (B,), `noise` (B, latent, p / 16, p / 16)."""
        config = self.config
        draw = step_generator(config.seed, iteration)
        good = self.source.draw(config.batch, draw)
        # Every rate comes as often as the others, and a batch holds as many kinds as it can.
        start = torch.randint(config.network.rates, (1,), generator=draw)
        rate = (start + torch.arange(config.batch)) % config.network.rates
        side = config.patch // STRIDE
        noise = torch.rand(config.batch, config.network.latent, side, side, generator=draw) - 0.5
        result = {"good": good, "rate": rate, "noise": noise}
        result = {k: v.to(self.device, non_blocking=True) for k, v in result.items()}
        return {**result, "iteration": torch.tensor(iteration)}

    def step(self, batch: Batch, stepper: Stepper) -> dict[str, Tensor]:
        """One step of everything."""
        config, good, rate = self.config, batch["good"], batch["rate"]
        good = good.contiguous(memory_format=torch.channels_last)
        with stepper.autocast():
            y = held(self.network.analyse(good, rate))
        q = rounded(y)
        index, mean = self.context(q, rate)
        cost = bits(y + batch["noise"], index, mean)
        bpp = cost.sum((1, 2, 3)) / good[0, 0].numel()  # (B,)
        self.context.count(bpp.detach(), rate)
        with stepper.autocast():
            result = self.network.synthesise(q, rate)
        square = (result - good).square().mean((1, 2, 3))
        unlike = multiscale_dissimilarity(result, good)
        distortion = config.square_weight * square + config.ssim_weight * unlike
        weight = self.lambdas[rate]
        # Over the root of lambda, or the high rates would drown the low ones.
        loss = ((bpp + weight * distortion) / weight.sqrt()).mean()
        losses = {
            "bpp": bpp.detach().mean(),
            "bpp_first": bpp.detach()[rate == rate.min()].mean(),
            "square": square.detach().mean(),
            "dissimilarity": unlike.detach().mean(),
        }
        if config.texture.weight:
            draw = step_generator(config.seed + 1, int(batch["iteration"]))
            texture = texture_loss(result, good, config.texture, draw, scale=1)
            loss, losses["texture"] = loss + texture, texture.detach()
        stepper.update("network", loss)
        return {"loss": loss.detach(), **losses}

    def save(self, path: Path, averages: Mapping[str, Weights], *, iteration: int) -> None:
        """Write the averaged networks, and the averaged context model in whole numbers."""
        text = {"recipe": self.config.name, "iteration": str(iteration)}
        # The typical rates are a moving average already; averaged again, they would lag behind.
        context = {**averages["context"], "typical": self.context.typical}
        write_codec(path, self.config.network, {**averages, "context": context}, text)

    def restorer(self, averages: Mapping[str, Weights]) -> Callable[[Tensor], Tensor]:
        """The averaged networks: there and back at one rate."""
        network = CodecNet(self.config.network)
        network.load_state_dict(dict(averages["network"]), strict=True)
        network = network.to(self.device).to(memory_format=torch.channels_last).eval()
        chosen = self.config.shown_rate
        chosen = self.config.network.rates // 2 if chosen is None else chosen

        def there_and_back(pixels: Tensor) -> Tensor:
            height, width = pixels.shape[-2:]
            padded = F.pad(pixels, (0, -width % STRIDE, 0, -height % STRIDE), mode="replicate")
            rate = torch.full((len(pixels),), chosen, device=pixels.device)
            result = network.synthesise(rounded(network.analyse(padded, rate)), rate)
            return result[..., :height, :width]

        return there_and_back


def multiscale_dissimilarity(result: Tensor, target: Tensor) -> Tensor:
    """Mean of 1 - SSIM at `SIZES` sizes, each half of the one before.

    The sizes of MS-SSIM (Wang et al., Asilomar 2003) without its exponents, which ask for little at
    the full size.

    Args:
        result: RGB `(B, 3, H, W)`, 64 pixels large at least.
        target: likewise.

    Returns:
        `(B,)`.
    """
    total = dissimilarities(result, target)
    for _ in range(SIZES - 1):
        result, target = (F.avg_pool2d(x, 2) for x in (result, target))
        total = total + dissimilarities(result, target)
    return total / SIZES
