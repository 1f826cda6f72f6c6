"""Small networks as weight files, and one folder of graphs for all tests: making one takes long."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from restore.models.compact_net import CompactConfig, CompactNet
from restore.models.compact_weights import write_compact

CONFIGS = {
    # at the input's size and at half of it; 16 channels are enough to be computed in 8 bits
    "compact-x2": CompactConfig(scale=2, width=16, outer=0, deep=16, inner=1),
    # folded to half of it
    "compact-fast": CompactConfig(scale=4, width=0, outer=0, deep=16, inner=1),
}


@pytest.fixture(scope="session")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in place of the user's."""
    return tmp_path_factory.mktemp("graphs")


@pytest.fixture(autouse=True)
def cache(graphs: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test takes what an earlier one has made."""
    monkeypatch.setattr("restore.runtimes.cache.cache_folder", lambda: graphs)
    return graphs


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Weight files by model, random but for sizes that let all parts of the network be seen."""
    folder = tmp_path_factory.mktemp("weights")
    for name, config in CONFIGS.items():
        torch.manual_seed(3)
        net, other = CompactNet(config), CompactNet(config)
        for part, std in ((net.state, 0.03), (net.gate, 0.1), (net.tail, 0.02)):
            torch.nn.init.normal_(part.weight, std=std)
        sets = {"faithful": net.state_dict(), "realistic": other.state_dict()}
        write_compact(folder / f"{name}.safetensors", config, sets)  # type: ignore[arg-type]
    return {name: str(folder / f"{name}.safetensors") for name in CONFIGS}
