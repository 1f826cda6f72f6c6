"""A clip on its way through FlashVSR: frames in, and groups of restored frames out.

    input frames   0 ......... 20 21 .. 24 | 25 .. 28 29 .. 32 | 33 ..
    first chunk    25 in: 6 latents,  21 out
    each later one  8 in: 2 latents,   8 out, those before the last 4 taken

The network looks four frames ahead. Two latents are decoded at a time, which makes eight frames, at
the beginning of a clip five: those of the first chunk come out with three frames taken, one after
the other, so that no more than eight large frames are held at once. What is kept of the past does
not grow: keys and values of three groups of latents in each layer, two inputs of each convolution
of the projection, the decoder's memory, and the input frames whose results are still to come.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from restore.models.parts.flashvsr.dit import CACHED, LATENTS, Condition, FlashDiT, Selection
from restore.models.parts.flashvsr.enlarge import SCALE, Frame
from restore.models.parts.flashvsr.graph import SteadyStep
from restore.models.parts.flashvsr.lq_projection import FACTOR, GROUP, LQCache, LQProjection
from restore.models.parts.flashvsr.noise import latent_noise
from restore.models.parts.flashvsr.rope import TABLE, rebase, rotation
from restore.models.parts.flashvsr.windows import TIME

AHEAD = 4
"""Input frames after the last one of a chunk that the chunk needs."""
FIRST_LATENTS, FIRST_FRAMES = CACHED * TIME, 4 * CACHED * TIME - 3
FIRST_SPAN, LATER_FRAMES = 4 * TIME - 3, 4 * TIME


class Decoder(Protocol):
    """What makes frames of latents, chunk by chunk."""

    def decode(
        self, latents: Tensor, condition: Tensor, memory: list[Tensor] | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """Frames `(1, 3, n, H, W)` in about [-1, 1], and what the next call needs."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Networks:
    """What a clip runs through; clips share it."""

    dit: FlashDiT
    """The network."""
    lq: LQProjection
    """Tokens of the input."""
    decoder: Decoder
    """Latents to frames."""
    condition: Condition
    """Text and time step."""
    device: torch.device
    """Where they are."""
    dtype: torch.dtype
    """What they compute in."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """How clips are run."""

    sparse_ratio: float = 2.0
    """How many blocks of keys a block of queries sees: about 60 times this."""
    local_range: int = 11
    """Side in blocks of the window that they come from."""
    graphs: bool = False
    """Record the first of the later chunks as a CUDA graph, and play it for the others."""
    overlap: bool = False
    """Decode a chunk while the next one goes through the network; its frames then come out one
    chunk later."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Decoded:
    """Frames that are made, or being made."""

    frames: Tensor
    """`(1, 3, n, h, w)` in about [-1, 1]."""
    memory: list[Tensor]
    """The decoder's, before it made them."""
    done: torch.cuda.Event | None
    """When they are there; None = they are."""


@dataclass(kw_only=True, slots=True)
class _Span:
    """Latents whose frames have not come out."""

    latents: Tensor
    """`(1, 16, 2, h, w)`."""
    frames: int
    """How many they make."""
    decoded: _Decoded | None = None
    """None = not begun."""


class FlashClip:
    """One scene; a `restore.method.ClipStream`."""

    def __init__(
        self, nets: Networks, frame: Frame, *, seed: int, plan: Plan | None = None
    ) -> None:
        self._nets, self._frame, self._seed = nets, frame, seed
        self._plan = plan or Plan()
        self._rows, self._columns = (side // FACTOR for side in frame.size)
        self._selection = Selection.of(
            self._rows,
            self._columns,
            sparse_ratio=self._plan.sparse_ratio,
            local_range=self._plan.local_range,
            device=nets.device,
        )
        self._rings = nets.dit.caches(self._rows, self._columns)
        self._step = SteadyStep(nets.dit, self._rings, nets.condition, self._selection)
        self._lq: LQCache | None = None
        self._memory: list[Tensor] = []
        self._inputs: deque[Tensor] = deque()  # taken, not given back
        self._spans: deque[_Span] = deque()
        self._late = 0  # of the spans, those that come out after the next chunk
        self._latents = 0  # made so far
        self._time = 0  # position of the next one; less, once the table has been rebased
        self._unread = 0  # of the frames, those that the network has not seen
        beside = self._plan.overlap and nets.device.type == "cuda"
        # Untyped in PyTorch.
        self._side: Any = torch.cuda.Stream(nets.device) if beside else None  # type: ignore[no-untyped-call]

    @property
    def ahead(self) -> int:
        """Frames that were taken and whose results have not come out."""
        return len(self._inputs)

    @torch.inference_mode()
    def push(self, frame: Tensor) -> Tensor:
        """Take `(3, H, W)` in [0, 1]; frames that became ready, `(n, 3, 4 H, 4 W)`.

        They are in about [0, 1]: what is beyond is for the colour correction to see.
        """
        self._inputs.append(frame)
        self._unread += 1
        if self._unread == self._needed:
            self._take(self._predict())
        return self._given() if len(self._spans) > self._late else self._nothing()

    @torch.inference_mode()
    def finish(self) -> Tensor:
        """The frames still missing: the last one is repeated for as long as the network needs."""
        missing = len(self._inputs)
        results = [self._nothing()]
        while missing:
            made = sum(span.frames for span in self._spans)
            frames = self._given() if made >= missing else self.push(self._inputs[-1])
            results.append(frames[:missing])
            missing -= len(results[-1])
        self._inputs.clear()
        self._spans.clear()
        self._late = 0
        return torch.cat(results)

    def state(self) -> dict[str, Tensor]:
        """Everything needed to go on, copied."""
        counts = (self._latents, self._time, self._unread, self._late)
        state = {"counts": torch.tensor(counts), "inputs": torch.stack([*self._inputs])}
        if self._spans:
            state["latents"] = torch.cat([span.latents for span in self._spans], 2)
        begun = self._spans[0].decoded if self._spans else None
        memory = self._memory if begun is None else begun.memory
        state |= {f"lq.{name}": part.clone() for name, part in (self._lq or {}).items()}
        state |= {f"decoder.{i}": part.clone() for i, part in enumerate(memory)}
        for i, ring in enumerate(self._rings):
            state |= {f"ring.{i}.{name}": part for name, part in ring.state().items()}
        return state

    @torch.inference_mode()
    def restore_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on as the clip would have that `state` was taken from.

        Raises:
            ValueError: it is not the state of such a clip.
        """
        try:
            latents, time, unread, late = state["counts"].tolist()
            inputs = state["inputs"]
        except (KeyError, ValueError) as error:
            raise ValueError(f"not the state of a clip of FlashVSR: {error}") from error
        if tuple(inputs.shape[2:]) != (self._frame.height, self._frame.width):
            raise ValueError(f"the state has frames of {tuple(inputs.shape[2:])}")
        self._latents, self._time, self._unread, self._late = latents, time, unread, 0
        for i, ring in enumerate(self._rings):
            ring.restore_state(_below(state, f"ring.{i}."))
        self._lq = self._on_device(_below(state, "lq."))
        memory = self._on_device(_below(state, "decoder."))
        self._memory = [memory[str(i)] for i in range(len(memory))]
        self._inputs = deque(inputs.to(self._nets.device, copy=True))
        self._spans.clear()
        if "latents" in state:
            self._take(state["latents"].to(self._nets.device, copy=True))
            self._late = late if self._plan.overlap else 0

    def _on_device(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Copies where the networks are."""
        return {k: v.to(self._nets.device, copy=True) for k, v in tensors.items()}

    @property
    def _needed(self) -> int:
        """Frames that the next chunk takes."""
        return LATER_FRAMES if self._latents else FIRST_FRAMES + AHEAD

    def _nothing(self) -> Tensor:
        height, width = (SCALE * side for side in (self._frame.height, self._frame.width))
        return torch.empty(0, 3, height, width, device=self._nets.device)

    def _predict(self) -> Tensor:
        """Latents of the next chunk."""
        tokens = self._project()
        first = not self._latents
        count = FIRST_LATENTS if first else TIME
        noise = self._noise(count)
        if self._time + count > TABLE:
            self._rebase()
        turned = rotation(
            self._nets.dit.shape.dim // self._nets.dit.shape.heads,
            times=range(self._time, self._time + count),
            rows=self._rows,
            columns=self._columns,
            device=self._nets.device,
        )
        later = self._step.played if self._plan.graphs else self._step.later
        run = self._step.first if first else later
        latents = noise - run(noise, tokens, turned)
        self._latents += count
        self._time += count
        return latents

    def _noise(self, count: int) -> Tensor:
        """`(1, 16, count, h, w)` for the next latents."""
        shape = (LATENTS, 2 * self._rows, 2 * self._columns)
        noise = latent_noise(self._seed, self._latents, count, shape, self._nets.device)
        return noise.to(self._nets.dtype)

    def _rebase(self) -> None:
        """Move all times back so far that the oldest group in the rings is at 0."""
        back = self._time - CACHED * TIME
        for ring in self._rings:
            ring.change_keys(lambda keys: rebase(keys, back))
        self._time -= back

    def _project(self) -> Tensor:
        """Tokens of the frames that the network has not seen, four frames at a time."""
        first = len(self._inputs) - self._unread
        fresh = list(itertools.islice(self._inputs, first, None))
        self._unread = 0
        tokens: list[Tensor] = []
        while fresh:
            count = GROUP if self._latents or tokens else GROUP + 1
            made, self._lq = self._nets.lq(self._seen(fresh[:count]), self._lq)
            tokens.append(made)
            del fresh[:count]
        return torch.cat(tokens)

    def _seen(self, frames: Iterable[Tensor]) -> Tensor:
        """Input frames as the networks see them, `(T, 3, h, w)` in [-1, 1]."""
        large = [self._frame.middle(self._frame.enlarge(one)) for one in frames]
        return torch.stack([(one * 2 - 1).to(self._nets.dtype) for one in large])

    def _take(self, latents: Tensor) -> None:
        """Add latents to those that wait, and decode them where that is done beside all else."""
        before = self._latents - latents.shape[2]
        for part in torch.split(latents, TIME, 2):
            frames = LATER_FRAMES if before else FIRST_SPAN
            span = _Span(latents=part, frames=frames)
            if self._plan.overlap:
                span.decoded = self._decode(span)
            self._spans.append(span)
            before += TIME
        self._late = latents.shape[2] // TIME if self._plan.overlap else 0

    def _decode(self, span: _Span) -> _Decoded:
        """Frames of the span after all that wait; on the side stream where there is one."""
        first = sum(other.frames for other in self._spans if other.decoded)
        taken = itertools.islice(self._inputs, first, first + span.frames)
        condition = self._seen(taken).transpose(0, 1)[None]
        memory = self._memory
        if self._side is None:
            frames, self._memory = self._nets.decoder.decode(span.latents, condition, memory)
            return _Decoded(memory=memory, frames=frames, done=None)
        self._side.wait_stream(torch.cuda.current_stream(self._nets.device))
        with torch.cuda.stream(self._side):
            frames, self._memory = self._nets.decoder.decode(span.latents, condition, memory)
        for used in (span.latents, condition, *memory):  # not to be overwritten until then
            used.record_stream(self._side)
        return _Decoded(memory=memory, frames=frames, done=self._side.record_event())

    def _given(self) -> Tensor:
        """A span's frames as they leave, `(n, 3, 4 H, 4 W)`; their inputs are let go."""
        span = self._spans.popleft()
        self._late = min(self._late, len(self._spans))
        decoded = span.decoded or self._decode(span)
        frames = decoded.frames[0].transpose(0, 1)
        if decoded.done is not None:
            stream = torch.cuda.current_stream(self._nets.device)
            stream.wait_event(decoded.done)
            frames.record_stream(stream)
        inputs = [self._inputs.popleft() for _ in range(span.frames)]
        results = frames.float().div_(2).add_(0.5)
        whole = tuple(results.shape[2:]) == (SCALE * self._frame.height, SCALE * self._frame.width)
        if whole:
            return results
        large = torch.stack([self._frame.enlarge(one) for one in inputs])
        return self._frame.put_back(results, large)


def _below(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """What stands under a prefix, without it."""
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
