"""Importing is quick and loads nothing heavy; nor do the pages that only say something."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "av", "cv2", "PIL", "numpy", "rich", "yaml", "safetensors")
LIMIT = 0.3  # seconds, from the project's design


def run_python(code: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    return result.stdout


def test_import_is_quick() -> None:
    code = (
        "import time; begin = time.process_time(); import restore; "
        "print(time.process_time() - begin)"
    )
    # Processor time, and the best of three: other work on the machine is not what is measured.
    assert min(float(run_python(code)) for _ in range(3)) < LIMIT


def test_import_loads_nothing_heavy() -> None:
    code = f"import sys, restore; print([m for m in {HEAVY} if m in sys.modules])"
    assert run_python(code).strip() == "[]"


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["image", "--help"],
        ["video", "--help"],
        ["models", "list", "--help"],
        ["completion", "zsh"],
        ["image", "--tile", "3", "a.png"],
    ],
)
def test_pages_and_refusals_load_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys\n"
        "from restore.cli.commands import app\n"
        f"app.main({arguments!r}, standalone_mode=False)\n"
        f"print('loaded:', [m for m in {HEAVY} if m in sys.modules])"
    )
    assert run_python(code).strip().splitlines()[-1] == "loaded: []"


def test_lazy_names_are_the_real_ones() -> None:
    import restore
    from restore.engine import Restorer, load

    assert restore.load is load
    assert restore.Restorer is Restorer
    assert set(dir(restore)) == set(restore.__all__)
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        _ = restore.lod
