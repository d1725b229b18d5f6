"""Precision, attention and memory: what is quantised, what is refused, and that estimates hold."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="models need torch (the extra `model`)")
pytest.importorskip("transformers", reason="models need transformers (the extra `model`)")

from spatial_mllm_ros.models.mllm import attention  # noqa: E402
from spatial_mllm_ros.models.mllm.loading import load_model  # noqa: E402
from spatial_mllm_ros.models.mllm.random_weights import (  # noqa: E402
    FAMILIES,
    build_random_model,
    make_checkpoint,
    make_config,
    make_tokenizer,
)
from spatial_mllm_ros.models.mllm.spatial_mllm import SpatialMLLMForConditionalGeneration, config_of  # noqa: E402
from spatial_mllm_ros.models.weights import precision, preflight  # noqa: E402
from spatial_mllm_ros.models.weights.checkpoint import CheckpointError, read_checkpoint  # noqa: E402
from spatial_mllm_ros.models.weights.preflight import estimate_memory  # noqa: E402
from spatial_mllm_ros.serving.interface import ModelOptions, ModelUnavailable  # noqa: E402

needs_torchao = pytest.mark.skipif(find_spec("torchao") is None, reason="int4 needs torchao")
QUANTISED = ["int8", pytest.param("int4", marks=needs_torchao)]
CPU = torch.device("cpu")
SMALL = {"cache_mib": 16, "max_context_frames": 4, "max_pixels": 50_000, "min_pixels": 10_000}


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.inference_mode():
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    found = {family: make_checkpoint(tmp_path_factory.mktemp(family), family=family, heads=()) for family in FAMILIES}
    return found | {"v1.0": make_checkpoint(tmp_path_factory.mktemp("v1.0"), version="v1.0", heads=())}


def difference(found: Any, expected: Any) -> float:
    return float((found.float() - expected.float()).norm() / expected.float().norm())


# ---- precision


@pytest.mark.parametrize("rows", [1, precision.FEW_ROWS, precision.FEW_ROWS + 1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("columns", [256, 131])
def test_int8_weights_are_within_half_a_step(rows: int, dtype: Any, columns: int) -> None:
    """Whichever way the product is computed: torch's kernel would crash with rows of some lengths."""
    torch.manual_seed(0)
    linear = torch.nn.Linear(columns, 96).to(dtype)
    quantised = precision.Int8Linear(linear)
    step = linear.weight.float().abs().amax(dim=1, keepdim=True) / 127
    assert bool(((quantised.weight.float() * step - linear.weight.float()).abs() <= 0.51 * step).all())
    x = torch.randn(1, rows, columns, dtype=dtype)
    expected = torch.nn.functional.linear(x.float(), linear.weight.float(), linear.bias.float())
    assert quantised(x).dtype == dtype
    assert difference(quantised(x), expected) < 0.01


def test_int8_does_without_torchs_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processors may lack it, or have it wrong."""
    linear = torch.nn.Linear(64, 96).bfloat16()
    quantised, x = precision.Int8Linear(linear), torch.randn(3, 64).bfloat16()
    expected = quantised(x)
    monkeypatch.setattr(precision, "_int8_kernel_works", lambda: False)
    assert difference(quantised(x), expected) < 0.01


def test_a_row_of_zeros_stays_zero() -> None:
    linear = torch.nn.Linear(64, 4, bias=False)
    linear.weight.zero_()
    assert not precision.Int8Linear(linear)(torch.ones(1, 64)).any()


@pytest.mark.parametrize(("kind", "limit"), [("int8", 0.05), pytest.param("int4", 0.5, marks=needs_torchao)])
def test_quantised_models_compute_about_the_same(kind: str, limit: float) -> None:
    """Random weights forgive less than trained ones; what is wrong altogether makes 1.4."""
    config = make_config("tiny", hidden=128, intermediate=256)
    exact = build_random_model(config, torch.float32)
    model = build_random_model(config, torch.bfloat16)
    ids = torch.arange(40)[None] * 7 % 400
    expected = exact(input_ids=ids).logits
    precision.quantise(model, kind, CPU)
    assert difference(model(input_ids=ids).logits, expected) < limit
    assert difference(model(input_ids=ids[:, :4]).logits, expected[:, :4]) < limit
    assert model.dtype == torch.bfloat16
    assert model.visual.dtype == torch.bfloat16
    with pytest.raises(CheckpointError, match=f"weights in {kind} cannot be saved"):
        model.save_pretrained("nowhere")


@pytest.mark.parametrize("kind", QUANTISED)
@pytest.mark.parametrize("family", [*FAMILIES, "v1.0"])
def test_every_model_loads_in_every_precision(folders: dict[str, Path], family: str, kind: str) -> None:
    told: list[str] = []
    loaded = load_model(ModelOptions(str(folders[family]), kind, "cpu", **SMALL), lambda what, *_: told.append(what))
    assert loaded.family == ("spatial-mllm" if family == "v1.0" else family)
    assert loaded.model_id == f"{folders[family].name} {kind} cpu (random weights)"
    assert loaded.random_weights
    assert "loading weights" in told
    assert loaded.prompts.wording.opening == ("<answer>" if family == "v1.0" else "")
    layers = list(precision.layers_of_language(loaded.model))
    assert len(layers) == 2
    assert not any(type(module) is torch.nn.Linear and type(module.weight) is torch.nn.Parameter
                   for layer in layers for module in layer.modules())  # fmt: skip
    real = precision.n_bytes(loaded.model)
    assert real == pytest.approx(loaded.memory.weights, rel=0.01)


@pytest.mark.parametrize("family", [*FAMILIES, "v1.0"])
@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
def test_memory_of_weights_is_known_before_loading(folders: dict[str, Path], family: str, kind: str) -> None:
    loaded = load_model(ModelOptions(str(folders[family]), kind, "cpu", **SMALL))
    assert precision.n_bytes(loaded.model) == pytest.approx(loaded.memory.weights, rel=0.001)
    assert loaded.attention == "sdpa"


def test_auto_precision_is_one_that_the_device_computes_in() -> None:
    assert precision.choose_precision("auto", CPU) in ("float32", "bfloat16")
    assert precision.choose_device("auto").type in ("cpu", "cuda")


def test_what_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelUnavailable, match="precision 'int2' is not known"):
        precision.choose_precision("int2", CPU)
    with pytest.raises(ModelUnavailable, match="device 'tpu' is not known"):
        precision.choose_device("tpu")
    with pytest.raises(ModelUnavailable, match="device 'meta' is not supported"):
        precision.choose_device("meta")
    with pytest.raises(ModelUnavailable, match="there is no device cuda:99"):
        precision.choose_device("cuda:99")
    monkeypatch.setattr(precision, "find_spec", lambda _: None)
    with pytest.raises(ModelUnavailable, match="int4 needs torchao"):
        precision.choose_precision("int4", CPU)


# ---- attention


@pytest.mark.parametrize("family", ["spatial-mllm", "qwen3_vl", "internvl"])
def test_sdpa_computes_what_eager_does(folders: dict[str, Path], family: str) -> None:
    loaded = load_model(ModelOptions(str(folders[family]), "float32", "cpu", attention="eager", **SMALL))
    assert loaded.attention == "eager"
    assert attention.check_attention(loaded.model, "sdpa") < 1e-5


def test_attention_that_computes_something_else_is_refused(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A kernel with a wrong scale, as a broken build has it."""
    model = SpatialMLLMForConditionalGeneration.from_pretrained(folders["spatial-mllm"])
    right = torch.nn.functional.scaled_dot_product_attention

    def wrong(query: Any, *args: Any, **kwargs: Any) -> Any:
        return right(query * 1.5, *args, **kwargs)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", wrong)
    with pytest.raises(ModelUnavailable, match=r'"sdpa" differs from eager attention by 0\.\d+ of the result'):
        attention.choose_attention(model, "sdpa")
    with caplog.at_level(logging.WARNING):
        assert attention.choose_attention(model, "auto") == "eager"
    assert "differs from eager attention" in caplog.text
    assert model.config._attn_implementation == "eager"
    assert model.spatial_encoder.vggt_model.attention == "eager"
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        attention.choose_attention(model, "sdpa")


def test_flash_is_offered_only_where_it_is_installed(folders: dict[str, Path]) -> None:
    model = SpatialMLLMForConditionalGeneration.from_pretrained(folders["spatial-mllm"])
    with pytest.raises(ModelUnavailable, match="flash"):
        attention.choose_attention(model, "flash")
    with pytest.raises(ModelUnavailable, match="attention 'paged' is not known"):
        attention.choose_attention(model, "paged")
    with pytest.raises(ValueError, match="attention 'paged' is not known"):
        attention.set_attention(model, "paged")


# ---- memory


def estimate(folder: Path, **options: Any) -> preflight.MemoryEstimate:
    found = read_checkpoint(folder)
    given = ModelOptions(str(folder), **(SMALL | options))
    return estimate_memory(
        found, config_of(found), given, precision="float32", device=CPU, eager=given.attention == "eager"
    )


def test_the_estimate_grows_with_the_context(folders: dict[str, Path]) -> None:
    folder = folders["spatial-mllm"]
    few, many = estimate(folder), estimate(folder, max_context_frames=16)
    assert many.context_tokens > few.context_tokens
    assert many.key_value_cache > few.key_value_cache
    assert many.activations > few.activations
    assert few.key_value_cache + few.feature_caches == 16 << 20
    assert estimate(folder, attention="eager", max_context_frames=16).activations > many.activations + (100 << 20)


def test_a_model_that_does_not_fit_is_refused_before_it_is_loaded(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight, "free_memory", lambda _: 1 << 20)
    with pytest.raises(
        ModelUnavailable, match=r"not enough memory on cpu .*choose precision bfloat16, fewer max_context"
    ):
        load_model(ModelOptions(str(folders["spatial-mllm"]), "float32", "cpu", **SMALL))
    table = dict(estimate(folders["spatial-mllm"]).rows())
    assert table["free on cpu"] == 1 << 20
    assert table["needed"] == sum(size for what, size in table.items() if what not in ("needed", "free on cpu"))


def test_both_encoders_are_there_while_they_are_compared(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exported one takes the place of the model's own afterwards; with auto either may be kept."""
    found = read_checkpoint(folders["spatial-mllm"])
    own = preflight.encoder_bytes(found, "float32")
    assert 0 < preflight.exported_bytes(found, "int8") < preflight.exported_bytes(found, "float16") < own
    assert preflight.exported_bytes(found, "float32") == own
    plain = estimate(folders["spatial-mllm"])
    config = config_of(found)

    def with_encoder(runtime: str, exported: int) -> preflight.MemoryEstimate:
        options = ModelOptions("", **SMALL, encoder_runtime=runtime)
        return estimate_memory(found, config, options, precision="float32", device=CPU, exported=exported)

    for runtime, exported, kept in (
        ("onnx", own // 4, own // 4),
        ("onnx", 2 * own, 2 * own),
        ("auto", own // 4, own),
        ("auto", 2 * own, 2 * own),
    ):
        memory = with_encoder(runtime, exported)
        assert memory.weights + memory.exported == plain.weights - own + kept
        assert memory.loading == plain.weights + exported + (256 << 20)
    huge = with_encoder("onnx", 1 << 30)
    assert dict(huge.rows())["the exported encoder"] == 1 << 30
    monkeypatch.setattr(preflight, "free_memory", lambda _: huge.answering)
    tight = with_encoder("auto", (1 << 30) - 1)
    assert tight.fits == (tight.loading <= tight.free)


def test_the_size_of_an_exported_encoder_is_that_of_its_file(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = folders["spatial-mllm"]
    given = {"encoder_runtime": "onnx", "encoder_file": "there.onnx"}
    for kind, expected in (("int8", 5000), ("float16", 10_000)):  # which a CPU widens
        described = SimpleNamespace(data_bytes=5000, precision=kind)
        monkeypatch.setattr(preflight, "describe", lambda _, described=described: described)
        assert estimate(folder, **given).exported == expected
    monkeypatch.undo()
    without = estimate(folder)
    missing = estimate(folder, encoder_runtime="auto", encoder_file="not_there.onnx")
    assert replace(missing, free=0) == replace(without, free=0)  # what is free changes with whatever else runs
    with pytest.raises(ModelUnavailable, match="there is no exported file"):
        estimate(folder, encoder_runtime="onnx", encoder_file="not_there.onnx")


def test_the_limit_of_a_container_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "_CGROUP", tmp_path)
    assert preflight.free_memory(CPU) > 1 << 20
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("3000\n")
    assert preflight.free_memory(CPU) > 1 << 20
    (tmp_path / "memory.max").write_text("10000\n")
    (tmp_path / "memory.stat").write_text("anon 5\ninactive_file 200\n")
    assert preflight.free_memory(CPU) == 7200


# ---- loading by name


def test_what_cannot_be_loaded_says_why(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path)
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()
    with pytest.raises(ModelUnavailable, match="tokenizer"):
        load_model(ModelOptions(str(folder), "float32", "cpu", **SMALL))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "internvl_chat"}))
    with pytest.raises(ModelUnavailable, match=r"none of spatial-mllm.*-hf"):
        load_model(ModelOptions(str(folder), "float32", "cpu", **SMALL))


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl", "internvl"])
def test_plain_models_are_loaded_strictly_too(folders: dict[str, Path], family: str, tmp_path: Path) -> None:
    for path in folders[family].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    config["vision_config"]["num_hidden_layers" if family == "internvl" else "depth"] = 3
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="missing"):
        load_model(ModelOptions(str(tmp_path), "float32", "cpu", **SMALL))


def test_the_tokenizer_writes_any_text() -> None:
    tokenizer = make_tokenizer()
    text = "<|im_start|>user\nTür: 12.5 m? 日本<|im_end|>"
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text
    chat = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": "How far?"}]}]
    assert tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True) == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
        "<|vision_start|><|video_pad|><|vision_end|>How far?<|im_end|>\n<|im_start|>assistant\n"
    )
