"""RAM, the network that finds words for a picture, with DAPE, which adapts it to bad pictures.

Recognize Anything (Zhang et al., 2023) tags a picture with some of 4,585 labels. The degradation-
aware prompt extractor of SeeSR (Wu et al., CVPR 2024) is a set of LoRA layers on it, trained so
that a degraded picture gives what the clean one gave. Both are read as published, once, and merged.
"""

from __future__ import annotations

from restore.models.parts.ram.cache import CachedTagger as CachedTagger
from restore.models.parts.ram.tagger import Tagger as Tagger

__all__ = ["CachedTagger", "Tagger"]
