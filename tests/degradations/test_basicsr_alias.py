"""The alias: BasicSR imports although torchvision has lost a module, and its absence teaches."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from restore.degradations.basicsr_alias import basicsr_degradations
from restore.errors import MissingExtraError


def write_package(root: Path, name: str, text: str) -> None:
    """A module with all packages above it."""
    path = root.joinpath(*name.split("."))
    path.parent.mkdir(parents=True, exist_ok=True)
    for folder in path.relative_to(root).parents:
        if folder.parts:
            (root / folder / "__init__.py").touch()
    path.with_suffix(".py").write_text(text, encoding="utf-8")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that Python imports from first; what was imported before is out of sight."""
    for name in list(sys.modules):
        if name.partition(".")[0] in ("basicsr", "torchvision"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path  # type: ignore[misc]
    for name in list(sys.modules):
        if name.partition(".")[0] in ("basicsr", "torchvision"):
            del sys.modules[name]


def test_what_basicsr_asks_for_is_found_under_its_old_name(site: Path) -> None:
    write_package(site, "torchvision.transforms.functional", "rgb_to_grayscale = 'gray'\n")
    old = "from torchvision.transforms.functional_tensor import rgb_to_grayscale\n"
    write_package(site, "basicsr.data.degradations", old)
    assert basicsr_degradations().rgb_to_grayscale == "gray"


def test_a_torchvision_that_still_has_the_module_is_left_alone(site: Path) -> None:
    write_package(site, "torchvision.transforms.functional_tensor", "rgb_to_grayscale = 'own'\n")
    old = "from torchvision.transforms.functional_tensor import rgb_to_grayscale\n"
    write_package(site, "basicsr.data.degradations", old)
    assert basicsr_degradations().rgb_to_grayscale == "own"


@pytest.mark.parametrize("lacking", ["basicsr", "torchvision"])
def test_without_it_the_command_that_brings_it_is_named(site: Path, lacking: str) -> None:
    fault = f"raise ModuleNotFoundError('no {lacking} here')\n"
    if lacking == "torchvision":
        write_package(site, "torchvision.nothing", "")
        (site / "torchvision" / "__init__.py").write_text(fault, encoding="utf-8")
    else:
        write_package(site, "torchvision.transforms.functional_tensor", "")
        write_package(site, "basicsr.data.degradations", fault)
    with pytest.raises(MissingExtraError, match=r"pip install '\.\[metrics\]'"):
        basicsr_degradations()
