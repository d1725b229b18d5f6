"""Geometry from color from an exported file: the same as with torch, without torch, or a clear refusal."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray

torch = pytest.importorskip("torch", reason="what is exported is compared with torch (the extra `model`)")
onnx = pytest.importorskip("onnx", reason="exported files are read with onnx (the extra `onnx-runtime`)")
pytest.importorskip("onnxruntime", reason="needs onnxruntime (the extra `onnx-runtime`)")
pytest.importorskip("onnxscript", reason="export needs onnxscript (the extra `onnx`)")

from test_live import finding, play, wait_for  # noqa: E402
from test_vggt_predictor import SMALL, images, small  # noqa: E402

from spatial_mllm_ros.cli import main  # noqa: E402
from spatial_mllm_ros.commands import doctor  # noqa: E402
from spatial_mllm_ros.models.onnx import export, providers  # noqa: E402
from spatial_mllm_ros.models.onnx.onnx_predictor import PROFILE, OnnxPredictor  # noqa: E402
from spatial_mllm_ros.models.onnx.parts import parts  # noqa: E402
from spatial_mllm_ros.models.onnx.sessions import Sessions  # noqa: E402
from spatial_mllm_ros.models.vggt.pose_encoding import cameras  # noqa: E402
from spatial_mllm_ros.models.vggt.predictor import VGGTPredictor  # noqa: E402
from spatial_mllm_ros.models.vggt.processing import resize_frame  # noqa: E402
from spatial_mllm_ros.models.vggt.window import resized, window_geometry  # noqa: E402
from spatial_mllm_ros.models.weights import main_memory  # noqa: E402
from spatial_mllm_ros.models.worker import geometry_worker  # noqa: E402
from spatial_mllm_ros.nodes.live import LiveEngine  # noqa: E402
from spatial_mllm_ros.nodes.model import ConfigurationError, geometry_options  # noqa: E402
from spatial_mllm_ros.nodes.parameters import Settings  # noqa: E402
from spatial_mllm_ros.scene.camera import CameraModel  # noqa: E402
from spatial_mllm_ros.scene.frame import Frame  # noqa: E402
from spatial_mllm_ros.scene.pose import make_transform  # noqa: E402
from spatial_mllm_ros.scene.window import InvalidWindow, WindowGeometry  # noqa: E402
from spatial_mllm_ros.serving.geometry_process import GeometryOptions, ProcessPredictor  # noqa: E402
from spatial_mllm_ros.serving.interface import ModelUnavailable  # noqa: E402
from spatial_mllm_ros.serving.onnx_file import PREFIX, ExportError, data_file, describe, fingerprint  # noqa: E402

LONG_S = 60.0
Images = NDArray[np.uint8]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("checkpoint") / "small"
    folder.mkdir()
    save_file(small().state_dict(), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(SMALL), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("engines")


@pytest.fixture(scope="module")
def told(checkpoint: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What is printed when a user exports it."""
    file = tmp_path_factory.mktemp("export") / "geometry.onnx"
    arguments = ["--model", str(checkpoint), "--output", str(file), "--build", "--engine-folder", str(cache), "--json"]
    result = CliRunner().invoke(main, ["export", "geometry", *arguments])
    assert result.exit_code == 0, result.output
    printed: dict[str, Any] = json.loads(result.stdout)
    return printed


@pytest.fixture(scope="module")
def file(told: dict[str, Any]) -> Path:
    return Path(told["file"])


@pytest.fixture
def copy(file: Path, tmp_path: Path) -> Path:
    """One that a test may change."""
    new = tmp_path / "copy.onnx"
    shutil.copy(file, new)
    shutil.copy(data_file(file), data_file(new))
    return new


def retell(file: Path, **metadata: str | None) -> None:
    """Change what a file says about itself; None: it does not say so any more."""
    model = onnx.load(file, load_external_data=False)
    kept = {entry.key: entry.value for entry in model.metadata_props}
    for name, value in metadata.items():
        kept.pop(PREFIX + name)
        if value is not None:
            kept[PREFIX + name] = value
    onnx.helper.set_model_props(model, kept)
    file.write_bytes(model.SerializeToString())


def view(count: int, height: int, width: int) -> Images:
    return np.random.default_rng(count).integers(0, 256, (count, height, width, 3)).astype(np.uint8)


def assert_alike(found: WindowGeometry, expected: WindowGeometry, tolerance: float = 1e-4) -> None:
    assert found.depth.dtype == found.confidence.dtype == np.float32
    for name in ("T_window_camera", "K", "depth", "confidence"):
        there, here = getattr(found, name), getattr(expected, name)
        assert there.shape == here.shape
        assert np.abs(there - here).max() <= tolerance * np.abs(here).max(), name


# The same as with torch.


@pytest.mark.parametrize(
    ("count", "height", "width", "px"), [(1, 60, 80, 84), (3, 90, 50, 56), (5, 48, 128, 112), (2, 42, 56, 56)]
)
def test_it_says_what_torch_says(file: Path, cache: Path, count: int, height: int, width: int, px: int) -> None:
    predictor = OnnxPredictor.load(file, providers="cpu", cache=cache, width=px)
    window = view(count, height, width)
    assert_alike(predictor.predict(window), VGGTPredictor(small(), width=px).predict(window))
    assert predictor.name == f"VGGT of small, onnxruntime {providers.version()} cpu float32"


@pytest.mark.parametrize(
    ("image", "size"),
    [
        ((60, 80), (42, 56)),
        ((48, 64), (392, 518)),
        ((270, 480), (42, 70)),
        ((33, 517), (28, 518)),
        ((20, 20), (20, 20)),
    ],
)
def test_images_are_resized_as_with_torch(image: tuple[int, int], size: tuple[int, int]) -> None:
    """To the last bit."""
    frame = view(1, *image)[0]
    np.testing.assert_array_equal(resized(frame, size), resize_frame(frame, size).numpy())
    with pytest.raises(ValueError, match="a frame is uint8 RGB"):
        resized(frame[..., 0], size)


def test_cameras_are_those_of_torch() -> None:
    rng = np.random.default_rng(0)
    encoding = np.concatenate([rng.normal(size=(6, 7)), rng.uniform(0.3, 2, (6, 2))], axis=1)
    depth = np.ones((6, 28, 42), np.float32)
    window = window_geometry(encoding, depth, 1 + depth)
    extrinsic, K = (values.numpy() for values in cameras(torch.tensor(encoding), (28, 42)))
    np.testing.assert_allclose(window.T_window_camera[:, :3, :3], extrinsic[:, :, :3].transpose(0, 2, 1), atol=1e-5)
    np.testing.assert_allclose(
        window.T_window_camera @ with_last_row(extrinsic), np.tile(np.eye(4), (6, 1, 1)), atol=1e-4
    )
    np.testing.assert_allclose(window.K + np.array([[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]]), K, rtol=1e-5)
    np.testing.assert_array_equal(window.confidence, depth)


def with_last_row(extrinsic: NDArray[np.float32]) -> NDArray[np.float64]:
    T = np.tile(np.eye(4), (len(extrinsic), 1, 1))
    T[:, :3] = extrinsic
    return T


@pytest.mark.parametrize("which", [slice(0, 1), slice(3, 7)])
def test_cameras_that_are_none(which: slice) -> None:
    encoding = np.ones((2, 9))
    encoding[1, which] = 0 if which.start else np.nan
    with pytest.raises(InvalidWindow, match="NaN or infinity"):
        window_geometry(encoding, np.ones((2, 14, 14)), np.ones((2, 14, 14)))


def test_in_8_bits(file: Path, tmp_path: Path) -> None:
    """What torch said in float32 stays the measure."""
    assert export.to_int8(file, tmp_path / "int8.onnx").precision == "int8"
    predictor = OnnxPredictor.load(tmp_path / "int8.onnx", providers="cpu", cache=tmp_path / "engines", width=84)
    assert predictor.name.endswith("cpu int8")
    assert 1e-4 < predictor.parity.error < 0.1
    assert_alike(predictor.predict(images(2)), VGGTPredictor(small(), width=84).predict(images(2)), 0.1)


def test_spelled_out_for_tensorrt(file: Path) -> None:
    """No functions, no kernels of ONNX Runtime, ranges for all inputs; here on the CPU."""
    import onnxruntime

    by_part, description = {}, describe(file)
    for name, model in parts(file, description, kernels=False).items():
        assert {node.domain for node in model.graph.node} == {""}
        assert not model.functions
        shapes = PROFILE.shapes(name, description)
        assert sorted(shapes) == sorted(value.name for value in model.graph.input)
        for value in model.graph.input:
            dims = value.type.tensor_type.shape.dim
            assert all(len(shape) == len(dims) for shape in shapes[value.name])
        options = onnxruntime.SessionOptions()
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(file.parent))
        by_part[name] = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    reference = OnnxPredictor.load(file, providers="cpu", gate=False)._reference
    assert OnnxPredictor(Sessions(description, "cpu", by_part), reference).parity.error < 1e-5


# Without torch.

WITHOUT_TORCH = """
import sys

class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "transformers", "safetensors", "onnxscript"):
            raise ModuleNotFoundError(f"No module named {name!r}")

sys.meta_path.insert(0, NotInstalled())
import numpy as np
from spatial_mllm_ros.serving.geometry_process import GeometryOptions
from spatial_mllm_ros.models.worker.geometry_worker import load_predictor
predictor = load_predictor(GeometryOptions(sys.argv[1], width=56, threads=1, engine_folder=sys.argv[2]))
np.save(sys.argv[3], predictor.predict(np.load(sys.argv[3])).depth)
print(predictor.name)
"""


def test_torch_is_not_needed(file: Path, tmp_path: Path) -> None:
    """Nor is anything else that only models need: neither to build the engine nor to run it."""
    window = tmp_path / "window.npy"
    np.save(window, images(3))
    command = [sys.executable, "-c", WITHOUT_TORCH, str(file), str(tmp_path / "engines"), str(window)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("VGGT of small, onnxruntime")
    np.testing.assert_allclose(np.load(window), VGGTPredictor(small(), width=56).predict(images(3)).depth, rtol=1e-4)


# The gate.


def test_the_export_tells_how_near_it_is(told: dict[str, Any], cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (told["kind"], told["passed"], told["engine"].split()[-2:]) == ("geometry", True, ["cpu", "float32"])
    assert told["parity"]["error"] < 1e-5
    built = CliRunner().invoke(main, ["export", "build", told["file"], "--engine-folder", str(cache), "--json"])
    assert built.exit_code == 0, built.output
    assert json.loads(built.stdout)["passed"]
    monkeypatch.setattr("spatial_mllm_ros.models.onnx.engine_cache.default_folder", lambda: cache)
    names = [part.version for part in doctor.engine_parts()]
    assert f"geometry of small, onnxruntime {providers.version()} cpu float32" in names


def test_other_weights_are_refused_by_how_much(copy: Path, tmp_path: Path) -> None:
    """As a runtime that computes something else would be."""
    weights = np.fromfile(data_file(copy), np.float32)
    weights[len(weights) // 4 : len(weights) // 2] *= 1.5
    weights.tofile(data_file(copy))
    with pytest.raises(ExportError, match=r"copy\.onnx\.data is not what was exported"):
        OnnxPredictor.load(copy, cache=tmp_path / "engines")
    retell(copy, data_sha256=fingerprint(data_file(copy)))
    with pytest.raises(
        ExportError, match=r"differs too much from what torch said .*relative error [\d.e+]+ in \w+ \(all"
    ):
        OnnxPredictor.load(copy, cache=tmp_path / "engines")
    built = CliRunner().invoke(
        main, ["export", "build", str(copy), "--engine-folder", str(tmp_path / "engines"), "--json"]
    )
    assert built.exit_code == 1
    assert not json.loads(built.stdout)["passed"]


def test_it_says_that_it_passed(file: Path, cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    seen: list[str] = []
    with caplog.at_level(logging.INFO):
        OnnxPredictor.load(file, cache=cache, progress=lambda what, done, total: seen.append(what))
    assert "cpu float32 passed the gate: relative error" in caplog.text
    assert seen[-1] == "comparing with torch"
    assert not any("building" in what for what in seen)


# What is wrong, and what to do.


def cut_off(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-5000])


def cut_off_weights(file: Path) -> None:
    data_file(file).write_bytes(data_file(file).read_bytes()[:-100])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda file: file.unlink(), r"there is no exported file .*copy\.onnx: export it again"),
        (cut_off, "is not an ONNX file, or is cut off"),
        (lambda file: data_file(file).unlink(), r"copy\.onnx\.data.* is missing: copy both files"),
        (cut_off_weights, "bytes instead of"),
        (
            lambda file: retell(file, kind="encoder"),
            "holds an encoder, not geometry: use `spatial-mllm export geometry`",
        ),
        (lambda file: retell(file, reference=None), "no record of what torch says"),
        (lambda file: retell(file, reference="AAAA"), "no record of what torch says, or it is damaged"),
        (lambda file: retell(file, random_weights=None), "not made by this version of this package"),
        (lambda file: retell(file, random_weights="true"), "nobody trained.*allow_random_weights"),
    ],
)
def test_a_file_that_cannot_be_used_says_why(copy: Path, change: Callable[[Path], None], says: str) -> None:
    change(copy)
    with pytest.raises(ModelUnavailable, match=says):
        geometry_worker.load_predictor(
            GeometryOptions(str(copy), threads=1, engine_folder=str(copy.parent / "engines"))
        )


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"precision": "bfloat16"}, "is float32, not bfloat16: leave the precision to the file"),
        ({"device": "cuda:1"}, "device auto, cpu or cuda, not cuda:1"),
        ({"providers": "tensorrt"}, "has no provider tensorrt"),
        ({"providers": "npu"}, "provider 'npu' is not known"),
    ],
)
def test_what_this_machine_or_file_has_not(file: Path, options: dict[str, Any], says: str) -> None:
    if "tensorrt" in providers.available():
        pytest.skip("there is TensorRT here")
    with pytest.raises(ModelUnavailable, match=says):
        geometry_worker.load_predictor(GeometryOptions(str(file), **options))


def test_random_weights_can_be_allowed(copy: Path, cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    retell(copy, random_weights="true")
    options = GeometryOptions(str(copy), threads=1, engine_folder=str(cache), allow_random_weights=True)
    assert geometry_worker.load_predictor(options).name.startswith("VGGT of small")
    assert "the weights are random" in caplog.text
    refused = CliRunner().invoke(main, ["ask", str(copy), "why?", "--rgb-geometry", str(copy)])
    assert refused.exit_code == 2
    assert "nobody trained it" in refused.output


def test_memory_is_counted_before_loading(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = GeometryOptions(str(file), device="cpu")
    needed = geometry_worker.needed_bytes(options)
    assert needed > describe(file).data_bytes
    monkeypatch.setattr(main_memory, "free_main_memory", lambda: needed - 1)
    with pytest.raises(ModelUnavailable, match=r"not enough memory on cpu.*choose smaller windows"):
        geometry_worker.load_predictor(options)


# In its process, in a node and on the command line.


def test_in_a_process_of_its_own(file: Path, cache: Path) -> None:
    predictor = ProcessPredictor(
        GeometryOptions(str(file), device="cpu", width=56, threads=1, engine_folder=str(cache))
    )
    doing: list[str] = []
    predictor.start()
    try:
        predictor.wait_loaded(LONG_S, lambda what, done, total: doing.append(what))
        assert predictor.name.endswith("cpu float32")
        assert_alike(predictor.predict(images(3)), VGGTPredictor(small(), width=56).predict(images(3)))
    finally:
        predictor.close()


def test_in_a_node(file: Path, cache: Path) -> None:
    settings = Settings(
        depth_topic="",
        rgb_geometry=str(file),
        rgb_geometry_providers="cpu",
        rgb_geometry_engine_folder=str(cache),
        rgb_geometry_width_px=56,
        rgb_geometry_window_size=4,
        rgb_geometry_max_load=1.0,
        keyframes_rate_hz=0.0,
        model_threads=1,
    )
    options = geometry_options(settings)
    assert (options.providers, options.engine_folder, options.allow_random_weights) == ("cpu", str(cache), False)
    with pytest.raises(ConfigurationError, match=r"rgb_geometry: .*nowhere\.onnx.* there is no exported file"):
        LiveEngine(Settings(depth_topic="", rgb_geometry="nowhere.onnx"))
    engine = LiveEngine(settings, lambda: 1 << 62)
    try:
        engine.start()
        camera = CameraModel(80, 60, 70, 70, 40, 30)
        poses = [make_transform(np.eye(3), (0.1 * i, 0, 0)) for i in range(8)]
        frames = [
            Frame(10**9 + i * 10**8, "camera", camera, image, None, poses[i], "map")
            for i, image in enumerate(images(8))
        ]
        play(engine, frames)

        def seen() -> int:
            status = engine.status().geometry
            assert status is not None
            return status.images.windows + sum(status.images.dropped_windows.values())

        wait_for(lambda: seen() >= 1, LONG_S)
        values = dict(finding(engine, "geometry from color").values)
        assert values["predictor"] == f"VGGT of small, onnxruntime {providers.version()} cpu float32"
        assert values["state"] != "failed"
    finally:
        engine.close()


def test_on_the_command_line(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    import cv2

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for i, image in enumerate(images(6)):
        cv2.imwrite(str(tmp_path / f"{i}.png"), image)
    question = "How far did the camera travel?"
    asked = CliRunner().invoke(main, ["ask", str(tmp_path), question, "--rgb-geometry", str(file), "--json"])
    assert asked.exit_code == 1, asked.output  # a path in metres cannot be told
    assert f"VGGT of small, onnxruntime {providers.version()} cpu float32: " in asked.stderr
    assert json.loads(asked.stdout)["scale_source"] == "NONE"
    assert (tmp_path / "cache" / "spatial_mllm_ros" / "engines").is_dir()
