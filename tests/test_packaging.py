"""The package: what is in it, under which one name, with which versions."""

from __future__ import annotations

import importlib.metadata
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import av
import pytest
from packaging.requirements import Requirement

import restore

ROOT = Path(__file__).resolve().parents[1]
MAPPED = ("models", "degradations", "apps", "data_pipelines")
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def folders_with_code() -> set[str]:
    """Importable names of all folders that hold Python files, and of those that hold data."""
    found = set()
    for top in ("restore", *MAPPED):
        for file in (ROOT / top).rglob("*.py"):
            parts = file.parent.relative_to(ROOT).parts
            if top == "restore" and len(parts) > 1 and parts[1] in MAPPED:
                continue  # seen through a link; counted at its real place
            found.add(".".join(parts if top == "restore" else ("restore", *parts)))
    return found


def test_every_folder_with_code_is_listed_as_a_package() -> None:
    listed = set(PROJECT["tool"]["setuptools"]["packages"])
    assert listed - {"restore.assets"} == folders_with_code()


def test_links_for_editors_point_to_the_mapped_folders() -> None:
    for name in MAPPED:
        link = ROOT / "restore" / name
        if link.is_symlink():  # a checkout without symbolic links has a text file there
            assert link.readlink().as_posix() == f"../{name}"
            assert link.resolve() == ROOT / name


def test_the_version_has_one_source() -> None:
    assert importlib.metadata.version("restore") == restore.__version__
    assert "version" in PROJECT["project"]["dynamic"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from an sdist built from a copy of the sources, unpacked."""
    base = tmp_path_factory.mktemp("build")
    source, dist, unpacked = base / "source", base / "dist", base / "wheel"
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info", *MAPPED)
    shutil.copytree(ROOT / "restore", source / "restore", ignore=ignore)
    for name in MAPPED:  # without the links, as on a machine that has none
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, source / name)
    build(f"build_sdist({str(dist)!r})", source)
    with tarfile.open(next(dist.glob("*.tar.gz"))) as archive:
        archive.extractall(base / "sdist", filter="data")
    build(f"build_wheel({str(dist)!r})", next((base / "sdist").iterdir()))
    with zipfile.ZipFile(next(dist.glob("*.whl"))) as zipped:
        zipped.extractall(unpacked)
    return unpacked


def build(call: str, folder: Path) -> None:
    """Call the build backend in `folder`, as pip would."""
    code = f"from setuptools import build_meta; build_meta.{call}"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr


def test_restore_is_the_only_name_in_the_wheel(wheel: Path) -> None:
    names = {path.name for path in wheel.iterdir()}
    assert names == {"restore", f"restore-{restore.__version__}.dist-info"}


def test_the_wheel_holds_all_code_and_data(wheel: Path) -> None:
    for package in folders_with_code():
        here = ROOT.joinpath(*package.split("."))
        if not here.is_dir() or here.is_symlink():
            here = ROOT.joinpath(*package.split(".")[1:])
        there = wheel.joinpath(*package.split("."))
        assert {p.name for p in here.glob("*.py")} == {p.name for p in there.glob("*.py")}
    data = ["py.typed", "training/recipes/compact_x4.yaml", "models/parts/ram/labels.tsv"]
    data += ["apps/demo/page.css", "apps/demo/page.js"]
    data += [f"assets/{p.name}" for p in (ROOT / "restore" / "assets").glob("*.safetensors")]
    assert "assets/compact.safetensors" in data
    for name in data:
        assert (wheel / "restore" / name).is_file(), name
    info = next(wheel.glob("*.dist-info"))
    assert {p.name for p in (info / "licenses").iterdir()} == {"LICENSE", "NOTICE"}


def test_the_wheel_is_small(wheel: Path) -> None:
    size = sum(path.stat().st_size for path in wheel.rglob("*") if path.is_file())
    assert size < 34 << 20  # four weight files of at most 8 MiB, and code


def test_the_wheel_runs_and_brings_no_other_name(wheel: Path, tmp_path: Path) -> None:
    code = (
        "import importlib.util, sys\n"
        f"sys.path.insert(0, {str(wheel)!r})\n"
        "import restore.models.compact as compact\n"
        "from restore.weights import packaged_weights\n"
        "print(compact.__file__)\n"
        "print(packaged_weights('compact'))\n"
        f"print([n for n in {MAPPED} if importlib.util.find_spec(n)])\n"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    module, weights, others = done.stdout.strip().splitlines()
    assert Path(module) == wheel / "restore" / "models" / "compact.py"
    assert Path(weights) == wheel / "restore" / "assets" / "compact.safetensors"
    assert others == "[]"


def constraints() -> list[Requirement]:
    """The pinned versions."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def plain(name: str) -> str:
    """A distribution's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
def test_every_requirement_has_one_tested_version_that_it_allows(python: str) -> None:
    pins = [
        r for r in constraints() if not r.marker or r.marker.evaluate({"python_version": python})
    ]
    versions = {plain(r.name): next(iter(r.specifier)).version for r in pins}
    assert len(versions) == len(pins)
    project = PROJECT["project"]
    extras = project["optional-dependencies"]
    for line in project["dependencies"] + extras["dev"] + extras["onnx"] + extras["demo"]:
        wanted = Requirement(line)
        if wanted.name == "restore":  # another of the extras
            continue
        assert wanted.specifier.contains(versions[plain(wanted.name)]), line


def test_constraints_name_no_place() -> None:
    assert all(r.url is None and str(r.specifier).startswith("==") for r in constraints())


def test_the_samples_are_small_and_the_clip_has_sound() -> None:
    folder = ROOT / "examples"
    assert sum(path.stat().st_size for path in folder.iterdir()) < 1 << 20
    with av.open(str(folder / "bottles.mp4")) as clip:
        assert {stream.type for stream in clip.streams} == {"video", "audio"}
