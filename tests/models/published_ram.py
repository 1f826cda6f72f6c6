"""Random weights in the published formats of RAM and DAPE, tiny or at full size.

The names and shapes are those of the authors' own class; when the golden numbers were made, they
were compared with it, key by key, at both sizes.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor

from restore.models.parts.ram.net import RamConfig

TINY = RamConfig(width=24, depths=(2, 1, 2, 1), heads=(2, 4, 6, 12), hidden=32)
TINY_CAPTION_LAYERS = 3
TINY_WORDS = 10
RANK = 8

Shapes = dict[str, tuple[int, ...]]


def ram_shapes(
    config: RamConfig, *, caption_layers: int = 12, words: int = 30524, words_head: int = 30524
) -> Shapes:
    """Every entry of a RAM file's `model`, needed or not."""
    shapes: Shapes = {"label_embed": (config.labels, config.label_width)}
    shapes |= _swin(config)
    shapes |= _linear("image_proj", config.label_width, config.width << (len(config.depths) - 1))
    shapes |= _linear("wordvec_proj", config.hidden, config.label_width)
    shapes |= _linear("fc", 1, config.hidden)
    for index in range(config.layers):
        layer = f"tagging_head.encoder.layer.{index}"
        shapes |= _bert_layer(layer, config.hidden, config.label_width, itself=False)
    for net, source in (("tag_encoder", config.label_width), ("text_decoder.bert", config.hidden)):
        shapes |= _words(f"{net}.embeddings", words, config.hidden)
        for index in range(caption_layers):
            shapes |= _bert_layer(
                f"{net}.encoder.layer.{index}", config.hidden, source, itself=True
            )
    head = "text_decoder.cls.predictions"
    shapes |= _linear(f"{head}.transform.dense", config.hidden, config.hidden)
    shapes |= _norm(f"{head}.transform.LayerNorm", config.hidden)
    shapes |= {f"{head}.bias": (words_head,), f"{head}.decoder.bias": (words_head,)}
    return shapes | {f"{head}.decoder.weight": (words_head, config.hidden)}


def dape_shapes(ram: Shapes) -> Shapes:
    """Every entry of a DAPE file, for a RAM file with the entries `ram`."""
    shapes: Shapes = {}
    for key, shape in ram.items():
        layer = key.removesuffix(".weight")
        if layer.endswith(".attn.qkv"):
            shapes |= {f"{layer}.lora_A": (2 * RANK, shape[1])}
            shapes |= {f"{layer}.lora_B": (shape[0] // 3 * 2, RANK)}
        elif layer.endswith((".self.query", ".self.key")):
            shapes |= {f"{layer}.lora_A": (RANK, shape[1]), f"{layer}.lora_B": (shape[0], RANK)}
    return shapes


def tiny_ram() -> dict[str, Tensor]:
    """A tiny RAM that gives some of its labels to a picture."""
    shapes = ram_shapes(
        TINY, caption_layers=TINY_CAPTION_LAYERS, words=TINY_WORDS, words_head=TINY_WORDS
    )
    state = _random(shapes, seed=1)
    state["label_embed"] *= 100.0  # otherwise all labels are given, or none
    state["fc.weight"] *= 4.0
    state["fc.bias"] -= 7.0
    for key in state:  # one memory in the authors' class
        if key.startswith("tagging_head."):
            state[key.replace("tagging_head.", "tag_encoder.")] = state[key].clone()
    return state


def tiny_dape() -> dict[str, Tensor]:
    """LoRA for `tiny_ram` that changes what it says; that of the captions' networks is not 0."""
    shapes = dape_shapes({name: tuple(value.shape) for name, value in tiny_ram().items()})
    return {name: 1.5 * value for name, value in _random(shapes, seed=2).items()}


def write_tiny(folder: Path) -> tuple[Path, Path]:
    """Both files, as published: a training checkpoint, and a bare dictionary."""
    ram, dape = folder / "ram_swin_large_14m.pth", folder / "DAPE.pth"
    torch.save({"model": tiny_ram(), "config": {"image_size": 384}, "epoch": 4}, ram)
    torch.save(tiny_dape(), dape)
    return ram, dape


def pictures() -> list[Tensor]:
    """Three pictures `(3, H, W)` in [0, 1], one of odd size, one that needs no resizing."""
    return [_picture(*size) for size in ((131, 97), (384, 384), (400, 640))]


def _picture(height: int, width: int) -> Tensor:
    y = torch.linspace(0, 1, height, dtype=torch.float64)[:, None]
    x = torch.linspace(0, 1, width, dtype=torch.float64)[None, :]
    waves = [
        torch.sin((5 + 3 * c) * x + (2 + height / 100) * y * (c + 1)) * torch.cos(9 * x * y + width)
        for c in range(3)
    ]
    rows, columns = torch.arange(height)[:, None], torch.arange(width)[None, :]
    grain = 0.1 * torch.sin(2.5 * columns.double() + 1.7 * rows.double())  # resizing shows in it
    edge = ((x - 0.4) ** 2 + (y - 0.6) ** 2 < 0.05).double() * (width / 640)
    return (0.5 + 0.3 * torch.stack(waves) - 0.3 * edge + grain).clamp(0, 1).float()


def _random(shapes: Shapes, *, seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name in sorted(shapes):
        shape = shapes[name]
        if name.endswith("relative_position_index"):
            state[name] = torch.zeros(shape, dtype=torch.long)  # both readers compute their own
        elif name.endswith("position_ids"):
            state[name] = torch.arange(shape[1])[None]
        else:
            value = torch.randn(shape, generator=generator)
            if "norm" in name.lower() or len(shape) == 1:
                one = 1.0 if name.endswith("weight") else 0.0
                state[name] = one + 0.2 * value
            else:
                state[name] = value / math.sqrt(math.prod(shape[1:]))
    return state


def _swin(config: RamConfig) -> Shapes:
    window, area = config.window, config.window**2
    shapes = _norm("visual_encoder.patch_embed.norm", config.width)
    shapes |= {"visual_encoder.patch_embed.proj.weight": (config.width, 3, 4, 4)}
    shapes |= {"visual_encoder.patch_embed.proj.bias": (config.width,)}
    for stage, depth in enumerate(config.depths):
        width, heads = config.width << stage, config.heads[stage]
        windows = (config.side // 4 // window >> stage) ** 2
        prefix = f"visual_encoder.layers.{stage}"
        for index in range(depth):
            block = f"{prefix}.blocks.{index}"
            shapes |= _norm(f"{block}.norm1", width) | _norm(f"{block}.norm2", width)
            shapes |= _linear(f"{block}.attn.qkv", 3 * width, width)
            shapes |= _linear(f"{block}.attn.proj", width, width)
            shapes |= _linear(f"{block}.mlp.fc1", 4 * width, width)
            shapes |= _linear(f"{block}.mlp.fc2", width, 4 * width)
            table = f"{block}.attn.relative_position_bias_table"
            shapes |= {table: ((2 * window - 1) ** 2, heads)}
            shapes |= {f"{block}.attn.relative_position_index": (area, area)}
            if index % 2 and windows > 1:
                shapes |= {f"{block}.attn_mask": (windows, area, area)}
        if stage < len(config.depths) - 1:
            shapes |= _norm(f"{prefix}.downsample.norm", 4 * width)
            shapes |= {f"{prefix}.downsample.reduction.weight": (2 * width, 4 * width)}
    return shapes | _norm("visual_encoder.norm", config.width << (len(config.depths) - 1))


def _words(prefix: str, words: int, hidden: int) -> Shapes:
    shapes: Shapes = {f"{prefix}.position_ids": (1, 512)}
    shapes |= {f"{prefix}.word_embeddings.weight": (words, hidden)}
    shapes |= {f"{prefix}.position_embeddings.weight": (512, hidden)}
    return shapes | _norm(f"{prefix}.LayerNorm", hidden)


def _bert_layer(prefix: str, hidden: int, source: int, *, itself: bool) -> Shapes:
    shapes = _linear(f"{prefix}.intermediate.dense", 4 * hidden, hidden)
    shapes |= _linear(f"{prefix}.output.dense", hidden, 4 * hidden)
    shapes |= _norm(f"{prefix}.output.LayerNorm", hidden)
    attentions = [("crossattention", source)] + ([("attention", hidden)] if itself else [])
    for name, width in attentions:
        shapes |= _linear(f"{prefix}.{name}.self.query", hidden, hidden)
        shapes |= _linear(f"{prefix}.{name}.self.key", hidden, width)
        shapes |= _linear(f"{prefix}.{name}.self.value", hidden, width)
        shapes |= _linear(f"{prefix}.{name}.output.dense", hidden, hidden)
        shapes |= _norm(f"{prefix}.{name}.output.LayerNorm", hidden)
    return shapes


def _linear(name: str, out: int, width: int) -> Shapes:
    return {f"{name}.weight": (out, width), f"{name}.bias": (out,)}


def _norm(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}
