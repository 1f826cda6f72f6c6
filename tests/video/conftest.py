"""Fixtures of the video room."""

from __future__ import annotations

from pathlib import Path

import pytest
from video.fakes import run_job
from video.films import make_film


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The usual film: 24 frames with sound."""
    return make_film(tmp_path_factory.mktemp("source") / "clip.mp4")


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, source: Path) -> Path:
    """What an undisturbed run makes of it."""
    folder = tmp_path_factory.mktemp("whole")
    return run_job(source, output=str(folder / "whole.mp4")).path
