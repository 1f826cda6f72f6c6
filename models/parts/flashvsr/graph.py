"""A later chunk of a clip through the network, on a GPU recorded once and played back.

A chunk launches some thousand small kernels, which a CPU can hardly do as fast as a large GPU
computes them. All later chunks are alike: which slot of the rings is written to is said by a tensor
on the GPU.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from restore.attention import RingCache
from restore.models.parts.flashvsr.dit import Condition, FlashDiT, Selection
from restore.models.parts.flashvsr.rope import Rotation


class SteadyStep:
    """The network with what one clip gives it."""

    def __init__(
        self,
        dit: FlashDiT,
        rings: Sequence[RingCache],
        condition: Condition,
        selection: Selection,
    ) -> None:
        self._dit, self._rings = dit, rings
        self._condition, self._selection = condition, selection
        self._inputs: tuple[Tensor, ...] = ()  # where recordings read
        self._warm = False
        self._recorded: tuple[torch.cuda.CUDAGraph, Tensor] | None = None

    def first(self, noise: Tensor, tokens: Tensor, rotation: Rotation) -> Tensor:
        """v of the first chunk of a clip."""
        return self._dit(
            noise,
            tokens,
            caches=self._rings,
            condition=self._condition,
            rotation=rotation,
            selection=self._selection,
        )

    def later(self, noise: Tensor, tokens: Tensor, rotation: Rotation) -> Tensor:
        """v of a later one."""
        for ring in self._rings:
            ring.advance()
        return self.first(noise, tokens, rotation)

    def played(self, noise: Tensor, tokens: Tensor, rotation: Rotation) -> Tensor:
        """The same from a recording on a GPU; valid until the next call.

        The first one is run plainly, which compiles what has to be compiled.
        """
        if not (noise.is_cuda and self._warm):
            self._warm = True
            return self.later(noise, tokens, rotation)
        given = (noise, tokens, rotation.cos, rotation.sin)
        if not self._inputs:
            self._inputs = tuple(part.clone() for part in given)
        for place, part in zip(self._inputs, given, strict=True):
            place.copy_(part)
        for ring in self._rings:
            ring.advance()
        if self._recorded is None:
            graph = torch.cuda.CUDAGraph()
            noise, tokens, cos, sin = self._inputs
            # Records; nothing is computed. Other threads may go on using the GPU.
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                result = self.first(noise, tokens, Rotation(cos=cos, sin=sin))
            self._recorded = graph, result
        graph, result = self._recorded
        graph.replay()
        return result
