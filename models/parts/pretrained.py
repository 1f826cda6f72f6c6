"""Pretrained models in diffusers' folders: `unet/`, `vae/`, `text_encoder/`, `scheduler/`, ...

FOLDER/unet/config.json                             shape of the network
FOLDER/unet/diffusion_pytorch_model.safetensors     weights, also .fp16.safetensors, .bin, shards
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from torch import nn

from restore.errors import WeightsError
from restore.weights import check_readable

Part = Literal["unet", "vae", "text_encoder", "tokenizer", "scheduler"]
SomeModule = TypeVar("SomeModule", bound=nn.Module)

_CONFIGS: dict[str, str] = {
    "scheduler": "scheduler_config.json",
    "tokenizer": "tokenizer_config.json",
}


def read_config(folder: Path, part: Part) -> dict[str, Any]:
    """The configuration of one part.

    Raises:
        WeightsError: the folder or the file is missing, or is not JSON.
    """
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise WeightsError(
            f"the base model's folder {folder} {what}; give with --base a folder that holds unet, "
            "vae and their like, as diffusers writes it"
        )
    path = folder / part / _CONFIGS.get(part, "config.json")
    if not path.is_file():
        raise WeightsError(
            f"the base model in {folder} has no {part}/{path.name}; give a whole folder in "
            "diffusers' layout with --base"
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path} cannot be read as JSON ({error}); fetch it again") from error
    if not isinstance(content, dict):
        raise WeightsError(f"{path} holds no JSON object; fetch it again")
    return content


def check_base(folder: Path, method: str, *, expected: Mapping[Part, Mapping[str, Any]]) -> None:
    """Find out from the configurations whether a base is the one that a method stands on.

    Args:
        folder: the base.
        method: name of the method, for the message.
        expected: values of settings, by part; a setting that the file leaves out has diffusers'
            default and is not looked at.

    Raises:
        WeightsError: a part is missing or has another value.
    """
    for part, settings in expected.items():
        config = read_config(folder, part)
        for name, value in settings.items():
            got = config.get(name, value)
            if got != value:
                raise WeightsError(
                    f"the base model in {folder} has {name} {got} in its {part}; '{method}' needs "
                    f"{value}: give the base that it was trained on with --base"
                )


def load_part(folder: Path, part: Part, kind: type[SomeModule]) -> SomeModule:
    """Build one part of a base and fill it, in float32, for inference.

    Args:
        folder: the base.
        part: `unet`, `vae` or `text_encoder`.
        kind: class of diffusers or transformers with `from_pretrained`.

    Raises:
        WeightsError: missing, damaged, unsafe, or with other names or shapes than its
            configuration says.
    """
    config = read_config(folder, part)
    name = config.get("_class_name") or next(iter(config.get("architectures") or ()), kind.__name__)
    if name != kind.__name__:
        raise WeightsError(
            f"{part} of the base model in {folder} is of the kind {name}, not {kind.__name__}; "
            "give another base with --base"
        )
    place = folder / part
    files = _weight_files(place)
    for file in files:
        check_readable(file)
    variant = "fp16" if all(".fp16." in file.name for file in files) else None
    try:
        with _quiet():
            module, info = kind.from_pretrained(  # type: ignore[attr-defined]
                place,
                torch_dtype=torch.float32,
                variant=variant,
                use_safetensors=files[0].suffix == ".safetensors",
                local_files_only=True,
                output_loading_info=True,
            )
    except Exception as error:  # each library has its own kinds
        reason = " ".join(str(error).split())[:200]
        raise WeightsError(
            f"the weights in {place} cannot be loaded ({reason}); they are damaged, or of another "
            "model than config.json says: fetch them again"
        ) from error
    problems = [
        f"{what} '{next(iter(names))}'" + (f" and {len(names) - 1} more" if len(names) > 1 else "")
        for what, names in (
            ("lack", _names(info, "missing_keys")),
            ("hold unknown", _names(info, "unexpected_keys")),
            ("hold other shapes, such as of", _names(info, "mismatched_keys")),
        )
        if names
    ]
    if problems:
        raise WeightsError(
            f"the weights in {place} do not fit their config.json: they {', '.join(problems)}; "
            "fetch them again"
        )
    bad = next((n for n, p in module.named_parameters() if not bool(p.isfinite().all())), None)
    if bad is not None:
        raise WeightsError(
            f"the weights in {place} hold NaN or infinity in '{bad}'; they are damaged: fetch them "
            "again"
        )
    return module.eval().requires_grad_(False)


def move(module: SomeModule, device: torch.device, dtype: torch.dtype) -> SomeModule:
    """`module` on a device in a format, without the warning that diffusers' own `to` prints."""
    return nn.Module.to(module, device, dtype)


def move_unet(unet: SomeModule, device: torch.device, dtype: torch.dtype) -> SomeModule:
    """As `move`, in the layout that the device's convolutions want."""
    # On a CPU PyTorch's GroupNorm loses digits in the other layout.
    layout = torch.contiguous_format if device.type == "cpu" else torch.channels_last
    return nn.Module.to(move(unet, device, dtype), memory_format=layout)


def _weight_files(place: Path) -> list[Path]:
    """Files of the weights: safetensors before pickles, whole precision before half."""
    for half in (False, True):
        for suffix in (".safetensors", ".bin"):
            found = [
                path
                for path in sorted(place.glob(f"*{suffix}"))
                if (".fp16." in path.name) == half and "non_ema" not in path.name
            ]
            if found:
                return found
    raise WeightsError(
        f"no weights in {place} (a .safetensors or .bin file beside config.json); give a whole "
        "folder with --base"
    )


def _names(info: Mapping[str, Any], key: str) -> list[str]:
    """Names of tensors that a library complains of, without buffers that it no longer stores."""
    found = (one[0] if isinstance(one, list | tuple) else str(one) for one in info.get(key, ()))
    return sorted(name for name in found if not name.endswith("position_ids"))


class _quiet:  # noqa: N801  (reads as a statement)
    """No warnings and no progress bars of transformers and diffusers on the user's screen."""

    def __enter__(self) -> None:
        from diffusers.utils import logging as diffusers_logging
        from transformers.utils import logging as transformers_logging

        self._before = []
        for library in (diffusers_logging, transformers_logging):
            self._before.append((library, library.get_verbosity()))
            library.set_verbosity_error()
            library.disable_progress_bar()

    def __exit__(self, *_: object) -> None:
        for library, level in self._before:
            library.set_verbosity(level)
            library.enable_progress_bar()
