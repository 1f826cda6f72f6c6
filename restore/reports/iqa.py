"""Metrics of pyiqa by name: loaded without network unless asked for, one picture at a time.

pyiqa is under the PolyForm Noncommercial licence, and so it is an extra; many of its networks are
for research only as well. Its weights come from many hosts at the first use of a metric. A report
that starts downloads nobody asked for, or that waits minutes for hosts it cannot reach, is of no
use, so while a metric is made this thread finds no host.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import io
import logging
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from restore.devices import choose_device
from restore.errors import InputError, MissingExtraError, OptionError, install_command
from restore.metrics import Picture
from restore.reports.catalogue import Metric, MetricSpec
from restore.reports.config import ReportConfig

log = logging.getLogger("restore.reports")

LICENCE = "pyiqa is under the PolyForm Noncommercial licence 1.0.0: not for commercial use"
_OF_SETS = ("fid", "inception_score")
_NO_HOST = "no network while a report is made"


def installed() -> bool:
    """Whether pyiqa can be found; it is not imported."""
    return importlib.util.find_spec("pyiqa") is not None


def names() -> list[str]:
    """The metrics that pyiqa knows; none where it is not installed or cannot be imported."""
    try:
        return sorted(_configs()) if installed() else []
    except MissingExtraError:
        return []


def load_iqa(name: str, config: ReportConfig, *, shown: str) -> Metric:
    """A metric of pyiqa.

    Args:
        name: as pyiqa has it; `-` for `_` is understood.
        config: device, seed and whether weights may be fetched.
        shown: as the user wrote it.

    Raises:
        MissingExtraError: pyiqa or the weights are not here; one line with the command.
        OptionError: pyiqa has no such metric.
    """
    if not installed():
        raise MissingExtraError(
            f"no metric of our own, and pyiqa is not installed; run {install_command('metrics')} "
            f"({LICENCE})"
        )
    known = _configs()
    key = next((own for own in (name, name.replace("-", "_")) if own in known), None)
    if key is None:
        raise OptionError(f"no metric '{shown}', and pyiqa has none either; see --list")
    device = choose_device(config.device)
    network = _made(key, device, fetch=config.fetch)
    of_set = any(part in key for part in _OF_SETS)
    spec = MetricSpec(
        name=shown,
        title=shown,
        lower_better=bool(network.lower_better),
        reference=network.metric_mode == "FR" or "fid" in key,
        kind="set" if of_set else "picture",
        color=_color(known[key]),
        source="pyiqa",
        version=importlib.metadata.version("pyiqa"),
        definition=f"pyiqa's {key} at its defaults, on {device.type}",
    )
    if of_set:
        return Metric(
            spec=spec, compute_set=lambda own, true: _of_folders(network, own, true, device)
        )
    return Metric(
        spec=spec,
        compute=lambda image, true: _of_pictures(network, image, true, config.seed),
        alone=True,
    )


def _configs() -> dict[str, dict[str, Any]]:
    try:
        with _quiet():
            from pyiqa.default_model_configs import DEFAULT_CONFIGS
    except Exception as error:  # whatever one of its many dependencies raises
        raise MissingExtraError(
            f"pyiqa cannot be imported ({_line(error)}); run {install_command('metrics')}"
        ) from error
    return dict(DEFAULT_CONFIGS)


def _made(key: str, device: torch.device, *, fetch: bool) -> Any:
    guard = contextlib.nullcontext() if fetch else _no_network()
    try:
        with _quiet(), guard:
            import pyiqa

            return pyiqa.create_metric(key, device=device)
    except Exception as error:  # pyiqa and the hubs raise anything
        log.debug("%s cannot be made", key, exc_info=True)
        if not fetch and _is_about_network(error):
            raise MissingExtraError(
                "its weights are not on this machine; run the same command with --fetch once, "
                "and pyiqa downloads them"
            ) from error
        raise MissingExtraError(
            f"pyiqa cannot make it ({_line(error)}); see its documentation for what it needs"
        ) from error


def _is_about_network(error: BaseException | None) -> bool:
    while error is not None:
        name = type(error).__name__
        if _NO_HOST in str(error) or "Offline" in name or "LocalEntryNotFound" in name:
            return True
        error = error.__cause__ or error.__context__
    return False


@contextlib.contextmanager
def _no_network() -> Iterator[None]:
    """No name of a host is found by this thread, and the Hugging Face hub does not try to."""
    own, find = threading.get_ident(), socket.getaddrinfo

    def refuse(*args: Any, **more: Any) -> Any:
        if threading.get_ident() == own:
            raise socket.gaierror(_NO_HOST)
        return find(*args, **more)

    with contextlib.ExitStack() as stack:
        stack.enter_context(patch.object(socket, "getaddrinfo", refuse))
        stack.enter_context(patch.dict(os.environ, {"HF_HUB_OFFLINE": "1"}))
        if importlib.util.find_spec("huggingface_hub") is not None:
            from huggingface_hub import constants

            stack.enter_context(patch.object(constants, "HF_HUB_OFFLINE", True))
        yield


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """What a library prints goes to the log: stdout belongs to the report."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            yield
    finally:
        for line in filter(str.strip, said.getvalue().splitlines()):
            log.debug("pyiqa: %s", line)


def _color(config: dict[str, Any]) -> str:
    options = config["metric_opts"]
    if options.get("test_y_channel"):
        space = str(options.get("color_space", "yiq")).upper()
        return f"luma of {space}, as pyiqa has it"
    return "R'G'B'" if "color_space" not in options else str(options["color_space"])


def _of_pictures(network: Any, image: Picture, reference: Picture | None, seed: int) -> float:
    tensors = [_tensor(one) for one in (image, reference) if one is not None]
    if network.metric_mode != "FR":
        del tensors[1:]
    # Some metrics look at crops that they draw: the same ones, whatever was measured before.
    with torch.random.fork_rng(), torch.inference_mode(), _quiet():
        torch.manual_seed(seed)
        try:
            value = network(*tensors)
        except (RuntimeError, ValueError, AssertionError, IndexError) as error:
            raise InputError(
                f"pyiqa's {network.metric_name} refuses it ({_line(error)})"
            ) from error
    return float(torch.as_tensor(value).float().mean())


def _of_folders(network: Any, own: Path, true: Path | None, device: torch.device) -> float:
    folders = [str(folder) for folder in (own, true) if folder is not None]
    if network.metric_name == "inception_score":
        del folders[1:]
    with torch.inference_mode(), _quiet():
        value = network.net(*folders, device=device, num_workers=0, verbose=False)
    return float(np.asarray(value).reshape(-1)[0])


def _tensor(image: Picture) -> torch.Tensor:
    """`(1, 3, H, W)` float32 in [0, 1]."""
    top = np.iinfo(image.dtype).max if np.issubdtype(image.dtype, np.integer) else 1
    values = np.ascontiguousarray(image.transpose(2, 0, 1), dtype=np.float32) / np.float32(top)
    return torch.from_numpy(values)[None]


def _line(error: Exception) -> str:
    text = " ".join(str(error).split()) or "no message"
    return f"{type(error).__name__}: {text[:160]}"
