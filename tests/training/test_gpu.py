"""On a GPU every stage trains, goes on, and gets the same batches from any number of threads."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from training.conftest import KINDS, Write

from restore.models.compact_weights import read_compact
from restore.training.config import read_train_config
from restore.training.registry import recipe_class
from restore.training.run import train_from_file

pytestmark = pytest.mark.gpu


@pytest.mark.usefixtures("faithful")
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_every_stage_trains_and_goes_on(
    kind: str, compiled: bool, write_recipe: Write, tmp_path: Path
) -> None:
    fields = {**KINDS[kind], "device": "cuda", "precision": "bf16", "compile": compiled}
    recipe = write_recipe(**fields)
    first = train_from_file(recipe, output=tmp_path / "run", resume=True, stop_after=0.0)
    assert first.iteration == 1
    last = train_from_file(recipe, output=tmp_path / "run", resume=True)
    assert last.finished
    sets = read_compact(last.weights).sets
    assert all(bool(x.isfinite().all()) for weights in sets.values() for x in weights.values())


@pytest.mark.usefixtures("faithful")
@pytest.mark.parametrize("kind", ["faithful", "clips"])
def test_batches_do_not_depend_on_the_threads(kind: str, write_recipe: Write) -> None:
    from restore.training.prefetch import batches

    config = read_train_config(write_recipe(**{**KINDS[kind], "device": "cuda"}))
    device = torch.device("cuda")
    recipe = recipe_class(config.recipe)(config, device=device)
    made = {n: batches(recipe.batch, 0, device=device, workers=n) for n in (0, 4)}
    for _ in range(8):
        plain, ahead = (next(made[n]) for n in (0, 4))
        for name, value in plain.items():
            torch.testing.assert_close(ahead[name], value)
    for iterator in made.values():
        iterator.close()  # type: ignore[attr-defined]
