"""Random weights in FlashVSR's published layout, a folder of files; tiny for tests, or full size.

diffusion_pytorch_model_streaming_dmd.safetensors   the network, names of Wan2.1-T2V-1.3B
LQ_proj_in.ckpt                                     the projection of the input
posi_prompt.pth                                     the prompt's embedding
TCDecoder.ckpt                                      the tiny decoder
Wan2.1_VAE.pth                                      the full decoder, with the layers beside it
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from published import fill
from safetensors.torch import save_file
from torch import Tensor

DIT, LQ, DECODER, PROMPT, VAE = range(1, 6)  # seeds
Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True, kw_only=True, slots=True)
class FlashSize:
    """Shape of the networks."""

    dim: int = 64
    """Channels of a token."""
    heads: int = 2
    """Attention heads."""
    layers: int = 2
    """Blocks of the network."""
    ffn: int = 128
    """Channels inside its MLP."""
    text: int = 48
    """Channels of the prompt's embedding."""
    words: int = 7
    """Tokens of the prompt."""
    lq: tuple[int, int] = (24, 32)
    """Channels after each convolution of the projection."""
    decoder: tuple[int, int, int, int] = (16, 12, 8, 8)
    """Channels of the tiny decoder's stages."""
    vae: int = 8
    """Channels of the last stage of the full decoder."""


TINY = FlashSize()
FULL = FlashSize(
    dim=1536,
    heads=12,
    layers=30,
    ffn=8960,
    text=4096,
    words=512,
    lq=(2048, 3072),
    decoder=(512, 256, 128, 128),
    vae=96,
)


def _linear(name: str, fan_in: int, out: int) -> Shapes:
    return {f"{name}.weight": (out, fan_in), f"{name}.bias": (out,)}


def dit_shapes(size: FlashSize = TINY) -> Shapes:
    """Names and shapes of the network's tensors."""
    dim = size.dim
    shapes: Shapes = {
        "patch_embedding.weight": (dim, 16, 1, 2, 2),
        "patch_embedding.bias": (dim,),
        **_linear("text_embedding.0", size.text, dim),
        **_linear("text_embedding.2", dim, dim),
        **_linear("time_embedding.0", 256, dim),
        **_linear("time_embedding.2", dim, dim),
        **_linear("time_projection.1", dim, 6 * dim),
        **_linear("head.head", dim, 64),
        "head.modulation": (1, 2, dim),
    }
    for i in range(size.layers):
        block = f"blocks.{i}"
        for attn in ("self_attn", "cross_attn"):
            for part in "qkvo":
                shapes |= _linear(f"{block}.{attn}.{part}", dim, dim)
            shapes |= {f"{block}.{attn}.norm_{part}.weight": (dim,) for part in "qk"}
        shapes |= {f"{block}.norm3.weight": (dim,), f"{block}.norm3.bias": (dim,)}
        shapes |= _linear(f"{block}.ffn.0", dim, size.ffn)
        shapes |= _linear(f"{block}.ffn.2", size.ffn, dim)
        shapes |= {f"{block}.modulation": (1, 6, dim)}
    return shapes


def lq_shapes(size: FlashSize = TINY) -> Shapes:
    """Names and shapes of the projection's tensors."""
    first, second = size.lq
    return {
        "conv1.weight": (first, 768, 4, 3, 3),
        "conv1.bias": (first,),
        "norm1.gamma": (first, 1, 1, 1),
        "conv2.weight": (second, first, 4, 3, 3),
        "conv2.bias": (second,),
        "norm2.gamma": (second, 1, 1, 1),
        **_linear("linear_layers.0", second, size.dim),
    }


def fill_flash(state: Mapping[str, Tensor], seed: int) -> None:
    """As `fill`, and gains of the norms near 1 whatever their shape."""
    fill(state, seed)
    for name, tensor in state.items():
        if name.endswith("gamma"):
            tensor.mul_(0.1).add_(1)


def random_state(shapes: Shapes, seed: int) -> dict[str, Tensor]:
    """Tensors of these shapes, by their names and the seed."""
    state = {name: torch.empty(shape) for name, shape in shapes.items()}
    with torch.no_grad():
        fill_flash(state, seed)
    return state


def make_dit(size: FlashSize = TINY) -> dict[str, Tensor]:
    """The network's tensors."""
    return random_state(dit_shapes(size), DIT)


def make_lq(size: FlashSize = TINY) -> dict[str, Tensor]:
    """The projection's tensors."""
    return random_state(lq_shapes(size), LQ)


def make_prompt(size: FlashSize = TINY) -> Tensor:
    """The prompt's embedding `(1, n, channels)`."""
    generator = torch.Generator().manual_seed(PROMPT)
    return torch.randn(1, size.words, size.text, generator=generator)


def decoder_shapes(size: FlashSize = TINY) -> Shapes:
    """Names and shapes of the tiny decoder's tensors."""
    a, b, c, d = size.decoder

    def conv(name: str, fan_in: int, out: int, side: int = 3) -> Shapes:
        return {f"decoder.{name}.weight": (out, fan_in, side, side)}

    def biased(name: str, fan_in: int, out: int) -> Shapes:
        return {**conv(name, fan_in, out), f"decoder.{name}.bias": (out,)}

    shapes: Shapes = biased("1", 3 * 4 * 8 * 8 + 16, a) | conv("3", a, a)
    for first, channels, behind, frames in ((5, a, b, 1), (11, b, c, 2), (17, c, d, 2)):
        for block in range(first, first + 3):
            for layer, fan_in in ((0, 2 * channels), (2, channels), (4, channels)):
                shapes |= biased(f"{block}.conv.{layer}", fan_in, channels)
        shapes |= conv(f"{first + 4}.conv", channels, frames * channels, 1)
        shapes |= conv(f"{first + 5}", channels, behind)
    return shapes | conv("24", d, d) | biased("26", d, 3)


def vae_shapes(size: FlashSize = TINY) -> Shapes:
    """Names and shapes of the tensors of Wan 2.1's VAE: the decoder's, and two of the rest."""

    def conv(name: str, fan_in: int, out: int, *sides: int) -> Shapes:
        return {f"{name}.weight": (out, fan_in, *sides), f"{name}.bias": (out,)}

    def residual(name: str, fan_in: int, out: int) -> Shapes:
        shapes = {f"{name}.residual.0.gamma": (fan_in, 1, 1, 1)}
        shapes |= conv(f"{name}.residual.2", fan_in, out, 3, 3, 3)
        shapes |= {f"{name}.residual.3.gamma": (out, 1, 1, 1)}
        shapes |= conv(f"{name}.residual.6", out, out, 3, 3, 3)
        return shapes | (conv(f"{name}.shortcut", fan_in, out, 1, 1, 1) if fan_in != out else {})

    base, top = size.vae, 4 * size.vae
    shapes = conv("encoder.conv1", 3, base, 3, 3, 3) | conv("conv1", 32, 32, 1, 1, 1)
    shapes |= conv("conv2", 16, 16, 1, 1, 1) | conv("decoder.conv1", 16, top, 3, 3, 3)
    shapes |= residual("decoder.middle.0", top, top) | residual("decoder.middle.2", top, top)
    shapes |= {"decoder.middle.1.norm.gamma": (top, 1, 1)}
    shapes |= conv("decoder.middle.1.to_qkv", top, 3 * top, 1, 1)
    shapes |= conv("decoder.middle.1.proj", top, top, 1, 1)
    stages = ((top, top), (top // 2, top), (top // 2, top // 2), (base, base))
    for i, (fan_in, out) in enumerate(stages):
        for j in range(3):
            shapes |= residual(f"decoder.upsamples.{4 * i + j}", fan_in if j == 0 else out, out)
        name = f"decoder.upsamples.{4 * i + 3}"
        if i < 3:
            shapes |= conv(f"{name}.resample.1", out, out // 2, 3, 3)
        if i < 2:
            shapes |= conv(f"{name}.time_conv", out, 2 * out, 3, 1, 1)
    shapes |= {"decoder.head.0.gamma": (base, 1, 1, 1)}
    return shapes | conv("decoder.head.2", base, 3, 3, 3, 3)


def make_decoder(size: FlashSize = TINY) -> dict[str, Tensor]:
    """The tiny decoder's tensors; frames of about the range of pictures come out."""
    state = random_state(decoder_shapes(size), DECODER)
    state["decoder.26.weight"].mul_(0.5)
    state["decoder.26.bias"].copy_(torch.tensor([0.4, 0.5, 0.6]))
    return state


def make_vae(size: FlashSize = TINY) -> dict[str, Tensor]:
    """The tensors of Wan 2.1's VAE."""
    return random_state(vae_shapes(size), VAE)


def make_folder(folder: Path, size: FlashSize = TINY, *, full: bool = True) -> Path:
    """Write all files as published, in the number formats of the published ones.

    Args:
        folder: where.
        size: of the networks.
        full: whether the VAE lies there, too.
    """
    folder.mkdir(parents=True, exist_ok=True)
    save_file(make_dit(size), folder / "diffusion_pytorch_model_streaming_dmd.safetensors")
    torch.save({k: v.bfloat16() for k, v in make_lq(size).items()}, folder / "LQ_proj_in.ckpt")
    torch.save(make_decoder(size), folder / "TCDecoder.ckpt")
    torch.save(make_prompt(size).bfloat16(), folder / "posi_prompt.pth")
    if full:
        torch.save(make_vae(size), folder / "Wan2.1_VAE.pth")
    if size.dim != 128 * size.heads:  # of which tensors do not tell
        (folder / "config.json").write_text(json.dumps({"num_heads": size.heads}))
    return folder


def clip(frames: int, height: int, width: int, seed: int = 0) -> Tensor:
    """A moving pattern `(T, 3, H, W)` in [0, 1] of 256 levels."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.linspace(0, 6.28, height)[:, None]
    x = torch.linspace(0, 6.28 * width / height, width)[None]
    noise = 0.05 * torch.randn(3, height, width, generator=generator)
    pictures = []
    for t in range(frames):
        waves = [torch.sin((k + 1) * x + 0.15 * t) * torch.cos((3 - k) * y) for k in range(3)]
        edge = 0.2 * ((x + y) > 4 + 0.1 * t)
        pictures.append(0.5 + 0.25 * torch.stack(waves) + edge - 0.1 + noise.roll(t, -1))
    return (torch.stack(pictures).clamp(0, 1) * 255).round() / 255
