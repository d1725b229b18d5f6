"""Checkpoints: official names, round trips, and every way in which files can be wrong."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="models need torch (the extra `model`)")
pytest.importorskip("transformers", reason="models need transformers (the extra `model`)")

from safetensors.torch import load_file, save_file  # noqa: E402

from spatial_mllm_ros.models.mllm.config import V1_0_ARCHITECTURE, SpatialMLLMConfig  # noqa: E402
from spatial_mllm_ros.models.mllm.random_weights import make_checkpoint  # noqa: E402
from spatial_mllm_ros.models.mllm.spatial_mllm import SpatialMLLMForConditionalGeneration  # noqa: E402
from spatial_mllm_ros.models.vggt.config import TrackerSizes, VGGTConfig  # noqa: E402
from spatial_mllm_ros.models.vggt.track_head import TrackHead  # noqa: E402
from spatial_mllm_ros.models.weights.checkpoint import (  # noqa: E402
    CheckpointError,
    module_name,
    published_name,
    read_checkpoint,
)
from spatial_mllm_ros.serving.interface import ModelUnavailable  # noqa: E402

HEADS = ("camera", "depth", "point")
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("v1.1"))


@pytest.fixture(scope="module")
def original_v1_0(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("v1.0"), version="v1.0")


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("sharded"), max_shard_size="1MB")


def copied(folder: Path, to: Path) -> Path:
    for path in folder.iterdir():
        (to / path.name).write_bytes(path.read_bytes())
    return to


def changed(folder: Path, to: Path, change: Any) -> Path:
    """A copy whose tensors ``change`` has worked on."""
    copied(folder, to)
    tensors = load_file(to / WEIGHTS)
    change(tensors)
    save_file(tensors, to / WEIGHTS)
    return to


def tensors_of(folder: Path) -> dict[str, Any]:
    return {name: tensor for path in folder.glob("*.safetensors") for name, tensor in load_file(path).items()}


def load(folder: Path | str, **options: Any) -> Any:
    return SpatialMLLMForConditionalGeneration.from_pretrained(folder, **options)


def edit_config(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


# ---- round trips


@pytest.mark.parametrize("kind", ["original", "original_v1_0", "sharded"])
def test_a_saved_model_is_the_same_to_the_last_bit(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    folder = request.getfixturevalue(kind)
    model = load(folder, heads=HEADS)
    size = "1MB" if kind == "sharded" else "5GB"
    model.save_pretrained(tmp_path, max_shard_size=size)
    first, second = read_checkpoint(folder), read_checkpoint(tmp_path)
    assert first.tensors.keys() == second.tensors.keys()
    assert (tmp_path / INDEX).exists() == (kind == "sharded")
    before, after = tensors_of(folder), tensors_of(tmp_path)
    assert all(torch.equal(before[name], after[name]) for name in first.tensors)
    again = load(tmp_path, heads=HEADS)
    ids = torch.arange(12)[None]
    assert torch.equal(again(input_ids=ids).logits, model(input_ids=ids).logits)
    assert again.config.to_dict() == model.config.to_dict()
    assert again.generation_config.eos_token_id == model.generation_config.eos_token_id


def test_saving_uses_the_published_names(original: Path, original_v1_0: Path) -> None:
    """Those of transformers 4.51, at the top of the tree, without the tied output layer."""
    first = {name.split(".")[0] for name in read_checkpoint(original).tensors}
    assert first == {"visual", "model", "spatial_encoder", "connector"}
    assert "model.embed_tokens.weight" in read_checkpoint(original).tensors
    names = read_checkpoint(original_v1_0).tensors
    assert {name.split(".")[0] for name in names} == {"visual", "model", "vggt", "vggt_embedding_merger"}
    assert "vggt_embedding_merger.vgg_to_language_mlp.2.bias" in names


def test_the_configuration_is_written_flat(original: Path, original_v1_0: Path) -> None:
    """As transformers 4.51 reads it: sizes of the text model at the top."""
    config = json.loads((original / "config.json").read_text())
    assert config["model_type"] == "spatial-mllm"
    assert config["hidden_size"] == 64
    assert config["rope_scaling"]["type"] == "default"
    assert config["vision_config"]["model_type"] == "qwen2_5_vl"
    assert config["random_weights"] is True
    assert "text_config" not in config
    config = json.loads((original_v1_0 / "config.json").read_text())
    assert config["model_type"] == "qwen2_5_vl"
    assert config["architectures"] == [V1_0_ARCHITECTURE]


def test_published_names_and_those_of_modules_are_one_to_one(original: Path, original_v1_0: Path) -> None:
    for folder in (original, original_v1_0):
        found = read_checkpoint(folder)
        assert all(published_name(module_name(name, found.layout), found.layout) == name for name in found.tensors)
        assert len(found.shapes()) == len(found.tensors)


def test_heads_are_kept_only_if_asked_for(original: Path, tmp_path: Path) -> None:
    assert load(original).config.heads == ()
    one = load(original, heads=("camera",))
    assert one.spatial_encoder.vggt_model.camera_head is not None
    assert one.spatial_encoder.vggt_model.depth_head is None
    one.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["spatial_config"]["heads"] == ["camera"]
    assert load(tmp_path, heads=("camera",)).config.heads == ("camera",)
    with pytest.raises(CheckpointError, match="no heads depth, only camera"):
        load(tmp_path, heads=("depth",))


def test_the_tracking_head_may_be_in_the_file(original: Path, tmp_path: Path) -> None:
    """Its sizes are in no configuration; they are read from its tensors, and its names are checked like all others."""
    tracker = TrackerSizes(
        features=16, out_channels=(8, 8, 8, 8), hidden=16, mlp=32, correlation=63, time_depth=1, space_depth=1
    )
    sizes = VGGTConfig.from_dict(json.loads((original / "config.json").read_text())["spatial_config"])
    head = TrackHead(replace(sizes, tracker=replace(tracker, virtual_tracks=4))).state_dict()
    prefix = "spatial_encoder.vggt_model.track_head."
    folder = changed(original, tmp_path, lambda tensors: tensors.update({prefix + k: v for k, v in head.items()}))
    with pytest.raises(CheckpointError, match=f"{len(head)} left over: .*track_head"):
        load(folder)
    spatial = json.loads((folder / "config.json").read_text())["spatial_config"]
    edit_config(folder, spatial_config={**spatial, "heads": [*HEADS, "track"]})
    assert load(folder).config.heads == ()
    kept = load(folder, heads=("track",)).spatial_encoder.vggt_model.track_head.state_dict()
    assert all(torch.equal(kept[name], tensor) for name, tensor in head.items())


def test_v1_0_is_known_by_its_names(original_v1_0: Path, tmp_path: Path) -> None:
    """Its configuration says no more than qwen2_5_vl; one read before, as published scripts do, says less."""
    copied(original_v1_0, tmp_path)
    edit_config(tmp_path, architectures=["SomethingElse"], connector_config=None)
    given = SpatialMLLMConfig.from_dict(json.loads((tmp_path / "config.json").read_text()))
    for model in (load(tmp_path), load(tmp_path, config=given)):
        assert model.config.connector_type == "token_merge"
        assert model.config.merge_order == "time_space_channel"
    ids = torch.arange(8)[None]
    assert torch.equal(load(tmp_path)(input_ids=ids).logits, load(original_v1_0)(input_ids=ids).logits)


def test_names_of_newer_transformers_are_known(original: Path, tmp_path: Path) -> None:
    def rename(tensors: dict[str, Any]) -> None:
        for name in list(tensors):
            tensors[module_name(name)] = tensors.pop(name)

    folder = changed(original, tmp_path, rename)
    ids = torch.arange(8)[None]
    assert torch.equal(load(folder)(input_ids=ids).logits, load(original)(input_ids=ids).logits)


def test_weights_come_in_the_type_asked_for(original: Path) -> None:
    assert load(original).dtype == torch.float32
    assert load(original, torch_dtype="auto").dtype == torch.float32
    for asked in ({"torch_dtype": "bfloat16"}, {"dtype": torch.bfloat16}):
        model = load(original, **asked)
        assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
        assert {b.dtype for b in model.buffers()} == {torch.float32}  # tables of the rotary embedding
    with pytest.raises(ValueError, match="'int3' is not a type for weights"):
        load(original, torch_dtype="int3")


def test_progress_is_told_in_bytes(original: Path) -> None:
    told: list[tuple[int, int]] = []
    model = load(original, progress=lambda done, total: told.append((done, total)))
    assert told == sorted(told)
    assert told[-1][0] == told[-1][1] == sum(p.nbytes for p in model.parameters())


def test_a_model_may_be_saved_where_it_was_loaded_from(sharded: Path, tmp_path: Path) -> None:
    model = load(copied(sharded, tmp_path), heads=HEADS)
    expected = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.save_pretrained(tmp_path)
    assert not list(tmp_path.glob("model-*"))
    assert not (tmp_path / INDEX).exists()
    assert all(torch.equal(expected[name], tensor) for name, tensor in load(tmp_path, heads=HEADS).state_dict().items())
    assert all(torch.equal(expected[name], tensor) for name, tensor in model.state_dict().items())


def test_arguments_that_are_not_known_are_refused(original: Path) -> None:
    load(original, low_cpu_mem_usage=True, local_files_only=True, device_map={"": "cpu"})
    with pytest.raises(TypeError, match="does not take load_in_8bit"):
        load(original, load_in_8bit=True)
    with pytest.raises(ValueError, match="spreads the model over devices"):
        load(original, device_map={"model": "cpu", "lm_head": "meta"})


# ---- strictness


def test_what_is_missing_left_over_or_misshapen_is_listed(original: Path, tmp_path: Path) -> None:
    def spoil(tensors: dict[str, Any]) -> None:
        del tensors["visual.merger.ln_q.weight"]
        del tensors["spatial_encoder.vggt_model.depth_head.norm.bias"]  # a head that nobody wants is checked too
        tensors["visual.merger.extra"] = torch.zeros(1)
        tensors["model.norm.weight"] = torch.zeros(7)
        tensors["connector.mlp.2.bias"] = torch.zeros(64, dtype=torch.int32)

    folder = changed(original, tmp_path, spoil)
    with pytest.raises(CheckpointError) as caught:
        load(folder)
    said = str(caught.value)
    assert "2 missing: " in said
    assert "visual.merger.ln_q.weight" in said
    assert "spatial_encoder.vggt_model.depth_head.norm.bias" in said
    assert "1 left over: visual.merger.extra" in said
    assert "1 of another shape: model.norm.weight [7] instead of [64]" in said
    assert "connector.mlp.2.bias of type I32" in said
    assert isinstance(caught.value, ModelUnavailable)
    assert isinstance(caught.value, ValueError)


def test_a_long_list_is_cut(original: Path, tmp_path: Path) -> None:
    folder = changed(original, tmp_path, lambda tensors: [tensors.pop(n) for n in list(tensors) if "visual" in n])
    with pytest.raises(CheckpointError, match=r"30 missing: .*, and 10 more"):
        load(folder)


def test_a_name_that_is_there_twice_is_refused(original: Path, tmp_path: Path) -> None:
    def double(tensors: dict[str, Any]) -> None:
        tensors["model.language_model.norm.weight"] = tensors["model.norm.weight"].clone()

    with pytest.raises(CheckpointError, match=r"1 twice there: model\.(language_model\.)?norm\.weight"):
        load(changed(original, tmp_path, double))


def test_a_tied_output_layer_must_be_the_embedding(original: Path, tmp_path: Path) -> None:
    same, other = tmp_path / "same", tmp_path / "other"
    same.mkdir()
    other.mkdir()

    def add(tensors: dict[str, Any], plus: float) -> None:
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"] + plus

    model = load(changed(original, same, lambda tensors: add(tensors, 0.0)))
    assert model.lm_head.weight is model.get_input_embeddings().weight
    with pytest.raises(CheckpointError, match=r"ties lm_head.weight to model.embed_tokens.weight, but they differ"):
        load(changed(original, other, lambda tensors: add(tensors, 1.0)))
    edit_config(other, tie_word_embeddings=False)
    untied = load(other)
    assert torch.equal(untied.lm_head.weight, untied.get_input_embeddings().weight + 1.0)


def test_files_that_are_cut_off_are_refused(original: Path, sharded: Path, tmp_path: Path) -> None:
    weights = copied(original, tmp_path) / WEIGHTS
    content = weights.read_bytes()
    for kept in (len(content) - 1, len(content) // 2, 100, 4, 0):
        weights.write_bytes(content[:kept])
        with pytest.raises(CheckpointError, match=r"cut off|not a safetensors file"):
            load(tmp_path)
    weights.write_bytes(content + b"\0")
    with pytest.raises(CheckpointError, match="cut off or was changed"):
        load(tmp_path)
    weights.write_bytes(struct.pack("<Q", 20) + b'{"x": {"dtype": "F3"')
    with pytest.raises(CheckpointError, match="broken header"):
        load(tmp_path)


def test_a_pointer_of_git_lfs_is_named_as_such(original: Path, tmp_path: Path) -> None:
    copied(original, tmp_path)
    (tmp_path / WEIGHTS).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(CheckpointError, match="git lfs pull"):
        load(tmp_path)


def test_shards_must_be_complete_and_belong_to_their_index(sharded: Path, tmp_path: Path) -> None:
    copied(sharded, tmp_path)
    shards = sorted(tmp_path.glob("model-*"))
    assert len(shards) > 1
    index = json.loads((tmp_path / INDEX).read_text())
    moved = {**index, "weight_map": dict.fromkeys(index["weight_map"], shards[0].name) | {"x": shards[1].name}}
    (tmp_path / INDEX).write_text(json.dumps(moved))
    with pytest.raises(CheckpointError, match="does not belong to its shards"):
        load(tmp_path)
    (tmp_path / INDEX).write_text("{}")
    with pytest.raises(CheckpointError, match=INDEX):
        load(tmp_path)
    (tmp_path / INDEX).write_text(json.dumps(index))
    shards[-1].unlink()
    with pytest.raises(CheckpointError, match=shards[-1].name):
        load(tmp_path)


def test_folders_that_are_no_checkpoint_are_refused(original: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"config\.json"):
        load(tmp_path)
    with pytest.raises(CheckpointError, match="neither a folder"):
        load(tmp_path / "nothing")
    with pytest.raises(CheckpointError, match="spatial-mllm download someone/something-that-nobody-has"):
        load("someone/something-that-nobody-has")
    copied(original, tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="is not JSON"):
        load(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(CheckpointError, match="does not hold a configuration"):
        load(tmp_path)


def test_another_model_is_not_taken_for_a_spatial_one(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path, family="qwen2_5_vl")
    with pytest.raises(CheckpointError, match="type 'qwen2_5_vl' without a spatial encoder"):
        load(folder)


def test_the_checkpoint_must_be_that_of_its_configuration(original: Path, tmp_path: Path) -> None:
    copied(original, tmp_path)
    edit_config(tmp_path, num_hidden_layers=3)
    with pytest.raises(CheckpointError, match=r"12 missing: model\.layers\.2\."):
        load(tmp_path)
