"""Clips with known motion, made of still pictures: a moving camera, and things that move before it.

    background --- camera path ------------------> frames
    other pictures, cut to blobs --- own paths --/   |
                                                     +--> flow, and which pixels both frames show

A path is one plane-to-plane map for each frame, from the frame's pixels to the picture's. So the
motion between two frames is known exactly: up through one map, down through the other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from restore.errors import OptionError

Plane = npt.NDArray[np.float32]
Map = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class MotionConfig:
    """How things move in a made clip; all per frame, for good frames."""

    still_prob: float = 0.2
    """Share of clips whose camera stands still."""
    speed: float = 12.0
    """Largest shift in pixels; small ones are more frequent."""
    turn: float = 1.0
    """Largest rotation in degrees."""
    zoom: float = 0.01
    """Largest change of size."""
    tilt: float = 3e-5
    """Largest change of perspective, in 1 / pixels."""
    shake: float = 0.5
    """Largest deviation of the unsteadiness of a hand, in pixels."""
    objects: tuple[float, ...] = (0.3, 0.5, 0.2)
    """Shares of clips with no, one, two, ... things before the camera."""

    def __post_init__(self) -> None:
        if not self.objects or min(self.objects) < 0 or sum(self.objects) <= 0:
            raise OptionError("motion.objects needs shares of 0 or more; write one for none first")
        for name in ("still_prob", "speed", "turn", "zoom", "tilt", "shake"):
            if getattr(self, name) < 0:
                raise OptionError(f"motion.{name} is {getattr(self, name):g}; give 0 or more")


class KnownClip(NamedTuple):
    """A clip and the motion in it."""

    frames: Tensor
    """RGB `(T, 3, H, W)` in [0, 1]."""
    flow: Tensor
    """`(T - 1, 2, H, W)`: where each pixel of frame t + 1 was in frame t, relative to its place,
    in pixels to the right and down."""
    seen: Tensor
    """`(T - 1, 1, H, W)`: 1 where frame t shows what that pixel of frame t + 1 shows, else 0."""


class _Layer(NamedTuple):
    """One thing in a made clip, frame by frame."""

    colour: list[Plane]
    """(H, W, 3)."""
    cover: list[Plane]
    """(H, W), 1 where the thing is."""
    maps: list[Map]
    """From the frame's pixels to the thing's."""


def make_clip(
    pictures: Tensor,
    generator: torch.Generator,
    config: MotionConfig,
    *,
    frames: int,
    side: int,
) -> KnownClip:
    """A clip over one picture, with pieces of the others moving before it.

    Args:
        pictures: `(N, 3, S, S)` in [0, 1], S at least `side`; as many as `needed_pictures`.
        generator: source of every draw, on the CPU.
        config: how fast things move.
        frames: T.
        side: H and W.
    """
    planes = [np.ascontiguousarray(p.permute(1, 2, 0).numpy()) for p in pictures]
    still = _draw(generator) < config.still_prob
    camera = _path(generator, config, frames, still=still)
    layers = [_layer(planes[0], None, camera, side)]
    shares = np.cumsum(config.objects) / sum(config.objects)
    count = int(np.searchsorted(shares, _draw(generator), side="right"))
    for plane in planes[1 : 1 + count]:
        own = _path(generator, config, frames, still=False)
        blob = _blob(generator, plane.shape[0], side)
        # What a thing does, it does before the camera, whose motion comes on top.
        layers.append(_layer(plane, blob, [a @ b for a, b in zip(own, camera, strict=True)], side))
    return _compose(layers, frames, side)


def needed_pictures(config: MotionConfig) -> int:
    """Pictures that `make_clip` may use."""
    return len(config.objects)


def _draw(generator: torch.Generator, low: float = 0.0, high: float = 1.0) -> float:
    return low + (high - low) * float(torch.rand(1, generator=generator))


def _path(
    generator: torch.Generator, config: MotionConfig, frames: int, *, still: bool
) -> list[Map]:
    """Maps of a smooth path; frame 0 has none of the motion yet. Pixels count from the middle."""
    angle = _draw(generator, 0, 2 * math.pi)
    speed = config.speed * _draw(generator) ** 2
    bend = _draw(generator, -0.3, 0.3)  # radians by which the direction turns in each frame
    turn, zoom = (_draw(generator, -1, 1) ** 3 * m for m in (config.turn, config.zoom))
    tilt_x, tilt_y = (_draw(generator, -1, 1) ** 3 * config.tilt for _ in range(2))
    shake = config.shake * _draw(generator) ** 2
    jitter = torch.randn(frames, 2, generator=generator).numpy() * shake
    x = y = 0.0
    maps = []
    for t in range(frames):
        along = 0.0 if still else float(t)
        offset = (0.0, 0.0) if still else jitter[t]
        c, s = (
            f(math.radians(turn * along)) * math.exp(zoom * along) for f in (math.cos, math.sin)
        )
        maps.append(
            np.array(
                [
                    [c, -s, x + offset[0]],
                    [s, c, y + offset[1]],
                    [tilt_x * along, tilt_y * along, 1.0],
                ]
            )
        )
        if not still:
            x += speed * math.cos(angle + bend * t)
            y += speed * math.sin(angle + bend * t)
    return maps


def _blob(generator: torch.Generator, source: int, side: int) -> Plane:
    """A smooth random outline on a picture of `source` pixels, filled: `(S, S)` in [0, 1]."""
    points = 64
    angles = np.linspace(0, 2 * math.pi, points, endpoint=False)
    radius = np.full(points, side * _draw(generator, 0.12, 0.35))
    for wave in (2, 3, 5):
        phase, size = _draw(generator, 0, 2 * math.pi), _draw(generator, 0, 0.5 / wave)
        radius = radius * (1 + size * np.sin(wave * angles + phase))
    centre = source / 2 + side * np.array(
        [_draw(generator, -0.3, 0.3), _draw(generator, -0.3, 0.3)]
    )
    outline = centre + radius[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    blob = np.zeros((source, source), np.float32)
    cv2.fillPoly(blob, [np.round(outline * 16).astype(np.int32)], (1.0,), cv2.LINE_AA, 4)
    return np.asarray(cv2.GaussianBlur(blob, (0, 0), 0.7), np.float32)


def _layer(plane: Plane, blob: Plane | None, path: list[Map], side: int) -> _Layer:
    """Render a picture along a path."""
    before = np.array([[1, 0, -(side - 1) / 2], [0, 1, -(side - 1) / 2], [0, 0, 1]])
    middle = (plane.shape[0] - 1) / 2
    after = np.array([[1, 0, middle], [0, 1, middle], [0, 0, 1]])
    maps = [after @ m @ before for m in path]
    colour = [_render(plane, m, side, cv2.INTER_CUBIC) for m in maps]
    if blob is None:
        cover = [np.ones((side, side), np.float32)] * len(maps)
    else:
        cover = [_render(blob, m, side, cv2.INTER_LINEAR) for m in maps]
    return _Layer(colour, cover, maps)


def _render(plane: Plane, place: Map, side: int, how: int) -> Plane:
    # Beyond its border a picture is mirrored, which keeps the motion there as it is. A blob ends
    # before that.
    border = cv2.BORDER_REFLECT_101 if plane.ndim == 3 else cv2.BORDER_CONSTANT
    frame = cv2.warpPerspective(
        plane, place, (side, side), flags=how | cv2.WARP_INVERSE_MAP, borderMode=border
    )
    return np.asarray(frame, np.float32).clip(0, 1)


def _compose(layers: list[_Layer], frames: int, side: int) -> KnownClip:
    pictures, labels, pure = [], [], []
    for t in range(frames):
        picture = layers[0].colour[t]
        label = np.zeros((side, side), np.int32)
        mixed = np.zeros((side, side), bool)
        for number, layer in enumerate(layers[1:], start=1):
            cover = layer.cover[t]
            picture = picture + cover[..., None] * (layer.colour[t] - picture)
            label = np.where(cover > 0.5, number, label)
            mixed |= (cover > 0.05) & (cover < 0.95)
        pictures.append(picture)
        labels.append(label)
        # Resampling reaches two pixels far, so the pixels beside an outline are mixed as well.
        pure.append(cv2.dilate(mixed.astype(np.uint8), np.ones((5, 5), np.uint8)) == 0)
    flows, seen = [], []
    for t in range(1, frames):
        flow = _flow([(layer.maps[t], layer.maps[t - 1]) for layer in layers], labels[t])
        flows.append(flow)
        seen.append(pure[t] & _shown(flow, labels[t], labels[t - 1], pure[t - 1]))
    return KnownClip(
        frames=torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous(),
        flow=torch.from_numpy(np.stack(flows)).permute(0, 3, 1, 2).contiguous(),
        seen=torch.from_numpy(np.stack(seen).astype(np.float32))[:, None],
    )


def _flow(maps: list[tuple[Map, Map]], label: npt.NDArray[np.int32]) -> Plane:
    """Flow `(H, W, 2)` of each pixel by the maps of the thing that it shows."""
    height, width = label.shape
    flow = np.zeros((height, width, 2), np.float32)
    grid = np.indices((height, width), np.float64)[::-1]  # columns, rows
    for number, (now, before) in enumerate(maps):
        both = np.linalg.inv(before) @ now
        if np.allclose(both, np.eye(3), atol=1e-9):
            continue
        where = label == number
        x, y = grid[0][where], grid[1][where]
        moved = both @ np.stack([x, y, np.ones_like(x)])
        flow[where] = np.stack([moved[0] / moved[2] - x, moved[1] / moved[2] - y], axis=1)
    return flow


def _shown(
    flow: Plane,
    label: npt.NDArray[np.int32],
    label_before: npt.NDArray[np.int32],
    pure_before: npt.NDArray[np.bool_],
) -> npt.NDArray[np.bool_]:
    """Whether the frame before shows the same thing at the end of the flow."""
    height, width = label.shape
    rows, columns = np.indices((height, width))
    x = np.rint(columns + flow[..., 0]).astype(np.int64)
    y = np.rint(rows + flow[..., 1]).astype(np.int64)
    inside = (x >= 2) & (x < width - 2) & (y >= 2) & (y < height - 2)
    inside |= (flow == 0).all(axis=2)
    x, y = x.clip(0, width - 1), y.clip(0, height - 1)
    return inside & (label_before[y, x] == label) & pure_before[y, x]
