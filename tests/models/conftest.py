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


@pytest.fixture(scope="session")
def dloral_files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """`model.pkl` of DLoRAL and its base."""
    from published_dloral import make_all

    return make_all(tmp_path_factory.mktemp("dloral"))
