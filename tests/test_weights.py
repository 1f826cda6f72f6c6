"""Weight files: what is read, and what is refused in one line."""

import pickle
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

import restore
from restore.errors import OutputError, WeightsError
from restore.models.compact_net import CompactConfig, CompactNet
from restore.models.compact_weights import FORMAT
from restore.weights import open_weights, packaged_weights, save_weights, sha256

SHAPE = CompactConfig(scale=2, width=8, outer=1, deep=8, inner=1)
METADATA = {"format": FORMAT, "scale": "2", "width": "8", "outer": "1", "deep": "8", "inner": "1"}


def small_state() -> dict[str, torch.Tensor]:
    return {f"faithful.{k}": v for k, v in CompactNet(SHAPE).state_dict().items()}


class RunsCode:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (exec, ("raise SystemExit('code in a pickle ran')",))


def test_safetensors_come_back_with_their_text(tmp_path: Path) -> None:
    state = small_state()
    save_weights(tmp_path / "a.safetensors", state, METADATA)
    read, metadata = open_weights(tmp_path / "a.safetensors")
    assert metadata == METADATA
    assert all(torch.equal(read[k], v) for k, v in state.items())
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]


@pytest.mark.parametrize("key", ["params_ema", "params", "state_dict", None])
def test_the_dictionaries_of_published_pickles_are_found(tmp_path: Path, key: str | None) -> None:
    state = {"w": torch.ones(2)}
    torch.save(state if key is None else {key: state, "step": 3}, tmp_path / "a.pth")
    read, _ = open_weights(tmp_path / "a.pth")
    assert torch.equal(read["w"], torch.ones(2))


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path: Path) -> None:
    torch.save({"w": RunsCode()}, tmp_path / "a.pth")
    (tmp_path / "b.pkl").write_bytes(pickle.dumps(RunsCode()))
    for name in ("a.pth", "b.pkl"):
        with pytest.raises(WeightsError, match="refused") as caught:
            open_weights(tmp_path / name)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.safetensors", b"", "is empty"),
        ("a.safetensors", b"garbage" * 50, "damaged"),
        ("a.pth", b"garbage" * 50, "refused|damaged"),
        ("a.pth", b"PK\x03\x04" + b"garbage" * 50, "damaged"),
        ("a.pth", b"<!DOCTYPE html><html>", "web page"),
        ("a.pth", b"version https://git-lfs.github.com/spec/v1\noid", "LFS pointer"),
        ("a.txt", b"words", "not a weight file by its name"),
    ],
)
def test_broken_files_are_named(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=said) as caught:
        open_weights(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_truncated_safetensors_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_weights(path, small_state(), METADATA)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(WeightsError, match="damaged or cut short"):
        open_weights(path)


def test_missing_and_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no weight file"):
        open_weights(tmp_path / "none.safetensors")
    with pytest.raises(WeightsError, match="is a folder"):
        open_weights(tmp_path)
    with pytest.raises(WeightsError, match="no weights for 'other'"):
        packaged_weights("other")


@pytest.mark.parametrize(
    ("state", "metadata", "said"),
    [
        ({"conv.weight": torch.zeros(1)}, {}, "another model.*conv.weight"),
        (None, {**METADATA, "format": "restore.other.v1"}, "another model.*restore.other.v1"),
        (None, {**METADATA, "width": "16"}, "does not fit"),
        (None, {**METADATA, "width": "many"}, "does not say the shape"),
        (None, {**METADATA, "scale": "0"}, "does not say the shape"),
        ({"other.w": torch.zeros(1)}, METADATA, "weight set 'other'"),
        ({"noisy.w": torch.zeros(1)}, METADATA, "no weight set 'faithful'"),
    ],
)
def test_weights_of_another_model_are_refused(
    tmp_path: Path, state: dict[str, torch.Tensor] | None, metadata: dict[str, str], said: str
) -> None:
    path = tmp_path / "a.safetensors"
    save_weights(path, small_state() if state is None else state, metadata)
    with pytest.raises(WeightsError, match=said) as caught:
        restore.load("compact", weights=str(path), device="cpu")
    assert "\n" not in str(caught.value)


def test_the_hash_follows_the_content(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"abc")
    assert sha256(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_others_may_read_what_was_written(tmp_path: Path) -> None:
    save_weights(tmp_path / "a.safetensors", {"x": torch.ones(2)}, {})
    (tmp_path / "plain").touch()
    modes = [(tmp_path / name).stat().st_mode for name in ("a.safetensors", "plain")]
    assert modes[0] == modes[1]


def test_a_full_disk_is_said_and_the_file_before_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.safetensors"
    save_weights(path, small_state(), METADATA)
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("restore.weights.save_file", full)
    with pytest.raises(OutputError, match=r"a\.safetensors cannot be written \(.*No space left"):
        save_weights(path, {"x": torch.ones(2)}, {})
    assert [file.name for file in tmp_path.iterdir()] == ["a.safetensors"]
    assert path.read_bytes() == before
