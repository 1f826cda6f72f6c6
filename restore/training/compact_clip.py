"""The recipe `compact-clip`: short clips, through which the network carries its own results.

    frame 0 -> network -> y0 -- moved --+
                                        v
    frame 1 -----------------------> network -> y1 -- moved --+ ...

Noise and compression differ from frame to frame, blur and sizes stay, as in a film. The loss of
each frame is that of a picture; beside it counts how far results change where the good frames do
not (`temporal_change`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from restore import flow as motion
from restore.data_pipelines.clips import ClipFile, ClipSource
from restore.data_pipelines.motion import KnownClip, MotionConfig, make_clip, needed_pictures
from restore.degradations.draw import chance, number
from restore.degradations.recipe import degrade_clip
from restore.errors import OptionError
from restore.training.adversary import random_corner
from restore.training.compact import CompactTrainConfig, CompactTraining
from restore.training.config import TrainConfig
from restore.training.losses import temporal_change
from restore.training.recipe import Batch, Stepper, step_generator

MARGIN = 32
"""Pixels of a picture around the part that a made clip begins with."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CompactClipConfig(CompactTrainConfig):
    """A run of the recipe `compact-clip`; `batch` counts clips."""

    frames: int = 4
    """Frames of a sample."""
    temporal_weight: float = 0.5
    """Weight of the change from frame to frame that the good frames do not have."""
    through_time: bool = True
    """The gradient goes back through the frames before, not only to the last one."""
    motion: MotionConfig = field(default_factory=MotionConfig)
    """How things move in made clips."""
    clips: tuple[ClipFile, ...] = ()
    """Real clips."""
    clip_share: float = 0.3
    """Share of the samples that come from real clips, when there are some."""
    estimated_share: float = 0.5
    """Share of the made clips whose motion is estimated from the bad frames, as in use; that of
    the others is known, with an error."""
    flow_error: float = 0.5
    """Largest standard deviation of that error in pixels of the bad frames."""

    def __post_init__(self) -> None:
        super(CompactClipConfig, self).__post_init__()
        if self.frames < 2:
            raise OptionError(f"frames is {self.frames}; give 2 or more")
        for name in ("clip_share", "estimated_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise OptionError(f"{name} is {getattr(self, name):g}; give 0 to 1")
        for name in ("temporal_weight", "flow_error"):
            if getattr(self, name) < 0:
                raise OptionError(f"{name} is {getattr(self, name):g}; give 0 or more")
        if self.keep_noise:
            raise OptionError("keep_noise is for pictures, as noise is never steady; take it out")


class CompactClipTraining(CompactTraining):
    """Trains one weight set of `compact` on clips."""

    Config: ClassVar[type[TrainConfig]] = CompactClipConfig
    config: CompactClipConfig

    def __init__(self, config: CompactClipConfig, *, device: torch.device) -> None:
        super().__init__(config, device=device)
        self.clips = None
        if config.clips and config.clip_share:
            side = config.patch * self.scale
            self.clips = ClipSource(config.clips, frames=config.frames, side=side)
        self.loss_names = ("loss", "pixel", "temporal", *self.loss_names[2:])

    def _source_side(self) -> int:
        return self.config.patch * self.scale + 2 * MARGIN

    def batch(self, iteration: int) -> Batch:
        """Tensors of clips of T frames, `p` being the side of the bad ones.

        bad (B, T, 3, p, p), good (B, T, 3, s p, s p); for the T - 1 later frames flow
        (B, T - 1, 2, p, p) and trust (B, T - 1, 1, p, p), as the engine gives them, and the true
        good_flow (B, T - 1, 2, s p, s p) with seen (B, T - 1, 1, s p, s p).
        """
        config = self.config
        generator = step_generator(config.seed, iteration)
        samples = [self._sample(generator) for _ in range(config.batch)]
        result = {name: torch.stack([s[name] for s in samples]) for name in samples[0]}
        side = config.patch * self.scale
        result = {name: x.to(self.device, non_blocking=True) for name, x in result.items()}
        result["corner"] = random_corner(
            (side, side), generator, side=min(side, config.adversarial.crop)
        )
        result["iteration"] = torch.tensor(iteration)
        return result

    def _sample(self, generator: torch.Generator) -> Batch:
        config = self.config
        real = self.clips is not None and chance(config.clip_share, generator=generator)
        clip = self._real_clip(generator) if real else self._made_clip(generator)
        choice = self.mixture.pick(generator)
        good = choice.softened(clip.frames, generator, alike=True)
        bad = degrade_clip(good[None], generator, choice.recipe, scale=self.scale)[0]
        if real or chance(config.estimated_share, generator=generator):
            pairs = zip(bad[1:], bad[:-1], strict=True)
            flow = torch.stack([motion.estimate_flow(now, previous=past) for now, past in pairs])
        else:
            flow = F.interpolate(clip.flow, scale_factor=1 / self.scale, mode="area") / self.scale
            flow = flow + _flow_error(flow, config.flow_error, generator)
        trust = motion.trust(bad[1:], motion.warp(bad[:-1], flow), flow)
        return {
            "bad": bad,
            "good": good,
            "flow": flow,
            "trust": trust,
            "good_flow": clip.flow,
            "seen": clip.seen,
        }

    def _made_clip(self, generator: torch.Generator) -> KnownClip:
        config = self.config
        pictures = self.source.draw(needed_pictures(config.motion), generator)
        side = config.patch * self.scale
        return make_clip(pictures, generator, config.motion, frames=config.frames, side=side)

    def _real_clip(self, generator: torch.Generator) -> KnownClip:
        """A real clip; its motion is estimated on the good frames."""
        assert self.clips is not None
        frames = self.clips.draw(generator)
        pairs = zip(frames[1:], frames[:-1], strict=True)
        flow = torch.stack([motion.estimate_flow(now, previous=past) for now, past in pairs])
        seen = motion.trust(frames[1:], motion.warp(frames[:-1], flow), flow)
        return KnownClip(frames, flow, (seen > 0.5).float())

    def step(self, batch: Batch, stepper: Stepper) -> dict[str, Tensor]:
        """One step of the network through all frames, and one of the discriminator."""
        config, good = self.config, batch["good"]
        results = self._unroll(batch, stepper)
        flat, flat_good = results.flatten(0, 1), good.flatten(0, 1)
        loss, losses = self.picture_loss(flat, flat_good, int(batch["iteration"]))
        temporal = self._temporal(results, batch)
        loss = loss + config.temporal_weight * temporal
        losses["temporal"] = temporal.detach()
        return self.update(loss, losses, result=flat, good=flat_good, batch=batch, stepper=stepper)

    def _unroll(self, batch: Batch, stepper: Stepper) -> Tensor:
        """Results `(B, T, 3, s p, s p)`, each made with the one before."""
        bad, results = batch["bad"], []
        for t in range(bad.shape[1]):
            frame = bad[:, t].contiguous(memory_format=torch.channels_last)
            if t == 0:
                with stepper.autocast():
                    results.append(self._forward(frame).float())
                continue
            before = results[-1] if self.config.through_time else results[-1].detach()
            moved = motion.warp(before, batch["flow"][:, t - 1], scale=self.scale)
            with stepper.autocast():
                results.append(self._forward(frame, moved, batch["trust"][:, t - 1]).float())
        return torch.stack(results, dim=1)

    def _temporal(self, results: Tensor, batch: Batch) -> Tensor:
        flow = batch["good_flow"].flatten(0, 1)

        def parts(x: Tensor) -> tuple[Tensor, Tensor]:
            return x[:, 1:].flatten(0, 1), motion.warp(x[:, :-1].flatten(0, 1), flow)

        now, before = parts(results)
        target, target_before = parts(batch["good"])
        seen = batch["seen"].flatten(0, 1)
        return temporal_change(now, before, target=target, target_before=target_before, seen=seen)


def _flow_error(flow: Tensor, largest: float, generator: torch.Generator) -> Tensor:
    """A smooth error as an estimate has it: `(T - 1, 2, H, W)`, of a random strength."""
    strength = largest * number(0, 1, generator=generator) ** 2
    height, width = flow.shape[-2:]
    coarse = (len(flow), 2, max(2, height // 8), max(2, width // 8))
    noise = torch.randn(coarse, generator=generator) * strength
    return F.interpolate(noise, (height, width), mode="bicubic", align_corners=False)
