"""The part of RAM that tags: image encoder, and a decoder that asks once for each label.

    picture -> Swin -> image_proj ---keys, values---+
                                                    v
    label_embed -> wordvec_proj -> ReLU --query--> 2 x (attention, MLP) -> fc -> a score per label

The decoder is a BERT layer without its self-attention, as in Query2Label (Liu et al., 2021). Its
keys come from another width than its queries, which transformers' BERT cannot have.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restore.models.parts.ram.swin import Swin

DECODER_HEADS = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class RamConfig:
    """Sizes of the network; the defaults are those of `ram_swin_large_14m.pth`."""

    width: int = 192
    """Channels of the encoder's first stage; each further stage has twice as many."""
    depths: tuple[int, ...] = (2, 2, 18, 2)
    """Blocks of each stage."""
    heads: tuple[int, ...] = (6, 12, 24, 48)
    """Attention heads of each stage."""
    window: int = 12
    """Side of an attention window in tokens."""
    labels: int = 4585
    """Labels that it knows."""
    label_width: int = 512
    """Channels of a label's embedding, which is one of CLIP."""
    hidden: int = 768
    """Channels of the decoder."""
    layers: int = 2
    """Layers of the decoder."""

    @property
    def side(self) -> int:
        """Side in pixels of the pictures it takes: the last stage is one window."""
        return 4 * self.window << (len(self.depths) - 1)


class Output(nn.Module):
    """Back to the decoder's width, added to what came in, normalised."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, hidden)
        self.LayerNorm = nn.LayerNorm(hidden, eps=1e-12)  # BERT's

    def forward(self, x: Tensor, before: Tensor) -> Tensor:
        return self.LayerNorm(self.dense(x) + before)


class DecoderLayer(nn.Module):
    """Labels look at the picture, then an MLP; a LayerNorm after each."""

    def __init__(self, hidden: int, source: int) -> None:
        super().__init__()
        self.crossattention = nn.ModuleDict(
            {
                "self": nn.ModuleDict(
                    {
                        "query": nn.Linear(hidden, hidden),
                        "key": nn.Linear(source, hidden),
                        "value": nn.Linear(source, hidden),
                    }
                ),
                "output": Output(hidden, hidden),
            }
        )
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(hidden, 4 * hidden)})
        self.output = Output(4 * hidden, hidden)

    def forward(self, labels: Tensor, tokens: Tensor) -> Tensor:
        """`labels` `(B, L, hidden)` ask `tokens` `(B, N, source)`; the result is as `labels`."""
        ask, out = self.crossattention["self"], self.crossattention["output"]
        assert isinstance(ask, nn.ModuleDict)
        q, k, v = (
            ask[name](x).unflatten(-1, (DECODER_HEADS, -1)).transpose(1, 2)
            for name, x in (("query", labels), ("key", tokens), ("value", tokens))
        )
        seen = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        labels = out(seen, labels)
        return self.output(F.gelu(self.intermediate["dense"](labels)), labels)


class RamNet(nn.Module):
    """Encoder and decoder; its parameters have the names that the published file has."""

    def __init__(self, config: RamConfig) -> None:
        super().__init__()
        self.visual_encoder = Swin(
            config.width,
            depths=config.depths,
            heads=config.heads,
            window=config.window,
            side=config.side,
        )
        self.image_proj = nn.Linear(config.width << (len(config.depths) - 1), config.label_width)
        self.label_embed = nn.Parameter(torch.zeros(config.labels, config.label_width))
        self.wordvec_proj = nn.Linear(config.label_width, config.hidden)
        layers = (DecoderLayer(config.hidden, config.label_width) for _ in range(config.layers))
        self.tagging_head = nn.ModuleDict(
            {"encoder": nn.ModuleDict({"layer": nn.ModuleList(layers)})}
        )
        self.fc = nn.Linear(config.hidden, 1)

    def forward(self, pictures: Tensor) -> Tensor:
        """Scores of all labels.

        Args:
            pictures: RGB `(B, 3, side, side)`, normalised with ImageNet's mean and deviation.

        Returns:
            Logits `(B, labels)`.
        """
        tokens = self.image_proj(self.visual_encoder(pictures))  # (B, 1 + N, label_width)
        labels = F.relu(self.wordvec_proj(self.label_embed)).expand(len(pictures), -1, -1)
        for layer in self.tagging_head.get_submodule("encoder.layer").children():
            labels = layer(labels, tokens)
        return self.fc(labels).squeeze(-1)


def config_of(state: Mapping[str, Tensor]) -> RamConfig:
    """The sizes that published weights were made with.

    Raises:
        KeyError: a tensor that tells them is missing.
    """
    encoder = "visual_encoder.layers"
    stages = _count(state, encoder)
    depths = tuple(_count(state, f"{encoder}.{index}.blocks") for index in range(stages))
    tables = [
        state[f"{encoder}.{index}.blocks.0.attn.relative_position_bias_table"]
        for index in range(max(stages, 1))  # with no stage, the first is what is missing
    ]
    labels, label_width = state["label_embed"].shape
    return RamConfig(
        width=state["visual_encoder.patch_embed.proj.weight"].shape[0],
        depths=depths,
        heads=tuple(table.shape[1] for table in tables),
        window=(round(tables[0].shape[0] ** 0.5) + 1) // 2,
        labels=labels,
        label_width=label_width,
        hidden=state["wordvec_proj.weight"].shape[0],
        layers=_count(state, "tagging_head.encoder.layer"),
    )


def _count(state: Mapping[str, Tensor], prefix: str) -> int:
    """How many numbered modules there are below `prefix`."""
    start = prefix + "."
    numbers = (key[len(start) :].split(".", 1)[0] for key in state if key.startswith(start))
    return len({number for number in numbers if number.isdigit()})
