"""`restore train`: a recipe file to a folder with checkpoints, a log and usable weights."""

from __future__ import annotations

import csv
import json
import logging
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from restore.data_pipelines.patches import PatchSource
from restore.errors import InputError, OptionError, OutputError
from restore.metrics import psnr
from restore.models.compact import FORMAT, CompactNet, read_compact
from restore.training.checkpoint import load_state, save_state
from restore.training.config import TrainConfig, read_train_config
from restore.training.trainer import Trainer, TrainStep
from restore.weights import save_weights

log = logging.getLogger("restore.training")


def train_from_file(
    path: Path,
    *,
    output: Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: Callable[[TrainStep, int], None] | None = None,
) -> Path:
    """Train what a recipe describes.

    Args:
        path: YAML file of a `TrainConfig`.
        output: folder of the run; default `experiments/NAME` in the current folder. It gets
            `net.safetensors` (for `--weights`), `state.pt` (for resuming), `log.csv` and
            `recipe.json`.
        resume: go on from `state.pt` when it is there.
        overwrite: start again although the folder holds a run.
        progress: called after each step with the step and the number of all steps.

    Returns:
        The weight file.

    Raises:
        OptionError: the recipe is wrong, or resumed with another one.
        OutputError: the folder holds a run and neither `resume` nor `overwrite` was given.
    """
    config = read_train_config(path)
    folder = output or Path("experiments") / config.name
    state_file = folder / "state.pt"
    if state_file.exists() and not resume and not overwrite:
        raise OutputError(
            f"{folder} holds a run already; add --resume to go on or --overwrite to start again"
        )
    folder.mkdir(parents=True, exist_ok=True)
    scale = config.network.scale
    trainer = Trainer(config, PatchSource(config.data, patch=config.patch * scale))
    if resume and state_file.exists():
        _check_same_recipe(folder / "recipe.json", config)
        trainer.restore_state(load_state(state_file))
    elif config.init is not None:
        weights, shape = read_compact(Path(config.init))
        if shape != config.network:
            raise OptionError(f"{config.init} holds a network of shape {shape}; the recipe differs")
        trainer.load_weights(weights)
    (folder / "recipe.json").write_text(json.dumps(asdict(config), indent=2), encoding="utf-8")
    return _run(trainer, folder, progress)


def _run(trainer: Trainer, folder: Path, progress: Callable[[TrainStep, int], None] | None) -> Path:
    config = trainer.config
    fresh = trainer.iteration == 0
    log_file = folder / "log.csv"
    kept = [] if fresh else _log_rows(log_file, up_to=trainer.iteration)
    with log_file.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["iteration", "loss", "lr", "seconds", "psnr_y"])
        table.writerows(kept)
        losses: list[float] = []
        for step in trainer.steps():
            losses.append(step.loss)
            if progress is not None:
                progress(step, config.iterations)
            last = step.iteration == config.iterations
            saving = last or step.iteration % config.save_every == 0
            if saving or step.iteration % config.log_every == 0:
                psnr = validate(trainer) if saving and config.validation_lr else None
                mean = sum(losses) / len(losses)
                table.writerow(
                    [
                        step.iteration,
                        f"{mean:.6f}",
                        f"{step.lr:.3e}",
                        f"{step.seconds:.3f}",
                        "" if psnr is None else f"{psnr:.4f}",
                    ]
                )
                file.flush()
                losses.clear()
            if saving:
                _save(trainer, folder)
    if not (folder / "net.safetensors").exists():
        _save(trainer, folder)
    return folder / "net.safetensors"


def _log_rows(path: Path, *, up_to: int) -> list[list[str]]:
    """Rows of an earlier part of the run; what came after its last checkpoint is done again."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [
            row for row in csv.reader(file) if row[:1] and row[0].isdigit() and int(row[0]) <= up_to
        ]


def _save(trainer: Trainer, folder: Path) -> None:
    shape = trainer.config.network
    metadata = {"format": FORMAT, **{k: str(v) for k, v in asdict(shape).items()}}
    metadata |= {"recipe": trainer.config.name, "iteration": str(trainer.iteration)}
    save_weights(folder / "net.safetensors", trainer.average, metadata)
    save_state(folder / "state.pt", trainer.state())


def _check_same_recipe(path: Path, config: TrainConfig) -> None:
    if not path.exists():
        return
    before = json.loads(path.read_text(encoding="utf-8"))
    now = json.loads(json.dumps(asdict(config)))
    changed = sorted(k for k in now if now[k] != before.get(k))
    if changed:
        raise OptionError(
            f"the recipe differs from the one the run began with ({', '.join(changed)}); "
            "take the change back, or start again with --overwrite"
        )


@torch.inference_mode()
def validate(trainer: Trainer) -> float:
    """Mean PSNR-Y in dB of the averaged weights on the validation pictures."""
    config = trainer.config
    assert config.validation_lr is not None and config.validation_hr is not None
    names = sorted(p.name for p in Path(config.validation_lr).glob("*.png"))
    if not names:
        raise OptionError(f"{config.validation_lr} holds no PNG pictures to validate on")
    names = names[:: max(1, len(names) // config.validation_count)]
    network = CompactNet(config.network).eval()
    network.load_state_dict(trainer.average)
    values = []
    for name in names:
        bad = _read_rgb(Path(config.validation_lr) / name)
        good = _read_rgb(Path(config.validation_hr) / name)
        restored = network(bad[None])[0].clamp(0, 1)
        height, width = good.shape[1] // 8 * 8, good.shape[2] // 8 * 8
        values.append(psnr(_array(restored[:, :height, :width]), _array(good[:, :height, :width])))
    return float(np.mean(values))


def _read_rgb(path: Path) -> Tensor:
    picture = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
    if picture is None:
        raise InputError(f"{path} is not a readable picture; take it out of the folder")
    return torch.from_numpy(picture[:, :, ::-1].copy()).permute(2, 0, 1).float() / 255


def _array(picture: Tensor) -> np.ndarray:
    return picture.permute(1, 2, 0).numpy()
