"""The models: which can run here, what the others lack, and the one that was loaded last."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from restore.codec.engine import Coder, load_codec
from restore.config import ColorFixChoice, EngineConfig
from restore.demo_config import DemoConfig
from restore.engine import Restorer, SomeConfig, fitting
from restore.inventory import (
    Registered,
    licence_notice,
    licence_text,
    list_codecs,
    list_models,
    own_or_base_notice,
)
from restore.method import MethodSpec
from restore.registry import METHODS, codec_class, method_class


class Engines:
    """Loads models, and keeps the last one. Used by one job at a time, the one that has its turn.

    Args:
        config: the server's settings.
    """

    def __init__(self, config: DemoConfig) -> None:
        self._config = config
        self._key: object = None
        self._loaded: Any = None

    def settings(self, model: str) -> dict[str, Any]:
        """Fields of `EngineConfig` that the server decides about, and the model."""
        own = self._config
        return {
            "model": model,
            "device": own.device,
            "dtype": own.dtype,
        }

    def chosen(
        self, model: str, *, seed: float, color_fix: ColorFixChoice, fidelity: float
    ) -> dict[str, Any]:
        """The same with what a page's widgets say; fidelity only where the model has it."""
        given = fidelity if has_fidelity(model) else None
        return {
            **self.settings(model),
            "seed": int(seed),
            "color_fix": color_fix,
            "fidelity": given,
        }

    def restorer(self, config: SomeConfig, *, scale: float) -> tuple[Restorer, SomeConfig]:
        """The loaded method for a job, and the job's settings with the variant for its scale."""
        config = fitting(config, scale)
        plain = EngineConfig(**self.settings(config.model))
        restorer: Restorer = self._last(plain, lambda: Restorer(plain))
        restorer.tune(seed=config.seed, **_options(config, restorer.spec))
        restorer.color_fix = (
            restorer.spec.color_fix if config.color_fix == "auto" else config.color_fix
        )
        return restorer, config

    def coder(self, name: str) -> Coder:
        """A loaded codec."""
        coder: Coder = self._last(name, lambda: load_codec(name, device=self._config.device))
        return coder

    def _last(self, key: object, load: Callable[[], Any]) -> Any:
        if self._key != key:
            self._key = self._loaded = None  # before the next one takes memory
            self._loaded = load()
            self._key = key
        return self._loaded


def _options(config: EngineConfig, spec: MethodSpec) -> dict[str, Any]:
    return {"fidelity": config.fidelity} if "fidelity" in spec.options else {}


def has_fidelity(model: str) -> bool:
    """Whether a model can be set between true to the pixels and realistic."""
    return "fidelity" in method_class(model).spec.options


def ready_models(*, clips: bool) -> list[str]:
    """Models that can run here; those that only take clips are left out for pictures.

    Variants for other scales are left out: the engine chooses them.
    """
    chosen: list[str] = []
    variants: set[str] = set()
    here = {entry.name for entry in list_models() if entry.ready}
    for name in METHODS:
        spec = method_class(name).spec if name in here else None
        if spec is not None and name not in variants and (clips or not spec.streaming):
            chosen.append(name)
            variants.update(spec.variants)
    return chosen


def ready_codecs() -> list[str]:
    """Codecs that can run here."""
    return [entry.name for entry in list_codecs() if entry.ready]


def rates_of(codec: str) -> list[float]:
    """Bits per pixel that a codec offers."""
    return sorted(rate.bpp for rate in codec_class(codec).spec.rates)


def notices(model: str) -> tuple[str, ...]:
    """What is said each time of weights that are not free for every use."""
    notice = licence_notice(method_class(model).spec)
    return () if notice is None else (notice,)


def codec_notices(codec: str) -> tuple[str, ...]:
    """The same of a codec."""
    spec = codec_class(codec).spec
    notice = own_or_base_notice(codec, spec.licence, spec.base)
    return () if notice is None else (notice,)


def models_table() -> str:
    """All models and codecs as Markdown, with how to get what is missing."""
    entries: list[Registered] = [*list_models(), *list_codecs()]
    lines = ["| model | what it does | licence of its weights | state |", "|---|---|---|---|"]
    for entry in sorted(entries, key=lambda entry: not entry.ready):
        licence = licence_text(entry.licence)
        lines.append(f"| **{entry.name}** | {entry.summary} | {licence} | {_state(entry)} |")
    return "\n".join(lines)


def _state(entry: Registered) -> str:
    if entry.ready:
        return "ready"
    if entry.missing:
        return f"missing: {', '.join(entry.missing)}; run `restore models pull {entry.name}`"
    return "cannot be used here; `restore models list` says why"
