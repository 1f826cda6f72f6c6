"""FlashVSR: clips x4 in one step, as a stream.

Zhuang et al., "FlashVSR: Towards Real-Time Diffusion-Based Streaming Video Super-Resolution"
(arXiv 2510.12747). A video transformer, distilled to one step, that sees the input through a
projection, and attends to a chosen part of what is near it and of the last groups of frames:

    frames -bicubic x4-+-> LQ projection -> tokens --(+)--> transformer -> v;  x0 = noise - v
                       |                      noise --^                          |
                       +----------------------------------------> decoder <------+ -> frames

The prompt is stored with the weights. Versions 1 and 1.1 have weights of the same names and shapes,
and a projection that works differently, so the name of the method says which it is.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from restore.errors import WeightsError
from restore.method import Decoder, MethodSpec, Tiling
from restore.models.parts.flashvsr.clip import LATER_FRAMES, FlashClip, Networks, Plan
from restore.models.parts.flashvsr.dit import Condition, FlashDiT
from restore.models.parts.flashvsr.enlarge import SCALE, Frame
from restore.models.parts.flashvsr.lq_projection import LQProjection, Version
from restore.models.parts.flashvsr.tiny_decoder import FULL_CHANNELS, MARGIN, TinyDecoder
from restore.models.parts.flashvsr.wan_vae import WanDecoder
from restore.models.parts.flashvsr.weights import FlashFolder, check_files, read_decoder

MULTIPLE = 32
"""Input pixels along each side of a block of attention."""
BYTES_PER_CHANNEL = 16 * 4 * 4
"""Working memory of the tiny decoder for each input pixel, channel of its last stage, and frame: 16
pixels in fp32, in four tensors at a time."""


class FlashVSR:
    """Clips x4, version 1."""

    spec: MethodSpec = MethodSpec(
        name="flashvsr",
        summary="clips x4 as a stream, in one step of a video model; makes up detail",
        scale=SCALE,
        overlap=MARGIN * 8 // SCALE,  # of the tiles of the tiny decoder; the transformer has none
        streaming=True,
        size_multiple=MULTIPLE,
        min_size=MULTIPLE,
        # The published number format; fp16 has less range than the network was trained with.
        dtypes=("bf16", "fp16", "fp32"),
        options=("tiling", "decoder", "sparse_ratio", "local_range", "compile"),
        enlarges_alpha=False,
        bytes_per_pixel=BYTES_PER_CHANNEL * FULL_CHANNELS[-1] * LATER_FRAMES,
        # What it remembers is written at each such point: half a gigabyte and more.
        segment=480,
        segment_on_cpu=40,
        color_fix="adain",
        licence="Apache-2.0",
        source="https://github.com/OpenImagingLab/FlashVSR (arXiv 2510.12747)",
    )
    version: ClassVar[Version] = "1"

    def __init__(self, weights: Path) -> None:
        self._folder = weights
        content = FlashFolder.read(weights, decoder="tiny", name=self.spec.name)
        with torch.device("meta"):
            self.dit = FlashDiT(content.shape)
            self.lq = LQProjection(LQProjection.widths(content.lq), version=self.version)
        self.dit.load_state_dict(content.dit, strict=True, assign=True)
        self.lq.load_state_dict(content.lq, strict=True, assign=True)
        for net in (self.dit, self.lq):
            net.eval().requires_grad_(False)
        self.prompt = content.prompt
        self._decoders: dict[Decoder, Any] = {
            "tiny": make_decoder(
                "tiny", content.decoder, device=torch.device("cpu"), dtype=torch.float32
            )
        }
        self._decoder: Decoder = "tiny"
        self._side: int | None = None  # of the decoder's tiles, in input pixels
        self._tiling: Tiling = "exact"
        self._plan = Plan()
        self._condition: Condition | None = None
        # As they were read; `to` brings them where they run, in one number format.
        self.device, self.dtype = torch.device("cpu"), torch.float32

    @classmethod
    def describe(cls, weights: Path | None) -> MethodSpec:
        """The spec; whether the files are of this method is found out when they are loaded.

        Raises:
            WeightsError: a file is missing, empty, an LFS pointer or a web page.
        """
        if weights is not None:
            check_files(weights, name=cls.spec.name)
        return cls.spec

    @classmethod
    def load(cls, weights: Path | None, *, device: torch.device, dtype: torch.dtype) -> FlashVSR:
        """Read the folder as it is published.

        Args:
            weights: folder with `diffusion_pytorch_model_streaming_dmd.safetensors`,
                `LQ_proj_in.ckpt`, `TCDecoder.ckpt` and `posi_prompt.pth`.
            device: where the networks run.
            dtype: their number format.

        Raises:
            WeightsError: a file is missing, damaged, unsafe, or of another model.
        """
        if weights is None:
            raise WeightsError(
                f"'{cls.spec.name}' needs weights; run 'restore models pull {cls.spec.name}', or "
                "give the published folder with --weights"
            )
        return cls(weights).to(device, dtype)

    def to(self, device: torch.device, dtype: torch.dtype) -> FlashVSR:
        """Move all networks; clips that are open keep what they have."""
        self.device, self.dtype = device, dtype
        self.dit.to(device, dtype)
        self.lq.to(device, dtype)
        if device.type == "cuda":
            self.lq.channels_last()
        for kind, decoder in self._decoders.items():
            decoder.to(device, dtype)
            if device.type == "cuda" and kind == "tiny":  # its 2D convolutions want it so
                decoder.to(memory_format=torch.channels_last)
        self._condition = None
        wide = self._decoders["tiny"].channels[-1]
        steps = 1 if device.type == "cpu" else LATER_FRAMES  # that it has in memory at a time
        self.spec = replace(self.spec, bytes_per_pixel=BYTES_PER_CHANNEL * wide * steps)
        return self

    def tune(self, **options: Any) -> None:
        """Set `tiling`, `decoder`, `sparse_ratio`, `local_range` or `compile` for clips to come.

        Raises:
            WeightsError: the folder has no `Wan2.1_VAE.pth` for `decoder="full"`, or a bad one.
        """
        self._tiling = options.get("tiling", self._tiling)
        # The published crop is that of the frame itself, so nobody may pad it before.
        published = self._tiling == "published"
        self.spec = replace(self.spec, size_multiple=1 if published else MULTIPLE)
        self._decoder = options.get("decoder", self._decoder)
        if self._decoder not in self._decoders:
            state = read_decoder(self._folder, decoder=self._decoder, name=self.spec.name)
            made = make_decoder(self._decoder, state, device=self.device, dtype=self.dtype)
            self._decoders[self._decoder] = made
            self._side = None  # which it has not been told
        chosen = {k: options[k] for k in ("sparse_ratio", "local_range") if k in options}
        self._plan = replace(self._plan, **chosen)
        if "compile" in options:
            fast = bool(options["compile"])
            self.dit.compile_blocks(fast)
            self._plan = replace(self._plan, graphs=fast, overlap=fast)

    def use_tiles(self, side: int) -> None:
        """Decode frames in parts of `side` input pixels; what comes out is the same."""
        if side == self._side:  # it stays with what memory was enough for
            return
        self._side = side
        for decoder in self._decoders.values():
            decoder.tiles.max_pixels = (SCALE * (side + 2 * self.spec.overlap)) ** 2

    def open_clip(self, height: int, width: int, *, seed: int) -> FlashClip:
        """Begin a clip.

        Args:
            height: of its frames, a multiple of 32; with the published tiling any, from 32.
            width: likewise.
            seed: with the number of a latent it says what its noise is.
        """
        frame = Frame(height=height, width=width, tiling=self._tiling)
        return FlashClip(self.networks(), frame, seed=seed, plan=self._plan)

    @torch.inference_mode()
    def networks(self) -> Networks:
        """What clips run through, with what text and time contribute."""
        if self._condition is None:
            self._condition = self.dit.condition(self.prompt)
        return Networks(
            dit=self.dit,
            lq=self.lq,
            decoder=self._decoders[self._decoder],
            condition=self._condition,
            device=self.device,
            dtype=self.dtype,
        )

    def restore(self, frames: Tensor, *, generator: torch.Generator) -> Tensor:
        """`(B, 1, 3, H, W)` in [0, 1] to `(B, 1, 3, 4 H, 4 W)`: each picture as a clip of one.

        `generator` draws one number for each: the seed of its clip.
        """
        results = []
        for picture in frames[:, 0]:
            seed = torch.randint(2**31, (), generator=generator, device=generator.device)
            clip = self.open_clip(*picture.shape[-2:], seed=int(seed))
            results.append(torch.cat((clip.push(picture), clip.finish())))
        return torch.stack(results).clamp(0, 1)


def make_decoder(
    kind: Decoder, state: dict[str, Tensor], *, device: torch.device, dtype: torch.dtype
) -> Any:
    """A decoder with the weights that were read."""
    net = TinyDecoder if kind == "tiny" else WanDecoder
    return net.load(state, device=device, dtype=dtype)


class FlashVSR11(FlashVSR):
    """Clips x4, version 1.1: steadier; its projection sees the frames before."""

    spec: MethodSpec = replace(
        FlashVSR.spec, name="flashvsr-1.1", summary="FlashVSR 1.1, its later and steadier weights"
    )
    version: ClassVar[Version] = "1.1"
