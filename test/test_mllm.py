"""Spatial-MLLM: what the published code computed, batches, and what is refused."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shared_data import shared_folder

torch = pytest.importorskip("torch", reason="models need torch (the extra `model`)")
pytest.importorskip("transformers", reason="models need transformers (the extra `model`)")

from transformers import AutoConfig, AutoModelForImageTextToText  # noqa: E402

from spatial_mllm_ros import models  # noqa: E402
from spatial_mllm_ros.models.mllm.config import MERGE_ORDERS, SpatialMLLMConfig  # noqa: E402
from spatial_mllm_ros.models.mllm.connector import merge_blocks  # noqa: E402
from spatial_mllm_ros.models.mllm.positions import rope_index, text_positions, video_positions  # noqa: E402
from spatial_mllm_ros.models.mllm.random_weights import build_random_model, make_config  # noqa: E402
from spatial_mllm_ros.models.mllm.spatial_mllm import SpatialMLLMForConditionalGeneration  # noqa: E402
from spatial_mllm_ros.models.vggt.processing import frames_of_patches, patches_of_pair  # noqa: E402
from spatial_mllm_ros.models.weights.checkpoint import module_name, shapes_of  # noqa: E402

IMAGE, VIDEO = 501, 502


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.no_grad():
        yield
    torch.set_num_threads(threads)


def _reference_folders() -> list[Any]:
    folder = shared_folder()
    found = sorted(folder.glob("reference/*/parity.npz")) if folder else []
    missing = pytest.param(None, marks=pytest.mark.skip(reason="no recorded model in shared/reference"))
    return [pytest.param(path.parent, id=path.parent.name) for path in found] or [missing]


class Recorded:
    """A published checkpoint as a user loads it, with what the published code returned for its inputs."""

    def __init__(self, folder: Path, attention: str) -> None:
        config = SpatialMLLMConfig.from_pretrained(folder)
        self.model = SpatialMLLMForConditionalGeneration.from_pretrained(
            folder, config=config, torch_dtype="float32", device_map="cpu", attn_implementation=attention
        )
        with np.load(folder / "parity.npz") as arrays:
            self.values = {name: torch.from_numpy(np.asarray(arrays[name])) for name in arrays.files}

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    def batch(self) -> dict[str, Any]:
        """What the published inference script gives to ``generate``."""
        names = ("input_ids", "attention_mask", "pixel_values_videos", "video_grid_thw", "second_per_grid_ts")
        return {name: self[name] for name in names} | {"video_tchw": [self["video_tchw"]], "image_tchw": None}


@pytest.fixture(scope="module", params=_reference_folders())
def folder(request: pytest.FixtureRequest) -> Path:
    return Path(request.param)


@pytest.fixture(scope="module", params=["sdpa", "eager"])
def recorded(folder: Path, request: pytest.FixtureRequest) -> Recorded:
    return Recorded(folder, request.param)


def agrees(found: Any, expected: Any, tolerance: float = 1e-4) -> None:
    """Both the norm of the difference and its largest element, relative to the expected ones."""
    difference = (found - expected).double()
    assert found.shape == expected.shape
    assert float(difference.norm()) <= tolerance * float(expected.double().norm())
    assert float(difference.abs().max()) <= tolerance * float(expected.double().abs().max())


def test_features_are_those_of_the_published_code(recorded: Recorded) -> None:
    model, grid = recorded.model, recorded["video_grid_thw"]
    video = model.encode_2d(recorded["pixel_values_videos"], grid)
    agrees(video, recorded["video_embeds"])
    spatial = model.encode_3d(recorded["video_tchw"])
    agrees(spatial, recorded["spatial_layers"][model.config.spatial_layer][:, int(recorded["patch_start_idx"]) :])
    agrees(model.fuse(video, spatial, grid), recorded["fused_embeds"])
    assert torch.equal(
        model.encode_videos(recorded["pixel_values_videos"], grid, [recorded["video_tchw"]]),
        model.fuse(video, spatial, grid),
    )


def test_frame_pairs_are_encoded_by_themselves(recorded: Recorded) -> None:
    """The warm context keeps the tokens of each pair."""
    model, (t, h, w) = recorded.model, recorded["video_grid_thw"][0].tolist()
    pairs = [model.encode_pair_2d(patches, (1, h, w)) for patches in recorded["pixel_values_videos"].chunk(t)]
    agrees(torch.cat(pairs), recorded["video_embeds"], 1e-5)
    with pytest.raises(ValueError, match="one frame pair"):
        model.encode_pair_2d(recorded["pixel_values_videos"], (t, h, w))


def test_positions_are_those_of_the_published_code(recorded: Recorded) -> None:
    names = ("input_ids", "video_grid_thw", "second_per_grid_ts", "attention_mask")
    positions, deltas = recorded.model.get_rope_index(**{name: recorded[name] for name in names})
    assert torch.equal(positions, recorded["position_ids"])
    assert int(deltas) == int(positions.max()) + 1 - positions.shape[-1]


def test_logits_are_those_of_the_published_code(recorded: Recorded) -> None:
    output = recorded.model(**recorded.batch())
    agrees(output.logits, recorded["logits"])
    assert torch.equal(recorded.model(**recorded.batch(), return_dict=False)[0], output.logits)
    agrees(recorded.model(**recorded.batch(), logits_to_keep=1).logits, output.logits[:, -1:], 1e-5)


@pytest.mark.parametrize("use_cache", [True, False])
def test_generate_writes_what_the_published_code_wrote(recorded: Recorded, use_cache: bool) -> None:
    steps = recorded["step_logits"].shape[1]
    result = recorded.model.generate(
        **recorded.batch(),
        max_new_tokens=steps,
        do_sample=False,
        use_cache=use_cache,
        eos_token_id=None,
        output_logits=True,
        return_dict_in_generate=True,
    )
    assert torch.equal(result.sequences, recorded["generated"])
    agrees(torch.stack(result.logits, dim=1), recorded["step_logits"])


def test_a_loop_over_tokens_writes_the_same(recorded: Recorded) -> None:
    output = recorded.model(**recorded.batch(), use_cache=True)
    written, logits = [], []
    for _ in range(recorded["step_logits"].shape[1]):
        logits.append(output.logits[:, -1])
        written.append(logits[-1].argmax(-1, keepdim=True))
        output = recorded.model(input_ids=written[-1], past_key_values=output.past_key_values)
    assert torch.equal(torch.cat([recorded["input_ids"], *written], dim=1), recorded["generated"])
    agrees(torch.stack(logits, dim=1), recorded["step_logits"])


def test_the_full_size_has_the_published_names_and_shapes(shared: Path) -> None:
    expected = json.loads((shared / "reference" / "spatial_mllm_v1_1_tensors.json").read_text())
    with torch.device("meta"):
        model = SpatialMLLMForConditionalGeneration(make_config("full", heads=("camera", "depth", "point", "track")))
    assert shapes_of(model) == {module_name(name): tuple(shape) for name, shape in expected.items()}


def test_auto_classes_know_the_model(folder: Path) -> None:
    assert isinstance(AutoConfig.from_pretrained(folder), SpatialMLLMConfig)
    model = AutoModelForImageTextToText.from_pretrained(folder)
    assert isinstance(model, models.SpatialMLLMForConditionalGeneration)


# ---- batches


@pytest.fixture(scope="module")
def model() -> Any:
    return _random_model()


def _random_model(version: str = "v1.1") -> Any:
    config = make_config("tiny", version=version)
    config.image_token_id, config.video_token_id = IMAGE, VIDEO
    config.text_config.vocab_size = 512
    return build_random_model(config, torch.float32)


def _clip(pairs: int, rows: int, columns: int, seed: int) -> dict[str, Any]:
    """Frames and patches of a video; the patches are noise of their own, so that both branches matter."""
    generator = torch.Generator().manual_seed(seed)
    grid = (pairs, rows, columns)
    return {
        "frames": torch.rand(2 * pairs, 3, 14 * rows, 14 * columns, generator=generator),
        "patches": torch.randn(pairs * rows * columns, 1176, generator=generator),
        "grid": grid,
        "tokens": pairs * rows * columns // 4,
    }


def _inputs(sequences: list[list[Any]], **more: Any) -> dict[str, Any]:
    """A left-padded batch. A sequence is made of token ids, and (kind, clip) for images and videos."""
    rows, found = [], {"image": [], "video": []}
    for sequence in sequences:
        row = []
        for item in sequence:
            if isinstance(item, int):
                row.append(item)
            else:
                kind, clip = item
                row += [503, *[IMAGE if kind == "image" else VIDEO] * clip["tokens"], 504]
                found[kind].append(clip)
        rows.append(row)
    width = max(map(len, rows))
    inputs: dict[str, Any] = {
        "input_ids": torch.tensor([[0] * (width - len(row)) + row for row in rows]),
        "attention_mask": torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows]),
    }
    for kind, patches in (("image", "pixel_values"), ("video", "pixel_values_videos")):
        if found[kind]:
            inputs[f"{kind}_tchw"] = [clip["frames"] for clip in found[kind]]
            inputs[f"{kind}_grid_thw"] = torch.tensor([clip["grid"] for clip in found[kind]])
            inputs[patches] = torch.cat([clip["patches"] for clip in found[kind]])
    if found["video"]:
        inputs["second_per_grid_ts"] = torch.tensor([0.5 + i for i in range(len(found["video"]))])
    return inputs | more


def test_a_padded_batch_answers_as_its_sequences_do_alone(model: Any) -> None:
    a, b, c = _clip(3, 4, 6, 1), _clip(1, 4, 4, 2), _clip(2, 4, 4, 3)
    still = _clip(1, 4, 6, 4)
    sequences = [[7, ("video", a), 8, 9, 10], [11, ("video", b), 12, ("video", c), 13], [14, ("image", still), 15]]
    together = _inputs(sequences)
    wanted = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    wanted |= {"output_logits": True, "return_dict_in_generate": True}
    batch = model.generate(**together, **wanted)
    start = 0
    for row, sequence in enumerate(sequences):
        alone = _inputs([sequence])
        videos = sum(item[0] == "video" for item in sequence if not isinstance(item, int))
        if videos:
            alone["second_per_grid_ts"] = together["second_per_grid_ts"][start : start + videos]
            start += videos
        result = model.generate(**alone, **wanted)
        assert torch.equal(result.sequences[0, alone["input_ids"].shape[1] :], batch.sequences[row, -6:])
        agrees(torch.stack(batch.logits, dim=1)[row], torch.stack(result.logits, dim=1)[0], 1e-4)


def test_text_alone_needs_no_video(model: Any) -> None:
    ids = torch.tensor([[0, 0, 5, 6, 7], [1, 2, 3, 4, 5]])
    mask = torch.tensor([[0, 0, 1, 1, 1], [1] * 5])
    logits = model(input_ids=ids, attention_mask=mask).logits
    agrees(logits[:1, 2:], model(input_ids=ids[:1, 2:]).logits)
    wanted = {"max_new_tokens": 4, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    written = model.generate(input_ids=ids, attention_mask=mask, **wanted)[:, 5:]
    embeds = model.embed(ids)
    assert torch.equal(model.generate(inputs_embeds=embeds, attention_mask=mask, **wanted), written)
    agrees(model(inputs_embeds=embeds, attention_mask=mask).logits[:, 2:], logits[:, 2:])


def test_a_conversation_goes_on_from_its_cache(model: Any) -> None:
    inputs = _inputs([[7, ("video", _clip(2, 4, 4, 5)), 8, 9]])
    wanted = {"max_new_tokens": 4, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    first = model.generate(**inputs, **wanted, return_dict_in_generate=True)
    ids = torch.cat([first.sequences, torch.tensor([[20, 21, 22]])], dim=1)
    mask = torch.ones_like(ids)
    visual = {name: value for name, value in inputs.items() if name not in ("input_ids", "attention_mask")}
    again = model.generate(input_ids=ids, attention_mask=mask, **visual, **wanted)
    first = model.generate(**inputs, **wanted, return_dict_in_generate=True)  # leaves its positions behind
    cache = first.past_key_values
    going_on = model.generate(input_ids=ids, attention_mask=mask, past_key_values=cache, **wanted)
    assert torch.equal(going_on, again)


@pytest.mark.parametrize("version", ["v1.1", "v1.0"])
def test_videos_may_come_as_one_tensor(version: str) -> None:
    model = _random_model(version)
    a, b = _clip(1, 4, 4, 6), _clip(1, 4, 4, 7)
    inputs = _inputs([[1, ("video", a), 2], [1, ("video", b), 2]])
    expected = model(**inputs).logits
    inputs["video_tchw"] = torch.stack(inputs["video_tchw"])
    assert torch.equal(model(**inputs).logits, expected)
    inputs["videos_input"] = inputs.pop("video_tchw")  # as v1.0 called them
    assert torch.equal(model(**inputs).logits, expected)
    one = _inputs([[1, ("video", a), 2]])
    one["video_tchw"] = one["video_tchw"][0]
    agrees(model(**one).logits, expected[:1])


def test_v1_0_doubles_the_spatial_tokens_of_an_image() -> None:
    model = _random_model("v1.0")
    still = _clip(1, 4, 4, 8)
    spatial = model.encode_3d(still["frames"][:1]).repeat_interleave(2, dim=0)
    grid = torch.tensor([still["grid"]])
    expected = model.fuse(model.encode_2d(still["patches"], grid), spatial, grid)
    for frames in (still["frames"][:1], still["frames"][0]):
        assert torch.equal(model.encode_videos(still["patches"], grid, [frames], still=True), expected)


def test_labels_give_the_loss_of_the_next_token(model: Any) -> None:
    ids = torch.tensor([[1, 2, 3, 4]])
    output = model(input_ids=ids, labels=torch.tensor([[-100, -100, 3, 4]]))
    chances = output.logits[0].log_softmax(-1)
    assert float(output.loss) == pytest.approx(-float(chances[1, 3] + chances[2, 4]) / 2, rel=1e-5)


def test_v1_1_refuses_what_its_code_has_no_path_for(model: Any) -> None:
    still, clip = _clip(1, 4, 4, 9), _clip(2, 4, 4, 10)
    with pytest.raises(ValueError, match="give a still image twice"):
        model(**_inputs([[1, ("image", still | {"frames": still["frames"][:1]})]]))
    with pytest.raises(ValueError, match="leave one out"):
        model(**_inputs([[1, ("video", clip | {"frames": clip["frames"][:3]})]]))


def test_inputs_that_do_not_belong_together_are_refused(model: Any) -> None:
    clip, other = _clip(2, 4, 4, 11), _clip(2, 4, 6, 12)
    inputs = _inputs([[1, ("video", clip), 2]])
    with pytest.raises(ValueError, match="needs video_grid_thw"):
        model(**{name: value for name, value in inputs.items() if name != "video_grid_thw"})
    with pytest.raises(ValueError, match="do not fit the grid"):
        model(**{**inputs, "video_tchw": [other["frames"]]})
    with pytest.raises(ValueError, match="does not fit the grids"):
        model(**{**inputs, "video_tchw": [torch.cat([clip["frames"]] * 2)]})
    with pytest.raises(ValueError, match="0 of 1 grids"):
        model(**{**inputs, "video_tchw": []})
    with pytest.raises(ValueError, match="has 7 video tokens, the videos have 8"):
        model(**{**inputs, "input_ids": inputs["input_ids"].index_fill(1, torch.tensor([2]), 5)})
    with pytest.raises(ValueError, match="0 images and 1 videos, the grids 0 and 2"):
        model.get_rope_index(inputs["input_ids"], None, inputs["video_grid_thw"].repeat(2, 1), [1.0, 1.0])
    with pytest.raises(ValueError, match="2 numbers for 1 videos"):
        model.get_rope_index(inputs["input_ids"], None, inputs["video_grid_thw"], [1.0, 1.0])
    with pytest.raises(ValueError, match="give input_ids"):
        model()


# ---- positions


def test_text_goes_on_after_the_time_of_a_long_video() -> None:
    positions, after = video_positions((20, 4, 4), 5, seconds_per_grid=1.0, tokens_per_second=2)
    assert positions[0].max() == 5 + 38
    assert after == 5 + 39
    short, after = video_positions((2, 4, 12), 5, seconds_per_grid=0.5, tokens_per_second=2)
    assert short[0].max() == 6
    assert after == 5 + 6


def test_time_is_rounded_down_in_float32() -> None:
    """0.3 s a pair: float64 would say 5 for the third pair at 30 positions a second and less elsewhere."""
    positions, _ = video_positions((4, 2, 2), seconds_per_grid=0.3, tokens_per_second=10)
    expected = [int(np.float32(np.float32(i) * np.float32(0.3)) * np.float32(10)) for i in range(4)]
    assert positions[0].tolist() == expected


GRIDS = st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(1, 3))


@settings(max_examples=50, deadline=None)
@given(
    parts=st.lists(st.tuples(st.integers(0, 4), st.sampled_from([IMAGE, VIDEO]), GRIDS), max_size=3),
    tail=st.integers(1, 4),
    padding=st.integers(0, 3),
)
def test_positions_of_a_sequence_are_its_parts_in_a_row(parts: Any, tail: int, padding: int) -> None:
    ids, pieces, place = [], [], 0
    grids: dict[int, list[Any]] = {IMAGE: [], VIDEO: []}
    for text, kind, (t, h, w) in parts:
        pieces.append(text_positions(text, place))
        place = pieces[-1][1]
        seconds = 1.5 + len(grids[VIDEO]) if kind == VIDEO else 0.0
        pieces.append(video_positions((t, 2 * h, 2 * w), place, seconds_per_grid=seconds))
        place = pieces[-1][1]
        ids += [1] * text + [kind] * (t * h * w)
        grids[kind].append((t, 2 * h, 2 * w))
    pieces.append(text_positions(tail, place))
    ids += [1] * tail
    positions, deltas = rope_index(
        torch.tensor([[0] * padding + ids]),
        image_token_id=IMAGE,
        video_token_id=VIDEO,
        image_grid_thw=torch.tensor(grids[IMAGE]) if grids[IMAGE] else None,
        video_grid_thw=torch.tensor(grids[VIDEO]) if grids[VIDEO] else None,
        second_per_grid_ts=[1.5 + i for i in range(len(grids[VIDEO]))],
        attention_mask=torch.tensor([[0] * padding + [1] * len(ids)]),
    )
    assert torch.equal(positions[:, 0, padding:], torch.cat([piece for piece, _ in pieces], dim=1))
    assert int(deltas) + padding + len(ids) == pieces[-1][1]


# ---- the connector


@pytest.mark.parametrize("order", MERGE_ORDERS)
def test_blocks_are_flattened_in_the_order_of_the_version(order: str) -> None:
    """Written out: every element of every block, from the words of the specification."""
    tokens = torch.arange(4 * 24 * 3).reshape(4, 24, 3)
    merged = merge_blocks(tokens, (4, 6), order=order)
    image = tokens.reshape(4, 4, 6, 3)
    expected = []
    for pair, row, column in np.ndindex(2, 2, 3):
        if order == MERGE_ORDERS[0]:
            inner = [(t, i, j, c) for i in (0, 1) for j in (0, 1) for c in range(3) for t in (0, 1)]
        else:
            inner = [(t, i, j, c) for t in (0, 1) for i in (0, 1) for j in (0, 1) for c in range(3)]
        expected.append([int(image[2 * pair + t, 2 * row + i, 2 * column + j, c]) for t, i, j, c in inner])
    assert merged.tolist() == expected


def test_a_connector_that_is_not_known_is_refused() -> None:
    with pytest.raises(ValueError, match="connector_type 'cross_attn' is not known"):
        SpatialMLLMConfig(connector_config={"connector_type": "cross_attn"})
    with pytest.raises(ValueError, match="merge_order 'zigzag' is not known"):
        SpatialMLLMConfig(connector_config={"merge_order": "zigzag"})
    with pytest.raises(ValueError, match="merge order 'zigzag' is not known"):
        merge_blocks(torch.zeros(2, 4, 1), (2, 2), order="zigzag")


def test_what_is_offered_is_there() -> None:
    assert all(getattr(models, name) is not None for name in models.__all__)
    assert set(models.__all__) <= set(dir(models))
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = models.nothing


def test_without_frames_they_are_recovered_from_the_patches() -> None:
    """As a stock processor and a trainer give them."""
    for version in ("v1.1", "v1.0"):
        model = _random_model(version)
        a, b, still = _clip(2, 4, 6, 21), _clip(1, 4, 4, 22), _clip(1, 4, 4, 23)
        still["frames"] = still["frames"][:1].repeat(2, 1, 1, 1)
        for clip in (a, b, still):
            pairs = zip(clip["frames"][::2], clip["frames"][1::2], strict=True)
            clip["patches"] = torch.cat([patches_of_pair(first, second) for first, second in pairs])
        if version == "v1.0":
            still["frames"] = still["frames"][:1]
        inputs = _inputs([[1, ("video", a), 2, ("image", still)], [1, ("video", b), 2, ("image", still)]])
        expected = model(**inputs).logits
        bare = {name: value for name, value in inputs.items() if not name.endswith("_tchw")}
        agrees(model(**bare).logits, expected)


def test_frames_of_8_bits_are_recovered_to_the_last_bit() -> None:
    frames = torch.randint(0, 256, (4, 3, 56, 84), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    patches = torch.cat([patches_of_pair(frames[0], frames[1]), patches_of_pair(frames[2], frames[3])])
    assert torch.equal(frames_of_patches(patches, (2, 4, 6)), frames.float() / 255)
    with pytest.raises(ValueError, match="do not fit the grid"):
        frames_of_patches(patches, (2, 4, 4))


def test_a_loss_through_the_base_model_reaches_the_connector() -> None:
    """Trainers never call the outer forward; without the fusion in the base model they train a blind one."""
    model = _random_model("v1.1")
    inputs = _inputs([[1, ("video", _clip(1, 4, 4, 24)), 2, 3]])
    inputs.pop("video_tchw")
    with torch.enable_grad():
        hidden = model.base_model(**{k: v for k, v in inputs.items() if k != "image_tchw"}).last_hidden_state
        model.lm_head(hidden).log_softmax(-1)[0, :-1].gather(-1, inputs["input_ids"][0, 1:, None]).sum().backward()
    gradients = [p.grad for p in model.connector.parameters()]
    assert all(g is not None and float(g.abs().max()) > 0 for g in gradients), "the connector got no gradient"
    model.zero_grad()


def test_a_copy_uses_its_own_connector() -> None:
    model = _random_model("v1.1")
    copied = copy.deepcopy(model)
    assert copied.model.connector is copied.connector
    assert copied.model.connector is not model.connector
    copied.connector = torch.nn.Identity()  # as an adapter wraps it
    assert copied.model.connector is copied.connector
    assert not [name for name in model.state_dict() if "_outer" in name]
