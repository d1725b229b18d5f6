"""VGGT as a geometry predictor: what its matrices mean, and that weights which know nothing make up no metres."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="VGGT needs torch (the extra `model`)")

from spatial_mllm_ros.memory.spatial_memory import SpatialMemory  # noqa: E402
from spatial_mllm_ros.models.mllm.random_weights import make_checkpoint  # noqa: E402
from spatial_mllm_ros.models.vggt.config import VGGTConfig  # noqa: E402
from spatial_mllm_ros.models.vggt.predictor import VGGTPredictor  # noqa: E402
from spatial_mllm_ros.models.vggt.vggt import VGGT  # noqa: E402
from spatial_mllm_ros.models.worker.geometry_predictor import load_predictor  # noqa: E402
from spatial_mllm_ros.perception.rgb.rgb_geometry import RgbGeometry, RgbGeometryConfig  # noqa: E402
from spatial_mllm_ros.scene.frame import Frame  # noqa: E402
from spatial_mllm_ros.scene.pose import make_transform  # noqa: E402
from spatial_mllm_ros.scene.window import InvalidWindow  # noqa: E402
from spatial_mllm_ros.serving.interface import ModelUnavailable  # noqa: E402

SMALL = {
    "img_size": 42,
    "patch_size": 14,
    "embed_dim": 32,
    "depth": 2,
    "num_heads": 2,
    "patch_embed_depth": 1,
    "patch_embed_num_heads": 2,
    "camera_trunk_depth": 1,
    "camera_num_heads": 2,
    "dpt_features": 16,
    "dpt_out_channels": [8, 8, 8, 8],
    "dpt_layers": [0, 1, 1, -1],
}


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    """Such small matrices are quicker without others to wait for."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def small(seed: int = 0, field_of_view: float = 0.25) -> VGGT:
    torch.manual_seed(seed)
    vggt = VGGT(VGGTConfig.from_dict(SMALL), ("camera", "depth"))
    with torch.no_grad():
        for parameter in vggt.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.1)
        last = [m for m in vggt.camera_head.pose_branch.modules() if isinstance(m, torch.nn.Linear)][-1]
        last.weight.mul_(0.1)
        last.bias[6] += 1.0  # away from quaternions of length 0
        last.bias[7:] = field_of_view  # added up over the four passes of the head
    return vggt


def images(count: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (count, 60, 80, 3)).astype(np.uint8)


def test_matrices_are_what_a_window_means_by_them() -> None:
    vggt = small()
    predictor = VGGTPredictor(vggt, width=84)
    window = predictor.predict(images(3))
    assert window.depth.shape == (3, 56, 84)  # whole patches of 14 px
    with torch.inference_mode():
        frames = torch.stack([torch.from_numpy(i) for i in _resized(images(3), (56, 84))]).float() / 255
        raw = vggt(frames)
    np.testing.assert_allclose(window.depth, raw.depth[..., 0], rtol=1e-4)
    T = np.tile(np.eye(4), (3, 1, 1))
    T[:, :3] = raw.extrinsic.numpy()
    np.testing.assert_allclose(window.T_window_camera @ T, np.tile(np.eye(4), (3, 1, 1)), atol=1e-5)
    np.testing.assert_allclose(window.K[:, 0, 2], 84 / 2 - 0.5)  # pixels count from the centre of the first
    np.testing.assert_allclose(window.K[:, 1, 2], 56 / 2 - 0.5)
    np.testing.assert_allclose(window.K[:, 0, 0], raw.intrinsic[:, 0, 0], rtol=1e-5)
    assert (window.confidence > 0).all()
    assert len(predictor.predict(images(1))) == 1


def _resized(frames: Any, size: tuple[int, int]) -> Any:
    from spatial_mllm_ros.models.vggt.processing import resize_frame

    return [resize_frame(frame, size).numpy() for frame in frames]


def test_a_camera_without_a_field_of_view_is_no_geometry() -> None:
    with pytest.raises(InvalidWindow, match="infinity"):
        VGGTPredictor(small(field_of_view=-50.0), width=84).predict(images(2))


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("field_of_view", [0.25, -50.0])
def test_random_weights_make_up_no_metres(seed: int, field_of_view: float) -> None:
    """The whole path runs; windows are dropped or the scale is refused, and the frames come through or are counted."""
    random = np.random.default_rng(seed)
    geometry = RgbGeometry(VGGTPredictor(small(seed, field_of_view), width=56), RgbGeometryConfig.for_recordings())
    memory = SpatialMemory(clock=lambda: 1 << 62)
    updates = []
    for i, image in enumerate(images(14, seed)):
        T = make_transform(np.eye(3), (0.1 * i, 0.02 * random.normal(), 0))
        updates += geometry.take(Frame(10**9 + i * 10**8, "camera", image=image, T_world_camera=T))
    updates += geometry.finish()
    for update in updates:
        update.apply_to(memory)
    status = geometry.status()
    assert memory.scale is None or not memory.scale.known
    assert not status.scale.known
    assert status.scale.reason
    assert status.windows + sum(status.dropped_windows.values()) >= 3
    if field_of_view < 0:
        assert status.dropped_windows == {"not_finite": sum(status.dropped_windows.values())}


def test_it_loads_from_a_checkpoint_of_spatial_mllm(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "tiny", "tiny")
    predictor = load_predictor(str(folder), width=56)
    assert predictor.name == "VGGT of tiny, torch cpu float32"
    aggregator = predictor._vggt.aggregator  # type: ignore[attr-defined]
    assert not any(parameter.is_meta for parameter in aggregator.parameters())
    read: list[tuple[int, int]] = []
    half = load_predictor(
        str(folder), dtype="bfloat16", width=56, progress=lambda done, total: read.append((done, total))
    )
    assert half.name.endswith("cpu bfloat16")
    assert 0 < read[0][0] <= read[-1][0] == read[-1][1], "bytes, to the end"
    assert next(half._vggt.aggregator.parameters()).dtype == torch.bfloat16  # type: ignore[attr-defined]
    assert next(half._vggt.depth_head.parameters()).dtype == torch.float32  # type: ignore[attr-defined]


def test_it_loads_from_a_checkpoint_of_vggt_itself(tmp_path: Path) -> None:
    import json

    from safetensors.torch import save_file

    vggt = small()
    save_file(vggt.state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(SMALL), encoding="utf-8")
    loaded = load_predictor(str(tmp_path), width=84)
    np.testing.assert_array_equal(
        loaded.predict(images(2)).depth, VGGTPredictor(vggt, width=84).predict(images(2)).depth
    )


@pytest.mark.parametrize(
    ("heads", "options", "says"),
    [
        (("point",), {}, "camera and depth heads"),
        (("camera", "depth"), {"dtype": "int3"}, "int3"),
        (("camera", "depth"), {"device": "cuda:99"}, "cuda"),
    ],
)
def test_what_cannot_be_loaded_says_why(
    tmp_path: Path, heads: tuple[str, ...], options: dict[str, Any], says: str
) -> None:
    if torch.cuda.is_available() and "device" in options:
        pytest.skip("there is a CUDA device")
    folder = make_checkpoint(tmp_path / "tiny", "tiny", heads=heads)
    with pytest.raises(ModelUnavailable, match=says):
        load_predictor(str(folder), **options)


def test_a_folder_without_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable):
        load_predictor(str(tmp_path))
