"""Frames to tensors: what the vision tower and the spatial branch were trained to see."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spatial_mllm_ros.serving.interface import ModelFrame, ModelOptions, ModelUnavailable

torch = pytest.importorskip("torch", reason="torch is not installed (the extra spatial_mllm_ros[model])")

from spatial_mllm_ros.models.vggt import processing  # noqa: E402

OPTIONS = ModelOptions("none")


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A smooth picture with some edges, uint8 [height, width, 3]."""
    v, u = np.mgrid[:height, :width] / np.array([height, width])[:, None, None]
    phase = np.arange(3)[None, None] + seed
    waves = 127.5 + 90 * np.sin(9 * u[..., None] + phase) * np.cos(7 * v[..., None] - phase)
    waves[height // 3 : height // 2, width // 4 : width // 3] = 255
    return waves.clip(0, 255).astype(np.uint8)


def frames_of(count: int, shape: tuple[int, int] = (60, 80)) -> list[ModelFrame]:
    return [ModelFrame(i, 10**9 * i, picture(*shape, seed=i)) for i in range(count)]


def taps(length: int, wanted: int) -> np.ndarray:
    """Weights [wanted, length] of antialiased bicubic resampling (Keys, a = -0.5): an oracle apart from any library."""
    scale = length / wanted
    support = max(scale, 1.0)
    at = (np.arange(wanted)[:, None] + 0.5) * scale - 0.5
    x = np.abs(np.arange(length)[None] - at) / support
    weights = np.where(x < 1, 1.5 * x**3 - 2.5 * x**2 + 1, np.where(x < 2, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2, 0.0))
    return weights / weights.sum(1, keepdims=True)


# ---- size


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((480, 640), (476, 644)),  # one side down, one up
        ((720, 1280), (420, 756)),  # down
        ((240, 320), (476, 644)),  # up
        ((640, 480), (644, 476)),
        ((968, 1296), (476, 644)),
        ((376, 672), (420, 728)),
        ((1000, 1000), (560, 560)),
    ],
)
def test_size_of_common_cameras(shape: tuple[int, int], size: tuple[int, int]) -> None:
    """These come from the published rule with the budget of training, computed by hand."""
    assert processing.smart_resize(*shape) == size
    assert 293_216 <= math.prod(size) <= 324_576


@given(
    st.integers(1, 4000),
    st.integers(1, 4000),
    st.sampled_from([28, 32]),
    st.integers(1, 400_000),
    st.integers(0, 400_000),
)
def test_size_keeps_the_rule(height: int, width: int, factor: int, least: int, room: int) -> None:
    """Multiples, about the proportions, and never on the wrong side of the bound that it was scaled to."""
    most = least + room
    if max(height, width) > 200 * min(height, width):
        with pytest.raises(ValueError, match="200"):
            processing.smart_resize(height, width, factor, least, most)
        return
    h, w = processing.smart_resize(height, width, factor, least, most)
    assert h % factor == 0
    assert w % factor == 0
    assert min(h, w) >= factor
    rounded = round(height / factor) * round(width / factor) * factor**2
    if rounded > most:
        assert h * w <= most or min(h, w) == factor
    elif rounded < least:
        assert h * w >= least
        assert (h - factor) * (w - factor) < least
    else:
        assert h * w == rounded


@pytest.mark.parametrize(("shape", "budget"), [((0, 5), (1, 2)), ((5, 5), (0, 2)), ((5, 5), (3, 2))])
def test_size_refuses_nonsense(shape: tuple[int, int], budget: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="px"):
        processing.smart_resize(*shape, 28, *budget)


def test_all_frames_get_the_size_of_most() -> None:
    """A stray frame of another camera must not change the size, and so void everything that is cached."""
    how = processing.frame_format("spatial-mllm", OPTIONS)
    assert how.size([(720, 1280), (480, 640), (480, 640)]) == how.size([(480, 640)]) == (476, 644)
    assert how.size([(720, 1280), (480, 640)]) == (420, 756)
    with pytest.raises(ValueError, match="at least one"):
        how.size([])


# ---- resizing


@pytest.mark.parametrize(
    ("shape", "size"), [((48, 64), (56, 84)), ((90, 160), (28, 56)), ((40, 30), (28, 56)), ((50, 70), (28, 84))]
)
def test_resizing_is_antialiased_bicubic(shape: tuple[int, int], size: tuple[int, int]) -> None:
    image = picture(*shape)
    rows, columns = taps(shape[0], size[0]), taps(shape[1], size[1])
    across = np.einsum("xw,hwc->hxc", columns, image.astype(float)).round().clip(0, 255)
    expected = np.einsum("yh,hxc->yxc", rows, across).round().clip(0, 255)
    resized = processing.resize_frame(image, size)
    assert resized.dtype == torch.uint8
    assert resized.shape == (3, *size)
    assert np.abs(resized.permute(1, 2, 0).numpy() - expected).max() <= 2


def test_resizing_leaves_the_image_and_its_memory_alone() -> None:
    """The image may belong to a message: read-only, flipped, or a cut of a larger one."""
    image = picture(60, 90)[::-1, ::2]
    image.flags.writeable = False
    before = image.copy()
    resized = processing.resize_frame(image, (56, 56))
    same = processing.resize_frame(image, image.shape[:2])
    resized += 1
    same += 1
    assert np.array_equal(image, before)
    assert torch.equal(same - 1, torch.from_numpy(before).permute(2, 0, 1))


@pytest.mark.parametrize("bad", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3))])
def test_resizing_refuses_other_images(bad: np.ndarray) -> None:
    with pytest.raises(ValueError, match="uint8 RGB"):
        processing.resize_frame(bad, (28, 28))


def test_frames_of_another_camera_are_fitted_inside_and_those_of_the_same_stretched() -> None:
    how = processing.frame_format("spatial-mllm", OPTIONS)
    size = how.size([(480, 640)])
    own, other = (
        how.resize(np.zeros((480, 640, 3), np.uint8), size),
        how.resize(np.zeros((640, 360, 3), np.uint8), size),
    )
    assert not own.any()
    black = (other[0] == 0).sum(1)
    assert black.unique().tolist() == [round(360 * 476 / 640)]  # as high as the frame, narrower, in the middle of white
    assert (other[0] == 0).any(0).nonzero().squeeze().float().mean() == pytest.approx(644 / 2 - 0.5, abs=1)
    # The same camera at another resolution is stretched too: it would get this size by itself.
    assert not how.resize(np.zeros((240, 320, 3), np.uint8), size).any()


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 90), st.integers(1, 90))
def test_any_frame_fits_any_size(height: int, width: int) -> None:
    assert processing.fit_frame(np.zeros((height, width, 3), np.uint8), (56, 84)).shape == (3, 56, 84)


# ---- patches


def test_patches_of_the_reference(shared: Path) -> None:
    """The published processor's patches come out of the published frames, bit by bit."""
    reference = np.load(shared / "reference" / "spatial_mllm_tiny" / "parity.npz")
    video = torch.from_numpy(reference["video_tchw"])
    patches = torch.cat([processing.patches_of_pair(a, b) for a, b in zip(video[::2], video[1::2], strict=True)])
    assert (patches - torch.from_numpy(reference["pixel_values_videos"])).abs().max() <= 1e-6
    assert reference["video_grid_thw"].tolist() == [[2, 4, 6]]


@pytest.mark.parametrize(("patch", "merge"), [(14, 2), (16, 2), (4, 3)])
def test_patches_are_in_the_order_of_the_tower(patch: int, merge: int) -> None:
    """Block by block, within a block row by row; within a patch channel, frame, row, column."""
    h, w = 2 * merge, 3 * merge
    pair = torch.rand(2, 3, h * patch, w * patch)
    patches = processing.patches_of_pair(*pair, (0.0,) * 3, (1.0,) * 3, patch, merge)
    order = [
        (block_row * merge + row, block_column * merge + column)
        for block_row in range(h // merge)
        for block_column in range(w // merge)
        for row in range(merge)
        for column in range(merge)
    ]
    assert len(order) == h * w
    for number, (row, column) in enumerate(order):
        cut = pair[:, :, row * patch : (row + 1) * patch, column * patch : (column + 1) * patch]
        assert torch.equal(patches[number], cut.transpose(0, 1).reshape(-1))


def test_uint8_and_unit_range_frames_give_the_same_patches() -> None:
    frames = torch.randint(0, 256, (2, 3, 28, 56), dtype=torch.uint8)
    assert torch.equal(processing.patches_of_pair(*frames), processing.patches_of_pair(*processing.unit_range(frames)))


def test_patches_refuse_frames_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="resize"):
        processing.patches_of_pair(torch.zeros(3, 28, 30), torch.zeros(3, 28, 30))
    with pytest.raises(ValueError, match="one size"):
        processing.patches_of_pair(torch.zeros(3, 28, 28), torch.zeros(3, 28, 56))


# ---- frames of a context


def test_even_frames_keeps_the_best_in_time_order() -> None:
    """Which frame goes is the caller's choice, not that of time."""
    a, b, c, d, e = frames_of(5)
    assert processing.even_frames([d, a, e, c, b]) == [a, c, d, e]
    assert processing.even_frames([d, a, e, c]) == [a, c, d, e]
    assert processing.even_frames([d, a, e, c], limit=3) == [a, d]
    assert processing.even_frames([b]) == [b, b]
    assert processing.even_frames([b, b]) == [b, b]
    assert processing.even_frames([d, a, d]) == [a, d]
    assert processing.even_frames([]) == []


@given(st.lists(st.integers(0, 20)), st.integers(1, 30))
def test_even_frames_are_even_ordered_and_the_best(ids: list[int], limit: int) -> None:
    frames = frames_of(21, (1, 1))
    kept = processing.even_frames([frames[i] for i in ids], limit)
    distinct = list(dict.fromkeys(ids))[:limit]
    assert len(kept) % 2 == 0
    assert [f.stamp_ns for f in kept] == sorted(f.stamp_ns for f in kept)
    wanted = distinct if len(distinct) == 1 else distinct[: len(distinct) // 2 * 2]
    assert {f.frame_id for f in kept} == set(wanted)


# ---- whole videos


def test_video_of_spatial_mllm() -> None:
    how = processing.frame_format("spatial-mllm", OPTIONS)
    frames = frames_of(4, (480, 640))
    inputs = processing.video_inputs(frames, how)
    assert inputs["video_grid_thw"].tolist() == [[2, 34, 46]]
    assert inputs["second_per_grid_ts"].tolist() == [0.5]  # training: 4 frames a second, two a pair
    assert inputs["video_tchw"].shape == (4, 3, 476, 644)
    assert 0 <= inputs["video_tchw"].min() < inputs["video_tchw"].max() <= 1
    assert inputs["pixel_values_videos"].shape == (2 * 34 * 46, 3 * 2 * 14 * 14)
    # Both branches see the same frames.
    video = inputs["video_tchw"]
    again = torch.cat([processing.patches_of_pair(a, b) for a, b in zip(video[::2], video[1::2], strict=True)])
    assert torch.equal(again, inputs["pixel_values_videos"])
    assert how.tokens(4, (476, 644)) == 2 * 17 * 23


def test_videos_of_the_plain_families() -> None:
    frames = frames_of(2, (480, 640))
    qwen25 = processing.video_inputs(frames, processing.frame_format("qwen2_5_vl", OPTIONS))
    assert set(qwen25) == {"pixel_values_videos", "video_grid_thw", "second_per_grid_ts"}
    how = processing.frame_format("qwen3_vl", OPTIONS)
    qwen3 = processing.video_inputs(frames, how)
    assert set(qwen3) == {"pixel_values_videos", "video_grid_thw"}
    assert qwen3["video_grid_thw"].tolist() == [[1, 30, 40]]
    assert qwen3["pixel_values_videos"].shape == (1200, 3 * 2 * 16 * 16)
    assert qwen3["pixel_values_videos"].abs().max() <= 1
    how = processing.frame_format("internvl", OPTIONS)
    internvl = processing.video_inputs(frames_of(3, (480, 640)), how)
    assert internvl["pixel_values"].shape == (3, 3, 448, 448)
    assert how.tokens(3, (448, 448)) == 768
    white = how.tile(torch.full((3, 2, 2), 255, dtype=torch.uint8))
    assert white[:, 0, 0].tolist() == pytest.approx([(1 - m) / s for m, s in zip(how.mean, how.std, strict=True)])


def test_an_odd_number_of_frames_is_refused() -> None:
    with pytest.raises(ValueError, match="even"):
        processing.video_inputs(frames_of(3), processing.frame_format("qwen2_5_vl", OPTIONS))


# ---- settings of a checkpoint


@pytest.fixture
def checkpoint(tmp_path: Path) -> Callable[..., Path]:
    def write(**files: object) -> Path:
        for name, content in files.items():
            (tmp_path / f"{name}.json").write_text(json.dumps(content))
        return tmp_path

    return write


def test_settings_of_a_checkpoint(checkpoint: Callable[..., Path]) -> None:
    """Sizes follow the model, normalisation its processor; the pixel budget of a checkpoint is not that of training."""
    folder = checkpoint(
        config={"vision_config": {"patch_size": 16, "spatial_merge_size": 4}},
        preprocessor_config={"image_mean": [0.1, 0.2, 0.3], "min_pixels": 3136, "max_pixels": 12845056},
        video_preprocessor_config={"image_mean": [0.3, 0.2, 0.1]},
    )
    how = processing.frame_format("qwen2_5_vl", ModelOptions("m", video_fps=2.0), folder)
    assert (how.patch_size, how.merge_size, how.mean, how.std) == (16, 4, (0.3, 0.2, 0.1), processing.CLIP_STD)
    assert (how.min_pixels, how.max_pixels, how.seconds_per_pair) == (293_216, 324_576, 1.0)


def test_settings_of_internvl(checkpoint: Callable[..., Path]) -> None:
    folder = checkpoint(
        config={"vision_config": {"image_size": [224, 224], "patch_size": [14, 14]}, "image_seq_length": 64},
        processor_config={"image_processor": {"image_std": [1, 1, 1]}},
    )
    how = processing.frame_format("internvl", OPTIONS, folder)
    assert (how.fixed_size, how.tokens_per_frame, how.std) == ((224, 224), 64, (1, 1, 1))
    assert how.tokens(2, how.size([(480, 640)])) == 128


def test_broken_settings_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ModelUnavailable, match=r"config\.json"):
        processing.frame_format("qwen3_vl", OPTIONS, tmp_path)
    with pytest.raises(ValueError, match="spatial-mllm, qwen2_5_vl"):
        processing.frame_format("llava", OPTIONS)
