"""VGGT: what the published code computed, and what must hold for any weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from spatial_mllm_ros.models.vggt.config import HEADS, TrackerSizes, VGGTConfig

torch = pytest.importorskip("torch", reason="VGGT needs torch (the extra `model`)")

from spatial_mllm_ros.models.vggt.aggregator import Aggregator  # noqa: E402
from spatial_mllm_ros.models.vggt.layers import rope_tables, rotate  # noqa: E402
from spatial_mllm_ros.models.vggt.pose_encoding import cameras, rotations  # noqa: E402
from spatial_mllm_ros.models.vggt.vggt import VGGT  # noqa: E402

PREFIX = "spatial_encoder.vggt_model."
GEOMETRY = ("camera", "depth", "point")
SMALL = {
    "img_size": 42,
    "patch_size": 14,
    "embed_dim": 48,
    "depth": 3,
    "num_heads": 3,
    "patch_embed_depth": 2,
    "patch_embed_num_heads": 4,
    "camera_trunk_depth": 1,
    "camera_num_heads": 2,
    "dpt_features": 16,
    "dpt_out_channels": [8, 12, 16, 20],
    "dpt_layers": [0, 1, 1, -1],
}


@pytest.fixture(autouse=True)
def _no_gradients() -> Any:
    with torch.inference_mode():
        yield


@pytest.fixture(scope="module")
def small() -> VGGT:
    """A VGGT whose every parameter is random, so that no part is idle."""
    torch.manual_seed(1)
    model = VGGT(VGGTConfig.from_dict(SMALL), heads=GEOMETRY)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape) * (0.2 if parameter.ndim == 1 else 0.1))
    return model


def frames(count: int, height: int = 42, width: int = 56, seed: int = 0) -> Any:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(seed))


def relative_error(value: Any, recorded: Any) -> float:
    """Largest deviation by largest value, where the recorded values are finite; infinite ones must be the same."""
    finite = torch.isfinite(recorded)
    assert torch.equal(value[~finite], recorded[~finite])
    return float((value - recorded)[finite].abs().max() / recorded[finite].abs().max())


@pytest.fixture(scope="module")
def recorded(shared: Path) -> Any:
    return np.load(shared / "reference" / "spatial_mllm_tiny" / "parity.npz")


@pytest.fixture(scope="module")
def tiny(shared: Path) -> VGGT:
    """The recorded checkpoint, loaded as checkpoints are: built without memory, every tensor in its place."""
    safetensors = pytest.importorskip("safetensors.torch", reason="checkpoints need safetensors (the extra `model`)")
    folder = shared / "reference" / "spatial_mllm_tiny"
    config = VGGTConfig.from_dict(json.loads((folder / "config.json").read_text())["spatial_config"])
    tensors = safetensors.load_file(folder / "model.safetensors")
    with torch.device("meta"):
        model = VGGT(config, heads=GEOMETRY)
    own = {name.removeprefix(PREFIX): tensor for name, tensor in tensors.items() if name.startswith(PREFIX)}
    model.load_state_dict(own, strict=True, assign=True)
    return model


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_every_recorded_output_of_the_aggregator(tiny: VGGT, recorded: Any, attention: str) -> None:
    tiny.attention = attention
    layers, start = tiny.aggregator(torch.tensor(recorded["video_tchw"]))
    assert start == recorded["patch_start_idx"]
    assert len(layers) == len(recorded["spatial_layers"])
    for layer, expected in zip(layers, torch.tensor(recorded["spatial_layers"]), strict=True):
        assert relative_error(layer, expected) < 1e-5
        torch.testing.assert_close(layer, expected, rtol=1e-4, atol=1e-5)


def test_every_recorded_output_of_the_heads(tiny: VGGT, recorded: Any) -> None:
    tiny.attention = "sdpa"
    geometry = tiny(torch.tensor(recorded["video_tchw"]))
    names = [name for name in recorded if name.startswith("vggt_")]
    assert len(names) == 7
    for name in names:
        expected = torch.tensor(recorded[name])[0]  # recorded as a batch of one
        value = getattr(geometry, name.removeprefix("vggt_"))
        assert value.shape == expected.shape
        assert relative_error(value, expected) < 1e-5, name
        torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-5)


def test_names_and_shapes_at_full_size(shared: Path) -> None:
    listed = json.loads((shared / "reference" / "spatial_mllm_v1_1_tensors.json").read_text())
    published = {name.removeprefix(PREFIX): tuple(shape) for name, shape in listed.items() if name.startswith(PREFIX)}
    with torch.device("meta"):
        model = VGGT(VGGTConfig.from_dict({"model_type": "vggt_spatial_encoder"}), heads=HEADS)
    assert {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()} == published
    assert TrackerSizes.from_shapes(published) == TrackerSizes()


def test_built_without_memory_there_are_parameters_only() -> None:
    with torch.device("meta"):
        model = VGGT(VGGTConfig(), heads=HEADS)
    assert list(model.buffers()) == []
    assert all(parameter.is_meta for parameter in model.parameters())
    assert sum(p.numel() for p in model.aggregator.parameters()) == 909_112_320
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    for name, shape in {
        "aggregator.patch_embed.pos_embed": (1, 1370, 1024),
        "aggregator.patch_embed.blocks.23.ls2.gamma": (1024,),
        "aggregator.register_token": (1, 2, 4, 1024),
        "aggregator.frame_blocks.0.attn.q_norm.weight": (64,),
        "aggregator.global_blocks.23.mlp.fc1.weight": (4096, 1024),
        "camera_head.poseLN_modulation.1.weight": (6144, 2048),
        "depth_head.scratch.output_conv2.2.weight": (2, 32, 1, 1),
        "point_head.scratch.refinenet1.resConfUnit1.conv2.bias": (256,),
        "track_head.tracker.updateformer.virual_tracks": (1, 64, 1, 384),
    }.items():
        assert shapes[name] == shape
    assert "depth_head.scratch.refinenet4.resConfUnit1.conv1.weight" not in shapes  # the coarsest level is not added


def test_only_the_heads_asked_for_are_there() -> None:
    with torch.device("meta"):
        assert {name.split(".")[0] for name in VGGT(VGGTConfig.from_dict(SMALL)).state_dict()} == {"aggregator"}
    with pytest.raises(ValueError, match="wings are not known"):
        VGGT(VGGTConfig.from_dict(SMALL), heads=["wings"])


def test_a_frame_is_looked_at_by_itself(small: VGGT) -> None:
    """To the last bit, so that tokens kept of a frame are those that a fresh look would give."""
    clip = frames(5)
    together = small.aggregator.frame_tokens(clip)
    assert torch.equal(together, torch.cat([small.aggregator.frame_tokens(frame[None]) for frame in clip]))
    assert torch.equal(together[[3, 0]], small.aggregator.frame_tokens(clip[[3, 0]]))


def test_the_order_of_the_frames_after_the_first_does_not_matter(small: VGGT) -> None:
    order = [0, 3, 1, 4, 2]
    (there,), _ = small.aggregator(frames(5), layers=[-1])
    (here,), _ = small.aggregator(frames(5)[order], layers=[-1])
    torch.testing.assert_close(here, there[order], rtol=1e-4, atol=1e-5)
    (other,), _ = small.aggregator(frames(5)[[1, 0, 2, 3, 4]], layers=[-1])
    assert relative_error(other, there[[1, 0, 2, 3, 4]]) > 1e-3


@pytest.mark.parametrize("size", [(42, 42), (28, 84), (84, 14)])
@pytest.mark.parametrize("count", [1, 3])
def test_any_size_and_number_of_frames(small: VGGT, size: tuple[int, int], count: int) -> None:
    clip = frames(count, *size)
    layers, start = small.aggregator(clip)
    assert start == 5
    assert [tuple(layer.shape) for layer in layers] == [(count, 5 + size[0] * size[1] // 196, 96)] * 3
    geometry = small(clip)
    assert geometry.depth.shape == (count, *size, 1)
    assert geometry.world_points.shape == (count, *size, 3)
    assert geometry.depth_conf.shape == geometry.world_points_conf.shape == (count, *size)
    assert geometry.extrinsic.shape == (count, 3, 4)
    assert geometry.intrinsic.shape == (count, 3, 3)
    assert all(torch.isfinite(part).all() for part in (geometry.depth, geometry.world_points, geometry.pose_enc))


def test_a_batch_is_its_clips(small: VGGT) -> None:
    clips = torch.stack((frames(2), frames(2, seed=1)))
    layers, _ = small.aggregator(clips)
    assert torch.equal(layers[-1][1], small.aggregator(clips[1])[0][-1])
    assert torch.equal(small(clips).depth[0], small(clips[0]).depth)
    assert VGGT(small.config)(clips).depth is None


def test_steps_end_where_the_whole_ends(small: VGGT) -> None:
    clip = frames(3)
    tokens = small.aggregator.frame_tokens(clip)
    steps = small.aggregator.aggregate_steps(tokens, (42, 56), layers=(-1, 2, 0))
    done = []
    while True:
        try:
            done.append(next(steps))
        except StopIteration as finished:
            outputs = finished.value
            break
    assert done == [1, 2, 3, 4, 5, 6]
    assert list(outputs) == [-1, 2, 0]
    layers, _ = small.aggregator(clip)
    assert torch.equal(outputs[-1], layers[2])
    assert torch.equal(outputs[2], layers[2])
    assert torch.equal(outputs[0], layers[0])


def test_blocks_after_the_last_layer_wanted_are_not_run_and_a_step_may_end_it(small: VGGT) -> None:
    tokens = small.aggregator.frame_tokens(frames(2))
    done: list[int] = []
    small.aggregator.aggregate(tokens, (42, 56), layers=(0, -2), step=done.append)
    assert done == [1, 2, 3, 4]

    def enough(_: int) -> None:
        raise TimeoutError

    with pytest.raises(TimeoutError):
        small.aggregator.aggregate(tokens, (42, 56), step=enough)


def test_eager_is_sdpa(small: VGGT) -> None:
    clip = frames(3)
    try:
        expected = small(clip)
        small.attention = "eager"
        assert small.attention == small.aggregator.attention == "eager"
        eager = small(clip)
        torch.testing.assert_close(eager.world_points, expected.world_points, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(eager.pose_enc, expected.pose_enc, rtol=1e-4, atol=1e-5)
        assert not torch.equal(eager.world_points, expected.world_points)  # another way was taken
        small.attention = "flash"
        with pytest.raises(ValueError, match="flash attention computes float16 and bfloat16 on CUDA"):
            small(clip)
        with pytest.raises(ValueError, match="attention 'fast' is not known"):
            small.attention = "fast"
    finally:
        small.attention = "sdpa"


def test_bfloat16_beside_heads_in_float32(small: VGGT) -> None:
    half = VGGT(small.config, heads=GEOMETRY)
    half.load_state_dict(small.state_dict())
    half.aggregator.to(torch.bfloat16)
    clip = frames(3)
    (tokens,), _ = half.aggregator(clip, layers=[-1])
    assert tokens.dtype == torch.bfloat16
    assert relative_error(tokens.float(), small.aggregator(clip, layers=[-1])[0][0]) < 0.1
    assert half(clip).depth.dtype == torch.float32
    half.to(torch.bfloat16)
    assert half(clip).depth.dtype == torch.bfloat16
    assert half(clip).extrinsic.dtype == torch.float32


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16"])
def test_frames_of_any_dtype(small: VGGT, dtype: str) -> None:
    clip = (frames(2) * 255).round() / 256  # exact in all of them
    tokens = small.aggregator.frame_tokens(clip.to(getattr(torch, dtype)))
    assert torch.equal(tokens, small.aggregator.frame_tokens(clip))


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        ((3, 42, 42), r"must be \[T, 3, height, width\]"),
        ((0, 3, 42, 42), "T at least 1"),
        ((2, 1, 42, 42), r"not \[2, 1, 42, 42\]"),
        ((2, 3, 42, 50), "50x42 px: both sides must be multiples of 14"),
    ],
)
def test_frames_that_are_none(small: VGGT, shape: tuple[int, ...], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        small.aggregator.frame_tokens(torch.zeros(shape))


def test_outputs_that_are_not_there(small: VGGT) -> None:
    tokens = small.aggregator.frame_tokens(frames(2))
    with pytest.raises(ValueError, match="layer 3 of an aggregator with 3"):
        small.aggregator.aggregate(tokens, (42, 56), layers=(3,))
    with pytest.raises(ValueError, match=r"are not \[T, 9, channels\]"):
        small.aggregator.aggregate(tokens, (42, 42))


def test_position_embedding_of_other_grids(small: VGGT) -> None:
    embedding = small.aggregator.patch_embed
    assert embedding.position_embedding(3, 3) is embedding.pos_embed
    other = embedding.position_embedding(2, 7)
    assert other.shape == (1, 15, 48)
    assert torch.equal(other[:, 0], embedding.pos_embed[:, 0])
    level = Aggregator(small.config).patch_embed
    level.pos_embed.data.fill_(0.5)
    torch.testing.assert_close(level.position_embedding(2, 7), torch.full((1, 15, 48), 0.5))


def test_rotary_embedding_tells_differences_of_position() -> None:
    rope = rope_tables((4, 5), special=2, head_dim=16, device=torch.device("cpu"), dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    query, key = torch.randn(2, 16, generator=generator, dtype=torch.float64)
    turned_query, turned_key = (rotate(x.expand(1, 1, 22, 16), rope)[0, 0] for x in (query, key))
    torch.testing.assert_close(turned_query[:2], query.expand(2, 16))  # special tokens stand at (0, 0)
    product = (turned_query[2:] @ turned_key[2:].T).view(4, 5, 4, 5)
    # Angles are float32 whatever the dtype.
    torch.testing.assert_close(product[1:, 1:, 1:, 1:], product[:-1, :-1, :-1, :-1], rtol=1e-5, atol=1e-5)
    assert not torch.allclose(product[1, 0, 0, 0], product[0, 1, 0, 0])
    twice = rotate(query.expand(1, 1, 44, 16), rope)[0, 0]
    assert torch.equal(twice[:22], twice[22:])  # each frame alike


def test_cameras_of_pose_encodings() -> None:
    rng = np.random.default_rng(0)
    quaternions = rng.normal(size=(6, 4)) * 3
    expected = torch.tensor(Rotation.from_quat(quaternions).as_matrix())
    torch.testing.assert_close(rotations(torch.tensor(quaternions)).double(), expected)
    encoding = torch.tensor([[1.0, 2, 3, 0, 0, 0, 2, np.pi / 2, 2 * np.arctan(0.5)]])
    extrinsic, intrinsic = cameras(encoding, (100, 200))
    torch.testing.assert_close(extrinsic[0], torch.tensor([[1.0, 0, 0, 1], [0, 1, 0, 2], [0, 0, 1, 3]]))
    torch.testing.assert_close(intrinsic[0], torch.tensor([[200.0, 0, 100], [0, 50, 50], [0, 0, 1]]))


def test_dense_heads_take_frames_in_portions(small: VGGT) -> None:
    layers, _ = small.aggregator(frames(5))
    outputs = dict(enumerate(layers)) | {-1: layers[-1]}
    for whole, portions in zip(
        small.point_head(outputs, (42, 56)), small.point_head(outputs, (42, 56), frames_at_once=2), strict=True
    ):
        torch.testing.assert_close(portions, whole)


def test_the_tracking_head_is_kept_at_any_size() -> None:
    config = VGGTConfig.from_dict(SMALL)
    sizes = TrackerSizes(
        features=8,
        out_channels=(4, 8, 12, 16),
        hidden=16,
        mlp=24,
        correlation=50,
        time_depth=2,
        space_depth=1,
        virtual_tracks=3,
        confidence=False,
    )
    with torch.device("meta"):
        saved = VGGT(VGGTConfig(**{**vars(config), "tracker": sizes}), heads=["track"])
    names = {name: tuple(tensor.shape) for name, tensor in saved.state_dict().items()}
    assert config.with_tracker_of(names).tracker == sizes
    assert config.with_tracker_of({"aggregator.camera_token": (1, 2, 1, 48)}) == config
    with pytest.raises(NotImplementedError, match="does not track points"):
        saved.track_head(frames(1))


def test_a_config_names_what_differs_from_full_size() -> None:
    assert VGGTConfig.from_dict({}) == VGGTConfig()
    config = VGGTConfig.from_dict({**SMALL, "depth": None, "track_head": False, "torch_dtype": "float32"})
    assert (config.depth, config.num_heads, config.track_head) == (24, 3, False)
    assert VGGTConfig.from_dict(config.to_dict()) == config
    assert json.loads(json.dumps(config.to_dict()))["dpt_layers"] == [0, 1, 1, -1]
    assert hash(config) is not None


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("embed_dim", 0, "must be a whole number of at least 1"),
        ("depth", 2.5, "must be a whole number"),
        ("depth", True, "must be a whole number"),
        ("img_size", [518, 392], "must be a whole number"),
        ("img_size", 13, r"is less than a patch \(14\)"),
        ("num_heads", 5, "does not divide the width 48"),
        ("num_heads", 8, "leaves 6 a head, not a multiple of 4"),
        ("camera_num_heads", 7, "does not divide the width 96"),
        ("dpt_layers", [0, 1, 2], "must be a list of four"),
        ("dpt_layers", "0123", "must be a list of four"),
        ("dpt_out_channels", [8, 12, 16, 21], "must be positive multiples of 4"),
        ("dpt_features", 12, "must be a multiple of 8"),
        ("track_head", "yes", "must be true or false"),
    ],
)
def test_a_config_that_makes_no_model(key: str, value: object, reason: str) -> None:
    with pytest.raises(ValueError, match=f"spatial_config: {key} = .*{reason}"):
        VGGTConfig.from_dict({**SMALL, key: value})
