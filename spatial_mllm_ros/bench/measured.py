"""A model that is measured: made of random weights or loaded, and asked the way the published script does it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers import StoppingCriteria

from spatial_mllm_ros.models.mllm.encoder import VideoEncoder
from spatial_mllm_ros.models.mllm.engine import ModelEngine
from spatial_mllm_ros.models.mllm.loading import load_model
from spatial_mllm_ros.models.mllm.prompts import Prompts
from spatial_mllm_ros.models.mllm.random_weights import SIZES, build_random_model, make_config, make_tokenizer
from spatial_mllm_ros.models.vggt.processing import FrameFormat, frame_format, video_inputs
from spatial_mllm_ros.models.weights import precision as precisions
from spatial_mllm_ros.serving.interface import ModelFrame, ModelOptions, ModelQuestion

MIB = 1 << 20
VGGT: dict[str, Any] = {"vggt_layers": 2, "vggt_dim": 128, "vggt_heads": 2, "dino_layers": 4, "vision_layers": 4}
"""Sizes of the encoders: small enough for a CPU, where attention across all frames would take minutes otherwise."""


@dataclass(frozen=True)
class Answered:
    """A question's cost: seconds to the first token and altogether. tokens: what was said."""

    first_s: float
    total_s: float
    tokens: tuple[int, ...]

    @property
    def decode_rate(self) -> float:
        """Tokens a second, after the first."""
        return (len(self.tokens) - 1) / (self.total_s - self.first_s) if len(self.tokens) > 1 else 0.0


@dataclass(frozen=True, eq=False)
class Measured:
    """A model and what it takes to ask it. random: nobody trained it."""

    model: Any
    encoder: VideoEncoder
    prompts: Prompts
    how: FrameFormat
    options: ModelOptions
    random: bool

    def __post_init__(self) -> None:
        if self.options.threads:
            torch.set_num_threads(self.options.threads)

    @property
    def threads(self) -> int:
        """Of the CPU."""
        return torch.get_num_threads()

    @property
    def exact(self) -> bool:
        """Whether rounding is fine enough for tokens to be the same in whichever pieces things are computed."""
        return bool(self.model.dtype == torch.float32)

    def engine(self) -> ModelEngine:
        """A new one, with nothing encoded."""
        return ModelEngine(self.encoder, self.options)

    def published(self, question: ModelQuestion, frames: Sequence[ModelFrame]) -> Answered:
        """As the published script asks, but greedily: everything anew, transformers' ``generate`` with its own cache."""
        start = time.perf_counter()
        device, how = self.model.device, self.how
        inputs: dict[str, Any] = dict(video_inputs(frames, how))
        size = how.size([(frame.image.shape[0], frame.image.shape[1]) for frame in frames])
        prefix = self.prompts.prefix(how, [frame.stamp_ns for frame in frames], size)
        ids = torch.tensor([[*prefix, *self.prompts.question(question).ids]], device=device)
        if how.family.startswith("qwen"):
            inputs["mm_token_type_ids"] = 2 * (ids == self.prompts.pad_id).int()
        first = _FirstToken()
        with torch.inference_mode():
            output = self.model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                **{name: value.to(device) for name, value in inputs.items()},
                do_sample=False,
                max_new_tokens=self.options.max_new_tokens,
                stopping_criteria=[first],
                pad_token_id=0,
            )
            said = tuple(output[0, ids.shape[1] :].tolist())
        return Answered(first.at - start, time.perf_counter() - start, said)

    def decode_limit(self) -> float:
        """Tokens a second if reading the language model's weights from memory, once a token, were all there is to do."""
        language_model = self.model.model.language_model
        weights = precisions.n_bytes(torch.nn.ModuleList([language_model.layers, self.model.lm_head]))
        source = torch.ones(64 * MIB, dtype=torch.float32, device=self.model.device)
        times = []
        for _ in range(5):
            start = time.perf_counter()
            float(source.sum())
            times.append(time.perf_counter() - start)
        return source.nbytes / min(times) / weights


class _FirstToken(StoppingCriteria):
    """Notes when ``generate`` has its first token."""

    at = 0.0

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        if not self.at:
            input_ids[0, -1].item()  # waits for a device that is behind
            self.at = time.perf_counter()
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)


def load_measured(options: ModelOptions) -> Measured:
    """A checkpoint. Raises ModelUnavailable."""
    loaded = load_model(options)
    encoder = VideoEncoder(loaded.model, loaded.tokenizer, loaded.prompts, loaded.format, loaded.model_id, options)
    return Measured(loaded.model, encoder, loaded.prompts, loaded.format, options, loaded.random_weights)


def random_measured(layers: int, hidden: int, options: ModelOptions, *, full: bool = False) -> Measured:
    """A Spatial-MLLM that nobody trained. full: of the size of the published ones; layers and hidden do not count then.

    options.model does not count. Raises ModelUnavailable for a device or a precision that does not work here.
    """
    device = precisions.choose_device(options.device)
    precision = precisions.choose_precision(options.precision, device)
    tokenizer = make_tokenizer()
    heads = max(hidden // 64, 2)
    size = replace(
        SIZES["small"],
        layers=layers,
        hidden=hidden,
        attention_heads=heads,
        kv_heads=heads // 6 if heads % 6 == 0 else 1,
        intermediate=hidden * 8 // 3 // 64 * 64,
        **VGGT,
    )
    config = make_config(SIZES["full"] if full else size, tokenizer)
    model = build_random_model(config, precisions.base_dtype(precision), device)
    if precision in precisions.QUANTISED:
        precisions.quantise(model, precision, device)
    model.generation_config.eos_token_id = None  # where an answer ends is chance: all are equally long
    how, prompts = frame_format("spatial-mllm", options), Prompts(tokenizer, "spatial-mllm")
    encoder = VideoEncoder(model, tokenizer, prompts, how, f"random weights {precision} {device.type}", options)
    encoder.end_ids = ()
    return Measured(model, encoder, prompts, how, options, random=True)
