"""Spatial-MLLM: Qwen2.5-VL whose visual tokens carry VGGT's spatial tokens (arXiv 2505.23747)."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoModelForImageTextToText, GenerationConfig, Qwen2_5_VLForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLModel

from spatial_mllm_ros.models.mllm.attention import set_attention
from spatial_mllm_ros.models.mllm.config import HEADS, MERGE_ORDERS, V1_0_ARCHITECTURE, SpatialMLLMConfig
from spatial_mllm_ros.models.mllm.connector import make_connector
from spatial_mllm_ros.models.mllm.positions import rope_index
from spatial_mllm_ros.models.vggt.aggregator import Aggregator
from spatial_mllm_ros.models.vggt.config import PATCH_START, VGGTConfig
from spatial_mllm_ros.models.vggt.processing import frames_of_patches
from spatial_mllm_ros.models.vggt.vggt import VGGT
from spatial_mllm_ros.models.weights import checkpoint as files
from spatial_mllm_ros.models.weights.checkpoint import Checkpoint, CheckpointError

Clips: TypeAlias = "Sequence[Tensor] | Tensor"
"""Frames [T, 3, H, W] in [0, 1] of every video: a list, or a tensor of one ([T, 3, H, W]) or of several alike."""


@dataclass
class SpatialMLLMOutput(CausalLMOutputWithPast):
    """What ``forward`` returns; rope_deltas [B, 1] as of ``positions.rope_index``."""

    rope_deltas: Tensor | None = None


class SpatialEncoder(nn.Module):
    """Holds VGGT under the name that the published checkpoints give it."""

    def __init__(self, config: SpatialMLLMConfig, vggt: VGGTConfig | None = None) -> None:
        super().__init__()
        self.vggt_model = VGGT(vggt or VGGTConfig.from_dict(config.spatial_config or {}), config.heads)

    @property
    def aggregator(self) -> Aggregator:
        """The part that answering needs."""
        return self.vggt_model.aggregator

    def keep_heads(self, heads: Collection[str]) -> None:
        """Drop all heads but these."""
        for head in HEADS:
            if head not in heads:
                setattr(self.vggt_model, f"{head}_head", None)


class SpatialMLLMModel(Qwen2_5_VLModel):
    """The part of Spatial-MLLM without the head: embeddings, both encoders, fusion, language model.

    Trainers compute their losses through this model and the head (``base_model``), never through the outer ``forward``; so
    the fusion is here. VGGT and the connector belong to the outer model, under the names of the published checkpoints,
    and are used from there.
    """

    config: SpatialMLLMConfig
    rope_deltas: Tensor | None

    def bind(self, outer: SpatialMLLMForConditionalGeneration) -> None:
        """Take VGGT and the connector from ``outer``, whichever modules it has under these names."""
        object.__setattr__(self, "_outer", outer)  # no submodule: its parameters would have two names

    @property
    def connector(self) -> Any:
        """The outer model's."""
        return self._outer.connector

    @property
    def spatial_encoder(self) -> Any:
        """The outer model's."""
        return self._outer.spatial_encoder

    def encode_2d(self, pixel_values: Tensor, grid_thw: Tensor) -> Tensor:
        """Normalised patches [sum t*h*w, 1176] of videos with grids [n, 3] to visual tokens [sum t*h*w/4, hidden]."""
        pixel_values = pixel_values.to(device=self.visual.device, dtype=self.visual.dtype)
        return self.visual(pixel_values, grid_thw=grid_thw.to(pixel_values.device)).pooler_output

    def encode_pair_2d(self, pixel_values: Tensor, grid_thw: Tensor | Sequence[int]) -> Tensor:
        """Patches [h*w, 1176] of one frame pair with grid [1, h, w] to visual tokens [h*w/4, hidden].

        Frame pairs do not see each other in the 2D encoder: pair by pair gives what the whole video does, but for
        rounding. Raises ValueError for a grid of more than one pair.
        """
        grid = torch.as_tensor(grid_thw).reshape(-1, 3)
        if grid.shape[0] != 1 or int(grid[0, 0]) != 1:
            raise ValueError(f"one frame pair has a grid [1, h, w], not {grid.tolist()}")
        return self.encode_2d(pixel_values, grid)

    def encode_3d(self, frames: Tensor) -> Tensor:
        """Frames [T, 3, H, W] in [0, 1] to the spatial tokens that the connector takes, [T, patches, 2 * embed_dim]."""
        aggregator = self.spatial_encoder.aggregator
        layer = self.config.spatial_layer
        frames = frames.to(device=self.visual.device, dtype=self.visual.dtype)  # rounded before they are normalised
        tokens = aggregator.frame_tokens(frames)
        return aggregator.aggregate(tokens, (frames.shape[-2], frames.shape[-1]), (layer,))[layer][:, PATCH_START:]

    def fuse(self, video_embeds: Tensor, spatial_tokens: Tensor, grid_thw: Tensor | Sequence[int]) -> Tensor:
        """Visual tokens [t*h*w/4, hidden] plus the projected spatial tokens [2t, h*w, 2 * embed_dim] of the same frames.

        grid_thw: [t, h, w]. Returns [t*h*w/4, hidden]. Raises ValueError where the sizes do not belong together.
        """
        t, h, w = (int(n) for n in torch.as_tensor(grid_thw).reshape(-1).tolist())
        expected = (t * self.connector.temporal, h * w)
        if tuple(spatial_tokens.shape[:2]) != expected:
            raise ValueError(
                f"spatial tokens of {spatial_tokens.shape[0]} frames with {spatial_tokens.shape[1]} patches do not fit the "
                f"grid {[t, h, w]}, which has {expected[0]} frames with {expected[1]}: give both encoders the same frames"
            )
        return video_embeds + self.connector(spatial_tokens, (h, w)).to(video_embeds.device)

    def encode_videos(
        self, pixel_values: Tensor, grid_thw: Tensor, clips: Clips | None = None, *, still: bool = False
    ) -> Tensor:
        """Fused tokens [sum t*h*w/4, hidden] of videos, or with ``still`` of images, in the order of their grids [n, 3].

        clips None: the frames are recovered from the patches, as a stock processor normalises and cuts them. A clip may
        span several grids of the same h and w, which then are looked at together. An image is one frame to v1.0, which
        doubles its spatial tokens; v1.1 takes it as a clip of two frames.
        """
        embeds = self.encode_2d(pixel_values, grid_thw)
        if embeds.shape[0] == 0:
            return embeds
        doubled = still and self.config.connector_type == "token_merge"
        if clips is None:
            clips = self._recovered(pixel_values, grid_thw, every=self.connector.temporal if doubled else 1)
        fused, start = [], 0
        for frames, grid in _clips_and_grids(clips, grid_thw, 1 if doubled else self.connector.temporal):
            spatial = self.encode_3d(frames)
            if doubled:
                spatial = spatial.repeat_interleave(self.connector.temporal, dim=0)
            length = grid[0] * grid[1] * grid[2] // self.connector.spatial**2
            fused.append(self.fuse(embeds[start : start + length], spatial, grid))
            start += length
        return torch.cat(fused)

    def get_rope_index(
        self,
        input_ids: Tensor,
        image_grid_thw: Tensor | None = None,
        video_grid_thw: Tensor | None = None,
        second_per_grid_ts: Tensor | Sequence[float] | None = None,
        attention_mask: Tensor | None = None,
        **_: Any,
    ) -> tuple[Tensor, Tensor]:
        """Positions [3, B, L] and deltas [B, 1] of a batch: ``positions.rope_index`` with this model's tokens."""
        return rope_index(
            input_ids,
            image_token_id=self.config.image_token_id,
            video_token_id=self.config.video_token_id,
            image_grid_thw=image_grid_thw,
            video_grid_thw=video_grid_thw,
            second_per_grid_ts=second_per_grid_ts,
            attention_mask=attention_mask,
            tokens_per_second=self.config.vision_config.tokens_per_second,
            merge_size=self.config.vision_config.spatial_merge_size,
        )

    def _recovered(self, pixel_values: Tensor, grid_thw: Tensor, every: int) -> list[Tensor]:
        """The clips that patches were cut from, of each grid; of the frames every ``every``-th."""
        vision = self.config.vision_config
        sizes = {"patch_size": vision.patch_size, "merge_size": vision.spatial_merge_size}
        lengths = [int(n) for n in grid_thw.prod(-1).tolist()]
        return [
            frames_of_patches(patches, tuple(grid), **sizes)[::every]
            for patches, grid in zip(pixel_values.split(lengths), grid_thw.tolist(), strict=True)
        ]

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        pixel_values: Tensor | None = None,
        pixel_values_videos: Tensor | None = None,
        image_grid_thw: Tensor | None = None,
        video_grid_thw: Tensor | None = None,
        image_tchw: Clips | None = None,
        video_tchw: Clips | None = None,
        rope_deltas: Tensor | None = None,
        second_per_grid_ts: Tensor | Sequence[float] | None = None,
        mm_token_type_ids: Tensor | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """Hidden states of every token; see SpatialMLLMForConditionalGeneration.forward."""
        if inputs_embeds is None:
            if input_ids is None:
                raise ValueError("give input_ids or inputs_embeds")
            inputs_embeds = self.get_input_embeddings()(input_ids)
            if pixel_values is not None:
                grid = _needed(image_grid_thw, "image_grid_thw", "pixel_values")
                fused = self.encode_videos(pixel_values, grid, image_tchw, still=True)
                inputs_embeds = _scattered(inputs_embeds, input_ids == self.config.image_token_id, fused, "image")
            if pixel_values_videos is not None:
                grid = _needed(video_grid_thw, "video_grid_thw", "pixel_values_videos")
                fused = self.encode_videos(pixel_values_videos, grid, video_tchw)
                inputs_embeds = _scattered(inputs_embeds, input_ids == self.config.video_token_id, fused, "video")
        if position_ids is None and (attention_mask is None or attention_mask.ndim == 2):
            past = 0 if past_key_values is None else int(past_key_values.get_seq_length())
            if past > 0:
                deltas = self.rope_deltas if rope_deltas is None else rope_deltas
                position_ids = _decoding_positions(past, inputs_embeds, deltas)
            elif input_ids is not None:
                position_ids, self.rope_deltas = self.get_rope_index(
                    input_ids, image_grid_thw, video_grid_thw, second_per_grid_ts, attention_mask
                )
            else:
                position_ids, self.rope_deltas = _embedded_positions(inputs_embeds, attention_mask)
        kwargs.pop("return_dict", None)
        outputs = self.language_model(
            input_ids=None,
            inputs_embeds=inputs_embeds,
            position_ids=position_ids,
            attention_mask=attention_mask,
            past_key_values=past_key_values,
            use_cache=use_cache,
            **kwargs,
        )
        return BaseModelOutputWithPast(
            last_hidden_state=outputs.last_hidden_state,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )


class SpatialMLLMForConditionalGeneration(Qwen2_5_VLForConditionalGeneration):
    """Spatial-MLLM v1.1, or v1.0 where the configuration says so. ``generate`` is that of transformers.

    A video is given as tokens of ``input_ids`` (one for each 2x2x2 block of patches) and as patches normalised for
    Qwen2.5-VL (``pixel_values_videos``, ``video_grid_thw``), as a stock processor makes them. The frames that were cut into
    patches may be given too (``video_tchw``); else they are recovered from the patches. Text without videos needs none.

    Built from a configuration it has all the heads of VGGT that this names; ``from_pretrained`` keeps those asked for.
    """

    config_class = SpatialMLLMConfig
    config: SpatialMLLMConfig

    def __init__(self, config: SpatialMLLMConfig, vggt: VGGTConfig | None = None) -> None:
        """vggt: sizes of VGGT, where there is more to them than ``spatial_config`` says (its tracking head)."""
        super(Qwen2_5_VLForConditionalGeneration, self).__init__(config)  # which would make a base model of its own
        self.model = SpatialMLLMModel(config)
        text = config.get_text_config()
        self.lm_head = nn.Linear(text.hidden_size, text.vocab_size, bias=False)
        self.post_init()
        self.spatial_encoder = SpatialEncoder(config, vggt)
        self.connector = make_connector(config)
        self.model.bind(self)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | PathLike[str],
        *,
        config: SpatialMLLMConfig | None = None,
        dtype: torch.dtype | str | None = None,
        torch_dtype: torch.dtype | str | None = None,
        device_map: Any = None,
        attn_implementation: str | None = None,
        heads: Collection[str] = (),
        progress: files.Progress | None = None,
        after: Callable[[nn.Module, str], None] | None = None,
        **ignored: Any,
    ) -> SpatialMLLMForConditionalGeneration:
        """Load a checkpoint of v1.1 or v1.0: a folder, or an id on the hub that was downloaded.

        All names and shapes are compared before anything is loaded. dtype, torch_dtype: of the weights; "auto" and None
        are that of the checkpoint. device_map: a device, or "auto", the first CUDA device if there is one. heads: of VGGT,
        which to keep (none are needed to answer). after: called with each module and its name once its weights are there.
        Arguments of transformers that say where files come from or how to save memory make no difference here.
        Raises CheckpointError (a ValueError and ModelUnavailable) that says what is wrong with the files; TypeError for an
        argument that is not known.
        """
        if unknown := sorted(name for name in ignored.keys() - _WITHOUT_EFFECT if ignored[name]):
            raise TypeError(f"from_pretrained does not take {', '.join(unknown)}")
        found = files.read_checkpoint(pretrained_model_name_or_path)
        config = config_of(found, config)
        if unknown := sorted(set(heads) - set(config.heads)):
            raise CheckpointError(
                f"{found.folder} has no heads {', '.join(unknown)}, only {', '.join(config.heads) or 'none'}"
            )
        with torch.device("meta"):
            model = cls(config, _vggt_config(found, config))
        tied = {_HEAD: _EMBEDDING} if config.tie_word_embeddings else {}
        files.compare(found, files.shapes_of(model), tied)
        model.spatial_encoder.keep_heads(heads)
        kept = [head for head in config.heads if head in heads]
        model.config.spatial_config = {**(config.spatial_config or {}), "heads": kept}
        asked = dtype if dtype is not None else torch_dtype
        dtype = _dtype(asked, found)
        device = _device(device_map)
        files.load_tensors(found, model, dtype=dtype, device=device, tied=tied, after=after, progress=progress)
        files.fill_buffers(model, device)
        model.config.dtype = dtype
        if (found.folder / "generation_config.json").is_file():
            model.generation_config = GenerationConfig.from_pretrained(found.folder)
        if attn_implementation is not None:
            set_attention(model, attn_implementation)
        return model.eval()

    def save_pretrained(self, save_directory: str | PathLike[str], max_shard_size: int | str = "5GB", **_: Any) -> None:
        """Write a checkpoint in the official layout: what the published code reads, and ``from_pretrained``.

        Only what is in memory is written: where heads of VGGT were dropped, ``spatial_config`` lists those that are there
        in ``heads`` (the published code then warns that the others are new; it does not use them to answer).
        Raises CheckpointError for quantised weights.
        """
        if getattr(self, "quantized", None):
            raise CheckpointError(
                f"weights in {self.quantized} cannot be saved: load the checkpoint in bfloat16 to save it"
            )
        folder = Path(save_directory)
        is_v1_0 = self.config.merge_order == MERGE_ORDERS[1]
        layout = files.LAYOUTS[1 if is_v1_0 else 0]
        tensors = dict(self.state_dict())
        if self.config.tie_word_embeddings:
            del tensors[_HEAD]
        files.save_tensors(folder, tensors, layout=layout, max_shard_bytes=_n_bytes(max_shard_size))
        values = self.config.published_dict()
        values["torch_dtype"] = str(self.dtype).removeprefix("torch.")
        values["architectures"] = [V1_0_ARCHITECTURE if is_v1_0 else type(self).__name__]
        if is_v1_0:
            values["model_type"] = "qwen2_5_vl"
        (folder / files.CONFIG_FILE).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
        self.generation_config.save_pretrained(folder)

    @property
    def visual(self) -> nn.Module:
        """The 2D encoder with its merger."""
        return self.model.visual

    @property
    def language_model(self) -> nn.Module:
        """The language model without its head ``lm_head``."""
        return self.model.language_model

    def embed(self, input_ids: Tensor) -> Tensor:
        """Token ids [...] to embeddings [..., hidden]; those of visual tokens are placeholders."""
        return self.model.get_input_embeddings()(input_ids)

    def encode_2d(self, pixel_values: Tensor, grid_thw: Tensor) -> Tensor:
        """See SpatialMLLMModel."""
        return self.model.encode_2d(pixel_values, grid_thw)

    def encode_pair_2d(self, pixel_values: Tensor, grid_thw: Tensor | Sequence[int]) -> Tensor:
        """See SpatialMLLMModel."""
        return self.model.encode_pair_2d(pixel_values, grid_thw)

    def encode_3d(self, frames: Tensor) -> Tensor:
        """See SpatialMLLMModel."""
        return self.model.encode_3d(frames)

    def fuse(self, video_embeds: Tensor, spatial_tokens: Tensor, grid_thw: Tensor | Sequence[int]) -> Tensor:
        """See SpatialMLLMModel."""
        return self.model.fuse(video_embeds, spatial_tokens, grid_thw)

    def encode_videos(
        self, pixel_values: Tensor, grid_thw: Tensor, clips: Clips | None = None, *, still: bool = False
    ) -> Tensor:
        """See SpatialMLLMModel."""
        return self.model.encode_videos(pixel_values, grid_thw, clips, still=still)

    def get_rope_index(self, input_ids: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """See SpatialMLLMModel."""
        return self.model.get_rope_index(input_ids, *args, **kwargs)

    @property
    def rope_deltas(self) -> Tensor | None:
        """[B, 1], of the last call that began a sequence; see ``positions.rope_index``."""
        return self.model.rope_deltas

    @rope_deltas.setter
    def rope_deltas(self, deltas: Tensor | None) -> None:
        self.model.rope_deltas = deltas

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        pixel_values: Tensor | None = None,
        pixel_values_videos: Tensor | None = None,
        image_grid_thw: Tensor | None = None,
        video_grid_thw: Tensor | None = None,
        image_tchw: Clips | None = None,
        video_tchw: Clips | None = None,
        rope_deltas: Tensor | None = None,
        cache_position: Tensor | None = None,
        second_per_grid_ts: Tensor | Sequence[float] | None = None,
        images_input: Clips | None = None,
        videos_input: Clips | None = None,
        mm_token_type_ids: Tensor | None = None,
        logits_to_keep: int | Tensor = 0,
        **kwargs: Any,
    ) -> SpatialMLLMOutput | tuple[Any, ...]:
        """Logits of every token. The names are those of the published code, v1.0's (``videos_input``) included.

        rope_deltas: of an earlier call, where the cache was not filled by the last one. cache_position and
        mm_token_type_ids are accepted and not needed. Raises ValueError where inputs do not belong together.
        """
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            pixel_values=pixel_values,
            pixel_values_videos=pixel_values_videos,
            image_grid_thw=image_grid_thw,
            video_grid_thw=video_grid_thw,
            image_tchw=images_input if image_tchw is None else image_tchw,
            video_tchw=videos_input if video_tchw is None else video_tchw,
            rope_deltas=rope_deltas,
            second_per_grid_ts=second_per_grid_ts,
            **kwargs,
        )
        hidden = outputs.last_hidden_state
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(hidden[:, kept])
        loss = None
        if labels is not None:
            predictions, targets = logits[:, :-1].float().flatten(0, 1), labels[:, 1:].flatten().to(logits.device)
            loss = functional.cross_entropy(predictions, targets)  # -100 is ignored
        result = SpatialMLLMOutput(
            loss=loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            rope_deltas=self.rope_deltas,
        )
        return result.to_tuple() if return_dict is False else result

    def prepare_inputs_for_generation(
        self,
        input_ids: Tensor,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        is_first_iteration: bool | None = False,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Inputs of one step of ``generate``: the visual ones at the first step only, unless there is no cache."""
        inputs = super().prepare_inputs_for_generation(
            input_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            is_first_iteration=is_first_iteration,
            **kwargs,
        )
        if not is_first_iteration and kwargs.get("use_cache", True):
            for name in _VISUAL_INPUTS:
                inputs.pop(name, None)
        return inputs

    def _prepare_position_ids_for_generation(self, inputs_tensor: Tensor, model_kwargs: dict[str, Any]) -> Tensor:
        """Positions [3, B, L] of everything that ``generate`` starts from; it counts on from the last of them."""
        given = model_kwargs.get("input_ids")
        ids = given if given is not None and given.shape[1] > 0 else inputs_tensor
        cache = model_kwargs.get("past_key_values")
        past = 0 if cache is None else int(cache.get_seq_length())
        visual = any(model_kwargs.get(name) is not None for name in _VISUAL_INPUTS)
        if past > 0 and not visual:  # a text that goes on
            deltas = model_kwargs.get("rope_deltas")
            return _decoding_positions(0, ids, self.rope_deltas if deltas is None else deltas)
        if ids.is_floating_point():
            positions, self.rope_deltas = _embedded_positions(ids, model_kwargs.get("attention_mask"))
            return positions
        names = ("image_grid_thw", "video_grid_thw", "second_per_grid_ts", "attention_mask")
        positions, self.rope_deltas = self.get_rope_index(ids, **{name: model_kwargs.get(name) for name in names})
        return positions


_HEAD, _EMBEDDING = "lm_head.weight", "model.language_model.embed_tokens.weight"
_WITHOUT_EFFECT = {"cache_dir", "force_download", "local_files_only", "low_cpu_mem_usage", "revision", "token"} | {
    "trust_remote_code",
    "use_safetensors",
}
_VISUAL_INPUTS = (
    "pixel_values",
    "pixel_values_videos",
    "image_tchw",
    "video_tchw",
    "images_input",
    "videos_input",
)


def config_of(found: Checkpoint, given: SpatialMLLMConfig | None = None) -> SpatialMLLMConfig:
    """The configuration of a checkpoint; the names of its tensors tell v1.0 from v1.1."""
    values = found.config if given is None else given.to_dict()
    names = found.shapes()
    if values.get("model_type") != SpatialMLLMConfig.model_type and not any(
        n.startswith("spatial_encoder.") for n in names
    ):
        raise CheckpointError(
            f"{found.folder} holds a model of type {values.get('model_type')!r} without a spatial encoder, not a "
            "Spatial-MLLM: name another checkpoint, or load it as a plain model"
        )
    values = {**values, "model_type": SpatialMLLMConfig.model_type}
    if found.layout == files.LAYOUTS[1]:
        merges = "connector.token_merge_ln_q.weight" in names
        connector = {"connector_type": "token_merge" if merges else "mlp_add", "merge_order": MERGE_ORDERS[1]}
        values |= {"architectures": [V1_0_ARCHITECTURE], "connector_config": connector}
    return SpatialMLLMConfig.from_dict(values)


def _vggt_config(found: Checkpoint, config: SpatialMLLMConfig) -> VGGTConfig:
    sizes = VGGTConfig.from_dict(config.spatial_config or {})
    return (
        sizes.with_tracker_of(found.shapes(), "spatial_encoder.vggt_model.track_head.")
        if "track" in config.heads
        else sizes
    )


def _dtype(asked: torch.dtype | str | None, found: Checkpoint) -> torch.dtype:
    if isinstance(asked, torch.dtype):
        return asked
    if asked in (None, "auto"):
        asked = found.config.get("torch_dtype") or found.config.get("dtype")
        if asked is None:
            return files.DTYPES[next(iter(found.tensors.values())).dtype]
    dtype = getattr(torch, str(asked).removeprefix("torch."), None)
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise ValueError(f"{asked!r} is not a type for weights: choose float32, bfloat16 or float16")
    return dtype


def _device(device_map: Any) -> torch.device:
    if isinstance(device_map, dict):
        if len(set(map(str, device_map.values()))) != 1:
            raise ValueError(f"device_map {device_map} spreads the model over devices: name one device")
        device_map = next(iter(device_map.values()))
    if device_map is None:
        return torch.device("cpu")
    if device_map == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(device_map)


def _n_bytes(size: int | str) -> int:
    if isinstance(size, int):
        return size
    number, unit = size[:-2], size[-2:].upper()
    return int(float(number) * {"KB": 1e3, "MB": 1e6, "GB": 1e9}[unit])


def _needed(value: Any, name: str, beside: str) -> Any:
    if value is None:
        raise ValueError(f"{beside} needs {name} beside it")
    return value


def _decoding_positions(past: int, tokens: Tensor, deltas: Tensor | None) -> Tensor:
    """Positions [3, B, L] of text at places ``past`` and following; tokens: [B, L, ...]."""
    batch, length = tokens.shape[:2]
    positions = torch.arange(past, past + length, device=tokens.device).expand(batch, -1)
    if deltas is not None:
        positions = positions + deltas.to(tokens.device).repeat_interleave(batch // len(deltas), dim=0)
    return positions.expand(3, -1, -1)


def _embedded_positions(embeds: Tensor, attention_mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Positions [3, B, L] and deltas [B, 1] of embeddings [B, L, hidden], of which nobody knows what they are of: text."""
    mask = (
        torch.ones(embeds.shape[:2], dtype=torch.long, device=embeds.device)
        if attention_mask is None
        else attention_mask
    )
    positions = (mask.long().cumsum(-1) - 1).clamp(min=0)
    return positions.expand(3, -1, -1), positions[:, -1:] + 1 - positions.shape[1]


def _scattered(inputs_embeds: Tensor, mask: Tensor, fused: Tensor, kind: str) -> Tensor:
    """The embeddings with the fused tokens in the places of ``mask`` [B, L]."""
    places = int(mask.sum())
    if places != len(fused):
        raise ValueError(f"the text has {places} {kind} tokens, the {kind}s have {len(fused)}: they must be as many")
    mask = mask[..., None].expand_as(inputs_embeds).to(inputs_embeds.device)
    return inputs_embeds.masked_scatter(mask, fused.to(inputs_embeds))


def _clips_and_grids(clips: Clips, grid_thw: Tensor, frames_per_step: int) -> Iterator[tuple[Tensor, list[int]]]:
    """Each clip [T, 3, H, W] with its grid [t, h, w]; t is that of all the rows of ``grid_thw`` that it spans."""
    if isinstance(clips, Tensor) and clips.ndim == 4:
        clips = [clips]
    rows = [[int(n) for n in row] for row in grid_thw.tolist()]
    used = 0
    for number, clip in enumerate(clips):
        frames = clip[None] if clip.ndim == 3 else clip
        steps, remainder = divmod(len(frames), frames_per_step)
        if remainder or steps == 0:
            raise ValueError(
                f"clip {number} has {len(frames)} frames, which is not a multiple of {frames_per_step}: the model looks at "
                "frames in pairs, so leave one out, or give a still image twice"
            )
        spanned, total = [], 0
        while total < steps and used < len(rows):
            spanned.append(rows[used])
            total += rows[used][0]
            used += 1
        if total != steps or any(row[1:] != spanned[0][1:] for row in spanned):
            raise ValueError(f"clip {number} of {len(frames)} frames does not fit the grids {spanned} of the patches")
        yield frames, [total, *spanned[0][1:]]
    if used != len(rows):
        raise ValueError(f"there are frames for {used} of {len(rows)} grids: give the frames of every video")


AutoModelForImageTextToText.register(SpatialMLLMConfig, SpatialMLLMForConditionalGeneration)
