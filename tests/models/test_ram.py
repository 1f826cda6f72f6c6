"""RAM and DAPE: the authors' numbers, the published names, bad files, the cache."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from published_ram import (
    TINY,
    dape_shapes,
    pictures,
    ram_shapes,
    tiny_dape,
    tiny_ram,
    write_tiny,
)
from safetensors import safe_open
from torch import Tensor

import restore.models.parts.ram.cache as cache_module
from restore.errors import WeightsError
from restore.models.parts.ram import CachedTagger, Tagger
from restore.models.parts.ram.cache import Lines, picture_key
from restore.models.parts.ram.labels import read_labels
from restore.models.parts.ram.net import RamConfig, RamNet, config_of
from restore.models.parts.ram.weights import convert_ram, load_net
from restore.nested_weights import convert

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "ram.safetensors"
CPU = torch.device("cpu")

Dicts = tuple[dict[str, Tensor], dict[str, Tensor]]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A tiny RAM and a tiny DAPE in the published formats."""
    return write_tiny(tmp_path_factory.mktemp("ram"))


@pytest.fixture(scope="module")
def tiny() -> Dicts:
    """What is in those files."""
    return tiny_ram(), tiny_dape()


@pytest.fixture(scope="module")
def tagger(files: tuple[Path, Path]) -> Tagger:
    return Tagger.load(*files, device=CPU, dtype=torch.float32)


def difference(got: Tensor, expected: Tensor) -> float:
    """Largest error in parts of the largest value."""
    return float((got - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("which", ["ram", "dape"])
def test_logits_and_tags_are_those_of_the_authors_code(
    files: tuple[Path, Path], which: str
) -> None:
    ram, dape = files
    tagger = Tagger.load(ram, dape if which == "dape" else None, device=CPU, dtype=torch.float32)
    with safe_open(GOLDEN, framework="pt") as golden:
        expected, tags = golden.get_tensor(which), json.loads(golden.metadata()["tags"])[which]
    assert len(tags[0].split(", ")) > 20  # so that equal lists mean something
    for picture, scores, words in zip(pictures(), expected, tags, strict=True):
        # Their attention is written out, ours is fused: rounding gives 5e-7. Without the mask of
        # the shifted windows it is 3e-2, with a smoothing resize 5e-3.
        assert difference(tagger.logits(picture[None])[0], scores) < 1e-4
        assert ", ".join(tagger.tags(picture[None])[0]) == words


def test_a_batch_gives_what_its_pictures_give_alone(tagger: Tagger) -> None:
    a, b = pictures()[1], pictures()[1].flip(1)
    together = tagger.logits(torch.stack([a, b]))
    alone = torch.cat([tagger.logits(a[None]), tagger.logits(b[None])])
    assert difference(together, alone) < 1e-5  # other block sizes of the matrix products
    assert difference(together[:1], together[1:]) > 1e-3  # and they are two pictures


def test_full_size_has_the_parameters_of_the_published_file() -> None:
    published = ram_shapes(RamConfig())
    with torch.device("meta"):
        net = RamNet(RamConfig())
        state = {name: torch.empty(shape) for name, shape in published.items()}
    ours = {name: tuple(value.shape) for name, value in net.state_dict().items()}
    assert ours.items() <= published.items()
    rest = published.keys() - ours.keys()
    captions = {name for name in rest if name.startswith(("text_decoder.", "tag_encoder."))}
    buffers = {name for name in rest if name.endswith(("relative_position_index", "attn_mask"))}
    assert rest == captions | buffers
    # Counted in the authors' class, of which `published` has every name and shape.
    assert (len(published), len(ours), len(dape_shapes(published))) == (1042, 366, 248)
    assert sum(p.numel() for p in net.parameters()) == 212_117_045
    assert config_of(state) == RamConfig()
    assert RamConfig().side == 384


def test_lora_of_the_tied_caption_encoder_counts_as_it_does_for_the_authors(
    files: tuple[Path, Path], tiny: Dicts
) -> None:
    state, adapter = tiny
    key = "tag_encoder.encoder.layer.1.crossattention.self.key"
    low, high = adapter[f"{key}.lora_A"], adapter[f"{key}.lora_B"]
    own = key.replace("tag_encoder", "tagging_head")
    expected = (
        state[f"{own}.weight"]
        + (high @ low + adapter[f"{own}.lora_B"] @ adapter[f"{own}.lora_A"]) / 8
    )
    net, _ = load_net(*files, dtype=torch.float32)
    assert difference(net.state_dict()[f"{own}.weight"], expected) < 1e-6


def test_converted_files_and_the_old_name_of_the_decoder_load_to_the_same(
    files: tuple[Path, Path], tiny: Dicts, tmp_path: Path
) -> None:
    net, _ = load_net(*files, dtype=torch.float32)
    converted = tmp_path / "ram.safetensors", tmp_path / "dape.safetensors"
    for source, target in zip(files, converted, strict=True):
        convert(source, target)
    old = {k.replace("tagging_head", "vision_multi"): v for k, v in tiny[0].items()}
    torch.save({"model": old}, tmp_path / "old.pth")
    convert_ram(files[0], tmp_path / "needed.safetensors")
    with safe_open(tmp_path / "needed.safetensors", framework="pt") as needed:
        assert set(needed.keys()) == net.state_dict().keys()
    for ram in (converted[0], tmp_path / "old.pth", tmp_path / "needed.safetensors"):
        other, _ = load_net(ram, converted[1], dtype=torch.float32)
        for name, value in net.state_dict().items():
            assert torch.equal(other.state_dict()[name], value), name


def test_half_precision_tags_nearly_the_same(files: tuple[Path, Path], tagger: Tagger) -> None:
    half = Tagger.load(*files, device=CPU, dtype=torch.bfloat16)
    picture = pictures()[1][None]
    assert half.net.label_embed.dtype == torch.bfloat16
    # Eight bits of mantissa through eight blocks.
    assert difference(half.logits(picture), tagger.logits(picture)) < 0.03
    back = half.to(CPU, torch.float32)
    assert back.logits(picture).dtype == torch.float32
    assert back.net.fc.weight.dtype == torch.float32


def test_labels_are_the_published_ones() -> None:
    names, thresholds = read_labels()
    assert len(names) == len(thresholds) == len(set(names)) == 4585
    assert (names[0], names[-1]) == ("3D CG rendering", "zoo")
    assert (min(thresholds), max(thresholds)) == (0.45, 1.0)
    assert sum(value == 0.65 for value in thresholds) == 3414


def drop(key: str) -> Callable[[Dicts], None]:
    def spoil(dicts: Dicts) -> None:
        for state in dicts:
            state.pop(key, None)

    return spoil


def put(which: int, key: str, value: Tensor) -> Callable[[Dicts], None]:
    return lambda dicts: dicts[which].update({key: value})


QKV = "visual_encoder.layers.2.blocks.1.attn.qkv"


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (drop("visual_encoder.patch_embed.proj.weight"), "has no 'visual_encoder.patch_embed"),
        (drop("label_embed"), "has no 'label_embed'"),
        (drop("fc.bias"), "lacks 'fc.bias'"),
        (put(0, "reweight_scale", torch.ones(1)), "also holds 'reweight_scale'"),
        (put(0, "fc.bias", torch.ones(2)), r"has 'fc.bias' of \(2,\) in place of \(1,\)"),
        (put(0, "fc.bias", torch.full((1,), torch.nan)), "'fc.bias' holds NaN"),
        (put(0, "label_embed", torch.ones(233835, 1)), r"holds 233835 label embeddings.*RAM\+\+"),
        (drop(f"{QKV}.lora_B"), "has only half of its LoRA"),
        (put(1, f"{QKV}.lora_A", torch.ones(8, 96)), r"is \(192, 8\) by \(8, 96\)"),
        (put(1, f"{QKV}.lora_A", torch.full((16, 96), torch.inf)), "holds NaN or infinity"),
        (put(1, "unet.conv.lora_A", torch.ones(8, 4)), "adapts 'unet.conv'"),
        (put(1, "fc.bias", torch.ones(1)), "no DAPE file: it holds 'fc.bias'"),
    ],
)
def test_bad_files_are_told_in_one_line(
    tmp_path: Path, tiny: Dicts, spoil: Callable[[Dicts], None], says: str
) -> None:
    dicts = dict(tiny[0]), dict(tiny[1])
    spoil(dicts)
    ram, dape = tmp_path / "ram.pth", tmp_path / "dape.pth"
    torch.save({"model": dicts[0]}, ram)
    torch.save(dicts[1], dape)
    with pytest.raises(WeightsError, match=says) as caught:
        Tagger.load(ram, dape, device=CPU, dtype=torch.float32)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_the_two_files_swapped_or_missing(files: tuple[Path, Path], tmp_path: Path) -> None:
    ram, dape = files
    with pytest.raises(WeightsError, match="holds the LoRA of DAPE, which goes with --tagger-ad"):
        Tagger.load(dape, ram, device=CPU, dtype=torch.float32)
    with pytest.raises(WeightsError, match="no DAPE file"):
        Tagger.load(ram, ram, device=CPU, dtype=torch.float32)
    with pytest.raises(WeightsError, match="no weight file at"):
        CachedTagger(ram, tmp_path / "none.pth", device=CPU, dtype=torch.float32, folder=None)


class Counting:
    """Stands in for `Tagger`: counts its loads and calls, and tags by brightness."""

    loads = 0
    seen = 0

    @classmethod
    def load(cls, *paths: Path | None, device: torch.device, dtype: torch.dtype) -> Counting:
        cls.loads += 1
        return cls()

    def tags(self, pictures: Tensor) -> list[list[str]]:
        type(self).seen += len(pictures)
        return [[f"bright {float(p.mean()):.2f}"] if p.mean() > 0 else [] for p in pictures]


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> type[Counting]:
    monkeypatch.setattr(Counting, "loads", 0)
    monkeypatch.setattr(Counting, "seen", 0)
    monkeypatch.setattr(cache_module, "Tagger", Counting)
    return Counting


def levels(*values: float) -> Tensor:
    """Flat pictures `(B, 3, 4, 5)`."""
    return torch.stack([torch.full((3, 4, 5), value) for value in values])


def test_cached_tags_need_no_network_and_keep_their_places(
    files: tuple[Path, Path], tmp_path: Path, counting: type[Counting]
) -> None:
    def fresh(dape: Path | None = files[1], dtype: torch.dtype = torch.float32) -> CachedTagger:
        return CachedTagger(files[0], dape, device=CPU, dtype=dtype, folder=tmp_path)

    first = fresh()
    assert counting.loads == 0  # only when the first picture comes
    assert first.tags(levels(0.2, 0.0)) == [["bright 0.20"], []]
    again = fresh()
    assert again.tags(levels(0.0, 0.4, 0.2)) == [[], ["bright 0.40"], ["bright 0.20"]]
    assert (counting.loads, counting.seen) == (2, 3)
    assert fresh().tags(levels(0.4, 0.0)) == [["bright 0.40"], []]
    assert (counting.loads, counting.seen) == (2, 3)
    # Other weights, another number format: other tags.
    fresh(dape=None).tags(levels(0.2))
    fresh(dtype=torch.bfloat16).tags(levels(0.2))
    assert (counting.loads, counting.seen) == (4, 5)


def test_pictures_are_told_apart_by_their_8_bit_values_and_size() -> None:
    picture = levels(100 / 255)[0]
    near = picture + 1e-4
    assert picture_key(near) == picture_key(picture)
    assert picture_key(picture + 1 / 255) != picture_key(picture)
    assert picture_key(picture.reshape(3, 5, 4)) != picture_key(picture)


def test_changed_weights_are_noticed(tmp_path: Path, counting: type[Counting]) -> None:
    ram = tmp_path / "ram.pth"
    for content in (b"one", b"other"):
        ram.write_bytes(content)
        tagger = CachedTagger(ram, device=CPU, dtype=torch.float32, folder=tmp_path / "cache")
        tagger.tags(levels(0.2))
    assert counting.seen == 2


def test_damaged_lines_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "tags.jsonl"
    Lines(path).put("a", ["cat"])
    with path.open("ab") as file:
        file.write(b'\xff\xfe\n[]\n3\n{"key": "x"}\n{"key": "b", "value": ["do')  # cut off
    Lines(path).put("c", ["cow"])
    lines = Lines(path)
    assert [lines.get(key) for key in "abcx"] == [["cat"], None, ["cow"], None]


def test_a_line_in_the_making_is_read_once_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "tags.jsonl"
    lines = Lines(path)
    assert lines.get("a") is None
    path.write_bytes(b'{"key": "a", ')
    assert lines.get("a") is None
    with path.open("ab") as file:
        file.write(b'"value": ["cat"]}\n')
    assert lines.get("a") == ["cat"]


def test_nonsense_in_the_cache_is_no_tags(
    tmp_path: Path, files: tuple[Path, Path], counting: type[Counting]
) -> None:
    tagger = CachedTagger(*files, device=CPU, dtype=torch.float32, folder=tmp_path)
    tagger.tags(levels(0.2))
    path = tmp_path / "tags.jsonl"
    path.write_text(path.read_text().replace('["bright 0.20"]', '{"no": "tags"}'))
    again = CachedTagger(*files, device=CPU, dtype=torch.float32, folder=tmp_path)
    assert again.tags(levels(0.2)) == [["bright 0.20"]]


def test_a_cache_that_cannot_be_written_costs_only_time(
    tmp_path: Path, files: tuple[Path, Path], counting: type[Counting]
) -> None:
    (tmp_path / "file").write_text("in the way of a folder")
    tagger = CachedTagger(*files, device=CPU, dtype=torch.float32, folder=tmp_path / "file")
    assert tagger.tags(levels(0.2, 0.4)) == [["bright 0.20"], ["bright 0.40"]]
    assert tagger.tags(levels(0.4)) == [["bright 0.40"]]
    assert counting.seen == 2


def write_many(path: Path, name: str) -> None:
    lines = Lines(path)
    for index in range(100):
        lines.put(f"{name}{index}", [name, "a" * index])


@pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="this system cannot fork"
)
def test_processes_share_the_file(tmp_path: Path) -> None:
    path = tmp_path / "tags.jsonl"
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=write_many, args=(path, name)) for name in "xyz"]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    lines = Lines(path)
    for name in "xyz":
        for index in range(100):
            assert lines.get(f"{name}{index}") == [name, "a" * index]


def test_the_tiny_file_is_read_at_its_own_size(tagger: Tagger, files: tuple[Path, Path]) -> None:
    assert load_net(files[0], None, dtype=torch.float32)[1] == TINY
    assert tagger.side == 384
