"""Which published file a dictionary comes from: for the line that refuses it elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# What a file holds at its top or one dictionary below, in the order in which it is looked for.
_MARKS: tuple[tuple[str, str], ...] = (
    ("lora_rank_unet_pix", "PiSA-SR's file, which no model here takes"),
    ("state_dict_vae_time", "TADSR's file, which no model here takes"),
    ("state_dict_bpp", "DLoRAL's file, for clips: choose -n dloral"),
    ("state_embeddings", "S3Diff's file: choose -n s3diff"),
    ("hyper_encoders", "OSCAR's file, a codec: restore compress -n oscar"),
    ("hyper_enc", "a hyper-encoder of OSCAR's first stage of training"),
    ("unet_lora_encoder_modules", "OSEDiff's file: choose -n osediff"),
    ("module.body.1.conv_in.weight", "AdcSR's network: choose -n adcsr"),
    ("decoder.conv_out.weight", "the half decoder of AdcSR, which belongs beside its network"),
    ("conv_first.0.weight", "the degradation estimator, which belongs beside s3diff.pkl"),
    ("encoder.conv_in.weight", "InvSR's noise predictor: choose -n invsr"),
    ("visual_encoder.patch_embed.proj.weight", "RAM, a tagger: give it with --tagger"),
    ("blocks.0.self_attn.q.weight", "a transformer of FlashVSR's folder: choose -n flashvsr"),
    ("linear_layers.0.weight", "the projection of FlashVSR's folder: choose -n flashvsr"),
    ("decoder.5.conv.0.weight", "the tiny decoder of FlashVSR's folder: choose -n flashvsr"),
    ("decoder.middle.0.residual.0.gamma", "the VAE of Wan 2.1, FlashVSR's full decoder"),
)


def recognise(content: Mapping[str, Any], method: str) -> str:
    """What a published file is, and what takes it: `S3Diff's file: choose -n s3diff`.

    Args:
        content: what `open_nested` gives.
        method: who could not use it.
    """
    if all(isinstance(content.get(key), Mapping) for key in ("vae", "unet")):
        # Its authors call it osediff.pkl, too.
        return "AdcSR's teacher (a whole UNet and VAE), which only its training needs"
    places = [content, *(content[key] for key in ("state_dict", "model") if key in content)]
    for place in places:
        for mark, kind in _MARKS:
            if isinstance(place, Mapping) and mark in place:
                own = kind.endswith(f" -n {method}")
                return "an altered or damaged file of this model" if own else kind
    return f"no file of a known model (it holds '{next(iter(content), 'nothing')}')"
