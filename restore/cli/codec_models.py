"""What `restore models` knows about codecs, and how a person reads it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from restore.cli.model_lines import licence_text, size_text
from restore.cli.models import bytes_of, own_or_base_notice, weights_state
from restore.registry import CODECS, DEFAULT_CODEC, codec_class


@dataclass(frozen=True, kw_only=True, slots=True)
class CodecEntry:
    """One registered codec and the state of its weights."""

    name: str
    """Name for `-n`."""
    kind: str = "codec"
    """Tells it from the methods and weights that are listed beside it."""
    default: bool
    """Whether it runs when no codec is named."""
    rates: tuple[float, ...]
    """Its rates in bits per pixel."""
    dtypes: tuple[str, ...]
    """Number formats it gives correct results in."""
    licence: str
    """Licence of its weights."""
    commercial_use: bool
    """Whether that licence is known to allow commercial use."""
    summary: str
    """One line on what it does."""
    source: str
    """Paper or repository it comes from."""
    weights: Path | None
    """Its weight file, or None when that is missing."""
    weights_bytes: int
    """Size of the weight file, 0 when it is missing."""
    base: str
    """Pretrained model that it stands on; empty when it needs none."""
    ready: bool
    """Whether it can be used now."""
    missing: tuple[str, ...]
    """Names for `restore models pull` of what it lacks."""
    problem: str | None
    """Why it cannot be used now and what to do, or None."""


def list_codecs() -> list[CodecEntry]:
    """An entry for each codec of the registry, by name."""
    return [describe_codec(name) for name in sorted(CODECS)]


def describe_codec(name: str) -> CodecEntry:
    """The entry of the codec `name`.

    Raises:
        OptionError: no codec has that name.
    """
    spec = codec_class(name).spec
    weights, missing, problem = weights_state(name, spec.base)
    return CodecEntry(
        name=name,
        default=name == DEFAULT_CODEC,
        rates=tuple(sorted(rate.bpp for rate in spec.rates)),
        dtypes=spec.dtypes,
        licence=spec.licence,
        commercial_use=own_or_base_notice(name, spec.licence, spec.base) is None,
        summary=spec.summary,
        source=spec.source,
        weights=weights,
        weights_bytes=bytes_of(weights) if weights else 0,
        base=spec.base,
        ready=problem is None,
        missing=missing,
        problem=problem,
    )


def codec_lines(entry: CodecEntry) -> list[str]:
    """What a person reads about one codec."""
    rates = " ".join(f"{rate:g}" for rate in entry.rates)
    weights = size_text(entry.weights_bytes) if entry.weights else "not here"
    base = f"; stands on: {entry.base}" if entry.base else ""
    lines = [
        f"{entry.name} (codec{', default' if entry.default else ''}): {entry.summary}",
        f"    rates in bits per pixel: {rates}",
        f"    number formats: {', '.join(entry.dtypes)}; weights: {weights}{base}",
        f"    licence of the weights: {licence_text(entry.licence)}",
    ]
    if entry.missing:
        lines.append(
            f"    missing: {', '.join(entry.missing)}; run: restore models pull {entry.name}"
        )
    elif entry.problem:
        lines.append(f"    problem: {entry.problem}")
    return lines
