"""Where the words of a prompt come from: the user, a list of tags, or the tagger."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from restore.zoo.cache import cache_folder

if TYPE_CHECKING:
    from restore.models.parts.ram.cache import CachedTagger

NONE = "none"


class Tagging:
    """Makes the prompt of each picture, as OSEDiff writes it: `tag, tag, words of the user,`."""

    def __init__(self) -> None:
        self._prompt: str | None = None
        self._tags: str | None = None
        self._tagger: CachedTagger | None = None
        self._files: tuple[str, str | None] | None = None
        self._device, self._dtype = torch.device("cpu"), torch.float32

    def tune(
        self,
        *,
        prompt: str | None = None,
        tags: str | None = None,
        tagger: str | None = None,
        tagger_adapter: str | None = None,
    ) -> None:
        """Set what is given; the others go back to nothing.

        Args:
            prompt: words of the user.
            tags: tags of the picture, in place of the tagger's.
            tagger: weight file of RAM, `none`, or None = as it was.
            tagger_adapter: weight file of DAPE, likewise.

        Raises:
            WeightsError: a file is missing or no weight file; what is within shows when the first
                picture is tagged that no earlier run has tagged.
        """
        self._prompt, self._tags = prompt, tags
        if tagger is None or tagger == NONE:
            self._tagger, self._files = None, None
            return
        files = (tagger, None if tagger_adapter in (None, NONE) else tagger_adapter)
        if files != self._files:
            from restore.models.parts.ram.cache import CachedTagger

            self._tagger = CachedTagger(
                Path(tagger),
                None if files[1] is None else Path(files[1]),
                device=self._device,
                dtype=self._dtype,
                folder=cache_folder() / "tags",
            )
            self._files = files

    def to(self, device: torch.device, dtype: torch.dtype) -> None:
        """Move the tagger."""
        self._device, self._dtype = device, dtype
        if self._tagger is not None:
            self._tagger.to(device, dtype)

    def prompts(self, pictures: Tensor) -> list[str]:
        """A prompt for each picture `(B, 3, H, W)` in [0, 1]."""
        if self._tags is not None:
            tags = [self._tags] * len(pictures)
        elif self._tagger is not None:
            tags = [", ".join(words) for words in self._tagger.tags(pictures)]
        else:
            tags = [""] * len(pictures)
        return [_joined(one, self._prompt or "") for one in tags]


def _joined(tags: str, prompt: str) -> str:
    """As OSEDiff writes it; without tags, which it always has, only the words of the user."""
    return f"{tags}, {prompt}," if tags else prompt
