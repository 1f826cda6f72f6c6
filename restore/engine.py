"""The engine: load a method, plan tiles, run them, blend, and guard against what can go wrong.

The picture stays on the CPU; tiles travel to the device and back. When memory runs out the tiles
that remain are halved, and those that are done are kept. A tile with a NaN is run again in fp32.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from restore.arrays import to_frames
from restore.color import fix_colors
from restore.config import EngineConfig
from restore.devices import DTYPES, choose_device, choose_dtype
from restore.errors import OptionError, RestoreError
from restore.given import base_folder, tune, with_tagger
from restore.memory import (
    CPU_TILE,
    GPU_TILE,
    SMALLEST_TILE,
    automatic_tile,
    free_memory,
    is_out_of_memory,
)
from restore.method import (
    OPTIONS,
    ClipStream,
    ColorFix,
    Method,
    MethodSpec,
    Recurrent,
    Streaming,
    Tiled,
)
from restore.planes import TileProgress, restore_planes
from restore.registry import method_class, variant_for
from restore.resampling import Axis, resample
from restore.tiling import FADE, Tile, add_tile, plan_tiles
from restore.weights import fingerprint, sha256
from restore.windows import Window
from restore.zoo.locate import locate_weights

log = logging.getLogger("restore.engine")

SomeConfig = TypeVar("SomeConfig", bound=EngineConfig)


def load(model: str | None = None, *, scale: float | None = None, **settings: Any) -> Restorer:
    """Load a method.

    Args:
        model: name in the registry; default `compact`, which ships in the package.
        scale: factor that results will have; the variant of the method that fits it is loaded.
        settings: fields of `EngineConfig`, such as `device="cpu"`, `tile=256`, `seed=1`.

    Raises:
        OptionError: a setting is outside what is allowed.
        WeightsError: the weights are missing, damaged, unsafe, or of another model.
    """
    if model is not None:
        settings["model"] = model
    unknown = sorted(set(settings) - set(EngineConfig.__dataclass_fields__))
    if unknown:
        raise OptionError(
            f"unknown setting '{unknown[0]}'; "
            f"allowed: {', '.join(sorted(EngineConfig.__dataclass_fields__))}"
        )
    config = EngineConfig(**settings)
    return Restorer(config if scale is None else fitting(config, scale))


class Restorer:
    """A loaded method behind the engine.

    Attributes:
        config: the settings it was made with.
        spec: what the method declares.
        device: where the network runs.
        dtype: number format of the network.
        color_fix: whose colours a result gets.
        weights_hash: SHA-256 of the weight file as hex, or what tells their folder apart.
        base_hash: what tells the pretrained model apart from others; None when there is none.
    """

    def __init__(self, config: EngineConfig) -> None:
        self.config = config
        kind = method_class(config.model)
        self.device = choose_device(config.device, runtime=config.runtime)
        name = choose_dtype(config, kind.spec, self.device)
        self.dtype = DTYPES[name]
        path = locate_weights(config.model) if config.weights is None else Path(config.weights)
        base = base_folder(kind.spec, config)
        config = with_tagger(kind.spec, config)
        self.config = config
        extra = {} if base is None else {"base": base}
        self.method: Method = kind.load(path, device=self.device, dtype=self.dtype, **extra)
        tune(self.method, config)
        self.spec: MethodSpec = self.method.spec  # which may depend on the options
        if config.runtime == "onnx":
            from restore.runtimes.onnx_runtime import use_onnx_runtime

            use_onnx_runtime(self.method, precision="int8" if name == "int8" else "fp32")
        self.weights_hash = fingerprint(path) if path.is_dir() else sha256(path)
        self.base_hash = None if base is None else fingerprint(base)
        self._dtype_name = name
        self._tile: int | None = config.tile or self.spec.own_tiles or None
        if self.spec.own_tiles and config.tile:
            cast(Tiled, self.method).use_tiles(config.tile)
        self._overlap = self.spec.overlap if config.tile_overlap is None else config.tile_overlap
        self.color_fix: ColorFix = (
            self.spec.color_fix if config.color_fix == "auto" else config.color_fix
        )

    @property
    def tile(self) -> int:
        """Side of the tiles in input pixels; chosen from free memory at the first use."""
        if self._tile is None:
            width = 0.5 if self._dtype_name in ("bf16", "fp16") else 1.0
            self._tile = automatic_tile(
                free_memory(self.device),
                bytes_per_pixel=self.spec.bytes_per_pixel * width,
                overlap=self._overlap,
                largest=CPU_TILE if self.device.type == "cpu" else GPU_TILE,
            )
            log.info("tiles of %d input pixels, from free memory", self._tile)
        return self._tile

    def open_clip(self, height: int, width: int) -> ClipStream:
        """Begin a scene with a streaming method.

        Args:
            height: of the frames to come, such as the method can take.
            width: likewise.
        """
        self._tell_tile()
        return cast(Streaming, self.method).open_clip(height, width, seed=self.config.seed)

    def _tell_tile(self) -> None:
        """Hand the tile on to a streaming method that has parts to cut and no side of its own."""
        if self.spec.streaming and not self.spec.own_tiles and isinstance(self.method, Tiled):
            self.method.use_tiles(self.tile)

    def halve_tiles(self, error: BaseException) -> None:
        """Let a method that plans its own tiles work in smaller ones, as memory ran out.

        Args:
            error: what said so.

        Raises:
            RestoreError: there are no smaller ones.
        """
        self._halve_tile(error)
        cast(Tiled, self.method).use_tiles(self.tile)

    def tune(self, **options: Any) -> None:
        """Set options of the method for what follows, such as the tags of the next picture.

        Args:
            options: fields of `MethodOptions`.

        Raises:
            OptionError: the method has no such option, or the value is not possible.
        """
        self.config = dataclasses.replace(self.config, **options)
        tune(self.method, self.config)
        self.spec = self.method.spec

    def settings(self) -> dict[str, object]:
        """What was chosen, as plain values: a run with the same repeats the same result."""
        return {
            "model": self.config.model,
            "weights_hash": self.weights_hash,
            "device": str(self.device),
            "dtype": self._dtype_name,
            "runtime": self.config.runtime,
            "tile": self.tile,
            "tile_overlap": self._overlap,
            "seed": self.config.seed,
            "color_fix": self.color_fix,
            "base_hash": self.base_hash,
            **{option: getattr(self.config, option) for option in OPTIONS},
        }

    def restore(
        self, image: Any, *, scale: float | None = None, size: tuple[int, int] | None = None
    ) -> Any:
        """Restore a picture; of several frames, each by itself (`FrameStream` restores clips).

        Args:
            image: a PIL picture; a NumPy array `(H, W)`, `(H, W, 1)`, `(H, W, 3)` or
                `(H, W, 4)` of uint8, uint16 or float in [0, 1]; or a tensor `(C, H, W)`,
                `(B, C, H, W)` or `(B, T, C, H, W)` likewise. Channels are gray, gray and alpha,
                RGB, or RGB and alpha.
            scale: size of the result over the input's; default: the method's scale.
            size: width and height of the result instead of `scale`.

        Returns:
            The same kind, shape order and number format, larger.

        Raises:
            OptionError: the kind, the values or the size are not possible.
        """
        if scale is not None and size is not None:
            raise OptionError("both scale and size were given; give one of them")
        frames, back = to_frames(image)
        height, width = frames.shape[-2:]
        if scale is not None:
            if not 0 < scale < float("inf"):
                raise OptionError(f"scale {scale:g} is not possible; give a number above 0")
            size = (max(1, round(width * scale)), max(1, round(height * scale)))
        return back(restore_planes(self, frames, size=size))

    @torch.inference_mode()
    def restore_frames(
        self,
        frames: Tensor,
        *,
        size: tuple[int, int] | None = None,
        index: int = 0,
        previous: Tensor | None = None,
        trust: Tensor | None = None,
        progress: TileProgress | None = None,
    ) -> Tensor:
        """Restore the middle frame of a window.

        Args:
            frames: RGB `(B, T, 3, H, W)` in [0, 1], T = `frames_before + 1 + frames_after`.
            size: width and height of the result; None = the method's scale.
            index: number of the frame in its clip; with the seed it fixes the random draws.
            previous: for a recurrent method: the result of the frame before at the method's scale,
                moved to this frame, `(B, 3, s H, s W)`; `restore.flow.follow` makes it.
            trust: how far that can be relied on, `(B, 1, H, W)` in [0, 1].
            progress: called with the tiles done and all tiles.

        Returns:
            Float32 RGB `(B, 1, 3, h, w)` in [0, 1] on the CPU.

        Raises:
            OptionError: there is a previous result, but the method is not recurrent.
            RestoreError: memory does not suffice for the smallest tile, or the network gives
                NaN even in fp32.
        """
        if previous is not None and not self.spec.recurrent:
            raise OptionError(
                f"model '{self.spec.name}' carries nothing from frame to frame; "
                "leave previous and trust out"
            )
        height, width = frames.shape[-2:]
        native = (width * self.spec.scale, height * self.spec.scale)
        final = native if size is None else size
        rows = Axis(source=native[1], target=final[1])
        columns = Axis(source=native[0], target=final[0])
        window = Window(
            frames=frames, index=index, scale=self.spec.scale, previous=previous, trust=trust
        )
        window = window.padded(smallest=self.spec.min_size, multiple=self.spec.size_multiple)
        result = self._run_tiles(window, rows, columns, progress=progress)
        if self.color_fix != "none":
            source = frames[:, self.spec.frames_before]
            result = fix_colors(result[:, 0], source, self.color_fix)[:, None]
        return result

    def _run_tiles(
        self, window: Window, rows: Axis, columns: Axis, *, progress: TileProgress | None
    ) -> Tensor:
        batch, _, _, height, width = window.frames.shape
        if self.spec.own_tiles or self.spec.streaming:
            return self._whole_frame(window, rows, columns, progress=progress)
        # A picture no larger than a tile in area takes no more memory as a whole than one tile.
        side = max(height, width) if height * width <= self.tile**2 else self.tile
        waiting = plan_tiles(height, width, side)
        if len(waiting) == 1:
            result = self._whole(window, waiting[0], rows, columns)
            if result is not None:
                return result
        scale, multiple = self.spec.scale, self.spec.size_multiple
        canvas = torch.zeros(batch, 1, 3, rows.target, columns.target)
        done = 0
        while waiting:
            tile = waiting.pop(0)
            if tile.longest > self.tile + 2 * FADE:  # planned before memory ran out
                waiting[:0] = tile.halves()
                continue
            top, bottom = tile.rows.window(self._context(rows), height, multiple=multiple)
            left, right = tile.columns.window(self._context(columns), width, multiple=multiple)
            try:
                result = self._run_tile(window.part((top, bottom), (left, right)), tile)
            except (RuntimeError, MemoryError) as error:
                self._halve_tile(error)
                waiting.insert(0, tile)
                continue
            origin = (top * scale, left * scale)
            # Without what was padded, which must not be mixed in where the result is resampled.
            result = result[..., : rows.source - origin[0], : columns.source - origin[1]]
            add_tile(canvas, result, tile, origin=origin, scale=scale, rows=rows, columns=columns)
            done += 1
            if progress is not None:
                progress(done, done + len(waiting))
        return canvas.clamp_(0, 1)

    def _context(self, axis: Axis) -> int:
        """Input pixels beside a tile: for the network, and for the resampling of its result."""
        if axis.source == axis.target:
            return self._overlap
        return self._overlap + -(-axis.support // self.spec.scale)

    def _whole(self, window: Window, tile: Tile, rows: Axis, columns: Axis) -> Tensor | None:
        """The result when one tile is the whole picture; None when memory ran out."""
        try:
            result = self._run_tile(window, tile)
        except (RuntimeError, MemoryError) as error:
            self._halve_tile(error, longest=tile.longest)
            return None
        return _fitted(result, rows, columns)

    def _whole_frame(
        self, window: Window, rows: Axis, columns: Axis, *, progress: TileProgress | None
    ) -> Tensor:
        """The result of a method that tiles by itself; in smaller tiles when memory runs out."""
        height, width = window.frames.shape[-2:]
        tile = plan_tiles(height, width, max(height, width))[0]
        if not self.spec.own_tiles:  # the engine has nothing that could be done in parts
            self._tell_tile()
            return _fitted(self._run_tile(window, tile), rows, columns).clamp_(0, 1)
        while (result := self._whole(window, tile, rows, columns)) is None:
            cast(Tiled, self.method).use_tiles(self.tile)
        if progress is not None:
            progress(1, 1)
        return result.clamp_(0, 1)

    def _halve_tile(self, error: BaseException, *, longest: int | None = None) -> None:
        if not is_out_of_memory(error):
            raise error
        tile = self.tile if longest is None else min(self.tile, longest)
        if tile <= SMALLEST_TILE:
            raise RestoreError(
                f"memory on {self.device} does not suffice for a tile of {tile} pixels "
                f"({str(error).splitlines()[0] if str(error) else type(error).__name__}); "
                "close other programs, or choose --device cpu or a smaller model"
            ) from error
        self._tile = max(SMALLEST_TILE, tile // 2)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        log.warning("out of memory on %s: tiles are halved to %d", self.device, self._tile)

    def _run_tile(self, window: Window, tile: Tile) -> Tensor:
        """One call of the method, on the device and back; again in fp32 where it gives NaN."""
        result = self._call(window, tile)
        if self.dtype != torch.float32 and not bool(torch.isfinite(result).all()):
            log.warning("NaN in %s: the tile is run again in fp32", self._dtype_name)
            with self._in_fp32():
                result = self._call(window, tile)
        if not bool(torch.isfinite(result).all()):
            raise RestoreError(
                f"the network gave NaN in fp32 on {self.device}; the weights are damaged or the "
                "device is faulty: try --device cpu, or fetch the weights again"
            )
        return result

    def _call(self, window: Window, tile: Tile) -> Tensor:
        generator = tile_generator(self.config.seed, window.index, tile, self.device)
        window = window.on(self.device)
        if window.previous is None or window.trust is None:
            result = self.method.restore(window.frames, generator=generator)
        else:
            result = cast(Recurrent, self.method).restore_next(
                window.frames, window.previous, window.trust, generator=generator
            )
        return result.to("cpu", torch.float32)

    @contextlib.contextmanager
    def _in_fp32(self) -> Iterator[None]:
        self.method = self.method.to(self.device, torch.float32)
        try:
            yield
        finally:
            self.method = self.method.to(self.device, self.dtype)


def _fitted(result: Tensor, rows: Axis, columns: Axis) -> Tensor:
    """A whole result without what was padded, in the size that was asked for."""
    result = result[..., : rows.source, : columns.source]
    if rows.source == rows.target and columns.source == columns.target:
        return result
    return resample(result, (columns.target, rows.target))


def fitting(config: SomeConfig, scale: float) -> SomeConfig:
    """`config` with the variant of its method that fits a scale; as it is when it names weights.

    Raises:
        OptionError: there is no such method.
    """
    if config.weights is not None:
        return config
    return dataclasses.replace(config, model=variant_for(config.model, scale))


def describe(config: EngineConfig) -> MethodSpec:
    """What the configured method is with its weights, without loading them.

    Raises:
        OptionError: there is no such method.
        WeightsError: the weights are missing, damaged, unsafe, or of another model.
    """
    path = None if config.weights is None else Path(config.weights)
    return method_class(config.model).describe(path)


def tile_generator(seed: int, index: int, tile: Tile, device: torch.device) -> torch.Generator:
    """Generator of one tile of one frame.

    It depends on nothing but its arguments, so a resumed run, or one whose other tiles were
    halved, draws the same.
    """
    where = hash((seed, index, tile.rows.start, tile.columns.start))
    kind = device if device.type == "cuda" else torch.device("cpu")
    return torch.Generator(kind).manual_seed(where % 2**63)
