"""Words to the embeddings that a Stable Diffusion U-Net is conditioned on."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from restore.errors import WeightsError
from restore.models.parts.pretrained import load_part, read_config

_KEPT = 64
"""Prompts whose embeddings are remembered."""


class Prompts:
    """Tokeniser and text encoder of a base model.

    Embeddings are the last hidden states after the final normalisation, of the prompt padded to
    the tokeniser's length (77), which is what Stable Diffusion 2 attends to.
    """

    def __init__(self, base: Path) -> None:
        from transformers import CLIPTextModel, CLIPTokenizer

        read_config(base, "tokenizer")
        try:
            self._tokenizer: Any = CLIPTokenizer.from_pretrained(
                base / "tokenizer", local_files_only=True
            )
        except Exception as error:  # the library has many
            reason = " ".join(str(error).split())[:200]
            raise WeightsError(
                f"the tokeniser in {base / 'tokenizer'} cannot be read ({reason}); give a whole "
                "folder with --base"
            ) from error
        self._encoder = load_part(base, "text_encoder", CLIPTextModel)
        self._known: OrderedDict[str, Tensor] = OrderedDict()

    def to(self, device: torch.device, dtype: torch.dtype) -> Prompts:
        """Move the encoder."""
        self._encoder.to(device, dtype)
        self._known.clear()
        return self

    @torch.no_grad()
    def embed(self, text: str) -> Tensor:
        """`(1, 77, D)` of a prompt, in the encoder's format; computed once for each text."""
        if text in self._known:
            self._known.move_to_end(text)
            return self._known[text]
        ids = self._tokenizer(
            text,
            max_length=self._tokenizer.model_max_length,
            padding="max_length",
            truncation=True,
            return_tensors="pt",
        ).input_ids
        result = self._encoder(ids.to(self._encoder.device)).last_hidden_state
        self._known[text] = result
        if len(self._known) > _KEPT:
            self._known.popitem(last=False)
        return result
