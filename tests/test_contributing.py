"""The example in CONTRIBUTING.md is complete: copied out, it passes its own test."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def code_blocks() -> dict[str, str]:
    """Python code of the page by the file that the sentence before it names."""
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    found = re.findall(r"`([\w./]+\.py)`:\n\n```python\n(.*?)```", page, flags=re.DOTALL)
    return dict(found)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package, flat as in a wheel, with the example put in as the page says."""
    blocks = code_blocks()
    assert set(blocks) == {"models/tiny.py", "restore/registry.py", "tests/models/test_tiny.py"}
    top = tmp_path_factory.mktemp("checkout")
    shutil.copytree(ROOT / "restore", top / "restore", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("models", "degradations", "data_pipelines"):
        if not (top / "restore" / name).is_dir():  # a checkout without symbolic links
            (top / "restore" / name).unlink()
            shutil.copytree(ROOT / name, top / "restore" / name)
    (top / "restore" / "models" / "tiny.py").write_text(blocks["models/tiny.py"])
    registry = top / "restore" / "registry.py"
    start = "METHODS: dict[str, str] = {\n"
    text = registry.read_text(encoding="utf-8")
    assert start in text
    registry.write_text(
        text.replace(start, start + blocks["restore/registry.py"]), encoding="utf-8"
    )
    (top / "test_tiny.py").write_text(blocks["tests/models/test_tiny.py"])
    return top


def call(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a module of Python on the copy."""
    return subprocess.run(
        [sys.executable, "-m", *command],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        timeout=100,
    )


def test_the_example_passes_its_own_test(checkout: Path) -> None:
    done = call(checkout, "pytest", "-q", "-p", "no:cacheprovider", "test_tiny.py")
    assert done.returncode == 0, done.stdout
    assert "3 passed" in done.stdout


def test_the_example_is_listed_and_clean(checkout: Path) -> None:
    done = call(checkout, "restore", "models", "list")
    assert "tiny (x2): one convolution, as an example" in done.stdout, done.stderr
    settings = str(ROOT / "pyproject.toml")
    for action in (["check"], ["format", "--check"]):
        files = ["restore/models/tiny.py", "test_tiny.py"]
        done = call(checkout, "ruff", *action, "--no-cache", "--config", settings, *files)
        assert done.returncode == 0, done.stdout
