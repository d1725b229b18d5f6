"""Caches: keys and values of a language model with room to grow, cut back at no cost; encoded images within a bound."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Hashable
from typing import Any

import torch
from transformers.cache_utils import Cache, CacheLayerMixin


class StaticLayer(CacheLayerMixin):
    """Keys and values of one layer, [batch, heads, tokens, channels], as views of buffers with room for more tokens.

    transformers' DynamicLayer concatenates, and so copies, everything it holds for every token. A layer with a sliding
    window works too; it holds all tokens, and the mask hides those outside the window.
    """

    is_sliding = False
    is_croppable = True

    def __init__(self, room: int = 0, growth: int = 256) -> None:
        """room: tokens to make room for at first. growth: further tokens each time that the room is used up."""
        super().__init__()
        self.room, self.growth, self.length = room, growth, 0
        self._keys: Any = None
        self._values: Any = None

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Buffers of the kind of these states, without tokens yet."""
        self.dtype, self.device = key_states.dtype, key_states.device
        self._keys = key_states.new_empty((*key_states.shape[:2], self.room, key_states.shape[3]))
        self._values = value_states.new_empty((*value_states.shape[:2], self.room, value_states.shape[3]))
        self.is_initialized = True
        self.truncate(0)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append the states of further tokens; returns views of all tokens, valid until the next call."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        begin, end = self.length, self.length + key_states.shape[-2]
        if end > self._keys.shape[-2]:
            self._grow(end + self.growth)
        self._keys[:, :, begin:end] = key_states
        self._values[:, :, begin:end] = value_states
        self.truncate(end)
        return self.keys, self.values

    def _grow(self, room: int) -> None:
        for name in ("_keys", "_values"):
            old = getattr(self, name)
            new = old.new_empty((*old.shape[:2], room, old.shape[3]))
            new[:, :, : self.length] = old[:, :, : self.length]
            setattr(self, name, new)

    def truncate(self, length: int) -> None:
        """Hold the first ``length`` tokens alone; nothing is copied, and the room stays."""
        self.length = length
        if self.is_initialized:
            self.keys, self.values = self._keys[:, :, :length], self._values[:, :, :length]

    def copy(self, length: int, room: int) -> StaticLayer:
        """A layer of its own with the first ``length`` tokens of this one and room for ``room``."""
        twin = StaticLayer(max(room, length), self.growth)
        if length:
            twin.update(self._keys[:, :, :length], self._values[:, :, :length])
        return twin

    @property
    def nbytes(self) -> int:
        """Bytes of the buffers, their room included."""
        return self._keys.nbytes + self._values.nbytes if self.is_initialized else 0

    # What transformers asks of a layer.

    def get_seq_length(self) -> int:
        return self.length

    def get_max_length(self) -> int:
        return -1

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.length + query_length, 0

    def reset(self) -> None:
        self.truncate(0)

    def crop(self, tokens_to_remove: int) -> None:
        """tokens_to_remove: 0 or negative, as transformers has it."""
        if tokens_to_remove > 0:
            raise ValueError("the number of tokens to remove is given as a negative number")
        self.truncate(max(self.length + tokens_to_remove, 0))


class StaticCache(Cache):
    """The cache of a whole language model, for ``past_key_values`` of any attention (eager, sdpa, flash).

    For models whose layers all attend to tokens, as those of Qwen2.5-VL, Qwen3-VL and InternVL do.
    """

    def __init__(self, room: int, growth: int = 256) -> None:
        """room: tokens to make room for in every layer; beyond it the buffers grow by ``growth`` tokens at a time."""
        super().__init__(layer_class_to_replicate=lambda: StaticLayer(room, growth))

    @property
    def length(self) -> int:
        """Tokens held."""
        return int(self.get_seq_length())

    def truncate(self, length: int) -> None:
        """Forget all tokens but the first ``length``: a few views are made, nothing is copied. ValueError if longer."""
        if not 0 <= length <= self.length:
            raise ValueError(f"a cache of {self.length} tokens cannot be cut to {length}")
        for layer in self.layers:
            layer.truncate(length)

    def copy(self, length: int, room: int) -> StaticCache:
        """A cache of its own with the first ``length`` tokens of this one."""
        twin = StaticCache(room)
        twin.layers = [layer.copy(length, room) for layer in self.layers]
        return twin

    @property
    def nbytes(self) -> int:
        """Bytes of all buffers, their room included."""
        return sum(layer.nbytes for layer in self.layers)


class FeatureCache:
    """Encoded images by key, within a bound of bytes: of what is beyond it, the least recently used goes first."""

    def __init__(self, limit: int = 0) -> None:
        """limit: bytes."""
        self._tensors: OrderedDict[Hashable, torch.Tensor] = OrderedDict()
        self._limit = limit
        self._nbytes: Counter[str] = Counter()
        self.hits, self.misses = 0, 0

    def get(self, kind: str, key: Hashable) -> torch.Tensor | None:
        """What was put for this key, or None."""
        found = self._tensors.get((kind, key))
        if found is None:
            self.misses += 1
            return None
        self.hits += 1
        self._tensors.move_to_end((kind, key))
        return found

    def put(self, kind: str, key: Hashable, tensor: torch.Tensor) -> None:
        """Keep a tensor, unless it is larger than the bound alone. It should not be a view of a larger one."""
        if tensor.nbytes > self._limit:
            return
        self._remove((kind, key))
        self._tensors[kind, key] = tensor
        self._nbytes[kind] += tensor.nbytes
        self.limit(self._limit)

    def limit(self, nbytes: int) -> None:
        """Set the bound; what is beyond it is forgotten."""
        self._limit = max(nbytes, 0)
        while self.nbytes > self._limit:
            self._remove(next(iter(self._tensors)))

    def clear(self) -> None:
        """Forget everything."""
        self._tensors.clear()
        self._nbytes.clear()

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self._nbytes.total()

    @property
    def nbytes_by_kind(self) -> dict[str, int]:
        """Bytes held, by the kind that ``put`` was told."""
        return dict(self._nbytes)

    def _remove(self, key: tuple[str, Hashable]) -> None:
        gone = self._tensors.pop(key, None)
        if gone is not None:
            self._nbytes[key[0]] -= gone.nbytes
