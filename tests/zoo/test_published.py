"""Pulled weights give the same pictures as the published files named on the command line."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
from zoo.hosts import Host

import restore
from restore.zoo.entries import ENTRIES
from restore.zoo.network import Network
from restore.zoo.pull import pull, with_needs

PICTURE = np.random.default_rng(5).integers(0, 256, (40, 24, 3), np.uint8)


def make(method: str, folder: Path) -> tuple[Path, Path | None]:
    """Tiny random weights in the published formats: the method's main file, and its base."""
    folder.mkdir()
    if method == "adcsr":
        from published_adcsr import make_adcsr

        return make_adcsr(folder), None
    if method == "flashvsr":
        from published_flashvsr import TINY, make_folder

        return make_folder(folder, dataclasses.replace(TINY, dim=128, heads=1), full=False), None
    if method == "s3diff":
        from published_s3diff import make_all

        return make_all(folder)
    if method == "invsr":
        from published_invsr import make_invsr, make_turbo

        file = folder / "noise_predictor_sd_turbo_v5.pth"
        return make_invsr(file, seed=3), make_turbo(folder / "base")
    from published import filled, make_base, make_unet, make_vae
    from published_osediff import make_osediff

    weights = make_osediff(
        folder / "osediff.pkl", filled(make_unet(), 1), filled(make_vae(), 2), seed=9
    )
    return weights, make_base(folder / "base")


def serve(
    host: Host, folder: Path, base: Path | None, names: list[str], patch: pytest.MonkeyPatch
) -> None:
    """Let the entries point to the files in `folder`, with their hashes."""
    for name in names:
        entry = ENTRIES[name]
        root = base if entry.kind == "base" else folder
        assert root is not None
        files = []
        for file in entry.choose():
            content = next(root.rglob(file.path)).read_bytes()
            files.append(
                dataclasses.replace(
                    file,
                    urls=(host.put(f"/{name}/{file.path}", content),),
                    size=len(content),
                    sha256=hashlib.sha256(content).hexdigest(),
                    git_blob=None,
                )
            )
        patch.setitem(ENTRIES, name, dataclasses.replace(entry, files=tuple(files)))


@pytest.mark.parametrize(
    "method",
    ["osediff", "s3diff", "adcsr", "flashvsr", pytest.param("invsr", marks=pytest.mark.slow)],
)
def test_pulled_weights_are_the_published_ones(
    method: str, host: Host, network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "published"
    weights, base = make(method, folder)
    settings = {"device": "cpu", "dtype": "fp32", "seed": 1}
    given = restore.load(method, weights=str(weights), base=base and str(base), **settings)
    expected = given.restore(PICTURE)
    names = with_needs([method])
    serve(host, folder, base, names, monkeypatch)
    assert [pulled.name for pulled in pull(names, network=network)] == names
    shutil.rmtree(folder)
    found = restore.load(method, **settings).restore(PICTURE)
    # Numbers in a mapped file lie at other addresses, from which sums are taken in another order:
    # one value in 50,000 was rounded to the next level.
    difference = np.abs(found.astype(int) - expected)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.001
    assert found.std() > 5  # a picture, not one colour
