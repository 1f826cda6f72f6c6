"""Bases of random weights, made once."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Stable Diffusion 2.1 base."""
    from published import make_base

    return make_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="session")
def osediff_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An `osediff.pkl` for it."""
    from published import filled, make_unet, make_vae
    from published_osediff import make_osediff

    path = tmp_path_factory.mktemp("osediff") / "osediff.pkl"
    return make_osediff(path, filled(make_unet(), 1), filled(make_vae(), 2), seed=9)
