"""The folder of FlashVSR's weights: read, checked name by name, before any network is built.

diffusion_pytorch_model_streaming_dmd.safetensors   the transformer, names of Wan2.1-T2V-1.3B
LQ_proj_in.ckpt                                     the projection of the input
TCDecoder.ckpt                                      the tiny decoder
Wan2.1_VAE.pth                                      the full decoder; only where it is asked for
posi_prompt.pth                                     one tensor, the prompt's embedding

Each may also be a safetensors file of the same name, as `restore models convert` makes it. Versions
1 and 1.1 have the same names and shapes and need another projection: the version is the caller's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from restore.errors import WeightsError
from restore.models.parts.flashvsr.dit import DitShape
from restore.models.parts.flashvsr.tiny_decoder import TinyDecoder
from restore.models.parts.flashvsr.wan_vae import LATENT_CHANNELS, WanDecoder, from_published
from restore.models.parts.known_files import recognise
from restore.nested_weights import BARE, check_finite, open_nested
from restore.weights import check_readable
from restore.zoo.cache import Shelf
from restore.zoo.entries import find_entry
from restore.zoo.locate import locate_weights

Decoder = Literal["tiny", "full"]
"""Which network makes frames of latents: FlashVSR's own, or the VAE of Wan 2.1."""

DIT = "diffusion_pytorch_model_streaming_dmd.safetensors"
LQ = "LQ_proj_in.ckpt"
TCDECODER = "TCDecoder.ckpt"
VAE = "Wan2.1_VAE.pth"
PROMPT = "posi_prompt.pth"
VERSIONS = ("flashvsr", "flashvsr-1.1")
VAE_ENTRY = "wan2.1-vae"
HEAD_CHANNELS = 128
_SHUFFLED = 3 * 16 * 16  # channels of the input, unshuffled for the projection
_PATCH = (1, 2, 2)
_KINDS = {  # as `recognise` says it, by the beginning of the file's name
    Path(DIT).stem: "a transformer of FlashVSR's folder",
    Path(LQ).stem: "the projection of FlashVSR's folder",
    Path(TCDECODER).stem: "the tiny decoder of FlashVSR's folder",
    Path(VAE).stem: "the VAE of Wan 2.1, FlashVSR's full decoder",
}

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True, kw_only=True, slots=True)
class FlashFolder:
    """What the folder holds, read and checked."""

    path: Path
    """The folder, for messages."""
    shape: DitShape
    """Sizes of the transformer."""
    dit: dict[str, Tensor]
    """The transformer, by its published names."""
    lq: dict[str, Tensor]
    """The projection of the input, by its published names."""
    kind: Decoder
    """Which decoder was asked for."""
    decoder: dict[str, Tensor]
    """That decoder, by the names of `TinyDecoder` or `WanDecoder`."""
    prompt: Tensor
    """The prompt's embedding, `(1, n, text)`."""

    @classmethod
    def read(cls, path: Path, *, decoder: Decoder = "tiny", name: str = VERSIONS[0]) -> FlashFolder:
        """Read what one decoder needs of the folder.

        Args:
            path: the folder.
            decoder: which one.
            name: entry of the zoo that the folder should be, for messages.

        Raises:
            WeightsError: a file is missing, damaged, unsafe, of another model or of another size
                than the others, or holds NaN.
        """
        files = check_files(path, decoder=decoder, name=name)
        page = find_entry(name).pages[0]
        dit, lq = _tensors(files[DIT]), _tensors(files[LQ])
        shape = _dit_shape(files[DIT], dit, page)
        _check(files[DIT], dit, dit_shapes(shape), page)
        _check(files[LQ], lq, _lq_shapes(files[LQ], lq, shape, page), page)
        made = _decoder(files, page)
        prompt = _prompt(files[PROMPT], shape)
        for file, state in ((files[LQ], lq), (files[PROMPT], {PROMPT: prompt}), (files[DIT], dit)):
            check_finite(file, state)
        return cls(
            path=path, shape=shape, dit=dit, lq=lq, kind=decoder, decoder=made, prompt=prompt
        )


def check_files(
    path: Path, *, decoder: Decoder = "tiny", name: str = VERSIONS[0]
) -> dict[str, Path]:
    """Find out without reading the weights whether all files are there; where, by published name.

    Raises:
        WeightsError: one is missing, empty, an LFS pointer or a web page.
    """
    page = find_entry(name).pages[0]
    if not path.is_dir():
        what = f"{path} is a file" if path.exists() else f"there is no folder {path}"
        raise WeightsError(
            f"{what}; the weights of '{name}' are a folder of several files: give it with "
            f"--weights, or run 'restore models pull {name}'; they are from {page}"
        )
    files = {}
    for file in (DIT, LQ, TCDECODER if decoder == "tiny" else VAE, PROMPT):
        found = _beside(path, file) or _elsewhere(path, file, name)
        check_readable(found)
        files[file] = found
    return files


def read_decoder(path: Path, *, decoder: Decoder, name: str = VERSIONS[0]) -> dict[str, Tensor]:
    """One decoder of the folder, without the rest; as `FlashFolder.read` has it."""
    files = check_files(path, decoder=decoder, name=name)
    return _decoder(files, find_entry(name).pages[0])


def dit_shapes(shape: DitShape) -> Shapes:
    """Names and shapes of the transformer's tensors."""
    dim = shape.dim
    volume = LATENT_CHANNELS * _PATCH[0] * _PATCH[1] * _PATCH[2]
    found: Shapes = {
        "patch_embedding.weight": (dim, LATENT_CHANNELS, *_PATCH),
        "patch_embedding.bias": (dim,),
        **_linear("text_embedding.0", shape.text, dim),
        **_linear("text_embedding.2", dim, dim),
        **_linear("time_embedding.0", shape.freq, dim),
        **_linear("time_embedding.2", dim, dim),
        **_linear("time_projection.1", dim, 6 * dim),
        **_linear("head.head", dim, volume),
        "head.modulation": (1, 2, dim),
    }
    for block in (f"blocks.{i}" for i in range(shape.layers)):
        for attention in (f"{block}.self_attn", f"{block}.cross_attn"):
            for layer in "qkvo":
                found |= _linear(f"{attention}.{layer}", dim, dim)
            found |= {f"{attention}.norm_{layer}.weight": (dim,) for layer in "qk"}
        found |= {f"{block}.norm3.weight": (dim,), f"{block}.norm3.bias": (dim,)}
        found |= _linear(f"{block}.ffn.0", dim, shape.ffn)
        found |= _linear(f"{block}.ffn.2", shape.ffn, dim)
        found[f"{block}.modulation"] = (1, 6, dim)
    return found


def _linear(name: str, channels: int, out: int) -> Shapes:
    return {f"{name}.weight": (out, channels), f"{name}.bias": (out,)}


def _dit_shape(path: Path, state: Mapping[str, Tensor], page: str) -> DitShape:
    """Sizes of the transformer; the number of heads stands in no tensor."""
    blocks = [int(m[1]) for m in (re.match(r"blocks\.(\d+)\.", name) for name in state) if m]
    try:
        dim = state["patch_embedding.weight"].shape[0]
        return DitShape(
            dim=dim,
            heads=_heads(path.parent, dim),
            layers=max(blocks, default=-1) + 1,
            ffn=state["blocks.0.ffn.0.weight"].shape[0],
            text=state["text_embedding.0.weight"].shape[1],
            freq=state["time_embedding.0.weight"].shape[1],
        )
    except (KeyError, IndexError) as error:
        raise WeightsError(_odd(path, f"lacks {error}", state, page)) from error


def _heads(folder: Path, dim: int) -> int:
    """Heads of 128 channels, as published, unless a `config.json` beside the weights says more."""
    try:
        heads = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("num_heads")
    except (OSError, ValueError, AttributeError):
        heads = None
    if heads is None:
        heads = dim // HEAD_CHANNELS
    if not isinstance(heads, int) or heads < 1 or dim % heads:
        raise WeightsError(
            f"the transformer in {folder} has {dim} channels, which are no {heads} heads; give the "
            "published folder, or the number of heads as num_heads in a config.json in it"
        )
    return heads


def _lq_shapes(path: Path, state: Mapping[str, Tensor], shape: DitShape, page: str) -> Shapes:
    try:
        first, second = (state[f"conv{i}.weight"].shape[0] for i in (1, 2))
    except KeyError as error:
        raise WeightsError(_odd(path, f"lacks {error}", state, page)) from error
    return {
        "conv1.weight": (first, _SHUFFLED, 4, 3, 3),
        "conv1.bias": (first,),
        "norm1.gamma": (first, 1, 1, 1),
        "conv2.weight": (second, first, 4, 3, 3),
        "conv2.bias": (second,),
        "norm2.gamma": (second, 1, 1, 1),
        **_linear("linear_layers.0", second, shape.dim),
    }


def _decoder(files: Mapping[str, Path], page: str) -> dict[str, Tensor]:
    return _tiny(files[TCDECODER], page) if TCDECODER in files else _full(files[VAE])


def _tiny(path: Path, page: str) -> dict[str, Tensor]:
    """The tiny decoder; what else lies in the file, its authors' loader leaves out as well."""
    content = _tensors(path)
    state = {name: value for name, value in content.items() if name.startswith("decoder.")}
    try:
        with torch.device("meta"):
            net = TinyDecoder.of(state)
    except (KeyError, IndexError, RuntimeError, ValueError) as error:
        raise WeightsError(_odd(path, "has no decoder of its shape", content, page)) from error
    wanted = _shapes_of(net) if net.latent_channels == LATENT_CHANNELS else _shapes_of(_published())
    _check(path, state, wanted, page)
    check_finite(path, state)
    return state


def _published() -> TinyDecoder:
    with torch.device("meta"):
        return TinyDecoder()


def _full(path: Path) -> dict[str, Tensor]:
    """The VAE's decoder, by diffusers' names."""
    page = find_entry(VAE_ENTRY).pages[0]
    content = _tensors(path)
    state = from_published(content)
    gamma = state.get("decoder.norm_out.gamma")
    if gamma is None or not gamma.shape[0]:
        raise WeightsError(_odd(path, "lacks 'decoder.head.0.gamma'", content, page))
    wanted = _shapes_of(WanDecoder(base_channels=gamma.shape[0]))
    _check(path, state, wanted, page, content=content)
    check_finite(path, state)
    return state


def _shapes_of(net: nn.Module) -> Shapes:
    return {name: tuple(value.shape) for name, value in net.state_dict().items()}


def _prompt(path: Path, shape: DitShape) -> Tensor:
    """The embedding; a file of one tensor."""
    prompt = open_nested(path).get(BARE)
    if not isinstance(prompt, Tensor):
        raise WeightsError(
            f"{path} is no embedding: it holds named tensors, one tensor alone belongs there; "
            f"give the {PROMPT} of {_prompt_address()}"
        )
    size = tuple(prompt.shape)
    if len(size) != 3 or size[0] != 1 or size[2] != shape.text or not prompt.is_floating_point():
        raise WeightsError(
            f"{path} holds {prompt.dtype} of {size} in place of an embedding of (1, n, "
            f"{shape.text}); give the {PROMPT} of {_prompt_address()}"
        )
    return prompt


def _tensors(path: Path) -> dict[str, Tensor]:
    """Named tensors of a file, at its top or in the one dictionary that it holds.

    Raises:
        WeightsError: damaged, unsafe, or there is something else in it.
    """
    content = open_nested(path)
    if len(content) == 1 and isinstance(inner := next(iter(content.values())), dict):
        content = inner
    odd = [name for name, value in content.items() if not isinstance(value, Tensor)]
    if odd or not content:
        what = f"'{odd[0]}', which is no tensor" if odd else "nothing"
        raise WeightsError(f"{path} holds {what}; named tensors alone belong there")
    return content


def _check(
    path: Path,
    state: Mapping[str, Tensor],
    wanted: Shapes,
    page: str,
    *,
    content: Mapping[str, Tensor] | None = None,
) -> None:
    """Every tensor once, each with its shape; `content` is all of the file, for the message.

    Raises:
        WeightsError: one is missing, too many, or has another shape.
    """
    content = state if content is None else content
    for verb, names in (
        ("lacks", wanted.keys() - state.keys()),
        ("also holds", state.keys() - wanted.keys()),
    ):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise WeightsError(_odd(path, f"{verb} '{min(names)}'{more}", content, page))
    for name, shape in wanted.items():
        if (got := tuple(state[name].shape)) != shape:
            reason = f"has '{name}' of {got} in place of {shape}"
            raise WeightsError(_odd(path, reason, content, page))


def _odd(path: Path, reason: str, content: Mapping[str, Tensor], page: str) -> str:
    kind = recognise(content, "").removesuffix(": choose -n flashvsr")
    if kind == _KINDS.get(path.stem):
        kind = f"{kind}, but altered or damaged"
    return f"{path} {reason}: it is {kind}; get the file of that name from {page}"


def _beside(folder: Path, file: str) -> Path | None:
    """A file of the folder, as published or converted."""
    places = (folder / Path(file).with_suffix(".safetensors"), folder / file)
    return next((place for place in places if place.is_file()), None)


def _elsewhere(folder: Path, file: str, name: str) -> Path:
    """A file that both versions have, in what was pulled.

    Raises:
        WeightsError: it is not here; the message says how to get it.
    """
    if file == VAE:
        try:
            return locate_weights(VAE_ENTRY)
        except WeightsError as error:
            raise WeightsError(
                f"{file} is missing in {folder}: the full decoder needs it; run 'restore models "
                f"pull {VAE_ENTRY}', or get it from {find_entry(VAE_ENTRY).pages[0]}"
            ) from error
    if file == PROMPT:
        for version in VERSIONS:
            shelf = Shelf(find_entry(version))
            for known in shelf.entry.files:
                if known.path == file and (place := shelf.path(known)) is not None:
                    return place
        raise WeightsError(
            f"{file} is missing in {folder}: run 'restore models pull {name}', or get it from "
            f"{_prompt_address()} and put it there"
        )
    raise WeightsError(
        f"{file} is missing in {folder}: get it from {find_entry(name).pages[0]} and put it there, "
        f"or run 'restore models pull {name}'"
    )


def _prompt_address() -> str:
    """Where the prompt's embedding is published; the folder on the hub does not have it."""
    return next(f.urls[0] for f in find_entry(VERSIONS[0]).files if f.path == PROMPT)
