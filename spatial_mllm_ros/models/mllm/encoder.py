"""A loaded model as contexts and answers need it: Spatial-MLLM, and the plain video-language models beside it."""

from __future__ import annotations

from collections.abc import Generator, Hashable, Sequence
from functools import cached_property
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor

from spatial_mllm_ros.models.mllm.cache import StaticCache
from spatial_mllm_ros.models.mllm.constrained import JsonSchema
from spatial_mllm_ros.models.mllm.context import Context, Steps, Store
from spatial_mllm_ros.models.mllm.generate import PIECE, Allowed, Limits, Writer, prefill
from spatial_mllm_ros.models.mllm.positions import rope_index
from spatial_mllm_ros.models.mllm.prompts import Prompts, QuestionTokens
from spatial_mllm_ros.models.vggt.processing import PAIR, FrameFormat, even_frames, unit_range
from spatial_mllm_ros.models.vggt.spatial_encoder import SpatialEncoder, TorchEncoder
from spatial_mllm_ros.models.weights.precision import n_bytes
from spatial_mllm_ros.serving.interface import ModelFrame, ModelOptions, ModelQuestion

PREFIX_PIECE = 512
"""Tokens of a context that are prefilled at a time. Always the same, so that rounding is."""


class VideoEncoder:
    """Encodes frames and goes on writing from them. See ``context.Encoder``.

    Kept for other contexts: the visual tokens of each frame pair (or frame, where they are taken one by one), what
    VGGT's DINOv2 makes of each frame, and without a spatial branch the keys and values of all tokens before the first
    that differs from the last context. Cold or warm, the same functions run on the same pieces, so everything is the
    same to the last bit. With a spatial branch every visual token depends on every frame.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        prompts: Prompts,
        how: FrameFormat,
        model_id: str,
        options: ModelOptions,
        spatial: SpatialEncoder | None = None,
    ) -> None:
        """model: of transformers or this package; its parts are looked up by the names that these use. spatial: what
        computes the spatial tokens, if not the model itself."""
        self._model, self._tokenizer, self._prompts, self._how = model, tokenizer, prompts, how
        self.model_id = model_id
        if spatial is None and how.spatial:
            spatial = TorchEncoder(model.spatial_encoder.aggregator, model.config.spatial_layer)
        self._spatial = spatial
        self._answer_room = PIECE + options.max_new_tokens
        text = model.config.get_text_config()
        head_dim = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        heads = text.num_hidden_layers * text.num_key_value_heads
        self._token_nbytes = 2 * heads * head_dim * model.dtype.itemsize
        ends = getattr(model.generation_config, "eos_token_id", None)
        ends = prompts.end_ids if ends is None else ends
        self.end_ids: tuple[int, ...] = (ends,) if isinstance(ends, int) else tuple(ends)

    # Frames.

    def select(self, frames: Sequence[ModelFrame], limit: int) -> list[ModelFrame]:
        """An even number of frames where they are taken in pairs; each once, in time order."""
        if self._how.in_pairs:
            return even_frames(frames, limit)
        kept = list({frame.frame_id: frame for frame in frames}.values())[:limit]
        return sorted(kept, key=lambda frame: (frame.stamp_ns, frame.frame_id))

    def encode(self, frames: Sequence[ModelFrame], store: Store) -> Steps:
        """A context of selected frames; a step is a frame, a frame pair, a block of VGGT or a piece of the prefix."""
        how = self._how
        size = how.size([(frame.image.shape[0], frame.image.shape[1]) for frame in frames])
        grid = how.grid(len(frames), size)
        images = _Images(how, size)
        step = PAIR if how.in_pairs else 1
        parts = [frames[begin : begin + step] for begin in range(0, len(frames), step)]
        keys: list[Hashable] = [(*(frame.frame_id for frame in part), size) for part in parts]
        features = []
        for part, key in zip(parts, keys, strict=True):
            found = store.features.get("features_2d", key)
            if found is None:
                found = self._features_2d([images(frame) for frame in part])
                store.features.put("features_2d", key, found)
                yield "features_2d"
            features.append(found)
        visual = torch.cat(features, dim=1)
        if how.spatial:
            spatial = yield from self._features_3d(frames, images, store)
            visual = self._model.fuse(visual[0], spatial, grid)[None]
            keys = [tuple(keys)] * len(keys)
            del spatial
            yield "fusion"
        ids = self._prompts.prefix(how, [frame.stamp_ns for frame in frames], size)
        return (yield from self._prefill(frames, ids, visual, keys, grid, store))

    def _features_2d(self, images: Sequence[Tensor]) -> Tensor:
        """Visual tokens of a pair or a frame, [1, tokens, hidden], of Qwen3-VL with those for deeper layers after them."""
        core, how = self._model.model, self._how
        place = {"device": self._model.device, "dtype": self._model.dtype}
        if not how.in_pairs:
            return core.get_image_features(how.tile(images[0])[None].to(**place)).pooler_output
        patches = how.patches_of_pair(images[0], images[1]).to(**place)
        grid = how.grid(PAIR, (images[0].shape[1], images[0].shape[2]))
        output = core.visual(patches, grid_thw=torch.tensor([grid], device=self._model.device))
        return torch.stack([output.pooler_output, *(getattr(output, "deepstack_features", None) or ())])

    def _features_3d(self, frames: Sequence[ModelFrame], images: _Images, store: Store) -> Generator[str, None, Tensor]:
        """VGGT's tokens of the patches of all frames, [T, patches, 2 * embed_dim]."""
        model, spatial = self._model, self._spatial
        assert spatial is not None
        tokens = []
        for frame in frames:
            key = (frame.frame_id, images.size)
            found = store.features.get("frame_tokens", key)
            if found is None:
                # rounded before it is normalised, as ``encode_3d`` has it
                found = spatial.frame_tokens(unit_range(images(frame)[None]).to(model.device, model.dtype))
                store.features.put("frame_tokens", key, found)
                yield "frame_tokens"
            tokens.append(found)
        steps = spatial.relate_steps(torch.cat(tokens), images.size)
        while True:
            try:
                next(steps)
            except StopIteration as done:
                return done.value.to(model.dtype)
            yield "aggregation"

    # The language model.

    def _prefill(
        self,
        frames: Sequence[ModelFrame],
        ids: Sequence[int],
        visual: Tensor,
        keys: Sequence[Hashable],
        grid: tuple[int, int, int],
        store: Store,
    ) -> Steps:
        """Put the prefix into a cache. visual [1 + deeper, N, hidden] goes to the places of the pads among ``ids``; keys:
        what the tokens of each part depend on."""
        model = self._model
        token_ids = torch.tensor([ids], device=model.device)
        is_visual = token_ids == self._prompts.pad_id
        embeds = model.get_input_embeddings()(token_ids)
        embeds[is_visual] = visual[0].to(embeds)
        positions, next_position = self._positions(token_ids, grid)
        sources = _sources(ids, self._prompts.pad_id, keys, visual.shape[1] // len(keys))
        room = len(ids) + self._answer_room
        previous = store.reserve(room * self._token_nbytes)
        known = 0
        if previous is not None:
            same = takewhile(lambda pair: pair[0] == pair[1], zip(previous.sources, sources, strict=False))
            known = sum(1 for _ in same) // PREFIX_PIECE * PREFIX_PIECE
        cache = previous.cache.copy(known, room) if previous is not None and known else StaticCache(room)
        del previous
        for begin in range(known, len(ids), PREFIX_PIECE):
            piece = slice(begin, begin + PREFIX_PIECE)
            deeper = {}
            if visual.shape[0] > 1:
                among = slice(int(is_visual[:, :begin].sum()), int(is_visual[:, : piece.stop].sum()))
                if among.start < among.stop:
                    deeper = {
                        "visual_pos_masks": is_visual[:, piece],
                        "deepstack_visual_embeds": list(visual[1:, among]),
                    }
            self._model.model.language_model(
                inputs_embeds=embeds[:, piece],
                position_ids=positions[..., piece],
                past_key_values=cache,
                use_cache=True,
                **deeper,
            )
            yield "prefill"
        ids_used = tuple(dict.fromkeys(frame.frame_id for frame in frames))
        return Context(ids_used, cache, len(ids), next_position, sources)

    def _positions(self, token_ids: Tensor, grid: tuple[int, int, int]) -> tuple[Tensor, int]:
        """Positions [3, 1, L] or [1, L] of a prefix, and that of the token after it."""
        length = token_ids.shape[1]
        if self._how.family == "internvl":
            return torch.arange(length, device=token_ids.device)[None], length
        grids = torch.tensor([grid], device=token_ids.device)
        if self._how.family == "qwen3_vl":
            kinds = 2 * (token_ids == self._prompts.pad_id).int()
            positions, deltas = self._model.model.get_rope_index(
                token_ids, mm_token_type_ids=kinds, video_grid_thw=grids
            )
        else:
            vision = self._model.config.vision_config
            positions, deltas = rope_index(
                token_ids,
                image_token_id=self._model.config.image_token_id,
                video_token_id=self._prompts.pad_id,
                video_grid_thw=grids,
                second_per_grid_ts=[self._how.seconds_per_pair],
                tokens_per_second=vision.tokens_per_second,
                merge_size=vision.spatial_merge_size,
            )
        return positions, length + int(deltas[0])

    def writer(self, context: Context) -> Writer:
        """The language model going on from a context."""
        model, cache = self._model, context.cache
        embed, language_model = model.get_input_embeddings(), model.model.language_model

        def step(token_ids: Sequence[int]) -> Tensor:
            ids = torch.tensor([token_ids], device=model.device)
            begin = context.next_position + cache.length - context.length
            positions = torch.arange(begin, begin + len(token_ids), device=model.device)[None]
            if self._how.family != "internvl":
                positions = positions.expand(3, 1, -1)
            hidden = language_model(
                inputs_embeds=embed(ids), position_ids=positions, past_key_values=cache, use_cache=True
            ).last_hidden_state
            return model.lm_head(hidden[0, -1])

        return Writer(step, lambda: cache.length, cache.truncate)

    # Words.

    def chat_head(self, question: ModelQuestion) -> tuple[int, ...]:
        """Tokens of the first message of a question's chat."""
        return self._prompts.chat(question.chat[:1])

    def text_context(self, token_ids: Sequence[int], limits: Limits) -> Context:
        """A context of text alone, without frames."""
        context = Context((), StaticCache(len(token_ids) + self._answer_room), 0, 0)
        prefill(self.writer(context), token_ids, limits)
        context.length = context.next_position = len(token_ids)
        return context

    def allowed(self, schema: str) -> Allowed:
        """What may be written so that the whole is of a JSON Schema."""
        return JsonSchema(self._tokenizer, schema, self.end_ids, self._model.get_input_embeddings().num_embeddings)

    def question(self, question: ModelQuestion) -> QuestionTokens:
        """A question's tokens, which follow the prefix."""
        return self._prompts.question(question)

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text of tokens, without special ones."""
        return str(self._tokenizer.decode(token_ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    # The device.

    def memory(self) -> dict[str, int]:
        """Bytes of the weights, and those that this process has of a device with memory of its own."""
        held = {"weights": self._weights_nbytes}
        device = self._model.device
        if device.type == "cuda":
            held["device"] = torch.cuda.memory_reserved(device)
        return held

    @cached_property
    def _weights_nbytes(self) -> int:
        return n_bytes(self._model)

    def wait(self) -> None:
        """Until the device has done what it was told, so that a step is as long as it takes."""
        if self._model.device.type == "cuda":
            torch.cuda.synchronize(self._model.device)

    def free(self) -> None:
        """Give memory that nothing uses back to the device."""
        if self._model.device.type == "cuda":
            torch.cuda.empty_cache()


class _Images:
    """Frames resized to the size of a context, each once."""

    def __init__(self, how: FrameFormat, size: tuple[int, int]) -> None:
        self.size = size
        self._how = how
        self._resized: dict[int, Tensor] = {}

    def __call__(self, frame: ModelFrame) -> Tensor:
        """uint8 [3, H, W]."""
        if frame.frame_id not in self._resized:
            self._resized[frame.frame_id] = self._how.resize(frame.image, self.size)
        return self._resized[frame.frame_id]


def _sources(ids: Sequence[int], pad_id: int, keys: Sequence[Hashable], each: int) -> tuple[Hashable, ...]:
    """For each token of a prefix what it depends on: its id, or the key of the part that it stands for, ``each`` tokens
    of which follow each other."""
    visual = iter([key for key in keys for _ in range(each)])
    return tuple(next(visual) if token == pad_id else token for token in ids)
