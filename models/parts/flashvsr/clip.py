"""A clip on its way through FlashVSR: frames in, and groups of restored frames out.

    input frames   0 ......... 20 21 .. 24 | 25 .. 28 29 .. 32 | 33 ..
    first chunk    25 in: 6 latents,  21 out
    each later one  8 in: 2 latents,   8 out, those before the last 4 taken

The network looks four frames ahead. What is kept of the past does not grow: keys and values of
three groups of latents in each layer, two inputs of each convolution of the projection, the
decoder's memory, and the frames whose results are still to come.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from restore.models.parts.flashvsr.dit import CACHED, LATENTS, Condition, FlashDiT, Selection
from restore.models.parts.flashvsr.enlarge import Frame
from restore.models.parts.flashvsr.graph import SteadyStep
from restore.models.parts.flashvsr.lq_projection import FACTOR, LQCache, LQProjection
from restore.models.parts.flashvsr.noise import latent_noise
from restore.models.parts.flashvsr.rope import TABLE, rebase, rotation
from restore.models.parts.flashvsr.windows import TIME

AHEAD = 4
"""Input frames after the last one of a chunk that the chunk needs."""
FIRST_LATENTS, FIRST_FRAMES = CACHED * TIME, 4 * CACHED * TIME - 3
LATER_FRAMES = 4 * TIME


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
    """A chunk that was handed to the decoder, and what it was handed with."""

    latents: Tensor
    """`(1, 16, f, h, w)`."""
    memory: list[Tensor]
    """The decoder's, before it."""
    frames: Tensor
    """`(1, 3, n, h, w)` in about [-1, 1]."""
    done: torch.cuda.Event | None
    """When the frames are there; None = they are."""


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
        self._large: deque[Tensor] = deque()  # the same, enlarged
        self._latents = 0  # made so far
        self._time = 0  # position of the next one; less, once the table has been rebased
        self._unread = 0  # of the frames, those that the network has not seen
        self._kept: _Decoded | None = None  # whose frames come out one chunk later
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
        self._large.append(self._frame.enlarge(frame))
        self._unread += 1
        if self._unread < self._needed:
            return self._nothing()
        decoded = self._decode(self._predict())
        if not self._plan.overlap:
            return self._given(decoded)
        before, self._kept = self._kept, decoded
        return self._nothing() if before is None else self._given(before)

    @torch.inference_mode()
    def finish(self) -> Tensor:
        """The frames still missing: the last one is repeated for as long as the network needs."""
        missing = len(self._inputs)
        results = []
        while missing:
            kept = self._kept
            if kept is not None and kept.frames.shape[2] >= missing:
                frames, self._kept = self._given(kept), None
            else:
                frames = self.push(self._inputs[-1])
            results.append(frames[:missing])
            missing -= len(results[-1])
        self._inputs.clear()
        self._large.clear()
        return torch.cat(results) if results else self._nothing()

    def state(self) -> dict[str, Tensor]:
        """Everything needed to go on, copied."""
        counts = (self._latents, self._time, self._unread)
        state = {"counts": torch.tensor(counts), "inputs": torch.stack([*self._inputs])}
        memory = self._memory
        if self._kept is not None:
            state["latents"], memory = self._kept.latents.clone(), self._kept.memory
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
            self._latents, self._time, self._unread = state["counts"].tolist()
            inputs = state["inputs"].to(self._nets.device)
        except (KeyError, ValueError) as error:
            raise ValueError(f"not the state of a clip of FlashVSR: {error}") from error
        if tuple(inputs.shape[2:]) != (self._frame.height, self._frame.width):
            raise ValueError(f"the state has frames of {tuple(inputs.shape[2:])}")
        if ("latents" in state) != self._plan.overlap:
            raise ValueError("the state is of a clip with another setting of 'compile'")
        for i, ring in enumerate(self._rings):
            ring.restore_state(_below(state, f"ring.{i}."))
        self._lq = self._on_device(_below(state, "lq."))
        memory = self._on_device(_below(state, "decoder."))
        self._memory = [memory[str(i)] for i in range(len(memory))]
        self._inputs = deque(inputs)
        self._large = deque(self._frame.enlarge(frame) for frame in inputs)
        self._kept = None
        if "latents" in state:
            self._kept = self._decode(state["latents"].to(self._nets.device, copy=True))

    def _on_device(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Copies where the networks are."""
        return {k: v.to(self._nets.device, copy=True) for k, v in tensors.items()}

    @property
    def _needed(self) -> int:
        """Frames that the next chunk takes."""
        return LATER_FRAMES if self._latents else FIRST_FRAMES + AHEAD

    def _nothing(self) -> Tensor:
        height, width = (4 * side for side in (self._frame.height, self._frame.width))
        return torch.empty(0, 3, height, width, device=self._nets.device)

    def _predict(self) -> Tensor:
        """Latents of the next chunk."""
        fresh = list(self._large)[-self._unread :]
        self._unread = 0
        tokens, self._lq = self._nets.lq(self._seen(fresh), self._lq)
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

    def _seen(self, large: list[Tensor]) -> Tensor:
        """Enlarged frames as the networks see them, `(T, 3, h, w)` in [-1, 1]."""
        part = torch.stack([self._frame.middle(one) for one in large])
        return (part * 2 - 1).to(self._nets.dtype)

    def _decode(self, latents: Tensor) -> _Decoded:
        """Frames of the next chunk; on the side stream where there is one."""
        before = 0 if self._kept is None else self._kept.frames.shape[2]
        count = LATER_FRAMES if self._memory else FIRST_FRAMES
        condition = self._seen(list(self._large)[before : before + count]).transpose(0, 1)[None]
        memory = self._memory
        if self._side is None:
            frames, self._memory = self._nets.decoder.decode(latents, condition, memory)
            return _Decoded(latents=latents, memory=memory, frames=frames, done=None)
        self._side.wait_stream(torch.cuda.current_stream(self._nets.device))
        with torch.cuda.stream(self._side):
            frames, self._memory = self._nets.decoder.decode(latents, condition, memory)
        for used in (latents, condition, *memory):  # not to be overwritten until then
            used.record_stream(self._side)
        return _Decoded(
            latents=latents, memory=memory, frames=frames, done=self._side.record_event()
        )

    def _given(self, decoded: _Decoded) -> Tensor:
        """A chunk's frames as they leave, `(n, 3, 4 H, 4 W)`; their inputs are let go."""
        frames = decoded.frames[0].transpose(0, 1)
        if decoded.done is not None:
            stream = torch.cuda.current_stream(self._nets.device)
            stream.wait_event(decoded.done)
            frames.record_stream(stream)
        large = [self._large.popleft() for _ in frames]
        for _ in frames:
            self._inputs.popleft()
        results = frames.float() / 2 + 0.5
        whole = results.shape[2:] == large[0].shape[1:]
        return results if whole else self._frame.put_back(results, torch.stack(large))


def _below(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """What stands under a prefix, without it."""
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
