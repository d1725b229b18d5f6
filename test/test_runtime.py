"""An exported encoder at work: providers, engines kept on disk, the gate, and what is said when something is wrong."""

from __future__ import annotations

import json
import logging
import multiprocessing
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the gate needs torch (the extra `model`)")
onnx = pytest.importorskip("onnx", reason="engines need onnx (the extra `onnx`)")
pytest.importorskip("onnxruntime", reason="needs onnxruntime (the extra `onnx`)")
pytest.importorskip("onnxscript", reason="export needs onnxscript (the extra `onnx`)")
pytest.importorskip("filelock", reason="engines need filelock (the extra `onnx`)")

from spatial_mllm_ros.models.mllm.random_weights import fill_random, make_checkpoint  # noqa: E402
from spatial_mllm_ros.models.mllm.warm import out_of_memory  # noqa: E402
from spatial_mllm_ros.models.onnx import (  # noqa: E402
    export,
    parts,
    providers,
    sessions,
)
from spatial_mllm_ros.models.onnx.engine_cache import MANIFEST, EngineCache  # noqa: E402
from spatial_mllm_ros.models.onnx.onnx_encoder import OnnxEncoder  # noqa: E402
from spatial_mllm_ros.models.onnx.sessions import Profile, Sessions  # noqa: E402
from spatial_mllm_ros.models.vggt.config import VGGTConfig  # noqa: E402
from spatial_mllm_ros.models.vggt.loading import load_vggt  # noqa: E402
from spatial_mllm_ros.models.vggt.spatial_encoder import TorchEncoder, finish, fixed_frames  # noqa: E402
from spatial_mllm_ros.models.vggt.vggt import VGGT  # noqa: E402
from spatial_mllm_ros.models.worker.gate import choose_encoder, compare  # noqa: E402
from spatial_mllm_ros.models.worker.local import load_engine  # noqa: E402
from spatial_mllm_ros.serving.interface import ModelFrame, ModelOptions, ModelQuestion, ModelUnavailable  # noqa: E402
from spatial_mllm_ros.serving.onnx_file import ExportError, data_file, describe  # noqa: E402

IMAGES = torch.rand(2, 3, 56, 42, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.inference_mode():
        yield


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete model with random weights."""
    folder = tmp_path_factory.mktemp("checkpoint") / "smallest"
    return make_checkpoint(folder, "tiny", vggt_layers=1, dino_layers=1, heads=())


@pytest.fixture(scope="module")
def vggt(checkpoint: Path) -> VGGT:
    return load_vggt(checkpoint)


def other_vggt(vggt: VGGT) -> VGGT:
    """Of the same size, with other weights."""
    with torch.device("meta"):
        other = VGGT(vggt.config)
    fill_random(other, torch.float32, torch.device("cpu"), seed=1)
    return other.eval()


@pytest.fixture(scope="module")
def file(vggt: VGGT, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("export") / "encoder.onnx"
    export.export_encoder(vggt, file, name="smallest")
    return file


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("engines")


@pytest.fixture(scope="module")
def encoder(file: Path, cache: Path) -> OnnxEncoder:
    return OnnxEncoder.load(file, providers="cpu", cache=cache)


@pytest.fixture(scope="module")
def reference(vggt: VGGT) -> TorchEncoder:
    return TorchEncoder(vggt.aggregator)


# Both runtimes behind one interface.


@pytest.mark.parametrize("size", [(1, 42, 56), (2, 56, 56), (5, 70, 42)])
def test_both_runtimes_say_the_same(encoder: OnnxEncoder, reference: TorchEncoder, size: tuple[int, int, int]) -> None:
    frames = torch.rand(size[0], 3, *size[1:])
    there, expected = encoder.encode(frames), reference.encode(frames)
    torch.testing.assert_close(there, expected, rtol=1e-4, atol=1e-5)
    tokens = encoder.frame_tokens(frames)
    torch.testing.assert_close(tokens, reference.frame_tokens(frames), rtol=1e-4, atol=1e-5)
    assert list(tokens.shape) == [size[0], size[1] * size[2] // 14**2, encoder.embed_dim]


def test_tokens_of_a_frame_can_be_kept(encoder: OnnxEncoder, file: Path, cache: Path) -> None:
    """They are the same to the last bit in other company, and in another process' encoder that never saw the frames."""
    frames = torch.rand(4, 3, 56, 42)
    together = encoder.frame_tokens(frames)
    assert torch.equal(together[2], encoder.frame_tokens(frames[2:3])[0])
    fresh = OnnxEncoder.load(file, providers="cpu", cache=cache)
    assert torch.equal(finish(fresh.relate_steps(together, (56, 42))), encoder.encode(frames))


def test_half_precision_frames_are_taken(encoder: OnnxEncoder) -> None:
    frames = torch.rand(2, 3, 42, 42).half()
    assert torch.equal(encoder.encode(frames), encoder.encode(frames.float()))


def test_wrong_shapes_are_refused_alike(encoder: OnnxEncoder, reference: TorchEncoder) -> None:
    for each in (encoder, reference):
        with pytest.raises(ValueError, match="frames must be"):
            each.frame_tokens(torch.rand(1, 2, 3, 42, 42))
        with pytest.raises(ValueError, match="multiples of 14"):
            each.frame_tokens(torch.rand(1, 3, 40, 42))
        with pytest.raises(ValueError, match="frame tokens"):
            finish(each.relate_steps(torch.rand(2, 8, 32), (42, 42)))


def test_the_name_says_where_it_runs(encoder: OnnxEncoder) -> None:
    assert encoder.name == f"onnxruntime {providers.version()} cpu float32"


def test_functions_spelled_out_say_the_same(file: Path, reference: TorchEncoder) -> None:
    """What TensorRT gets: no functions, no kernels of ONNX Runtime; here on the CPU."""
    import onnxruntime

    by_part = {}
    for name, model in parts.parts(file, describe(file), kernels=False).items():
        assert {node.domain for node in model.graph.node} == {""}
        assert not model.functions
        options = onnxruntime.SessionOptions()
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(file.parent))
        by_part[name] = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    spelled = OnnxEncoder(Sessions(describe(file), "cpu", by_part))
    assert compare(spelled, reference).error < 1e-5


def test_profile_names_every_input(file: Path) -> None:
    """TensorRT builds for ranges of sizes, which must be given for every input of both parts."""
    for name, model in parts.parts(file, describe(file), kernels=False).items():
        shapes = Profile().shapes(name, describe(file))
        assert sorted(shapes) == sorted(value.name for value in model.graph.input)
        for value in model.graph.input:
            dims = value.type.tensor_type.shape.dim
            for shape in shapes[value.name]:
                assert len(shape) == len(dims)
                assert all(not dim.dim_value or dim.dim_value == size for dim, size in zip(dims, shape, strict=True))


# Steps: ONNX Runtime does not pause within a graph.


class HeldUp:
    """The session of the second part, which runs until it is let go, or told to end."""

    def __init__(self, session: Any) -> None:
        self.io_binding = session.io_binding
        self._session = session
        self.running, self.go_on = threading.Event(), threading.Event()
        self.ended = False

    def run_with_iobinding(self, binding: Any, options: Any) -> None:
        self.running.set()
        while not self.go_on.wait(0.001):
            if options.terminate:
                self.ended = True
                raise RuntimeError("Exiting due to terminate flag being set to true.")
        self._session.run_with_iobinding(binding, options)


@pytest.fixture
def held_up(encoder: OnnxEncoder) -> OnnxEncoder:
    sessions = encoder._sessions
    return OnnxEncoder(
        replace(sessions, by_part={**sessions.by_part, "relate": HeldUp(sessions.by_part["relate"])}, engine=None)
    )


def test_a_step_returns_while_onnx_runtime_works(held_up: OnnxEncoder, encoder: OnnxEncoder) -> None:
    """So that a question gets its turn; frames of another one are encoded meanwhile."""
    session = held_up._sessions.by_part["relate"]
    tokens = held_up.frame_tokens(IMAGES)
    steps = held_up.relate_steps(tokens, (56, 42))
    for _ in range(3):
        next(steps)
    assert session.running.is_set()
    assert torch.equal(held_up.frame_tokens(IMAGES), tokens)
    session.go_on.set()
    assert torch.equal(finish(steps), encoder.encode(IMAGES))


def test_what_is_given_up_is_ended(held_up: OnnxEncoder, encoder: OnnxEncoder) -> None:
    session = held_up._sessions.by_part["relate"]
    tokens = held_up.frame_tokens(IMAGES)
    steps, waiting = (held_up.relate_steps(tokens, (56, 42)) for _ in range(2))
    next(steps)
    next(waiting)
    waiting.close()
    assert not session.ended, "the other one goes on"
    assert session.running.wait(5)
    steps.close()
    assert session.ended
    assert not any(thread.name == "onnxruntime-relate" for thread in threading.enumerate())
    session.go_on.set()
    assert torch.equal(held_up.encode(IMAGES), encoder.encode(IMAGES))


def test_what_goes_wrong_in_the_background_is_raised(held_up: OnnxEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    session = held_up._sessions.by_part["relate"]

    def run(*_: Any) -> None:
        raise RuntimeError("Failed to allocate memory for requested buffer")

    monkeypatch.setattr(session, "run_with_iobinding", run)
    with pytest.raises(RuntimeError, match=r"out of memory: ONNX Runtime with frame_tokens \[2, 12, 32\]") as raised:
        held_up.encode(IMAGES)
    assert out_of_memory(raised.value)


# Engines kept on disk.


def engines(cache: Path) -> list[Path]:
    return sorted(path for path in cache.iterdir() if path.is_dir() and not path.name.startswith("."))


def test_a_second_start_builds_nothing(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    OnnxEncoder.load(file, cache=tmp_path, progress=lambda what, done, total: seen.append(what))
    assert any("building" in what for what in seen)
    monkeypatch.setattr(sessions, "parts", lambda *a, **k: pytest.fail("built again"))
    seen.clear()
    OnnxEncoder.load(file, cache=tmp_path, progress=lambda what, done, total: seen.append(what))
    assert seen[-1] == "ready"
    assert not any("building" in what for what in seen)


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("version", lambda patch: patch.setattr(providers, "versions", lambda provider: {"onnxruntime": "0.0"})),
        ("device", lambda patch: patch.setattr(providers, "device_name", lambda provider: "another")),
    ],
)
def test_another_key_builds_again(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, change: Any
) -> None:
    before = OnnxEncoder.load(file, cache=tmp_path)
    change(monkeypatch)
    after = OnnxEncoder.load(file, cache=tmp_path)
    assert len(engines(tmp_path)) == 2
    assert torch.equal(before.encode(IMAGES), after.encode(IMAGES))


def test_what_a_newer_engine_replaces_is_removed(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Of the same file on the same device and provider, once nobody uses it any more. No other."""
    copy = tmp_path / "copy.onnx"
    shutil.copy(file, copy)
    shutil.copy(data_file(file), data_file(copy))
    with caplog.at_level(logging.INFO):
        OnnxEncoder.load(copy, cache=tmp_path / "engines", providers="cpu")
        (other,) = engines(tmp_path / "engines")
        used = OnnxEncoder.load(file, cache=tmp_path / "engines", providers="cpu")
        for number in ("0.1", "0.2", "0.3"):
            monkeypatch.setattr(providers, "versions", lambda provider, number=number: {"onnxruntime": number})
            OnnxEncoder.load(file, cache=tmp_path / "engines", providers="cpu")
    assert len(engines(tmp_path / "engines")) == 3, "the copy's, the one that is used, the newest"
    assert caplog.text.count("was removed") == 2
    del used
    monkeypatch.setattr(providers, "versions", lambda provider: {"onnxruntime": "0.4"})
    OnnxEncoder.load(file, cache=tmp_path / "engines", providers="cpu")
    left = engines(tmp_path / "engines")
    assert len(left) == 2
    assert other in left


def test_another_model_builds_again(file: Path, tmp_path: Path) -> None:
    copy = tmp_path / "encoder.onnx"
    export.to_int8(file, copy)
    OnnxEncoder.load(file, cache=tmp_path / "engines")
    assert OnnxEncoder.load(copy, cache=tmp_path / "engines").name.endswith("int8")
    assert len(engines(tmp_path / "engines")) == 2


@pytest.mark.parametrize("damage", ["flipped", "cut", "removed", "manifest", "emptied"])
def test_a_damaged_engine_is_built_again(
    file: Path, tmp_path: Path, reference: TorchEncoder, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    OnnxEncoder.load(file, cache=tmp_path)
    (home,) = engines(tmp_path)
    part = home / "relate.onnx"
    content = bytearray(part.read_bytes())
    if damage == "flipped":
        content[len(content) // 2] ^= 1
        part.write_bytes(content)
    elif damage == "cut":
        part.write_bytes(content[:-10])
    elif damage == "removed":
        part.unlink()
    elif damage == "manifest":
        (home / MANIFEST).write_text("{")
    else:
        shutil.rmtree(home)
        home.mkdir()
    with caplog.at_level(logging.WARNING):
        again = OnnxEncoder.load(file, cache=tmp_path)
    assert "damaged" in caplog.text
    assert compare(again, reference).passed
    assert json.loads((home / MANIFEST).read_text())["files"]


def test_damaged_weights_are_not_built_in(file: Path, tmp_path: Path) -> None:
    copy = tmp_path / "encoder.onnx"
    shutil.copy(file, copy)
    content = bytearray(data_file(file).read_bytes())
    content[len(content) // 2] ^= 1
    data_file(copy).write_bytes(content)
    with pytest.raises(ExportError, match=r"encoder\.onnx\.data is not what was exported"):
        OnnxEncoder.load(copy, cache=tmp_path / "engines")


def slow_build(folder: Path) -> None:
    (folder / "started").write_text("x")
    time.sleep(0.3)
    (folder / "engine").write_text("whole")


def build_in_a_process(cache: str, results: Any) -> None:
    built: list[str] = []
    home = EngineCache(cache).get({"key": 1}, slow_build, built.append)
    results.put((len(built), (home.folder / "engine").read_text()))


def test_two_processes_at_once_build_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    processes = [context.Process(target=build_in_a_process, args=(str(tmp_path), results)) for _ in range(3)]
    for process in processes:
        process.start()
    found = [results.get(timeout=30) for _ in processes]
    for process in processes:
        process.join()
    assert sorted(built for built, _ in found) == [0, 0, 1]
    assert {content for _, content in found} == {"whole"}


def use_in_a_process(cache: str, version: str, ready: Any, go_on: Any) -> None:
    engine = EngineCache(cache).get({"version": version}, slow_build, source={"file": "the same"})
    ready.put(version)
    go_on.wait(30)
    assert (engine.folder / "engine").read_text() == "whole"


def test_what_another_process_uses_stays(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    ready, go_on = context.Queue(), context.Event()
    cache, source = EngineCache(tmp_path), {"file": "the same"}
    users = [context.Process(target=use_in_a_process, args=(str(tmp_path), v, ready, go_on)) for v in ("1", "2")]
    for user in users:
        user.start()
    assert sorted(ready.get(timeout=30) for _ in users) == ["1", "2"], (
        "both built at once, and neither removed the other's"
    )
    cache.get({"version": "3"}, slow_build, source=source)
    assert len(engines(tmp_path)) == 3
    go_on.set()
    for user in users:
        user.join()
        assert user.exitcode == 0
    cache.get({"version": "3"}, slow_build, source=source)
    assert len(engines(tmp_path)) == 3, "nothing was built, so nothing is replaced"
    cache.get({"version": "4"}, slow_build, source=source)
    assert len(engines(tmp_path)) == 1


def test_a_failed_build_leaves_nothing(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "half").write_text("x")
        raise OSError(28, "No space left on device")

    with pytest.raises(ExportError, match=r"disk is full at .*free some space"):
        EngineCache(tmp_path).get({"key": 1}, fail)
    assert engines(tmp_path) == []
    assert [path.suffix for path in tmp_path.iterdir()] in ([], [".lock"])
    assert EngineCache(tmp_path).get({"key": 1}, slow_build).folder.is_dir()


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ExportError, match="choose a folder that can be written"):
        EngineCache(tmp_path / "file" / "engines").get({}, slow_build)


# The gate, and who runs.


def test_the_gate_lets_the_same_model_through(
    file: Path, cache: Path, reference: TorchEncoder, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        chosen = choose_encoder(reference, "onnx", file, providers="cpu", cache=cache)
    assert chosen.name.startswith("onnxruntime")
    assert "passed the gate" in caplog.text
    assert "cpu float32" in caplog.text


def test_the_gate_refuses_other_weights_and_says_by_how_much(file: Path, cache: Path, vggt: VGGT) -> None:
    other = TorchEncoder(other_vggt(vggt).aggregator)
    with pytest.raises(ExportError, match=r"differs too much .*relative error [\d.]+ \(allowed 0.001\)"):
        choose_encoder(other, "onnx", file, cache=cache)


def test_or_falls_back_by_parameter(file: Path, cache: Path, vggt: VGGT, caplog: pytest.LogCaptureFixture) -> None:
    other = TorchEncoder(other_vggt(vggt).aggregator)
    assert choose_encoder(other, "auto", file, cache=cache) is other
    assert "runs on torch cpu float32 instead" in caplog.text
    assert choose_encoder(other, "auto", "nowhere.onnx", cache=cache) is other
    assert "there is no exported file nowhere.onnx" in caplog.text


def test_torch_needs_no_file(reference: TorchEncoder) -> None:
    assert choose_encoder(reference, "torch") is reference
    assert choose_encoder(reference, "auto") is reference
    with pytest.raises(ExportError, match="needs the exported file"):
        choose_encoder(reference, "onnx")
    with pytest.raises(ExportError, match="runtime 'tflite' is not known"):
        choose_encoder(reference, "tflite")


def test_the_gate_refuses_another_size(encoder: OnnxEncoder) -> None:
    with torch.device("meta"):
        wider = VGGT(VGGTConfig(embed_dim=64, depth=1, num_heads=2, patch_embed_depth=1, patch_embed_num_heads=2))
    fill_random(wider, torch.float32, torch.device("cpu"))
    with pytest.raises(ExportError, match="its embed_dim is 32, the model's 64"):
        compare(encoder, TorchEncoder(wider.aggregator))


def test_numbers_that_are_none_do_not_pass(reference: TorchEncoder, encoder: OnnxEncoder) -> None:
    class Broken:
        name, patch_size, embed_dim = "broken cpu float32", 14, 32

        def encode(self, frames: Any) -> Any:
            return encoder.encode(frames) * float("nan")

    assert not compare(Broken(), reference).passed  # type: ignore[arg-type]


def test_the_fixed_input_is_fixed() -> None:
    frames = fixed_frames(2, 14)
    assert torch.equal(frames, fixed_frames(2, 14))
    assert list(frames.shape) == [2, 3, 84, 112]
    assert 0 <= float(frames.min()) < 0.1
    assert 0.9 < float(frames.max()) <= 1


# A whole model with it.


def test_a_model_answers_with_the_exported_encoder(checkpoint: Path, file: Path, cache: Path) -> None:
    """The same words as with torch; who encoded is named."""
    options = ModelOptions(
        str(checkpoint), "float32", "cpu", max_new_tokens=4, threads=1, min_pixels=784, max_pixels=7840
    )
    exported = replace(options, encoder_runtime="onnx", encoder_file=str(file), encoder_engine_folder=str(cache))
    images = np.random.default_rng(0).integers(0, 255, (2, 60, 80, 3), np.uint8)
    frames = [ModelFrame(i, i * 10**9, image) for i, image in enumerate(images)]
    said = []
    for each in (options, exported):
        engine = load_engine(each)
        said.append(engine.answer(ModelQuestion("How far is the chair?"), frames).token_ids)
    assert said[0] == said[1]
    assert engine.model_id.endswith(f", encoder onnxruntime {providers.version()} cpu float32")


def test_a_model_is_refused_when_its_encoder_is(checkpoint: Path) -> None:
    options = ModelOptions(str(checkpoint), "float32", "cpu", threads=1, encoder_runtime="onnx", encoder_file="no.onnx")
    with pytest.raises(ModelUnavailable, match=r"there is no exported file no\.onnx"):
        load_engine(options)
    fallen_back = load_engine(replace(options, encoder_runtime="auto"))
    assert "onnxruntime" not in fallen_back.model_id


def test_providers_that_are_not_there(file: Path, cache: Path) -> None:
    if "tensorrt" not in providers.available():
        with pytest.raises(ExportError, match=r"has no provider tensorrt \(it has .*cpu\): install onnxruntime-gpu"):
            OnnxEncoder.load(file, providers="tensorrt", cache=cache)
    with pytest.raises(ExportError, match="provider 'npu' is not known"):
        OnnxEncoder.load(file, providers="npu,cpu", cache=cache)
    assert providers.choose("auto")[-1] == "cpu"
    assert providers.summary()["providers"]["cpu"]


def test_a_provider_that_falls_back_is_not_used_silently(
    file: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """ONNX Runtime itself goes on with the CPU when CUDA's libraries are missing."""
    monkeypatch.setattr(providers, "available", lambda: ("cuda", "cpu"))
    with caplog.at_level(logging.INFO):
        chosen = OnnxEncoder.load(file, cache=cache)
    if chosen.provider == "cuda":
        pytest.skip("CUDA works here")
    assert "provider cuda does not start" in caplog.text
    with pytest.raises(ExportError, match=r"runs on none of the providers asked for.*cuda"):
        OnnxEncoder.load(file, providers="cuda", cache=cache)


def test_a_file_that_is_no_encoder(file: Path, tmp_path: Path, cache: Path) -> None:
    model = onnx.load(file, load_external_data=False)
    for entry in model.metadata_props:
        if entry.key.endswith(".kind"):
            entry.value = "geometry"
    (tmp_path / "g.onnx").write_bytes(model.SerializeToString())
    shutil.copy(data_file(file), data_file(tmp_path / "g.onnx"))
    with pytest.raises(ExportError, match="holds geometry, not an encoder"):
        OnnxEncoder.load(tmp_path / "g.onnx", cache=cache)
