"""The key-value cache against transformers' own, and the bounded cache of encoded images."""

# ruff: noqa: E402
from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="the extra 'model' is not installed")
pytest.importorskip("transformers", reason="the extra 'model' is not installed")

from transformers import DynamicCache, Qwen2_5_VLTextConfig, Qwen2_5_VLTextModel

from spatial_mllm_ros.models.mllm.cache import FeatureCache, StaticCache

VOCABULARY = 97


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # tiny matrices
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module", params=["eager", "sdpa"])
def language_model(request: pytest.FixtureRequest) -> Any:
    torch.manual_seed(0)
    config = Qwen2_5_VLTextConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=64,
        bos_token_id=0,
        eos_token_id=1,
        rope_parameters={"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]},
    )
    return Qwen2_5_VLTextModel._from_config(config, attn_implementation=request.param).eval()


def tokens(count: int, seed: int) -> Any:
    return torch.randint(0, VOCABULARY, (1, count), generator=torch.Generator().manual_seed(seed))


@torch.inference_mode()
def test_equal_to_dynamic_cache_token_for_token(language_model: Any) -> None:
    """Prefill in pieces and single tokens, beyond the room that was made at first: the very same numbers."""
    theirs, ours = DynamicCache(config=language_model.config), StaticCache(room=10, growth=4)
    for seed, count in enumerate((7, 5, 1, 1, 9, 1, 1)):
        ids = tokens(count, seed)
        expected = language_model(input_ids=ids, past_key_values=theirs, use_cache=True).last_hidden_state
        actual = language_model(input_ids=ids, past_key_values=ours, use_cache=True).last_hidden_state
        assert torch.equal(expected, actual)
        assert ours.length == theirs.get_seq_length()


@torch.inference_mode()
def test_truncated_goes_on_as_if_nothing_had_been_written(language_model: Any) -> None:
    cache = StaticCache(room=40)
    language_model(input_ids=tokens(12, 0), past_key_values=cache, use_cache=True)
    buffers = [layer._keys.data_ptr() for layer in cache.layers]
    answers = []
    for other in range(3):
        language_model(input_ids=tokens(5 + 30 * (other == 1), 50 + other), past_key_values=cache, use_cache=True)
        cache.truncate(12)
        answers.append(language_model(input_ids=tokens(3, 7), past_key_values=cache, use_cache=True).last_hidden_state)
        cache.truncate(12)
    assert torch.equal(answers[0], answers[1])
    assert torch.equal(answers[0], answers[2])
    assert [layer._keys.data_ptr() for layer in cache.layers] != buffers, "the long question needed more room"


@torch.inference_mode()
def test_writes_in_place_within_its_room(language_model: Any) -> None:
    cache = StaticCache(room=64)
    language_model(input_ids=tokens(12, 0), past_key_values=cache, use_cache=True)
    buffers, nbytes = [layer._keys.data_ptr() for layer in cache.layers], cache.nbytes
    for seed in range(20):
        language_model(input_ids=tokens(1, seed), past_key_values=cache, use_cache=True)
    assert [layer._keys.data_ptr() for layer in cache.layers] == buffers
    assert cache.nbytes == nbytes == 3 * 2 * 64 * 2 * 8 * 4  # layers, keys and values, tokens, heads, channels, float32


@torch.inference_mode()
def test_copy_is_independent(language_model: Any) -> None:
    cache = StaticCache(room=20)
    language_model(input_ids=tokens(12, 0), past_key_values=cache, use_cache=True)
    twin = cache.copy(8, room=30)
    kept = twin.layers[0].keys.clone()
    cache.truncate(0)
    language_model(input_ids=tokens(12, 1), past_key_values=cache, use_cache=True)
    assert twin.length == 8
    assert torch.equal(twin.layers[0].keys, kept)


def test_cannot_be_cut_to_more_than_it_holds() -> None:
    with pytest.raises(ValueError, match="cannot be cut"):
        StaticCache(room=8).truncate(1)


@given(
    st.lists(
        st.tuples(st.sampled_from(["put", "get", "limit"]), st.integers(0, 5), st.integers(1, 40)),
        min_size=1,
        max_size=60,
    )
)
@settings(max_examples=60, deadline=None)
def test_feature_cache_is_least_recently_used_within_its_bound(actions: list[tuple[str, int, int]]) -> None:
    limit = 100
    cache, expected = FeatureCache(limit), OrderedDict[int, int]()
    for action, key, size in actions:
        if action == "put":
            cache.put("kind", key, torch.zeros(size, dtype=torch.uint8))
            if size <= limit:
                expected.pop(key, None)
                expected[key] = size
        elif action == "get":
            found = cache.get("kind", key)
            assert (found is None) == (key not in expected)
            if found is not None:
                assert found.nbytes == expected[key]
                expected.move_to_end(key)
        else:
            limit = 3 * size
            cache.limit(limit)
        while sum(expected.values()) > limit:
            expected.popitem(last=False)
        assert cache.nbytes == sum(expected.values()) == cache.nbytes_by_kind.get("kind", 0) <= limit
