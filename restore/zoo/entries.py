"""The published weights that restore knows, as data.

Where a hash stands here, it comes from the publisher's own storage (Git LFS pointers and blob ids
of the repositories), or from records of others' downloads that agree with each other. Where none
stands, none is known.
"""

from __future__ import annotations

import difflib

from restore.errors import OptionError
from restore.zoo.bases import BASES
from restore.zoo.entry import Entry, ZooFile, github, hub

_OSEDIFF_COMMIT = "fcc4f09c7ed66a9bc0ba9433940d76b343142426"
_S3DIFF_COMMIT = "6a2e0a47676f2f01fccdfd4e940077d3038d953e"
_FLASHVSR_COMMIT = "ccac0ac457243a47c13997682ebbaf987dabbea7"


def _flashvsr(repository: str, *hashes: str) -> tuple[ZooFile, ...]:
    """Files of one version of FlashVSR; those of both have the same sizes."""
    files = (
        ("diffusion_pytorch_model_streaming_dmd.safetensors", 5_676_070_392),
        ("LQ_proj_in.ckpt", 575_694_948),
        ("TCDecoder.ckpt", 189_018_333),
    )
    return (
        *(
            ZooFile(
                path=path,
                urls=(hub(repository, path),),
                size=size if hashes else None,
                about=size,
                sha256=hashes[i] if hashes else None,
            )
            for i, (path, size) in enumerate(files)
        ),
        ZooFile(
            path="posi_prompt.pth",
            urls=(
                github(
                    "OpenImagingLab/FlashVSR",
                    _FLASHVSR_COMMIT,
                    "examples/WanVSR/prompt_tensor/posi_prompt.pth",
                ),
            ),
            size=4_195_504,
            sha256="4601107a11e4e11a936a6b79df579e54dbc99872132bf542151f0ffd65b4b1ef",
            git_blob="95c840b20b8d6aa0d16504ee04e49f1c01a7f209",
        ),
    )


_WEIGHTS = (
    Entry(
        name="osediff",
        kind="weights",
        summary="OSEDiff, x4, for photos",
        files=(
            ZooFile(
                path="osediff.pkl",
                urls=(github("cswry/OSEDiff", _OSEDIFF_COMMIT, "preset/models/osediff.pkl"),),
                about=20_000_000,
                git_blob="bc84dc9729aa6173e8b1087977025a4fc566a5db",
            ),
        ),
        licence="Apache-2.0",
        pages=("https://github.com/cswry/OSEDiff",),
        requires=("stable-diffusion-2-1-base",),
        optional=("ram", "dape"),
        note="AdcSR publishes another file under the same name, osediff.pkl; it does not fit",
    ),
    Entry(
        name="osediff-face",
        kind="weights",
        summary="OSEDiff for aligned faces, x1",
        files=(
            ZooFile(
                path="osediff_face.pkl",
                urls=(github("cswry/OSEDiff", _OSEDIFF_COMMIT, "preset/models/osediff_face.pkl"),),
                about=18_000_000,
                git_blob="4465e04da247be8f9af700f8cafbbd906439430c",
            ),
        ),
        licence="Apache-2.0",
        pages=("https://github.com/cswry/OSEDiff",),
        requires=("stable-diffusion-2-1-base",),
        optional=("ram", "dape"),
    ),
    Entry(
        name="s3diff",
        kind="weights",
        summary="S3Diff, x4, for photos",
        files=(
            ZooFile(
                path="s3diff.pkl",
                urls=(hub("zhangap/S3Diff", "s3diff.pkl"),),
                about=137_000_000,  # from the number of its parameters
            ),
        ),
        licence="Apache-2.0",
        pages=(
            "https://huggingface.co/zhangap/S3Diff",
            "https://drive.google.com/drive/folders/1cWYQYRFpadC4K2GuH8peg_hWEoFddZtj",
        ),
        requires=("s3diff-de-net", "sd-turbo"),
    ),
    Entry(
        name="s3diff-de-net",
        kind="part",
        summary="estimates how bad a picture is, for S3Diff",
        files=(
            ZooFile(
                path="de_net.pth",
                urls=(
                    github("ArcticHare105/S3Diff", _S3DIFF_COMMIT, "assets/mm-realsr/de_net.pth"),
                    hub("zhangap/S3Diff", "de_net.pth"),
                ),
                git_blob="28b4f4ac13ea0080906dfbc286b054f6dc4251a6",
            ),
        ),
        licence="Apache-2.0",
        pages=("https://github.com/ArcticHare105/S3Diff",),
    ),
    Entry(
        name="invsr",
        kind="weights",
        summary="InvSR noise predictor, x4, for photos",
        files=(
            ZooFile(
                path="noise_predictor_sd_turbo_v5.pth",
                urls=(hub("OAOA/InvSR", "noise_predictor_sd_turbo_v5.pth"),),
                about=135_000_000,  # from the number of its parameters
            ),
        ),
        licence="S-Lab License 1.0 (non-commercial)",
        pages=("https://huggingface.co/OAOA/InvSR",),
        requires=("sd-turbo",),
    ),
    Entry(
        name="adcsr",
        kind="weights",
        summary="AdcSR, x4, for photos: small and fast",
        files=(
            ZooFile(
                path="net_params_200.pkl",
                urls=(hub("Guaishou74851/AdcSR", "weight/net_params_200.pkl"),),
                about=1_825_000_000,  # from the number of its parameters
                converter="restore.models.adcsr_weights:convert",  # without each tensor's copy
            ),
        ),
        licence="Apache-2.0",
        pages=(
            "https://huggingface.co/Guaishou74851/AdcSR",
            "https://disk.pku.edu.cn/link/AAD499197CBF054392BC4061F904CC4026",
        ),
        requires=("adcsr-half-decoder",),
    ),
    Entry(
        name="adcsr-half-decoder",
        kind="part",
        summary="the second half of AdcSR's network",
        files=(
            ZooFile(
                path="halfDecoder.ckpt",
                urls=(hub("Guaishou74851/AdcSR", "weight/pretrained/halfDecoder.ckpt"),),
                converter="",  # a whole Lightning checkpoint, with objects of the trainer
            ),
        ),
        licence="Apache-2.0",
        pages=(
            "https://huggingface.co/Guaishou74851/AdcSR",
            "https://disk.pku.edu.cn/link/AAD499197CBF054392BC4061F904CC4026",
        ),
    ),
    Entry(
        name="dloral",
        kind="weights",
        summary="DLoRAL, x4, for clips: each frame with the one before in view",
        files=(
            ZooFile(
                path="model.pkl",
                # The authors' own is on a drive that gives no such address (the first of `pages`).
                urls=(hub("ighoshsubho/DLoraL-Upscaler-Models", "model.pkl"),),
                size=3_572_333_304,
                sha256="89ca79785c99fac07f59ad6876d2d707fcce87a088c15930956cb393e517d0df",
            ),
        ),
        licence="MIT",
        pages=(
            "https://drive.google.com/file/d/1vpcaySpRx_K-tXq2D2EBqFZ-03Foky8G/view",
            "https://github.com/yjsunnn/DLoRAL",
        ),
        requires=("stable-diffusion-2-1-base",),
        optional=("ram", "dape"),
        note="the address is a copy; size and hash are from two records of the authors' own file",
    ),
    Entry(
        name="flashvsr",
        kind="weights",
        summary="FlashVSR, x4, for clips: streaming",
        files=_flashvsr("JunhaoZhuang/FlashVSR"),
        licence="Apache-2.0",
        pages=(
            "https://huggingface.co/JunhaoZhuang/FlashVSR",
            "https://github.com/OpenImagingLab/FlashVSR",
        ),
        optional=("wan2.1-vae",),
        note="version 1.1 is another network in effect, though its files have the same names",
        folder=True,
    ),
    Entry(
        name="flashvsr-1.1",
        kind="weights",
        summary="FlashVSR 1.1, x4, for clips: streaming, steadier and closer to the input",
        files=_flashvsr(
            "JunhaoZhuang/FlashVSR-v1.1",
            "bd28180edcf3446c028e32fc6b731a80bf7e4da2ab4caac3186b9499964d37be",
            "d6d011cdaaba6a52645086caa08fa04124e746f6ca568140a24007591142bfd2",
            "e224bdcf2f52745cbf4d393ff5374c2ba09e90285d5d19062d2bf63b915b6161",
        ),
        licence="Apache-2.0",
        pages=(
            "https://huggingface.co/JunhaoZhuang/FlashVSR-v1.1",
            "https://github.com/OpenImagingLab/FlashVSR",
        ),
        optional=("wan2.1-vae",),
        folder=True,
    ),
    Entry(
        name="oscar",
        kind="weights",
        summary="OSCAR, a codec for photos: 0.002 to 0.125 bits per pixel",
        files=(
            ZooFile(
                path="oscar.pkl",
                urls=(hub("jinpeig/OSCAR", "oscar.pkl"),),
                about=394_000_000,  # from the number of its parameters, and a record of a download
            ),
        ),
        licence="none stated (the authors' repository has no licence file; no use is granted)",
        pages=(
            "https://huggingface.co/jinpeig/OSCAR",
            "https://github.com/jp-guo/OSCAR",
        ),
        requires=("stable-diffusion-2-1",),
        note="files from before 2025-10-19 are of another generation, and are refused",
    ),
    Entry(
        name="wan2.1-vae",
        kind="part",
        summary="the VAE of Wan 2.1: FlashVSR's full decoder, better and slower than its own",
        files=(
            ZooFile(
                path="Wan2.1_VAE.pth",
                urls=(
                    hub("Wan-AI/Wan2.1-T2V-1.3B", "Wan2.1_VAE.pth"),
                    hub("JunhaoZhuang/FlashVSR-v1.1", "Wan2.1_VAE.pth"),
                    hub("JunhaoZhuang/FlashVSR", "Wan2.1_VAE.pth"),
                ),
                size=507_609_880,
                sha256="38071ab59bd94681c686fa51d75a1968f64e470262043be31f7a094e442fd981",
            ),
        ),
        licence="Apache-2.0",
        pages=("https://huggingface.co/Wan-AI/Wan2.1-T2V-1.3B",),
    ),
    Entry(
        name="ram",
        kind="part",
        summary="Recognize Anything, Swin-L: finds words for a picture",
        files=(
            ZooFile(
                path="ram_swin_large_14m.pth",
                urls=(
                    hub("xinyu1205/recognize_anything_model", "ram_swin_large_14m.pth"),
                    hub("spaces/xinyu1205/recognize-anything", "ram_swin_large_14m.pth"),
                    hub("Guaishou74851/AdcSR", "weight/pretrained/ram_swin_large_14m.pth"),
                ),
                about=5_625_600_000,
                converter="restore.models.parts.ram.weights:convert_ram",  # what tagging needs
                sha256="15c729c793af28b9d107c69f85836a1356d76ea830d4714699fb62e55fcc08ed",
            ),
        ),
        licence="Apache-2.0",
        pages=("https://huggingface.co/xinyu1205/recognize_anything_model",),
    ),
    Entry(
        name="dape",
        kind="part",
        summary="adapts Recognize Anything to bad pictures",
        files=(
            ZooFile(
                path="DAPE.pth",
                urls=(
                    hub("CSWRY/SeeSR", "DAPE.pth"),
                    hub("Guaishou74851/AdcSR", "weight/pretrained/DAPE.pth"),
                    hub("alexnasa/SEESR", "DAPE.pth"),
                ),
                about=7_194_000,
                sha256="a7028be2edcbe9ab0bd1c4ab6f2a2a86f4b44d32261a4faa50ae10fdd9b2feba",
            ),
        ),
        licence="Apache-2.0",
        pages=("https://drive.google.com/file/d/1KIV6VewwO2eDC9g4Gcvgm-a0LDI7Lmwm/view",),
        requires=("ram",),
    ),
)

ENTRIES: dict[str, Entry] = {entry.name: entry for entry in (*_WEIGHTS, *BASES)}
"""Everything that can be pulled, by name."""


def find_entry(name: str) -> Entry:
    """The entry called `name`.

    Raises:
        OptionError: there is none; the nearest name is offered.
    """
    if name in ENTRIES:
        return ENTRIES[name]
    near = difflib.get_close_matches(name, ENTRIES, n=1)
    guess = f"did you mean '{near[0]}'? " if near else ""
    raise OptionError(f"no weights called '{name}'; {guess}known: {', '.join(sorted(ENTRIES))}")
