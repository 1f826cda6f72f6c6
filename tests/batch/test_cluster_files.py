"""The examples for clusters: valid for Ray, and made of what this repository has."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

DOCKER = Path(__file__).resolve().parents[2] / "docker"
CLUSTER: dict[str, Any] = yaml.safe_load((DOCKER / "ray-cluster.yaml").read_text(encoding="utf-8"))


def test_ray_takes_the_cluster() -> None:
    util = pytest.importorskip("ray.autoscaler._private.util")
    util.validate_config(util.prepare_config(CLUSTER))
    with pytest.raises(Exception, match="colour"):
        util.validate_config({**CLUSTER, "colour": "red"})


def test_no_port_of_the_cluster_is_opened_and_no_statistics_are_sent() -> None:
    for name in ("head_start_ray_commands", "worker_start_ray_commands"):
        commands = " ".join(CLUSTER[name])
        assert "--disable-usage-stats" in commands
        assert "--dashboard-host" not in commands
    assert "security_group" not in CLUSTER["provider"]


def test_the_image_copies_what_is_there_and_installs_known_extras() -> None:
    text = (DOCKER / "Dockerfile").read_text(encoding="utf-8")
    ignored = (DOCKER / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    copied = [
        name
        for line in re.findall(r"^COPY (?!--from)(.+) \S+$", text, flags=re.M)
        for name in line.split()
    ]
    assert {"pyproject.toml", "restore", "models"} <= set(copied)
    for name in copied:
        assert (DOCKER.parent / name).exists()
        assert f"!{name}" in ignored
    project = (DOCKER.parent / "pyproject.toml").read_text(encoding="utf-8")
    extras = re.search(r"pip install '\.\[(.+)\]'", text)
    assert extras is not None
    assert all(f"\n{extra} = [" in project for extra in extras.group(1).split(","))
