"""The list of published weights: whole, consistent, and honest about what is not known."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys

import pytest

from restore.errors import OptionError
from restore.inventory import allows_commercial_use
from restore.zoo.cache import Shelf, is_pickle
from restore.zoo.entries import ENTRIES, find_entry
from restore.zoo.pull import with_needs


def test_what_an_entry_names_is_there() -> None:
    for entry in ENTRIES.values():
        for name in (*entry.requires, *entry.optional):
            assert name in ENTRIES, (entry.name, name)
        assert entry.pages
        assert entry.licence


def test_files_have_addresses_and_hashes_of_the_right_form() -> None:
    for entry in ENTRIES.values():
        paths = [file.path for file in entry.files]
        assert len(set(paths)) == len(paths)
        for file in entry.files:
            assert file.urls
            assert all(url.startswith("https://") for url in file.urls)
            assert all(url.endswith("/" + file.path.split("/")[-1]) for url in file.urls)
            assert file.sha256 is None or re.fullmatch(r"[0-9a-f]{64}", file.sha256)
            assert file.git_blob is None or re.fullmatch(r"[0-9a-f]{40}", file.git_blob)
            assert file.size is None or file.size > 0


@pytest.mark.parametrize("variant", ["fp32", "fp16"])
@pytest.mark.parametrize("name", ["stable-diffusion-2-1-base", "sd-turbo"])
def test_a_base_has_every_part_once_in_either_format(name: str, variant: str) -> None:
    files = find_entry(name).choose(variant)  # type: ignore[arg-type]
    ends = sorted(file.path.replace(".fp16", "") for file in files)
    weights = [path for path in ends if path.endswith(".safetensors")]
    assert [path.split("/")[0] for path in weights] == ["text_encoder", "unet", "vae"]
    assert {path.split("/")[0] for path in ends} == {
        *("scheduler", "text_encoder", "tokenizer", "unet", "vae")
    }
    assert len(set(ends)) == 11


def test_every_file_of_the_withdrawn_base_can_be_checked() -> None:
    """Its copies are other people's: only the hash says that they are what was published."""
    entry = find_entry("stable-diffusion-2-1-base")
    assert all(file.sha256 is not None for file in entry.files)
    assert all(len(file.urls) >= 3 for file in entry.files)
    assert all("stabilityai/" in file.urls[-1] for file in entry.files)


@pytest.mark.parametrize("variant", ["fp32", "fp16"])
def test_the_base_of_the_codec_has_no_words(variant: str) -> None:
    files = find_entry("stable-diffusion-2-1").choose(variant)  # type: ignore[arg-type]
    parts = sorted(file.path.replace(".fp16", "").split("/")[0] for file in files)
    assert parts == ["scheduler", "unet", "unet", "vae", "vae"]
    assert find_entry("oscar").requires == ("stable-diffusion-2-1",)


def test_restricted_licences_are_marked() -> None:
    free = {name for name, entry in ENTRIES.items() if allows_commercial_use(entry.licence)}
    assert set(ENTRIES) - free == {"invsr", "oscar", "sd-turbo"}


def test_what_is_needed_comes_first_and_once() -> None:
    assert with_needs(["s3diff", "invsr"]) == ["s3diff-de-net", "sd-turbo", "s3diff", "invsr"]


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(OptionError, match="did you mean 'osediff'"):
        find_entry("osedif")


def test_places_of_all_files_differ() -> None:
    places = [Shelf(e).place(f) for e in ENTRIES.values() for f in e.files]
    places += [Shelf(e).converted(f) for e in ENTRIES.values() for f in e.files if is_pickle(f)]
    assert len(set(places)) == len(places)


def test_pickles_have_a_converter_that_exists() -> None:
    for file in (file for entry in ENTRIES.values() for file in entry.files):
        if is_pickle(file):
            module, _, function = file.converter.partition(":")
            assert callable(getattr(importlib.import_module(module), function))


def test_both_versions_of_flashvsr_are_folders_of_the_same_files() -> None:
    """What tells them apart is the name they are pulled under."""
    first, later = find_entry("flashvsr"), find_entry("flashvsr-1.1")
    assert first.folder and later.folder
    assert [file.path for file in first.files] == [file.path for file in later.files]
    assert [file.bytes for file in first.files] == [file.bytes for file in later.files]
    assert all(file.checkable for file in later.files)
    apart = [a.urls[0] != b.urls[0] for a, b in zip(first.files, later.files, strict=True)]
    assert apart == [True, True, True, False]  # one prompt for both


def test_looking_up_names_loads_nothing_heavy() -> None:
    code = (
        "import sys, restore.zoo.entries, restore.zoo.cache\n"
        "print([m for m in ('torch', 'requests', 'diffusers', 'safetensors') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
