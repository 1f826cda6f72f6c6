"""A folder of small pictures and recipes of small networks, which train in milliseconds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from restore.models.compact_net import CompactConfig, CompactNet
from restore.models.compact_weights import write_compact

NETWORK = {"scale": 2, "width": 8, "outer": 1, "deep": 8, "inner": 1}
Write = Callable[..., Path]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Two smooth pictures of 48x48 pixels, and their halves in `low` beside them."""
    for name in ("pictures", "low"):
        (tmp_path / name).mkdir()
    random = np.random.default_rng(0)
    for i in range(2):
        small = Image.fromarray(random.integers(0, 256, (6, 6, 3), dtype=np.uint8))
        picture = small.resize((48, 48), Image.Resampling.BICUBIC)
        picture.save(tmp_path / "pictures" / f"{i}.png")
        picture.resize((24, 24)).save(tmp_path / "low" / f"{i}.png")
    return tmp_path / "pictures"


@pytest.fixture
def write_recipe(pictures: Path) -> Write:
    """`write_recipe(field=value, ...)`: a recipe with these fields over those of a small run."""

    def write(name: str = "tiny", **fields: Any) -> Path:
        content = {
            "name": name,
            "network": NETWORK,
            "data": [{"path": "pictures"}],
            "degradation": [
                {"plain": {"noise_prob": 0.5, "jpeg_quality": [60, 95]}, "soft_prob": 0.5}
            ],
            "ssim_weight": 0.1,
            "frequency_weight": 0.1,
            "optim": {"lr": 2e-3, "warmup": 2},
            "iterations": 6,
            "batch": 4,
            "groups": 2,
            "patch": 8,
            "save_every": 3,
            "log_every": 2,
            "device": "cpu",
            **fields,
        }
        path = pictures.parent / f"{name}.yaml"
        path.write_text(yaml.safe_dump(content))
        return path

    return write


@pytest.fixture
def faithful(tmp_path: Path) -> Path:
    """A weight file of the small network, with the faithful set alone."""
    path = tmp_path / "faithful.safetensors"
    config = CompactConfig(**NETWORK)
    write_compact(path, config, {"faithful": CompactNet(config).state_dict()})
    return path


GAN = {
    "set": "realistic",
    "init": "faithful.safetensors",
    "adversarial": {"weight": 0.1, "feature_weight": 0.1, "width": 4, "crop": 16},
}
"""Fields of an adversarial run."""
CLIP = {
    "recipe": "compact-clip",
    "frames": 3,
    "batch": 2,
    "frequency_weight": 0.0,
    "patch": 16,  # the least that motion is estimated on
}
"""Fields of a run on clips."""
KINDS: dict[str, dict[str, Any]] = {
    "faithful": {},
    "realistic": {**GAN, "precision": "bf16", "workers": 2},
    "noisy": {"set": "noisy", "init": "faithful.safetensors", "keep_noise": True},
    "clips": {**CLIP, "precision": "bf16"},
    "clips-realistic": {**CLIP, **GAN, "train_only": ["state", "gate"], "workers": 1},
}
"""Every stage of the shipped weights, as changes to the small run."""
