"""Embeddings of prompts: those of the library, computed once, remembered by text."""

from __future__ import annotations

from pathlib import Path

import torch

from restore.models.parts.prompts import Prompts


def test_the_embedding_is_the_text_encoders(tiny_base: Path) -> None:
    from transformers import CLIPTextModel, CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(tiny_base / "tokenizer")
    encoder = CLIPTextModel.from_pretrained(tiny_base / "text_encoder")
    ids = tokenizer("a dog, ", padding="max_length", max_length=77, return_tensors="pt").input_ids
    assert len(set(ids[0].tolist())) > 5  # the letters are told apart
    with torch.no_grad():
        expected = encoder(ids)[0]
    prompts = Prompts(tiny_base)
    torch.testing.assert_close(prompts.embed("a dog, "), expected)
    assert prompts.embed("a dog, ") is prompts.embed("a dog, ")
    assert not torch.equal(prompts.embed("a cat"), expected)


def test_a_long_prompt_is_cut_to_what_the_encoder_takes(tiny_base: Path) -> None:
    assert Prompts(tiny_base).embed("word " * 200).shape == (1, 77, 32)
