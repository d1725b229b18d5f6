"""Exported files say what the model says, at sizes other than those of the export, and say what they are."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

torch = pytest.importorskip("torch", reason="export needs torch (the extra `model`)")
onnx = pytest.importorskip("onnx", reason="export needs onnx (the extra `onnx`)")
ort = pytest.importorskip("onnxruntime", reason="export is checked with onnxruntime (the extra `onnx`)")
pytest.importorskip("onnxscript", reason="export needs onnxscript (the extra `onnx`)")

from spatial_mllm_ros.commands.export import export_group  # noqa: E402
from spatial_mllm_ros.models.mllm.random_weights import fill_random  # noqa: E402
from spatial_mllm_ros.models.onnx import export  # noqa: E402
from spatial_mllm_ros.models.onnx.graph import _resizing  # noqa: E402
from spatial_mllm_ros.models.vggt.config import PATCH_START, VGGTConfig  # noqa: E402
from spatial_mllm_ros.models.vggt.loading import load_vggt  # noqa: E402
from spatial_mllm_ros.models.vggt.vggt import VGGT  # noqa: E402
from spatial_mllm_ros.serving.onnx_file import ExportError, data_file, describe  # noqa: E402

SIZES = [(3, 56, 70), (1, 42, 56), (5, 84, 42), (2, 56, 56)]
"""Frames, height and width: those of the export were 3 frames of 42x56."""
SMALLEST = {
    "img_size": 56,
    "embed_dim": 32,
    "depth": 1,
    "num_heads": 2,
    "patch_embed_depth": 1,
    "patch_embed_num_heads": 2,
    "camera_trunk_depth": 1,
    "camera_num_heads": 2,
    "dpt_features": 16,
    "dpt_out_channels": [8, 8, 8, 8],
    "dpt_layers": [0, 0, 0, 0],
}


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.inference_mode():
        yield


def tiny_folder(shared: Path) -> Path:
    return shared / "reference" / "spatial_mllm_tiny"


@pytest.fixture(scope="module")
def tiny(shared: Path) -> VGGT:
    """The recorded checkpoint."""
    return load_vggt(tiny_folder(shared))


@pytest.fixture(scope="module")
def exported(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recorded checkpoint's encoder, exported as a user exports it."""
    file = tmp_path_factory.mktemp("export") / "encoder.onnx"
    arguments = ["encoder", "--model", str(tiny_folder(shared)), "--output", str(file), "--json"]
    result = CliRunner().invoke(export_group, arguments)
    assert result.exit_code == 0, result.output
    printed = json.loads(result.stdout)
    assert (printed["kind"], printed["precision"], printed["opset"]) == ("encoder", "float32", 20)
    return file


def run(file: Path, frames: Any) -> list[Any]:
    """By ONNX Runtime alone, without anything of this package."""
    session = ort.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return [torch.from_numpy(value) for value in session.run(None, {"frames": frames.numpy()})]


def error(value: Any, expected: Any) -> float:
    assert value.shape == expected.shape
    return float((value - expected).abs().max() / expected.abs().max())


def images(count: int, height: int, width: int) -> Any:
    return torch.rand(1, count, 3, height, width, generator=torch.Generator().manual_seed(count))


def test_the_recorded_layer(exported: Path, shared: Path) -> None:
    recorded = np.load(tiny_folder(shared) / "parity.npz")
    frames = torch.tensor(recorded["video_tchw"])[None]
    (tokens,) = run(exported, frames)
    assert error(tokens, torch.tensor(recorded["spatial_layers"][-1][None, :, PATCH_START:])) < 1e-4


@pytest.mark.parametrize("size", SIZES)
def test_other_frame_counts_and_sizes(exported: Path, tiny: VGGT, size: tuple[int, int, int]) -> None:
    frames = images(*size)
    expected = tiny.aggregator(frames[0], [-1])[0][0][None, :, PATCH_START:]
    assert error(run(exported, frames)[0], expected) < 1e-5


def test_what_it_says_about_itself(exported: Path, tiny: VGGT) -> None:
    found = describe(exported)
    assert (found.kind, found.layer, found.embed_dim) == ("encoder", tiny.config.depth - 1, tiny.config.embed_dim)
    assert found.weights == export.weights_hash(tiny.aggregator)
    assert VGGTConfig.from_dict(found.config).depth == tiny.config.depth
    assert found.data_bytes == data_file(exported).stat().st_size
    model = onnx.load(exported, load_external_data=False)
    shape = [dim.dim_param or dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]
    assert shape == [1, "frames", 3, "height", "width"]
    shape = [dim.dim_param or dim.dim_value for dim in model.graph.output[0].type.tensor_type.shape.dim]
    assert shape == [1, "frames", "patches", 2 * tiny.config.embed_dim]
    assert model.ByteSize() < exported.stat().st_size + 1000, "weights belong into the file beside it"
    assert {entry.domain: entry.version for entry in model.opset_import}[""] == 20


def test_exporting_leaves_the_model_as_it_was(tiny: VGGT, shared: Path) -> None:
    """The export in float16 or with turned channels works on copies."""
    export.exportable(tiny, torch.float16)
    again = load_vggt(tiny_folder(shared))
    assert all(torch.equal(a, b) for a, b in zip(tiny.parameters(), again.parameters(), strict=True))


def test_int8(exported: Path, tiny: VGGT, tmp_path: Path) -> None:
    found = export.to_int8(exported, tmp_path / "int8.onnx")
    assert found.precision == describe(tmp_path / "int8.onnx").precision == "int8"
    assert found.data_bytes < 0.4 * describe(exported).data_bytes
    frames = images(2, 42, 70)
    expected = tiny.aggregator(frames[0], [-1])[0][0][None, :, PATCH_START:]
    (tokens,) = run(tmp_path / "int8.onnx", frames)
    assert 1e-4 < float((tokens - expected).norm() / expected.norm()) < 0.02
    with pytest.raises(ValueError, match="int8 already"):
        export.to_int8(tmp_path / "int8.onnx", tmp_path / "again.onnx")


def test_float16(tmp_path: Path) -> None:
    """Geometry, whose parts it shares, is tested in test_onnx_predictor.py."""
    with torch.device("meta"):
        vggt = VGGT(VGGTConfig.from_dict(SMALLEST))
    fill_random(vggt, torch.float32, torch.device("cpu"))
    file = tmp_path / "encoder.onnx"
    found = export.export_encoder(vggt, file, precision="float16", name="smallest", random_weights=True)
    assert (found.precision, found.random_weights, describe(file).random_weights) == ("float16", True, True)
    for size in ((2, 56, 70), (1, 70, 42)):
        frames = images(*size)
        expected = vggt.aggregator(frames[0], [-1])[0][0][None, :, PATCH_START:]
        assert 0 < error(run(file, frames)[0], expected) < 0.01


@pytest.mark.parametrize("size", [1, 4, 30, 37, 51])
def test_position_embeddings_are_resized_as_by_torch(size: int) -> None:
    values = torch.randn(1, 6, 37, 37, generator=torch.Generator().manual_seed(size))
    expected = torch.nn.functional.interpolate(values, size=(size, size + 3), mode="bicubic", antialias=True)
    torch.testing.assert_close(_resizing(37, size) @ values @ _resizing(37, size + 3).T, expected, rtol=0, atol=1e-5)


def test_a_failed_export_leaves_nothing(tiny: VGGT, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    kept = tmp_path / "encoder.onnx"
    kept.write_bytes(b"of before")
    monkeypatch.setattr(export.ir, "save", full)
    model = export.ir.Model(export.ir.Graph([], [], nodes=[]), ir_version=10)
    description = export.Description("encoder", "float32", 0, "", "", {}, "", 20, 14, 32)
    with pytest.raises(ExportError, match=r"disk is full at .*free some space"):
        export._write(model, kept, description, None, check=True)
    assert [path.name for path in tmp_path.iterdir()] == ["encoder.onnx"]
    assert kept.read_bytes() == b"of before"


def test_files_that_are_not_whole(exported: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"there is no exported file .*spatial-mllm export"):
        describe(tmp_path / "encoder.onnx")
    cut = tmp_path / "cut.onnx"
    cut.write_bytes(exported.read_bytes()[:-5000])
    with pytest.raises(ExportError, match="cut off"):
        describe(cut)
    cut.write_bytes(b"")
    with pytest.raises(ExportError, match="cut off"):
        describe(cut)
    alone = tmp_path / "alone.onnx"
    shutil.copy(exported, alone)
    with pytest.raises(ExportError, match=r"alone.onnx.data.* is missing"):
        describe(alone)
    data_file(alone).write_bytes(data_file(exported).read_bytes()[:-100])
    with pytest.raises(ExportError, match="bytes instead of"):
        describe(alone)


def test_an_opset_that_is_too_new(exported: Path, tmp_path: Path) -> None:
    model = onnx.load(exported, load_external_data=False)
    for entry in model.opset_import:
        entry.version = 99 if not entry.domain else entry.version
    (tmp_path / "new.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ExportError, match=r"opset 99.* upgrade"):
        describe(tmp_path / "new.onnx")


def test_models_that_cannot_be_exported(tmp_path: Path) -> None:
    result = CliRunner().invoke(export_group, ["encoder", "--model", str(tmp_path), "--output", "x.onnx"])
    assert result.exit_code == 2
    assert "config.json" in result.output
    with pytest.raises(ValueError, match="precision 'int3' is not known"):
        export.export_encoder(VGGT(VGGTConfig.from_dict(SMALLEST)), tmp_path / "x.onnx", precision="int3")
    with pytest.raises(ValueError, match="needs the camera head"):
        export.export_geometry(VGGT(VGGTConfig.from_dict(SMALLEST)), tmp_path / "x.onnx")
    with pytest.raises(ValueError, match=r"float32, not from torch\.bfloat16"):
        export.export_encoder(VGGT(VGGTConfig.from_dict(SMALLEST)).bfloat16(), tmp_path / "x.onnx")
